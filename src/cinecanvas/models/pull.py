"""`pull`: the files of a published model onto the shelf; stopped at any moment, the same call goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from cinecanvas.errors import BadWeights, CannotWrite, Unsupported
from cinecanvas.model import Card, Source
from cinecanvas.models import shelf
from cinecanvas.models.checkpoint import INDEX
from cinecanvas.models.headers import PICKLES
from cinecanvas.models.hub import File, Folder, Listing, Lost, Origin, origin
from cinecanvas.models.shelf import Held, Moving, Receipt
from cinecanvas.settings import Settings

_WEIGHTS = (".safetensors", ".gguf")
_WORDS = (".json", ".txt", ".model", ".jinja")  # configurations, indices, tokenizers and their chat templates
_LICENCE = re.compile(r"[\w.-]*licen[cs]e[\w.-]*\.(md|txt|pdf)|licen[cs]e|notice(\.txt)?", re.IGNORECASE)
_SHARD = re.compile(r"(?P<stem>[^.]+?)(\.(?P<variant>[^.]+?))?(?P<shard>-\d{5}-of-\d{5})?\.safetensors")
_OWN = ("diffusion_pytorch_model", "model")  # what diffusers and transformers look for
_PARTS = ".incoming"  # in a model's folder: what has come in part
_BREATH = 0.2  # s between two events


@dataclass(frozen=True)
class Begun:
    """What will be fetched: the repository at a commit, its files, their bytes, and how many of these are here."""

    name: str
    repository: str
    revision: str
    files: int
    bytes: int
    here: int


@dataclass(frozen=True)
class Ended:
    """All files are here and checked; fetched: bytes that came now."""

    receipt: Receipt
    fetched: int


Event = Begun | Moving | Ended


class _Stopped(Exception):
    """Somebody stopped the pull, or another worker failed."""


def pull(
    card: Card, *, where: Settings, mirror: str = "", accepted: bool = False, token: str = "", workers: int = 4
) -> Iterator[Event]:
    """Fetch a Card's weights into its folder under `where.models`; the last event is Ended with their receipt.

    Only what is needed comes, and never a pickle. Every file has the digest that its origin tells, or is refused; what
    has come once is not fetched again, whatever ended the call. mirror: the URL of another endpoint, or a folder.
    accepted: the licence's terms, where it asks for that. BadWeights: the origin has not what was asked, or is not
    reached; CannotWrite: no room; Unsupported: offline, or the terms are not accepted.
    """
    source = _source(card)
    shelf.check_name(card.name)
    old = shelf.receipts(where).get(card.name)
    if old is not None and not old.repository:
        raise Unsupported(f"{card.name} is a folder that was added here", do=f"cine models remove {card.name}")
    if old is not None and old.whole and _asked(source, old) and not shelf.sound(old):
        yield Ended(old, 0)
        return
    consent(card, where, accepted=accepted)
    local = bool(mirror) and "://" not in mirror
    if where.offline and not local:
        raise Unsupported(
            f"{card.name} is to be fetched, and CINECANVAS_OFFLINE or HF_HUB_OFFLINE says that nothing is",
            "A folder of this machine can be the mirror",
            f"Unset it, or cine models pull {card.name} --mirror FOLDER",
        )
    for under, repository in source.beside.items():
        part = card.model_copy(update={"name": shelf.beside(card.name, under), "source": Source(repository=repository)})
        inside = f"{mirror}/{under}" if local else mirror
        for event in pull(part, where=where, mirror=inside, accepted=True, token=token, workers=workers):
            if not isinstance(event, Ended):
                yield event
    with shelf.alone(card.name, where):
        yield from _Pull(card, source, where, origin(source, card.name, mirror=mirror, token=token)).run(workers)


def consent(card: Card, where: Settings, *, accepted: bool) -> None:
    """See that the licence was accepted, now or before; an acceptance is written down once."""
    terms = card.terms
    if not terms.accept or shelf.accepted(card, where) is not None:
        return
    if not accepted:
        raise Unsupported(
            f"The licence of {card.name} ({card.licence}) is to be accepted before its weights are fetched",
            f"It is at {terms.url}" if terms.url else "",
            f"Read it, then cine models pull {card.name} --accept",
        )
    shelf.accept(card, where)


@dataclass(frozen=True)
class _Tally:
    """How many bytes are here, as several threads count them, and when they came."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)
    numbers: dict[str, int] = field(default_factory=lambda: {"here": 0, "came": 0})
    recent: list[tuple[float, int]] = field(default_factory=list)  # (s, bytes that had come by then)

    def moved(self, count: int) -> None:
        """`count` bytes came over, or went back."""
        if self.stop.is_set():
            raise _Stopped
        with self.lock:
            self.numbers["here"] += count
            self.numbers["came"] += max(0, count)

    def begin(self, here: int) -> None:
        """`here` bytes are here before any come."""
        with self.lock:
            self.numbers.update(here=here)

    def found(self, count: int) -> None:
        """`count` bytes were here already, or are no longer."""
        with self.lock:
            self.numbers["here"] += count

    def rate(self) -> float:
        """Bytes per second of the last five seconds."""
        now, came = time.monotonic(), self.numbers["came"]
        self.recent.append((now, came))
        while len(self.recent) > 2 and now - self.recent[0][0] > 5:
            self.recent.pop(0)
        (since, before) = self.recent[0]
        return (came - before) / (now - since) if now > since else 0.0


@dataclass(frozen=True)
class _Pull:
    """One pull of one model."""

    card: Card
    source: Source
    where: Settings
    origin: Origin
    tally: _Tally = field(default_factory=_Tally)

    @property
    def folder(self) -> Path:
        return self.where.models.absolute() / self.card.name

    def run(self, workers: int) -> Iterator[Event]:
        """The list, the index that says which parts there are, then everything else at once."""
        known = shelf.receipts(self.where).get(self.card.name)
        revision = self.source.revision
        if known is not None and not known.whole and not _commit(revision) and known.repository:
            revision = known.revision or revision  # half of one commit and half of another is no model
        try:
            with _room(self.card.name, 0):
                listing = self.origin.listing(self.source, revision)
                (self.folder / _PARTS).mkdir(parents=True, exist_ok=True)
                receipt = self._receipt(known, listing)
                if INDEX in listing.files and INDEX not in receipt.files:
                    held = self._bring(listing.files[INDEX], listing)
                    receipt = receipt.model_copy(update={"files": {**receipt.files, INDEX: held}})
        except Lost as lost:
            raise BadWeights(
                f"{self.card.name} cannot be fetched now: {lost}",
                do="Check the network and run the same command again, or name a mirror: --mirror URL|FOLDER",
            ) from lost
        wanted = chosen(listing.files, self.source, _parts(self.folder / INDEX), name=self.card.name)
        receipt = receipt.model_copy(update={"files": {p: h for p, h in receipt.files.items() if p in wanted}})
        shelf.keep(receipt, self.where)
        yield from self._all(receipt, wanted, listing, workers)

    def _receipt(self, known: Receipt | None, listing: Listing) -> Receipt:
        """What is here already and is what the listing names."""
        files = {
            path: held
            for path, held in (known.files if known is not None else {}).items()
            if path in listing.files and self._same(listing.files[path], held)
        }
        return Receipt(
            name=self.card.name,
            folder=self.folder,
            repository=self.source.repository,
            revision=listing.commit,
            files=files,
            since=shelf.today(),
            whole=False,
        )

    def _same(self, file: File, held: Held) -> bool:
        """Whether a file that came before is this one, as its length here and its digest tell."""
        try:
            if (self.folder / file.path).stat().st_size != held.bytes or held.bytes != file.bytes:
                return False
        except OSError:
            return False
        return bool(file.sha256) and file.sha256 == held.sha256

    def _all(self, receipt: Receipt, wanted: Mapping[str, File], listing: Listing, workers: int) -> Iterator[Event]:
        """Every file that is not here yet, several at a time."""
        missing = [file for path, file in wanted.items() if path not in receipt.files]
        of = sum(file.bytes for file in wanted.values())
        self._tidy(missing)
        lying = sum(self._lying(file) for file in missing)
        self.tally.begin(receipt.bytes + sum(_bytes_of(self._part(file)) for file in missing))
        self._check_room(of - receipt.bytes - lying)
        earlier = self.tally.numbers["here"] - self.tally.numbers["came"]
        yield Begun(self.card.name, receipt.repository, receipt.revision, len(wanted), of, earlier)
        for event in self._working(missing, listing, workers):
            if isinstance(event, BaseException):
                raise self._failed(event, of)
            if isinstance(event, tuple):
                path, held = event
                receipt = receipt.model_copy(update={"files": {**receipt.files, path: held}})
                with _room(self.card.name, of - self.tally.numbers["here"]):
                    shelf.keep(receipt, self.where)
            else:
                yield Moving(self.tally.numbers["here"], of, event, self.tally.rate())
        if INDEX in wanted:
            shelf.check(self.folder)
        receipt = receipt.model_copy(update={"whole": True})
        shelf.keep(receipt, self.where)
        shutil.rmtree(self.folder / _PARTS, ignore_errors=True)
        yield Ended(receipt, self.tally.numbers["came"])

    def _working(
        self, missing: Sequence[File], listing: Listing, workers: int
    ) -> Iterator[str | tuple[str, Held] | BaseException]:
        """Threads at work: files that are whole, the file of the moment every now and then, or what went wrong."""
        todo: queue.SimpleQueue[File] = queue.SimpleQueue()
        told: queue.SimpleQueue[tuple[str, Held] | BaseException] = queue.SimpleQueue()
        for file in sorted(missing, key=lambda file: -file.bytes):
            todo.put(file)
        current = [""]

        def work() -> None:
            try:
                while not self.tally.stop.is_set():
                    file = todo.get_nowait()
                    current[0] = file.path
                    told.put((file.path, self._bring(file, listing)))
            except queue.Empty:
                pass
            except BaseException as error:  # it is the main thread's to tell
                told.put(error)

        # daemons: one that waits for a silent network must not keep a stopped command alive, and what it has is on disk
        threads = [threading.Thread(target=work, daemon=True) for _ in range(max(1, min(workers, len(missing))))]
        try:
            for thread in threads:
                thread.start()
            left, next_word = len(missing), 0.0
            while left:
                try:
                    event = told.get(timeout=_BREATH)
                except queue.Empty:
                    yield current[0]
                    continue
                left -= isinstance(event, tuple)
                yield event
                if time.monotonic() > next_word:
                    next_word = time.monotonic() + _BREATH
                    yield current[0]
        finally:
            self.tally.stop.set()
            for thread in threads:
                if thread.is_alive():  # a stop may come before all have begun
                    thread.join(timeout=1.0)

    def _bring(self, file: File, listing: Listing) -> Held:
        """A file at its place, with the digest that was told of it."""
        place, part = self.folder / file.path, self._part(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_file() and not place.is_symlink() and place.stat().st_size == file.bytes:
            sha256 = self._digest(place, file)  # a pull was killed before it had noted this one, or somebody put it
            if sha256:
                self.tally.found(file.bytes - _bytes_of(part))
                part.unlink(missing_ok=True)
                return Held(bytes=file.bytes, sha256=sha256)
        before = _bytes_of(part)
        if file.bytes == 0:
            part.touch()
        elif before < file.bytes or isinstance(self.origin, Folder):
            self.origin.fetch(file, part, listing, self.tally.moved)
        sha256 = self._digest(part, file)
        if not sha256 and before:  # what was here of it may have been harmed, as by a power cut: once more, all of it
            self.tally.found(-_bytes_of(part))
            part.unlink()
            self.origin.fetch(file, part, listing, self.tally.moved)
            sha256 = self._digest(part, file)
        if not sha256:
            self.tally.found(-_bytes_of(part))
            part.unlink()
            raise BadWeights(
                f"{file.path} of {self.card.name} came damaged: its digest is not the one that was told of it",
                do="Run the command again, or choose another mirror",
            )
        handle = os.open(part, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(part, place)
        return Held(bytes=file.bytes, sha256=sha256)

    def _digest(self, path: Path, file: File) -> str:
        """The sha256 of a file; "" if it is not the file that was told of. Git hashes "blob", length, 0 and bytes."""
        sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)
        with path.open("rb") as opened:
            while block := opened.read(1 << 20):
                self.tally.moved(0)
                sha256.update(block)
                if file.blob:
                    blob.update(block)
        right = path.stat().st_size == file.bytes
        right = right and (not file.sha256 or sha256.hexdigest() == file.sha256)
        return sha256.hexdigest() if right and (not file.blob or blob.hexdigest() == file.blob) else ""

    def _part(self, file: File) -> Path:
        """Where a file comes in: named by its path and its digest, so that another version is another file."""
        name = hashlib.sha256(f"{file.path} {file.sha256 or file.blob} {file.bytes}".encode()).hexdigest()[:32]
        return self.folder / _PARTS / name

    def _tidy(self, missing: Sequence[File]) -> None:
        """Parts of files that are wanted no more, or that are longer than their file, go."""
        wanted = {self._part(file).name: file.bytes for file in missing}
        for part in (self.folder / _PARTS).iterdir():
            if part.name not in wanted or part.is_symlink() or _bytes_of(part) > wanted[part.name]:
                part.unlink()

    def _lying(self, file: File) -> int:
        """The bytes of a missing file that the disk already has, so that they need no room."""
        place = _bytes_of(self.folder / file.path)
        return place if place == file.bytes else _bytes_of(self._part(file))

    def _check_room(self, needed: int) -> None:
        """Refuse to begin what cannot end; links of the same disk need none."""
        if isinstance(self.origin, Folder) and self.origin.path.stat().st_dev == self.folder.stat().st_dev:
            return
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise CannotWrite(
                f"{self.card.name} needs {_gb(needed)} more and its disk has {_gb(free)} free",
                do="Free some space, or set CINECANVAS_MODELS to a folder on another disk",
            )

    def _failed(self, error: BaseException, of: int) -> BaseException:
        """What went wrong in a worker, as one line that says what is here and what to do."""
        here = self.tally.numbers["here"]
        if isinstance(error, Lost):
            return BadWeights(
                f"The network is gone: {error}. {_gb(here)} of {_gb(of)} of {self.card.name} are here",
                do="Run the same command again: it goes on from there",
            )
        try:
            with _room(self.card.name, of - here):
                raise error
        except CannotWrite as told:
            return told
        except BaseException:
            return error


@contextmanager
def _room(name: str, needed: int) -> Iterator[None]:
    """What the disk refuses, with what is still to come."""
    try:
        yield
    except OSError as error:
        plain = shelf.no_room(error)
        more = f"{_gb(needed)} of {name} are still to come; what has come is kept" if needed else ""
        raise CannotWrite(plain.asked, more, f"{plain.do}; the same command goes on") from error


def chosen(files: Mapping[str, File], source: Source, index: Mapping[str, Any], *, name: str) -> dict[str, File]:
    """The files that are needed: what the patterns name, else the parts of model_index.json; never a pickle."""
    good = {path: file for path, file in files.items() if _readable(path)}
    if source.files:
        wanted = {path: file for path, file in good.items() if any(fnmatchcase(path, one) for one in source.files)}
        for pattern in source.files:
            if not any(fnmatchcase(path, pattern) for path in wanted):
                _refuse(name, pattern, [path for path in files if fnmatchcase(path, pattern)])
        return wanted | {path: file for path, file in good.items() if path == INDEX}
    if not index:
        raise BadWeights(
            f"{source.repository or name} is not a checkpoint in the layout of diffusers: it has no {INDEX}",
            do="Choose its repository in that layout",
        )
    wanted = {path: file for path, file in good.items() if path == INDEX or _LICENCE.fullmatch(path)}
    for part in index:
        wanted |= _of_part(part, good, [path for path in files if path.startswith(f"{part}/")], name=name)
    return wanted


def _of_part(part: str, good: Mapping[str, File], all_of: Sequence[str], *, name: str) -> dict[str, File]:
    """The files of one part: its words, and one copy of its weights."""
    own = {path: good[path] for path in all_of if path in good and path.count("/") == 1}
    weights = [path for path in own if path.endswith(".safetensors")]
    if not own or (not weights and any(path.endswith(PICKLES) for path in all_of)):
        _refuse(name, part, all_of)
    taken = _one_copy(weights, own) if weights else []
    if weights and not taken:
        raise BadWeights(f"{name} has its {part} only as a variant ({weights[0]})", do="Choose another repository")
    words = (path for path in own if not path.endswith(_WEIGHTS) and _goes_with(path, taken))
    return {path: own[path] for path in (*words, *taken)}


def _one_copy(weights: Sequence[str], own: Mapping[str, File]) -> list[str]:
    """Of several copies the plain one: no variant such as fp16, the names that the libraries look for, and in shards
    rather than whole if there are both."""
    split = {path: match for path in weights if (match := _SHARD.fullmatch(PurePosixPath(path).name))}
    plain = [path for path, match in split.items() if not match["variant"]]
    ours = next((stem for stem in _OWN if any(split[path]["stem"] == stem for path in plain)), None)
    taken = [path for path in plain if ours is None or split[path]["stem"] == ours]
    sharded = [path for path in taken if split[path]["shard"]]
    indexed = any(path.endswith(".safetensors.index.json") for path in own)
    return sharded if sharded and indexed else taken


def _goes_with(path: str, taken: Sequence[str]) -> bool:
    """Whether a file is no index, or the index of weights that are taken."""
    name = PurePosixPath(path).name
    if ".index." not in name:
        return True
    stem = name.removesuffix(".safetensors.index.json")
    return any(PurePosixPath(one).name.startswith(f"{stem}-") for one in taken)


def _parts(index: Path) -> dict[str, Any]:
    """The parts that a model_index.json names; none where there is none."""
    try:
        named = json.loads(index.read_bytes())
        parts = {part: one for part, one in named.items() if isinstance(one, list) and one and one[-1] is not None}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise BadWeights(
            f"{index.parent.name}/{INDEX} is not JSON", do="Choose another mirror or repository"
        ) from error
    return {part: one for part, one in parts.items() if part[:1] != "_" and shelf.safe(part) and "/" not in part}


def _refuse(name: str, part: str, files: Sequence[str]) -> None:
    pickled = next((path for path in files if path.endswith(PICKLES)), "")
    if pickled:
        raise BadWeights(
            f"{name} has its {part} only as a pickle ({pickled}), which could run code",
            "Weights as safetensors are possible",
            "Choose another revision or repository",
        )
    raise BadWeights(f"{name} names {part}, which its repository does not hold", do="Choose another revision")


def _readable(path: str) -> bool:
    name = PurePosixPath(path).name
    hidden = any(one[0] == "." for one in path.split("/"))
    return not hidden and (name.endswith((*_WEIGHTS, *_WORDS)) or bool(_LICENCE.fullmatch(path)))


def _source(card: Card) -> Source:
    if card.source is None:
        raise Unsupported(f"The weights of {card.name} are part of this package", "There is nothing to fetch")
    if not card.source.repository:
        raise Unsupported(f"{card.name} is a folder that was added here", "There is nothing to fetch")
    return card.source


def _asked(source: Source, receipt: Receipt) -> bool:
    """Whether what is here is of the repository and commit that the Card names now."""
    pinned = _commit(source.revision) and receipt.revision and receipt.revision != source.revision
    return receipt.repository == source.repository and not pinned


def _commit(revision: str) -> bool:
    return bool(re.fullmatch(r"[0-9a-f]{40}", revision))


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _gb(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
