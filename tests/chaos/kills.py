"""Are jobs lost, doubled or made wrong when their processes are killed and stopped at random moments?

python tests/chaos/kills.py [--victims workers|machine] [--kills 100] [--database sqlite|postgresql|URL] [--seed 0]

workers: a few workers make jobs of several kinds. At random moments one of them is killed (SIGKILL), or stopped
(SIGSTOP) for longer than its lease and woken (SIGCONT), and another takes its place; now and then one is asked to end
(SIGTERM).

machine: `cine serve`, asked by OpenAI's own client and by a plain one of our own API. At random moments one of its
workers is killed, or the server, or all of them at once; often just when a client has asked for something.

An observer looks at every job all the time. In the end every job must have succeeded once, with the bytes of an
unbroken run, counted once, with nothing left over.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
import sqlalchemy as sa
from clients import Client, Kind, Observer, Official, Plain
from crew import Crew, unbroken
from machine import Machine
from postgres import server

from cinecanvas.jobs import tables
from cinecanvas.jobs.audit import Audit
from cinecanvas.jobs.job import ENDED, Job
from cinecanvas.jobs.order import Order, order

LEASE = 1.0  # s
AT_ONCE = 4  # jobs that wait or run, so that there is something to be killed in at every moment
_WAY = {"queued": 0, "running": 1, **dict.fromkeys(ENDED, 2)}


@dataclass
class Victim:
    """A process that may be killed at any moment, and how another of its kind is started."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    process: subprocess.Popen[bytes] | None = None
    ends: Counter[int] = field(default_factory=Counter)  # how processes ended that nobody had killed
    since: float = 0.0

    def alive(self) -> subprocess.Popen[bytes]:
        """The process; a new one if the last has ended."""
        if self.process is None or self.process.poll() is not None:
            if self.process is not None and self.process.returncode != -signal.SIGKILL:
                self.ends[self.process.returncode] += 1
            self.process, self.since = self.start(), time.monotonic()
        return self.process


class Insider(threading.Thread):
    """Looks at every job in the database, again and again, and writes down what cannot be true."""

    def __init__(self, crew: Crew) -> None:
        super().__init__(daemon=True)
        self.crew, self.lies, self.looks = crew, list[str](), 0
        self.seen: dict[str, Job] = {}
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            self.look()
            time.sleep(0.03)

    def look(self) -> None:
        """At what waits and runs, and what did so a moment ago; now and then at everything."""
        self.looks += 1
        every = self.looks % 50 == 0
        found = self.crew.queue.listed(limit=10_000, states=[] if every else ["queued", "running"])
        there = {job.id for job in found}
        gone = [job.id for job in self.seen.values() if not job.ended and job.id not in there]
        for job in [*found, *map(self.crew.queue.get, gone)]:
            before = self.seen.get(job.id)
            if job != before:
                self.lies += [f"{job.id}: {lie}" for lie in self.wrong(before, job)]
            self.seen[job.id] = job

    def wrong(self, before: Job | None, job: Job) -> Iterator[str]:
        if before is not None and before.ended:
            yield f"{before.state} became {job.state}, or something else of it changed"
        given_back = before is not None and (before.state, job.state) == ("running", "queued")
        if before is not None and not given_back and (job.fence, _WAY[job.state]) < (before.fence, _WAY[before.state]):
            yield f"{before.state} {before.fence} became {job.state} {job.fence}"
        if not 0 <= job.progress <= 1 or (job.progress == 1) != (job.state == "succeeded"):
            yield f"progress {job.progress} while {job.state}"
        if job.state == "succeeded":
            assets = job.outcome.assets if job.outcome else ()
            if not assets or not all(self.crew.store.has(asset.digest) for asset in assets):
                yield "succeeded without its assets"
        if (job.worker != "") != (job.state == "running"):
            yield f"{job.state} with the worker {job.worker!r}"


def orders(picture: str) -> list[Order]:
    """The kinds of jobs: short and long, one film and several, a picture, one that lies on a picture."""
    return [
        order("text_to_video", prompt="red", seed=1, model="toy", quality="best", seconds=30, count=4),
        order("text_to_video", prompt="a blue cone falls on sand", seed=2, seconds=20),
        order("animate", picture={"asset": picture}, prompt="a red ball bounces on grass", seed=3, seconds=6),
        order("text_to_image", prompt="a green cube on snow", seed=4),
        order("text_to_video", prompt="white", seed=5, model="toy", quality="draft", seconds=1),
        order("loop", of={"asset": picture}, prompt="a red ball bounces on grass", seed=6, seconds=3),
    ]


class Run:
    """Victims, jobs and blows."""

    def __init__(self, crew: Crew, seed: int, *, workers: int) -> None:
        self.crew, self.chance, self.order = crew, random.Random(seed), random.Random(seed)  # of moments, of blows
        self.victims = [Victim(f"worker {number}", crew.begin) for number in range(workers)]
        self.blows: Counter[str] = Counter()
        self.where: Counter[str] = Counter()
        self.zombies: list[threading.Thread] = []
        self.woke: Counter[str] = Counter()  # how stopped workers ended once woken, by code
        self.jobs: dict[str, Order] = {}
        self.observer = Insider(crew)

    def feed(self, kinds: Sequence[Order]) -> None:
        """Always enough to do; a client asks twice for each job, with one idempotency key."""
        counts = self.crew.queue.census().states
        for _ in range(AT_ONCE - counts.get("queued", 0) - counts.get("running", 0)):
            kind, key = kinds[len(self.jobs) % len(kinds)], f"key {len(self.jobs)}"
            given = {"model": getattr(kind, "model", None) or "diorama", "idempotency": key, "account": "chaos"}
            still = kind.task == "text_to_image"
            made = [self.crew.queue.submit(kind, kind="image" if still else "video", **given) for _ in range(2)]
            assert made[0].id == made[1].id
            self.jobs[made[0].id] = kind

    def blow(self) -> None:
        """Something happens to one of them."""
        for victim in self.victims:
            victim.alive()
        works = {job.worker.split("-")[-2]: job for job in self.crew.queue.listed(states=["running"], limit=100)}
        at_work = [one for one in self.victims if one.process and str(one.process.pid) in works]
        idle = not at_work or self.chance.random() < 0.2  # now and then one that starts, or looks for work
        process = (victim := self.chance.choice(self.victims if idle else at_work)).alive()
        what = self.order.choices(["kill", "stop", "ask"], [0.8, 0.12, 0.08])[0]
        busy = works.get(str(process.pid))
        self.where[(busy.phase or "just claimed") if busy else "start or idle"] += what == "kill"
        if what == "stop":
            process.send_signal(signal.SIGSTOP)
            victim.process = None  # another takes its place meanwhile
            self.zombies.append(threading.Thread(target=self.woken, args=(process,), daemon=True))
            self.zombies[-1].start()
        else:
            process.send_signal(signal.SIGKILL if what == "kill" else signal.SIGTERM)
            process.wait(60)
        self.blows[what] += 1

    def woken(self, process: subprocess.Popen[bytes]) -> None:
        """A stopped worker after its lease: it ends at once if it lost a job, else it is asked to end."""
        time.sleep(2.5 * LEASE)
        process.send_signal(signal.SIGCONT)
        try:
            self.woke[f"{process.wait(4 * LEASE)}"] += 1
        except subprocess.TimeoutExpired:
            process.terminate()
            self.woke["went on"] += 1
            process.wait(60)

    def strike(self, kills: int, kinds: Sequence[Order]) -> None:
        self.observer.start()
        while self.blows["kill"] < kills:
            moment = time.monotonic() + self.chance.uniform(0, 3)
            while time.monotonic() < moment:
                self.feed(kinds)
                time.sleep(0.05)
            self.blow()
        until = time.monotonic() + 300
        while not self.ended() and time.monotonic() < until:
            for victim in self.victims:
                victim.alive()
            time.sleep(0.05)
        for zombie in self.zombies:
            zombie.join(60)
        self.observer.done.set()
        self.observer.join()

    def ended(self) -> bool:
        counts = self.crew.queue.census().states
        return not counts.get("queued") and not counts.get("running")

    def facts(self, right: dict[str, list[str]]) -> dict[str, Any]:
        """What is to be said of it; `wrong` is empty if all is well."""
        self.observer.look()
        wrong = books(self.crew, self.jobs, right) | {"lies": self.observer.lies}
        return {
            "blows": dict(self.blows),
            "killed while": dict(self.where.most_common()),
            "ended by themselves, by code": dict(sum((victim.ends for victim in self.victims), Counter())),
            "woken workers, by code": dict(self.woke),
            "looks": self.observer.looks,
            "wrong": {name: found for name, found in wrong.items() if found},
        }


class Siege:
    """A machine, clients who want something of it, and blows."""

    def __init__(self, machine: Machine, crew: Crew, seed: int, *, kinds: Sequence[Kind]) -> None:
        self.machine, self.crew = machine, crew
        self.chance, self.order = random.Random(seed), random.Random(seed)  # of moments, of blows
        self.blows: Counter[str] = Counter()
        self.asked = threading.Event()  # a client has just begun to ask for something
        numbers = itertools.count()
        self.clients = [
            Client(wire(self.machine.url), [kind for kind in kinds if kind.dialect == name], numbers, self.asked)
            for name, wire in (("openai", Official), ("native", Plain))
            for _ in range(3)
        ]
        self.observer = Observer(self.machine.url, self.clients)

    def strike(self, kills: int) -> None:
        for thread in (*self.clients, self.observer):
            thread.start()
        while sum(self.blows.values()) - self.blows["ask"] < kills:
            self.machine.start()
            if self.chance.random() < 0.85:  # else it is hit while it starts
                self.machine.serving()
                if self.chance.random() < 0.5:
                    self.at_work()
            if self.chance.random() < 0.5:
                time.sleep(self.chance.uniform(0, 4))
            else:  # a moment in which a job may be accepted, and the answer not yet given
                self.asked.clear()
                self.asked.wait(5.0)
                time.sleep(self.chance.uniform(0, 0.05))
            self.blow()
        self.machine.serving()
        for client in self.clients:
            client.over.set()
        until = time.monotonic() + 300
        for client in self.clients:
            client.join(max(0.0, until - time.monotonic()))
            client.wrong += ["it still waits"] if client.is_alive() else []
        while len(self.observer.films) < sum(len(client.jobs) for client in self.clients) and time.monotonic() < until:
            time.sleep(0.1)
        self.observer.done.set()
        self.observer.join()
        self.observer.look()

    def at_work(self) -> None:
        """Until a worker has something to do; not for ever."""
        until = time.monotonic() + 5
        while not self.crew.queue.census().states.get("running") and time.monotonic() < until:
            time.sleep(0.05)

    def blow(self) -> None:
        what = self.order.choices(["worker", "server", "machine", "ask"], [0.3, 0.35, 0.3, 0.05])[0]
        workers = self.machine.workers()
        if what == "ask":
            self.machine.ask()
        elif what == "worker" and workers:
            self.machine.kill(self.chance.choice(workers))
        elif what == "machine":
            self.machine.kill(*self.machine.everything())
        else:
            what = "server"
            self.machine.kill(self.machine.server())
        self.blows[what] += 1

    def facts(self, right: dict[str, list[str]]) -> dict[str, Any]:
        """What is to be said of it; the machine is asked to end before its remains are counted."""
        code = self.machine.ask()
        until = time.monotonic() + 30
        while self.machine.left() and time.monotonic() < until:
            time.sleep(0.1)
        jobs = {_bare(name): kind.order for client in self.clients for name, kind in client.jobs.items()}
        wishes = sum(client.wishes for client in self.clients)
        taken = {_bare(name): film for name, film in self.observer.films.items()}
        wrong = books(self.crew, jobs, right) | {
            "lies": self.observer.lies,
            "clients": [one for client in self.clients for one in client.wrong],
            "wishes without a job": [] if wishes == len(jobs) else [wishes],
            "downloaded otherwise": [name for name, kind in jobs.items() if taken.get(name) != right[_said(kind)][0]],
            "processes left": self.machine.left(),
            "tracebacks": _tracebacks(self.machine.log()),
            "500": [name for client in self.clients for name in client.wire.troubles if name.endswith("500")],
        }
        return {
            "blows": dict(self.blows),
            "ended by themselves, by code": dict(self.machine.ends),
            "ended in the end with": code,
            "clients' troubles": dict(sum((client.wire.troubles for client in self.clients), Counter())),
            "looks": self.observer.looks,
            "wrong": {name: found for name, found in wrong.items() if found},
        }


def books(crew: Crew, asked: dict[str, Order], right: dict[str, list[str]]) -> dict[str, list[Any]]:
    """What is wrong with the jobs in the database, what they made, and what was counted."""
    jobs = {job.id: job for job in crew.queue.listed(limit=10_000)}
    with crew.queue.database.read() as connection:
        counted = connection.execute(sa.select(sa.func.sum(tables.usage.c.jobs))).scalar_one()
        told = connection.execute(sa.select(tables.events.c.job).where(tables.events.c.kind == "succeeded"))
        ends = Counter(told.scalars())
        accepted = connection.execute(sa.select(tables.audit.c.object).where(tables.audit.c.action == "job.accepted"))
        noted = Counter(accepted.scalars())
    made = {job.id: [asset.digest for asset in job.outcome.assets] for job in jobs.values() if job.outcome}
    return {
        "lost": [job for job in asked if job not in jobs or jobs[job].state != "succeeded"],
        "doubled": [job for job in jobs if ends[job] != 1] + [job for job in jobs if job not in asked],
        "with other bytes": [
            f"{kind.task} {job}" for job, kind in asked.items() if made.get(job) != right[_said(kind)]
        ],
        "left over": crew.work_left(),
        "counted": [] if counted == len(asked) else [counted],
        "audit": [] if Audit(crew.queue.database).verify() is None and noted == Counter(jobs.keys()) else ["broken"],
        "causes": [str(job.causes) for job in jobs.values() if job.causes],
    }


def claims(crew: Crew) -> dict[str, int]:
    """How often jobs were begun or gone on with."""
    fences = [job.fence for job in crew.queue.listed(limit=10_000)]
    return {"jobs": len(fences), "claims": sum(fences), "most claims of a job": max(fences)}


@contextmanager
def database(asked: str, home: Path) -> Iterator[str]:
    if asked == "postgresql":
        with server(durable=True) as running:
            yield running.url(running.database())
    else:
        yield f"sqlite:///{home / 'jobs.sqlite'}" if asked == "sqlite" else asked


def chaos(kills: int, where: str, seed: int, *, victims: str, workers: int, kinds: int) -> dict[str, Any]:
    """A whole run: the facts of it."""
    with (
        tempfile.TemporaryDirectory(prefix="cine-chaos-") as name,
        database(where, Path(name)) as url,
        Crew(Path(name), url, lease=LEASE, deaths=10_000) as crew,  # here workers die, and no job is to blame
    ):
        crew.queue.database.migrate()
        still = order("text_to_image", prompt="a red ball rests on grass", seed=1)
        picture = unbroken(still, crew.store, suffix="png", into=crew.store)[0]
        began = time.monotonic()
        facts = (under_siege if victims == "machine" else struck)(crew, kills, seed, picture, workers, kinds)
        which = {"victims": victims, "database": where.partition(":")[0]}
        return {**which, **claims(crew), **facts, "seconds": round(time.monotonic() - began)}


def struck(crew: Crew, kills: int, seed: int, picture: str, workers: int, kinds: int) -> dict[str, Any]:
    """Workers alone."""
    some = orders(picture)[-kinds:]
    right = {_said(kind): made(crew, kind) for kind in some}
    run = Run(crew, seed, workers=workers)
    run.strike(kills, some)
    return run.facts(right)


def under_siege(crew: Crew, kills: int, seed: int, picture: str, workers: int, kinds: int) -> dict[str, Any]:
    """A server, its workers and its clients."""
    data = crew.store.path(picture).read_bytes()
    with Machine(crew, workers=workers) as machine:
        machine.serving()
        brought = httpx.post(f"{machine.url}/api/v1/files", files={"file": ("ball.png", data, "image/png")}, timeout=60)
        every = wishes(picture, data, brought.json()["id"])
        some = [
            one for name in ("openai", "native") for one in [kind for kind in every if kind.dialect == name][-kinds:]
        ]
        right = {_said(kind.order): made(crew, kind.order) for kind in some}
        siege = Siege(machine, crew, seed, kinds=some)
        siege.strike(kills)
        return siege.facts(right)


def wishes(picture: str, data: bytes, file: str) -> list[Kind]:
    """What the clients want, the dearest first; a picture that one sends, and a file that was brought before."""

    def official(order: Order, **fields: Any) -> Kind:
        return Kind("openai", {**fields, "size": "96x96"}, order)

    def own(order: Order, **other: Any) -> Kind:
        return Kind("native", {**order.model_dump(mode="json", exclude_none=True, exclude_unset=True), **other}, order)

    size = {"width": 96, "height": 96}
    ball = "a red ball bounces on grass"
    return [
        official(
            order("text_to_video", prompt="red", model="toy", quality="best", seconds=30, seed=1, **size),
            prompt="red",
            model="toy",
            seconds=30,
            extra_body={"seed": 1, "quality": "best"},
        ),
        official(
            order("text_to_video", prompt="a blue cone falls on sand", model="diorama", seconds=10, seed=2, **size),
            prompt="a blue cone falls on sand",
            model="sora-2",
            seconds=10,
            extra_body={"seed": 2},
        ),
        official(
            order("animate", picture={"asset": picture}, model="diorama", prompt=ball, seconds=4, seed=3, **size),
            prompt=ball,
            seconds=4,
            extra_body={"seed": 3},
            input_reference=("ball.png", data, "image/png"),
        ),
        own(order("text_to_video", prompt="a blue cone falls on sand", model="diorama", seed=4, seconds=20, count=2)),
        own(order("loop", of={"asset": picture}, model="diorama", prompt=ball, seed=5, seconds=3), of={"file": file}),
        own(order("text_to_image", model="diorama", prompt="a green cube on snow", seed=6)),
        own(order("text_to_video", prompt="white", seed=7, model="toy", quality="draft", seconds=1)),
    ]


def made(crew: Crew, kind: Order) -> list[str]:
    return unbroken(kind, crew.store, suffix="png" if kind.task == "text_to_image" else "mp4")


def _tracebacks(log: str) -> list[str]:
    """The ends of tracebacks; a server puts the id of the request before each line."""
    parts = re.split(r"^.*Traceback \(most recent call last\):$", log, flags=re.MULTILINE)[1:]
    end = re.compile(r"^(?:[0-9a-f]{32} \| )?([A-Za-z_][\w.]*(?:: .*)?)$", flags=re.MULTILINE)
    ends = [end.search(part) for part in parts]
    return [found[1][:300] if found else part[:300] for found, part in zip(ends, parts, strict=True)]


def _said(kind: Order) -> str:
    return kind.model_dump_json()


def _bare(name: str) -> str:
    """The id of a job, of which OpenAI's is made."""
    return str(uuid.UUID(name.removeprefix("video_")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--victims", choices=("workers", "machine"), default="workers")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--database", default="sqlite", help="sqlite, postgresql (one of its own), or a URL")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kinds", type=int, default=6, help="of jobs, the cheapest first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    how = {"victims": asked.victims, "workers": asked.workers, "kinds": asked.kinds}
    facts = chaos(asked.kills, asked.database, asked.seed, **how)
    if asked.json:
        print(json.dumps(facts))
    else:
        for name, fact in facts.items():
            print(f"{name}: {fact}")
    return 1 if facts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
