"""A training example is a canvas too: this draws which cells are known, by the names of the tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# how often each is drawn; "levels" gives every moment a noise of its own (Diffusion Forcing, Chen et al. 2024)
MIX: dict[str, float] = {
    "text_to_video": 0.46,
    "image_to_video": 0.12,
    "extend": 0.08,
    "extend_backward": 0.05,
    "first_last": 0.07,
    "keyframes": 0.06,
    "inpaint": 0.05,
    "outpaint": 0.05,
    "levels": 0.08,
}
PURE = 0.03  # of the examples begin at sigma 1 exactly, as sampling does
RESIDUE = 0.15  # the most noise left on known cells, in 30 % of the examples: a history that is not perfect stops drift


class Noise(NamedTuple):
    """sigma (B, 1, T, H, W) of every cell, and hole (B, 1, T, H, W) in {0, 1}: the cells that take a loss."""

    sigma: Tensor
    hole: Tensor


def draw(batch: int, cells: Sequence[int], *, mean: float, spread: float, generator: torch.Generator) -> Noise:
    """B canvases of T x H x W cells; logit-normal noise levels (Esser et al. 2024)."""
    picks = torch.multinomial(torch.tensor(list(MIX.values())), batch, replacement=True, generator=generator)
    counts = picks.bincount(minlength=len(MIX)).tolist()
    parts = [
        hole(task, cells, batch=count, mean=mean, spread=spread, generator=generator)
        for task, count in zip(MIX, counts, strict=True)
        if count
    ]
    return Noise(torch.cat([part.sigma for part in parts]), torch.cat([part.hole for part in parts]))


def hole(
    task: str, cells: Sequence[int], *, batch: int, mean: float, spread: float, generator: torch.Generator
) -> Noise:
    """B canvases of one task: holes at one level of noise, known cells clean or nearly so; "levels" knows nothing."""
    t, h, w = cells
    if task == "levels":
        return _levels(cells, batch=batch, mean=mean, spread=spread, generator=generator)
    known = _known(task, cells, batch=batch, generator=generator).float().expand(batch, 1, t, h, w)
    level = torch.sigmoid(mean + spread * torch.randn(batch, 1, 1, 1, 1, generator=generator))
    level = level.masked_fill(torch.rand(level.shape, generator=generator) < PURE, 1.0)
    residue = RESIDUE * torch.rand(batch, 1, 1, 1, 1, generator=generator)
    residue = residue * (torch.rand(batch, 1, 1, 1, 1, generator=generator) < 0.3)
    return Noise(torch.where(known > 0, torch.minimum(residue, level), level), 1 - known)


def _known(task: str, cells: Sequence[int], *, batch: int, generator: torch.Generator) -> Tensor:
    """Where the task knows, as bool that broadcasts to (B, 1, T, H, W)."""
    t, h, w = cells
    moment = torch.arange(t).view(1, 1, t, 1, 1)
    nothing = torch.zeros(batch, 1, t, 1, 1, dtype=torch.bool)
    if task in ("inpaint", "outpaint"):
        rows, columns = _interval(h, batch, generator), _interval(w, batch, generator)
        box = rows.view(batch, 1, 1, h, 1) & columns.view(batch, 1, 1, 1, w)
        return box if task == "outpaint" else ~box
    if t == 1 or task == "text_to_video":  # a still has no moments to know
        return nothing
    length = torch.randint(1, t, (batch, 1, 1, 1, 1), generator=generator)
    return {
        "image_to_video": nothing | (moment == 0),
        "extend": moment < length,
        "extend_backward": moment >= length,
        "first_last": nothing | (moment == 0) | (moment == t - 1),
        "keyframes": torch.rand(batch, 1, t, 1, 1, generator=generator) < 0.35,
    }[task]


def _levels(cells: Sequence[int], *, batch: int, mean: float, spread: float, generator: torch.Generator) -> Noise:
    """A level for every moment; 40 % are ramps that rise with time, as in streaming."""
    t, h, w = cells
    rough = torch.sigmoid(mean + spread * torch.randn(batch, t, generator=generator))
    ramp = torch.rand(batch, 1, generator=generator) < 0.4
    level = torch.where(ramp, rough.sort(dim=1).values, rough)
    return Noise(level.view(batch, 1, t, 1, 1).expand(batch, 1, t, h, w), torch.ones(batch, 1, t, h, w))


def _interval(n: int, batch: int, generator: torch.Generator) -> Tensor:
    """A random stretch of at least one of n places, (B, n) bool."""
    first = (torch.rand(batch, 1, generator=generator) * n).long()
    last = first + (torch.rand(batch, 1, generator=generator) * (n - first)).long()
    place = torch.arange(n)
    return (place >= first) & (place <= last)
