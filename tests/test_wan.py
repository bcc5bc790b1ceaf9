"""Wan's checkpoints give in our fill what they give in the pipeline that they were published for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import wan

from cinecanvas.canvas import Canvas, Track
from cinecanvas.model import Model
from cinecanvas.sampler import fill
from cinecanvas.schedule import full
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


def begun(model: Model, keep: float, *, hole: bool) -> Canvas:
    """A film whose first frame alone is laid: by that keep, and if asked with a hole on its right half."""
    grid = grid_of(model.card, frames=9, width=64, height=32)
    kept = torch.full((1, 1, 1, 32, 64), keep)
    kept[..., 32:] *= not hole
    return Canvas.blank(grid).place("video", pictures(32, 64)[None, :, None], keep=kept)


@pytest.mark.parametrize("kind", ["i2v", "flf2v", "i2v-a14b"])
def test_a_first_frame_that_is_known_in_part_is_pinned_and_that_part_shown(folders: dict[str, Path], kind: str) -> None:
    model = opened(folders[kind])
    prepared = model.prepare(begun(model, 1.0, hole=True), [PROMPT])
    track, shown = prepared.canvas.tracks["video"], prepared.given["channels"][:, :4]
    assert (shown[:, :, 0, :, :4] == 1).all() and not shown[:, :, 0, :, 4:].any() and not shown[:, :, 1:].any()
    known = (track.keep == 1).expand_as(track.x)
    assert known[:, :, 0, :, :4].all() and track.x[:, :, 0].any()
    *_, last = fill(model, prepared, full(2), seed=0, solver=unipc)
    assert torch.equal(last.z["video"][known], track.x[known])


def test_a_first_frame_that_is_softly_known_is_not_shown_and_keeps_what_it_was(folders: dict[str, Path]) -> None:
    model = opened(folders["i2v"])
    prepared = model.prepare(begun(model, 0.4, hole=False), [PROMPT])
    track = prepared.canvas.tracks["video"]
    assert not prepared.given["channels"][:, :4].any()
    assert torch.allclose(track.keep[:, :, 0], torch.tensor(0.4)) and not track.keep[:, :, 1:].any()
    assert torch.equal(track.x[:, :, :1], whole(model, begun(model, 1.0, hole=False)))


def test_a_first_frame_that_is_shown_is_encoded_once(folders: dict[str, Path]) -> None:
    """Its code among the channels is that of its cell, which the network makes."""
    model = opened(folders["i2v"])
    canvas = begun(model, 1.0, hole=False)
    prepared = model.prepare(canvas, [PROMPT])
    track = prepared.canvas.tracks["video"]
    assert not track.keep.any()
    assert torch.equal(track.x[:, :, :1], prepared.given["channels"][:, 4:, :1])
    assert torch.equal(track.x[:, :, :1], whole(model, canvas))


def whole(model: Any, canvas: Canvas) -> torch.Tensor:
    """The code of the first frame alone."""
    with torch.inference_mode():
        return model._encode(canvas.tracks["video"].x[:, :, :1])


def test_a_window_in_mid_film_is_shown_what_it_goes_on_from(folders: dict[str, Path]) -> None:
    model = opened(folders["i2v"])
    grid = grid_of(model.card, frames=9, width=64, height=32)
    keep = torch.zeros(1, 1, 8, 32, 64)
    keep[:, :, :4] = 1
    film = Canvas({"video": Track(pictures(8, 32, 64).movedim(0, 1)[None], keep, grid.pixels, start=5)})
    prepared = model.prepare(film, [PROMPT])
    assert prepared.canvas.tracks["video"].keep[0, 0, :, 0, 0].tolist() == [1, 0]
    assert prepared.given["channels"][0, :4, :, 0, 0].T.tolist() == [[1] * 4, [0] * 4]
