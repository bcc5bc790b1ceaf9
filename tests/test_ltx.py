"""LTX-Video's checkpoints give in our fill what they give in the pipelines that they were published for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import ltx

from cinecanvas.canvas import Canvas
from cinecanvas.grid import Grid
from cinecanvas.model import Model

STEPS = 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("ltx")
    return {kind: ltx.save(place / kind, kind) for kind in ltx.KINDS}


def theirs(folder: Path, name: str, latents: torch.Tensor, **asked: Any) -> np.ndarray:
    import diffusers

    pipe = getattr(diffusers, name).from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        frame_rate=8,
        latents=latents.flatten(2).transpose(1, 2),
        decode_timestep=0.05,
        decode_noise_scale=0.025,
        output_type="np",
        **asked,
    ).frames[0]


def levels(model: Model, grid: Grid) -> tuple[float, ...]:
    moments, down, across = grid.cells
    return model.card.recipes["standard"].ramp.levels(STEPS, shift=1.0, cells=moments * down * across)


@pytest.fixture(autouse=True)
def the_noise_of_the_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs draws what it adds before it decodes; ours always adds the same."""
    for name in ("pipeline_ltx", "pipeline_ltx_image2video"):
        monkeypatch.setattr(
            f"diffusers.pipelines.ltx.{name}.randn_tensor",
            lambda shape, **_: torch.randn(shape, generator=torch.Generator().manual_seed(0)),
        )


@pytest.mark.parametrize("kind", ltx.KINDS)
def test_words_become_the_same_frames(folders: dict[str, Path], kind: str) -> None:
    model = opened(folders[kind])
    grid = grid_of(model.card, frames=17, width=96, height=64)
    size = {"width": 96, "height": 64, "num_frames": 17}
    frames = theirs(folders[kind], "LTXPipeline", starting(model, grid), **size)
    assert psnr(ours(model, Canvas.blank(grid), levels(model, grid), guidance=3.0), frames) > 60


def test_a_picture_becomes_the_same_frames(folders: dict[str, Path]) -> None:
    model = opened(folders["plain"])
    grid = grid_of(model.card, frames=17, width=96, height=64)
    first = pictures(64, 96)
    canvas = Canvas.blank(grid).place("video", first[None, :, None])
    latents = starting(model, grid)
    latents[:, :, :1] = model.prepare(canvas, [PROMPT]).canvas.tracks["video"].x[:, :, :1]
    size = {"width": 96, "height": 64, "num_frames": 17}
    frames = theirs(folders["plain"], "LTXImageToVideoPipeline", latents, image=picture(first), **size)
    assert psnr(ours(model, canvas, levels(model, grid), guidance=3.0), frames) > 60
