"""Wan's checkpoints give in our fill what they give in the pipeline that they were published for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import wan

from cinecanvas.canvas import Canvas
from cinecanvas.solvers import unipc

STEPS = 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("wan")
    kinds = ("t2v", "i2v", "flf2v", "t2v-a14b", "i2v-a14b", "ti2v")
    return {kind: wan.save(place / kind, kind) for kind in kinds}


def theirs(folder: Path, kind: str, **asked: Any) -> tuple[np.ndarray, list[float]]:
    """The frames of diffusers' pipeline as it is published, and the levels it went through."""
    from diffusers import WanImageToVideoPipeline, WanPipeline

    pipeline = WanImageToVideoPipeline if asked.get("image") is not None else WanPipeline
    pipe = pipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    frames = pipe(prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=STEPS, output_type="np", **asked)
    return frames.frames[0], pipe.scheduler.sigmas.tolist()


@pytest.mark.parametrize("kind", ["t2v", "t2v-a14b", "ti2v"])
def test_words_become_the_same_frames(folders: dict[str, Path], kind: str) -> None:
    model = opened(folders[kind])
    grid = grid_of(model.card, frames=9, width=64, height=32)
    latents = starting(model, grid)
    frames, levels = theirs(folders[kind], kind, width=64, height=32, num_frames=9, guidance_scale=3.0, latents=latents)
    assert psnr(ours(model, Canvas.blank(grid), levels, guidance=3.0, solver=unipc), frames) > 60


@pytest.mark.parametrize("kind", ["i2v", "i2v-a14b", "ti2v"])
def test_a_picture_becomes_the_same_frames(folders: dict[str, Path], kind: str) -> None:
    model = opened(folders[kind])
    grid = grid_of(model.card, frames=9, width=64, height=32)
    first = pictures(32, 64)
    frames, levels = theirs(
        folders[kind],
        kind,
        image=picture(first),
        width=64,
        height=32,
        num_frames=9,
        guidance_scale=3.0,
        latents=starting(model, grid),
    )
    canvas = Canvas.blank(grid).place("video", first[None, :, None])
    assert psnr(ours(model, canvas, levels, guidance=3.0, solver=unipc), frames) > 60


def test_a_first_and_a_last_picture_become_the_same_frames(folders: dict[str, Path]) -> None:
    model = opened(folders["flf2v"])
    grid = grid_of(model.card, frames=9, width=64, height=32)
    first, last = pictures(2, 32, 64)
    frames, levels = theirs(
        folders["flf2v"],
        "flf2v",
        image=picture(first),
        last_image=picture(last),
        width=64,
        height=32,
        num_frames=9,
        guidance_scale=3.0,
        latents=starting(model, grid),
    )
    canvas = Canvas.blank(grid).place("video", first[None, :, None]).place("video", last[None, :, None], at=(8, 0, 0))
    assert psnr(ours(model, canvas, levels, guidance=3.0, solver=unipc), frames) > 60
