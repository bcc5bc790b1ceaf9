"""A training example is a canvas too: this draws which cells are known, by the names of the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# how often each is drawn; "levels" gives every moment a noise of its own (Diffusion Forcing, Chen et al. 2024)
MIX: dict[str, float] = {
    "text_to_video": 0.38,
    "image_to_video": 0.12,
    "extend": 0.08,
    "extend_backward": 0.05,
    "first_last": 0.07,
    "keyframes": 0.06,
    "inpaint": 0.05,
    "outpaint": 0.05,
    "levels": 0.14,
}


class Noise(NamedTuple):
    """sigma (B, 1, T, H, W) of every cell, and hole (B, 1, T, H, W) in {0, 1}: the cells that take a loss."""

    sigma: Tensor
    hole: Tensor


def draw(batch: int, cells: Sequence[int], *, mean: float, generator: torch.Generator) -> Noise:
    """B canvases of T x H x W cells; `mean` of the logit-normal noise level (Esser et al. 2024)."""
    names = list(MIX)
    picks = torch.multinomial(torch.tensor(list(MIX.values())), batch, replacement=True, generator=generator)
    rows = [hole(names[int(pick)], cells, mean=mean, generator=generator) for pick in picks]
    return Noise(torch.stack([row.sigma for row in rows]), torch.stack([row.hole for row in rows]))


def hole(task: str, cells: Sequence[int], *, mean: float, generator: torch.Generator) -> Noise:
    """One canvas (1, T, H, W): known cells are clean, or in a third of the cases slightly noisy against drift."""
    t, h, w = cells
    level = torch.sigmoid(mean + torch.randn(1, generator=generator))
    known = torch.zeros(1, t, h, w)
    if t == 1 and task not in ("inpaint", "outpaint"):
        task = "text_to_video"  # a still has no moments to know
    if task == "levels":
        rough = torch.sigmoid(mean + torch.randn(t, generator=generator))
        if _chance(0.4, generator):
            rough = rough.sort().values  # a monotone ramp, as in streaming
        return Noise(rough.view(1, t, 1, 1).expand(1, t, h, w), torch.ones(1, t, h, w))
    if task == "image_to_video":
        known[:, 0] = 1
    elif task == "extend":
        known[:, : _between(1, t - 1, generator)] = 1
    elif task == "extend_backward":
        known[:, t - _between(1, t - 1, generator) :] = 1
    elif task == "first_last":
        known[:, 0] = known[:, -1] = 1
    elif task == "keyframes":
        known[:, torch.rand(t, generator=generator) < 0.35] = 1
    elif task in ("inpaint", "outpaint"):
        y, x = (_between(0, n - 1, generator) for n in (h, w))
        y2, x2 = _between(y + 1, h, generator), _between(x + 1, w, generator)
        known[:, :, y:y2, x:x2] = 1
        if task == "inpaint":
            known = 1 - known
    residue = torch.rand(1, generator=generator) * 0.15 * _chance(0.3, generator)
    return Noise(torch.where(known > 0, torch.minimum(residue, level), level), 1 - known)


def _between(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, max(low, high) + 1, (1,), generator=generator))


def _chance(p: float, generator: torch.Generator) -> bool:
    return bool(torch.rand(1, generator=generator) < p)
