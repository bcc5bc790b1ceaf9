"""How things leave: files with their ranges, films that still grow, events as they happen, and answers waited for."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from cinecanvas.errors import CinecanvasError
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.keys import Caller
from cinecanvas.jobs.queue import NotNow
from cinecanvas.jobs.worker import watched_file
from cinecanvas.server.desk import Desk, Variant
from cinecanvas.server.dialect import Fault, Refused
from cinecanvas.server.message import Message
from cinecanvas.server.pace import Pace

POLL = 0.2  # s between two looks at a job whose end somebody waits for
HEARTBEAT = 15.0  # s of silence before a comment is sent, so that nobody on the way hangs up
MOST_WAIT = 55.0  # s; the clients give up after 60, and would then ask for the same a second time
STREAMS = Pace(rate=50.0, burst=100, together=32)  # of one account: each looks at the database ten times a second
_PIECE = 1 << 18  # bytes
_KEPT = {"cache-control": "private, max-age=86400"}


def stored(desk: Desk, held: tuple[str, str, int], request: Request) -> Response:
    """An asset, with ranges and its digest as its tag: whoever has it already is not sent it again."""
    digest, media_type, size = held
    headers = {"etag": f'"{digest.removeprefix("sha256:")}"', "content-disposition": "inline", **_KEPT}
    if _has(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    if desk.store.root is not None:
        return FileResponse(desk.store.path(digest), media_type=media_type, headers=headers)
    headers["content-length"] = str(size)
    return StreamingResponse(_read(desk, digest), media_type=media_type, headers=headers)


def made(desk: Desk, job: Job, variant: Variant, output: int, request: Request) -> Response:
    """What a job made, or a picture of it."""
    if variant == "video":
        asset = desk.made(job, output)
        return stored(desk, (asset.digest, asset.media_type, asset.bytes), request)
    headers = {"etag": f'"{variant}-{desk.made(job, output).digest.removeprefix("sha256:")}"', **_KEPT}
    if _has(request, headers["etag"]):
        return Response(status_code=304, headers=headers)
    picture = desk.picture(job, variant, output)
    return Response(picture.data, media_type=picture.media_type, headers=headers)


def _has(request: Request, tag: str) -> bool:
    """Whether the asker says that he has it already."""
    tags = request.headers.get("if-none-match", "").split(",")
    return any(one.strip().removeprefix("W/") in (tag, "*") for one in tags)


def watched(desk: Desk, job: Job, request: Request) -> Response:
    """A film while it is made."""
    file = watched_file(desk.where, job)
    if job.state != "running" or not file.is_file():
        raise NotNow("There is nothing of this job to watch now", "A film can be watched while it runs on this machine")
    return Stream(growing(desk, job, file, request), job, media_type="video/mp4")


def _read(desk: Desk, digest: str) -> Iterator[bytes]:
    with desk.store.open(digest) as stream:
        while piece := stream.read(_PIECE):
            yield piece


def sent_twice(desk: Desk, caller: Caller, sent: Message, request: Request) -> Job | None:
    """The job of the first try, where a client says that this is its second: its answer was lost on the way."""
    count = request.headers.get("x-stainless-retry-count", "0")
    if not count.isdecimal() or int(count) == 0:
        return None
    return desk.queue.repeated(sent.digest, account=caller.account)


async def waited(desk: Desk, caller: Caller, request: Request, accept: Callable[[], Job]) -> Job:
    """A job that is made while the asker waits: its end, or a refusal; nobody waits, and it is cancelled."""
    job = await run_in_threadpool(accept)
    until = time.monotonic() + MOST_WAIT
    while not job.ended:
        if time.monotonic() > until or await request.is_disconnected():
            await run_in_threadpool(desk.queue.hide, job.id, account=caller.account)
            text = f"It was not done within {MOST_WAIT:.0f} s, and is cancelled. Ask for less, or try again later."
            raise Refused(Fault(503, "timeout", text))
        await asyncio.sleep(POLL)
        job = await run_in_threadpool(desk.queue.get, job.id, account=caller.account)
    return job


class Stream(StreamingResponse):
    """What goes on about a job for as long as somebody reads it; an account has only so many at a time."""

    def __init__(
        self, pieces: AsyncIterator[bytes], job: Job, *, media_type: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self._who = job.account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counted here, in the event loop: a stream that nobody begins to read is none."""
        streams = scope["app"].state.streams
        if wait := streams.enter(self._who, STREAMS):
            said = f"At most {STREAMS.together} streams of one account are open at a time. Close one, or look instead."
            raise Refused(Fault(429, "too_many_streams", said, retry=wait))
        try:
            await super().__call__(scope, receive, send)
        finally:
            streams.leave(self._who)


async def events(desk: Desk, job: Job, request: Request, *, after: int) -> AsyncIterator[bytes]:
    """Server-sent events of a job, from the one after a number on, to its end."""
    said = time.monotonic()
    yield b"retry: 1000\n\n"
    while True:
        try:
            now = await run_in_threadpool(desk.queue.get, job.id)
            found = await run_in_threadpool(desk.queue.events, job.id, after=after)
        except CinecanvasError:  # deleted, or the database is away: the client asks again from where it was
            return
        for event in found:
            data = json.dumps({"job": job.id, "at": event.at, **event.data}, separators=(",", ":"))
            yield f"id: {event.seq}\nevent: {event.kind}\ndata: {data}\n\n".encode()
            after, said = event.seq, time.monotonic()
        if (now.ended and not found) or desk.leaving():  # a client goes on at the next server, from where it was
            return
        if await request.is_disconnected():
            return
        if time.monotonic() - said > HEARTBEAT:
            said = time.monotonic()
            yield b": still here\n\n"
        await asyncio.sleep(0.0 if len(found) >= 1000 else POLL)


async def growing(desk: Desk, job: Job, file: Path, request: Request) -> AsyncIterator[bytes]:
    """A film while it is written, from its beginning to its end: what is there, and then what comes."""
    with file.open("rb") as stream:
        while True:
            over = (await run_in_threadpool(desk.queue.get, job.id)).ended
            while piece := await run_in_threadpool(stream.read, _PIECE):
                yield piece
            if over or await request.is_disconnected():
                return
            await asyncio.sleep(POLL)
