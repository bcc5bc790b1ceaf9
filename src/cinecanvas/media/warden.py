"""Media of strangers is looked at in another process, with limits: whatever a decoder does, the server stays.

A decoder is a large program in C that reads what an enemy wrote. So a server keeps a warm child for it (`ward.py`): it
has no keys, no network and little memory, cannot write, and if it dies or hangs another takes its place. The server
itself loads no decoder: a job goes out as a line of JSON, and a line of JSON comes back.
"""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, Field

from cinecanvas.errors import BadMedia, BadRequest, Cancelled, CannotWrite, CinecanvasError, Unsupported
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.decode import VideoInfo
from cinecanvas.media.destination import shown_name, told
from cinecanvas.media.intake import MOST_SECONDS, described, media_type
from cinecanvas.media.stills import Kind

_LOG = logging.getLogger(__name__)
_START = 60.0  # s, of a machine that is busy; a quarter of one is usual
_SLACK = 10.0  # s to open, count and answer, beside those for decoding
_MOST_LINE = 1 << 16  # bytes
_MOST_PICTURE = 256 << 20  # bytes
_CHUNK = 1 << 20  # bytes
_NEEDED = "SYSTEMROOT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"  # of the environment, to load Python at all
_KINDS: dict[str, type[CinecanvasError]] = {
    kind.__name__: kind for kind in (CinecanvasError, BadMedia, BadRequest, CannotWrite, Unsupported)
}


class Busy(CinecanvasError):
    """Too many strangers came at once; nothing is wrong with what they brought."""


class Limits(BaseModel, frozen=True):
    """memory: bytes of a child; seconds: to decode a file; wait: s for a free child; jobs: then a child is replaced."""

    memory: int = Field(default=3 << 30, ge=512 << 20)
    seconds: float = Field(default=60.0, gt=0)
    wait: float = Field(default=30.0, gt=0)
    jobs: int = Field(default=100, ge=1)


class Look(BaseModel, frozen=True):
    """What does it hold, and can all of it be decoded? seconds: for that; 0 does not try."""

    verb: Literal["look"] = "look"
    name: str
    seconds: float = 0.0


class Thumbnail(BaseModel, frozen=True):
    """The frame at a second."""

    verb: Literal["thumbnail"] = "thumbnail"
    kind: Kind
    side: int
    second: float


class Spritesheet(BaseModel, frozen=True):
    """A grid of frames."""

    verb: Literal["spritesheet"] = "spritesheet"
    kind: Kind
    columns: int
    rows: int
    side: int


class Still(BaseModel, frozen=True):
    """The first or last frame."""

    verb: Literal["still"] = "still"
    last: bool


class Mask(BaseModel, frozen=True):
    """Where a picture is opaque."""

    verb: Literal["mask"] = "mask"


Wish: TypeAlias = Annotated[Look | Thumbnail | Spritesheet | Still | Mask, Field(discriminator="verb")]


class Job(BaseModel, frozen=True):
    """What a child is asked about a file; seconds: after which it is killed."""

    file: str
    seconds: float
    wish: Wish


class Refusal(BaseModel, frozen=True):
    """A CinecanvasError on its way from one process to another."""

    error: str
    asked: str
    possible: str = ""
    do: str = ""


class Answer(BaseModel, frozen=True):
    """What came of a job; so many bytes of a picture follow it. spent: the child is not fit for another."""

    seen: VideoInfo | None = None
    refusal: Refusal | None = None
    bytes: int = Field(default=0, ge=0, le=_MOST_PICTURE)
    spent: bool = False


class Warden:
    """Keeps the children and gives them work; any thread may ask."""

    def __init__(self, store: Store, *, children: int = 1, limits: Limits = Limits()) -> None:
        self._store, self._limits, self._closed = store, limits, False
        self._lock, self._alive = threading.Lock(), set[_Child]()
        self._free: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        self._places = children
        for _ in range(children):
            self._free.put(None)

    def start(self) -> None:
        """Start the children that are not there yet, without waiting for them; asking starts them too."""
        idle: list[_Child | None] = []
        with suppress(queue.Empty):
            while len(idle) < self._places:
                idle.append(self._free.get_nowait())
        while idle:
            child = idle.pop()
            try:
                child = self._fit(child)
            finally:
                self._free.put(child)

    def close(self) -> None:
        """End the children; who still waits for one is told so."""
        with self._lock:
            self._closed, ending = True, list(self._alive)
        for child in ending:
            self._lose(child)

    def __enter__(self) -> Warden:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def take(self, file: str | os.PathLike[str], *, name: str = "") -> Asset:
        """Keep a stranger's file in the store, decoded once and described; what is refused leaves nothing behind.

        name: what the stranger calls it, for the refusal. The file itself stays.
        """
        path = Path(os.path.abspath(file))
        shown = shown_name(name or path.name)
        if not path.is_file():
            raise BadMedia(f"There is no file {shown}", do="Check the name")
        # In proportion to the file, so that a small one cannot hold a child for long: a minute of H.264 takes seconds.
        seconds = min(self._limits.seconds, 10 + path.stat().st_size / 1e6)
        seen = self._seen(path, Look(name=shown, seconds=seconds), shown=shown, seconds=2 * seconds)
        return described(self._store.put(path, media_type(seen)), seen)

    def describe(self, digest: str) -> Asset:
        """What the store holds under a digest."""
        with self._file(digest) as file:
            seen = self._seen(file, Look(name=digest[:18]), shown=digest[:18], seconds=self._limits.seconds)
            bare = Asset(digest=digest, media_type=media_type(seen), bytes=file.stat().st_size)
        return described(bare, seen)

    def thumbnail(self, digest: str, *, kind: Kind = "webp", side: int = 512, second: float = 0.0) -> bytes:
        """The frame that stands at a second, its longer side `side` px at most."""
        at = min(max(0.0, second), MOST_SECONDS)
        return self._picture(digest, Thumbnail(kind=kind, side=side, second=at))

    def spritesheet(
        self, digest: str, *, kind: Kind = "jpeg", columns: int = 5, rows: int = 5, side: int = 256
    ) -> bytes:
        """columns x rows frames of a film, evenly spread, row by row without gaps."""
        return self._picture(digest, Spritesheet(kind=kind, columns=columns, rows=rows, side=side))

    def frame(self, digest: str, *, last: bool = False) -> bytes:
        """The first frame, or the last, as a PNG."""
        return self._picture(digest, Still(last=last))

    def mask(self, digest: str) -> bytes:
        """Where a picture is opaque, as a PNG: white is kept, what was transparent is black."""
        return self._picture(digest, Mask())

    def _seen(self, file: Path, wish: Look, *, shown: str, seconds: float) -> VideoInfo:
        answer, _ = self._asked(file, wish, shown=shown, seconds=seconds)
        if answer.seen is None:
            raise _unreadable(shown)
        return answer.seen

    def _picture(self, digest: str, wish: Wish) -> bytes:
        with self._file(digest) as file:
            _, picture = self._asked(file, wish, shown=digest[:18], seconds=self._limits.seconds)
        return picture

    @contextmanager
    def _file(self, digest: str) -> Iterator[Path]:
        """A file of the store, fetched first if it lies in a bucket: the child has no keys to one."""
        if self._store.root is not None:
            yield self._store.path(digest)
            return
        with tempfile.TemporaryDirectory() as folder, self._store.open(digest) as stream:
            file = Path(folder, digest.removeprefix("sha256:"))
            with told("into the store"), file.open("wb") as out:
                while piece := stream.read(_CHUNK):
                    out.write(piece)
            yield file

    def _asked(self, file: Path, wish: Wish, *, shown: str, seconds: float) -> tuple[Answer, bytes]:
        """A child's answer; a refusal is raised as what it is, and names the file as its owner does."""
        job = Job(file=str(file), seconds=seconds + _SLACK, wish=wish)
        with self._child() as child:
            try:
                answer, picture = child.ask(job)
            except _Lost as lost:
                self._lose(child)
                self._check_open()
                _LOG.warning("A process that looked at media was lost after %.1f s", lost.seconds)
                raise (_too_long(shown) if lost.late else _unreadable(shown)) from None
            if answer.spent:
                self._lose(child)
        if answer.refusal is not None:
            said = answer.refusal
            asked = said.asked.replace(shown_name(file.name), shown)
            raise _KINDS.get(said.error, BadMedia)(asked, said.possible, said.do)
        return answer, picture

    @contextmanager
    def _child(self) -> Iterator[_Child]:
        """A child that lives and is ours alone meanwhile; afterwards its place is filled again."""
        self._check_open()
        try:
            child = self._free.get(timeout=self._limits.wait)
        except queue.Empty:
            raise Busy("Too many files are being looked at", do="Try again in a moment") from None
        try:
            child = self._fit(child)
            yield child
        finally:
            with suppress(Cancelled, OSError):  # if no process can be started now, the next to ask tries again
                child = self._fit(child)
            self._free.put(child)

    def _fit(self, child: _Child | None) -> _Child:
        """This child if it is alive and not worn out, else a new one."""
        if child is not None and child.alive() and child.jobs < self._limits.jobs:
            return child
        if child is not None:
            self._lose(child)
        with self._lock:
            self._check_open()
            fresh = _Child(self._limits)
            self._alive.add(fresh)
        return fresh

    def _lose(self, child: _Child) -> None:
        child.kill()
        with self._lock:
            self._alive.discard(child)

    def _check_open(self) -> None:
        if self._closed:
            raise Cancelled("The server is closing", do="Try again in a moment")


class _Lost(Exception):
    """A child died, or was killed because it was late."""

    def __init__(self, seconds: float, *, late: bool) -> None:
        self.seconds, self.late = seconds, late
        super().__init__(seconds)


class _Child:
    """A process for one job at a time, and the pipes to it."""

    def __init__(self, limits: Limits) -> None:
        self.jobs, self._ready = 0, False
        command = [sys.executable, "-P", "-m", "cinecanvas.media.ward", limits.model_dump_json()]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_bare(),
            cwd=os.path.abspath(os.sep),
            start_new_session=True,  # Ctrl-C is for the server
        )

    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it and take it off the system's list; a pipe in another thread's hands is left to that."""
        self._process.kill()
        self._process.wait()

    def ask(self, job: Job) -> tuple[Answer, bytes]:
        """Its answer, and the picture that follows it."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        if not self._ready:
            with self._until(_START):
                self._ready = bool(stdout.readline(_MOST_LINE))
            if not self._ready:
                raise CinecanvasError("The process that looks at media does not start", do="Check memory and disk")
        self.jobs += 1
        with self._until(job.seconds):
            stdin.write(job.model_dump_json().encode() + b"\n")
            stdin.flush()
            answer = Answer.model_validate_json(stdout.readline(_MOST_LINE))
            picture = stdout.read(answer.bytes)
            if len(picture) < answer.bytes:
                raise EOFError
        return answer, picture

    @contextmanager
    def _until(self, seconds: float) -> Iterator[None]:
        """After so long it is killed, which ends every wait for it."""
        late, begins = threading.Event(), time.monotonic()

        def end() -> None:
            late.set()
            self._process.kill()

        alarm = threading.Timer(seconds, end)
        alarm.daemon = True
        alarm.start()
        try:
            yield
        except (OSError, EOFError, ValueError):  # a closed pipe, an end in the middle, or no JSON of ours
            raise _Lost(time.monotonic() - begins, late=late.is_set()) from None
        finally:
            alarm.cancel()
            alarm.join()  # now it has fired, or never will
        if late.is_set():
            raise _Lost(seconds, late=True)


def _bare() -> dict[str, str]:
    """The environment of a child: where Python's modules are, and none of the server's keys."""
    modules = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)
    kept = {name: os.environ[name] for name in _NEEDED if name in os.environ}
    return {**kept, "PYTHONPATH": modules, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _unreadable(shown: str) -> BadMedia:
    return BadMedia(f"{shown} cannot be read", do="It may be damaged: convert it to MP4 (H.264) or PNG")


def _too_long(shown: str) -> BadMedia:
    return BadMedia(f"{shown} takes too long to read", do="Trim or shrink it, or convert it to MP4 (H.264)")
