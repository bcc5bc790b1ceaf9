"""What a judge must forgive: a clip that is soft, noisy, small, compressed, dim or coarsely coded shows the same."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cinecanvas.models.autoencoder import Autoencoder, CodeShape, to_cells

Wear = Callable[[Tensor, float, torch.Generator], Tensor]  # clips (B, 3, T, H, W) in [-1, 1], strength 0..1, chance


def blur(x: Tensor, strength: float, chance: torch.Generator) -> Tensor:
    """Gaussian, up to 2 px."""
    return _both_ways(x, _gaussian(x.shape[-2], 0.3 + 1.7 * strength), _gaussian(x.shape[-1], 0.3 + 1.7 * strength))


def smear(x: Tensor, strength: float, chance: torch.Generator) -> Tensor:
    """Gaussian in time, up to 1.2 frames: ghosts."""
    return torch.einsum("st,bcthw->bcshw", _gaussian(x.shape[2], 0.2 + strength), x)


def noise(x: Tensor, strength: float, chance: torch.Generator) -> Tensor:
    """Gaussian, up to 0.25, fine and in blotches of 8 px."""
    fine = torch.randn(x.shape, generator=chance)
    b, c, t, h, w = x.shape
    blotch = F.interpolate(torch.randn(b * c, t, h // 8, w // 8, generator=chance), (h, w), mode="bilinear")
    return x + strength * (0.17 * fine + 0.12 * blotch.view(x.shape))


def halved(x: Tensor, strength: float, chance: torch.Generator) -> Tensor:
    """Half of the resolution, and back: the more strength, the less of the fine half is left."""
    down = _resize(x.shape[-1] // 2, x.shape[-1])
    up = _resize(x.shape[-1], x.shape[-1] // 2)
    return x + min(1.0, 2 * strength) * (_both_ways(x, up @ down, up @ down) - x)


def compressed(x: Tensor, strength: float, chance: torch.Generator) -> Tensor:
    """Cosine transform in blocks of 8 px, rounded more coarsely the finer it is, as JPEG does."""
    rows, columns = _cosines(x.shape[-2]), _cosines(x.shape[-1])
    pitch = torch.arange(8.0).repeat(x.shape[-1] // 8)
    step = (0.05 + 0.35 * strength) * (0.3 + 0.2 * (pitch[:, None] + pitch))
    return _both_ways((_both_ways(x, rows, columns) / step).round() * step, rows.T, columns.T)


def light(x: Tensor, strength: float, chance: torch.Generator) -> Tensor:
    """Brightness, contrast and saturation, each by up to a fifth, and a faint tint."""
    b = len(x)
    by = strength * (2 * torch.rand(4, b, 1, 1, 1, 1, generator=chance) - 1)
    tint = 0.05 * strength * torch.randn(b, 3, 1, 1, 1, generator=chance)
    grey = x.mean(1, keepdim=True)
    x = grey + (1 + 0.2 * by[0]) * (x - grey)
    return (1 + 0.2 * by[1]) * x + 0.15 * by[2] + tint


def coarse(code: Autoencoder) -> Wear:
    """The linear code of cells, cut short and noised: softness and seams at 16 px."""

    def wear(x: Tensor, strength: float, chance: torch.Generator) -> Tensor:
        z = code.encode(x)
        kept = round(code.shape.channels * (1 - 0.75 * strength))
        z = z + 0.6 * strength * torch.randn(z.shape, generator=chance)
        z[:, kept:] = 0
        groups = code.linear(z).unflatten(2, (3, code.shape.strides[0]))
        first, rest = groups[:, 0].mean(2, keepdim=True), groups[:, 1:].transpose(1, 2).flatten(2, 3)
        return torch.cat([first, rest], 2)

    return wear


def code_of(clips: Tensor) -> Autoencoder:
    """The linear code of these clips (B, 3, T, H, W): their principal components, and no learned decoder."""
    code = Autoencoder(CodeShape())
    cells = to_cells(clips, code.shape.strides).flatten(0, -2)
    code.mean.copy_(cells.mean(0))
    _, deviation, basis = torch.pca_lowrank(cells, code.shape.channels, niter=2)
    code.basis.copy_(basis.T)
    code.scale.copy_(deviation / math.sqrt(len(cells)))
    return code.requires_grad_(False)


def worn(x: Tensor, wears: tuple[Wear, ...], chance: torch.Generator, *, clean: float = 0.2, group: int = 8) -> Tensor:
    """Every `group` clips another wear, or two, or none with the chance `clean`."""
    parts = []
    for part in x.split(group):
        how_many = 0 if _draw(chance) < clean else 1 + int(_draw(chance) < 0.5)
        for _ in range(how_many):
            part = wears[int(_draw(chance) * len(wears))](part, _draw(chance), chance)
        parts.append(part.clamp(-1, 1))
    return torch.cat(parts)


PLAIN: tuple[Wear, ...] = (blur, smear, noise, halved, compressed, light)


def _draw(chance: torch.Generator) -> float:
    return float(torch.rand((), generator=chance))


def _both_ways(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return rows @ x @ columns.T


def _gaussian(n: int, sigma: float) -> Tensor:
    """The blur as a matrix (n, n) whose rows sum to one."""
    at = torch.arange(float(n))
    k = torch.exp(-0.5 * ((at[:, None] - at) / sigma) ** 2)
    return k / k.sum(1, keepdim=True)


@functools.cache
def _resize(to: int, n: int) -> Tensor:
    """Area down, bilinear up, as a matrix (to, n)."""
    if to < n:
        return F.interpolate(torch.eye(n)[None], to, mode="area")[0].T.contiguous()
    return F.interpolate(torch.eye(n)[None], to, mode="linear")[0].T.contiguous()


@functools.cache
def _cosines(n: int) -> Tensor:
    """The orthonormal cosine transform of every 8 numbers, as a matrix (n, n)."""
    k = torch.arange(8.0)
    block = torch.cos(math.pi / 8 * (k + 0.5) * k[:, None]) / 2
    block[0] /= math.sqrt(2)
    return torch.block_diag(*[block] * (n // 8))
