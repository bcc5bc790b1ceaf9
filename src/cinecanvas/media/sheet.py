"""A contact sheet: many clips at one glance, one row each, time running to the right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cinecanvas.errors import BadRequest

if TYPE_CHECKING:
    from PIL.Image import Image

_GAP, _LINE = 4, 18  # px
_PAPER, _INK = (250, 250, 248), (32, 32, 36)


def sheet(clips: Sequence[np.ndarray], *, labels: Sequence[str] = (), columns: int = 5, scale: int = 1) -> Image:
    """One row for each clip (T, H, W, 3) uint8, `columns` of its frames spread in time, each px drawn `scale` times."""
    from PIL import Image, ImageDraw

    if not clips or columns < 1 or scale < 1 or any(clip.ndim != 4 or not clip.size for clip in clips):
        raise BadRequest("A sheet of nothing was asked", "Clips (t, height, width, 3); columns and scale from 1")
    if labels and len(labels) != len(clips):
        raise BadRequest(f"{len(labels)} labels came for {len(clips)} clips", "One label for each clip, or none")
    rows = [_row(clip, columns=columns, scale=scale) for clip in clips]
    line = _LINE if labels else 0
    width = max(row.shape[1] for row in rows) + 2 * _GAP
    page = Image.new("RGB", (width, sum(row.shape[0] + line + _GAP for row in rows) + _GAP), _PAPER)
    top = _GAP
    for number, row in enumerate(rows):
        if labels:
            _label(ImageDraw.Draw(page), labels[number], top=top, width=width)
        page.paste(Image.fromarray(row), (_GAP, top + line))
        top += row.shape[0] + line + _GAP
    return page


def _row(clip: np.ndarray, *, columns: int, scale: int) -> np.ndarray:
    """First to last frame in even steps; a clip shorter than the row repeats frames rather than leave holes."""
    chosen = clip[np.linspace(0, len(clip) - 1, columns).round().astype(int)]
    large = chosen.repeat(scale, axis=1).repeat(scale, axis=2)
    gap = np.full((large.shape[1], _GAP, 3), _PAPER, np.uint8)
    return np.concatenate([part for frame in large for part in (frame, gap)][:-1], axis=1)


def _label(draw: object, text: str, *, top: int, width: int) -> None:
    """One line of text, cut with an ellipsis where the row ends."""
    from PIL import ImageDraw, ImageFont

    assert isinstance(draw, ImageDraw.ImageDraw)
    font, line = ImageFont.load_default(size=12), " ".join(text.split())
    if draw.textlength(line, font=font) > width - 2 * _GAP:
        while line and draw.textlength(line + "...", font=font) > width - 2 * _GAP:
            line = line[:-1]
        line += "..."
    draw.text((_GAP, top), line, fill=_INK, font=font)
