"""The step cache: fewer calls for the same picture, the same bits wherever taken up, and nothing foretold blindly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from oracle import blank, conditional, draw, error, sampled
from test_guidance import Watched

from cinecanvas.canvas import Canvas, Tensors
from cinecanvas.model import Around, Model
from cinecanvas.models import card
from cinecanvas.models.toy import Toy
from cinecanvas.plan import Plan, plan
from cinecanvas.request import text_to_video
from cinecanvas.sampler import Fill, fill
from cinecanvas.schedule import Schedule, full
from cinecanvas.solvers import SOLVERS, Solver, dpm
from cinecanvas.stepcache import FOLLOWED, StepCache

TOY = Toy(std=1.0)
SECOND = StepCache(every=2)


def opened() -> Canvas:
    """Twelve frames of one pixel, of which the first is known."""
    canvas = blank()
    return canvas.place("video", draw(TOY, canvas)["video"][:, :, :1])


def way(
    model: Model, schedule: Schedule, *, cache: StepCache, solver: Solver = dpm, resume: Fill | None = None
) -> list[Fill]:
    """Every Fill of one canvas."""
    cond = model.prepare(opened(), ["red"])
    return list(fill(model, cond, schedule, seed=7, solver=solver, resume=resume, cache=cache))


@dataclass(frozen=True)
class Cached(Around):
    """A Model whose calls are counted, filled under a step cache by the oracle."""

    levels: list[float] = field(default_factory=list)

    def denoise(self, z: Tensors, sigma: Tensors, cond: Any, *, to: Tensors | None = None) -> Tensors:
        self.levels.append(float(sigma["video"].max()))
        return self.model.denoise(z, sigma, cond, to=to)


@pytest.mark.parametrize("solver", FOLLOWED)
def test_thirty_steps_of_nineteen_calls_end_nearer_to_the_truth_than_nineteen_steps(solver: str) -> None:
    wanted = conditional(TOY, opened(), "red")
    cached, few = (
        error(sampled(TOY, opened(), full(steps, shift=2), solver=SOLVERS[solver], cache=cache), wanted)
        for steps, cache in ((30, SECOND), (SECOND.calls(30), StepCache()))
    )
    assert cached < few, (cached, few)


def test_the_network_is_asked_as_often_as_was_foretold() -> None:
    for every in (1, 2, 3, 4):
        watched = Watched(TOY)
        fills = way(watched, full(30, shift=2), cache=StepCache(every=every))
        assert watched.batches.count(("denoise", 1)) == fills[-1].calls == StepCache(every=every).calls(30)
        assert len(fills) == 30
    assert [StepCache(every=every).calls(30) for every in (1, 2, 3, 4)] == [30, 19, 15, 13]


@pytest.mark.parametrize("solver", FOLLOWED)
def test_it_goes_on_bit_for_bit_from_every_step(solver: str) -> None:
    fills = way(TOY, full(12, shift=2), cache=SECOND, solver=SOLVERS[solver])
    for now in fills:
        *_, last = way(TOY, full(12, shift=2), cache=SECOND, solver=SOLVERS[solver], resume=Fill.unpack(now.pack()))
        assert last.pack() == fills[-1].pack(), now.step


def test_known_cells_come_back_exact() -> None:
    canvas, last = opened(), way(TOY, full(12), cache=SECOND)[-1]
    assert torch.equal(last.z["video"][:, :, :1], canvas.tracks["video"].x[:, :, :1])


def test_nothing_is_foretold_across_a_break() -> None:
    asked = {}
    for breaks in ((), (0.5,)):
        watched = Cached(TOY)
        way(watched, full(20), cache=StepCache(every=2, breaks=breaks))
        asked[breaks] = watched.levels
    after = [level for level in asked[(0.5,)] if level < 0.5]
    # both of the first two below it are asked: a line needs two answers on one side
    assert after[:2] == pytest.approx([0.45, 0.4]) and len(asked[(0.5,)]) > len(asked[()])


def planned(**asked: Any) -> Plan:
    """A plan of the toy."""
    return plan(text_to_video("red", model="toy", seconds=1, step_cache=2, **asked), card("toy"))


def test_a_plan_foretells_fewer_calls_and_other_latents() -> None:
    cached, whole = planned(steps=30), plan(text_to_video("red", model="toy", seconds=1, steps=30), card("toy"))
    assert cached.passes[0].cache.every == 2 and cached.passes[0].key != whole.passes[0].key
    assert cached.phases.denoise == pytest.approx(whole.phases.denoise * 19 / 30)


def test_where_guidance_begins_or_ends_answers_break() -> None:
    assert planned(steps=30, guidance=2, guided=(0.2, 0.9)).passes[0].cache.breaks == (0.2, 0.9)


def test_where_another_expert_takes_over_answers_break() -> None:
    made = plan(text_to_video("a fox", step_cache=2, guidance=4), card("wan2.2-t2v-a14b"))
    assert made.passes[0].cache == StepCache(every=2, breaks=(0.875,))


@pytest.mark.parametrize(
    ("asked", "why"), [({"steps": 9}, "9 steps are too few"), ({"steps": 30, "order": "causal"}, "in the order causal")]
)
def test_where_nothing_can_be_foretold_the_plan_says_so_and_asks_always(asked: dict[str, Any], why: str) -> None:
    made = planned(**asked)
    assert made.passes[0].cache == StepCache() and any(why in note for note in made.notes)
