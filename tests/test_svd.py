"""Stable Video Diffusion gives in our fill what it gives in the pipeline that it was published for."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from parity import grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import svd

from cinecanvas.canvas import Canvas

STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return svd.save(tmp_path_factory.mktemp("svd") / "img2vid")


def test_a_picture_becomes_the_same_frames(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The noise that blurs the picture is drawn by theirs; ours is always the same, so theirs is given it."""
    from diffusers import StableVideoDiffusionPipeline
    from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as there

    model = opened(folder)
    grid = grid_of(model.card, frames=4, width=32, height=32).model_copy(update={"fps": 7.0})
    first = pictures(32, 32)
    blur = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(there, "randn_tensor", lambda *_, **__: blur)
    pipe = StableVideoDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    most = 700.0  # it begins with a signal of 1 beside a noise of 700, as if the picture were black; ours with noise
    latents = starting(model, grid).transpose(1, 2) * most / math.hypot(most, 1)
    frames = pipe(
        picture(first),
        width=32,
        height=32,
        num_frames=4,
        num_inference_steps=STEPS,
        latents=latents,
        decode_chunk_size=8,
        output_type="np",
    ).frames[0]
    canvas = Canvas.blank(grid).place("video", first[None, :, None])
    recipe = model.card.recipes["standard"]
    levels = recipe.ramp.levels(STEPS, shift=1.0, cells=0)
    got = ours(model, canvas, levels, guidance=recipe.guidance, rising=recipe.rising)
    assert psnr(got, frames) > 60
    assert psnr(ours(model, canvas, levels, guidance=recipe.guidance), frames) < 60  # not without the rise
