"""Pictures of a film, as bytes: a thumbnail, a sheet of sprites for a player's time line, its first and last frame."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from cinecanvas.errors import BadRequest
from cinecanvas.media.decode import MOST_PIXELS, opaque
from cinecanvas.media.video import info, read_at, resized

Kind: TypeAlias = Literal["webp", "jpeg", "png"]

_QUALITY = 85
_MOST_SPRITES = 400


def thumbnail(file: Path, *, kind: Kind = "webp", side: int = 512, second: float = 0.0) -> bytes:
    """The frame that stands at a second, its longer side `side` px at most; nothing is enlarged."""
    (frame,) = read_at(file, [max(0.0, second)])
    return _encoded(resized(frame, _within(frame, side)), kind)


def spritesheet(file: Path, *, kind: Kind = "jpeg", columns: int = 5, rows: int = 5, side: int = 256) -> bytes:
    """columns x rows frames from the even parts of a film, row by row without gaps, each as large as a thumbnail.

    Number n of N is what stands in the middle of the n-th of N equal parts, so a player finds it by dividing.
    """
    count = columns * rows
    if columns < 1 or rows < 1 or count > _MOST_SPRITES or count * side * side > MOST_PIXELS:
        raise BadRequest(f"A sheet of {columns}x{rows} frames was asked", f"At most {_MOST_SPRITES}, smaller ones")
    part = info(file).seconds / count
    middles = [(n + 0.5) * part for n in range(count)]
    sprites = [resized(frame, _within(frame, side)) for frame in read_at(file, middles)]
    height, width = sprites[0].shape[:2]
    page = np.zeros((rows * height, columns * width, 3), np.uint8)
    for place, sprite in zip(_places(columns, rows, width=width, height=height), sprites, strict=True):
        page[place] = resized(sprite, (width, height))  # a film may change its size on the way
    return _encoded(page, kind)


def still(file: Path, *, last: bool = False) -> bytes:
    """The first frame, or the last, as it is: a PNG."""
    (frame,) = read_at(file, [info(file).seconds if last else 0.0])
    return _encoded(frame, "png")


def mask(file: Path) -> bytes:
    """Where a picture is opaque, as a PNG: white is kept, what was transparent is black."""
    return _encoded(opaque(file), "png")


def _places(columns: int, rows: int, *, width: int, height: int) -> Iterator[tuple[slice, slice]]:
    for row in range(rows):
        for column in range(columns):
            yield slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)


def _within(frame: np.ndarray, side: int) -> tuple[int, int]:
    """(width, height) px of a frame whose longer side is `side` at most."""
    if side < 1:
        raise BadRequest(f"A picture of {side} px was asked", "Sides have 1 px or more")
    scale = min(1.0, side / max(frame.shape[:2]))
    return max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))


def _encoded(picture: np.ndarray, kind: Kind) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind.upper(), quality=_QUALITY)
    return out.getvalue()
