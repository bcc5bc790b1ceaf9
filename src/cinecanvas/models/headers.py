"""What the first bytes of a file of weights say, and whether the file is as long as they say; no weight is read."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

from cinecanvas.errors import BadWeights

_LORA = ("lora_A.", "lora_down.", "lora.down.", "lora_linear_layer.down.", "lokr_w1", "hada_w1")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_HEADER = 100_000_000  # bytes: no header of safetensors may be longer
_MANY = 1_000_000  # tensors or facts: no file of weights has more
# GGUF's types: numbers in a block, and its bytes (ggml-common.h); a type that is not here has a length not known here
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    20: (32, 18),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    30: (1, 2),
}
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a fact, by its type
_STRING, _ARRAY = 8, 9


def check_weights(path: Path, *, named: str) -> int:
    """The bytes of a .safetensors or .gguf file that is whole as far as its header tells; else a refusal by name."""
    kind = path.suffix.lower()
    if kind not in (".safetensors", ".gguf"):
        pickled = ", which could run code" if kind in PICKLES else ""
        raise BadWeights(f"{named} has the ending {kind or 'of nothing'}{pickled}", "Weights are .safetensors or .gguf")
    read = _safetensors if kind == ".safetensors" else _gguf
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            whole, exact = read(file, size)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError, struct.error) as error:
        raise BadWeights(f"{named} is not a {kind[1:]} file, or it is damaged", do="Fetch it again") from error
    if size < whole:
        raise BadWeights(f"{named} is cut off: {size:,} of {whole:,} bytes are there", do="Fetch it again")
    if exact and size > whole:
        raise BadWeights(f"{named} is longer than it says: {size:,} instead of {whole:,} bytes", do="Fetch it again")
    return size


def is_lora(path: Path) -> bool:
    """Whether a .safetensors file holds small matrices that change a model, by the names of its tensors."""
    if path.suffix.lower() != ".safetensors":
        return False
    try:
        with path.open("rb") as file:
            names, _ = _header(file, path.stat().st_size)
    except (OSError, ValueError, struct.error):
        return False  # whoever reads it next says what is wrong
    return any(mark in name for name in names for mark in _LORA)


def blocked(path: Path | str) -> bool:
    """Whether a file has its weights in GGUF's blocks of few bits, to which nothing can be added."""
    return str(path).lower().endswith(".gguf")


def _safetensors(file: BinaryIO, size: int) -> tuple[int, bool]:
    """The bytes that a file must have by its header, and True: it may have no more."""
    header, begins = _header(file, size)
    ends = [_whole(facts["data_offsets"][1]) for name, facts in header.items() if name != "__metadata__"]
    return begins + max(ends, default=0), True


def _header(file: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """What the header of safetensors says of each tensor by its name, and where their data begin."""
    (length,) = struct.unpack("<Q", file.read(8))
    if not 0 < length <= min(size - 8, _HEADER):
        raise ValueError("header")
    header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("header")
    return header, 8 + length


def _whole(number: object) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError("offset")
    return number


def _gguf(file: BinaryIO, size: int) -> tuple[int, bool]:
    """The bytes that a file must have at least: padding may follow its last tensor."""
    magic, version, tensors, facts = struct.unpack("<4sIQQ", file.read(24))
    if magic != b"GGUF" or version not in (2, 3) or not 0 < tensors <= _MANY or facts > _MANY:
        raise ValueError("header")
    aligned = 32
    for _ in range(facts):
        name, (kind,) = _text(file, size), struct.unpack("<I", file.read(4))
        if name == b"general.alignment" and kind == 4:
            (aligned,) = struct.unpack("<I", file.read(4))
        else:
            _skip(file, kind, size)
    ends = [_end(file, size) for _ in range(tensors)]
    if not 0 < aligned <= 1 << 20:
        raise ValueError("alignment")
    return -(-file.tell() // aligned) * aligned + max(ends), False


def _end(file: BinaryIO, size: int) -> int:
    """Where a tensor's data end, counted from where all data begin; where they begin if its type is not known."""
    _text(file, size)
    (dimensions,) = struct.unpack("<I", file.read(4))
    if dimensions > 8:
        raise ValueError("dimensions")
    *shape, kind, offset = struct.unpack(f"<{dimensions}QIQ", file.read(8 * dimensions + 12))
    count = 1
    for side in shape:
        count *= side
    block, length = _BLOCKS.get(kind, (1, 0))
    return int(offset + count // block * length)


def _text(file: BinaryIO, size: int) -> bytes:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > size - file.tell():
        raise ValueError("text")
    return file.read(length)


def _skip(file: BinaryIO, kind: int, size: int) -> None:
    """Pass over a fact's value."""
    if kind == _STRING:
        _text(file, size)
        return
    if kind != _ARRAY:
        file.read(_SCALARS[kind])
        return
    inner, count = struct.unpack("<IQ", file.read(12))
    if inner in _SCALARS and count <= size:
        file.seek(count * _SCALARS[inner], 1)
        return
    if inner != _STRING or count > _MANY:
        raise ValueError("array")
    for _ in range(count):
        _text(file, size)
