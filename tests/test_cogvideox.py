"""CogVideoX's checkpoints give in our fill what they give in the pipelines that they were published for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import cogvideox

from cinecanvas.canvas import Canvas
from cinecanvas.model import Model

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


def theirs(folder: Path, kind: str, model: Model, **asked: Any) -> np.ndarray:
    import diffusers

    name = {"image": "CogVideoXImageToVideoPipeline", "video": "CogVideoXVideoToVideoPipeline"}
    pipeline = name.get(kind, "CogVideoXPipeline")
    pipe = getattr(diffusers, pipeline).from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    asked = {"num_inference_steps": STEPS, "guidance_scale": 3.0, **asked}
    return pipe(prompt=PROMPT, negative_prompt=NEGATIVE, output_type="np", max_sequence_length=16, **asked).frames[0]


def levels(model: Model) -> tuple[float, ...]:
    return model.card.recipes["standard"].ramp.levels(STEPS, shift=1.0, cells=0)


def led(model: Model, grid: Any) -> torch.Tensor:
    """The noise that our fill begins with, a cell before the first among it where the network reads pairs."""
    return starting(model, grid, lead=grid.cells[0] % 2 if "1.5" in model.card.title else 0).transpose(1, 2)


@pytest.mark.parametrize("kind", ["2b", "5b", "1.5"])
def test_words_become_the_same_frames(folders: dict[str, Path], kind: str) -> None:
    model = opened(folders[kind])
    grid = grid_of(model.card, frames=9, width=64, height=32)
    size = {"width": 64, "height": 32, "num_frames": 9, "latents": led(model, grid)}
    frames = theirs(folders[kind], "", model, **size)
    assert psnr(ours(model, Canvas.blank(grid), levels(model), guidance=3.0), frames) > 60


@pytest.mark.parametrize("kind", ["5b-i2v", "1.5-i2v"])
def test_a_picture_becomes_the_same_frames(folders: dict[str, Path], kind: str) -> None:
    model = opened(folders[kind])
    grid = grid_of(model.card, frames=9, width=64, height=32)
    first = pictures(32, 64)
    size = {"width": 64, "height": 32, "num_frames": 9, "latents": led(model, grid)}
    frames = theirs(folders[kind], "image", model, image=picture(first), **size)
    canvas = Canvas.blank(grid).place("video", first[None, :, None])
    assert psnr(ours(model, canvas, levels(model), guidance=3.0), frames) > 60
