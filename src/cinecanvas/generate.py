"""generate() takes a Request the whole way: plan, load, prepare, fill, decode, write; and tells of it as it goes."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from cinecanvas import __version__, layout
from cinecanvas.enhance import captions, check_enhancer, open_words, unheard, with_captions
from cinecanvas.errors import BadMedia, BadRequest, CannotWrite, Unsupported
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.audio import Voice, amid, mixed
from cinecanvas.media.destination import NUMBERED, PICTURES, shown_name
from cinecanvas.media.intake import describe, take
from cinecanvas.media.video import Film, VideoInfo, check_destination, info, writing
from cinecanvas.model import Card, Model
from cinecanvas.models import advice, card, load, others, pinned, understood
from cinecanvas.pace import Phases, keep_paces, paced, read_paces
from cinecanvas.plan import Budget, Pass, Plan, plan
from cinecanvas.request import STILL, Request
from cinecanvas.settings import Settings, settings
from cinecanvas.world.captions import Reading

if TYPE_CHECKING:  # a plan, a refusal and a list of events need no torch
    import numpy as np
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Reference, Tensors
    from cinecanvas.reel import Reel
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
    """A phase begins: load, prepare, denoise or write; `video` counts from 0; seconds since the start."""

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
class Note:
    """Something about what was laid that only the loaded model can tell."""

    text: str


@dataclass(frozen=True)
class Watch:
    """The first `seconds` of a video can be watched in this file, which grows until the film is whole."""

    file: Path
    video: int
    seconds: float


@dataclass(frozen=True)
class Preview:
    """What a film may come to look like: one frame (H, W, 3) RGB uint8 of the model's latest guess."""

    frame: np.ndarray[Any, Any]
    video: int


@dataclass(frozen=True)
class Stored:
    """A video is whole and in the store, while others of the request may still be made."""

    asset: Asset
    video: int


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
    notes: tuple[str, ...] = ()


Event: TypeAlias = Planned | Phase | Note | Step | Watch | Preview | Stored | Done


def generate(
    request: Request,
    *,
    out: Path | str,
    models: Callable[[str], Model] | None = None,
    store: Store | None = None,
    budget: Budget = Budget(),
    where: Settings | None = None,
    live: bool = False,
    previews: float = math.inf,
) -> Iterator[Event]:
    """Run the plan of a request into the file `out` (for several videos NAME-1, NAME-2 ...); the last event is Done.

    Closing the iterator stops within one network call and leaves nothing half-written. With a store, latents are kept
    by the key of their pass: what was done is not done again, and what was interrupted goes on where it was. The clips
    of a request lie in the store too. live: beside each file a NAME.live.mp4 grows that can be watched meanwhile.
    previews: the fewest seconds between two glimpses of what it may become. models: how a model is loaded by its name;
    left out, public models are placed where their memory fits, or refused before anything is read.
    """
    here = where or settings()
    request = pinned(_one_picture(request, str(out)), where=here)
    chosen = card(request.model, where=here)
    check_enhancer(request, chosen, here)
    files = destinations(str(out), count=request.count)
    for file in files:
        check_destination(file)
    if open_words(request, chosen):
        yield Phase("enhance", 0, 0.0)
        request = with_captions(request, found := list(captions(request, chosen, here)))
        if said := unheard(found):
            yield Note(said)
    paces = read_paces(here.cache)
    pace = paces.get(chosen.name, {})
    media = _described(request, store)
    made = plan(request, chosen, media=media, budget=budget, pace=pace, others=others(where=here))
    for file in files:
        _check_rate(file, made.fps)
    reading = understood(chosen, request.prompt)
    yield Planned(made, reading, advice(chosen, reading))
    trip = _Trip(made, previews)
    yield trip.enters("load", 0)
    with trip.timed("load"):
        model, notes = _loaded(models, chosen, made, here)
    notes += _strangers(model, made, store)
    yield from map(Note, notes)
    videos, assets = [], []
    for video, (film, file) in enumerate(zip(made.films, files, strict=True)):
        videos.append((yield from _filmed(trip, model, film, video=video, file=file, store=store, live=live)))
        if store is not None and Path(file).is_file():  # numbered pictures stay where they are
            try:
                assets.append(_stored(store, file, videos[-1]))
                yield Stored(assets[-1], video)
            except CannotWrite as error:  # the film is there all the same
                notes.append(f"{shown_name(file)} is not kept in the store: {error}")
                yield Note(notes[-1])
    if trip.steps == sum(step.steps for step in made.passes):  # a resumed run says nothing about the machine's pace
        foretold = made.phases.at({name: 1 / slower for name, slower in pace.items()})
        keep_paces(here.cache, {**paces, chosen.name: paced(pace, foretold, trip.phases)})
    paths = tuple(Path(f, one.name) if f.endswith("/") else Path(f) for f, one in zip(files, videos, strict=True))
    yield Done(paths, tuple(videos), request.seeds, tuple(assets), trip.phases, made, reading, tuple(notes))


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


def live_name(file: str) -> Path:
    """Where a film can be watched while it is made: NAME.live.mp4 beside it."""
    bare = Path(file.rstrip("/"))
    return bare.with_name(f"{bare.stem}.live.mp4")


class _Trip:
    """The clock of one generate(): seconds spent by phase, and network steps made."""

    def __init__(self, plan: Plan, previews: float) -> None:
        self.plan, self.steps = plan, 0
        self._previews, self._previewed = previews, time.monotonic()
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

    def previews_now(self) -> bool:
        """Whether the time for another glimpse has come."""
        if due := time.monotonic() - self._previewed >= self._previews:
            self._previewed = time.monotonic()
        return due

    def step(self, fill: Fill, video: int, *, before: int) -> Step:
        """A network call is done, after `before` steps of the film; what is left is foretold from this trip's steps."""
        self.steps += not fill.again
        films = self.plan.films
        of = sum(step.steps for step in films[video])
        left = of - before - fill.step + sum(step.steps for film in films[video + 1 :] for step in film)
        after = (self.plan.phases.decode + self.plan.phases.write) * (len(films) - video) / len(films)
        return Step(before + fill.step, of, video, self._spent["denoise"] / max(1, self.steps) * left + after)


def _filmed(
    trip: _Trip, model: Model, film: Sequence[Pass], *, video: int, file: str, store: Store | None, live: bool
) -> Generator[Phase | Step | Watch | Preview, None, VideoInfo]:
    """A whole film, window by window: what one has made the next one knows, and what is ready goes into the file."""
    from cinecanvas.sampler import Fill

    before, last, watched = 0, film[0], live_name(file) if live and trip.plan.frames > 1 else None
    text = _facts(trip.plan, film[0])
    size = (trip.plan.width, trip.plan.height)
    seconds = trip.plan.frames / trip.plan.fps
    voice = Voice(model.card.sound.rate) if model.card.sound and trip.plan.request.sound else None
    pieces, find = trip.plan.sound, _finder(store)
    sound = mixed(pieces, find, seconds=seconds, closed=film[0].closed)
    if voice is not None:
        sound = amid(voice, pieces, find, seconds=seconds)
    with writing(file, fps=trip.plan.fps, size=size, metadata=text, sound=sound, live=watched) as out:
        untouched = layout.untouched(
            (clip for step in film for clip in step.clips), max(film, key=lambda step: step.stop).grid
        )
        reel = _reel(trip, model, film, out, untouched, voice)
        for step in film:
            past = _past(reel.latents, step, last, model.card, _beginning(reel.latents, step, film[0], store))
            if untouched:
                with trip.timed("prepare"):
                    under = model.prepare(_composed(step, store), [step.prompt]).canvas
                reel.lay({name: track.x for name, track in under.tracks.items()}, start=step.start)
            for event in _filled(trip, model, step, past, video=video, before=before, store=store):
                if not isinstance(event, Fill):
                    yield event
                    continue
                if not event.done and trip.previews_now():
                    yield Preview(_glimpse(model, event, step.grid.chunk), video)
                for shown in reel.add(event.z, start=step.start, stop=_sure(step, event)):
                    if watched is not None:
                        yield Watch(watched, video, shown)
            before, last = before + step.steps, step
        yield trip.enters("write", video)
        began = time.perf_counter()
        reel.finish()
    trip.spend("write", time.perf_counter() - began)
    return out.info


def _reel(
    trip: _Trip, model: Model, film: Sequence[Pass], out: Film, untouched: frozenset[int], voice: Voice | None
) -> Reel:
    """Where the windows of a film become its frames; of a ring the decoder is given two cells before its first."""
    from cinecanvas.reel import Cut, Reel

    made, grid = trip.plan, film[0].grid
    lead = grid.frames_of(1).stop if film[0].closed else 0
    cut = Cut(source=grid.fps, fps=made.fps, frames=made.frames, crop=made.crop, lead=lead)
    whole = max(film, key=lambda step: step.stop).grid
    return Reel(model, out, cut, grid=whole, timed=trip.timed, untouched=untouched, voice=voice)


def _glimpse(model: Model, fill: Fill, chunk: int) -> np.ndarray[Any, Any]:
    """A frame of what a window, or its last chunk, may become, decoded alone: its first cells are enough."""
    from cinecanvas.reel import seen

    first = {name: x[:, :, -chunk:][:, :, :2] for name, x in seen(fill.x0).items()}
    with closing(model.decode(first)) as frames:
        return next(iter(frames)).rgb[-1]


def _composed(step: Pass, store: Store | None) -> Canvas:
    """The pixels that are laid on a window."""
    from cinecanvas.compose import compose

    return compose(step.clips, step.grid, _finder(store), window=step.frames, closed=step.closed)


def _sure(step: Pass, fill: Fill) -> int:
    """The first cell-in-time of the film that may still change; before it all of this window is as it will be."""
    # where every moment has its own noise, moments are cells, counted from the beginning of the film
    finished = fill.finished if step.order != "full" else 0
    return step.stop if fill.done else min(step.stop, max(step.start, finished))


class _Past(NamedTuple):
    """What a window knows of its film: the cells that it shares with the one before, each track with its own cell
    from which on it does; those in whose range it stays; and how the film begins, if it does before this window."""

    known: dict[str, tuple[int, Tensor]]
    anchor: Tensors
    beginning: tuple[Reference, ...]


def _past(whole: Tensors, step: Pass, last: Pass, card: Card, beginning: tuple[Reference, ...]) -> _Past:
    """Of the latents of a film as far as it is made."""
    from cinecanvas.reel import begins

    anchor = {"video": whole["video"][:, :, slice(*step.anchor)]} if step.anchor else {}
    known = {}
    for name, z in whole.items():
        ends = (step.start, max(step.start, last.start), min(step.stop, last.stop))
        own, start, stop = (begins(name, cell, card, step.grid) for cell in ends)
        known[name] = start - own, z[:, :, start:stop]
    return _Past(known, anchor, beginning)


def _beginning(whole: Tensors, step: Pass, first: Pass, store: Store | None) -> tuple[Reference, ...]:
    """For a window in mid-film of a model that works in chunks: the first frame as pixels if it was laid whole
    ("content"), else the first cell as it was made."""
    from cinecanvas.canvas import Reference
    from cinecanvas.compose import compose

    if not (step.grid.chunk and step.start):
        return ()
    frame = compose(first.clips, first.grid, _finder(store), window=range(1)).tracks["video"]
    if bool((frame.keep >= 1).all()):
        return (Reference(frame.x, 0.0, "content"),)
    return (Reference(whole["video"][:, :, :1], 0.0),)


def _filled(
    trip: _Trip,
    model: Model,
    step: Pass,
    past: _Past,
    *,
    video: int,
    before: int,
    store: Store | None,
) -> Iterator[Phase | Step | Fill]:
    """One pass, Fill by Fill: from the store as far as it is there, the rest from the network."""
    from cinecanvas.anchor import anchored
    from cinecanvas.fitting import leaning
    from cinecanvas.sampler import fill
    from cinecanvas.solvers import SOLVERS

    now = _kept(store, step)
    if now is not None and now.done:
        yield now
        return
    yield trip.enters("prepare", video)
    with trip.timed("prepare"):
        asked = leaning(model, step)
        asked = anchored(asked, past.anchor)
        canvas = replace(_composed(step, store), references=past.beginning)
        prepared = asked.prepare(canvas, [step.prompt])
        for name, (at, z) in past.known.items():
            prepared = replace(prepared, canvas=prepared.canvas.place(name, z, at=(at, 0, 0)))
    yield trip.enters("denoise", video)
    way = fill(
        asked,
        prepared,
        step.schedule,
        seed=step.seed,
        solver=SOLVERS[step.solver],
        key=step.name,
        resume=now,
        cache=step.cache,
    )
    kept = time.monotonic()
    with closing(cast(Any, way)):
        while True:
            with trip.timed("denoise"):
                now = next(way)
            if now.done or time.monotonic() - kept > CHECKPOINT_EVERY:
                _keep(store, step, now)
                kept = time.monotonic()
            try:
                yield trip.step(now, video, before=before)
                yield now
            except GeneratorExit:  # somebody stops us: what was done need not be done again
                _keep(store, step, now)
                raise
            if now.done:
                return


def _keep(store: Store | None, step: Pass, now: Fill) -> None:
    """Put a pass as far as it is made into the store; what cannot be kept costs a run that is stopped, not this one."""
    if store is not None:
        with suppress(CannotWrite):
            store.put_named(step.key, now.pack())


def _finder(store: Store | None) -> Callable[[str], Path]:
    """Where the file of a digest is; a request without a store has no clips to look for."""

    def find(digest: str) -> Path:
        assert store is not None, digest
        return store.path(digest)

    return find


def _strangers(model: Model, made: Plan, store: Store | None) -> Iterator[str]:
    """What the model says of the clips that were laid."""
    if made.request.clips:
        from cinecanvas.likeness import strangers

        digests = dict.fromkeys(clip.media for clip in made.request.clips if clip.seen)
        grid = made.passes[0].grid
        yield from strangers(model, digests, _finder(store), size=(grid.width, grid.height))


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
    """The finished file as an asset; a film is as long as it was made, whatever its file rounds that to."""
    asset = take(store, file)
    exact = {name: getattr(video, name) for name in ("frames", "fps", "seconds")}
    return asset.model_copy(update=exact) if video.frames > 1 else asset


def _loaded(models: Callable[[str], Model] | None, chosen: Card, made: Plan, here: Settings) -> tuple[Model, list[str]]:
    """The model where it fits, on as many threads as the settings say; and what was decided of a public one."""
    import torch

    if here.threads:
        torch.set_num_threads(here.threads)
    if models is not None:
        if made.request.loras:
            raise Unsupported("LoRA files were asked of a model that is loaded elsewhere", do="Leave out models=")
        return models(chosen.name), []
    if chosen.source is None:
        return load(chosen.name, where=here), []
    from cinecanvas.fitting import fit, heaviest

    asked = functools.partial(load, chosen.name, loras=made.request.loras, where=here)
    placement, peaks = fit(heaviest(made.passes), asked, device=here.device, precision=here.precision)
    told = f"on {placement.device} in {placement.precision}, {peaks.most / 1e9:.3g} GB at most"
    return asked(placement), [told]


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
