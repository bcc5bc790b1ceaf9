"""generate() takes a Request the whole way: plan, load, prepare, fill, decode, write; and tells of it as it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cinecanvas import __version__
from cinecanvas.errors import BadMedia, BadRequest, Unsupported
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.destination import NUMBERED, PICTURES
from cinecanvas.media.video import VideoInfo, check_destination, write
from cinecanvas.model import Model
from cinecanvas.models import advice, card, load, understood
from cinecanvas.plan import Budget, Pass, Phases, Plan, keep_paces, paced, plan, read_paces
from cinecanvas.request import STILL, Request
from cinecanvas.settings import Settings, settings
from cinecanvas.world.captions import Reading

if TYPE_CHECKING:  # a plan, a refusal and a list of events need no torch
    import numpy as np

    from cinecanvas.sampler import Fill

CHECKPOINT_EVERY = 30.0  # s


@dataclass(frozen=True)
class Planned:
    """What will be done; what was understood of the prompt (None: an open domain), and advice if that is little."""

    plan: Plan
    reading: Reading | None
    advice: str = ""


@dataclass(frozen=True)
class Phase:
    """A phase begins: load, prepare, denoise, decode or write; `video` counts from 0; seconds since the start."""

    name: str
    video: int
    seconds: float


@dataclass(frozen=True)
class Step:
    """One network call is done; eta (s) is for all that is left, to the last file."""

    done: int
    of: int
    video: int
    eta: float


@dataclass(frozen=True)
class Done:
    """The files, their seeds and facts, the stored assets if there is a store, and the measured seconds per phase."""

    files: tuple[Path, ...]
    videos: tuple[VideoInfo, ...]
    seeds: tuple[int, ...]
    assets: tuple[Asset, ...]
    phases: Phases
    plan: Plan
    reading: Reading | None


Event: TypeAlias = Planned | Phase | Step | Done


def generate(
    request: Request,
    *,
    out: Path | str,
    models: Callable[[str], Model] = load,
    store: Store | None = None,
    budget: Budget = Budget(),
    where: Settings | None = None,
) -> Iterator[Event]:
    """Run the plan of a request into the file `out` (for several videos NAME-1, NAME-2 ...); the last event is Done.

    Closing the iterator stops within one network call and leaves nothing half-written. With a store, latents are kept by
    the key of their pass: what was done is not done again, and what was interrupted goes on where it was.
    """
    here = where or settings()
    request = _one_picture(request, str(out))
    paces = read_paces(here.cache)
    made = plan(request, card(request.model), budget=budget, pace=paces.get(request.model, 1.0))
    files = destinations(str(out), count=request.count)
    for file in files:
        check_destination(file)
        _check_rate(file, made.fps)
    reading = understood(card(request.model), request.prompt)
    yield Planned(made, reading, advice(card(request.model), reading))
    trip = _Trip(made)
    yield trip.enters("load", 0)
    with trip.timed("load"):
        model = _loaded(models, request.model, threads=here.threads)
    videos, assets = [], []
    for video, (step, file) in enumerate(zip(made.passes, files, strict=True)):
        fill = None
        for fill in _filled(trip, model, step, video=video, store=store):
            if isinstance(fill, Phase | Step):
                yield fill
        assert not isinstance(fill, Phase | Step) and fill is not None
        yield trip.enters("decode", video)
        videos.append(_written(trip, model, fill, file=file))
        if store is not None:
            assets.append(_stored(store, file, videos[-1]))
    foretold = made.phases.total / paces.get(request.model, 1.0)
    keep_paces(here.cache, {**paces, request.model: paced(paces.get(request.model), foretold, trip.phases.total)})
    paths = tuple(Path(file) for file in files)
    yield Done(paths, tuple(videos), request.seeds, tuple(assets), trip.phases, made, reading)
