"""Classifier-free guidance is a Model round a Model: it asks twice and leans away from the second answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from cinecanvas.canvas import Canvas, Tensors
from cinecanvas.model import Around, Hinderable, Model


def guided(
    model: Model,
    scale: float,
    *,
    negative: str = "",
    interval: tuple[float, float] = (0.1, 1.0),
    rescale: float = 0.0,
    rising: float | None = None,
    below: tuple[float, float] | None = None,
    sound: float | None = None,
    hindered: Sequence[tuple[str, float]] = (),
) -> Model:
    """x0 = x0(negative) + scale (x0(prompt) - x0(negative)) (Ho & Salimans 2022); scale 1 is the model itself.

    interval: the sigmas at which it acts (Kynkaanniemi et al. 2024); up to pure noise, for a small lattice decides its
    layout above sigma 0.97. A call of which no cell lies there asks for the prompt alone. rescale in 0..1: how far the
    standard deviation of x0 is brought back to that without guidance (Lin et al. 2023, eq. 15 and 16).

    rising: the scale at the first moment, from which it rises evenly to `scale` at the last (Blattmann et al. 2023).
    below: (level, scale): another scale under a level, for families of two experts. sound: that of the track of sound.
    hindered: (how, scale): x0 + scale (x0 - x0 of the network hindered so), as by skipped layers (Hyung et al. 2024).

    A network that was distilled to lean by itself is told the scale, and asked once (Meng et al. 2023).
    """
    if model.card.embedded:
        return _Told(model, scale)
    lean = _Lean(scale, interval, rescale, rising, below)
    heard = lean if sound is None else _Lean(sound, interval, rescale, None, None)
    if scale == 1 and below is None and sound in (None, 1) and not hindered:
        return model
    assert not hindered or isinstance(model, Hinderable), model.card.name
    worse = tuple((cast(Hinderable, model).hindered(how), far) for how, far in hindered)
    return _Guided(model, lean, heard, negative, worse)


@dataclass(frozen=True)
class _Lean:
    """How far an answer leans, by the level and the moment of a cell."""

    scale: float
    interval: tuple[float, float]
    rescale: float
    rising: float | None
    below: tuple[float, float] | None

    def between(
        self, prompted: Tensor, negative: Tensor, sigma: Tensor, *, worse: Sequence[tuple[Tensor, float]] = ()
    ) -> Tensor:
        """Answers (B, C, T, H, W) as one; cells outside the interval take the prompted one."""
        x0 = negative + self._scale(sigma) * (prompted - negative)
        for other, scale in worse:
            x0 = x0 + scale * (prompted - other)
        if self.rescale:
            ratio = _std(prompted) / _std(x0).clamp_min(1e-8)
            x0 = x0 * (self.rescale * ratio + 1 - self.rescale)
        low, high = self.interval
        return torch.where((low <= sigma) & (sigma <= high), x0, prompted)

    def _scale(self, sigma: Tensor) -> Tensor | float:
        if self.rising is not None:
            return torch.linspace(self.rising, self.scale, sigma.shape[2]).to(sigma.device).view(1, 1, -1, 1, 1)
        if self.below is None:
            return self.scale
        level, scale = self.below
        return torch.where(sigma < level, scale, self.scale)


@dataclass(frozen=True)
class _Told(Around):
    """A Model whose network takes the scale as one of its arguments."""

    scale: float

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Any:
        inner = self.model.prepare(canvas, text)
        scale = torch.full((canvas.batch,), self.scale, device=next(iter(inner.given.values())).device)
        return replace(inner, given={**inner.given, "guidance": scale})


@dataclass(frozen=True)
class _Both:
    """The canvas of the B videos asked for, and what the inner model prepared: them prompted, then them negative."""

    canvas: Canvas
    inner: Any


@dataclass(frozen=True)
class _Guided(Around):
    """A Model whose x0 leans from the negative prompt towards the prompt."""

    lean: _Lean
    heard: _Lean  # of the track of sound
    negative: str
    worse: tuple[tuple[Model, float], ...] = ()

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> _Both:
        inner = self.model.prepare(canvas, [*text, *[self.negative] * len(text)])
        return _Both(inner.canvas.videos(0, len(text)), inner)

    def denoise(self, z: Tensors, sigma: Tensors, cond: _Both, *, to: Tensors | None = None) -> Tensors:
        low, high = self.lean.interval
        if not any(bool(((low <= s) & (s <= high)).any()) for s in sigma.values()):
            return self._asked(0, z, sigma, cond, to)
        prompted, negative = self._both(z, sigma, cond, to)
        first = cond.inner.videos(0, cond.canvas.batch)
        worse = [(model.denoise(z, sigma, first, to=to), scale) for model, scale in self.worse]
        leans = {name: self.heard if name == "sound" else self.lean for name in z}
        return {
            name: lean.between(
                prompted[name], negative[name], sigma[name], worse=[(other[name], scale) for other, scale in worse]
            )
            for name, lean in leans.items()
        }

    def _both(self, z: Tensors, sigma: Tensors, cond: _Both, to: Tensors | None) -> tuple[Tensors, Tensors]:
        """The answers to the prompts and to the negative one: in one call, or in turn."""
        if not self.card.batched:
            return self._asked(0, z, sigma, cond, to), self._asked(1, z, sigma, cond, to)
        x0 = self.model.denoise(_twice(z), _twice(sigma), cond.inner, to=None if to is None else _twice(to))
        halves = {name: x.chunk(2) for name, x in x0.items()}
        return {name: half[0] for name, half in halves.items()}, {name: half[1] for name, half in halves.items()}

    def _asked(self, half: int, z: Tensors, sigma: Tensors, cond: _Both, to: Tensors | None) -> Tensors:
        """One of both answers alone."""
        b = cond.canvas.batch
        return self.model.denoise(z, sigma, cond.inner.videos(half * b, half * b + b), to=to)


def _twice(tensors: Tensors) -> Tensors:
    return {name: torch.cat([x, x]) for name, x in tensors.items()}


def _std(x: Tensor) -> Tensor:
    """Standard deviation of each video (B, 1, 1, 1, 1)."""
    return x.std(dim=(1, 2, 3, 4), keepdim=True, correction=0)
