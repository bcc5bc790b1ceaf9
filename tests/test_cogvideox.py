"""CogVideoX's checkpoints give in our fill what they give in the pipelines that they were published for."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import cogvideox

from cinecanvas.canvas import Canvas
from cinecanvas.model import Model
from cinecanvas.sampler import fill
from cinecanvas.schedule import full
from cinecanvas.solvers import SOLVERS, euler

STEPS = 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("cogvideox")
    return {kind: cogvideox.save(place / kind, kind) for kind in cogvideox.KINDS}


@pytest.fixture(autouse=True)
def the_mean_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs draws a picture's code at random; ours takes the mean, which is nearer to the picture."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution as Code

    monkeypatch.setattr(Code, "sample", lambda code, generator=None: code.mode())


def theirs(folder: Path, kind: str, model: Model, *, scheduler: str = "", **asked: Any) -> np.ndarray:
    import diffusers

    name = {"image": "CogVideoXImageToVideoPipeline", "video": "CogVideoXVideoToVideoPipeline"}
    pipeline = name.get(kind, "CogVideoXPipeline")
    pipe = getattr(diffusers, pipeline).from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if scheduler:
        pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    asked = {"num_inference_steps": STEPS, "guidance_scale": 3.0, **asked}
    return pipe(prompt=PROMPT, negative_prompt=NEGATIVE, output_type="np", max_sequence_length=16, **asked).frames[0]


def levels(model: Model) -> tuple[float, ...]:
    return model.card.recipes["standard"].ramp.levels(STEPS, shift=1.0, cells=0)


def led(model: Model, grid: Any, *, step: int | None = None) -> torch.Tensor:
    """The noise that our fill begins with, or a step's, a cell before the first where the network reads pairs."""
    lead = grid.cells[0] % 2 if "1.5" in model.card.title else 0
    return starting(model, grid, lead=lead, step=step).transpose(1, 2)


@pytest.mark.parametrize("kind", ["2b", "5b", "1.5"])
def test_words_become_the_same_frames(folders: dict[str, Path], kind: str) -> None:
    model = opened(folders[kind])
    grid = grid_of(model.card, frames=9, width=64, height=32)
    size = {"width": 64, "height": 32, "num_frames": 9, "latents": led(model, grid)}
    frames = theirs(folders[kind], "", model, **size)
    assert psnr(ours(model, Canvas.blank(grid), levels(model), guidance=3.0), frames) > 60


@pytest.mark.parametrize("kind", ["5b", "1.5"])
def test_their_stochastic_steps_give_the_same_frames(
    folders: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs draws twice in every step but the first and the last, and takes the second."""
    from diffusers.schedulers import scheduling_dpm_cogvideox as place

    folder = shutil.copytree(folders[kind], folders[kind].with_name(f"{kind}-dpm"))
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler"))
    model = opened(folder)
    grid = grid_of(model.card, frames=9, width=64, height=32)
    steps = iter([0, *(step for step in range(1, STEPS - 1) for _ in range(2)), STEPS - 1])
    monkeypatch.setattr(place, "randn_tensor", lambda *_, **__: led(model, grid, step=next(steps)))
    size = {"width": 64, "height": 32, "num_frames": 9, "latents": led(model, grid)}
    frames = theirs(folder, "", model, scheduler="CogVideoXDPMScheduler", **size)
    solver = SOLVERS[model.card.recipes["standard"].solver]
    assert psnr(ours(model, Canvas.blank(grid), levels(model), guidance=3.0, solver=solver), frames) > 60
    assert psnr(ours(model, Canvas.blank(grid), levels(model), guidance=3.0), frames) < 50


@pytest.mark.parametrize("kind", ["5b-i2v", "1.5-i2v"])
def test_a_picture_becomes_the_same_frames(folders: dict[str, Path], kind: str) -> None:
    model = opened(folders[kind])
    grid = grid_of(model.card, frames=9, width=64, height=32)
    first = pictures(32, 64)
    size = {"width": 64, "height": 32, "num_frames": 9, "latents": led(model, grid)}
    frames = theirs(folders[kind], "image", model, image=picture(first), **size)
    canvas = Canvas.blank(grid).place("video", first[None, :, None])
    assert psnr(ours(model, canvas, levels(model), guidance=3.0), frames) > 60


@pytest.mark.parametrize("kind", ["5b-i2v", "1.5-i2v"])
@pytest.mark.parametrize("level", [1.0, 0.4])
def test_a_first_frame_that_is_known_in_part_is_pinned_and_not_shown(
    folders: dict[str, Path], kind: str, level: float
) -> None:
    """It has no channel that could say which part of a picture is one."""
    model = opened(folders[kind])
    grid = grid_of(model.card, frames=9, width=64, height=32)
    keep = torch.full((1, 1, 1, 32, 64), level)
    keep[..., 32:] = 0
    prepared = model.prepare(Canvas.blank(grid).place("video", pictures(32, 64)[None, :, None], keep=keep), [PROMPT])
    track = prepared.canvas.tracks["video"]
    assert not prepared.given["channels"].any()
    assert torch.allclose(track.keep[:, :, 0, :, :4], torch.tensor(level)) and not track.keep[:, :, 1:].any()
    *_, last = fill(model, prepared, full(2), seed=0, solver=euler)
    known = (track.keep == 1).expand_as(track.x)
    assert bool(known.any()) is (level == 1) and torch.equal(last.z["video"][known], track.x[known])
