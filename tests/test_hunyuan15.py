"""HunyuanVideo 1.5's checkpoints give in our fill what they give in the pipelines that they were published for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import hunyuan15

from cinecanvas.canvas import Canvas
from cinecanvas.model import Model
from cinecanvas.models.hunyuan15 import quotations

STEPS = 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("hunyuan15")
    return {kind: hunyuan15.save(place / kind, kind) for kind in hunyuan15.KINDS}


def theirs(folder: Path, name: str, **asked: Any) -> np.ndarray:
    import diffusers

    pipe = getattr(diffusers, name).from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe(negative_prompt=NEGATIVE, num_inference_steps=STEPS, output_type="np", **asked).frames[0]


def levels(model: Model) -> tuple[float, ...]:
    recipe = model.card.recipes["standard"]
    return recipe.ramp.levels(STEPS, shift=recipe.shift, cells=0)


@pytest.mark.parametrize("prompt", [PROMPT, 'a sign says "SNOW"'])
def test_words_become_the_same_frames(folders: dict[str, Path], prompt: str) -> None:
    model = opened(folders["t2v"])
    grid = grid_of(model.card, frames=9, width=24, height=16)
    latents = starting(model, grid)
    size = {"width": 24, "height": 16, "num_frames": 9}
    frames = theirs(folders["t2v"], "HunyuanVideo15Pipeline", prompt=prompt, latents=latents, **size)
    got = ours(model, Canvas.blank(grid), levels(model), guidance=3.0, prompt=prompt)
    assert psnr(got, frames) > 60


@pytest.mark.parametrize("kind", ["i2v", "i2v-meanflow"])
def test_a_picture_becomes_the_same_frames(folders: dict[str, Path], kind: str) -> None:
    model = opened(folders[kind])
    grid = grid_of(model.card, frames=9, width=16, height=16)
    first = pictures(16, 16)
    frames = theirs(
        folders[kind],
        "HunyuanVideo15ImageToVideoPipeline",
        prompt=PROMPT,
        image=picture(first),
        num_frames=9,
        latents=starting(model, grid),
    )
    canvas = Canvas.blank(grid).place("video", first[None, :, None])
    assert psnr(ours(model, canvas, levels(model), guidance=3.0), frames) > 60


def test_what_is_quoted_is_read_letter_by_letter() -> None:
    assert quotations('a "STOP" and a “GO”, then "STOP"') == 'Text "STOP". Text "GO". '
    assert quotations("no signs") == ""
