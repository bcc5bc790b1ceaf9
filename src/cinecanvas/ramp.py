"""A Ramp is how one cell of a family comes down from all noise to none: the levels it was trained or distilled to meet.

Every family's noise is spoken of as sigma in 0..1 on the straight line z = (1 - sigma) x0 + sigma eps. Where a family
counts otherwise (alpha and beta of a diffusion, the sigma of EDM), its ramp translates, and says which number the
network is told.
"""

from __future__ import annotations

import bisect
import functools
import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cinecanvas.errors import Unsupported

TRAINED = 1000  # levels in training, of all families here

Levels = tuple[float, ...]


class Line(BaseModel):
    """Flow matching: u from 1 to `least` in equal steps, bent by the timestep shift (Esser et al. 2024).

    closed: the last step begins at `least`, else the one that would follow. growing: the shift is e^mu, with mu on the
    line through (cells, mu) and (cells, mu). terminal: the last step begins at this level, the others are stretched.
    whole: the network is told whole numbers. first: u begins there. plain: a shift that grows is mu itself.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["line"] = "line"
    most: float = 1.0
    least: float = 0.0
    closed: bool = False
    twice: bool = False  # `least` is a level that is shifted itself, as diffusers' flow scheduler has it
    growing: tuple[tuple[int, float], tuple[int, float]] | None = None
    terminal: float = 0.0
    whole: bool = False
    first: float = 1.0
    plain: bool = False

    def levels(self, steps: int, *, shift: float, cells: int) -> Levels:
        """steps + 1 levels, from the first to 0."""
        if self.growing is not None:
            (few, low), (many, high) = self.growing
            mu = low + (cells - few) * (high - low) / (many - few)
            shift = mu if self.plain else math.exp(mu)
        least = shifted(self.least, shift) if self.twice else self.least
        parts = max(1, steps - 1) if self.closed else steps
        bent = [shifted(self.first - i * (self.first - least) / parts, shift) for i in range(steps)]
        if self.terminal:
            scale = (1 - self.terminal) / (1 - bent[-1])
            bent = [1 - (1 - level) * scale for level in bent]
        return (*(min(level, self.most) for level in bent), 0.0)

    def timestep(self, level: float) -> float:
        """What the network is told at a level."""
        told = TRAINED * level
        # 1e-4 forgives 0.937 * 1000 = 936.99998 in float32, and not 938.9998, which a level may well be
        return math.floor(told + 1e-4) if self.whole else told


class Table(BaseModel):
    """A diffusion on 1000 levels whose root of beta is linear (Rombach et al. 2022), some of which are met.

    zero_snr: the last level is all noise (Lin et al. 2023); snr_shift divides the signal's share first (CogVideoX).
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["table"] = "table"
    first: float = 0.00085
    last: float = 0.012
    zero_snr: bool = False
    snr_shift: float = 1.0
    spacing: Literal["leading", "trailing", "linspace"] = "leading"
    offset: int = 0

    def levels(self, steps: int, *, shift: float, cells: int) -> Levels:
        """steps + 1 levels, from the first to 0; the shift is the table's own."""
        return (*(self._level(time) for time in self.times(steps)), 0.0)

    def times(self, steps: int) -> tuple[float, ...]:
        """Which of the levels are met, the noisiest first; by linspace some between two."""
        if self.spacing == "trailing":
            return tuple(round(TRAINED - i * TRAINED / steps) - 1 for i in range(steps))
        if self.spacing == "leading":
            apart = TRAINED // steps
            return tuple(min(TRAINED - 1, i * apart + self.offset) for i in reversed(range(steps)))
        return tuple((TRAINED - 1) * i / max(1, steps - 1) for i in reversed(range(steps)))

    def timestep(self, level: float) -> float:
        """Which level of the table it is; between two, by their noise."""
        table = _table(self)
        above = min(max(bisect.bisect_left(table, level - 1e-6), 1), TRAINED - 1)
        near = min((above - 1, above), key=lambda time: abs(table[time] - level))
        if abs(table[near] - level) < 1e-6 or table[above] >= 1:
            return float(near)
        low, high, here = (_noise(s) for s in (table[above - 1], table[above], level))
        return above - 1 + min(max((here - low) / (high - low), 0.0), 1.0)

    def _level(self, time: float) -> float:
        below = math.floor(time)
        if below == time:
            return _table(self)[below]
        low, high = (_noise(level) for level in _table(self)[below : below + 2])
        noise = low + (time - below) * (high - low)
        return noise / (1 + noise)


class Karras(BaseModel):
    """EDM (Karras et al. 2022, eq. 5): equal steps in the root of order rho of a noise that is not bounded."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["karras"] = "karras"
    least: float = 0.002
    most: float = 700.0
    rho: float = 7.0

    def levels(self, steps: int, *, shift: float, cells: int) -> Levels:
        """steps + 1 levels, from the first to 0."""
        low, high = self.least ** (1 / self.rho), self.most ** (1 / self.rho)
        noise = ((high + i / max(1, steps - 1) * (low - high)) ** self.rho for i in range(steps))
        return (*(sigma / (1 + sigma) for sigma in noise), 0.0)

    def timestep(self, level: float) -> float:
        """A quarter of the logarithm of its noise."""
        return 0.25 * _log_noise(level)


class Listed(BaseModel):
    """The very levels that a checkpoint was distilled to, without the 0 at their end: it has no other steps."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["listed"] = "listed"
    at: tuple[float, ...]

    def levels(self, steps: int, *, shift: float, cells: int) -> Levels:
        """The list and 0."""
        if steps != len(self.at):
            possible = f"This checkpoint was distilled to {len(self.at)} steps, and has no others"
            raise Unsupported(f"{steps} steps were asked", possible, "Leave the steps out")
        return (*self.at, 0.0)

    def timestep(self, level: float) -> float:
        """What the network is told at a level."""
        return TRAINED * level


class LinearQuadratic(BaseModel):
    """Half of the steps in a line from 1 to 1 - `slow`, the others ever longer (Polyak et al. 2024, Movie Gen)."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["linear_quadratic"] = "linear_quadratic"
    slow: float = 0.025

    def levels(self, steps: int, *, shift: float, cells: int) -> Levels:
        """steps + 1 levels, from the first to 0; the shift is its own."""
        first = steps // 2
        if not first:
            return (1.0, 0.0)
        step, rest = self.slow / first, steps - first
        bend = (1 - self.slow - step * rest) / rest**2
        line = (1 - i * step for i in range(first))
        return (*line, *(1 - self.slow - i * step - bend * i * i for i in range(rest)), 0.0)

    def timestep(self, level: float) -> float:
        """What the network is told at a level."""
        return TRAINED * level


class Cosine(BaseModel):
    """Stable Cascade's: the signal's share is a squared cosine of a time in 0..1 (Nichol & Dhariwal 2021), bounded."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["cosine"] = "cosine"
    lead: float = 0.008
    least: float = 1e-4  # of the signal's share

    def levels(self, steps: int, *, shift: float, cells: int) -> Levels:
        """steps + 1 levels at equal steps of time, from the first to 0; the shift is the cosine's own."""
        shares = (self.share(1 - i / steps) for i in range(steps))
        return (*(_level(share) for share in shares), 0.0)

    def timestep(self, level: float) -> float:
        """The time in 0..1 at a level."""
        a, b = 1 - level, level
        share = a * a / (a * a + b * b)
        if share <= self.least * (1 + 1e-4):
            return 1.0
        angle = math.acos(min(1.0, math.sqrt(share) * self._root(0.0)))
        return max(0.0, angle * 2 / math.pi * (1 + self.lead) - self.lead)

    def share(self, time: float) -> float:
        """Of the signal, a^2, at a time in 0..1."""
        return min(max((self._root(time) / self._root(0.0)) ** 2, self.least), 1 - self.least)

    def _root(self, time: float) -> float:
        return math.cos((time + self.lead) / (1 + self.lead) * math.pi / 2)


Ramp = Annotated[Line | Table | Karras | Listed | LinearQuadratic | Cosine, Field(discriminator="kind")]
STRAIGHT = Line()


def shifted(u: float, shift: float) -> float:
    """The timestep shift of Stable Diffusion 3: u in 0..1 to sigma; shift > 1 spends more steps near noise."""
    return shift * u / (1 + (shift - 1) * u)


@functools.cache
def _table(ramp: Table) -> Sequence[float]:
    """sigma = b / (a + b) of all 1000 levels, the least noise first."""
    ends = math.sqrt(ramp.first), math.sqrt(ramp.last)
    kept, shares = 1.0, []
    for i in range(TRAINED):
        kept *= 1 - (ends[0] + i * (ends[1] - ends[0]) / (TRAINED - 1)) ** 2
        shares.append(kept / (ramp.snr_shift + (1 - ramp.snr_shift) * kept))
    signal = [math.sqrt(share) for share in shares]
    if ramp.zero_snr:
        first, last = signal[0], signal[-1]
        signal = [(a - last) * first / (first - last) for a in signal]
    return [b / (a + b) for a in signal for b in (math.sqrt(max(0.0, 1 - a * a)),)]


def _level(share: float) -> float:
    """sigma = b / (a + b) of a signal's share a^2."""
    a, b = math.sqrt(share), math.sqrt(1 - share)
    return b / (a + b)


def _log_noise(level: float) -> float:
    """log(sigma / (1 - sigma)), of levels that are neither 0 nor 1."""
    inside = min(max(level, 1e-6), 1 - 1e-6)
    return math.log(inside / (1 - inside))


def _noise(level: float) -> float:
    """sigma / (1 - sigma), the noise beside a signal of 1."""
    return math.exp(_log_noise(level))
