"""`cine serve` as a process: asked to end, killed in part or whole, and two of them on one database."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import random
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("dbos")
pytest.importorskip("openai")

import httpx
from crew import Crew, unbroken, until
from machine import Machine

from cinecanvas.jobs.order import Order, order
from cinecanvas.server.serve import Options

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="processes are found in /proc")
FILM = order("text_to_video", model="diorama", prompt="a red ball bounces on grass", seed=3, seconds=10)
SHORT = order("text_to_video", model="toy", prompt="red", seed=1, quality="draft", seconds=1)
LONG = order("text_to_video", model="toy", prompt="blue", seed=2, quality="best", seconds=30, count=3)


@pytest.fixture(params=["sqlite", "postgresql"])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new.sqlite'}"
    running = request.getfixturevalue("postgresql")
    return str(running.url(running.database()))


@pytest.fixture
def crew(tmp_path: Path, fresh_url: str) -> Iterator[Crew]:
    with Crew(tmp_path / "home", fresh_url, lease=10.0) as crew:
        yield crew


def wanted(machine: Machine, what: Order, key: str) -> str:
    body = what.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    answer = httpx.post(f"{machine.url}/api/v1/jobs", json=body, headers={"idempotency-key": key}, timeout=60.0)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def said(path: str, body: bytes, *heads: str, length: int | None = None) -> bytes:
    """A request as it stands on the wire; with a length that is more than the body, one that is on its way."""
    size = len(body) if length is None else length
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json", f"content-length: {size}"]
    return "\r\n".join([*lines, *heads, "", ""]).encode() + body


def flat(shade: int) -> bytes:
    """A picture of one grey, not compressed: as many bytes as any other."""
    return _png(64, (b"\0" + bytes([shade]) * 64) * 64)


def _png(side: int, rows: bytes) -> bytes:
    """A grey square, not compressed."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    told = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + told


def noise(size: int) -> bytes:
    """A picture that cannot be made smaller, of at least so many bytes."""
    return _png(
        side := math.isqrt(size) + 1, b"".join(b"\0" + random.Random(row).randbytes(side) for row in range(side))
    )


def digests(crew: Crew, job: str) -> list[str]:
    done = crew.ended(job)
    assert done.outcome is not None, done.error
    return [asset.digest for asset in done.outcome.assets]


def test_a_server_that_is_asked_to_end_keeps_what_runs_and_the_next_one_goes_on(crew: Crew) -> None:
    heard: list[str] = []

    def listens(url: str) -> None:
        try:
            with httpx.stream("GET", url, timeout=60.0) as stream:
                heard.extend(line for line in stream.iter_lines() if line.startswith("event: "))
        except httpx.TransportError:
            heard.append("hung up")

    with Machine(crew, workers=1) as machine:
        machine.serving()
        job = wanted(machine, FILM, "one")
        listener = threading.Thread(target=listens, args=(f"{machine.url}/api/v1/jobs/{job}/events",), daemon=True)
        listener.start()
        crew.at_step(job, 10)
        began = time.monotonic()
        assert machine.ask() in (0, 143)
        assert time.monotonic() - began < 30
        listener.join(10)
        assert not listener.is_alive() and heard
        left = crew.queue.get(job)
        assert (left.state, left.worker, left.deaths) == ("queued", "", 0)
        assert crew.store.holds().records > 0, "what was denoised is kept"
        machine.serving()
        assert digests(crew, job) == unbroken(FILM, crew.store)
        steps = [event.data["step"] for event in crew.queue.events(job, limit=9999) if event.kind == "step"]
        assert len(steps) < 2 * max(steps), "finished windows are not made again"
        assert "Traceback" not in machine.log()


def test_who_still_sends_when_the_server_ends_is_told_to_ask_the_next_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    with Crew(tmp_path / "home", url, lease=10.0) as crew, Machine(crew, workers=0) as machine:
        machine.serving()
        with socket.create_connection(("127.0.0.1", machine.port), timeout=60.0) as upload:
            upload.sendall(said("/api/v1/jobs", b'{"task": ', length=1000))  # and the rest does not come
            time.sleep(0.5)
            assert machine.ask() in (0, 143)
            assert upload.recv(1000).startswith(b"HTTP/1.1 503 ")
        assert crew.queue.listed() == []
        assert "Traceback" not in machine.log()


def test_two_servers_on_one_database_make_no_job_twice(crew: Crew) -> None:
    with Machine(crew, workers=1) as one, Machine(crew, workers=1) as other:
        one.start()
        other.start()  # both make the tables, and the secret of URLs
        one.serving()
        other.serving()
        ids: dict[tuple[str, int], str] = {}

        def asks(machine: Machine) -> None:
            for number in range(8):
                ids[machine.url, number] = wanted(machine, SHORT if number % 2 else LONG, f"key {number}")

        both = [threading.Thread(target=asks, args=(machine,)) for machine in (one, other)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join(60)
        assert [ids[one.url, number] for number in range(8)] == [ids[other.url, number] for number in range(8)]
        right = {0: unbroken(LONG, crew.store), 1: unbroken(SHORT, crew.store)}
        for number in range(8):
            job = ids[one.url, number]
            assert digests(crew, job) == right[number % 2]
            assert [event.kind for event in crew.queue.events(job, limit=9999)].count("succeeded") == 1
            assert crew.queue.get(job).fence == 1
        url = httpx.get(f"{one.url}/api/v1/jobs/{job}").json()["films"][0]["url"]
        films = [httpx.get(place).content for place in (url, url.replace(one.url, other.url))]
        assert films[0] == films[1] and len(films[0]) > 100


def test_a_worker_that_is_killed_is_known_to_be_gone_before_its_lease_is_over(tmp_path: Path) -> None:
    with (
        Crew(tmp_path / "home", f"sqlite:///{tmp_path / 'new.sqlite'}", lease=600.0) as crew,
        Machine(crew, workers=1) as machine,
    ):
        machine.serving()
        job = wanted(machine, LONG, "one")
        crew.at_step(job)
        machine.kill(*machine.workers())
        assert digests(crew, job) == unbroken(LONG, crew.store)
        assert crew.queue.get(job).deaths == 1


def test_what_a_client_sends_again_is_made_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    with Crew(tmp_path / "home", url, lease=10.0) as crew, Machine(crew, workers=1) as machine:
        machine.serving()
        again = {"x-stainless-retry-count": "1"}

        def sent(path: str, heads: dict[str, str], **body: Any) -> Any:
            answer = httpx.post(f"{machine.url}/v1/{path}", headers=heads, timeout=60.0, **body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        wish = {"prompt": "a green cube on snow", "size": "96x96"}
        first = sent("images/generations", {}, json=wish)
        assert sent("images/generations", again, json=wish) == first
        assert sent("images/generations", {}, json=wish) != first, "one that is not sent again is another"
        videos = []
        for shade in (10, 200):  # two frames have one name and one size
            picture = {"input_reference": ("frame.png", flat(shade), "image/png")}
            asked = {"data": {"prompt": "it melts", "seconds": "1"}, "files": picture}
            videos += [sent("videos", heads, **asked)["id"] for heads in ({}, again)]
        assert videos[0] == videos[1] != videos[2] == videos[3]
        assert len(crew.queue.listed(limit=100)) == 4


def test_what_was_accepted_is_found_again_by_a_client_whose_server_was_killed_before_it_answered(crew: Crew) -> None:
    def accepted() -> set[str]:
        return {job.id for job in crew.queue.listed(limit=10)}

    def lost(machine: Machine, path: str, body: bytes) -> None:
        """Whatever the server has answered, nobody has read it."""
        before = accepted()
        with socket.create_connection(("127.0.0.1", machine.port)) as line:
            line.sendall(said(path, body, "idempotency-key: one"))
            until(lambda: accepted() != before)
            machine.kill(*machine.everything())

    film = {"model": "toy", "prompt": "red", "seconds": 1, "seed": 1, "quality": "draft", "size": "96x96"}
    asked = SHORT.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    heads = {"idempotency-key": "one", "x-stainless-retry-count": "1", "content-type": "application/json"}
    with Machine(crew, workers=1) as machine:
        for number, (path, wish) in enumerate((("/v1/videos", film), ("/api/v1/jobs", asked)), 1):
            machine.serving()
            lost(machine, path, json.dumps(wish).encode())
            machine.serving()
            again = httpx.post(f"{machine.url}{path}", content=json.dumps(wish), headers=heads, timeout=60.0).json()
            assert len(accepted()) == number
            assert str(uuid.UUID(again["id"].removeprefix("video_"))) in accepted()
        for job in accepted():
            assert crew.ended(job).state == "succeeded"


def test_a_server_whose_disk_is_full_says_so_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """A limit on the size of files makes write() fail as a full disk does, in the server and its workers."""
    url = f"sqlite:///{tmp_path / 'new.sqlite'}"
    with Crew(tmp_path / "home", url, lease=10.0) as crew, Machine(crew, workers=1) as machine:
        machine.serving()
        kept = wanted(machine, SHORT, "before")
        right = digests(crew, kept)
        film = wanted(machine, FILM, "film")
        crew.at_step(film, 3)

        def room(size: int) -> None:
            for pid in machine.everything():
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                if hard == resource.RLIM_INFINITY:  # the warden's children may write nothing anyway
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))

        def refused(path: str, code: str, **body: Any) -> None:
            answer = httpx.post(f"{machine.url}{path}", timeout=60.0, **body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, code), answer.text
            assert "retry-after" in answer.headers

        large = noise(9 << 20)
        data_uri = f"data:image/png;base64,{base64.b64encode(large).decode()}"
        brought = {"file": ("large.png", large, "image/png")}
        video = {"prompt": "it melts", "seconds": "1"}
        asked = SHORT.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        room(8 << 20)  # enough for the database
        refused("/api/v1/files", "storage_full", files=brought)
        refused("/v1/videos", "storage_full", data=video, files={"input_reference": brought["file"]})
        refused("/v1/videos", "storage_full", json={**video, "input_reference": {"image_url": data_uri}})
        room(4096)  # less than a page of it
        refused("/api/v1/jobs", "unavailable", json=asked)
        refused("/v1/videos", "unavailable", json=video)
        found = httpx.get(f"{machine.url}/api/v1/jobs/{kept}/films/0")
        assert found.status_code == 200 and f"sha256:{hashlib.sha256(found.content).hexdigest()}" in right
        room(resource.RLIM_INFINITY)
        assert httpx.post(f"{machine.url}/api/v1/files", files=brought, timeout=60.0).status_code == 201
        assert digests(crew, wanted(machine, SHORT, "after")) == right
        assert digests(crew, film) == unbroken(FILM, crew.store)
        assert crew.queue.get(film).deaths == 0, "a full disk is nobody's death"
        assert len(crew.queue.listed(limit=10)) == 3
        assert "| Traceback" not in machine.log()


def test_no_job_is_lost_or_doubled_by_a_few_kills_of_servers_and_workers() -> None:
    script = Path(__file__).parent / "chaos" / "kills.py"
    done = subprocess.run(
        [sys.executable, str(script), "--victims", "machine", "--kills", "3", "--kinds", "1", "--seed", "5", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    facts = json.loads(done.stdout)
    assert sum(facts["blows"].values()) >= 3 and facts["jobs"] >= 2 and facts["wrong"] == {}


@pytest.mark.parametrize(
    ("given", "beyond"),
    [
        ({}, ""),
        ({"host": "::1", "hosts": ("localhost",), "public_url": "http://127.0.0.1:80"}, ""),
        ({"host": "0.0.0.0"}, "0.0.0.0"),
        ({"public_url": "https://film.example/x"}, "film.example"),
        ({"hosts": ("localhost", "film.example")}, "film.example"),
        ({"proxies": "127.0.0.1"}, "a proxy"),
    ],
)
def test_who_may_reach_a_server_is_seen_through_a_proxy_beside_it(given: dict[str, Any], beyond: str) -> None:
    assert Options(database="sqlite:///x", **given).beyond == beyond


@pytest.mark.parametrize("option", [("--host", "0.0.0.0"), ("--public-url", "https://film.example")])
def test_a_server_for_others_begins_only_once_there_is_a_key(tmp_path: Path, option: tuple[str, str]) -> None:
    environment = {**os.environ, "CINECANVAS_HOME": str(tmp_path), "CINECANVAS_DATABASE": ""}
    command = [sys.executable, "-m", "cinecanvas.cli", "serve", "--port", "0", *option]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "by anybody" in done.stderr and "cine keys make" in done.stderr
