"""Public weights on their way here: listed at one commit, fetched in parallel, resumed to the byte, checked.

The hub's own library begins a file again when its process dies; here a part stays, and the next pull goes on with it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import queue
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from cinecanvas.errors import BadRequest, BadWeights, CannotWrite
from cinecanvas.model import Card, Source
from cinecanvas.models import shelf
from cinecanvas.models.checkpoint import INDEX
from cinecanvas.models.shelf import Held, Receipt
from cinecanvas.settings import Settings

HUB = "https://huggingface.co"
_PIECE = 1 << 20  # bytes
_SILENCE = 30.0  # s without a byte before a connection is given up
_TRIES = 5
_LOOK = 0.2  # s between two looks at the progress
_MOST_LISTING = 64 << 20  # bytes
_MOST_FILE = 1 << 40
_READ = (".json", ".txt", ".model", ".jinja")  # beside weights: configurations, words, templates


@dataclass(frozen=True)
class Pulling:
    """How far it is: bytes here of all, the file that came last, and bytes per second of late."""

    done: int
    of: int
    file: str
    rate: float


@dataclass(frozen=True)
class Listed:
    """A file as the hub lists it: its path, bytes, and the digest of its content where one is told."""

    path: str
    bytes: int
    sha256: str = ""
    blob: str = ""  # git's sha1 of small files
    url: str = ""

    def within(self, folder: str) -> Listed:
        """The same file, for a folder of the checkpoint's."""
        return replace(self, path=f"{folder}/{self.path}")


@dataclass(frozen=True)
class Hub:
    """Where it comes from: an endpoint that speaks the hub's wire, and a token that only goes there."""

    endpoint: str = HUB
    token: str = field(default="", repr=False)

    @classmethod
    def of(cls, env: Mapping[str, str], *, mirror: str = "") -> Hub:
        """As the environment names it (HF_ENDPOINT, HF_TOKEN), or a mirror's URL."""
        endpoint = (mirror or env.get("HF_ENDPOINT") or HUB).rstrip("/")
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadRequest(f"The mirror {mirror[:80]!r} was named", "A folder or an http(s) URL is possible")
        return cls(endpoint, env.get("HF_TOKEN", ""))

    @property
    def name(self) -> str:
        """Its host, as it may be told."""
        return urlsplit(self.endpoint).hostname or ""


def pull(card: Card, where: Settings, *, hub: Hub, mirror: Path | None = None, workers: int = 4) -> Iterator[Pulling]:
    """Fetch what the model of a Card needs; closing the iterator stops, and what has come stays for the next pull.

    mirror: a folder in the same layout, from which files are linked or copied. The last event has all bytes.
    """
    source = card.source
    if source is None or not source.repository:
        raise BadRequest(f"{card.name} has no weights to fetch", "It is part of this package, or a folder of yours")
    if not 1 <= workers <= 32:
        raise BadRequest(f"{workers} downloads at a time were asked", "Between 1 and 32 are possible")
    folder = where.models / card.name
    with _alone(where.models, card.name), _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        commit, files = _of_folder(mirror, source) if mirror is not None else _of_hub(hub, source)
        for under, repository in source.beside.items():
            other = Source(repository=repository)
            more = _of_folder(mirror / under, other) if mirror is not None else _of_hub(hub, other)
            files += [one.within(under) for one in more[1]]
        receipt = Receipt(
            name=card.name,
            folder=folder,
            repository=source.repository,
            revision=commit,
            files={one.path: Held(bytes=one.bytes, sha256=one.sha256) for one in files},
            since=date.today().isoformat(),
            whole=False,
        )
        shelf.keep(receipt, where)
        if mirror is not None:
            yield from _copied(mirror, folder, files)
        else:
            yield from _fetched(hub, source.repository, folder, files, workers)
        for under in ("", *source.beside):
            shelf.check(folder / under)
        shelf.keep(receipt.model_copy(update={"whole": True}), where)
        shutil.rmtree(folder / ".parts", ignore_errors=True)


def needed(index: Mapping[str, Any], names: Mapping[str, Listed], patterns: tuple[str, ...] = ()) -> list[Listed]:
    """Which files of a repository a model needs: what model_index.json names, as safetensors, in one variant."""
    parts = [part for part, what in index.items() if isinstance(what, list) and what[-1] is not None and part[0] != "_"]
    chosen = [one for name, one in names.items() if name == INDEX or name.upper().startswith("LICENSE")]
    for part in parts:
        inside = {name: one for name, one in names.items() if name.startswith(f"{part}/") and name.count("/") == 1}
        chosen += [one for name, one in inside.items() if name.endswith(_READ) and not name.endswith(".index.json")]
        weights = shelf.one_variant([name for name in inside if name.endswith(".safetensors")])
        chosen += [inside[name] for name in weights]
        if weights and "-of-" in weights[0]:
            chosen += [one for name, one in inside.items() if name.endswith("safetensors.index.json")]
        if not weights and any(name.endswith(shelf.PICKLES) for name in inside):
            raise BadWeights(
                f"The {part} is published as a pickle only, which could run code",
                "Weights as safetensors are possible",
                "Choose another model",
            )
    if patterns:
        chosen += [one for name, one in names.items() if any(PurePosixPath(name).match(p) for p in patterns)]
    return sorted(set(chosen), key=lambda one: (one.path != INDEX, one.bytes))


def _of_hub(hub: Hub, source: Source) -> tuple[str, list[Listed]]:
    """The commit that a revision is now, and the files that are needed of it."""
    where = f"{hub.endpoint}/api/models/{source.repository}/revision/{quote(source.revision, safe='')}?blobs=true"
    listing = _json(hub, where, source)
    commit, siblings = listing.get("sha"), listing.get("siblings")
    if not isinstance(commit, str) or not commit.isalnum() or not isinstance(siblings, list):
        raise BadWeights(f"{hub.name} answered something else than the list of a repository", do="Check the mirror")
    names = {one.path: one for one in map(_listed, siblings)}
    if INDEX not in names:
        raise BadWeights(f"{source.repository} is not in the layout of diffusers: it has no {INDEX}")
    index = _json(hub, _url(hub, source.repository, commit, INDEX), source)
    files = needed(index, names, source.files)
    return commit, [replace(one, url=_url(hub, source.repository, commit, one.path)) for one in files]


def _listed(sibling: Any) -> Listed:
    """A file of the list, with a path that cannot leave its folder."""
    try:
        path, lfs = sibling["rfilename"], sibling.get("lfs") or {}
        size = int(lfs.get("size", sibling.get("size")))
        found = Listed(path, size, str(lfs.get("sha256", "")), "" if lfs else str(sibling.get("blobId", "")))
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise BadWeights("The list of the repository cannot be read", do="Check the mirror") from error
    pure = PurePosixPath(path)
    odd = pure.is_absolute() or ".." in pure.parts or "\\" in path or not path.isprintable() or len(path) > 200
    if odd or not 0 <= size < _MOST_FILE:
        raise BadWeights(f"The repository lists a file that cannot be: {path[:60]!r}", do="Check the mirror")
    return found


def _of_folder(mirror: Path, source: Source) -> tuple[str, list[Listed]]:
    if not (mirror / INDEX).is_file():
        raise BadWeights(f"{mirror.name} is not a checkpoint: it has no {INDEX}", do="Name the folder that holds it")
    files = {path.relative_to(mirror).as_posix(): path.stat().st_size for path in mirror.rglob("*") if path.is_file()}
    index = shelf.check(mirror)["model_index"]
    return "", needed(index, {name: Listed(name, size) for name, size in files.items()}, source.files)


def _copied(mirror: Path, folder: Path, files: list[Listed]) -> Iterator[Pulling]:
    """From a folder: linked where both lie on one disk, else copied, each file whole or not at all."""
    total, done = sum(one.bytes for one in files), 0
    for one in files:
        there, here = mirror / one.path, folder / one.path
        if not (here.is_file() and here.stat().st_size == one.bytes):
            here.parent.mkdir(parents=True, exist_ok=True)
            aside = here.with_name(f".{here.name}.partial")
            aside.unlink(missing_ok=True)
            try:
                os.link(there.resolve(), aside)
            except OSError:
                shutil.copyfile(there, aside)
            aside.replace(here)
        done += one.bytes
        yield Pulling(done, total, one.path, 0.0)


def _fetched(hub: Hub, repository: str, folder: Path, files: list[Listed], workers: int) -> Iterator[Pulling]:
    """From the hub, several files at a time; the first trouble stops all, and is told once the others have stopped."""
    total = sum(one.bytes for one in files)
    there = sum(_here(folder, one) for one in files)
    room = shutil.disk_usage(folder).free
    if total - there > room:
        raise CannotWrite(
            f"{repository} needs {_size(total - there)} more",
            f"{_size(room)} are free where models lie",
            "Make room, or set CINECANVAS_MODELS to another disk",
        )
    come: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
    stop = threading.Event()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="pull")
    work = [pool.submit(_file, hub, folder, one, come, stop) for one in files]
    done, last, pace = 0, "", _Pace()
    try:
        while True:
            over = all(future.done() for future in work)
            with contextlib.suppress(queue.Empty):
                while True:
                    last, more = come.get(timeout=0 if over else _LOOK)
                    done += more
                    pace.add(more)
                    if pace.due():
                        break
            yield Pulling(done, total, last, pace.rate)
            failed = next((f.exception() for f in work if f.done() and not f.cancelled() and f.exception()), None)
            if failed is not None:
                raise failed
            if over:
                return
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _file(hub: Hub, folder: Path, one: Listed, come: queue.SimpleQueue[tuple[str, int]], stop: threading.Event) -> None:
    """One file: what is there of it is kept, the rest is fetched, the whole is checked and put in its place."""
    final = folder / one.path
    if final.is_file() and final.stat().st_size == one.bytes:  # it was checked before it came to its place
        come.put((one.path, one.bytes))
        return
    part = _part(folder, one)
    part.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(_TRIES):
        if stop.is_set():
            return
        have = part.stat().st_size if part.exists() else 0
        if have > one.bytes:
            part.unlink()
            have = 0
        if attempt == 0:
            come.put((one.path, have))
        try:
            if have < one.bytes or not part.exists():
                _rest(hub, part, have, one, come, stop)
            break
        except (OSError, urllib.error.URLError) as error:
            trouble = _trouble(hub, one, error)
            grown = (part.stat().st_size if part.exists() else 0) > have
            if not isinstance(trouble, _Again) or (attempt == _TRIES - 1 and not grown):
                raise (trouble.told if isinstance(trouble, _Again) else trouble) from error
            stop.wait(min(8.0, 0.25 * 2**attempt))
    if stop.is_set():
        return
    if not _same(part, one):
        part.unlink(missing_ok=True)
        raise BadWeights(
            f"{one.path} came damaged: its digest is not the one that {hub.name} names",
            do="Run the same command again; if it stays so, choose another mirror",
        )
    final.parent.mkdir(parents=True, exist_ok=True)
    part.replace(final)


def _rest(
    hub: Hub,
    part: Path,
    have: int,
    one: Listed,
    come: queue.SimpleQueue[tuple[str, int]],
    stop: threading.Event,
) -> None:
    """The bytes from `have` on, appended as they come."""
    with _opened(hub, one.url, {"Range": f"bytes={have}-"} if have else {}) as answer:
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise BadWeights(
                f"{hub.name} answered with a web page instead of {one.path}", do="Check the mirror or proxy"
            )
        if have and answer.status != 206:  # it knows no ranges: from the beginning
            come.put((one.path, -have))
            have = 0
        with part.open("ab" if have else "wb") as file:
            while not stop.is_set() and (piece := answer.read(_PIECE)):
                if have + len(piece) > one.bytes:
                    raise BadWeights(f"{one.path} is longer than {hub.name} lists it", do="Check the mirror")
                file.write(piece)
                have += len(piece)
                come.put((one.path, len(piece)))
    if have < one.bytes and not stop.is_set():
        raise ConnectionError(f"{one.path} ended early")


def _same(part: Path, one: Listed) -> bool:
    """Whether a file is the one that was listed, by its digest, or by its size where none was told."""
    if part.stat().st_size != one.bytes:
        return False
    with part.open("rb") as file:
        if one.sha256:
            return hashlib.file_digest(file, "sha256").hexdigest() == one.sha256
        if one.blob:
            digest = hashlib.sha1(f"blob {one.bytes}\0".encode(), usedforsecurity=False)
            digest.update(file.read())
            return digest.hexdigest() == one.blob
    return True


def _json(hub: Hub, url: str, source: Source) -> dict[str, Any]:
    """A small answer; what goes wrong is said of the repository."""
    for attempt in range(_TRIES):
        try:
            with _opened(hub, url, {}) as answer:
                found = json.loads(answer.read(_MOST_LISTING))
            if isinstance(found, dict):
                return found
            raise ValueError("no object")
        except ValueError as error:
            raise BadWeights(f"{hub.name} answered with something that is not JSON", do="Check the mirror") from error
        except (OSError, urllib.error.URLError) as error:
            trouble = _trouble(hub, Listed(f"{source.repository} at {source.revision}", 0), error)
            if not isinstance(trouble, _Again):
                raise trouble from error
            if attempt == _TRIES - 1:
                raise trouble.told from error
            time.sleep(0.25 * 2**attempt)
    raise AssertionError("unreachable")


class _Again(Exception):
    """Trouble that may pass; `told` is what is said if it does not."""

    def __init__(self, told: BadWeights) -> None:
        self.told = told


def _trouble(hub: Hub, one: Listed, error: BaseException) -> BaseException:
    """What a failed request means to whoever asked."""
    if isinstance(error, BadWeights | CannotWrite):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return CannotWrite(
            "The disk is full", "What has come so far is kept", "Make room, and run the same command again"
        )
    if isinstance(error, urllib.error.HTTPError):
        if error.code in (401, 403):
            return BadWeights(
                f"{hub.name} does not give {one.path} to everybody",
                "An account that has accepted its terms there may have it",
                "Set HF_TOKEN to that account's token",
            )
        if error.code in (404, 410):
            return BadWeights(f"{hub.name} has no {one.path}", do="Check the name and the revision, or the mirror")
        if error.code < 500 and error.code not in (408, 416, 429):
            return BadWeights(f"{hub.name} answered {error.code} to {one.path}", do="Check the mirror")
    return _Again(
        BadWeights(
            f"{hub.name} cannot be reached, or broke off", "What has come so far is kept", "Run the same command again"
        )
    )


def _opened(hub: Hub, url: str, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(url, headers={"User-Agent": "cinecanvas", **headers})
    if hub.token and url.startswith(hub.endpoint + "/"):
        request.add_unredirected_header("Authorization", f"Bearer {hub.token}")
    return urllib.request.urlopen(request, timeout=_SILENCE)


def _url(hub: Hub, repository: str, commit: str, path: str) -> str:
    return f"{hub.endpoint}/{repository}/resolve/{commit}/{quote(path)}"


def _part(folder: Path, one: Listed) -> Path:
    """Where the beginning of a file waits: by its content's name, so another commit never mixes in."""
    name = hashlib.sha256(f"{one.path}\0{one.bytes}\0{one.sha256}{one.blob}".encode()).hexdigest()[:32]
    return folder / ".parts" / name


def _here(folder: Path, one: Listed) -> int:
    """Bytes of a file that are there."""
    for path in (folder / one.path, _part(folder, one)):
        if path.is_file():
            return min(path.stat().st_size, one.bytes)
    return 0


@contextlib.contextmanager
def _alone(models: Path, name: str) -> Iterator[None]:
    """One pull of a model at a time; the lock goes with its process, however that ends."""
    try:
        models.mkdir(parents=True, exist_ok=True)
        file = (models / f".{name}.lock").open("w")
    except OSError as error:
        raise CannotWrite(f"Models cannot be kept here ({error.strerror})", do="Set CINECANVAS_MODELS") from error
    with file:
        try:
            import fcntl
        except ImportError:  # Windows: two pulls at once would write the same bytes twice
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadRequest(f"{name} is being fetched already", do="Wait for it, or stop the other") from None
        yield


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[None]:
    """A disk that refuses, in one line."""
    try:
        yield
    except OSError as error:
        if isinstance(error, urllib.error.URLError | ConnectionError | TimeoutError):
            raise
        raise CannotWrite(
            f"{folder.name} cannot be written ({error.strerror})", do="Make room, or set CINECANVAS_MODELS"
        ) from error


class _Pace:
    """Bytes per second over the last seconds, and when it is time to tell of it."""

    def __init__(self) -> None:
        self._began = self._told = time.monotonic()
        self._seen: list[tuple[float, int]] = []

    def add(self, more: int) -> None:
        now = time.monotonic()
        self._seen = [(at, count) for at, count in self._seen if now - at < 5] + [(now, max(0, more))]

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._told < _LOOK:
            return False
        self._told = now
        return True

    @property
    def rate(self) -> float:
        if not self._seen:
            return 0.0
        return sum(count for _, count in self._seen) / max(0.5, time.monotonic() - self._seen[0][0])


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
