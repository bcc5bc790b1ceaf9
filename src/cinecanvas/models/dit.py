"""The diffusion transformer: noisy cells and words in, clean cells out, one noise level per cell.

Shape suffixes: B batch, C channels of a cell, T H W the lattice, L = T * H * W, D width, R rank of the modulation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from cinecanvas.models.layers import Block, fourier, norm, rope
from cinecanvas.models.text import mask_bias

LATE = 9  # cells: a window that does not begin at the beginning is simply late, for attention itself is relative


class DiTShape(BaseModel):
    """The sizes of one network; they travel with its weights."""

    model_config = ConfigDict(frozen=True)

    channels: int = 128
    width: int = 256
    depth: int = 8
    heads: int = 4
    rank: int = 64
    text_width: int = 256
    time_stride: int = 4  # frames per cell after the first, for true positions in time


class DiT(nn.Module):
    """x0 from z under per-cell noise: the best linear estimate per channel, and what words and neighbours add to it."""

    variance: Tensor

    def __init__(self, shape: DiTShape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.register_buffer("variance", torch.ones(shape.channels))  # of clean latents, per channel
        self.embed = nn.Linear(shape.channels, width)
        self.place = nn.Linear(3 * 12, width)
        self.level = nn.Sequential(nn.Linear(32, 128), nn.SiLU(), nn.Linear(128, shape.rank))
        self.sentence = nn.Linear(shape.text_width, shape.rank)
        self.extent = nn.Linear(3 * 8, shape.rank)
        self.blocks = nn.ModuleList(Block(width, shape.heads, shape.rank, shape.text_width) for _ in range(shape.depth))
        self.last = nn.Linear(shape.rank, width)
        self.head = nn.Linear(width, shape.channels)
        for layer in (self.last, self.head, self.extent):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, z_BCTHW: Tensor, sigma_B1THW: Tensor, words: Words, *, start: int = 0) -> Tensor:
        """x0 (B, C, T, H, W), float32; `start` cells of the whole lie before the first of these."""
        return self.traced(z_BCTHW, sigma_B1THW, words, start=start)[0]

    def traced(self, z_BCTHW: Tensor, sigma_B1THW: Tensor, words: Words, *, start: int = 0) -> tuple[Tensor, Tensor]:
        """x0 (B, C, T, H, W), float32, and what half of the blocks made of it (B, L, D)."""
        b, c, t, h, w = z_BCTHW.shape
        z = z_BCTHW.flatten(2).transpose(1, 2).float()
        sigma = sigma_B1THW.flatten(1)[..., None].float()
        skip, scale, total = preconditioning(sigma, self.variance.float())
        dtype = self.head.weight.dtype
        positions = lattice(t, h, w, stride=self.shape.time_stride, start=start and start + LATE)
        cos, sin = (a.to(z.device, dtype) for a in rope(positions, self.shape.width // self.shape.heads))
        x = self.embed((z / total).to(dtype)) + self.place(place_features(positions).to(z.device, dtype))
        extent = fourier(torch.tensor([t / 4, h / 4, w / 4]).log(), 4, base=1.0).flatten().to(z.device, dtype)
        mod = self.level(fourier(sigma[..., 0], 16, base=0.5).to(dtype))
        mod = F.silu(mod + (self.sentence(words.states[:, 0]) + self.extent(extent))[:, None])
        bias = torch.cat([torch.zeros(b, 1, 1, t * h * w, device=z.device, dtype=dtype), words.bias.to(dtype)], dim=-1)
        middle = x
        for i, (block, keys) in enumerate(zip(self.blocks, words.keys, strict=True)):
            x = block(x, mod, keys, bias, cos, sin, (h, w))
            middle = x if 2 * (i + 1) <= len(self.blocks) else middle
        out = self.head(norm(x) * (1 + self.last(mod)))
        x0 = skip * z + scale * out.float()
        return x0.transpose(1, 2).reshape(b, c, t, h, w), middle

    def read(self, states: Tensor, padding: Tensor) -> Words:
        """Text states (B, M, D) to what every block needs of them, once per canvas."""
        keys = [block.keys_of(states) for block in self.blocks if isinstance(block, Block)]
        return Words(states, mask_bias(padding), tuple(keys))


class Words:
    """A prompt as the network reads it: states (B, M, D), attention bias (B, 1, 1, M), keys and values per block."""

    def __init__(self, states: Tensor, bias: Tensor, keys: tuple[Tensor, ...]) -> None:
        self.states, self.bias, self.keys = states, bias, keys

    def videos(self, start: int, stop: int) -> Words:
        """Those of the videos [start, stop) alone."""
        return Words(self.states[start:stop], self.bias[start:stop], tuple(keys[:, start:stop] for keys in self.keys))


def preconditioning(sigma: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """skip, scale, total for x0 = skip * z + scale * network(z / total): EDM (Karras et al. 2022) on the flow path.

    With z = (1 - s) x + s e and Var x = v per channel, skip is the Wiener gain (1 - s) v / ((1 - s)^2 v + s^2), scale
    the deviation that the gain leaves, total that of z. At s = 0 skip is 1 and scale 0: a known cell passes exactly.
    """
    power = (1 - sigma) ** 2 * variance + sigma**2
    return (1 - sigma) * variance / power, sigma * (variance / power).sqrt(), power.sqrt()


def lattice(t: int, h: int, w: int, *, stride: int, start: int) -> Tensor:
    """Positions (L, 3) in cells: t at the middle of the frames a cell holds, y and x from the middle of the picture."""
    cell = torch.arange(start, start + t, dtype=torch.float32)
    # cell 0 is frame 0; cell k holds frames 1 + (k - 1) * stride .. k * stride: middle k - 0.5 + 0.5 / stride
    times = torch.where(cell == 0, 0.0, cell - 0.5 + 0.5 / stride)
    ys, xs = (torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in (h, w))
    return torch.stack(torch.meshgrid(times, ys, xs, indexing="ij"), dim=-1).view(-1, 3)


def place_features(positions: Tensor) -> Tensor:
    """Absolute place (L, 36): rotary attention is relative, the horizon is not; time saturates for long clips."""
    t, y, x = positions.unbind(-1)
    return torch.cat([fourier(axis, 6, base=0.2) for axis in (t.clamp(max=LATE - 1), y, x)], dim=-1)
