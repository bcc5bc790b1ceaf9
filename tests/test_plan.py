"""What a plan foretells, what it refuses, and that its keys name exactly what they hold."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from cinecanvas.errors import Unsupported
from cinecanvas.model import Card, Cost, Recipe
from cinecanvas.pace import Phases, keep_paces, paced, read_paces
from cinecanvas.plan import Budget, Plan, plan, windows
from cinecanvas.ramp import Listed
from cinecanvas.request import STILL, Clip, Cue, Request, text_to_video

CARD = Card(
    name="some",
    title="Some model",
    licence="Apache-2.0",
    channels=8,
    strides=(4, 16, 16),
    sizes=((64, 64), (80, 48), (48, 80)),
    fps=8.0,
    max_seconds=8.2,
    max_cells=4096,
    tasks={"text_to_video": "exact", "text_to_image": "exact"},
    recipes={"standard": Recipe(steps=10, guidance=3.0, shift=2.0), "draft": Recipe(steps=4, guidance=1.0, shift=2.0)},
    cost=Cost(load=1.0, prepare=0.1, call=0.01, cell=1e-3, pair=1e-6, decode_frame=0.02),
    digests={"a": "1", "b": "2"},
)


def of(**asked: Any) -> Plan:
    return plan(text_to_video("a red ball", seed=1, **asked), CARD)


@pytest.mark.parametrize(
    ("asked", "grid", "crop", "size"),
    [
        ({}, (64, 64), (64, 64), (64, 64)),
        ({"width": 64, "height": 64}, (64, 64), (64, 64), (64, 64)),
        ({"width": 80, "height": 48}, (80, 48), (80, 48), (80, 48)),
        ({"width": 1280, "height": 720}, (80, 48), (80, 45), (1280, 720)),
        ({"width": 720, "height": 1280}, (48, 80), (45, 80), (720, 1280)),
        ({"width": 512, "height": 500}, (64, 64), (64, 62), (512, 500)),
        ({"shape": "16:9"}, (80, 48), (80, 44), (80, 44)),
        ({"shape": "9:16"}, (48, 80), (44, 80), (44, 80)),
        ({"shape": "1:1"}, (64, 64), (64, 64), (64, 64)),
        ({"shape": "21:9"}, (80, 48), (80, 34), (80, 34)),
    ],
)
def test_any_size_is_made_on_the_nearest_grid(
    asked: dict[str, Any], grid: tuple[int, int], crop: tuple[int, int], size: tuple[int, int]
) -> None:
    made = of(**asked)
    assert (made.passes[0].grid.width, made.passes[0].grid.height) == grid
    assert (made.crop, (made.width, made.height)) == (crop, size)
    assert any(f"generated at {grid[0]}x{grid[1]}" in note for note in made.notes) == (size != grid)


@pytest.mark.parametrize("asked", [{"shape": "10:1"}, {"shape": "1:10"}, {"width": 4096, "height": 16}])
def test_a_shape_that_no_grid_comes_near_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match=r"shapes are 1:1, 5:3, 3:5.*0.3 to 3.3 times the height"):
        of(**asked)


def test_the_file_is_as_long_as_asked_and_the_grid_never_shorter() -> None:
    made = of(seconds=2.0)
    assert (made.passes[0].grid.frames, made.frames) == (17, 16)
    assert "the last 0.12 s are left out" in made.notes[0]
    assert of(seconds=2.125).frames == of(seconds=2.125).passes[0].grid.frames == 17


def test_without_a_length_the_model_gives_its_own() -> None:
    made = of()
    assert made.frames == made.passes[0].grid.frames == 17 and not made.notes


@pytest.mark.parametrize("asked", [{}, {"seconds": 2.0}, {"clips": (Clip(media="a", mask="b"),), "seconds": 2.0}])
def test_a_film_of_a_model_of_pictures_is_refused_with_those_that_make_it(asked: dict[str, Any]) -> None:
    tasks = {"text_to_image": "exact", "inpaint": "approximate"}
    pictures = CARD.model_copy(update={"seconds": STILL, "max_seconds": STILL, "tasks": tasks})
    films = CARD.model_copy(update={"name": "long", "tasks": {**CARD.tasks, "inpaint": "exact"}})
    short = films.model_copy(update={"name": "short", "max_seconds": 1.0})
    request = Request(prompt="a red ball", **asked)
    with pytest.raises(Unsupported, match=r"asked for a film\. It makes single pictures.*such as long") as refused:
        plan(request, pictures, others=(pictures, *([short] if asked else []), films))
    assert "some" not in refused.value.do and "short" not in refused.value.do
    assert plan(Request(prompt="a red ball", seconds=STILL), pictures).frames == 1


def test_a_still_is_one_frame() -> None:
    assert of(seconds=STILL).frames == of(seconds=STILL).passes[0].grid.frames == 1


def test_another_rate_keeps_the_speed() -> None:
    made = of(seconds=2.0, fps=24)
    assert (made.frames, made.fps, made.passes[0].grid.fps) == (48, 24.0, 8.0)
    assert any("repeated for 24" in note for note in made.notes)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"seconds": 60.0}, "at most 8.2 s"),
        ({"sound": True}, "sound"),
        ({"loop": True}, "asked for a loop"),
        ({"clips": (Clip(media="sha256:0"),)}, "image to video"),
        ({"quality": "best"}, "standard, draft"),
    ],
)
def test_what_the_model_cannot_do_is_refused_by_name(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(Unsupported, match=said):
        plan(Request(prompt="a", **asked), CARD)


def test_an_expert_changes_the_recipe_and_nothing_else() -> None:
    own = of()
    made = of(steps=12, guidance=6.0, guided=(0.2, 0.9), rescale=0.7)
    changed = {"steps": 12, "guidance": 6.0, "guided_from": 0.2, "guided_to": 0.9, "rescale": 0.7}
    assert made.recipe == CARD.recipes["standard"].model_copy(update=changed)
    assert own.recipe == CARD.recipes["standard"]
    (step,) = made.passes
    assert (step.steps, step.guidance, step.guided, step.rescale) == (12, 6.0, (0.2, 0.9), 0.7)
    assert step.schedule.steps == 12 and step.key != own.passes[0].key


def test_one_scale_asked_is_that_of_both_experts() -> None:
    recipe = Recipe(steps=10, guidance=4.0, shift=2.0, below=(0.875, 3.0))
    card = CARD.model_copy(update={"recipes": {"standard": recipe}})
    asked = text_to_video("a", guidance=1.0)
    assert plan(text_to_video("a"), card).passes[0].below == (0.875, 3.0)
    assert plan(asked, card).passes[0].below is None


def test_a_distilled_checkpoint_refuses_other_steps_than_its_own() -> None:
    recipe = Recipe(steps=2, guidance=1.0, shift=1.0, ramp=Listed(at=(1.0, 0.5)))
    card = CARD.model_copy(update={"recipes": {"standard": recipe}})
    assert plan(text_to_video("a", steps=2), card).recipe == recipe
    with pytest.raises(Unsupported, match=r"12 steps were asked.*distilled to 2 steps.*Leave the steps out"):
        plan(text_to_video("a", steps=12), card)


def test_what_guidance_cannot_do_here_is_said() -> None:
    plain = of(quality="draft", negative="fog", guided=(0.1, 0.9), rescale=0.5).notes
    assert [note.split(" has no effect")[0] for note in plain] == ["the negative prompt", "guided", "rescale"]
    card = CARD.model_copy(update={"embedded": True})
    assert "guided has no effect: this model leans by itself" in plan(text_to_video("a", guided=(0, 0.5)), card).notes
    assert not of(negative="fog", guided=(0.1, 0.9), rescale=0.5).notes


def test_calls_outside_the_interval_are_foretold_at_half() -> None:
    n = math.prod((5, 4, 4))
    one = 1e-3 * n + 1e-6 * n * n
    steps = of(steps=10, guided=(0.5, 0.9)).passes[0].schedule.levels[:-1]
    both = sum(0.5 <= level <= 0.9 for (level,) in steps)
    assert 0 < both < 10
    made = of(steps=10, guided=(0.5, 0.9)).phases.denoise
    assert made == pytest.approx(10 * 0.01 + (10 + both) * one)
    in_turn = plan(of(steps=10, guided=(0.5, 0.9)).request, CARD.model_copy(update={"batched": False})).phases.denoise
    assert in_turn == pytest.approx((10 + both) * (0.01 + one))


def test_too_many_cells_are_refused_with_a_length_that_works() -> None:
    small = CARD.model_copy(update={"max_cells": 50})
    with pytest.raises(Unsupported, match=r"At most 50|at most 50"):
        plan(text_to_video("a"), small)


def test_seconds_are_foretold_from_the_card() -> None:
    made = of(seconds=2.0, count=2)
    n = math.prod((5, 4, 4))
    assert made.cells == n
    assert made.phases.denoise == pytest.approx(2 * 10 * (0.01 + 2 * (1e-3 * n + 1e-6 * n * n)))
    assert made.phases.decode == pytest.approx(2 * 17 * 0.02)
    assert plan(made.request, CARD, pace={"denoise": 3.0}).phases.denoise == pytest.approx(3 * made.phases.denoise)


def test_a_budget_is_kept() -> None:
    with pytest.raises(Unsupported, match="At most 1 s are allowed"):
        plan(text_to_video("a"), CARD, budget=Budget(seconds=1.0))
    with pytest.raises(Unsupported, match="of memory"):
        plan(text_to_video("a"), CARD, budget=Budget(bytes=1000))


def test_a_pace_follows_the_machine_smoothly() -> None:
    told, took = Phases(denoise=1.5, write=1.0), Phases(denoise=7.5, load=5.0)
    assert paced({}, told, took) == {"denoise": 4.0}
    assert paced({"denoise": 1.0, "write": 2.0}, told, took) == {"denoise": 2.0, "write": 2.0}


def test_a_moment_says_little_about_an_hour() -> None:
    assert paced({}, Phases(write=0.001), Phases(write=0.3))["write"] < 2


def test_paces_are_kept_and_a_broken_file_is_nothing(tmp_path: Path) -> None:
    keep_paces(tmp_path / "cache", {"some": {"denoise": 2.0}})
    assert read_paces(tmp_path / "cache") == {"some": {"denoise": 2.0}}
    for broken in ("{", '{"some": 3}', '{"some": {"denoise": NaN}}', '{"some": {"denoise": -1}}'):
        (tmp_path / "cache" / "paces.json").write_text(broken)
        assert read_paces(tmp_path / "cache") == {}
    keep_paces(tmp_path / "cache" / "paces.json", {})  # a file where a folder should be: no harm


def test_a_key_names_all_that_matters_and_nothing_else() -> None:
    one = of().passes[0]
    assert one.key == type(one).model_validate_json(one.model_dump_json()).key
    other = [of(negative="fog"), of(quality="draft"), of(seconds=4.0), of(shape="16:9")]
    other += [plan(text_to_video("a blue ball", seed=1), CARD), plan(text_to_video("a red ball", seed=2), CARD)]
    other += [plan(of().request, CARD.model_copy(update={"digests": {"a": "3"}}))]
    assert len({one.key, *(made.passes[0].key for made in other)}) == 8
    assert of(fps=24).passes[0].key == of(width=640, height=640).passes[0].key == one.key  # only the file differs


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("cells", [1, 8, 9, 10, 15, 16, 21, 121])
def test_windows_cover_a_film_and_know_what_came_before(cells: int, backward: bool) -> None:
    made = windows(cells, window=9, overlap=3, backward=backward)
    assert set().union(*(range(*one) for one in made)) == set(range(cells))
    assert all(stop - start == min(9, cells) for start, stop in made)
    for (start, stop), (later, end) in itertools.pairwise(made):
        assert min(stop, end) - max(start, later) >= 3
    assert made[0][1] == cells if backward else made[0][0] == 0


def test_windows_of_a_model_of_chunks_grow_until_they_hold_its_history() -> None:
    card = CARD.model_copy(update={"chunk": 3, "window": 9, "overlap": 6, "max_seconds": 60.0})
    made = plan(text_to_video("a red ball", seconds=5 * 9 / 8, seed=1), card)
    assert [(one.start, one.stop) for one in made.passes] == [(0, 3), (0, 6), (0, 9), (3, 12), (6, 15)]
    assert {one.cells for one in made.passes} == {3 * 16} and made.frames == 45
    assert not any(one.anchor for one in made.passes)


def test_a_longer_film_begins_with_the_passes_of_a_shorter_one() -> None:
    card = CARD.model_copy(update={"window": 9, "overlap": 3, "max_seconds": 600.0})
    short, long = (plan(text_to_video("a red ball", seed=1, seconds=s), card).passes for s in (7.125, 60.0))
    assert [one.key for one in short] == [one.key for one in long[: len(short)]] and len(long) == 20
    assert [(one.start, one.stop) for one in short] == [(0, 9), (6, 15)] and short[1].follows == short[0].key
    assert short[1].frames == range(21, 57) and short[1].cells == 9 * 16


def test_words_hold_from_their_second_on() -> None:
    card = CARD.model_copy(update={"window": 9, "overlap": 3, "max_seconds": 600.0})
    made = plan(text_to_video("day", seconds=12.0, seed=1, cues=(Cue(at=5.0, prompt="night"),)), card)
    assert [one.prompt for one in made.passes] == ["day", "day", "night", "night"]
    with pytest.raises(Unsupported, match="other words"):
        plan(made.request.model_copy(update={"seconds": 8.0}), CARD)


def test_a_plan_survives_json() -> None:
    made = of(count=3, fps=24)
    assert Plan.model_validate_json(made.model_dump_json()) == made
