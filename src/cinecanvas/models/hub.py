"""Where public weights come from: the hub or a mirror of it over the wire, or a folder; the only room that asks it."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cinecanvas import __version__
from cinecanvas.errors import BadRequest, BadWeights, CinecanvasError, Unsupported
from cinecanvas.model import Source
from cinecanvas.models.shelf import Held, Receipt, safe

_SHA256, _COMMIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
_LARGEST = 1 << 42  # bytes: no file of weights is as large as that
_BLOCK = 1 << 20  # bytes read and written at a time
_OURS = {"library_name": "cinecanvas", "library_version": __version__}  # what is said of this machine, and no more
WAITS = (0.5, 1.0, 2.0, 4.0)  # s between two tries in which nothing came; then the network counts as gone


@dataclass(frozen=True)
class File:
    """One file of a repository: bytes, and the sha256 or git's sha1 that it must have; "" where nobody told."""

    path: str
    bytes: int
    sha256: str = ""
    blob: str = ""


@dataclass(frozen=True)
class Listing:
    """The files of a repository at one commit, by their paths."""

    commit: str
    files: dict[str, File]


class Lost(Exception):
    """The network is gone, or the other side does not answer; what has come is kept."""


class Origin(Protocol):
    """Somewhere that weights come from."""

    def listing(self, source: Source, revision: str) -> Listing:
        """The files of a repository at a revision."""
        ...

    def fetch(self, file: File, part: Path, listing: Listing, moved: Callable[[int], None]) -> None:
        """Bring what is missing of a file into `part`; moved(n) is told of every n bytes, or of -n taken back."""
        ...


@dataclass(frozen=True)
class Hub:
    """The hub, or another endpoint that speaks as it does. Plain HTTP with ranges, no Xet: it caches elsewhere."""

    endpoint: str  # "": the hub's own, or HF_ENDPOINT
    repository: str
    token: str = ""
    gated: bool = False

    def listing(self, source: Source, revision: str) -> Listing:
        """What the repository holds; refusals are one line each."""
        hub = _library()
        api = hub.HfApi(endpoint=self.endpoint or None, token=self._token, **_OURS)
        with self._told(revision):
            info = api.model_info(self.repository, revision=revision, files_metadata=True, timeout=30)
        files = (_listed(one, self.repository) for one in info.siblings or ())
        commit = info.sha if info.sha and _COMMIT.fullmatch(info.sha) else ""
        if not commit or not info.siblings:
            raise BadWeights(f"{self._where} does not say what {self.repository} holds", do="Choose another mirror")
        return Listing(commit, {file.path: file for file in files})

    def fetch(self, file: File, part: Path, listing: Listing, moved: Callable[[int], None]) -> None:
        """Over the wire, from where an earlier try ended."""
        tries = 0
        while (before := _size(part)) < file.bytes:
            try:
                self._stream(file, part, listing.commit, moved)
                reason = "the answer ended early"
            except Lost as lost:
                reason = str(lost)
            tries = 0 if _size(part) > before else tries + 1
            if tries > len(WAITS):
                raise Lost(reason)
            if _size(part) < file.bytes:
                _wait(WAITS[max(0, tries - 1)] * random.uniform(0.8, 1.2), moved)

    def _stream(self, file: File, part: Path, commit: str, moved: Callable[[int], None]) -> None:
        """One answer into the file, as far as it comes."""
        hub, have = _library(), _size(part)
        headers = hub.utils.build_hf_headers(token=self._token, **_OURS)
        headers |= {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        url = hub.hf_hub_url(self.repository, file.path, revision=commit, endpoint=self.endpoint or None)
        patience = hub.constants.HF_HUB_DOWNLOAD_TIMEOUT
        with self._told(commit), hub.utils.get_session().stream("GET", url, headers=headers, timeout=patience) as got:
            self._check(got, file, have)
            if have and got.status_code != 206:  # it knows no ranges and begins anew
                moved(-have)
                have = 0
            with part.open("ab" if have else "wb") as out:
                for block in got.iter_bytes():  # as it comes: blocks of a size would lose the last one at a cut
                    have += len(block)
                    if have > file.bytes:
                        raise self._other(file, f"more than its {file.bytes:,} bytes")
                    moved(len(block))
                    out.write(block)

    def _check(self, got: Any, file: File, have: int) -> None:
        """Refuse an answer that is not the file, before any of it is written."""
        status, kind = got.status_code, got.headers.get("content-type", "")
        if status in (401, 403):
            raise self._closed()
        if status in (408, 416, 425, 429) or status >= 500:
            raise Lost(f"{self._where} answers {status}")
        if status not in (200, 206):
            raise self._other(file, f"the answer {status}")
        if kind.startswith("text/html"):
            raise self._page()
        if status == 206 and not got.headers.get("content-range", "").startswith(f"bytes {have}-"):
            raise self._other(file, "another part than was asked")
        length, encoded = got.headers.get("content-length", ""), got.headers.get("content-encoding", "identity")
        due = file.bytes - (have if status == 206 else 0)
        if length.isdecimal() and encoded == "identity" and int(length) != due:
            raise self._other(file, f"{int(length):,} bytes instead of {due:,}")

    @contextmanager
    def _told(self, revision: str) -> Iterator[None]:
        """What the library raises, as one line of ours; Lost where another try may help."""
        errors = _library().errors
        try:
            yield
        except errors.GatedRepoError:
            raise self._closed() from None
        except errors.RevisionNotFoundError:
            raise BadWeights(
                f"{self.repository} has no revision {revision[:60]} on {self._where}",
                do="Ask for another one, or `cine models remove` what is here of it and pull anew",
            ) from None
        except errors.RepositoryNotFoundError:
            if self.gated:
                raise self._closed() from None
            raise self._absent() from None
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status == 401 and not self.token and not self.gated:  # what the hub says of what is not there, too
                raise self._absent() from None
            if status in (401, 403):
                raise self._closed() from None
            if status in (408, 429) or status >= 500:
                raise Lost(f"{self._where} answers {status}") from None
            raise BadWeights(
                f"{self._where} answers {status} when asked for {self.repository}", do="Is it a mirror of the hub?"
            ) from None
        except errors.HfHubHTTPError.__mro__[1] as error:  # HTTPError of the library beneath, whichever that is
            raise Lost(f"{self._where} cannot be reached ({_reason(error)})") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if type(error).__name__ == "HFValidationError":
                raise BadRequest(f"{self.repository[:80]!r} is not the name of a repository") from None
            raise self._page() from error

    def _absent(self) -> BadWeights:
        return BadWeights(
            f"There is no repository {self.repository} on {self._where}, or it is not open to everybody",
            do="If you have access to it, set " + self._word,
        )

    def _closed(self) -> CinecanvasError:
        if self.token or (not self.endpoint and _library().get_token()):
            return BadWeights(
                f"{self._where} does not open {self.repository} to the token that was sent",
                "Its owner may want its terms accepted, or access asked for, on its page",
                f"See https://huggingface.co/{self.repository}",
            )
        return BadWeights(
            f"{self.repository} is opened by {self._where} only to accounts that have accepted its terms",
            "A token of such an account is needed",
            f"Accept them at https://huggingface.co/{self.repository}, then set {self._word}",
        )

    def _page(self) -> BadWeights:
        return BadWeights(
            f"{self._where} answered with something else than the hub's words: a proxy or a login page stands between",
            do="Check HTTPS_PROXY and the network, or name a mirror: --mirror URL|FOLDER",
        )

    def _other(self, file: File, what: str) -> BadWeights:
        return BadWeights(
            f"{self._where} gives {what} for {file.path}", do="Run the command again later, or choose another mirror"
        )

    @property
    def _where(self) -> str:
        """The host that is asked: of a URL nothing else is told, for it may carry a password."""
        return re.sub(r"^[a-z]+://([^/@]*@)?|[/?#].*$", "", self.endpoint or _library().constants.ENDPOINT)

    @property
    def _word(self) -> str:
        """What a token is read from."""
        return "CINECANVAS_MIRROR_TOKEN" if self.endpoint else "HF_TOKEN"

    @property
    def _token(self) -> Any:
        """The user's own token goes to the hub alone; a mirror gets what was given for it."""
        return self.token or (False if self.endpoint else None)


@dataclass(frozen=True)
class Folder:
    """A folder of this machine, or a disk that was brought along: files are linked where that can be, else copied."""

    path: Path

    def listing(self, source: Source, revision: str) -> Listing:
        """What lies in it, with the digests that a receipt beside it or the hub's cache gives; links to files count."""
        beside, files = _beside(self.path), {}
        for folder, _, names in os.walk(self.path):
            for name in names:
                found = Path(folder, name)
                path = found.relative_to(self.path).as_posix()
                if safe(path) and not any(part[0] == "." for part in path.split("/")) and found.is_file():
                    files[path] = _lying(path, found.resolve(), beside.files.get(path) if beside else None)
        commit = self.path.name if _COMMIT.fullmatch(self.path.name) else ""
        return Listing(beside.revision if beside else commit, files)

    def fetch(self, file: File, part: Path, listing: Listing, moved: Callable[[int], None]) -> None:
        """The whole file at once."""
        moved(-_size(part))
        part.unlink(missing_ok=True)
        found = (self.path / file.path).resolve()
        try:
            os.link(found, part)
            moved(file.bytes)
        except OSError:  # another disk, or one without links
            with found.open("rb") as source, part.open("wb") as out:
                while block := source.read(_BLOCK):
                    moved(len(block))
                    out.write(block)


def origin(source: Source, name: str, *, mirror: str, token: str) -> Origin:
    """The hub, a mirror's URL, or a folder: one of the model itself, or one that holds such folders by their names."""
    if any(not char.isascii() or not char.isprintable() or char == " " for char in token):
        raise BadRequest("The token holds characters that no token has", do="Check CINECANVAS_MIRROR_TOKEN")
    if not mirror or re.match(r"https?://", mirror):
        if mirror and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", mirror):
            raise BadRequest("The mirror is not a URL that can be asked", do="Such as https://mirror.example.org")
        if token and mirror.startswith("http://") and not re.match(r"http://(127\.|localhost\b|\[::1\])", mirror):
            raise BadRequest("A token was to be sent over http://, where everybody can read it", do="Use https://")
        return Hub(mirror.rstrip("/"), source.repository, token=token, gated=source.gated)
    if "://" in mirror:
        raise BadRequest(
            "The mirror is neither a folder nor a URL", do="Such as https://mirror.example.org, or a folder"
        )
    return Folder(_found(Path(mirror).expanduser().absolute(), source, name))


def _found(folder: Path, source: Source, name: str) -> Path:
    """The model's own folder in or at a mirror; the hub's cache is one too."""
    cached = folder / f"models--{source.repository.replace('/', '--')}"
    try:
        commit = (cached / "refs" / source.revision).read_text().strip()
    except (OSError, ValueError):
        commit = source.revision
    places = (folder, cached / "snapshots" / commit, folder / source.repository, folder / name)
    for place in places:
        if (place / "model_index.json").is_file():
            return place
    if source.files and folder.is_dir():
        return next((place for place in places[1:] if place.is_dir()), folder)
    raise BadWeights(
        f"The folder {folder.name} does not hold {source.repository}", "A folder with its model_index.json is possible"
    )


def _listed(one: Any, repository: str) -> File:
    """A file as the hub lists it, with the digest that it must have; the list comes from somebody else."""
    path, lfs = one.rfilename, one.lfs
    if not isinstance(path, str) or not safe(path):
        raise BadWeights(f"{repository} names a file outside its folder: {str(path)[:80]!r}", do="Do not use it")
    size, digest = (lfs.size, lfs.sha256) if lfs else (one.size, "")
    if type(size) is not int or not 0 <= size <= _LARGEST:
        raise BadWeights(f"{repository} does not say how large {path} is, or says {str(size)[:30]}", do="Do not use it")
    blob = one.blob_id if not lfs and isinstance(one.blob_id, str) else ""
    if not (_SHA256.fullmatch(str(digest)) or _COMMIT.fullmatch(blob)):
        raise BadWeights(f"{repository} gives no digest of {path}", do="Choose another mirror")
    return File(path, size, sha256=digest, blob=blob)


def _beside(folder: Path) -> Receipt | None:
    """The receipt of a folder of models of ours that was brought along."""
    try:
        return Receipt.model_validate_json((folder.parent / f"{folder.name}.json").read_bytes())
    except (OSError, ValueError):
        return None


def _lying(path: str, real: Path, held: Held | None) -> File:
    """A file of a folder; the hub's cache names files by their digests."""
    sha256 = real.name if _SHA256.fullmatch(real.name) else held.sha256 if held is not None else ""
    return File(path, real.stat().st_size, sha256=sha256, blob=real.name if _COMMIT.fullmatch(real.name) else "")


def _size(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _wait(seconds: float, moved: Callable[[int], None]) -> None:
    """Sleep, but hear within a tenth of a second that the work was stopped."""
    import time

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        moved(0)
        time.sleep(0.1)


def _library() -> Any:
    """huggingface_hub, which tells nobody what else is installed here, and prints nothing."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils  # each by name: the package itself is lazy
    except ImportError:
        raise Unsupported(
            "Public weights were to be fetched",
            "It needs the library huggingface_hub",
            "pip install 'cinecanvas[checkpoints]'",
        ) from None
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    huggingface_hub.utils.logging.set_verbosity_error()
    return huggingface_hub
