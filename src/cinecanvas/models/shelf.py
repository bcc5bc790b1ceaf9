"""Which public weights lie on this machine: a folder of receipts, each of a checkpoint that was fetched or added."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from cinecanvas.errors import BadRequest, BadWeights, CannotWrite
from cinecanvas.models.checkpoint import INDEX, layout
from cinecanvas.settings import Settings

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_VARIANTS = (".fp16.", ".bf16.", ".fp32.", "non_ema", "flax", "openvino")


class Held(BaseModel):
    """One file of a checkpoint: its bytes, and its sha256 where it was told or has been read."""

    model_config = ConfigDict(frozen=True)

    bytes: int
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


class Checked(NamedTuple):
    """A file that was read again: what is wrong with it, or "", and the bytes that have been looked at."""

    path: str
    trouble: str
    done: int
    of: int


def receipts(where: Settings) -> dict[str, Receipt]:
    """All that is here, by name; a receipt that cannot be read is as good as none."""
    found = {}
    for path in sorted(where.models.glob("*.json")) if where.models.is_dir() else []:
        try:
            receipt = Receipt.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            continue
        if receipt.name == path.stem:
            found[receipt.name] = receipt
    return found


def folder_of(name: str, where: Settings) -> Path | None:
    """Where the whole weights of a model lie, or None."""
    receipt = receipts(where).get(name)
    return receipt.folder if receipt is not None and receipt.whole else None


def add(name: str, folder: Path, where: Settings) -> Receipt:
    """Know a folder of weights by a name; nothing is copied, and what is no checkpoint is refused."""
    check_name(name)
    folder = folder.expanduser().absolute()
    check(folder)
    files = {path.relative_to(folder).as_posix(): Held(bytes=path.stat().st_size) for path in _files(folder)}
    receipt = Receipt(name=name, folder=folder, files=files, since=date.today().isoformat())
    keep(receipt, where)
    return receipt


def remove(name: str, where: Settings) -> int:
    """Forget a checkpoint, and delete it if it was fetched; a folder that was added stays. Returns the bytes freed."""
    receipt = receipts(where).get(name)
    if receipt is None:
        raise BadRequest(f"No weights of {name[:60]!r} are here", do="See `cine models`")
    ours = receipt.folder == where.models / name
    gone = where.models / f".{name}.gone"
    with suppress(OSError):
        shutil.rmtree(gone)
    try:
        (where.models / f"{name}.json").unlink(missing_ok=True)
        if ours and receipt.folder.is_dir():
            receipt.folder.replace(gone)  # at once: half of a checkpoint is never taken for a whole one
            freed = sum(path.stat().st_size for path in gone.rglob("*") if path.is_file())
            shutil.rmtree(gone)
            return freed
    except OSError as error:
        raise CannotWrite(f"The weights of {name} cannot be deleted ({error.strerror})") from error
    return 0


def verify(name: str, where: Settings) -> Iterator[Checked]:
    """Read every file of a checkpoint, and say of each what is wrong with it, if anything is."""
    receipt = receipts(where).get(name)
    if receipt is None:
        raise BadRequest(f"No weights of {name[:60]!r} are here", do=f"cine models pull {name}")
    total, done = sum(held.bytes for held in receipt.files.values()), 0
    for path, held in receipt.files.items():
        file = receipt.folder / path
        trouble = ""
        if not file.is_file():
            trouble = "is missing"
        elif file.stat().st_size != held.bytes:
            trouble = f"has {file.stat().st_size:,} of {held.bytes:,} bytes"
        elif held.sha256 and _sha256(file) != held.sha256:
            trouble = "is damaged: its sha256 is another"
        elif not held.sha256 and path.endswith(".safetensors"):
            try:
                check_safetensors(file, named=path)
            except BadWeights as error:
                trouble = error.asked.removeprefix(path).strip()
        done += held.bytes
        yield Checked(path, trouble, done, total)


def keep(receipt: Receipt, where: Settings) -> None:
    """Write a receipt, whole or not at all."""
    try:
        where.models.mkdir(parents=True, exist_ok=True)
        aside = where.models / f".{receipt.name}.partial"
        aside.write_text(receipt.model_dump_json(indent=1) + "\n")
        aside.replace(where.models / f"{receipt.name}.json")
    except OSError as error:
        raise CannotWrite(
            f"The receipt of {receipt.name} cannot be written ({error.strerror})", do="Check CINECANVAS_MODELS"
        ) from error


def check_name(name: str) -> None:
    """Refuse names that are no file names everywhere."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"The name {name[:40]!r} was to be given to a model", "Small letters, digits, '.', '-' and '_' are possible"
        )


def check(folder: Path) -> dict[str, Any]:
    """The layout of a folder whose parts are all there, as far as names and headers tell; else one line says what
    is missing. Nothing is hashed: it takes milliseconds."""
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
    if not here.is_dir():
        raise BadWeights(f"{named} is missing", do="Fetch the checkpoint again, or copy the folder whole")
    if any((here / name).is_file() for name in ("scheduler_config.json", "preprocessor_config.json")):
        return
    if "Tokenizer" in kind:
        if not any(path.suffix in (".json", ".model", ".txt") for path in here.iterdir()):
            raise BadWeights(f"{named} holds no tokenizer", do="Fetch the checkpoint again")
        return
    if not (here / "config.json").is_file():
        raise BadWeights(f"{named}/config.json is missing", do="Fetch the checkpoint again")
    shards = one_variant([path.name for path in here.glob("*.safetensors")])
    for index in here.glob("*.safetensors.index.json") if not shards or "-of-" in shards[0] else ():
        try:
            wanted = set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise BadWeights(f"{named}/{index.name} cannot be read", do="Fetch the checkpoint again") from error
        missing = sorted(wanted - set(shards))
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
        check_safetensors(here / shard, named=f"{named}/{shard}")


def one_variant(names: Sequence[str]) -> list[str]:
    """Of the weights of a part, those that are loaded: no other precision that lies beside, one file before many."""
    plain = [name for name in names if not any(mark in name for mark in _VARIANTS)] or names
    return [name for name in plain if "-of-" not in name] or list(plain)


def check_safetensors(path: Path, *, named: str) -> int:
    """The bytes of a safetensors file whose header fits its size."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 0 < length <= min(size - 8, 100_000_000):
                raise ValueError("header")
            header = json.loads(file.read(length))
        ends = [facts["data_offsets"][1] for name, facts in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise BadWeights(f"{named} is not a safetensors file, or it is damaged", do="Fetch it again") from error
    if size != whole:
        raise BadWeights(f"{named} is cut off: {size:,} of {whole:,} bytes are there", do="Fetch it again")
    return size


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
