"""A result appears whole or not at all: it is written aside, in a hidden folder beside its place, then moved there."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cinecanvas.errors import CannotWrite, Unsupported

MOVIES = (".mp4", ".webm", ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")

NUMBERED = re.compile(r"[^%]*%(0[1-9])?d[^%]*")
_ENDINGS = f"Possible endings: {', '.join(MOVIES + PICTURES)}, or a folder/ for numbered PNG pictures"
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than is allowed here",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "there is no permission to write there",
    errno.EPERM: "there is no permission to write there",
    errno.ENOENT: "its folder does not exist",
    errno.ENOTDIR: "its folder is not a folder",
    errno.ENAMETOOLONG: "the name is too long for this disk",
}


@dataclass(frozen=True)
class Destination:
    """Where a result lands: `folder` (absolute) and the `name` in it, "" if only pictures numbered by `pattern` can."""

    folder: Path
    name: str
    ending: str
    pattern: str
    shown: str
    aside: Path  # where the hidden folder is made: on the same disk as the place itself, so that moving is atomic


def destination(path: str | os.PathLike[str]) -> Destination:
    """Read a path: a movie, a picture, a pattern such as frames/%04d.png, or a folder/ of pictures; writes nothing."""
    text = os.fspath(path)
    shown = shown_name(text)
    if not text or "\0" in text:
        raise CannotWrite(f"{shown!r} is not a file name", do="Give a name such as fox.mp4")
    if text.endswith("/"):
        folder = Path(os.path.realpath(text))
        return Destination(folder, "", ".png", "%04d.png", shown, folder if os.path.isdir(folder) else folder.parent)
    # A link is followed, so that the file it names is replaced and not the link.
    place, ending = Path(os.path.realpath(text)), Path(text).suffix.lower()
    if os.path.isdir(place):
        raise CannotWrite(f"{shown} is a folder", do=f"Give a file in it such as {shown}/fox.mp4, or {shown}/ for PNGs")
    if ending not in MOVIES + PICTURES:
        raise Unsupported(f"{shown} has {'an unknown' if ending else 'no'} ending", _ENDINGS)
    if ending in MOVIES:
        return Destination(place.parent, place.name, ending, "", shown, place.parent)
    if NUMBERED.fullmatch(place.name):
        return Destination(place.parent, "", ending, place.name, shown, place.parent)
    pattern = f"{place.stem.replace('%', '%%')}-%04d{place.suffix}"
    return Destination(place.parent, place.name, ending, pattern, shown, place.parent)


def check_destination(path: str | os.PathLike[str]) -> None:
    """Refuse, before any weights load, a place that cannot be written to: really makes a file there and removes it."""
    place = destination(path)
    with told(place.shown):
        if not os.path.isdir(place.aside) or (os.path.lexists(place.folder) and not os.path.isdir(place.folder)):
            missing = place.aside if place.folder == place.aside else place.folder
            asked = f"Cannot write {place.shown}: there is no folder {shown_name(str(missing))}"
            raise CannotWrite(asked, do="Create the folder first")
        for name in filter(None, (place.name, place.pattern and place.pattern % 1)):
            _check_replaceable(place.folder / name, place.shown)
        probe = place.aside / _hidden()
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        os.unlink(probe)


def _check_replaceable(file: Path, shown: str) -> None:
    """A file that is there may be replaced only if it is plain and we may write it: a read-only file is meant so."""
    try:
        mode = os.lstat(file).st_mode  # a name that is too long fails here, as it would in the end
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise CannotWrite(f"{shown} exists and is not a plain file", do="Give another name")
    os.close(os.open(file, os.O_WRONLY))


@contextmanager
def written_aside(place: Destination) -> Iterator[Path]:
    """A hidden folder beside the place; what has not landed when the block ends, for whatever reason, is removed.

    What runs that were killed have left there goes first: the system lets go of their locks, and nobody holds them.
    """
    folder = place.aside / _hidden()
    with told(place.shown):
        _sweep(place.aside)
        ours = folder.with_suffix(".new")  # until it is locked it must not look like a leftover
        ours.mkdir()  # not mkdtemp: its 0700 would stick to a folder of pictures
        lock = _locked(ours)
        ours.rename(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _sweep(place: Path) -> None:
    """Remove the hidden folders in this place that no living run holds."""
    for folder in place.glob(".cinecanvas-*.part"):
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A handle that holds the lock of a folder until it is closed; None if another has it, or there are no locks."""
    handle = None
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        if handle is not None:
            os.close(handle)
        return None
    return handle


def land(files: Sequence[Path], place: Destination) -> str:
    """Flush the files to the disk and move them to their place; the name or pattern under which they are there."""
    for file in files:
        _flush(file)
    if place.name and len(files) == 1:
        os.replace(files[0], place.folder / place.name)
        _flush(place.folder)
        return place.name
    named = [file.rename(file.with_name(place.pattern % number)) for number, file in enumerate(files, 1)]
    if os.path.isdir(place.folder) or not _move_folder(files[0].parent, place.folder):
        for file in named:
            os.replace(file, place.folder / file.name)
        _flush(place.folder)
    return place.pattern


def cannot_write(shown: str, number: int) -> CannotWrite:
    """One clear line for a failure with this errno; the system's own text would carry our hidden path."""
    reason = _REASONS.get(number) or os.strerror(number).lower()
    free = number in (errno.ENOSPC, errno.EDQUOT)
    do = "Free some space, or write to another disk" if free else "Choose another folder or name"
    return CannotWrite(f"Cannot write {shown}: {reason}", do=do)


@contextmanager
def told(shown: str) -> Iterator[None]:
    """What the system refuses inside is told as one CannotWrite about the name the user gave."""
    try:
        yield
    except OSError as error:
        raise cannot_write(shown, error.errno or errno.EIO) from error


def _move_folder(folder: Path, place: Path) -> bool:
    """Make the hidden folder the place itself, in one step; False if somebody else made one in the meantime."""
    try:
        os.rename(folder, place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    _flush(place)
    _flush(place.parent)
    return True


def _flush(path: Path) -> None:
    """fsync of a file or folder: without it a power cut may leave the name and lose the content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _hidden() -> str:
    """A name of fixed length, so that a long name of the user's is not made too long."""
    return f".cinecanvas-{secrets.token_hex(6)}.part"


def shown_name(text: str) -> str:
    """The last name of a path, printable and short: never the folders above it."""
    name = text.rstrip("/").rsplit("/", 1)[-1] + ("/" if text.endswith("/") else "")
    clean = "".join(char if char.isprintable() else "?" for char in name)
    return clean if len(clean) <= 60 else f"{clean[:40]}...{clean[-16:]}"
