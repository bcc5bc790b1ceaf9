"""generate() takes a Request the whole way: plan, load, prepare, fill, decode, write; and tells of it as it goes."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from cinecanvas import __version__
from cinecanvas.errors import BadMedia, BadRequest, Unsupported
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.audio import mixed
from cinecanvas.media.destination import NUMBERED, PICTURES, shown_name
from cinecanvas.media.intake import describe, take
from cinecanvas.media.video import VideoInfo, check_destination, info, write
from cinecanvas.model import Model
from cinecanvas.models import advice, card, load, understood
from cinecanvas.plan import Budget, Pass, Phases, Plan, keep_paces, paced, plan, read_paces
from cinecanvas.request import STILL, Request
from cinecanvas.settings import Settings, settings
from cinecanvas.world.captions import Reading

if TYPE_CHECKING:  # a plan, a refusal and a list of events need no torch
    import numpy as np

    from cinecanvas.canvas import Tensors
    from cinecanvas.sampler import Fill

CHECKPOINT_EVERY = 30.0  # s
MOST_GIF_FPS = 50.0  # 1/s


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

    Closing the iterator stops within one network call and leaves nothing half-written. With a store, latents are kept
    by the key of their pass: what was done is not done again, and what was interrupted goes on where it was. The clips
    of a request lie in the store too.
    """
    here = where or settings()
    request = _one_picture(request, str(out))
    chosen = card(request.model)
    paces = read_paces(here.cache)
    pace = paces.get(chosen.name, {})
    media = _described(request, store)
    made = plan(request, chosen, media=media, budget=budget, pace=pace)
    files = destinations(str(out), count=request.count)
    for file in files:
        check_destination(file)
        _check_rate(file, made.fps)
    reading = understood(chosen, request.prompt)
    yield Planned(made, reading, advice(chosen, reading))
    trip = _Trip(made)
    yield trip.enters("load", 0)
    with trip.timed("load"):
        model = _loaded(models, chosen.name, threads=here.threads)
    videos, assets = [], []
    for video, (film, file) in enumerate(zip(made.films, files, strict=True)):
        latents = yield from _filmed(trip, model, film, video=video, store=store)
        yield trip.enters("decode", video)
        videos.append(_written(trip, model, latents, step=film[0], file=file, find=_finder(store)))
        if store is not None and Path(file).is_file():  # numbered pictures stay where they are
            assets.append(_stored(store, file, videos[-1]))
    if trip.steps == sum(step.steps for step in made.passes):  # a resumed run says nothing about the machine's pace
        keep_paces(
            here.cache, {**paces, chosen.name: paced(pace, plan(request, chosen, media=media).phases, trip.phases)}
        )
    paths = tuple(Path(file) for file in files)
    yield Done(paths, tuple(videos), request.seeds, tuple(assets), trip.phases, made, reading)


def request_of(file: Path) -> Request:
    """The Request that a JSON file holds, or that a film or picture of ours was made from."""
    if not file.is_file():
        raise BadRequest(f"There is no file {shown_name(file.name)}", do="Check the name")
    try:
        text = file.read_text() if file.suffix.lower() == ".json" else info(file).metadata.get("comment", "")
        facts = json.loads(text)
        return Request.model_validate(facts.get("request", facts))
    except (ValueError, AttributeError) as error:
        raise BadRequest(f"{shown_name(file.name)} does not say what it was made from") from error


def destinations(out: str, *, count: int) -> tuple[str, ...]:
    """The one file, or NAME-1, NAME-2 ...; folders and numbered patterns likewise."""
    if count == 1:
        return (out,)
    slash = "/" if out.endswith("/") else ""
    path = Path(out)
    ending = "" if slash else path.suffix
    bare = str(path)[: len(str(path)) - len(ending)]
    return tuple(f"{bare}-{number}{ending}{slash}" for number in range(1, count + 1))


def retimed(frames: Iterable[np.ndarray], *, source: float, fps: float, count: int) -> Iterator[np.ndarray]:
    """`count` frames at `fps` from frames at `source` (1/s): each moment shows the frame that stood then."""
    made, frame = 0, None
    for index, frame in enumerate(frames):
        # 1e-6 forgives 3 * (8 / 24) = 0.9999999
        while made < count and int(made * source / fps + 1e-6) <= index:
            yield frame
            made += 1
        if made == count:
            return
    assert frame is not None, "a model decoded nothing"
    for _ in range(count - made):
        yield frame


class _Trip:
    """The clock of one generate(): seconds spent by phase, and network steps made."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.steps = plan, 0
        self._began, self._spent = time.perf_counter(), dict.fromkeys(Phases.model_fields, 0.0)

    @property
    def phases(self) -> Phases:
        return Phases(**self._spent)

    def enters(self, name: str, video: int) -> Phase:
        return Phase(name, video, time.perf_counter() - self._began)

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spend(name, time.perf_counter() - began)

    def spend(self, name: str, seconds: float) -> None:
        self._spent[name] += seconds

    def step(self, fill: Fill, video: int, *, before: int) -> Step:
        """A network call is done, after `before` steps of the film; what is left is foretold from this trip's steps."""
        self.steps += not fill.again
        films = self.plan.films
        of = sum(step.steps for step in films[video])
        left = of - before - fill.step + sum(step.steps for film in films[video + 1 :] for step in film)
        after = (self.plan.phases.decode + self.plan.phases.write) * (len(films) - video) / len(films)
        return Step(before + fill.step, of, video, self._spent["denoise"] / max(1, self.steps) * left + after)


def _filmed(
    trip: _Trip, model: Model, film: Sequence[Pass], *, video: int, store: Store | None
) -> Generator[Phase | Step, None, Tensors]:
    """The latents of a whole film, window by window: what one has made, the next one knows."""
    whole: Tensors = {}
    before, last = 0, film[0]
    for step in film:
        known = _shared(whole, step, last)
        filled = yield from _filled(trip, model, step, known, video=video, before=before, store=store)
        for name, z in filled.z.items():
            if name not in whole:
                whole[name] = z.new_zeros(*z.shape[:2], max(one.stop for one in film), *z.shape[3:])
            whole[name][:, :, step.start : step.stop] = z
            if step.closed:  # what comes before the first group of a ring is the last
                whole[name][:, :, :1] = z[:, :, -1:]
        before, last = before + step.steps, step
    return whole


def _shared(whole: Tensors, step: Pass, last: Pass) -> tuple[int, Tensors]:
    """Where in the window the cells-in-time lie that the one before has made, and their latents."""
    start, stop = max(step.start, last.start), min(step.stop, last.stop)
    return start - step.start, {name: z[:, :, start:stop] for name, z in whole.items()}


def _filled(
    trip: _Trip,
    model: Model,
    step: Pass,
    known: tuple[int, Tensors],
    *,
    video: int,
    before: int,
    store: Store | None,
) -> Generator[Phase | Step, None, Fill]:
    """The latents of one pass: from the store as far as they are there, the rest from the network."""
    from cinecanvas.compose import compose
    from cinecanvas.guidance import guided
    from cinecanvas.sampler import SOLVERS, fill

    now = _kept(store, step)
    if now is not None and now.done:
        return now
    yield trip.enters("prepare", video)
    with trip.timed("prepare"):
        asked = guided(model, step.guidance, negative=step.negative)
        canvas = compose(step.clips, step.grid, _finder(store), window=step.frames, closed=step.closed)
        prepared = asked.prepare(canvas, [step.prompt])
        at, tensors = known
        for name, z in tensors.items():
            prepared = replace(prepared, canvas=prepared.canvas.place(name, z, at=(at, 0, 0)))
    yield trip.enters("denoise", video)
    way = fill(asked, prepared, step.schedule, seed=step.seed, solver=SOLVERS[step.solver], key=step.name, resume=now)
    kept = time.monotonic()
    with closing(cast(Any, way)):
        while True:
            with trip.timed("denoise"):
                now = next(way)
            if store is not None and (now.done or time.monotonic() - kept > CHECKPOINT_EVERY):
                store.put_named(step.key, now.pack())
                kept = time.monotonic()
            yield trip.step(now, video, before=before)
            if now.done:
                return now


def _finder(store: Store | None) -> Callable[[str], Path]:
    """Where the file of a digest is; a request without a store has no clips to look for."""

    def find(digest: str) -> Path:
        assert store is not None, digest
        return store.path(digest)

    return find


def _described(request: Request, store: Store | None) -> dict[str, Asset]:
    """What is known of the media that the request lays on the canvas."""
    if not request.clips:
        return {}
    if store is None:
        raise BadRequest("Clips were laid on the canvas, but there is no store to find them in", do="Give store=")
    digests = {digest for clip in request.clips for digest in (clip.media, clip.mask) if digest}
    return {digest: describe(store, digest) for digest in sorted(digests)}


def _kept(store: Store | None, step: Pass) -> Fill | None:
    """What an earlier run left of this pass; a damaged record is forgotten."""
    from cinecanvas.sampler import Fill

    data = None if store is None else store.get_named(step.key)
    if store is None or data is None:
        return None
    try:
        return Fill.unpack(data)
    except BadMedia:
        store.drop_named(step.key)
        return None


def _written(
    trip: _Trip, model: Model, latents: Tensors, *, step: Pass, file: str, find: Callable[[str], Path]
) -> VideoInfo:
    """Frames into the file as they are decoded, cut and retimed on the way; beside them the sound of the clips."""
    made = trip.plan
    before = trip.phases.decode
    source = _decoded(trip, model, latents, crop=made.crop)
    seen = itertools.islice(source, 1 if step.closed else 0, None)
    frames = retimed(seen, source=step.grid.fps, fps=made.fps, count=made.frames)
    sound = mixed(made.sound, find, seconds=made.frames / made.fps, closed=step.closed)
    began = time.perf_counter()
    with closing(source):
        info = write(
            frames, file, fps=made.fps, size=(made.width, made.height), metadata=_facts(made, step), sound=sound
        )
    trip.spend("write", time.perf_counter() - began - (trip.phases.decode - before))
    return info


def _decoded(
    trip: _Trip, model: Model, latents: Tensors, *, crop: tuple[int, int]
) -> Generator[np.ndarray, None, None]:
    """Frames (H, W, 3) one by one, the middle (width, height) px of them."""
    way = model.decode(latents)
    while True:
        with trip.timed("decode"):
            some = next(way, None)
        if some is None:
            return
        height, width = some.rgb.shape[1:3]
        x, y = (width - crop[0]) // 2, (height - crop[1]) // 2
        yield from some.rgb[:, y : y + crop[1], x : x + crop[0]]


def _facts(made: Plan, step: Pass) -> dict[str, str]:
    """What a file says of itself: all that is needed to make it again, and no path."""
    facts = {
        "cinecanvas": __version__,
        "model": step.model,
        "weights": step.weights,
        "seed": step.seed,
        "request": made.request.model_dump(mode="json"),
    }
    return {"title": made.request.prompt[:200], "comment": json.dumps(facts, ensure_ascii=False)}


def _stored(store: Store, file: str, video: VideoInfo) -> Asset:
    """The finished file as an asset."""
    return take(store, file).model_copy(update={name: getattr(video, name) for name in ("frames", "fps", "seconds")})


def _loaded(models: Callable[[str], Model], name: str, *, threads: int) -> Model:
    """The model with its weights, on as many threads as the settings say."""
    import torch

    if threads:
        torch.set_num_threads(threads)
    return models(name)


def _one_picture(request: Request, out: str) -> Request:
    """fox.png is one picture unless a length was asked; frames/ and %04d.png are films in pictures."""
    path = Path(out)
    film = out.endswith("/") or path.suffix.lower() not in PICTURES or NUMBERED.fullmatch(path.name)
    return request if film or request.seconds is not None else request.model_copy(update={"seconds": STILL})


def _check_rate(file: str, fps: float) -> None:
    """What the encoder would refuse after the work, refused before it."""
    if file.lower().endswith(".gif") and fps > MOST_GIF_FPS:
        raise Unsupported(
            f"A GIF of {fps:g} frames per second was asked",
            f"GIF counts hundredths of a second: at most {MOST_GIF_FPS:g} are possible",
            "Ask for fewer, or write .mp4",
        )
