"""LTX-Video's checkpoints give in our fill what they give in the pipelines that they were published for."""

from __future__ import annotations

from dataclasses import replace
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
from cinecanvas.models.keyframes import apart
from cinecanvas.models.latents import rolled
from cinecanvas.models.ltx import strewn

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
            lambda shape, **_: strewn(shape),
        )


@pytest.mark.parametrize("kind", ["plain", "cleaning"])
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


def conditioned(
    folder: Path, monkeypatch: pytest.MonkeyPatch, starting: torch.Tensor, laid: dict[int, torch.Tensor]
) -> np.ndarray:
    """Their frames with pictures (3, H, W) and clips (3, t, H, W) from those frames on."""
    from diffusers import LTXConditionPipeline
    from diffusers.pipelines.ltx import pipeline_ltx_condition as module

    monkeypatch.setattr(module, "retrieve_latents", lambda code, **_: code.latent_dist.mode())
    monkeypatch.setattr(
        module, "randn_tensor", lambda shape, **_: starting if shape == starting.shape else torch.zeros(shape)
    )
    pipe = LTXConditionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    conditions = [
        module.LTXVideoCondition(image=picture(rgb), frame_index=at)
        if rgb.ndim == 3
        else module.LTXVideoCondition(video=[picture(frame) for frame in rgb.unbind(1)], frame_index=at)
        for at, rgb in laid.items()
    ]
    return pipe(
        conditions=conditions or None,
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        frame_rate=8,
        width=96,
        height=64,
        num_frames=33,
        image_cond_noise_scale=0.0,
        output_type="np",
    ).frames[0]


def film(frames: int) -> torch.Tensor:
    """A clip (3, frames, 64, 96)."""
    return pictures(frames, 64, 96).movedim(0, 1)


LAID = {
    "words": {},
    "first-frame": {0: pictures(64, 96)},
    "frame-within-cell": {13: pictures(64, 96)},
    "frame-at-the-end-of-cell": {16: pictures(64, 96)},
    "first-clip": {0: film(17)},
    "clip-that-fills-no-cell": {12: film(9)},
    "two-frames": {5: pictures(64, 96), 22: pictures(2, 64, 96)[1]},
    "first-clip-and-frame": {0: film(9), 27: pictures(64, 96)},
}


@pytest.mark.parametrize("name", LAID)
def test_conditions_become_the_same_frames(
    folders: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs at no `image_cond_noise_scale`, which would blur what is known from step to step; the code of a picture
    is the mean of its distribution in both, where theirs draws."""
    model = opened(folders["conditions"])
    grid = grid_of(model.card, frames=33, width=96, height=64)
    frames = conditioned(folders["conditions"], monkeypatch, starting(model, grid), LAID[name])
    assert psnr(ours(model, laid(grid, LAID[name]), levels(model, grid), guidance=3.0), frames) > 60


def test_a_keyframe_at_another_frame_gives_other_frames(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: theirs is told a frame later, which moves no pixel of what is shown."""
    model = opened(folders["conditions"])
    grid = grid_of(model.card, frames=33, width=96, height=64)
    frames = conditioned(folders["conditions"], monkeypatch, starting(model, grid), {14: pictures(64, 96)})
    canvas = laid(grid, {13: pictures(64, 96)})
    assert psnr(ours(model, canvas, levels(model, grid), guidance=3.0), frames) < 60


def laid(grid: Grid, what: dict[int, torch.Tensor]) -> Canvas:
    """A canvas with pictures (3, H, W) and clips (3, t, H, W) from those frames on."""
    canvas = Canvas.blank(grid)
    for at, rgb in what.items():
        canvas = canvas.place("video", (rgb[:, None] if rgb.ndim == 3 else rgb)[None], at=(at, 0, 0))
    return canvas


def told(model: Model, canvas: Canvas, sigma: float) -> dict[str, torch.Tensor]:
    """What the network is told of a canvas at one level."""
    prepared = model.prepare(canvas, [PROMPT])
    track = prepared.canvas.tracks["video"]
    heard: dict[str, torch.Tensor] = {}
    network = model._parts.network("transformer")
    hook = network.register_forward_pre_hook(lambda _, args, given: heard.update(given), with_kwargs=True)
    model.denoise({"video": track.x}, {"video": (1 - track.keep) * sigma}, prepared)
    hook.remove()
    return heard


@pytest.mark.parametrize("kind", ["plain", "conditions"])
def test_a_keyframe_in_a_later_window_stands_where_it_stood_in_the_film(folders: dict[str, Path], kind: str) -> None:
    model = opened(folders[kind])
    canvas = laid(grid_of(model.card, frames=33, width=96, height=64), {0: film(9), 21: film(1)})
    whole, later = (told(model, one, 0.5) for one in (canvas, canvas.window("video", 1, 33)))
    own = 2 * 3  # tokens of the first cell
    assert torch.equal(whole["video_coords"][:, :, own:], later["video_coords"])
    assert torch.equal(whole["timestep"][:, own:], later["timestep"])
    assert bool((whole["timestep"][:, -own:] == 0).all())
    assert torch.equal(whole["hidden_states"][:, -own:], later["hidden_states"][:, -own:])


def test_a_keyframe_turns_with_its_ring(folders: dict[str, Path]) -> None:
    model = opened(folders["conditions"])
    canvas = laid(grid_of(model.card, frames=33, width=96, height=64), {21: film(1)}).window("video", 1, 33)
    ring = replace(canvas, closed=True)
    turns = set()
    for sigma in (0.5, 0.61, 0.84):
        prepared = model.prepare(ring, [PROMPT]).canvas.tracks["video"]
        turn = rolled(prepared.x, (1 - prepared.keep) * sigma)
        turns.add(turn)
        seconds = told(model, ring, sigma)["video_coords"][0, 0]
        cell = (2 - turn) % 4  # it is the fifth frame of the third cell
        assert seconds[-1] == seconds[cell * 6] + 4 / 8
    assert len(turns) > 1


def test_frames_apart_are_pictures_or_clips_within_what_is_known() -> None:
    cells = (range(1), range(1, 9), range(9, 17), range(17, 25))

    def shown(*known: range) -> tuple[range, ...]:
        return apart([any(frame in run for run in known) for frame in range(25)], cells, clip=9)

    assert shown(range(17)) == ()  # whole cells are pinned
    assert shown(range(8, 9), range(12, 13)) == (range(8, 9), range(12, 13))
    assert shown(range(4, 7)) == (range(4, 5), range(5, 6), range(6, 7))  # too few for a clip
    assert shown(range(3, 20)) == (range(3, 12), range(11, 20))  # the ends of a clip that holds one cell
    assert shown(range(2, 16)) == (range(2, 11), range(7, 16))
    assert shown(range(18)) == (range(17, 18),)
