"""Seconds by phase, and the pace of this machine: how many times slower it has proved than was foretold."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Pace: TypeAlias = Mapping[str, float]  # by phase, how many times slower this machine has proved than foretold

UNMEASURED: Pace = MappingProxyType({})
_PACES = TypeAdapter(dict[str, dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]])


class Phases(BaseModel):
    """Seconds of the parts of a trip."""

    model_config = ConfigDict(frozen=True)

    load: float = 0.0
    prepare: float = 0.0
    denoise: float = 0.0
    decode: float = 0.0
    write: float = 0.0

    @property
    def total(self) -> float:
        """All of them together (s)."""
        return self.load + self.prepare + self.denoise + self.decode + self.write

    def at(self, pace: Pace) -> Phases:
        """The same on a machine of that pace."""
        return Phases(**{name: value * pace.get(name, 1.0) for name, value in self.model_dump().items()})


def paced(before: Pace, foretold: Phases, measured: Phases) -> dict[str, float]:
    """The new pace of this machine after a run: per phase, measured over foretold seconds, smoothed over runs."""
    after = dict(before)
    for name, told in foretold.model_dump().items():
        took = getattr(measured, name)
        # what took next to nothing was not really done: the weights were still loaded
        if told > 0 and took > told / 100:
            # half a second on both sides: what is over at once says little about what takes long
            ratio = (took + 0.5) / (told + 0.5)
            after[name] = math.sqrt(before[name] * ratio) if name in before else ratio
    return after


def read_paces(cache: Path) -> dict[str, dict[str, float]]:
    """What is known of this machine, by model; a file that is missing or broken is nothing known."""
    try:
        return _PACES.validate_json((cache / "paces.json").read_bytes())
    except (OSError, ValueError):
        return {}


def keep_paces(cache: Path, paces: Mapping[str, Pace]) -> None:
    """Remember them; a cache that cannot be written is no reason to fail."""
    with suppress(OSError):
        cache.mkdir(parents=True, exist_ok=True)
        aside = cache / f"paces.{os.getpid()}.partial"
        aside.write_text(json.dumps({model: dict(pace) for model, pace in paces.items()}))
        aside.replace(cache / "paces.json")
