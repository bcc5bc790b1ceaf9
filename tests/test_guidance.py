"""Guidance is a Model round a Model, and on the toy its effect is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from oracle import blank, conditional, draw, error, sampled

from cinecanvas.canvas import Canvas, Tensors
from cinecanvas.fitting import leaning
from cinecanvas.guidance import guided
from cinecanvas.model import Around, Model
from cinecanvas.models.toy import Toy
from cinecanvas.plan import plan
from cinecanvas.request import text_to_video
from cinecanvas.schedule import full

TOY = Toy(std=1.0)


@dataclass(frozen=True)
class Watched(Around):
    """A Model that notes the batch of every call."""

    batches: list[tuple[str, int]] = field(default_factory=list)

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Any:
        self.batches.append(("prepare", len(text)))
        return self.model.prepare(canvas, text)

    def denoise(self, z: Tensors, sigma: Tensors, cond: Any, *, to: Tensors | None = None) -> Tensors:
        self.batches.append(("denoise", len(z["video"])))
        return self.model.denoise(z, sigma, cond, to=to)


def test_scale_one_is_the_model_itself() -> None:
    assert guided(TOY, 1.0) is TOY


def test_scale_s_shifts_the_analytic_mean_s_times_and_leaves_the_spread() -> None:
    canvas = blank(frames=6)
    canvas = canvas.place("video", draw(TOY, canvas)["video"][:, :, :1])
    (red, cov), (blue, _) = (conditional(TOY, canvas, text) for text in ("red", "blue"))
    got = sampled(guided(TOY, 3.0, negative="blue", interval=(0, 1)), canvas, full(16, shift=2), text="red")
    assert error(got, (blue + 3 * (red - blue), cov)) < 0.02


def test_outside_its_interval_the_prompt_alone_speaks() -> None:
    canvas = blank(frames=6)
    sigma = {"video": torch.tensor([0, 0.05, 0.2, 0.9, 0.98, 1.0]).view(1, 1, 6, 1, 1)}
    z = draw(TOY, canvas)
    model = guided(TOY, 3.0, negative="blue", interval=(0.1, 0.97))
    got = model.denoise(z, sigma, model.prepare(canvas, ["red"]))["video"]
    alone = TOY.denoise(z, sigma, TOY.prepare(canvas, ["red"]))["video"]
    assert torch.equal(got[:, :, [0, 1, 4, 5]], alone[:, :, [0, 1, 4, 5]])
    assert (got[:, 0, 2:4] - alone[:, 0, 2:4]).min() > 0.01  # redder


def test_it_asks_once_for_both_answers_and_shows_the_canvas_of_its_videos() -> None:
    watched = Watched(TOY)
    model = guided(watched, 3.0)
    cond = model.prepare(blank(frames=2).repeat(3), ["red"] * 3)
    z = {"video": torch.zeros(3, 3, 2, 1, 1)}
    model.denoise(z, {"video": torch.full((3, 1, 2, 1, 1), 0.5)}, cond)
    assert watched.batches == [("prepare", 6), ("denoise", 6)]
    assert cond.canvas.batch == 3
    assert isinstance(model, Model) and model.card is TOY.card


def test_a_family_that_says_so_is_asked_twice_in_turn_and_leans_alike() -> None:
    loner = Toy(std=1.0, card=TOY.card.model_copy(update={"batched": False}))
    watched, canvas = Watched(loner), blank(frames=2).repeat(3)
    z, sigma = {"video": torch.randn(3, 3, 2, 1, 1)}, {"video": torch.full((3, 1, 2, 1, 1), 0.5)}
    in_turn, at_once = guided(watched, 3.0, negative="blue"), guided(TOY, 3.0, negative="blue")
    words = ["red", "green", ""]
    got = in_turn.denoise(z, sigma, in_turn.prepare(canvas, words))["video"]
    assert watched.batches == [("prepare", 6), ("denoise", 3), ("denoise", 3)]
    assert torch.allclose(got, at_once.denoise(z, sigma, at_once.prepare(canvas, words))["video"], atol=1e-6)


def test_where_no_cell_is_guided_the_prompt_alone_is_asked_for() -> None:
    watched = Watched(TOY)
    model, canvas = guided(watched, 3.0, interval=(0.8, 1.0)), blank(frames=2).repeat(3)
    cond, z = model.prepare(canvas, ["red"] * 3), {"video": torch.randn(3, 3, 2, 1, 1)}
    sigma = {"video": torch.full((3, 1, 2, 1, 1), 0.5)}
    got = model.denoise(z, sigma, cond)["video"]
    assert watched.batches[1:] == [("denoise", 3)]
    assert torch.equal(got, TOY.denoise(z, sigma, TOY.prepare(canvas, ["red"] * 3))["video"])


def test_a_pass_leans_as_it_was_asked() -> None:
    asked = text_to_video("red", negative="blue", guidance=3.0, guided=(0.2, 0.9), rescale=0.5, model="toy")
    (step,) = plan(asked, TOY.card).passes
    assert leaning(TOY, step) == guided(TOY, 3.0, negative="blue", interval=(0.2, 0.9), rescale=0.5)


def test_rescale_brings_the_spread_of_every_video_back() -> None:
    canvas = blank(frames=12).repeat(2)
    z = {"video": torch.randn(2, 3, 12, 1, 1, generator=torch.Generator().manual_seed(0))}
    sigma = {"video": torch.full((2, 1, 12, 1, 1), 0.5)}

    def spread(model: Model) -> np.ndarray:
        x0 = model.denoise(z, sigma, model.prepare(canvas, ["red", "green"]))["video"]
        return x0.std(dim=(1, 2, 3, 4)).numpy()

    assert (spread(guided(TOY, 5.0)) > 1.2 * spread(TOY)).all()
    assert spread(guided(TOY, 5.0, rescale=1.0)) == pytest.approx(spread(TOY), rel=1e-5)
