"""HunyuanVideo's checkpoints give in our fill what they give in the pipelines that they were published for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import hunyuan

from cinecanvas.canvas import Canvas, Track
from cinecanvas.model import Model
from cinecanvas.models.hunyuan import _SHOWN, _SHOWN_TOKENS
from cinecanvas.sampler import fill
from cinecanvas.schedule import full
from cinecanvas.solvers import euler

STEPS = 4
EXACTLY = 80  # dB: a picture that is left out of the noise, or of the negative prompt, leaves 59 to 67
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

    parts = cast(Any, model)._parts
    asked = AutoTokenizer.from_pretrained(parts.folder / "tokenizer")(_SHOWN)["input_ids"]
    at = asked.index(parts.config("text_encoder")["image_token_index"])
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
    assert psnr(got, theirs(folders["t2v"], latents=latents)) > EXACTLY
    assert psnr(got, theirs(folders["t2v"], latents=latents, prompt="a cube")) < 60
    assert psnr(got, theirs(folders["t2v"], latents=latents, scale=1.0)) < 60


def test_a_picture_becomes_the_same_frames(folders: dict[str, Path]) -> None:
    model, first = opened(folders["token_replace"]), pictures(32, 32)
    grid = grid_of(model.card, frames=9, **SIZE)
    asked = {"latents": starting(model, grid), "image": picture(first), "prompt_template": template(model)}
    canvas = Canvas.blank(grid).place("video", first[None, :, None])
    got = ours(model, canvas, levels(model), guidance=4.0)
    assert psnr(got, theirs(folders["token_replace"], **asked)) > EXACTLY
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
    assert psnr(got, theirs(folders["latent_concat"], **asked)) > EXACTLY
    assert psnr(got, theirs(folders["latent_concat"], **{**asked, "image": picture(-first)})) < 60


@pytest.mark.parametrize("kind", ["token_replace", "latent_concat"])
def test_a_later_window_begins_with_its_first_known_cell_as_a_film_does_with_its_picture(
    folders: dict[str, Path], kind: str
) -> None:
    model = opened(folders[kind])
    grid = grid_of(model.card, frames=17, **SIZE)
    rgb = pictures(8, 32, 32).movedim(0, 1)[None]
    keep = torch.zeros(1, 1, 8, 32, 32)
    keep[:, :, :4] = 1
    prepared = model.prepare(Canvas({"video": Track(rgb, keep, grid.pixels, start=9)}), [PROMPT])
    seen: list[torch.Tensor] = []
    cast(Any, model)._parts.network("transformer").register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["hidden_states"]), with_kwargs=True
    )
    *_, last = fill(model, prepared, full(STEPS, shift=7.0), seed=0, solver=euler)
    first = prepared.canvas.tracks["video"].x[:, :, :1]
    assert prepared.canvas.tracks["video"].start == 3
    assert torch.equal(last.z["video"][:, :, :1], first)
    shown = slice(0, 4) if kind == "token_replace" else slice(4, 8)
    assert len(seen) == STEPS and all(torch.equal(x[:, shown, :1], first) for x in seen)


def test_a_film_is_decoded_tile_by_tile_as_a_whole(folders: dict[str, Path]) -> None:
    """What is asked for before the cells that follow it differs where its tile was not full: 13 frames at most."""
    model = opened(folders["t2v"])
    z = torch.randn(1, 4, 9, 4, 4, generator=torch.Generator().manual_seed(1))
    vae = cast(Any, model)._parts.network("vae")
    with torch.inference_mode():
        whole = vae.decode(z / vae.config.scaling_factor, return_dict=False)[0][0]
    frames, _ = decoded(model, z)
    assert psnr(frames, (whole.clamp(-1, 1).movedim(0, -1).numpy() + 1) / 2) > 60
    head, memory = decoded(model, z[:, :, :5])
    tail, _ = decoded(model, z[:, :, 5:], memory=memory)
    halves = np.concatenate([head, tail])
    assert halves.shape == frames.shape
    differs = (halves != frames).any(axis=(1, 2, 3)).nonzero()[0]
    assert len(differs) and differs.min() >= 4 and differs.max() == len(head) - 1
    assert np.array_equal(tail, frames[len(head) :])


def decoded(model: Model, z: torch.Tensor, *, memory: Any = None) -> tuple[np.ndarray, Any]:
    """Frames of latents, and what goes on from them."""
    way, found = model.decode({"video": z}, memory=memory), []
    while True:
        try:
            found.append(next(way).rgb)
        except StopIteration as end:
            return np.concatenate(found), end.value
