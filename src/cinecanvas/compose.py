"""Clips become a canvas: pictures and films are read, fitted and laid where the plan says, frame by frame."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cinecanvas.canvas import Canvas, Track
from cinecanvas.grid import Grid
from cinecanvas.layout import Placed
from cinecanvas.media.video import read_at, resized
from cinecanvas.request import Clip

Find = Callable[[str], Path]  # the file of a digest


def compose(placed: Sequence[Placed], grid: Grid, find: Find, *, window: range, closed: bool = False) -> Canvas:
    """A pixel canvas (B = 1) of those frames of the grid, with every clip on it; what no clip covers is a hole."""
    x = torch.zeros(1, 3, len(window), grid.height, grid.width)
    track = Track(x, torch.zeros_like(x[:, :1]), grid.pixels, window.start)
    for one in placed:
        top, left, bottom, right = one.box
        seen = range(max(window.start, one.covers.start), min(window.stop, one.covers.stop))
        for frame, (rgb, keep) in zip(seen, _frames(one, seen, grid, find), strict=True):
            at = frame - window.start
            track.x[0, :, at, top:bottom, left:right] = torch.tensor(rgb).movedim(-1, 0) / 127.5 - 1
            track.keep[0, 0, at, top:bottom, left:right] = torch.from_numpy(keep)
        for tensor in (track.x, track.keep):
            _bleed(tensor[0, :, seen.start - window.start : seen.stop - window.start], one)
    return Canvas({"video": track}, closed=closed)


def _frames(one: Placed, seen: range, grid: Grid, find: Find) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """RGB (h, w, 3) uint8 and keep (h, w) float32 of a clip, for those frames of the grid."""
    top, left, bottom, right = one.box
    size = right - left, bottom - top
    pictures = _timed(one.clip.media, one, seen, grid, find)
    masks = _timed(one.clip.mask, one, seen, grid, find) if one.clip.mask else itertools.repeat(None)
    for rgb, mask in zip(pictures, masks, strict=False):
        keep = np.full((size[1], size[0]), one.clip.keep, dtype=np.float32)
        if mask is not None:
            keep[resized(_cut(mask, one.clip, size), size).mean(-1) < 128] = 0
        yield resized(_cut(rgb, one.clip, size), size), keep


def _timed(digest: str, one: Placed, seen: range, grid: Grid, find: Find) -> Iterator[np.ndarray]:
    """The frame that stands at each moment of the grid; a picture, and a film that has ended, stand still."""
    begin = one.clip.trim[0] if one.clip.trim else 0.0
    return read_at(find(digest), [begin + (moment - one.first) / grid.fps for moment in seen])


def _cut(frame: np.ndarray, clip: Clip, size: tuple[int, int]) -> np.ndarray:
    """The middle of a frame in the shape of size (width, height) px, where it is to be cropped."""
    height, width = frame.shape[:2]
    if clip.fit != "crop":
        return frame
    wide, tall = min(width, round(height * size[0] / size[1])), min(height, round(width * size[1] / size[0]))
    x, y = (width - wide) // 2, (height - tall) // 2
    return frame[y : y + max(1, tall), x : x + max(1, wide)]


def _bleed(frames: Tensor, one: Placed) -> None:
    """Repeat the edges (C, t, H, W) into the pixel or two beyond the part that is seen: so its cells may be known."""
    (top, left, bottom, right), (up, west, down, east) = one.box, one.margin
    if up:
        frames[..., top - up : top, left:right] = frames[..., top : top + 1, left:right]
    if down:
        frames[..., bottom : bottom + down, left:right] = frames[..., bottom - 1 : bottom, left:right]
    rows = slice(top - up, bottom + down)
    if west:
        frames[..., rows, left - west : left] = frames[..., rows, left : left + 1]
    if east:
        frames[..., rows, right : right + east] = frames[..., rows, right - 1 : right]
