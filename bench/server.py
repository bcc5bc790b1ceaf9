"""How fast the server is: from nothing to ready, while it takes orders, while it is asked how far they are, and from
the moment a film is cancelled to the beginning of the next.

python bench/server.py [--only starts creates polls cancels] [--seconds 20] [--json]

`cine serve --workers 1` runs in a home of its own. One film of ten minutes is made all the while, so that the worker is
busy with it; what is ordered beside it is of the toy model, has the lowest priority, and waits. Orders come at a fixed
rate, whether or not the ones before are answered, and the time of each counts from the moment it was due. Who asks
are other processes, each with a key and an address of its own (127.0.0.2 ...), for one caller and one address are
held to a pace.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cinecanvas.jobs.database import Database
from cinecanvas.jobs.keys import Keys
from cinecanvas.settings import settings

PARTS = ("starts", "creates", "polls", "cancels")
FILM = {
    "task": "text_to_video",
    "prompt": "a red ball bounces on grass at sunset",
    "seconds": 600.0,
    "model": "diorama",
}
TINY = {"task": "text_to_video", "prompt": "a red ball", "seconds": 1.0, "model": "toy"}
PATIENCE = 60.0  # s


@dataclass(frozen=True)
class Server:
    """A server that runs: its port, and a key for each of those that ask."""

    port: int
    keys: tuple[str, ...]

    def ask(self, method: str, path: str, body: Any = None, *, who: int = 0) -> Any:
        """One answer, on a connection of its own; the key is always the first."""
        with Line(self.port, self.keys[0], who) as line:
            return line.ask(method, path, body)


class Line:
    """A connection that stays open, from an address of its own."""

    def __init__(self, port: int, key: str, who: int) -> None:
        self._heads = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self._line = http.client.HTTPConnection("127.0.0.1", port, 30.0, (f"127.0.0.{2 + who}", 0))

    def __enter__(self) -> Line:
        self._line.connect()
        assert self._line.sock is not None
        self._line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What is answered, as it was meant to be."""
        self._line.request(method, path, None if body is None else json.dumps(body), self._heads)
        answer = self._line.getresponse()
        said = answer.read()
        assert answer.status < 300, f"{method} {path}: {answer.status} {said[:300]!r}"
        return json.loads(said) if said else None


@contextmanager
def serving(home: Path, *, people: int = 16) -> Iterator[tuple[Server, float]]:
    """A server for as long as this lasts, and the seconds until it was ready."""
    environment = {**os.environ, "CINECANVAS_HOME": str(home), "OMP_NUM_THREADS": "1"}
    database = Database.at(settings(environment).database)
    database.migrate()
    keys = tuple(Keys(database).make(f"bench-{who}") for who in range(people))
    database.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "cinecanvas.cli", "serve", "--port", str(port), "--workers", "1"]
    began = time.monotonic()
    with (home / "serve.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        server = Server(port, keys)
        while not _ready(server):
            assert process.poll() is None and time.monotonic() - began < PATIENCE, (home / "serve.log").read_text()
            time.sleep(0.01)
        yield server, time.monotonic() - began
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _ready(server: Server) -> bool:
    try:
        server.ask("GET", "/readyz")
    except OSError:
        return False
    return True


def starts(count: int) -> dict[str, Any]:
    """Seconds from the command to the first answer of /readyz; the first of them in an empty home."""
    with tempfile.TemporaryDirectory() as home:
        seconds = []
        for _ in range(count):
            with serving(Path(home), people=1) as (_, took):
                seconds.append(took)
    return {"seconds": [round(one, 2) for one in seconds], "median": round(statistics.median(seconds), 2)}


@contextmanager
def filming(server: Server) -> Iterator[str]:
    """A film that is being made: it denoises when this begins, and is cancelled when it ends."""
    job = server.ask("POST", "/api/v1/jobs?priority=1000", FILM)["id"]
    until(server, job, lambda view: view["step"] > 1)
    try:
        yield job
    finally:
        server.ask("POST", f"/api/v1/jobs/{job}/cancel")


def until(server: Server, job: str, right: Any) -> Any:
    """A look at a job as soon as it is so."""
    began = time.monotonic()
    while not right(view := server.ask("GET", f"/api/v1/jobs/{job}", who=1)):
        assert time.monotonic() - began < PATIENCE and not view["finished"], view
        time.sleep(0.02)
    return view


def creates(server: Server, *, rate: float, seconds: float) -> dict[str, Any]:
    """Milliseconds to the answer of an order, at so many orders a second."""
    with filming(server) as job:
        step = running(server, job)
        [took] = loads("create", server, ["4,5,6,7,8,9,10,11"], rate, seconds)
        steps = running(server, job) - step
    found = {"orders": len(took), **percentiles(took), "steps of the film per second": round(steps / seconds, 2)}
    return found


def polls(server: Server, *, seconds: float) -> dict[str, Any]:
    """Looks of 16, each at a job of its own that waits, without a pause; and what that costs the film."""
    with filming(server) as job:
        alone = pace(server, job, seconds)
        marks: list[float] = []
        beside = threading.Thread(target=lambda: marks.append(pace(server, job, seconds)))
        beside.start()
        groups = [",".join(map(str, range(first, 16, 4))) for first in range(4)]
        took = [one for group in loads("poll", server, groups, 0.0, seconds) for one in group]
        beside.join()
    looks = round(len(took) / seconds)
    speeds = {"film steps/s alone": round(alone, 2), "film steps/s beside it": round(marks[0], 2)}
    return {"per second": looks, **percentiles(took), **speeds, "slowdown": round(alone / max(marks[0], 1e-9), 2)}


def pace(server: Server, job: str, seconds: float) -> float:
    """Denoising steps per second of a job, which must not end meanwhile: a worker at rest would be measured."""
    before, began = running(server, job), time.monotonic()
    time.sleep(seconds)
    return (running(server, job) - before) / (time.monotonic() - began)


def running(server: Server, job: str) -> int:
    """The steps that a job has made, which is not at its end yet."""
    view = server.ask("GET", f"/api/v1/jobs/{job}")
    assert view["state"] == "running" and view["step"] < view["steps"], "the film ended before it was measured"
    return int(view["step"])


def cancels(server: Server, *, count: int) -> dict[str, Any]:
    """Seconds from the cancelling of a film in the middle of a step to the worker's beginning with the next job."""
    seconds, step = [], 0.0
    for number in range(count):
        job = server.ask("POST", "/api/v1/jobs?priority=1000", FILM)["id"]
        first = until(server, job, lambda view: view["step"] > 1)["step"]
        began = time.monotonic()
        last = until(server, job, lambda view, first=first: view["step"] > first + 1)["step"]
        step = max(step, (time.monotonic() - began) / (last - first))
        after = server.ask("POST", "/api/v1/jobs?priority=999", TINY)["id"]
        time.sleep(0.037 * number)  # somewhere in a step
        began = time.time()
        server.ask("POST", f"/api/v1/jobs/{job}/cancel")
        seconds.append(_begun(server, after) - began)
    figures = {"seconds": [round(one, 3) for one in seconds], "median": round(statistics.median(seconds), 3)}
    return {**figures, "worst": round(max(seconds), 3), "a denoising step": round(step, 3)}


def _begun(server: Server, job: str) -> float:
    """When a job was first in a worker's hands."""
    while (view := server.ask("GET", f"/api/v1/jobs/{job}", who=1))["started"] is None:
        time.sleep(0.02)
    return float(view["started"])


def percentiles(took: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the most, in ms."""
    ranked = sorted(took)
    at = {f"p{share} ms": ranked[math.ceil(share / 100 * len(ranked)) - 1] for share in (50, 99)}
    return {name: round(1e3 * one, 1) for name, one in (at | {"most ms": ranked[-1]}).items()}


def loads(
    what: str, server: Server, groups: list[str], rate: float, seconds: float, job: str = ""
) -> list[list[float]]:
    """The seconds of all answers that other processes got, each being the people of a group."""
    task = {"port": server.port, "keys": server.keys, "rate": rate, "seconds": seconds}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--load", what, group], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for group in groups
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write(json.dumps(task).encode())
        process.stdin.close()
    found = [json.loads(process.stdout.read()) for process in started if process.stdout is not None]
    assert not any(process.wait() for process in started)
    return found


def load(what: str, group: str) -> None:
    """What a process that asks does: its people share the orders that are due, or each looks as often as it can."""
    task, took = json.load(sys.stdin), list[float]()
    people, began = [int(who) for who in group.split(",")], time.perf_counter() + 0.2
    total, turns = int(task["rate"] * task["seconds"]), iter(range(10**9))

    def creator(who: int) -> None:
        with Line(task["port"], task["keys"][who], who) as line:
            while (turn := next(turns)) < total:
                due = began + turn / task["rate"]
                time.sleep(max(0.0, due - time.perf_counter()))
                line.ask("POST", "/api/v1/jobs?priority=-1000", TINY)
                took.append(time.perf_counter() - due)

    def poller(who: int) -> None:
        with Line(task["port"], task["keys"][who], who) as line:
            job = line.ask("POST", "/api/v1/jobs?priority=-1000", TINY)["id"]
            while (now := time.perf_counter()) < began + task["seconds"]:
                line.ask("GET", f"/api/v1/jobs/{job}")
                took.append(time.perf_counter() - now)

    threads = [threading.Thread(target=creator if what == "create" else poller, args=(who,)) for who in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(took))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    asked.add_argument("--seconds", type=float, default=20.0, help="of each load")
    asked.add_argument("--rate", type=float, default=50.0, help="orders a second")
    asked.add_argument("--json", action="store_true")
    asked.add_argument("--load", nargs=2, help=argparse.SUPPRESS)
    given = asked.parse_args()
    if given.load:
        load(*given.load)
        return
    facts: dict[str, Any] = {}
    if "starts" in given.only:
        facts["starts"] = starts(5)
    with tempfile.TemporaryDirectory() as home, serving(Path(home)) as (server, _):
        if "cancels" in given.only:
            facts["cancels"] = cancels(server, count=10)
        if "polls" in given.only:
            facts["polls"] = polls(server, seconds=given.seconds)
        if "creates" in given.only:
            facts["creates"] = creates(server, rate=given.rate, seconds=given.seconds)
    if given.json:
        print(json.dumps(facts, indent=1))
        return
    for part, found in facts.items():
        print(f"{part}: " + ", ".join(f"{name} {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
