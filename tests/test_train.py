"""The training run in miniature: it learns, it resumes, and what it exports is a family that fills canvases."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch

from cinecanvas.canvas import Canvas
from cinecanvas.errors import BadRequest
from cinecanvas.grid import Grid
from cinecanvas.models import diorama
from cinecanvas.sampler import fill
from cinecanvas.schedule import full
from cinecanvas.train import data, holes, trainer
from cinecanvas.train.losses import flow_loss
from cinecanvas.train.optim import Optimizer, cooled, orthogonal
from cinecanvas.train.oracle import FACTS, facts_of, mirrored
from cinecanvas.train.remix import recycled, remixed
from cinecanvas.train.run import family_of, start
from cinecanvas.world.render import render
from cinecanvas.world.scene import FIRST, change, draw, mirror


def test_a_run_that_was_stopped_goes_on_and_its_export_fills_a_canvas(tmp_path) -> None:
    with closing(trainer.train("tiny", minutes=1, out=tmp_path)) as run:
        for progress in run:
            if progress.phase == "stills" and progress.step >= 20:
                break
    stopped = start("tiny", 1, tmp_path, resume=True)
    assert stopped.optimizer.steps >= 20
    *_, last = trainer.train("tiny", minutes=0.4, out=tmp_path, resume=True)
    assert last.phase == "exported" and last.step > stopped.optimizer.steps
    family = diorama.load(tmp_path / "export")
    cond = family.prepare(Canvas.blank(Grid(frames=5, height=32, width=32, fps=8)), ["red"])
    *_, filled = fill(family, cond, full(2), seed=0)
    assert [frames.rgb.shape for frames in family.decode(filled.z)] == [(1, 32, 32, 3), (4, 32, 32, 3)]
    again = start("tiny", 1, tmp_path / "again", origin=tmp_path / "export")
    mean = again.optimizer.mean["dit.head.weight"]
    assert mean.abs().max() > 0 and torch.equal(mean.bfloat16(), family.dit.head.weight)
    assert (tmp_path / "journal.jsonl").exists() and list((tmp_path / "sheets").glob("*.png"))


def test_a_clip_remixed_from_no_noise_is_itself_and_from_more_noise_farther_away(tmp_path) -> None:
    run = start("tiny", 1, tmp_path)
    family = family_of(run)
    z = torch.randn(2, 24, 3, 2, 2)
    far = [
        (remixed(family, z, family.read(["red", ""]), level=level, seed=1) - z).abs().mean() for level in (0, 0.3, 0.8)
    ]
    assert far[0] == 0 < far[1] < far[2]


def test_a_late_clip_is_recycled_but_for_its_first_cell_which_is_never_shown(tmp_path) -> None:
    run = start("tiny", 1, tmp_path)
    late = run.recipe.buckets[-1]
    ids = torch.full((40, data.FORMS, data.WORDS), -1, dtype=torch.int16)
    ids[:, :, 0] = 1
    latents = torch.randn(40, 24, 3, 2, 2).half()
    bank = data.Examples(latents, torch.zeros(0), ids, torch.zeros(0))
    got = recycled(run, late, bank, data.piece_table(run.text))
    assert late.late and got.shape == latents.shape and got.dtype == latents.dtype
    assert torch.equal(got[:, :, 0], latents[:, :, 0]) and not torch.equal(got[:, :, 1:], latents[:, :, 1:])


def test_the_transformer_learns_what_is_always_true() -> None:
    """Sixty steps on latents whose second channel copies the first: the error falls far below the linear estimate."""
    from cinecanvas.models.dit import DiT, DiTShape
    from cinecanvas.models.text import TextEncoder

    torch.manual_seed(0)
    network = torch.nn.ModuleDict(
        {
            "text": TextEncoder(["a"], 32),
            "dit": DiT(DiTShape(channels=2, width=32, depth=1, heads=1, rank=8, text_width=32)),
        }
    )
    optimizer = Optimizer(network, muon_rate=0.02, adam_rate=5e-3, ema=0.9)
    sigma, hole = torch.full((16, 1, 1, 2, 2), 0.6), torch.ones(16, 1, 1, 2, 2)
    losses = []
    for _ in range(80):
        x = torch.randn(16, 1, 1, 2, 2).expand(-1, 2, -1, -1, -1)
        words = network["dit"].read(*network["text"](*network["text"].tokens(["a"] * 16)))
        loss = flow_loss(network["dit"](0.4 * x + 0.6 * torch.randn(16, 2, 1, 2, 2), sigma, words), x, sigma, hole)
        loss.backward()
        optimizer.step(1.0)
        losses.append(float(loss.detach()))
    linear = 0.6**2 / (0.4**2 + 0.6**2) / 0.6**2  # the Wiener error of one channel alone, in velocity weight
    exact = 0.6**2 / (2 * 0.4**2 + 0.6**2) / 0.6**2
    assert sum(losses[:5]) / 5 > 0.85 * linear
    assert sum(losses[-10:]) / 10 < (linear + 2 * exact) / 3


def test_a_folder_with_a_run_is_not_overwritten(tmp_path) -> None:
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(BadRequest, match="already holds a run"):
        start("tiny", 1, tmp_path)
    with pytest.raises(BadRequest, match="no run"):
        start("tiny", 1, tmp_path / "empty", resume=True)


@pytest.mark.parametrize("task", list(holes.MIX))
def test_holes_take_the_loss_and_known_cells_are_nearly_clean(task: str) -> None:
    g = torch.Generator().manual_seed(0)
    sigma, hole = holes.hole(task, (5, 4, 4), batch=50, mean=0.5, spread=1.0, generator=g)
    assert sigma.shape == hole.shape == (50, 1, 5, 4, 4)
    assert (sigma[hole == 0] <= holes.RESIDUE).all() and ((sigma >= 0) & (sigma <= 1)).all()
    free = hole.flatten(1).mean(1)
    if task in ("text_to_video", "levels"):
        assert (free == 1).all()
    else:
        assert (free < 1).any() and (free > 0).any()


def test_a_drawn_batch_mixes_the_tasks_as_they_are_named() -> None:
    _, hole = holes.draw(4000, (5, 2, 2), mean=0.5, spread=1.0, generator=torch.Generator().manual_seed(0))
    moments = hole.mean((1, 3, 4))
    nothing_known = (hole.flatten(1) == 1).all(1).float().mean()
    assert abs(nothing_known - holes.MIX["text_to_video"] - holes.MIX["levels"]) < 0.06
    first_only = ((moments[:, 0] == 0) & (moments[:, 1:] == 1).all(1)).float().mean()
    assert first_only > holes.MIX["image_to_video"]


def test_the_facts_of_a_mirrored_scene_are_the_mirrored_facts() -> None:
    scenes = [draw(seed, FIRST) for seed in range(6)]
    here, there = (
        facts_of(
            render(some, frames=9, height=32, width=48, fps=8, truth=True).truth, [0] * 6, strides=(4, 16, 16), kinds=4
        )
        for some in (scenes, [mirror(scene) for scene in scenes])
    )
    assert here.shape == (6, FACTS + 4, 3, 2, 3)
    assert not torch.allclose(here, there, atol=0.1)
    assert torch.allclose(mirrored(here), there, atol=1e-4)


def test_a_clip_that_pans_has_a_background_that_flows_and_a_thing_that_covers_its_cells() -> None:
    scene = change(change(draw(3, FIRST), "camera", "pan_left"), "motion", "rest")
    seen = render([scene], frames=9, height=64, width=64, fps=8, truth=True)
    facts = facts_of(seen.truth, [2], strides=(4, 16, 16), kinds=4)[0]
    whole = (seen.truth.segmentation[:, 1:5] >= 2).float().mean()
    assert torch.allclose(facts[:4, 1].mean(), whole) and torch.allclose(facts[FACTS + 2, 1].mean(), whole)
    assert (facts[7, :, 0] > 0).all() and facts[FACTS + 1].abs().max() == 0


def test_muon_steps_are_nearly_orthogonal() -> None:
    q = orthogonal(torch.randn(3, 32, 64)).float()
    values = torch.linalg.svdvals(q)
    assert (values > 0.6).all() and (values < 1.35).all()


def test_the_rate_is_constant_and_then_falls_to_two_per_cent() -> None:
    assert [round(cooled(done, decay=0.5), 2) for done in (0.0, 0.49, 0.75, 1.0)] == [1.0, 1.0, 0.5, 0.02]
    assert cooled(1.0 - 1e-9, decay=0.0) == 1.0
