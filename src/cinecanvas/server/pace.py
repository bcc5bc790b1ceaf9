"""How often somebody may ask, and how much at once: two numbers for each caller, in the memory of one process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """What one caller, or one address, is allowed."""

    rate: float = 50.0  # requests per second
    burst: int = 100  # at once, after a rest
    together: int = 32  # in progress at one moment, streams of events among them


class Turnstile:
    """Lets in whoever keeps to his pace; a refusal costs 1 µs, and the memory is bounded.

    The bucket is one number, the moment at which it is full again (the generic cell rate algorithm, ITU-T I.371).
    """

    def __init__(self, *, most: int = 20_000, clock: Callable[[], float] = time.monotonic) -> None:
        """`most`: buckets that are remembered; the one that rested longest is forgotten first."""
        self._most, self._clock = most, clock
        self._full: OrderedDict[str, float] = OrderedDict()
        self._inside: dict[str, int] = {}

    def enter(self, who: str, pace: Pace) -> float:
        """0.0, and one more is inside until he leaves; or the seconds after which asking again makes sense."""
        if self._inside.get(who, 0) >= pace.together:
            return 1.0
        now, gap = self._clock(), 1.0 / pace.rate
        full = max(self._full.get(who, now), now) + gap
        wait = full - now - pace.burst * gap
        if wait > 1e-9:
            return wait
        self._full[who] = full
        self._full.move_to_end(who)
        if len(self._full) > self._most:
            self._full.popitem(last=False)
        self._inside[who] = self._inside.get(who, 0) + 1
        return 0.0

    def leave(self, who: str) -> None:
        """One of his requests is done."""
        left = self._inside[who] - 1
        if left:
            self._inside[who] = left
        else:
            del self._inside[who]
