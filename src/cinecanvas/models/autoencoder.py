"""Pixels to cells and back: a linear code, exact enough from the first second, and a decoder that sees across cells.

A cell is 4 frames x 16 x 16 px (the first cell in time: one frame, repeated). The encoder is its principal components,
so it needs no training and nothing leaks between cells; the decoder adds a learned residual, which looks at the
linear picture, at the neighbours and at the group of frames before, hides the seams, and forgives noise in the latents
(the last denoising step, as in LTX-Video).
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

LEFT_OUT = 2e-3  # variance of a pixel in [-1, 1] that the code cannot say: it reaches about 30 dB


class CodeShape(BaseModel):
    """The sizes of the code and of its decoder; they travel with the weights."""

    model_config = ConfigDict(frozen=True)

    strides: tuple[int, int, int] = (4, 16, 16)
    channels: int = 128
    # decoder features at the cell, at half of it, at a quarter and at an eighth
    widths: tuple[int, int, int, int] = (192, 128, 96, 64)

    @property
    def pixels(self) -> int:
        """Numbers in one cell of RGB."""
        t, y, x = self.strides
        return 3 * t * y * x


class Partial(NamedTuple):
    """Cells that are known in part, at places (N, 4) in (B, T', H', W'): x0 becomes turn (N, C, C) x0 + pull (N, C).

    The code is linear, so what a network guesses of a cell and the pixels that are known of it join like two
    Gaussians: x0 + S A' (A S A' + r)^-1 (pixels - A x0), S the variance of latents, r what the code leaves out.
    """

    places: Tensor
    turn: Tensor
    pull: Tensor

    def after(self, cells: int) -> Partial:
        """The same without the first cells-in-time."""
        kept = self.places[:, 1] >= cells
        places = self.places[kept] - torch.tensor([0, cells, 0, 0], device=self.places.device)
        return Partial(places, self.turn[kept], self.pull[kept]) if len(self.places) else self

    def videos(self, start: int, stop: int) -> Partial:
        """Those of the videos [start, stop) alone."""
        if not len(self.places):
            return self
        kept = (start <= self.places[:, 0]) & (self.places[:, 0] < stop)
        places = self.places[kept] - torch.tensor([start, 0, 0, 0], device=self.places.device)
        return Partial(places, self.turn[kept], self.pull[kept])

    def join(self, x0: Tensor) -> Tensor:
        """x0 (B, C, T', H', W') with what is known of these cells."""
        if not len(self.places):
            return x0
        at = tuple(self.places.to(x0.device).unbind(1))
        cells = x0.movedim(1, -1).clone()
        cells[at] = torch.einsum("nij,nj->ni", self.turn, cells[at]) + self.pull
        return cells.movedim(-1, 1)


class Autoencoder(nn.Module):
    """RGB (B, 3, T, H, W) in [-1, 1] to latents (B, C, T', H', W') and back; frames 1 + t * k."""

    mean: Tensor
    basis: Tensor
    scale: Tensor

    def __init__(self, shape: CodeShape) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(shape.pixels))
        self.register_buffer("basis", torch.zeros(shape.channels, shape.pixels))  # orthonormal rows
        self.register_buffer("scale", torch.ones(shape.channels))  # latent = component / scale
        self.residual = Residual(shape)

    def encode(self, rgb: Tensor) -> Tensor:
        """Latents (B, C, T', H', W'), float32: each cell alone, so that unknown frames never leak into known cells."""
        cells = to_cells(rgb.float(), self.shape.strides)
        return ((cells - self.mean) @ (self.basis / self.scale[:, None]).T).movedim(-1, 1)

    def partial(self, rgb: Tensor, keep: Tensor, variance: Tensor) -> Partial:
        """What RGB (B, 3, T, H, W) says of the cells whose keep (B, 1, T, H, W) is 1 at some pixels but not at all.

        variance (C) is that of clean latents. Cell by cell: their masks differ, and memory stays that of one.
        """
        known = to_cells((keep >= 1).float().expand(-1, 3, -1, -1, -1), self.shape.strides) > 0
        share = known.float().mean(-1)
        places = ((share > 0) & (share < 1)).nonzero()
        matrix = (self.basis * self.scale[:, None]).T  # latent to pixels of a cell (P, C)
        cells = to_cells(rgb.float(), self.shape.strides) if len(places) else rgb
        turns, pulls = [], []
        for place in places.tolist():
            mask = known[tuple(place)].to(matrix.device)
            rows = matrix[mask]
            given = cells[tuple(place)].to(matrix.device)[mask] - self.mean[mask]
            inverse = torch.linalg.inv(rows.T @ rows / LEFT_OUT + (1 / variance).diag())
            turns.append(inverse / variance)
            pulls.append(inverse @ (rows.T @ given) / LEFT_OUT)
        empty = matrix.new_zeros(0)
        return Partial(places, torch.stack(turns) if turns else empty, torch.stack(pulls) if pulls else empty)

    def linear(self, z: Tensor) -> Tensor:
        """The linear reconstruction of every group of frames (B, T', 3 t, H, W): the skip path of the decoder."""
        cells = (z.movedim(1, -1).float() * self.scale) @ self.basis + self.mean
        return groups_of(cells, self.shape.strides)

    def decode(self, z: Tensor) -> Tensor:
        """RGB (B, 3, T, H, W) in [-1, 1], all at once: what training uses."""
        return torch.cat(list(self.stream(z)), dim=2)

    def stream(self, z: Tensor, memory: Memory | None = None) -> Generator[Tensor, None, Memory | None]:
        """RGB (B, 3, t, H, W) group by group in time order; returns what the next group needs, should there be one."""
        for here in z.split(1, dim=2):
            linear = self.linear(here)[:, 0]
            extra, features = self.residual(here[:, :, 0] * self.scale[:, None, None], linear, memory)
            frames = (linear + extra.float()).unflatten(1, (3, self.shape.strides[0]))
            if memory is None:
                frames = frames.mean(2, keepdim=True)
            memory = Memory(features, frames[:, :, -1].clamp(-1, 1))  # what is shown: it must not run away
            yield frames
        return memory


class Memory(NamedTuple):
    """What a group of frames leaves to the next: features (B, D, H', W') and its last frame (B, 3, H, W)."""

    features: Tensor
    frame: Tensor


class Residual(nn.Module):
    """What the linear code misses, from a group's cells, its linear picture and the group before (MemBlock, as taehv).

    Features grow from the cell to an eighth of it. The last two stages see the linear picture too: where an edge ends
    and a halo begins is plain there, and would have to be unmixed from a hundred components otherwise.
    """

    def __init__(self, shape: CodeShape) -> None:
        super().__init__()
        deep, mid, fine, finest = shape.widths
        t, y, _ = shape.strides
        seen = 3 * (t + 1)  # the frames of the linear picture, and the last frame of the group before
        self.blocks = (y // 4, y // 8)  # px on a side that the last two stages hold in one place
        self.enter = nn.Conv2d(shape.channels, deep, 3, padding=1)
        self.remember = nn.Conv2d(deep, deep, 1)
        self.deep = nn.Sequential(ConvBlock(deep), ConvBlock(deep))
        self.to_mid = nn.Conv2d(deep, mid * 4, 1)
        self.mid = nn.Sequential(ConvBlock(mid), ConvBlock(mid))
        self.to_fine = nn.Conv2d(mid, fine * 4, 1)
        self.see_fine = nn.Conv2d(seen * self.blocks[0] ** 2, fine, 1)
        self.fine = nn.Sequential(ConvBlock(fine), ConvBlock(fine))
        self.to_finest = nn.Conv2d(fine, finest * 4, 1)
        self.see_finest = nn.Conv2d(seen * self.blocks[1] ** 2, finest, 1)
        self.finest = nn.Sequential(ConvBlock(finest), ConvBlock(finest))
        # a norm before the last convolution: without it a high rate killed every activation in 40 steps
        last = nn.Conv2d(finest, 3 * t * self.blocks[1] ** 2, 3, padding=1)
        self.leave = nn.Sequential(nn.GroupNorm(8, finest), last)
        for parameter in (*last.parameters(), *self.remember.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, cells: Tensor, linear: Tensor, memory: Memory | None) -> tuple[Tensor, Tensor]:
        """Components (B, C, H', W') and linear picture (B, 3 t, H, W) to what that lacks, and the features at cells."""
        dtype = self.enter.weight.dtype
        before = torch.zeros_like(linear[:, :3]) if memory is None else memory.frame
        seen = torch.cat([linear, before], dim=1).to(dtype)
        x = self.enter(cells.to(dtype))
        features = self.deep(x if memory is None else x + self.remember(memory.features))
        x = self.mid(F.pixel_shuffle(self.to_mid(features), 2))
        x = F.pixel_shuffle(self.to_fine(x), 2) + self.see_fine(F.pixel_unshuffle(seen, self.blocks[0]))
        x = self.fine(x)
        x = F.pixel_shuffle(self.to_finest(x), 2) + self.see_finest(F.pixel_unshuffle(seen, self.blocks[1]))
        return F.pixel_shuffle(self.leave(self.finest(x)), self.blocks[1]), features


class ConvBlock(nn.Module):
    """Norm, convolution, SiLU, convolution, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.two = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.two.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(F.silu(self.one(self.norm(x))))


def to_cells(rgb: Tensor, strides: tuple[int, int, int]) -> Tensor:
    """RGB (B, 3, 1 + t k, H, W) to cells (B, T', H', W', 3 t y x); the first frame, repeated, fills its own cell."""
    t, y, x = strides
    b, _, frames, height, width = rgb.shape
    assert (frames - 1) % t == 0 and height % y == 0 and width % x == 0, (
        f"{tuple(rgb.shape)} does not divide into {strides}"
    )
    padded = torch.cat([rgb[:, :, :1].expand(-1, -1, t, -1, -1), rgb[:, :, 1:]], dim=2)
    split = padded.view(b, 3, -1, t, height // y, y, width // x, x)
    return split.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)


def groups_of(cells: Tensor, strides: tuple[int, int, int]) -> Tensor:
    """Cells (B, T', H', W', 3 t y x) to groups of frames (B, T', 3 t, H, W)."""
    t, y, x = strides
    b, groups, rows, columns, _ = cells.shape
    split = cells.view(b, groups, rows, columns, 3 * t, y, x)
    return split.permute(0, 1, 4, 2, 5, 3, 6).reshape(b, groups, 3 * t, rows * y, columns * x)


def principal_components(cells: Tensor, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (P), orthonormal basis (C, P) and deviations (C) of cells (N, P), strongest first, in float32."""
    mean = cells.mean(0)
    covariance = (cells - mean).T @ (cells - mean) / len(cells)
    values, vectors = torch.linalg.eigh(covariance)
    order = values.argsort(descending=True)[:channels]
    return mean, vectors[:, order].T.contiguous(), values[order].clamp(min=1e-8).sqrt()
