"""LTX-Video's checkpoints give in our fill what they give in the pipelines that they were published for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

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
from cinecanvas.models.ltx_decoder import AT_ONCE, Memory, decoded
from cinecanvas.reel import Cut, Reel
from cinecanvas.runtime.memory import Meter
from cinecanvas.runtime.placement import Placement

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
    """Theirs draws what it adds before it decodes and within; ours always adds the same."""
    from diffusers import AutoencoderKLLTXVideo

    for name in ("pipeline_ltx", "pipeline_ltx_image2video"):
        monkeypatch.setattr(f"diffusers.pipelines.ltx.{name}.randn_tensor", lambda shape, **_: strewn(shape))
    monkeypatch.setattr(AutoencoderKLLTXVideo, "decode", seeded(AutoencoderKLLTXVideo.decode))


def seeded(decode: Callable[..., Any]) -> Callable[..., Any]:
    def way(*given: Any, **named: Any) -> Any:
        torch.manual_seed(0)
        return decode(*given, **named)

    return way


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
    """The control of the test above: theirs is told of it four frames later."""
    model = opened(folders["conditions"])
    grid = grid_of(model.card, frames=33, width=96, height=64)
    frames = conditioned(folders["conditions"], monkeypatch, starting(model, grid), {17: pictures(64, 96)})
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


@pytest.mark.parametrize("causal", [False, True], ids=["both-ways", "back"])
@pytest.mark.parametrize("cleaning", [False, True], ids=["plain", "cleaning"])
@pytest.mark.parametrize("cells", [1, 3, 30])
def test_a_decoder_gives_a_few_cells_at_a_time_what_it_gives_of_all(cells: int, cleaning: bool, causal: bool) -> None:
    vae = ltx.autoencoder(cleaning=cleaning, causal=causal)
    z = torch.randn(1, 8, cells, 2, 3, generator=torch.Generator().manual_seed(2))
    time = torch.tensor([0.05]) if cleaning else None
    with torch.inference_mode():
        whole = vae.decode(z, time, return_dict=False)[0]
        parts = [rgb for rgb, _ in decoded(vae.decoder, z.split(AT_ONCE, 2), time, Memory())]
    assert max(rgb.shape[2] for rgb in parts) <= 8 * AT_ONCE
    assert torch.allclose(torch.cat(parts, 2), whole, atol=2e-5)


@pytest.mark.parametrize("kind", ["plain", "cleaning", "causal"])
@pytest.mark.parametrize("split", [2, 11, 29])
def test_a_film_in_windows_is_decoded_as_a_whole(folders: dict[str, Path], kind: str, split: int) -> None:
    """Though the decoder of a window that looks ahead does not see the next: its last frames wait for it."""
    model = opened(folders[kind])
    z = torch.randn(1, 8, 30, 2, 2, generator=torch.Generator().manual_seed(2))
    film = Counted()
    cut = Cut(source=8, fps=8, frames=8 * 29 + 1, crop=(64, 64))
    reel = Reel(
        model,
        cast(Any, film),
        cut,
        grid=grid_of(model.card, frames=8 * 29 + 1, width=64, height=64),
        timed=lambda _: nullcontext(),
    )
    for start, stop in ((0, split), (max(0, split - 4), 30)):
        list(reel.add({"video": z[:, :, start:stop]}, start=start, stop=stop))
    assert psnr(np.stack(film.frames), whole(model, z)) > 60


class Counted:
    """What a reel writes to."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []

    @property
    def count(self) -> int:
        return len(self.frames)

    def add(self, frame: np.ndarray) -> None:
        self.frames.append(frame)


def whole(model: Any, z: torch.Tensor) -> np.ndarray:
    """Frames of latents that are decoded at once, by their autoencoder itself."""
    vae = model._parts.network("vae")
    mean, std = (row.view(1, -1, 1, 1, 1) for row in (vae.latents_mean, vae.latents_std))
    x, time = z * std + mean, None
    if vae.config.timestep_conditioning:
        x, time = 0.975 * x + 0.025 * strewn(x.shape), torch.tensor([0.05])
    with torch.inference_mode():
        rgb = vae.decode(x, time, return_dict=False)[0][0].clamp(-1, 1)
    return ((rgb.movedim(0, -1) + 1) * 127.5).round().byte().numpy()


def test_a_long_film_takes_no_more_memory_to_decode_than_a_short_one(folders: dict[str, Path]) -> None:
    model = opened(folders["plain"], Placement(precision="float32", rehearsed=True))

    def peak(cells: int) -> int:
        with Meter() as meter, meter.phase() as found:
            for _ in model.decode({"video": torch.zeros(1, 8, cells, 2, 2)}):
                pass
        return found[0] - 4 * 8 * cells * 2 * 2  # its latents

    peak(1)  # which loads the network
    assert peak(181) <= peak(31)
