"""HunyuanVideo 1.5's checkpoints give in our fill what they give in the pipelines that they were published for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import hunyuan15

from cinecanvas.canvas import Canvas, Track
from cinecanvas.model import Model
from cinecanvas.models.checkpoint import layout
from cinecanvas.models.hunyuan15 import quotations, recognise
from cinecanvas.sampler import fill
from cinecanvas.schedule import Schedule
from cinecanvas.solvers import euler

STEPS = 4
EXACTLY = 80  # dB: other words or another guidance leave 52 to 63


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
    assert psnr(got, frames) > EXACTLY
    for other in ({"guidance": 2.0, "prompt": prompt}, {"guidance": 3.0, "prompt": f"{prompt} slowly"}):
        assert psnr(ours(model, Canvas.blank(grid), levels(model), **other), frames) < EXACTLY


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
    assert psnr(ours(model, canvas, levels(model), guidance=3.0), frames) > EXACTLY
    other = Canvas.blank(grid).place("video", -first[None, :, None])
    assert psnr(ours(model, other, levels(model), guidance=3.0), frames) < EXACTLY


def test_what_is_quoted_is_read_letter_by_letter() -> None:
    assert quotations('a "STOP" and a “GO”, then "STOP"') == 'Text "STOP". Text "GO". '
    assert quotations("no signs") == ""


def test_a_film_is_encoded_cell_by_cell_as_a_whole(folders: dict[str, Path]) -> None:
    model = cast(Any, opened(folders["t2v"]))
    rgb, vae = pictures(2, 17, 16, 16).transpose(1, 2), model._parts.network("vae")
    with torch.inference_mode():
        one, other = (vae.encode(film[None]).latent_dist.mode() * vae.config.scaling_factor for film in rgb)
        assert torch.allclose(model._encode(rgb), torch.cat([one, other]), atol=1e-5)


def test_a_film_is_decoded_cell_by_cell_as_a_whole(folders: dict[str, Path]) -> None:
    model = opened(folders["t2v"])
    z = torch.randn(1, 4, 5, 4, 4, generator=torch.Generator().manual_seed(1))
    vae = cast(Any, model)._parts.network("vae")
    with torch.inference_mode():
        whole = vae.decode(z / vae.config.scaling_factor, return_dict=False)[0][0]
    frames = np.concatenate([frames.rgb for frames in model.decode({"video": z})])
    assert psnr(frames, (whole.clamp(-1, 1).movedim(0, -1).numpy() + 1) / 2) > EXACTLY
    memory = cast(Any, None)
    halves = []
    for half in (z[:, :, :2], z[:, :, 2:]):
        way = model.decode({"video": half}, memory=memory)
        while True:
            try:
                halves.append(next(way).rgb)
            except StopIteration as end:
                memory = end.value
                break
    assert np.array_equal(np.concatenate(halves), frames)


def test_a_first_frame_that_is_known_in_part_is_pinned_and_not_shown(folders: dict[str, Path]) -> None:
    model = opened(folders["i2v"])
    grid = grid_of(model.card, frames=9, width=16, height=16)
    keep = torch.ones(1, 1, 9, 16, 16)
    keep[..., 8:] = 0
    canvas = Canvas({"video": Track(pictures(9, 16, 16).movedim(0, 1)[None], keep, grid.pixels)})
    prepared = model.prepare(canvas, [PROMPT])
    assert not prepared.given["channels"].any() and not prepared.given["image_embeds"].any()
    known = prepared.canvas.known["video"]
    assert known[:, :, 0].any()
    *_, last = fill(model, prepared, Schedule(levels=tuple((one,) for one in levels(model))), seed=0, solver=euler)
    pinned = prepared.canvas.tracks["video"].x
    assert torch.equal(last.z["video"][known.expand_as(pinned)], pinned[known.expand_as(pinned)])


def test_a_folder_says_how_far_it_leans_and_which_of_the_published_it_is(folders: dict[str, Path]) -> None:
    said = layout(folders["t2v"])
    found = recognise(said)
    assert found is not None and found.recipes["standard"].guidance == 3.0
    distilled = recognise({**said, "guider": {"guidance_scale": 1.0}})
    assert distilled is not None and distilled.name == "hunyuanvideo-1.5-480p-t2v-distilled"
    few = recognise(layout(folders["i2v-meanflow"]))
    assert few is not None and few.name == "hunyuanvideo-1.5-480p-i2v-step-distilled"
    assert few.recipes["standard"].steps == 8
