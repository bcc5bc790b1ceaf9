"""The exam examined: judges read renders, chance is chance, stills do not move, and the truth passes its own exam."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cinecanvas.canvas import Canvas, Tensors
from cinecanvas.errors import BadRequest, BadWeights, Unsupported
from cinecanvas.eval import teach, wear
from cinecanvas.eval.faithfulness import energy, exam, report, sharpness, shuffled, table, wilson
from cinecanvas.eval.judge import VALUES, Judge, judges, labels, save, seen, verdicts
from cinecanvas.eval.scores import keep, middle, signed
from cinecanvas.model import Card, Frames, Recipe
from cinecanvas.models import diorama
from cinecanvas.world.captions import SLOTS, read, spec
from cinecanvas.world.render import render
from cinecanvas.world.scene import FIRST, Scene, Thing, draw

torch.set_num_threads(1)  # the suite runs beside others: threads that wait for one another made it 3 times slower

LANE = 2_800_000_000  # no judge and no generator learnt from these scenes


@dataclass(frozen=True)
class Said:
    """The canvas, and what a true clip of the words looks like, (B, 3, T, H, W) in [-1, 1]."""

    canvas: Canvas
    shown: Tensor


class Truth:
    """A model that needs no learning: it reads the sentence with the grammar and renders it."""

    card = Card(
        name="truth", title="The renderer as a model", licence="Apache-2.0", sizes=((64, 64),), seconds=2.125,
        recipes={"standard": Recipe(steps=2, guidance=1.0, shift=1.0)},
    )  # fmt: skip

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Said:
        grid = canvas.tracks["video"].grid
        clips = [scene(**read(line).values) for line in text]
        rgb = render(clips, frames=grid.frames, height=grid.height, width=grid.width, fps=grid.fps).rgb
        return Said(canvas, teach.to_rgb(torch.as_tensor(rgb)))

    def denoise(self, z: Tensors, sigma: Tensors, cond: Said, *, to: Tensors | None = None) -> Tensors:
        return {"video": cond.shown}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        yield Frames(((z["video"][0].movedim(0, -1) + 1) * 127.5).round().to(torch.uint8).numpy())


class Still(Truth):
    """The same, but its clips do not move."""

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Said:
        said = super().prepare(canvas, text)
        return Said(canvas, said.shown[:, :, :1].expand_as(said.shown))


def scene(*, shape: str, colour: str, motion: str, floor: str, sky: str, camera: str) -> Scene:
    thing = Thing.model_validate({"shape": shape, "colour": colour, "motion": motion, "heading": 0.5})
    return Scene.model_validate({"things": (thing,), "floor": floor, "sky": sky, "camera": camera})


@pytest.fixture(scope="module")
def panel() -> tuple[Judge, ...]:
    return judges()


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw(LANE + n, FIRST, held_out=n % 4 == 3) for n in range(48)]


@pytest.fixture(scope="module")
def clips(scenes: list[Scene]) -> Tensor:
    return seen(teach.pictures(scenes), fps=8)


def test_the_judges_read_rendered_clips(panel: tuple[Judge, ...], scenes: list[Scene], clips: Tensor) -> None:
    right = (verdicts(panel, clips).shown == labels([spec(one) for one in scenes])).float().mean(0)
    assert all(share >= 0.95 for share in right.tolist()), dict(zip(SLOTS, right.tolist(), strict=True))


def test_the_judges_forgive_softness(panel: tuple[Judge, ...], scenes: list[Scene], clips: Tensor) -> None:
    soft = wear.blur(clips, 0.6, torch.Generator())
    right = (verdicts(panel, soft).shown == labels([spec(one) for one in scenes])).float().mean(0)
    assert all(share >= 0.9 for share in right.tolist()), dict(zip(SLOTS, right.tolist(), strict=True))


def test_shuffled_captions_fall_to_chance(panel: tuple[Judge, ...], scenes: list[Scene], clips: Tensor) -> None:
    wanted = labels([spec(one) for one in scenes])
    found = verdicts(panel, clips).shown
    said = torch.ones_like(wanted, dtype=torch.bool)
    for i, slot in enumerate(SLOTS):
        share = wanted[:, i].bincount(minlength=len(VALUES[slot])).float() / len(wanted)
        assert shuffled(found[:, [i]], wanted[:, [i]], said[:, [i]]) == pytest.approx(float(share @ share), abs=0.06)
    assert shuffled(found, wanted, said) < 0.01


def test_a_frozen_clip_is_not_read_as_moving(panel: tuple[Judge, ...], clips: Tensor) -> None:
    still = verdicts(panel, clips[:, :, 8:9].expand_as(clips)).shown
    assert (still[:, SLOTS.index("motion")] == VALUES["motion"].index("rest")).float().mean() > 0.95
    assert (still[:, SLOTS.index("camera")] == VALUES["camera"].index("static")).float().mean() > 0.95


def test_a_judge_sees_any_size_and_rate_alike(panel: tuple[Judge, ...], scenes: list[Scene], clips: Tensor) -> None:
    large = torch.as_tensor(render(scenes[:8], frames=25, height=96, width=96, fps=12).rgb)
    agree = verdicts(panel, seen(large, fps=12)).shown == verdicts(panel, clips[:8]).shown
    assert agree.float().mean() > 0.95


def test_the_truth_passes_its_own_exam(panel: tuple[Judge, ...]) -> None:
    done = report(exam(Truth(), panel, prompts=12, batch=6), model="truth", command="pytest", date="2026-01-01")
    scores = {score.name: score for score in done.scores}
    joint = scores["all slots right (plain)"]
    assert joint.n == 12 and joint.value >= 0.85 and joint.floor is not None and joint.floor < 0.05
    assert (joint.low is not None and joint.low < joint.value < 1.0) or joint.value == 1.0 == joint.high
    assert 0.7 < scores["sharpness (plain)"].value < 1.4 and 0.7 < scores["motion energy (plain)"].value < 1.4
    assert scores["faithfulness of motion (plain)"].command == "pytest"
    assert "faithfulness of camera" in table([done])


def test_a_still_fails_where_something_should_move(panel: tuple[Judge, ...]) -> None:
    done = {s.name: s.value for s in report(exam(Still(), panel, prompts=12), model="still").scores}
    assert done["faithfulness of motion (plain)"] < 0.5 and done["motion energy (plain)"] < 0.6
    assert done["faithfulness of floor (plain)"] > 0.9


def test_wilson_gives_the_published_intervals() -> None:
    assert wilson(15, 20) == pytest.approx((0.5313, 0.8881), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(263, 263) == pytest.approx((0.9856, 1.0), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_mush_shows_in_sharpness_and_stillness_in_energy(clips: Tensor) -> None:
    soft, chance = wear.blur(clips, 0.5, torch.Generator()), torch.Generator().manual_seed(0)
    assert bool((sharpness(soft) < 0.5 * sharpness(clips)).all())
    assert bool((sharpness(wear.noise(clips, 1.0, chance)) > sharpness(clips)).all())
    assert energy(clips[:, :, :1].expand_as(clips)).max() == 0


def test_what_cannot_be_examined_is_refused(panel: tuple[Judge, ...]) -> None:
    class Stranger(Truth):
        card = Truth.card.model_copy(update={"words": {**VALUES, "shape": ("ball", "teapot")}})

    with pytest.raises(Unsupported, match="teapot"):
        next(exam(Stranger(), panel, prompts=1))
    with pytest.raises(Unsupported, match="draft"):
        next(exam(Truth(), panel, prompts=1, quality="draft"))
    with pytest.raises(BadRequest):
        report([], model="nobody")


def test_a_folder_without_judges_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="teach"):
        judges(tmp_path)


def test_a_judge_comes_back_from_its_file(tmp_path: Path, clips: Tensor) -> None:
    torch.manual_seed(0)
    fresh = Judge("groups").eval()
    save(tmp_path, fresh, facts={"command": "none"})
    (again,) = judges(tmp_path)
    with torch.inference_mode():
        before, after = fresh(clips[:2])["shape"], again(clips[:2])["shape"]
    assert torch.allclose(before, after, atol=0.05)  # int8 rows


def test_a_course_lowers_the_loss() -> None:
    torch.manual_seed(0)
    rgb, truth = teach.bank(32, None)
    losses = [
        now.loss for now in itertools.islice(teach.course(Judge("groups"), rgb, truth, wears=wear.PLAIN, minutes=5), 6)
    ]
    assert losses[-1] < losses[0]


def test_a_median_has_its_interval_by_rank() -> None:
    ten = middle("drift", [9.0, 1.0, 8.0, 2.0, 7.0, 3.0, 6.0, 4.0, 5.0, 100.0], unit="CIE76")
    assert (ten.value, ten.low, ten.high, ten.n) == (5.5, 2.0, 9.0, 10)  # of ten, one on either side is left out
    few = middle("drift", [3.0, 1.0, 2.0])
    assert (few.value, few.low, few.high) == (2.0, 1.0, 3.0)


def test_newer_scores_take_the_place_of_older_ones_of_the_same_examination(tmp_path: Path) -> None:
    shipped = diorama.read_card(diorama.SHIPPED)
    diorama.write_card(tmp_path, shipped)
    for value in (1.0, 2.0):
        keep(tmp_path, signed([middle("drift", [value])], of="a bench", command="python bench.py", date="today"))
    now = diorama.read_card(tmp_path)
    *others, (name, value, command) = ((one.name, one.value, one.command) for one in now.scores)
    assert (name, value, command) == ("drift (a bench)", 2.0, "python bench.py")
    assert len(others) == len(shipped.scores) and now.digests == shipped.digests
