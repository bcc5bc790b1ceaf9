"""Which public weights lie on this machine: a folder of receipts, each of a checkpoint that was fetched or added."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cinecanvas.errors import BadRequest, BadWeights, CannotWrite, CinecanvasError, Unsupported
from cinecanvas.media.destination import cannot_write, shown_name
from cinecanvas.model import Card
from cinecanvas.models.checkpoint import INDEX, layout
from cinecanvas.models.headers import PICKLES, check_weights, is_lora
from cinecanvas.request import Lora
from cinecanvas.settings import Settings

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NO_WORDS = {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"}
_WEIGHTLESS = (  # what says of a part that it is no network
    "scheduler_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "processor_config.json",
    "guider_config.json",
)
_BLOCK = 1 << 20  # bytes hashed at a time


class Held(BaseModel):
    """One file of a checkpoint: its bytes, and its sha256 where it was told or has been read."""

    model_config = ConfigDict(frozen=True)

    bytes: int = Field(ge=0)
    sha256: str = ""


class Receipt(BaseModel):
    """A checkpoint that is here: its files lie in `folder`; a repository and the commit if it was fetched."""

    model_config = ConfigDict(frozen=True)

    name: str
    folder: Path
    repository: str = ""
    revision: str = ""
    files: dict[str, Held] = Field(default_factory=dict)  # by their paths in the folder
    since: str = ""
    whole: bool = True  # False: some files are still to come
    base: str = ""  # the model whose network the file replaces, or both of its experts; "": a model of its own
    lora: bool = False  # the only file changes the weights of other models

    @field_validator("files")
    @classmethod
    def _inside(cls, files: dict[str, Held]) -> dict[str, Held]:
        if any(not safe(path) for path in files):
            raise ValueError("a file outside the folder")
        return files

    @property
    def single(self) -> bool:
        """Whether it is files that need other models, and no whole checkpoint."""
        return bool(self.base) or self.lora

    @property
    def path(self) -> Path:
        """Of the first file, or else of the folder."""
        return self.folder / next(iter(self.files)) if self.single else self.folder

    @property
    def bytes(self) -> int:
        """Of all files that are here."""
        return sum(held.bytes for held in self.files.values())


class Acceptance(BaseModel):
    """That somebody accepted a licence here, and when."""

    model_config = ConfigDict(frozen=True)

    name: str
    licence: str
    url: str
    date: str


@dataclass(frozen=True)
class Moving:
    """How far work on a model's files has come: bytes done of all, at bytes per second, and the file of the moment."""

    done: int
    of: int
    file: str
    rate: float


@dataclass(frozen=True)
class Fault:
    """What is wrong with one file."""

    file: str
    what: Literal["missing", "cut off", "longer than it was", "damaged"]


@dataclass(frozen=True)
class Verified:
    """What all bytes of a model's files came to."""

    receipt: Receipt
    faults: tuple[Fault, ...]


def receipts(where: Settings) -> dict[str, Receipt]:
    """All that is here, by name; a receipt that cannot be read is as good as none."""
    found = {}
    for path in sorted(where.models.glob("*.json")) if where.models.is_dir() else []:
        try:
            receipt = Receipt.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            continue
        if receipt.name == path.stem and _NAME.fullmatch(receipt.name):
            # what was fetched moves with the folder of models
            found[receipt.name] = receipt.model_copy(update={"folder": where.models.absolute() / receipt.folder})
    return found


def folder_of(name: str, where: Settings) -> Path | None:
    """Where the whole weights of a model lie, or None."""
    receipt = receipts(where).get(name)
    return receipt.folder if receipt is not None and receipt.whole and not receipt.single else None


def lora_of(lora: Lora, where: Settings) -> Path:
    """The file of a LoRA by its name, and the same that was used before if the digest was written down."""
    return _lora(lora, where).path


def digest_of(lora: Lora, where: Settings) -> str:
    """The sha256 of a LoRA's file, as it was when it was added."""
    return next(iter(_lora(lora, where).files.values())).sha256


def _lora(lora: Lora, where: Settings) -> Receipt:
    held = {name: receipt for name, receipt in receipts(where).items() if receipt.lora}
    name = shown_name(lora.name)
    if lora.name not in held:
        here = f"Here are: {', '.join(held)}" if held else "None is here"
        raise BadRequest(f"There is no LoRA {name!r}", here, "cine models add NAME FILE.safetensors")
    receipt = held[lora.name]
    ((path, file),) = receipt.files.items()
    if lora.digest and lora.digest != file.sha256:
        raise BadWeights(
            f"The LoRA {name} is another file than the one that was used", do="Add that one again, or ask without it"
        )
    if what := _length(receipt.folder / path, file):
        raise BadWeights(f"The file of the LoRA {name} is {what}", do=f"Put it back, or `cine models remove {name}`")
    return receipt


def beside(name: str, under: str) -> str:
    """The name of another repository's weights that a model needs: they lie beside its own."""
    return f"{name}.{under}"


def receipt_of(name: str, where: Settings) -> Receipt:
    """The receipt of a name, or a refusal that says which names have one."""
    held = receipts(where)
    if name not in held:
        here = f"Here are: {', '.join(held)}" if held else "No public weights are here"
        raise BadRequest(f"No weights of {shown_name(name)!r} are here", here, "See `cine models`")
    return held[name]


def networks_of(receipt: Receipt) -> tuple[Path, ...]:
    """The files that replace the networks of a base, all of them as long as they were."""
    for path, held in receipt.files.items():
        if what := _length(receipt.folder / path, held):
            raise BadWeights(
                f"The file {shown_name(path)} of {receipt.name} is {what}",
                do=f"Put it back, or `cine models remove {receipt.name}`",
            )
    return tuple(receipt.folder / path for path in receipt.files)


def add(
    name: str,
    path: Path,
    where: Settings,
    *,
    base: str = "",
    second: Path | None = None,
    fits: Callable[[Receipt], object] = lambda receipt: None,
) -> Receipt:
    """Know by a name a folder of weights, a LoRA file, or one that replaces the network of the model `base`.

    second: where the base has two experts, the file for low noise. fits: refuses files that are not for their base.
    Nothing is copied, and what is no checkpoint is refused.
    """
    check_name(name)
    path = path.expanduser().absolute()
    if second is not None and not base:
        raise BadRequest(
            "A second file was named without a base", do=f"cine models add {name} FILE --base MODEL --second LOW"
        )
    with alone(name, where):
        if name in (held := receipts(where)) and pulled(held[name], where):
            raise BadRequest(
                f"{name} was fetched and is here", "Another name is possible", f"Or `cine models remove {name}`"
            )
        if path.is_file() and is_lora(path):
            receipt = _changing(name, path, base=base)
        elif base or path.is_file():
            receipt = _single(name, (path, second) if second is not None else (path,), where, base=base)
            fits(receipt)
            receipt = _digested(receipt)
        else:
            receipt = _folder(name, path)
        keep(receipt, where)
    return receipt


def _folder(name: str, folder: Path) -> Receipt:
    check(folder)
    files = {path.relative_to(folder).as_posix(): Held(bytes=path.stat().st_size) for path in _files(folder)}
    return Receipt(name=name, folder=folder, files=files, since=today())


def _single(name: str, files: Sequence[Path], where: Settings, *, base: str) -> Receipt:
    """One file, or that of each expert, as far as their headers tell."""
    if not base:
        raise BadRequest(
            f"{shown_name(files[0].name)} is one file, a model without its other parts",
            "It can replace the transformer of a model that is here",
            f"cine models add {name} FILE --base MODEL",
        )
    under = receipt_of(base, where)
    single = under.single or base == name
    if single or not under.whole:
        why = "is one file itself" if single else "has files still to come"
        raise BadRequest(f"{base} {why}", "A model that is whole here can be the base")
    absolute = [file.expanduser().absolute() for file in files]
    if len({file.anchor for file in absolute}) > 1:
        raise BadRequest("The two files lie on different drives", do="Put them on the same one")
    folder = Path(os.path.commonpath([file.parent for file in absolute]))
    held = {file.relative_to(folder).as_posix(): _held(file) for file in absolute}
    if len(held) < len(files):
        raise BadRequest(f"{shown_name(files[0].name)} was named twice", do="Name the file of each expert")
    return Receipt(name=name, folder=folder, files=held, since=today(), base=base)


def _changing(name: str, file: Path, *, base: str) -> Receipt:
    """A LoRA file, read once for its digest."""
    if base:
        raise BadRequest(
            f"{shown_name(file.name)} is a LoRA, which replaces nothing", do=f"cine models add {name} FILE"
        )
    held = {file.name: _held(file)}
    return _digested(Receipt(name=name, folder=file.parent, files=held, since=today(), lora=True))


def _held(file: Path) -> Held:
    """A file that is whole as far as its header tells."""
    if not file.is_file():
        raise BadWeights(f"There is no file {shown_name(file.name)}", do="Name a .safetensors or .gguf file")
    return Held(bytes=check_weights(file, named=shown_name(file.name)))


def _digested(receipt: Receipt) -> Receipt:
    """A receipt with the digest of every file, each read once."""
    files = {}
    for path, held in receipt.files.items():
        with (receipt.folder / path).open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        files[path] = Held(bytes=held.bytes, sha256=digest)
    return receipt.model_copy(update={"files": files})


def remove(name: str, where: Settings) -> Receipt:
    """Forget weights: the files of those that were fetched go, of those that were added only the receipt."""
    receipt = receipt_of(name, where)
    with alone(name, where), _told(where):
        _sweep(where)
        if pulled(receipt, where):
            aside = where.models / f".{name}.{secrets.token_hex(4)}.gone"  # whole or not at all, whenever it is killed
            receipt.folder.rename(aside)
            (where.models / f"{name}.json").unlink()
            shutil.rmtree(aside)
        else:
            (where.models / f"{name}.json").unlink()
    return receipt


def _sweep(where: Settings) -> None:
    """What removals that were killed have left."""
    for left in where.models.glob(".*.gone"):
        shutil.rmtree(left, ignore_errors=True)


def pulled(receipt: Receipt, where: Settings) -> bool:
    """Whether the files were fetched by us, into a folder that is ours to change."""
    own = where.models.absolute() / receipt.name
    return bool(receipt.repository) and receipt.folder == own and own.is_dir() and not own.is_symlink()


def verify(name: str, where: Settings) -> Iterator[Moving | Verified]:
    """Read every byte of a model; the last event names what is missing, cut off or not what the receipt says.

    Where a sha256 was never known (an added folder, the first time), it is written down now and holds from then on.
    """
    from time import monotonic

    receipt = receipt_of(name, where)
    of, done, began = receipt.bytes, 0, monotonic()
    files, faults = dict(receipt.files), []
    for path, held in receipt.files.items():
        digest = hashlib.sha256()
        try:
            what = _length(receipt.folder / path, held)
            for block in _blocks(receipt.folder / path) if not what else ():
                digest.update(block)
                done += len(block)
                yield Moving(done, of, path, done / max(1e-6, monotonic() - began))
        except OSError as error:
            raise BadWeights(f"{name}/{path} cannot be read ({error.strerror})", do="Check the disk") from error
        if not what and held.sha256 and digest.hexdigest() != held.sha256:
            what = "damaged"
        if not what and not held.sha256 and PurePosixPath(path).suffix in (".safetensors", ".gguf"):
            check_weights(receipt.folder / path, named=f"{name}/{path}")
        if what:
            faults.append(Fault(path, what))
        else:
            files[path] = Held(bytes=held.bytes, sha256=digest.hexdigest())
    if files != receipt.files:
        receipt = receipt.model_copy(update={"files": files})
        keep(receipt, where)
    yield Verified(receipt, tuple(faults))


def _length(path: Path, held: Held) -> Any:
    """What the length of a file says is wrong with it; "": nothing."""
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    return "" if size == held.bytes else "cut off" if size < held.bytes else "longer than it was"


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK * 8):
            yield block


def drop(receipt: Receipt, faults: Sequence[Fault], where: Settings) -> Receipt:
    """Take what is wrong off the shelf, so that the next pull fetches just that."""
    with alone(receipt.name, where), _told(where):
        bad = {fault.file for fault in faults}
        files = {path: held for path, held in receipt.files.items() if path not in bad}
        left = receipt.model_copy(update={"files": files, "whole": False})
        keep(left, where)
        for path in bad:
            (receipt.folder / path).unlink(missing_ok=True)
    return left


def keep(receipt: Receipt, where: Settings) -> None:
    """Write a receipt, whole or not at all."""
    own = receipt.folder == where.models.absolute() / receipt.name
    written = receipt.model_copy(update={"folder": Path(receipt.name)}) if own else receipt
    _write(where, f"{receipt.name}.json", written.model_dump_json(indent=1) + "\n")


def accepted(card: Card, where: Settings) -> Acceptance | None:
    """When the licence that a Card has today was accepted here."""
    try:
        found = Acceptance.model_validate_json((where.models / _acceptance(card)).read_bytes())
    except (OSError, ValueError):
        return None
    return found if (found.name, found.licence, found.url) == (card.name, card.licence, card.terms.url) else None


def accept(card: Card, where: Settings) -> Acceptance:
    """Write down that the licence of a Card was accepted."""
    check_name(card.name)
    now = Acceptance(name=card.name, licence=card.licence, url=card.terms.url, date=today())
    _write(where, _acceptance(card), now.model_dump_json(indent=1) + "\n")
    return now


def _acceptance(card: Card) -> str:
    return f".{card.name}.accepted.json"  # no model's name begins with a dot


def _write(where: Settings, name: str, text: str) -> None:
    with _told(where):
        where.models.mkdir(parents=True, exist_ok=True)
        aside = where.models / f".{name}.{secrets.token_hex(4)}.partial"
        try:
            with aside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(where.models / name)
        finally:
            aside.unlink(missing_ok=True)


@contextmanager
def alone(name: str, where: Settings) -> Iterator[None]:
    """Nobody else changes the weights of that name meanwhile; whoever comes second is told so at once."""
    with _told(where):
        where.models.mkdir(parents=True, exist_ok=True)
        handle = os.open(where.models / f".{name}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unsupported(
                f"The weights of {name} are being fetched or changed by another process", do="Wait until it has ended"
            ) from None
        except (ImportError, OSError):  # no locks on this system or disk
            pass
        yield
    finally:
        os.close(handle)


@contextmanager
def _told(where: Settings) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise no_room(error) from error


def no_room(error: OSError) -> CannotWrite:
    """What the system refused in the folder of models."""
    plain = cannot_write("the weights", error.errno or 0)
    return CannotWrite(plain.asked, do="Free some space, or set CINECANVAS_MODELS to a folder that can be written")


def today() -> str:
    return date.today().isoformat()


def check_name(name: str) -> None:
    """Refuse names that are no file names everywhere."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"The name {name[:40]!r} was to be given to a model", "Small letters, digits, '.', '-' and '_' are possible"
        )


def safe(path: str) -> bool:
    """Whether a path names a file below a folder, on every system: somebody else wrote it."""
    parts = path.split("/")
    plain = len(path) <= 400 and path.isprintable() and not set(path) & set('\\:*?"<>|')
    return plain and all(part not in ("", ".", "..") and len(part) <= 200 for part in parts)


def check(folder: Path) -> dict[str, Any]:
    """The layout of a folder whose parts are all there, as far as names and headers tell; else one line says what
    is missing. Nothing is hashed: it takes milliseconds."""
    try:
        return _check(folder)
    except OSError as error:
        raise BadWeights(f"{folder.name} cannot be read ({error.strerror})", do="Check its permissions") from error


def _check(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise BadWeights(f"There is no folder {folder.name}", do="Name the folder that holds model_index.json")
    if not (folder / INDEX).is_file():
        raise BadWeights(
            f"{folder.name} is not a checkpoint in the layout of diffusers: it has no {INDEX}",
            "A checkpoint is a folder with model_index.json and a folder for each part",
        )
    found = layout(folder)
    for part, where in found["model_index"].items():
        if part in found and part != "model_index":
            _check_part(folder, part, str(where[-1]))
    return found


def _check_part(folder: Path, part: str, kind: str) -> None:
    """A tokenizer has files of its own; a network has a configuration and every shard that its index names."""
    here = folder / part
    named = f"{folder.name}/{part}"
    if not safe(part) or not here.is_dir():
        raise BadWeights(f"{named} is missing", do="Fetch the checkpoint again, or copy the folder whole")
    if any((here / name).is_file() for name in _WEIGHTLESS):
        return
    if "Tokenizer" in kind:
        names = {path.name for path in here.iterdir() if path.suffix in (".json", ".model", ".txt")}
        if not (names if kind.startswith("ByT5") else names - _NO_WORDS):  # ByT5 reads bytes and has no words
            raise BadWeights(f"{named} holds no tokenizer", do="Fetch the checkpoint again")
        return
    if not (here / "config.json").is_file():
        raise BadWeights(f"{named}/config.json is missing", do="Fetch the checkpoint again")
    shards = [path.name for path in here.glob("*.safetensors")]
    for index in here.glob("*.safetensors.index.json"):
        missing = sorted(_shards(index, named) - set(shards))
        if missing:
            raise BadWeights(f"{named}/{missing[0][:80]} is missing", do="Fetch the checkpoint again")
    if not shards:
        pickled = next((path.name for path in here.iterdir() if path.suffix in PICKLES), None)
        raise BadWeights(
            f"{named} has its weights as a pickle ({pickled}), which could run code"
            if pickled
            else f"{named} has no weights",
            "Weights as safetensors are possible",
            "Convert them, or choose another revision" if pickled else "Fetch the checkpoint again",
        )
    for shard in shards:
        check_weights(here / shard, named=f"{named}/{shard}")


def _shards(index: Path, named: str) -> set[str]:
    """The names of the files that an index says a network lies in."""
    try:
        return {str(name) for name in json.loads(index.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadWeights(f"{named}/{index.name} cannot be read", do="Fetch the checkpoint again") from error


def whole(receipt: Receipt, held: Mapping[str, Receipt]) -> bool:
    """Whether all of a model is here, and all of its base."""
    return receipt.whole and (not receipt.base or (receipt.base in held and held[receipt.base].whole))


def state(card: Card, held: dict[str, Receipt]) -> dict[str, Any]:
    """Where the weights of a Card are: `ships`, `here`, `part` or `absent`, and the bytes that are here and of all."""
    receipt = held.get(card.name)
    if card.source is None:
        return {"state": "ships", "bytes": card.bytes, "of": card.bytes}
    if receipt is None:
        return {"state": "absent", "bytes": 0, "of": card.source.bytes}
    return {
        "state": "here" if whole(receipt, held) else "part",
        "bytes": receipt.bytes,
        "of": receipt.bytes if receipt.whole else max(card.source.bytes, receipt.bytes),
    }


def sound(receipt: Receipt) -> str:
    """In a line what the quick look has to say against a receipt's files; "": nothing."""
    try:
        for path, held in receipt.files.items():
            if what := _length(receipt.folder / path, held):
                return f"{receipt.folder.name}/{path} is {what}"
        if not receipt.single and (receipt.folder / INDEX).is_file():
            check(receipt.folder)
    except CinecanvasError as error:
        return error.asked
    except OSError as error:
        return str(error.strerror)
    return ""


def _files(folder: Path) -> list[Path]:
    inside = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in inside if not any(part[0] == "." for part in path.relative_to(folder).parts))
