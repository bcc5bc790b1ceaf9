"""Measured numbers for a Card: each with its interval, command and day; newer ones take the place of older ones."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from cinecanvas.model import Card, Score
from cinecanvas.models import diorama


def middle(name: str, values: Iterable[float], *, unit: str = "", ceiling: float | None = None) -> Score:
    """The median of some films, with its 95 % interval by rank: no shape of their distribution is assumed."""
    ranked = sorted(values)
    n = len(ranked)
    tails = itertools.accumulate(math.comb(n, below) / 2**n for below in range(n))
    rank = max(1, sum(tail <= 0.025 for tail in tails))  # fewer than six values have no such interval: least and most
    low, high = ranked[rank - 1], ranked[-rank]
    return Score(name=name, value=statistics.median(ranked), low=low, high=high, n=n, unit=unit, ceiling=ceiling)


def signed(scores: Iterable[Score], *, of: str, command: str, date: str) -> tuple[Score, ...]:
    """The scores with their command and day, their names ending in the examination that they are of, in brackets."""
    facts = {"command": command, "date": date}
    return tuple(one.model_copy(update={"name": f"{one.name} ({of})", **facts}) for one in scores)


def rescored(card: Card, scores: Sequence[Score]) -> Card:
    """The Card with these scores, in the place of all older ones of the same examinations."""
    new = {_examination(one) for one in scores}
    kept = tuple(one for one in card.scores if _examination(one) not in new)
    return card.model_copy(update={"scores": (*kept, *scores)})


def keep(folder: Path, scores: Sequence[Score]) -> None:
    """Put these scores on the Card in the folder of an export."""
    diorama.write_card(folder, rescored(diorama.read_card(folder), scores))


def _examination(score: Score) -> str:
    """What stands in brackets at the end of its name."""
    return score.name.rpartition("(")[2]
