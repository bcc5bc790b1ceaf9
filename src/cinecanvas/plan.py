"""A Plan says, before any weight is loaded, which passes a Request comes to and what they will cost."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict

from cinecanvas.errors import Unsupported
from cinecanvas.grid import Grid
from cinecanvas.layout import Placed, lay, part, task
from cinecanvas.media.audio import Piece
from cinecanvas.model import Card, Cost, Recipe
from cinecanvas.pace import UNMEASURED, Pace, Phases
from cinecanvas.ramp import STRAIGHT, Ramp
from cinecanvas.request import STILL, Lora, Media, Order, Request
from cinecanvas.schedule import Schedule, schedule
from cinecanvas.stepcache import ALWAYS, FOLLOWED, LEAST_STEPS, StepCache

MOST_CROPPED = 2.0  # a shape that would lose more than half of every picture is refused

NOTHING: Mapping[str, Media] = MappingProxyType({})

_ENCODE_PIXEL = 2e-8  # s, measured: H.264 at its medium preset on two cores
_OPEN = 0.1  # s, to open, flush and move a file
_FLOPS = 5e10  # 1/s, of two cores: a first guess for a Card without a measured cost
_DECODE_PIXEL = 1e-6  # s, again a first guess
_IMPORT = 2.0  # s, of torch alone
_NOTICED = 0.1  # s of silence that are worth a word
_RUNTIME = 350_000_000  # bytes of Python and torch alone


class Pass(BaseModel):
    """One fill: model, weights, grid, window, schedule, solver, guidance, seed, words, clips by digest.

    The grid ends where the window does, so the passes of a film are the same however it goes on.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    weights: str  # the digest of all its weights; "" for a model without any
    loras: tuple[Lora, ...] = ()  # what changes them
    grid: Grid
    start: int = 0  # cells-in-time of the film before this window
    order: Order
    steps: int
    shift: float
    ramp: Ramp = STRAIGHT
    solver: str
    guidance: float
    guided: tuple[float, float] = (0.1, 1.0)  # the levels from and to which guidance acts
    rescale: float = 0.0
    rising: float | None = None
    below: tuple[float, float] | None = None
    sound: float | None = None  # the scale of guidance for a track of sound, if that is another
    hindered: tuple[tuple[str, float], ...] = ()
    cache: StepCache = ALWAYS  # at which steps the network is asked
    seed: int
    prompt: str
    negative: str = ""
    clips: tuple[Placed, ...] = ()
    closed: bool = False  # its end leads back to its beginning
    follows: str = ""  # the key of the pass whose latents are known where both windows overlap
    anchor: tuple[int, int] | None = None  # the cells-in-time of the film, from and to, in whose range it stays
    name: str = "base"  # its place in the plan; noise is drawn by it, so other words keep the same noise

    @property
    def key(self) -> str:
        """The sha256 of all of it, as canonical JSON: two passes of one key give the same latents."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def stop(self) -> int:
        """The first cell-in-time of the film after this window."""
        return self.grid.cells[0]

    @property
    def frames(self) -> range:
        """The frames of the film that the window covers."""
        return range(self.grid.frames_of(self.start).start, self.grid.frames)

    @property
    def cells(self) -> int:
        """How many cells it fills or knows; of a grid in chunks those of the last: what was before comes as history."""
        _, height, width = self.grid.cells
        moments = self.stop - self.start
        return min(moments, self.grid.chunk or moments) * height * width

    @property
    def schedule(self) -> Schedule:
        """Its noise per step and moment."""
        times = self.grid.times()
        return schedule(self.order, self.steps, times, shift=self.shift, ramp=self.ramp, cells=self.cells)


class Plan(BaseModel):
    """A film for each video, its passes in order; what is cut and scaled on the way out; seconds and bytes foretold."""

    model_config = ConfigDict(frozen=True)

    request: Request
    recipe: Recipe  # of the model at that quality, with what was asked instead
    films: tuple[tuple[Pass, ...], ...]
    width: int  # px, of the file
    height: int
    fps: float  # 1/s, of the file
    frames: int  # in each file
    crop: tuple[int, int]  # width, height (px) cut from the middle of what is generated
    sound: tuple[Piece, ...]  # where the clips are heard; without any, the files have no sound
    cells: int  # in the largest pass
    phases: Phases
    bytes: int  # the most memory at one time
    guessed: bool = False  # nobody has measured this model: its seconds and bytes say nothing
    notes: tuple[str, ...] = ()

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The passes of all films."""
        return tuple(step for film in self.films for step in film)

    @property
    def seconds(self) -> float:
        """How long it will take, start to end (s)."""
        return self.phases.total


class Budget(BaseModel):
    """The most that one request may cost: seconds of work, bytes of memory."""

    model_config = ConfigDict(frozen=True)

    seconds: float = 86_400.0
    bytes: int = 1 << 40


def plan(
    request: Request,
    card: Card,
    *,
    media: Mapping[str, Media] = NOTHING,
    budget: Budget = Budget(),
    pace: Pace = UNMEASURED,
    others: Iterable[Card] = (),
) -> Plan:
    """Request + Card to passes; refuses what this model cannot do, and says what would work.

    media: what is known of the clips that the request lays on the canvas, by digest. others: models that a refusal may
    name, the best to have first.
    """
    _check_tasks(request, card, others)
    recipe = _recipe(request, card)
    grid = _grid(request, card)
    crop, size = _frame(request, card, grid)
    fps = request.fps or grid.fps
    seconds = grid.seconds if request.seconds is None else request.seconds
    if request.loop:
        seconds = _round(request, card, grid)
    frames = max(1, round(seconds * fps))
    visible = math.ceil(min(grid.frames, frames / fps * grid.fps) - 1e-6)
    clips = lay(request, media, grid, crop=crop, visible=visible)
    seen, sound = tuple(one for one in clips if one.clip.seen), heard(clips, media, grid)
    films = tuple(_film(request, card, recipe, grid, seed=seed, clips=seen) for seed in request.seeds)
    cells = max(step.cells for step in films[0])
    made = Plan(
        request=request,
        recipe=recipe,
        films=films,
        width=size[0],
        height=size[1],
        fps=fps,
        frames=frames,
        crop=crop,
        sound=sound,
        cells=cells,
        phases=_phases(card, recipe, films, pixels=size[0] * size[1] * frames).at(pace),
        bytes=_bytes(card, grid, cells=cells),
        guessed=card.source is not None and not card.cost.machine and "denoise" not in pace,
        notes=(
            *_notes(request, grid, crop=crop, size=size, fps=fps, frames=frames, passes=len(films[0])),
            *_idle(request, recipe, card),
            *(_sound_note(sound, seconds=frames / fps) if not request.sound else _made_note(sound)),
        ),
    )
    _check_budget(made, budget)
    return made


def _check_tasks(request: Request, card: Card, others: Iterable[Card]) -> None:
    """Refuse by name what the model does not do; loops, cues and sound wait for their turn."""
    name, without = task(request), "Ask without sound: that of clips is kept all the same"
    film = card.still and (request.seconds is None or request.seconds > STILL)
    lacks = name not in card.tasks
    able = _able(request, name, others) if film or lacks else ""
    asked = (
        ("a film", film, "It makes single pictures", f"Ask for one, such as fox.png, or choose another model{able}"),
        (name.replace("_", " "), lacks, f"It does {_listed(card.tasks)}", f"Choose another model{able}"),
        (f"the order {request.order}", request.order not in card.orders, f"It has {_listed(card.orders)}", ""),
        ("other words from a second on", bool(request.cues) and not card.window, "It makes a film in one pass", ""),
        ("sound", request.sound and "sound" not in card.tracks, "It makes pictures only", without),
        (
            "sound",
            request.sound and card.sound is None,
            "Sound that a model makes is not written for this one",
            without,
        ),
        ("the sound of a loop", request.sound and request.loop, "It makes that of films with two ends", without),
        ("a loop", request.loop and "loop" not in card.tasks, f"It does {_listed(card.tasks)}", "Ask without a loop"),
        ("a loop in another order", request.loop and request.order != "full", "A loop has no first moment", ""),
    )
    for what, wanted, possible, do in asked:
        if wanted:
            raise Unsupported(f"The model {card.name} was asked for {what}", possible, do)


def _able(request: Request, name: str, others: Iterable[Card]) -> str:
    """Up to three models that do what is asked for so long, as the end of a sentence."""
    still = request.seconds is not None and request.seconds <= STILL
    long = 0.0 if request.seconds is None else request.seconds
    names = (one.name for one in others if name in one.tasks and one.max_seconds >= long and (still or not one.still))
    first = tuple(itertools.islice(names, 3))
    return f", such as {' or '.join(first)}" if first else ""


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names) or "nothing"


def _recipe(request: Request, card: Card) -> Recipe:
    recipe = card.recipes.get(request.quality)
    if recipe is None:
        known = ", ".join(card.recipes) or "none"
        raise Unsupported(f"The model {card.name} has no quality {request.quality!r}", f"It has: {known}")
    asked = {name: getattr(request, name) for name in ("steps", "guidance", "rescale")}
    instead = {name: value for name, value in asked.items() if value is not None}
    if request.guidance is not None:
        instead["below"] = None  # one scale for both experts, as their pipelines have it
    if request.guidance == 1:
        instead |= {"sound": None, "hindered": ()}
    if request.guided is not None:
        instead["guided_from"], instead["guided_to"] = request.guided
    return recipe.model_copy(update=instead)


def _grid(request: Request, card: Card) -> Grid:
    """The trained grid that is nearest in shape, as long as asked."""
    width, height = _nearest(request, card)
    if request.finer and request.width and request.height:
        width, height = request.width, request.height
    seconds = card.seconds if request.seconds is None else request.seconds
    if seconds > card.max_seconds + 1e-9:
        raise Unsupported(
            f"{seconds:g} s were asked of the model {card.name}",
            f"It makes at most {card.max_seconds:g} s",
            f"Ask for {card.max_seconds:g} s or less",
        )
    whole = seconds + 1 / card.fps if request.loop and request.seconds is not None else seconds  # see _film
    t, y, x = card.strides
    coarse = Grid.snap(
        whole,
        width=width,
        height=height,
        fps=card.fps,
        strides=(t * card.groups, y, x),
        causal=card.causal,
        chunk=card.chunk,
    )
    grid = coarse.model_copy(update={"strides": card.strides})
    moments, down, across = grid.cells
    cells = min(moments, card.window or moments) * down * across
    if cells > card.max_cells:
        longest = seconds * card.max_cells / cells
        raise Unsupported(
            f"{seconds:g} s of {grid.width}x{grid.height} px are {cells} cells of the model {card.name}",
            f"It holds at most {card.max_cells}",
            f"Ask for {longest:.2g} s or less",
        )
    return grid


def _nearest(request: Request, card: Card) -> tuple[int, int]:
    """The trained (width, height) nearest in log aspect, then in size; without an asked shape the model's own.

    A model whose sides are free makes what was asked, to the next multiple, unless that is more than it was trained on.
    """
    if card.sides and request.width and request.height:
        width, height = (max(1, round(side / card.sides)) * card.sides for side in (request.width, request.height))
        if width * height <= 1.1 * max(w * h for w, h in card.sizes):
            return width, height
    sizes = card.sizes or ((request.width or 256, request.height or 256),)
    ratio = request.ratio
    if ratio is None:
        return sizes[0]
    area = math.log((request.width or sizes[0][0]) * (request.height or sizes[0][1]))

    def far(size: tuple[int, int]) -> tuple[float, float]:
        return round(abs(math.log(size[0] / size[1] / ratio)), 9), abs(math.log(size[0] * size[1]) - area)

    best = min(sizes, key=far)
    if far(best)[0] > math.log(MOST_CROPPED):
        shapes = ", ".join(f"{w}:{h}" for w, h in (_lowest(size) for size in sizes))
        asked = request.shape or f"{request.width}x{request.height}"
        raise Unsupported(
            f"The shape {asked} was asked of the model {card.name}",
            f"No grid of its comes near it; its shapes are {shapes}",
            f"Ask for a width of {min(w / h for w, h in sizes) / MOST_CROPPED:.2g} to "
            f"{max(w / h for w, h in sizes) * MOST_CROPPED:.2g} times the height",
        )
    return best


def _frame(request: Request, card: Card, grid: Grid) -> tuple[tuple[int, int], tuple[int, int]]:
    """(crop, size), each (width, height) px: what is cut from the middle of a frame, and what the file holds."""
    ratio = request.ratio
    if ratio is None:
        return (grid.width, grid.height), (grid.width * card.display, grid.height * card.display)
    wide, tall = grid.width, grid.height
    crop = min(wide, max(1, round(tall * ratio))), min(tall, max(1, round(wide / ratio)))
    if request.width is not None and request.height is not None:
        return crop, (request.width, request.height)
    # H.264 holds even sides only: rather a pixel less than one stretched
    even = max(2, crop[0] - crop[0] % 2), max(2, crop[1] - crop[1] % 2)
    return even, (even[0] * card.display, even[1] * card.display)


def windows(
    cells: int, *, window: int, overlap: int, backward: bool = False, growing: bool = False
) -> list[tuple[int, int]]:
    """(start, stop) in cells-in-time, in the order of filling: each knows `overlap` cells of the one before, or more.

    backward: from the end to the beginning, for films whose end is what is known. growing: each goes on by as much as
    a whole window does, and knows all that was before until it is `overlap`.
    """
    if growing and window:
        return [(max(0, stop - window), stop) for stop in range(window - overlap, cells + 1, window - overlap)]
    if not window or cells <= window:
        return [(0, cells)]
    assert 0 < overlap < window, f"an overlap of {overlap} in windows of {window}"
    many = math.ceil((cells - overlap) / (window - overlap))
    starts = [min(i * (window - overlap), cells - window) for i in range(many)]
    forward = [(start, start + window) for start in starts]
    return [(cells - stop, cells - start) for start, stop in forward] if backward else forward


def _film(
    request: Request, card: Card, recipe: Recipe, grid: Grid, *, seed: int, clips: tuple[Placed, ...]
) -> tuple[Pass, ...]:
    """The passes of one video, each going on from the one before."""
    known = {frame for placed in clips if placed.clip.keep == 1 for frame in placed.covers}
    chunked = grid.chunk > 0  # made forward, chunk by chunk
    backward = not chunked and bool(known) and 0 not in known and max(known) >= grid.frames - grid.strides[0]
    film: list[Pass] = []
    anchor: tuple[int, int] | None = None
    cuts = windows(grid.cells[0], window=card.window, overlap=card.overlap, backward=backward, growing=chunked)
    if request.loop:  # a ring has no first frame: its cells are those after it, and all clips are a frame later
        cuts = [(1, grid.cells[0])]
        clips = tuple(one.model_copy(update={"first": one.first + 1}) for one in clips)
    for start, stop in cuts:
        here = grid.model_copy(update={"frames": grid.frames_of(stop - 1).stop})
        frames = range(grid.frames_of(start).start, here.frames)
        begins = frames.start if backward or not film else grid.frames_of(film[-1].stop).start
        laid = tuple(c for c in clips if c.covers.start < frames.stop and frames.start < c.covers.stop)
        words = request.prompt_at(begins / grid.fps)
        # what is laid on a film, and other words, may change what it is; from there on it stays what it has become
        free = bool(laid) or not film or words != film[-1].prompt
        if free:
            told = bool(film) and not laid  # by words alone: what the window before has made does not speak for them
            anchor = (film[-1].stop if told and not backward else start, film[-1].start if told and backward else stop)
        film.append(
            Pass(
                model=card.name,
                weights=weights_digest(card),
                loras=request.loras,
                grid=here,
                start=start,
                order=request.order,
                steps=recipe.steps,
                shift=recipe.shift,
                ramp=recipe.ramp,
                solver=recipe.solver,
                guidance=recipe.guidance,
                guided=(recipe.guided_from, recipe.guided_to),
                rescale=recipe.rescale,
                rising=recipe.rising,
                below=recipe.below,
                sound=recipe.sound,
                hindered=recipe.hindered,
                cache=_cache(request, recipe),
                seed=seed,
                prompt=words,
                negative=request.negative,
                clips=laid,
                closed=request.loop,
                follows=film[-1].key if film else "",
                anchor=None if free or chunked else anchor,  # in chunks a film is shown its beginning itself
            )
        )
    return tuple(film)


def heard(clips: Sequence[Placed], media: Mapping[str, Media], grid: Grid) -> tuple[Piece, ...]:
    """Where which part of the clips is heard: those laid as sound, or if there are none, whatever is laid and has one.

    A clip is heard from its first frame on to its own end, at its own speed.
    """
    own = [one for one in clips if media[one.clip.media].sound]
    pieces = []
    for one in [one for one in own if not one.clip.seen] or own:
        begin, end = part(one.clip, media[one.clip.media])
        pieces.append(Piece(media=one.clip.media, at=one.first / grid.fps, begin=begin, seconds=end - begin))
    return tuple(pieces)


def _round(request: Request, card: Card, grid: Grid) -> float:
    """The length of a loop (s): whole groups of frames, in one window."""
    moments = grid.cells[0] - 1
    longest = (card.window or grid.cells[0]) * grid.strides[0] / grid.fps
    if not moments >= 1 or (card.window and moments > card.window):
        raise Unsupported(
            f"A loop of {grid.seconds:.3g} s was asked of the model {card.name}",
            f"Its loops are made in one window, of at most {longest:g} s",
            f"Ask for {longest:g} s or less",
        )
    return moments * grid.strides[0] / grid.fps


def weights_digest(card: Card) -> str:
    """One sha256 for all weight files of a Card; "" if it has none."""
    if not card.digests:
        return ""
    return hashlib.sha256(json.dumps(card.digests, sort_keys=True).encode()).hexdigest()


def _phases(card: Card, recipe: Recipe, films: tuple[tuple[Pass, ...], ...], *, pixels: int) -> Phases:
    """Seconds on the Card's machine: n cells take call + cell n + pair n^2 a call, guided ones as two."""
    grid = films[0][0].grid
    cost = _cost(card, width=grid.width, height=grid.height)
    calls = 2 * recipe.steps - 1 if recipe.solver == "heun" else films[0][0].cache.calls(recipe.steps)
    rows = films[0][0].schedule.levels[:-1]
    leans = recipe.guidance != 1 and not card.embedded
    guided = leans * sum(any(map(recipe.guides, row)) for row in rows) / len(rows)
    batch = 1 + guided * (1 + len(recipe.hindered))
    asked = 1.0 if card.batched else batch
    sizes = [step.cells for film in films for step in film]
    frames = max(step.grid.frames for step in films[0])
    return Phases(
        load=cost.load,
        prepare=len(sizes) * cost.prepare,
        denoise=sum(calls * (asked * cost.call + batch * (cost.cell * n + cost.pair * n * n)) for n in sizes),
        decode=len(films) * frames * cost.decode_frame,
        write=len(films) * (_OPEN + pixels * _ENCODE_PIXEL),
    )


def _cost(card: Card, *, width: int, height: int) -> Cost:
    """The measured cost, or a guess from the number of parameters: two operations for each and cell."""
    if card.cost.call or card.cost.cell or card.cost.pair:
        return card.cost
    guess = {"load": _IMPORT, "prepare": 0.01, "call": 0.002, "cell": 2 * card.parameters / _FLOPS}
    return card.cost.model_copy(update={**guess, "decode_frame": _DECODE_PIXEL * width * height})


def _bytes(card: Card, grid: Grid, *, cells: int) -> int:
    """The most memory: the Card's measured figures, or torch, the weights in float32 and the pixels of one pass."""
    if card.cost.bytes_fixed:
        return card.cost.bytes_fixed + card.cost.bytes_cell * cells
    film = 3 * 4 * cells * math.prod(grid.strides)
    return _RUNTIME + 4 * card.parameters + 2 * film


def _notes(
    request: Request,
    grid: Grid,
    *,
    crop: tuple[int, int],
    size: tuple[int, int],
    fps: float,
    frames: int,
    passes: int,
) -> tuple[str, ...]:
    """What the file is not: made at its own size, shape, length or rate, or in one piece."""
    notes = []
    if request.loop:
        notes.append(f"a loop of {frames / fps:.4g} s: the frame after the last is the first")
    if passes > 1:
        notes.append(f"made in {passes} windows, each going on from the one before")
    if request.cues and passes == 1:
        notes.append("one window holds it all, so its first words hold for all of it")
    if (grid.width, grid.height) != size:
        cut = "" if crop == (grid.width, grid.height) else f", cut to {crop[0]}x{crop[1]}"
        resized = "" if crop == size else f", resized to {size[0]}x{size[1]}"
        notes.append(f"generated at {grid.width}x{grid.height}{cut}{resized}")
    if fps != grid.fps:
        way = "repeated" if fps > grid.fps else "left out"
        notes.append(
            f"generated at {grid.fps:g} frames per second; frames are {way} for {fps:g}, motion keeps its speed"
        )
    if request.seconds is not None and not request.loop and frames / fps < grid.seconds - 0.5 / grid.fps:
        notes.append(f"generated {grid.seconds:.3g} s, the last {grid.seconds - frames / fps:.2g} s are left out")
    return tuple(notes)


def _cache(request: Request, recipe: Recipe) -> StepCache:
    """At which steps the network is asked; at all of them where its answers do not follow from one another."""
    if request.step_cache == 1 or _uncached(request, recipe):
        return ALWAYS
    ends = (recipe.guided_from, recipe.guided_to, recipe.experts, *(recipe.below or ())[:1])
    return StepCache(every=request.step_cache, breaks=tuple(sorted({level for level in ends if 0 < level < 1})))


def _uncached(request: Request, recipe: Recipe) -> str:
    """Why no answer can be foretold; "": some can."""
    if recipe.steps < LEAST_STEPS:
        return f"{recipe.steps} steps are too few, from {LEAST_STEPS} on answers can be foretold"
    if recipe.solver not in FOLLOWED:
        return f"the solver {recipe.solver} asks for other answers"
    return "" if request.order == "full" else f"in the order {request.order} moments change one after the other"


def _idle(request: Request, recipe: Recipe, card: Card) -> tuple[str, ...]:
    """What was asked of guidance where there is none, or none that could be told; a step cache that does nothing."""
    why = _uncached(request, recipe) if request.step_cache > 1 else ""
    notes: tuple[str, ...] = (f"the step cache has no effect: {why}",) if why else ()
    if request.unenhanced:
        few = f"enhance has no effect: {card.name} knows few words, and they are in the prompt or not"
        notes += (few if card.words else "its words will be enhanced by the operator's language model",)
    if recipe.guidance != 1 and not card.embedded:
        return notes
    why = "leans by itself" if card.embedded else "is sampled without guidance"
    asked = {"the negative prompt": request.negative, "guided": request.guided, "rescale": request.rescale}
    return (*notes, *(f"{name} has no effect: this model {why}" for name, value in asked.items() if value))


def _sound_note(sound: Sequence[Piece], *, seconds: float) -> tuple[str, ...]:
    silent, until = 0.0, 0.0
    for piece in sorted(sound, key=lambda piece: piece.at):
        silent, until = silent + max(0.0, piece.at - until), max(until, piece.at + piece.seconds)
    silent += max(0.0, seconds - until)
    return (f"{silent:.3g} s are silent: no clip is heard there",) if sound and silent > _NOTICED else ()


def _made_note(sound: Sequence[Piece]) -> tuple[str, ...]:
    return ("where a clip is heard, no sound is made: the model sees clips and does not hear them",) if sound else ()


def _check_budget(made: Plan, budget: Budget) -> None:
    if made.seconds > budget.seconds:
        raise Unsupported(
            f"This would take {made.seconds:.0f} s",
            f"At most {budget.seconds:.0f} s are allowed",
            "Ask for fewer or shorter videos, or for quality draft",
        )
    if made.bytes > budget.bytes:
        raise Unsupported(
            f"This would take {made.bytes / 1e9:.1f} GB of memory",
            f"At most {budget.bytes / 1e9:.1f} GB are allowed",
            "Ask for a shorter video",
        )


def _lowest(size: tuple[int, int]) -> tuple[int, int]:
    """A shape in lowest terms."""
    divisor = math.gcd(*size)
    return size[0] // divisor, size[1] // divisor
