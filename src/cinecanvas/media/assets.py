"""Every file has one name, the digest of its bytes, and lives in one store, a folder or a bucket."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from pydantic import BaseModel, Field

from cinecanvas.errors import BadRequest, CannotWrite, CinecanvasError
from cinecanvas.media.destination import cannot_write

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_HEX = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20  # bytes
MOST_RECORDS = 1 << 30  # bytes of records that `tidy` leaves
ASIDE = (".upload-", ".fetch-")  # how the names begin of what is not an asset yet
_IN_MEMORY = 8 << 20  # bytes; above, what arrives is kept in a nameless file and sent in parts


class Asset(BaseModel, frozen=True):
    """A stored file: its digest is its identity, the rest describes it; width, height in px, fps in 1/s."""

    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    media_type: str
    bytes: int = Field(ge=0)
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    fps: float | None = None
    seconds: float | None = None
    sound: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Asset) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)


class Holding(BaseModel, frozen=True):
    """What a store holds: assets, and records such as the latents of films on their way."""

    assets: int
    bytes: int
    records: int
    record_bytes: int


@dataclass(frozen=True)
class Store:
    """Assets by digest, and small records by key; nothing half-written is ever seen, whoever is killed when."""

    objects: ObjectStore
    root: Path | None  # None: not on this machine's disk

    @staticmethod
    def at(location: str | Path) -> Store:
        """A store in a folder (made if missing), or at a URL such as s3://bucket/prefix."""
        from obstore.store import LocalStore, from_url

        if isinstance(location, str) and "://" in location:
            try:
                return Store(from_url(location), None)
            except Exception as error:  # obstore's own words may hold what the URL holds: keys
                kinds = "A store is a folder, or s3://, gs:// or az:// with a bucket"
                raise BadRequest("This store URL cannot be opened", kinds) from error
        root = Path(os.path.abspath(location))
        with _told():
            root.mkdir(parents=True, exist_ok=True)
        return Store(LocalStore(root), root)

    def put(self, stream: BinaryIO | Iterable[bytes] | bytes | Path, media_type: str) -> Asset:
        """Keep these bytes, read piece by piece, under their digest; storing the same again changes nothing."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=None if self.root is None else str(self.root)) as spool:
            digest, count = hashlib.sha256(), 0
            for piece in _pieces(stream):
                digest.update(piece)
                count += len(piece)
                with _told():
                    spool.write(piece)
            asset = Asset(digest=f"sha256:{digest.hexdigest()}", media_type=media_type, bytes=count)
            if not self.has(asset.digest):
                with _told():
                    spool.seek(0)
                    self._create(_key(asset.digest), cast(BinaryIO, spool), count)
        return asset

    def has(self, digest: str) -> bool:
        """Whether these bytes are here."""
        import obstore

        key = _key(digest)
        with _answering():
            try:
                obstore.head(self.objects, key)
            except FileNotFoundError:
                return False
        return True

    def open(self, digest: str) -> BinaryIO:
        """The bytes of a digest as a readable, seekable stream; from a bucket they come in parts as they are read."""
        import obstore

        key = _key(digest)
        with _answering():
            try:
                if self.root is not None:
                    return (self.root / key).open("rb")
                return io.BufferedReader(_Remote(obstore.open_reader(self.objects, key)), _CHUNK)
            except FileNotFoundError as error:
                raise _missing(digest) from error

    def path(self, digest: str) -> Path:
        """The file itself, to be read and never written, if the store is a folder."""
        key = _key(digest)
        if self.root is None:
            raise BadRequest("A store in a bucket has no paths", do="Read the asset with open()")
        if not (self.root / key).is_file():
            raise _missing(digest)
        return self.root / key

    def delete(self, digest: str) -> None:
        """Forget these bytes, if they are here."""
        self._drop(_key(digest))

    def put_named(self, key: str, data: bytes) -> None:
        """Keep a small record under a key (64 hex digits), in place of what was there."""
        import obstore

        name = _key(key, of="keyed")
        with _told():
            obstore.put(self.objects, name, data, use_multipart=False)
            self._flush(name)

    def get_named(self, key: str) -> bytes | None:
        """The record under a key; None if there is none."""
        import obstore

        name = _key(key, of="keyed")
        with _answering():
            try:
                return bytes(obstore.get(self.objects, name).bytes())
            except FileNotFoundError:
                return None

    def drop_named(self, key: str) -> None:
        """Forget the record under a key, if there is one."""
        self._drop(_key(key, of="keyed"))

    def holds(self) -> Holding:
        """How many assets and records are here, and their bytes."""
        assets, records = ([size for _, _, size in self._listed(kind)] for kind in ("sha256", "keyed"))
        return Holding(assets=len(assets), bytes=sum(assets), records=len(records), record_bytes=sum(records))

    def tidy(self, *, most: int = MOST_RECORDS, days: float = 7.0) -> None:
        """Forget the records that are older than some days, and the oldest of what is more than `most` bytes."""
        left = most
        for name, when, size in sorted(self._listed("keyed"), key=lambda one: one[1], reverse=True):
            left -= size
            if left < 0 or datetime.now(UTC) - when > timedelta(days=days):
                self._drop(name)

    def clear_aside(self, *, seconds: float = 3600.0) -> None:
        """Forget what was on its way into a folder when somebody was killed, and was last written so long ago."""
        for path in [] if self.root is None else self.root.glob(".*-*"):
            with suppress(FileNotFoundError):  # another was faster
                if path.name.startswith(ASIDE) and time.time() - path.stat().st_mtime > seconds:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def clear(self) -> None:
        """Forget every asset and every record."""
        for kind in ("sha256", "keyed"):
            for name, _, _ in self._listed(kind):
                self._drop(name)

    def _listed(self, kind: str) -> list[tuple[str, datetime, int]]:
        """Name, time and bytes of everything of a kind."""
        import obstore

        with _answering():
            found = [meta for page in obstore.list(self.objects, prefix=kind) for meta in page]
        return [(str(meta["path"]), meta["last_modified"], meta["size"]) for meta in found]

    def _create(self, key: str, stream: BinaryIO, count: int) -> None:
        """Small files only if nobody was faster; large ones in parts, where a second writer repeats the same bytes."""
        import obstore

        if count > _IN_MEMORY:
            obstore.put(self.objects, key, stream, use_multipart=True)
        else:
            try:
                obstore.put(self.objects, key, stream, mode="create", use_multipart=False)
            except obstore.exceptions.AlreadyExistsError:
                return
        self._flush(key)

    def _drop(self, key: str) -> None:
        import obstore

        with _told():
            try:
                obstore.delete(self.objects, key)
            except FileNotFoundError:
                return

    def _flush(self, key: str) -> None:
        """obstore renames without fsync: after a power cut the name could stand there with nothing in it."""
        if self.root is None:
            return
        for path in (self.root / key, (self.root / key).parent):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


class _Remote(io.RawIOBase):
    """obstore's reader with the face of a Python stream, so that decoders and servers can take it."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._reader.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        piece = memoryview(self._reader.read(len(buffer)))
        buffer[: len(piece)] = piece
        return len(piece)


def _pieces(stream: BinaryIO | Iterable[bytes] | bytes | Path) -> Iterator[bytes]:
    """Whatever bytes come in, in pieces of bounded size as far as it is ours to say."""
    if isinstance(stream, Path):
        with stream.open("rb") as file:
            yield from _pieces(file)
    elif isinstance(stream, bytes | bytearray | memoryview):
        yield bytes(stream)
    elif hasattr(stream, "read"):
        while piece := cast(BinaryIO, stream).read(_CHUNK):
            yield piece
    else:
        yield from stream


def _key(digest: str, *, of: str = "sha256") -> str:
    """sha256/ab/cd/abcd... of a digest; anything but 64 hex digits is refused before a path is made of it."""
    bare = digest.removeprefix("sha256:") if of == "sha256" else digest
    if not _HEX.fullmatch(bare) or (of == "sha256" and bare == digest):
        kind = "sha256: and 64" if of == "sha256" else "64"
        raise BadRequest(
            "This is not the digest of an asset" if of == "sha256" else "This is not a key", f"It is {kind} hex digits"
        )
    return f"{of}/{bare[:2]}/{bare[2:4]}/{bare}"


def _missing(digest: str) -> BadRequest:
    return BadRequest(f"There is no asset {digest} in the store", do="Upload it first")


@contextmanager
def _answering() -> Iterator[None]:
    """A store that cannot be read (a bucket that does not answer) is told in one line."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, PermissionError) as error:
        raise CinecanvasError("The store cannot be read", do="Check its address and your rights to it") from error


@contextmanager
def _told() -> Iterator[None]:
    """A failing disk or bucket is told in one line; obstore's text would carry paths and addresses."""
    from obstore.exceptions import BaseError

    try:
        yield
    except OSError as error:
        raise cannot_write("into the store", error.errno or errno.EIO) from error
    except BaseError as error:
        system = re.search(r"os error (\d+)", str(error))
        if system:
            raise cannot_write("into the store", int(system[1])) from error
        raise CannotWrite("Cannot write into the store", do="Check its address and your rights to it") from error
