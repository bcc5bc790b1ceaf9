"""HunyuanVideo's checkpoints give in our fill what they give in the pipelines that they were published for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import hunyuan

from cinecanvas.canvas import Canvas
from cinecanvas.guidance import guided
from cinecanvas.model import Model
from cinecanvas.models.hunyuan import _SHOWN, _SHOWN_TOKENS
from cinecanvas.sampler import fill
from cinecanvas.schedule import full
from cinecanvas.solvers import euler

STEPS = 4
SIZE = {"width": 32, "height": 32}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("hunyuan")
    return {kind: hunyuan.save(place / kind, kind) for kind in hunyuan.KINDS}


def theirs(folder: Path, *, prompt: str = PROMPT, scale: float = 4.0, **asked: Any) -> np.ndarray:
    """The frames of diffusers' pipeline as it is published."""
    from diffusers import HunyuanVideoImageToVideoPipeline, HunyuanVideoPipeline

    pipeline = HunyuanVideoImageToVideoPipeline if "image" in asked else HunyuanVideoPipeline
    pipe = pipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt=prompt, num_inference_steps=STEPS, guidance_scale=scale, num_frames=9, output_type="np", **SIZE, **asked
    ).frames[0]


def template(model: Model) -> dict[str, Any]:
    """The question of their pipeline, with what it takes for granted of the published tokenizer as it is for ours."""
    from transformers import AutoTokenizer

    asked = AutoTokenizer.from_pretrained(model._parts.folder / "tokenizer")(_SHOWN)["input_ids"]  # type: ignore[attr-defined]
    at = asked.index(model._parts.config("text_encoder")["image_token_index"])  # type: ignore[attr-defined]
    return {
        "template": _SHOWN,
        "crop_start": _SHOWN_TOKENS,
        "image_emb_start": at,
        "image_emb_end": at + hunyuan.PATCHES,
        "image_emb_len": hunyuan.PATCHES,
    }


def levels(model: Model) -> tuple[float, ...]:
    recipe = model.card.recipes["standard"]
    return recipe.ramp.levels(STEPS, shift=recipe.shift, cells=0)


def test_words_become_the_same_frames_and_other_words_or_scales_do_not(folders: dict[str, Path]) -> None:
    model = opened(folders["t2v"])
    grid = grid_of(model.card, frames=9, **SIZE)
    latents = starting(model, grid)
    got = ours(model, Canvas.blank(grid), levels(model), guidance=4.0)
    assert psnr(got, theirs(folders["t2v"], latents=latents)) > 60
    assert psnr(got, theirs(folders["t2v"], latents=latents, prompt="a cube")) < 60
    assert psnr(got, theirs(folders["t2v"], latents=latents, scale=1.0)) < 60


def test_a_picture_becomes_the_same_frames(folders: dict[str, Path]) -> None:
    model, first = opened(folders["token_replace"]), pictures(32, 32)
    grid = grid_of(model.card, frames=9, **SIZE)
    asked = {"latents": starting(model, grid), "image": picture(first), "prompt_template": template(model)}
    canvas = Canvas.blank(grid).place("video", first[None, :, None])
    got = ours(model, canvas, levels(model), guidance=4.0)
    assert psnr(got, theirs(folders["token_replace"], **asked)) > 60
    for other in ({"image": picture(-first)}, {"prompt": "a cube"}, {"scale": 1.0}):
        assert psnr(got, theirs(folders["token_replace"], **{**asked, **other})) < 60


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_picture_before_the_first_frame_becomes_the_same_frames(folders: dict[str, Path], scale: float) -> None:
    """Of nine frames theirs shows five; it is asked twice where our guidance is, the second time beside black."""
    model, first = opened(folders["latent_concat"]), pictures(32, 32)
    grid = grid_of(model.card, frames=5, **SIZE)
    asked = {"latents": starting(model, grid, lead=1), "image": picture(first), "prompt_template": template(model)}
    asked |= {"negative_prompt": NEGATIVE, "true_cfg_scale": scale}
    canvas = Canvas.blank(grid).place("video", first[None, :, None])
    got = ours(model, canvas, levels(model), guidance=scale)
    assert psnr(got, theirs(folders["latent_concat"], **asked)) > 60
    assert psnr(got, theirs(folders["latent_concat"], **{**asked, "image": picture(-first)})) < 60
