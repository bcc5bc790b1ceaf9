"""The exam: does a generated clip show what its sentence says? Read slot by slot by judges, beside truth and chance."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from cinecanvas import sampler
from cinecanvas.canvas import Canvas
from cinecanvas.errors import BadRequest, Unsupported
from cinecanvas.eval.judge import FPS, FRAMES, VALUES, Judge, labels, seen, verdicts
from cinecanvas.eval.scores import signed
from cinecanvas.grid import Grid
from cinecanvas.guidance import guided
from cinecanvas.model import Card, Model, Quality, Recipe, Score
from cinecanvas.schedule import full
from cinecanvas.solvers import SOLVERS
from cinecanvas.world.captions import SLOTS, Caption, caption
from cinecanvas.world.render import render
from cinecanvas.world.scene import FIRST, Level, Scene, draw

EXAM = 1_000_001_000  # scenes from this seed on: past those held back for validation, and never trained on
LANE = 100_000  # seeds between one exam and the next
SOFT = 0.004  # added to both motion energies, so that the ratio of two still clips is 1 (a grey level is 0.0039)

Paper = Literal["plain", "words", "triples"]
PAPERS: dict[Paper, str] = {
    "plain": "all six slots said, in their plain form",
    "words": "sentences in surface forms that training never shows; a slot counts where it is said",
    "triples": "plain sentences about colour x shape x motion triples that training never shows",
}


@dataclass(frozen=True)
class Sitting:
    """A batch of the exam: what was said, and what the judges read in three sets of clips, as indices (B, slots)."""

    captions: tuple[Caption, ...]
    wanted: Tensor
    said: Tensor  # bool: the slots that the sentence mentions
    generated: Tensor
    rendered: Tensor
    frozen: Tensor  # the rendered first frame, repeated
    agree: Tensor  # bool (B,): the judges are of one mind about the generated clip
    agree_rendered: Tensor  # the same about the rendered one
    sharpness: Tensor  # (B,) ln of the ratio generated : rendered, of the Laplacian's variance
    energy: Tensor  # (B,) the same of the mean change from frame to frame


class Report(BaseModel):
    """One paper of the exam: scores ready for the Card."""

    model_config = ConfigDict(frozen=True)

    model: str
    paper: Paper
    prompts: int
    scores: tuple[Score, ...]


def exam(
    model: Model,
    panel: Sequence[Judge],
    *,
    prompts: int,
    seed: int = 0,
    quality: Quality = "standard",
    paper: Paper = "plain",
    batch: int = 16,
) -> Iterator[Sitting]:
    """Held-out sentences through guidance, fill and decode, and what the judges read; one Sitting a batch."""
    level, grid, recipe = _level(model.card), _grid(model.card), _recipe(model.card, quality)
    first = EXAM + seed * LANE
    for start in range(first, first + prompts, batch):
        seeds = range(start, min(start + batch, first + prompts))
        scenes = [draw(s, level, held_out=paper == "triples") for s in seeds]
        captions = tuple(_caption(scene, s, paper) for scene, s in zip(scenes, seeds, strict=True))
        canvas = Canvas.blank(grid, batch=len(captions))
        clips = generated(model, canvas, [c.text for c in captions], recipe=recipe, seeds=seeds)
        yield sitting(captions, clips, rendered(scenes, grid), panel=panel, fps=grid.fps)


def generated(model: Model, canvas: Canvas, texts: Sequence[str], *, recipe: Recipe, seeds: Sequence[int]) -> Tensor:
    """Clips (B, T, H, W, 3) uint8: the canvas filled by the sentences, as the library fills it."""
    interval = (recipe.guided_from, recipe.guided_to)
    leaning = guided(model, recipe.guidance, interval=interval, rescale=recipe.rescale)
    cond = leaning.prepare(canvas, texts)
    schedule = full(recipe.steps, shift=recipe.shift)
    *_, last = sampler.fill(leaning, cond, schedule, seed=seeds, solver=SOLVERS[recipe.solver])
    clips = []
    for row in range(len(texts)):
        one = {name: z[row : row + 1] for name, z in last.z.items()}
        clips.append(torch.cat([torch.as_tensor(frames.rgb) for frames in leaning.decode(one)]))
    return torch.stack(clips)


def rendered(scenes: Sequence[Scene], grid: Grid) -> Tensor:
    """The truth at the same size and rate, (B, T, H, W, 3) uint8."""
    done = render(scenes, frames=grid.frames, height=grid.height, width=grid.width, fps=grid.fps)
    return torch.as_tensor(done.rgb)


def sitting(
    captions: tuple[Caption, ...], clips: Tensor, truth: Tensor, *, panel: Sequence[Judge], fps: float
) -> Sitting:
    """What the judges read in generated clips and in rendered ones, (B, T, H, W, 3) uint8 each."""
    shown, real = seen(clips, fps=fps), seen(truth, fps=fps)
    read, true = verdicts(panel, shown), verdicts(panel, real)
    return Sitting(
        captions,
        wanted=labels([c.spec for c in captions]),
        said=torch.tensor([[slot in c.mentioned for slot in SLOTS] for c in captions]),
        generated=read.shown,
        rendered=true.shown,
        frozen=verdicts(panel, real[:, :, :1].expand_as(real)).shown,
        agree=read.agree,
        agree_rendered=true.agree,
        sharpness=(sharpness(shown) / sharpness(real)).log(),
        energy=((energy(shown) + SOFT) / (energy(real) + SOFT)).log(),
    )


def report(
    sittings: Iterable[Sitting], *, model: str, paper: Paper = "plain", command: str = "", date: str = ""
) -> Report:
    """Shares with Wilson intervals, rendered truth as the ceiling and every other clip's caption as the floor."""
    whole = _joined(sittings)
    wanted, said = whole.wanted, whole.said
    right, real, held = ((read == wanted) | ~said for read in (whole.generated, whole.rendered, whole.frozen))
    scores = []
    for i, slot in enumerate(SLOTS):
        on = said[:, i]
        if bool(on.any()):
            chance = shuffled(whole.generated[:, [i]], wanted[:, [i]], said[:, [i]])
            scores.append(_share(f"faithfulness of {slot}", right[on, i], ceiling=_mean(real[on, i]), floor=chance))
    chance = shuffled(whole.generated, wanted, said)
    scores.append(_share("all slots right", right.all(1), ceiling=_mean(real.all(1)), floor=chance))
    # a still earns what does not move: whoever beats it has made a video
    scores.append(_share("all slots right of a frozen truth", held.all(1)))
    scores.append(_share("judges agree on all slots", whole.agree, ceiling=_mean(whole.agree_rendered)))
    for name, logs in (("sharpness", whole.sharpness), ("motion energy", whole.energy)):
        scores += [_ratio(name, logs), _distance(f"{name}, off by", logs)]
    named = signed(scores, of=paper, command=command, date=date)
    return Report(model=model, paper=paper, prompts=len(wanted), scores=named)


def shuffled(read: Tensor, wanted: Tensor, said: Tensor) -> float:
    """How often a clip passes under the caption of another, over all pairs: the floor, without a draw of lots."""
    passes = ((read[:, None] == wanted[None]) | ~said[None]).all(2)
    pairs = said.any(1)[None].expand_as(passes) & ~torch.eye(len(read), dtype=torch.bool)
    return _mean(passes[pairs]) if bool(pairs.any()) else 0.0


def wilson(passed: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    z, p = 1.959964, passed / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def sharpness(clips: Tensor) -> Tensor:
    """Variance of the Laplacian of the grey clip (B, 3, T, H, W), (B,): low for blur, high for noise."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    edges = F.conv2d(clips.mean(1).flatten(0, 1)[:, None], kernel)
    return edges.unflatten(0, clips.shape[::2][:2]).flatten(1).var(1).clamp_min(1e-8)


def energy(clips: Tensor) -> Tensor:
    """Mean change of a pixel (in [-1, 1]) from frame to frame (B,)."""
    return clips.diff(dim=2).abs().mean((1, 2, 3, 4))


def table(reports: Sequence[Report]) -> str:
    """The scores as lines to read."""
    lines = []
    for one in reports:
        lines.append(f"{one.model}, {one.prompts} prompts: {PAPERS[one.paper]}")
        lines.append(f"  {'':<44}{'value':>6}  {'95 %':^14}{'n':>5} ceiling   floor")
        for s in one.scores:
            ends = "".join("" if x is None else f"{x:8.3f}" for x in (s.ceiling, s.floor))
            lines.append(f"  {s.name:<44}{s.value:6.3f}  [{s.low:.3f}, {s.high:.3f}]{s.n:5}{ends or '  ' + s.unit}")
    return "\n".join(lines)


def _caption(scene: Scene, seed: int, paper: Paper) -> Caption:
    if paper == "words":
        return caption(scene, seed, style="mixed", held_out=True)
    return caption(scene, seed, style="plain")


def _level(card: Card) -> Level:
    """What the model says it has learnt, or else the first level."""
    if not card.words:
        return FIRST
    words = {field: card.words[slot] for slot, field in _FIELDS.items() if slot in card.words}
    strange = [w for slot in VALUES for w in card.words.get(slot, ()) if w not in VALUES[slot]]
    if strange or len(words) < len(_FIELDS):
        raise Unsupported(
            f"{card.name} cannot be examined on {', '.join(strange) or 'a part of the slots'}",
            f"The judges read {', '.join(f'{slot}: {len(values)} values' for slot, values in VALUES.items())}",
            "Train judges for its level",
        )
    return Level.model_validate(words)


def _grid(card: Card) -> Grid:
    width, height = card.sizes[0] if card.sizes else (64, 64)
    seconds = max(card.seconds, FRAMES / FPS)  # a judge needs the whole clip to tell a bounce from a fall
    strides, causal, chunk = card.strides, card.causal, card.chunk
    return Grid.snap(seconds, width=width, height=height, fps=card.fps, strides=strides, causal=causal, chunk=chunk)


def _recipe(card: Card, quality: Quality) -> Recipe:
    if quality not in card.recipes:
        have = ", ".join(card.recipes) or "none"
        raise Unsupported(f"{card.name} has no recipe for the quality {quality!r}", f"It has {have}")
    return card.recipes[quality]


def _share(name: str, passed: Tensor, *, ceiling: float | None = None, floor: float | None = None) -> Score:
    """The share of clips that passed, with its Wilson interval."""
    low, high = wilson(int(passed.sum()), len(passed))
    value = _mean(passed)
    unit = "share of clips"
    return Score(name=name, value=value, low=low, high=high, n=len(passed), unit=unit, ceiling=ceiling, floor=floor)


def _ratio(name: str, logs: Tensor) -> Score:
    """The geometric mean of generated : rendered; 1 is right."""
    middle, half = _interval(logs)
    low, high = math.exp(middle - half), math.exp(middle + half)
    return Score(name=name, value=math.exp(middle), low=low, high=high, n=len(logs), unit="generated : rendered")


def _distance(name: str, logs: Tensor) -> Score:
    """The mean of |ln(generated : rendered)|: soft clips and harsh ones cannot make up for each other; 0 is right."""
    middle, half = _interval(logs.abs())
    return Score(name=name, value=middle, low=max(0.0, middle - half), high=middle + half, n=len(logs), unit="|ln|")


def _interval(values: Tensor) -> tuple[float, float]:
    """Mean and half of its 95 % interval."""
    numbers = values.tolist()
    spread = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return statistics.fmean(numbers), 1.959964 * spread / math.sqrt(len(numbers))


def _joined(sittings: Iterable[Sitting]) -> Sitting:
    """All batches as one."""
    every = list(sittings)
    if not every:
        raise BadRequest("A report of no sitting was asked", "An exam of at least one prompt")
    tensors = {f.name: torch.cat([getattr(one, f.name) for one in every]) for f in fields(Sitting)[1:]}
    return Sitting(tuple(c for one in every for c in one.captions), **tensors)


def _mean(passed: Tensor) -> float:
    return float(passed.float().mean())


_FIELDS = {
    "floor": "floors", "sky": "skies", "colour": "colours", "shape": "shapes", "motion": "motions", "camera": "cameras",
}  # fmt: skip
