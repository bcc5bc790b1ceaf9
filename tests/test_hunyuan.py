"""HunyuanVideo gives in our fill what it gives in the pipeline that it was published for."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from parity import PROMPT, grid_of, opened, ours, psnr, starting
from tiny import hunyuan

from cinecanvas.canvas import Canvas

STEPS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hunyuan.save(tmp_path_factory.mktemp("hunyuan") / "t2v")


def theirs(folder: Path, latents: torch.Tensor, *, prompt: str = PROMPT, scale: float = 4.0) -> np.ndarray:
    from diffusers import HunyuanVideoPipeline

    pipe = HunyuanVideoPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt=prompt,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        width=32,
        height=32,
        num_frames=9,
        latents=latents,
        output_type="np",
    ).frames[0]


def test_words_become_the_same_frames_and_other_words_or_scales_do_not(folder: Path) -> None:
    model = opened(folder)
    grid = grid_of(model.card, frames=9, width=32, height=32)
    latents = starting(model, grid)
    recipe = model.card.recipes["standard"]
    got = ours(model, Canvas.blank(grid), recipe.ramp.levels(STEPS, shift=recipe.shift, cells=0), guidance=4.0)
    same = psnr(got, theirs(folder, latents))
    assert same > 60
    assert math.isfinite(psnr(got, theirs(folder, latents, prompt="a cube")))
    assert math.isfinite(psnr(got, theirs(folder, latents, scale=1.0)))
