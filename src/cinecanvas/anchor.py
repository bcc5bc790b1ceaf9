"""A long film holds to its beginning: no later moment may leave the range in which the moments of a first window lay.

A window that goes on from the one before adds its small errors to those it was given, and after half a minute grass has
become pebbles. What a film *is* moves little, though: this is a Model round a Model that keeps every guess within it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cinecanvas.canvas import Tensors
from cinecanvas.model import Around, Model


class Anchor(NamedTuple):
    """The least and the largest mean, and the largest deviation, of a row of cells: each (B, C, 1, H, 1).

    Rows, for floor and sky lie in different ones and a camera that pans moves nothing from row to row; a range, not a
    mean, so that what moved in the first window may go on moving, and nothing is painted where a thing has left.
    """

    low: Tensor
    high: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, z: Tensor) -> Anchor:
        """Of clean latents (B, C, T, H, W)."""
        mean, deviation = _row(z)
        return cls(mean.amin(2, keepdim=True), mean.amax(2, keepdim=True), deviation.amax(2, keepdim=True))

    def hold(self, x0: Tensor) -> Tensor:
        """x0 (B, C, T, H, W) with the mean of every row brought into the range, and its deviation to the largest."""
        mean, deviation = _row(x0)
        shrunk = (x0 - mean) * (self.deviation / deviation.clamp(min=1e-6)).clamp(max=1)
        return shrunk + torch.minimum(torch.maximum(mean, self.low), self.high)


def anchored(model: Model, cells: Tensors) -> Model:
    """The model, its guesses held to the range of these clean latents by track; tracks that are not named go free."""
    return _Anchored(model, {name: Anchor.of(z) for name, z in cells.items()}) if cells else model


@dataclass(frozen=True)
class _Anchored(Around):
    anchors: Mapping[str, Anchor]

    def denoise(self, z: Tensors, sigma: Tensors, cond: Any, *, to: Tensors | None = None) -> Tensors:
        guess = self.model.denoise(z, sigma, cond, to=to)
        return {name: self.anchors[name].hold(x0) if name in self.anchors else x0 for name, x0 in guess.items()}


def _row(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every row of cells at every moment (B, C, T, H, 1)."""
    deviation, mean = torch.std_mean(z, dim=4, keepdim=True, correction=0)
    return mean, deviation
