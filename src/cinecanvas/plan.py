"""A Plan says, before any weight is loaded, which passes a Request comes to and what they will cost."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from cinecanvas.errors import Unsupported
from cinecanvas.grid import Grid
from cinecanvas.layout import Placed, lay, task
from cinecanvas.model import Card, Cost, Recipe
from cinecanvas.request import Media, Order, Request
from cinecanvas.schedule import Schedule, schedule

Pace: TypeAlias = Mapping[str, float]  # by phase, how many times slower this machine has proved than foretold
MOST_CROPPED = 2.0  # a shape that would lose more than half of every picture is refused

UNMEASURED: Pace = MappingProxyType({})
NOTHING: Mapping[str, Media] = MappingProxyType({})

_PACES = TypeAdapter(dict[str, dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]])
_ENCODE_PIXEL = 2e-8  # s, measured: H.264 at its medium preset on two cores
_OPEN = 0.1  # s, to open, flush and move a file
_FLOPS = 5e10  # 1/s, of two cores: a first guess for a Card without a measured cost
_DECODE_PIXEL = 1e-6  # s, again a first guess
_IMPORT = 2.0  # s, of torch alone
_RUNTIME = 350_000_000  # bytes of Python and torch alone


class Pass(BaseModel):
    """One fill: model, weights, grid, window (s), schedule, solver, guidance, seed, words, clips by digest."""

    model_config = ConfigDict(frozen=True)

    model: str
    weights: str  # the digest of all its weights; "" for a model without any
    grid: Grid
    window: tuple[float, float]
    order: Order
    steps: int
    shift: float
    solver: str
    guidance: float
    seed: int
    prompt: str
    negative: str = ""
    clips: tuple[Placed, ...] = ()
    name: str = "base"  # its place in the plan; noise is drawn by it, so other words keep the same noise

    @property
    def key(self) -> str:
        """The sha256 of all of it, as canonical JSON: two passes of one key give the same latents."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def schedule(self) -> Schedule:
        """Its noise per step and moment."""
        return schedule(self.order, self.steps, self.grid.times(), shift=self.shift)


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


class Plan(BaseModel):
    """Passes in order, one for each video; what is cut and scaled on the way out; seconds and bytes foretold."""

    model_config = ConfigDict(frozen=True)

    request: Request
    passes: tuple[Pass, ...]
    width: int  # px, of the file
    height: int
    fps: float  # 1/s, of the file
    frames: int  # in each file
    crop: tuple[int, int]  # width, height (px) cut from the middle of what is generated
    cells: int  # in each pass
    phases: Phases
    bytes: int  # the most memory at one time
    notes: tuple[str, ...] = ()

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
) -> Plan:
    """Request + Card to passes; refuses what this model cannot do, and says what would work.

    media: what is known of the clips that the request lays on the canvas, by digest.
    """
    _check_tasks(request, card)
    recipe = _recipe(request, card)
    grid = _grid(request, card)
    crop, size = _frame(request, card, grid)
    fps = request.fps or grid.fps
    frames = max(1, round((grid.seconds if request.seconds is None else request.seconds) * fps))
    visible = min(grid.frames, math.ceil(frames / fps * grid.fps - 1e-6))
    clips = lay(request, media, grid, crop=crop, visible=visible)
    cells = math.prod(grid.cells)
    made = Plan(
        request=request,
        passes=tuple(_pass(request, card, recipe, grid, seed=seed, clips=clips) for seed in request.seeds),
        width=size[0],
        height=size[1],
        fps=fps,
        frames=frames,
        crop=crop,
        cells=cells,
        phases=_phases(card, recipe, grid, pixels=size[0] * size[1] * frames, count=request.count).at(pace),
        bytes=_bytes(card, grid),
        notes=_notes(request, recipe, grid, crop=crop, size=size, fps=fps, frames=frames),
    )
    _check_budget(made, budget)
    return made


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


def _check_tasks(request: Request, card: Card) -> None:
    """Refuse by name what the model does not do; loops, cues and sound wait for their turn."""
    name = task(request)
    asked = (
        (name.replace("_", " "), name not in card.tasks, f"It does {_listed(card.tasks)}", "Choose another model"),
        (f"the order {request.order}", request.order not in card.orders, f"It has {_listed(card.orders)}", ""),
        ("other words from a second on", bool(request.cues), "One prompt holds for a whole video in this version", ""),
        ("sound", request.sound and "sound" not in card.tracks, "It makes pictures only", "Ask without sound"),
        ("sound", request.sound, "Sound is not written into files in this version", "Ask without sound"),
        ("a loop", request.loop, "Loops are not planned in this version", "Ask without a loop"),
    )
    for what, wanted, possible, do in asked:
        if wanted:
            raise Unsupported(f"The model {card.name} was asked for {what}", possible, do)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names) or "nothing"


def _recipe(request: Request, card: Card) -> Recipe:
    recipe = card.recipes.get(request.quality)
    if recipe is None:
        known = ", ".join(card.recipes) or "none"
        raise Unsupported(f"The model {card.name} has no quality {request.quality!r}", f"It has: {known}")
    return recipe


def _grid(request: Request, card: Card) -> Grid:
    """The trained grid that is nearest in shape, as long as asked."""
    width, height = _nearest(request, card)
    seconds = card.seconds if request.seconds is None else request.seconds
    if seconds > card.max_seconds + 1e-9:
        raise Unsupported(
            f"{seconds:g} s were asked of the model {card.name}",
            f"It makes at most {card.max_seconds:g} s; longer films are not joined from windows in this version",
            f"Ask for {card.max_seconds:g} s or less",
        )
    grid = Grid.snap(seconds, width=width, height=height, fps=card.fps, strides=card.strides, causal=card.causal)
    cells = math.prod(grid.cells)
    if cells > card.max_cells:
        longest = seconds * card.max_cells / cells
        raise Unsupported(
            f"{seconds:g} s of {grid.width}x{grid.height} px are {cells} cells of the model {card.name}",
            f"It holds at most {card.max_cells}",
            f"Ask for {longest:.2g} s or less",
        )
    return grid


def _nearest(request: Request, card: Card) -> tuple[int, int]:
    """The trained (width, height) nearest in log aspect, then in size; without an asked shape the model's own."""
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


def _pass(request: Request, card: Card, recipe: Recipe, grid: Grid, *, seed: int, clips: tuple[Placed, ...]) -> Pass:
    return Pass(
        model=card.name,
        weights=weights_digest(card),
        grid=grid,
        window=(0.0, grid.seconds),
        order=request.order,
        steps=recipe.steps,
        shift=recipe.shift,
        solver=recipe.solver,
        guidance=recipe.guidance,
        seed=seed,
        prompt=request.prompt,
        negative=request.negative,
        clips=clips,
    )


def weights_digest(card: Card) -> str:
    """One sha256 for all weight files of a Card; "" if it has none."""
    if not card.digests:
        return ""
    return hashlib.sha256(json.dumps(card.digests, sort_keys=True).encode()).hexdigest()


def _phases(card: Card, recipe: Recipe, grid: Grid, *, pixels: int, count: int) -> Phases:
    """Seconds on the Card's machine: a call on n cells takes call + cell n + pair n^2; guidance doubles the batch."""
    cost = _cost(card, width=grid.width, height=grid.height)
    n = math.prod(grid.cells)
    calls = 2 * recipe.steps - 1 if recipe.solver == "heun" else recipe.steps
    batch = 1 if recipe.guidance == 1 else 2
    call = cost.call + batch * (cost.cell * n + cost.pair * n * n)
    return Phases(
        load=cost.load,
        prepare=count * cost.prepare,
        denoise=count * calls * call,
        decode=count * grid.frames * cost.decode_frame,
        write=count * (_OPEN + pixels * _ENCODE_PIXEL),
    )


def _cost(card: Card, *, width: int, height: int) -> Cost:
    """The measured cost, or a guess from the number of parameters: two operations for each and cell."""
    if card.cost.call or card.cost.cell or card.cost.pair:
        return card.cost
    guess = {"load": _IMPORT, "prepare": 0.01, "call": 0.002, "cell": 2 * card.parameters / _FLOPS}
    return card.cost.model_copy(update={**guess, "decode_frame": _DECODE_PIXEL * width * height})


def _bytes(card: Card, grid: Grid) -> int:
    """The most memory: the Card's measured figures, or torch, the weights in float32 and the pixels of one film."""
    if card.cost.bytes_fixed:
        return card.cost.bytes_fixed + card.cost.bytes_cell * math.prod(grid.cells)
    film = 3 * 4 * grid.frames * grid.width * grid.height
    return _RUNTIME + 4 * card.parameters + 2 * film


def _notes(
    request: Request,
    recipe: Recipe,
    grid: Grid,
    *,
    crop: tuple[int, int],
    size: tuple[int, int],
    fps: float,
    frames: int,
) -> tuple[str, ...]:
    """What the file is not: made at its own size, shape, length or rate."""
    notes = []
    if (grid.width, grid.height) != size:
        cut = "" if crop == (grid.width, grid.height) else f", cut to {crop[0]}x{crop[1]}"
        resized = "" if crop == size else f", resized to {size[0]}x{size[1]}"
        notes.append(f"generated at {grid.width}x{grid.height}{cut}{resized}")
    if fps != grid.fps:
        way = "repeated" if fps > grid.fps else "left out"
        notes.append(
            f"generated at {grid.fps:g} frames per second; frames are {way} for {fps:g}, motion keeps its speed"
        )
    if request.seconds is not None and frames / fps < grid.seconds - 0.5 / grid.fps:
        notes.append(f"generated {grid.seconds:.3g} s, the last {grid.seconds - frames / fps:.2g} s are left out")
    if request.negative and recipe.guidance == 1:
        notes.append("the negative prompt has no effect: this model is sampled without guidance")
    return tuple(notes)


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
