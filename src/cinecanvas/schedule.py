"""A Schedule says how noisy each moment is at each step: one matrix, from all noise down to none."""

from __future__ import annotations

import bisect

from pydantic import BaseModel, ConfigDict, Field

from cinecanvas.errors import BadRequest
from cinecanvas.ramp import STRAIGHT, Levels, Ramp


class Schedule(BaseModel):
    """levels: steps+1 rows x moments of sigma in 0..1, from 1 down to 0; moments (s): where each column begins."""

    model_config = ConfigDict(frozen=True)

    levels: tuple[tuple[float, ...], ...]
    moments: tuple[float, ...] = (0.0,)
    order: str = "full"
    shift: float = Field(default=1.0, gt=0)

    @property
    def steps(self) -> int:
        """How many solver steps lead from the first row to the last."""
        return len(self.levels) - 1

    def at(self, step: int, second: float) -> float:
        """Sigma at a second: that of the moment which the second falls into, so tracks of any rate move together."""
        column = max(0, bisect.bisect_right(self.moments, second + 1e-9) - 1)
        return self.levels[step][column]

    def finished(self, step: int) -> int:
        """How many leading moments are done (sigma 0) after `step` steps: these may be decoded already."""
        row = self.levels[step]
        return next((i for i, level in enumerate(row) if level > 0), len(row))


def full(steps: int, *, shift: float = 1.0, ramp: Ramp = STRAIGHT, cells: int = 0) -> Schedule:
    """All moments together: ordinary diffusion; cells: of the lattice, for ramps that grow with it."""
    levels = _levels(ramp, steps, shift, cells)
    return Schedule(levels=tuple((level,) for level in levels), order="full", shift=shift)


def causal(
    steps: int, moments: tuple[float, ...], *, shift: float = 1.0, ramp: Ramp = STRAIGHT, cells: int = 0
) -> Schedule:
    """One moment after the other, `steps` each: each finishes before the next begins, as in autoregression."""
    levels = _levels(ramp, steps, shift, cells)
    return _staggered(levels, moments, lag=steps, order="causal", shift=shift)


def pyramid(
    steps: int,
    moments: tuple[float, ...],
    *,
    shift: float = 1.0,
    lag: int = 1,
    ramp: Ramp = STRAIGHT,
    cells: int = 0,
) -> Schedule:
    """Each moment starts `lag` steps after the last (Diffusion Forcing, Chen et al. 2024): streaming with foresight."""
    levels = _levels(ramp, steps, shift, cells)
    return _staggered(levels, moments, lag=lag, order="pyramid", shift=shift)


def schedule(
    order: str, steps: int, moments: tuple[float, ...], *, shift: float = 1.0, ramp: Ramp = STRAIGHT, cells: int = 0
) -> Schedule:
    """The schedule of that name."""
    if order == "full":
        return full(steps, shift=shift, ramp=ramp, cells=cells)
    return (causal if order == "causal" else pyramid)(steps, moments, shift=shift, ramp=ramp, cells=cells)


def _staggered(levels: Levels, moments: tuple[float, ...], *, lag: int, order: str, shift: float) -> Schedule:
    steps = len(levels) - 1
    rows = range(steps + lag * (len(moments) - 1) + 1)
    staggered = tuple(tuple(levels[min(max(row - lag * i, 0), steps)] for i in range(len(moments))) for row in rows)
    return Schedule(levels=staggered, moments=moments, order=order, shift=shift)


def _levels(ramp: Ramp, steps: int, shift: float, cells: int) -> Levels:
    if not 1 <= steps <= 1000:
        raise BadRequest(f"{steps} steps were asked for", "Between 1 and 1000 are possible")
    return ramp.levels(steps, shift=shift, cells=cells)
