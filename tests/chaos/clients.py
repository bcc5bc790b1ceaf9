"""Clients that never give up, and an observer that believes nothing: the wire's side of kills.py.

The one client is OpenAI's own, as it is installed, with its own retries; once these are over, its program says it again
and says so (x-stainless-retry-count). The other is a plain one of our own API, with an idempotency key for each wish.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import httpx
import openai

from cinecanvas.jobs.order import Order

_PAUSE = 0.1  # s between two tries, or two looks
_STATES = {"queued": "queued", "in_progress": "running", "completed": "succeeded"}
_ENDED = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Kind:
    """Something to ask for: as it is said on the wire, and the order that it must come to."""

    dialect: str
    fields: dict[str, Any]
    order: Order


class Look(NamedTuple):
    """What the server says of a job: its state in our words, progress in 0..100, and what may not change any more."""

    state: str
    progress: float
    body: dict[str, Any]


class Wire(Protocol):
    """How a dialect is spoken; whatever the server is going through, each of these returns in the end."""

    troubles: Counter[str]

    def create(self, fields: dict[str, Any], number: int) -> str: ...

    def content(self, name: str) -> bytes: ...

    def look(self, name: str) -> Look: ...


class Official:
    """OpenAI's own client."""

    def __init__(self, url: str) -> None:
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
        self.troubles: Counter[str] = Counter()

    def create(self, fields: dict[str, Any], number: int) -> str:
        """The video's id; each wish says its seconds with so many zeros, that no two bodies are alike."""
        asked = {**fields, "seconds": f"{fields['seconds']}.{'0' * (number + 1)}"}
        for again in itertools.count():
            heads = {"x-stainless-retry-count": str(3 * again)} if again else {}
            try:
                return self._client.videos.create(**asked, extra_headers=heads).id
            except (openai.APIConnectionError, openai.InternalServerError) as error:
                self._troubled("create", error)
        raise AssertionError("there is no last try")

    def content(self, name: str) -> bytes:
        while True:
            try:
                return self._client.videos.download_content(name).read()
            except (openai.APIConnectionError, openai.InternalServerError) as error:
                self._troubled("download", error)

    def look(self, name: str) -> Look:
        while True:
            try:
                return _video(self._client.videos.retrieve(name).model_dump())
            except (openai.APIConnectionError, openai.InternalServerError) as error:
                self._troubled("retrieve", error)

    def _troubled(self, what: str, error: openai.APIError) -> None:
        self.troubles[f"{what}: {getattr(error, 'status_code', 'no answer')}"] += 1
        time.sleep(_PAUSE)


class Plain:
    """Our own API; every call is said again until it is answered."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30.0)
        self.troubles: Counter[str] = Counter()

    def create(self, fields: dict[str, Any], number: int) -> str:
        heads = {"idempotency-key": f"wish {number}"}
        return str(self._asked("POST", "/api/v1/jobs", json=fields, headers=heads).json()["id"])

    def content(self, name: str) -> bytes:
        return self._asked("GET", f"/api/v1/jobs/{name}/films/0").content

    def look(self, name: str) -> Look:
        return _own(self._asked("GET", f"/api/v1/jobs/{name}").json())

    def _asked(self, method: str, path: str, **given: Any) -> httpx.Response:
        while True:
            try:
                answer = self._client.request(method, path, **given)
            except httpx.TransportError:
                self.troubles[f"{method}: no answer"] += 1
            else:
                if answer.status_code < 500:
                    assert answer.is_success, answer.text
                    return answer
                self.troubles[f"{method}: {answer.status_code}"] += 1
            time.sleep(_PAUSE)


def _video(body: dict[str, Any]) -> Look:
    """OpenAI's Video."""
    return Look(_STATES.get(body["status"], "failed"), body["progress"], body)


def _own(body: dict[str, Any]) -> Look:
    """Our JobView; its URLs are signed anew each time."""
    films = [{name: fact for name, fact in film.items() if not name.endswith("url")} for film in body["films"]]
    return Look(body["state"], 100 * body["progress"], {**body, "films": films})


class Client(threading.Thread):
    """One wish after the other: asked for, waited for, and taken home."""

    def __init__(self, wire: Wire, kinds: Sequence[Kind], numbers: Iterator[int], asks: threading.Event) -> None:
        super().__init__(daemon=True)
        self.wire, self._kinds, self._numbers, self._asks = wire, kinds, numbers, asks
        self.over = threading.Event()
        self.wishes = 0
        self.jobs: dict[str, Kind] = {}
        self.wrong: list[str] = []

    def run(self) -> None:
        try:
            while not self.over.is_set():
                self._one(next(self._numbers))
        except Exception as error:
            self.wrong.append(f"a client ended: {type(error).__name__}: {error}")

    def _one(self, number: int) -> None:
        kind = self._kinds[number % len(self._kinds)]
        self.wishes += 1
        self._asks.set()
        name = self.wire.create(kind.fields, number)
        if name in self.jobs:
            self.wrong.append(f"{name}: it is the job of an earlier wish")
        self.jobs[name] = kind
        while (look := self.wire.look(name)).state not in _ENDED:
            time.sleep(_PAUSE)
        if look.state != "succeeded":
            self.wrong.append(f"{name}: {look.state}: {look.body.get('error')}")
        elif not self.wire.content(name):
            self.wrong.append(f"{name}: nothing came home")


class Observer(threading.Thread):
    """Looks at every job over HTTP, again and again, and writes down what cannot be true."""

    def __init__(self, url: str, clients: Sequence[Client]) -> None:
        super().__init__(daemon=True)
        self._clients, self._client = clients, httpx.Client(base_url=url, timeout=30.0)
        self.done, self.looks, self.lies = threading.Event(), 0, list[str]()
        self.seen: dict[str, Look] = {}
        self.films: dict[str, str] = {}  # the digest of what was downloaded, by job

    def run(self) -> None:
        while not self.done.is_set():
            with suppress(httpx.TransportError):  # the server is being started anew
                self.look()
            time.sleep(0.03)

    def look(self) -> None:
        """At what waits and runs; now and then at everything."""
        self.looks += 1
        for name, kind in [pair for client in self._clients for pair in list(client.jobs.items())]:
            before = self.seen.get(name)
            if before is None or before.state not in _ENDED or self.looks % 50 == 0:
                self._one(name, kind, before)
            if self.seen[name].state == "succeeded" and name not in self.films:
                self._taken(name, kind)

    def _one(self, name: str, kind: Kind, before: Look | None) -> None:
        openai_ = kind.dialect == "openai"
        answer = self._client.get(f"/v1/videos/{name}" if openai_ else f"/api/v1/jobs/{name}")
        if answer.status_code != 200:
            self.lies.append(f"{name}: its state was answered with {answer.status_code}")
            return
        now = (_video if openai_ else _own)(answer.json())
        if before is not None and before.state in _ENDED and now != before:
            self.lies.append(f"{name}: {before.state} became {now.state}, or something else of it changed")
        if not 0 <= now.progress <= 100 or (now.progress == 100) != (now.state == "succeeded"):
            self.lies.append(f"{name}: progress {now.progress} while {now.state}")
        self.seen[name] = now

    def _taken(self, name: str, kind: Kind) -> None:
        """What is said to be there is there, and whole."""
        path = f"/v1/videos/{name}/content" if kind.dialect == "openai" else f"/api/v1/jobs/{name}/films/0"
        answer = self._client.get(path)
        digest = hashlib.sha256(answer.content).hexdigest()
        if answer.status_code != 200 or answer.headers.get("etag") != f'"{digest}"':
            self.lies.append(f"{name}: succeeded, and its film came with {answer.status_code}, or not whole")
        self.films[name] = f"sha256:{digest}"
