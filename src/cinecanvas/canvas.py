"""A Canvas is a piece of spacetime, some cells of which are known and the rest are holes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from cinecanvas.grid import Grid
from cinecanvas.request import Role
from cinecanvas.schedule import Schedule

Tensors = dict[str, Tensor]  # one tensor per track, by the track's name


@dataclass(frozen=True)
class Track:
    """One modality: x (B, C, T, H, W), keep (B, 1, T, H, W) in 0..1 (1 known, 0 hole), grid. Sound: H = bins, W = 1."""

    x: Tensor
    keep: Tensor
    grid: Grid
    start: int = 0  # cells of the whole that lie before this track's first: a window keeps its true times and noise

    def __post_init__(self) -> None:
        b, _, t, h, w = self.x.shape
        assert self.keep.shape == (b, 1, t, h, w), f"keep {tuple(self.keep.shape)} does not fit x {tuple(self.x.shape)}"

    @classmethod
    def blank(cls, grid: Grid, *, channels: int, batch: int = 1, start: int = 0) -> Self:
        """A track that is one hole, at the cells of the grid."""
        x = torch.zeros(batch, channels, *grid.cells)
        return cls(x, torch.zeros(batch, 1, *grid.cells), grid, start)

    def times(self) -> tuple[float, ...]:
        """The second at which each of its cells-in-time begins, counted from the start of the whole (s)."""
        frames = (self.grid.frames_of(cell).start for cell in range(self.start, self.start + self.x.shape[2]))
        return tuple(frame / self.grid.fps for frame in frames)


@dataclass(frozen=True)
class Reference:
    """Cells beside the lattice: x (B, C, t, h, w), the second they speak of (s), and their role."""

    x: Tensor
    time: float
    role: Role = "reference"


@dataclass(frozen=True)
class Canvas:
    """Tracks by name, reference cells beside the lattice; closed: time is a loop. Immutable; pixels or latents."""

    tracks: Mapping[str, Track]
    references: tuple[Reference, ...] = field(default=())
    closed: bool = False

    @classmethod
    def blank(cls, grid: Grid, *, batch: int = 1) -> Self:
        """B videos of RGB pixels (one track, "video") on which nothing is known; the grid may be that of cells."""
        return cls({"video": Track.blank(grid.pixels, channels=3, batch=batch)})

    @property
    def batch(self) -> int:
        """B, the number of videos that are filled together."""
        return next(iter(self.tracks.values())).x.shape[0]

    @property
    def known(self) -> Tensors:
        """Where nothing may change: keep == 1, as bool (B, 1, T, H, W)."""
        return {name: track.keep >= 1 for name, track in self.tracks.items()}

    def place(
        self, track: str, x: Tensor, *, at: tuple[int, int, int] = (0, 0, 0), keep: float | Tensor = 1.0
    ) -> Canvas:
        """x (B, C, t, h, w) into the box whose corner is at (t, y, x) in cells; keep is a number or (B, 1, t, h, w)."""
        old = self.tracks[track]
        box = (slice(None), slice(None), *(slice(o, o + n) for o, n in zip(at, x.shape[2:], strict=True)))
        assert old.x[box].shape[2:] == x.shape[2:], f"{tuple(x.shape)} at {at} reaches beyond {tuple(old.x.shape)}"
        new_x, new_keep = old.x.clone(), old.keep.clone()
        new_x[box] = x.to(old.x)
        new_keep[box] = keep if isinstance(keep, Tensor) else float(keep)
        return replace(self, tracks={**self.tracks, track: replace(old, x=new_x, keep=new_keep)})

    def sigma(self, schedule: Schedule, step: int) -> Tensors:
        """Noise per cell (B, 1, T, H, W) of each track: the level at the cell's second, under the ceiling 1 - keep."""
        return {name: _ceiled(track, schedule, step) for name, track in self.tracks.items()}

    def window(self, track: str, start: int, stop: int) -> Canvas:
        """The cells-in-time [start, stop) of one track alone; references keep their true positions."""
        old = self.tracks[track]
        cut = replace(old, x=old.x[:, :, start:stop], keep=old.keep[:, :, start:stop], start=old.start + start)
        return replace(self, tracks={**self.tracks, track: cut})

    def repeat(self, times: int) -> Canvas:
        """The same canvas `times` over along the batch axis."""
        tracks = {
            name: replace(t, x=t.x.repeat(times, 1, 1, 1, 1), keep=t.keep.repeat(times, 1, 1, 1, 1))
            for name, t in self.tracks.items()
        }
        references = tuple(replace(r, x=r.x.repeat(times, 1, 1, 1, 1)) for r in self.references)
        return replace(self, tracks=tracks, references=references)

    def videos(self, start: int, stop: int) -> Canvas:
        """The videos [start, stop) alone."""
        tracks = {name: replace(t, x=t.x[start:stop], keep=t.keep[start:stop]) for name, t in self.tracks.items()}
        return replace(self, tracks=tracks, references=tuple(replace(r, x=r.x[start:stop]) for r in self.references))


def latent_keep(keep: Tensor, grid: Grid) -> Tensor:
    """Pixel keep (B, 1, T, H, W) to cell keep (B, 1, T', H', W'): a cell is as known as its least known pixel."""
    t = grid.strides[0]
    spatial = frame_keep(keep, grid)
    if not grid.causal:
        return -torch.nn.functional.max_pool3d(-spatial, (t, 1, 1))
    first, rest = spatial[:, :, :1], spatial[:, :, 1:]
    if rest.shape[2] == 0:
        return first
    return torch.cat([first, -torch.nn.functional.max_pool3d(-rest, (t, 1, 1))], dim=2)


def frame_keep(keep: Tensor, grid: Grid) -> Tensor:
    """Pixel keep (B, 1, T, H, W) to that of each frame in cells across (B, 1, T, H', W')."""
    _, y, x = grid.strides
    return -torch.nn.functional.max_pool3d(-keep, (1, y, x))


def _ceiled(track: Track, schedule: Schedule, step: int) -> Tensor:
    levels = torch.tensor([schedule.at(step, second) for second in track.times()], dtype=torch.float32)
    ceiling = 1 - track.keep.float()
    return torch.minimum(levels.to(ceiling.device).view(1, 1, -1, 1, 1), ceiling)
