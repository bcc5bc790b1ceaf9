"""Helios gives in our windows, from the request to the file, what its pipeline gives chunk by chunk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, SEED, grid_of, opened, picture, pictures, psnr
from tiny import helios

from cinecanvas import request as tasks
from cinecanvas.canvas import Canvas, Reference, Track
from cinecanvas.errors import BadWeights
from cinecanvas.generate import Done, generate
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.intake import take
from cinecanvas.media.video import read, write
from cinecanvas.model import Model
from cinecanvas.models import shelf
from cinecanvas.models.helios import NOISE
from cinecanvas.request import Request
from cinecanvas.sampler import fill, noise
from cinecanvas.schedule import full
from cinecanvas.settings import Settings, settings

STEPS, GUIDANCE, WIDTH, HEIGHT = 3, 3.0, 64, 32
SHIFTED = {"use_dynamic_shifting": True}
KINDS: dict[str, dict[str, Any]] = {"plain": {}, "shifted": SHIFTED, "linear": {**SHIFTED, "time_shift_type": "linear"}}
ASKED: dict[str, Any] = {"width": WIDTH, "height": HEIGHT, "steps": STEPS, "guidance": GUIDANCE, "seed": SEED}


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    place = tmp_path_factory.mktemp("helios")
    here = settings({"CINECANVAS_HOME": str(place / "home"), "CINECANVAS_PRECISION": "float32"})
    for kind, scheduler in KINDS.items():
        shelf.add(kind, helios.save(place / kind, **scheduler), here)
    return here


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.at(tmp_path_factory.mktemp("store"))


def folder_of(kind: str, where: Settings) -> Path:
    found = shelf.folder_of(kind, where)
    assert found is not None
    return found


def ours(request: Request, where: Settings, out: Path, store: Store | None = None) -> tuple[np.ndarray, Done]:
    """The frames (T, H, W, 3) of the whole trip, written as pictures."""

    def models(name: str) -> Model:
        return opened(folder_of(name, where))

    asked = request.model_copy(update={"negative": NEGATIVE})
    *_, done = generate(asked, out=f"{out}/", where=where, store=store, models=models)
    assert isinstance(done, Done)
    return np.stack(list(read(f"{out}/"))), done


def theirs(made: Done, where: Settings, *, chunks: int, known: int = 0, **asked: Any) -> np.ndarray:
    """The frames of diffusers' pipeline, which are 4 n + 1, over the same levels.

    What it draws is set to what ours draws: a code is its mean; what is laid has a noise of 0.123, always the same for
    a cell. And what ours begins with is at the first level, 0.999 or a little more; theirs would take the whole noise.
    """
    from diffusers import HeliosPipeline
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
    from diffusers.pipelines.helios import pipeline_helios

    step = made.plan.passes[-1]
    levels = [level for (level,) in step.schedule.levels]
    folder = folder_of(step.model, where)
    pipe = HeliosPipeline.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    grid = grid_of(opened(folder).card, frames=33 * (known + chunks), width=WIDTH, height=HEIGHT)
    eps = noise(Track.blank(grid, channels=16), seed=SEED, key=step.name)
    draws = [levels[0] * part for part in eps.split(9, 2)[known:]]
    if asked:
        begin, before, *cells = (cell(number) for number in range(2 + 9 * known))
        fixed = [before] if "image" in asked else [torch.cat(cells[9 * i :][:9], 2) for i in range(known)]
        draws = [begin, *fixed, *draws]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline_helios, "randn_tensor", lambda shape, **_: draws.pop(0).expand(shape))
        patch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())
        frames = pipe(
            prompt=PROMPT,
            negative_prompt=NEGATIVE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            width=WIDTH,
            height=HEIGHT,
            num_frames=33 * chunks,
            output_type="np",
            **{f"{what}_noise_sigma_{end}": NOISE for what in ("image", "video") for end in ("min", "max")},
            **asked,
        ).frames[0]
    assert not draws and levels == pytest.approx(pipe.scheduler.sigmas.tolist(), abs=1e-6)
    return np.asarray(frames)


def cell(number: int) -> torch.Tensor:
    """The noise on one cell of what is laid (1, 16, 1, H', W')."""
    return torch.randn(16, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(number))[None, :, None]


def kept(store: Store, folder: Path, frames: int) -> Asset:
    """A picture or a film of smooth colours."""
    rgb = ((pictures(frames, HEIGHT, WIDTH).movedim(1, -1) + 1) * 127.5).round().byte().numpy()
    path = folder / ("a.mp4" if frames > 1 else "a.png")
    write([rgb], path, fps=24)
    return take(store, path)


@pytest.mark.parametrize(("kind", "chunks"), [("plain", 1), ("linear", 2), ("shifted", 5)])
def test_words_become_the_same_frames(kind: str, chunks: int, where: Settings, tmp_path: Path) -> None:
    """Five chunks are more than a window holds: the last knows of the beginning by reference."""
    asked = tasks.text_to_video(PROMPT, model=kind, seconds=33 * chunks / 24, **ASKED)
    frames, made = ours(asked, where, tmp_path)
    known = theirs(made, where, chunks=chunks)
    assert len(frames) == 33 * chunks and len(made.plan.passes) == chunks
    assert psnr(frames[: len(known)], known) > 80


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_a_picture_becomes_the_same_frames(chunks: int, where: Settings, store: Store, tmp_path: Path) -> None:
    asked = tasks.animate(kept(store, tmp_path, 1), PROMPT, model="plain", seconds=33 * chunks / 24, **ASKED)
    frames, made = ours(asked, where, tmp_path / "ours", store)
    known = theirs(made, where, chunks=chunks, image=picture(pictures(1, HEIGHT, WIDTH)[0]))
    assert psnr(frames[: len(known)], known) > 80


@pytest.mark.parametrize("whole", [1, 3])
def test_a_film_goes_on_in_the_same_frames(whole: int, where: Settings, store: Store, tmp_path: Path) -> None:
    """Theirs gives what is new alone; with ours it comes after the film."""
    from PIL import Image

    film = kept(store, tmp_path, 33 * whole)
    asked = tasks.extend(film, PROMPT, model="plain", seconds=66 / 24, **ASKED)
    frames, made = ours(asked, where, tmp_path / "ours", store)
    shown = [Image.fromarray(frame) for frame in read(tmp_path / "a.mp4")]
    known = theirs(made, where, chunks=2, known=whole, video=shown)
    assert psnr(frames[33 * whole :][: len(known)], known) > 80


def test_other_words_another_scale_or_shift_are_other_frames(where: Settings, tmp_path: Path) -> None:
    asked = tasks.text_to_video(PROMPT, model="plain", seconds=33 / 24, **ASKED)
    one, _ = ours(asked, where, tmp_path / "one")
    others: dict[str, Any] = {
        "words": {"prompt": "a blue ball"},
        "scale": {"guidance": 5.0},
        "shift": {"model": "shifted"},
    }
    for name, instead in others.items():
        other, _ = ours(asked.model_copy(update=instead), where, tmp_path / name)
        assert psnr(one, other) < 60, name


def test_history_is_seen(where: Settings, store: Store, tmp_path: Path) -> None:
    """A film that was laid changes what comes after it, though noise and words are the same."""
    asked = tasks.text_to_video(PROMPT, model="plain", seconds=66 / 24, **ASKED)
    alone, _ = ours(asked, where, tmp_path / "alone")
    film = tasks.extend(kept(store, tmp_path, 33), PROMPT, model="plain", seconds=33 / 24, **ASKED)
    after, _ = ours(film, where, tmp_path / "after", store)
    assert psnr(alone[33:], after[33:]) < 60


def test_a_film_is_decoded_in_parts_as_in_one(where: Settings) -> None:
    model = opened(folder_of("plain", where))
    z = torch.randn(1, 16, 27, 4, 8, generator=torch.Generator().manual_seed(1))
    whole = np.concatenate([part.rgb for part in model.decode({"video": z})])
    assert len(whole) == 99
    alone = np.concatenate([part.rgb for part in model.decode({"video": z[:, :, 9:18]})])
    assert (whole[33:66] == alone).all()
    parts, memory = [], None
    for some in z.split((5, 4, 9, 1, 8), 2):
        way = model.decode({"video": some}, memory=memory)
        while True:
            try:
                parts.append(next(way).rgb)
            except StopIteration as end:
                memory = end.value
                break
    assert (np.concatenate(parts) == whole).all()


def test_what_is_laid_in_a_later_chunk_comes_back_exact(where: Settings) -> None:
    """A window in mid-film, of which the past is known and a part of what is to be made too."""
    model = opened(folder_of("plain", where))
    grid = grid_of(model.card, frames=132, width=WIDTH, height=HEIGHT)
    rgb = pictures(66, HEIGHT, WIDTH).movedim(0, 1)[None]
    canvas = Canvas({"video": Track.blank(grid.pixels, channels=3)}).place("video", rgb, at=(66, 0, 0))
    canvas.tracks["video"].keep[:, :, 99 + 5 :, :, 32:] = 0
    window = canvas.window("video", 66, 132)
    prepared = model.prepare(replace(window, references=(Reference(torch.zeros(1, 16, 1, 4, 8), 0.0),)), [PROMPT])
    track = prepared.canvas.tracks["video"]
    assert track.start == 18 and track.x.shape[2] == 18 and track.times()[9] == 99 / grid.fps
    *_, last = fill(model, prepared, full(2), seed=SEED)
    known = prepared.canvas.known["video"].expand_as(track.x)
    assert bool(known[:, :, :11].all()) and not bool(known[:, :, 11:, :, 4:].any())
    assert torch.equal(last.z["video"][known], track.x[known])


def test_a_picture_alone_is_the_networks_to_make_and_a_film_is_held(where: Settings) -> None:
    model = opened(folder_of("plain", where))
    canvas = Canvas.blank(grid_of(model.card, frames=33, width=WIDTH, height=HEIGHT))
    rgb = pictures(5, HEIGHT, WIDTH).movedim(0, 1)[None]
    for frames, cells in ((1, 0), (5, 2)):
        prepared = model.prepare(canvas.place("video", rgb[:, :, :frames]), [PROMPT])
        assert int(prepared.canvas.known["video"][0, 0, :, 0, 0].sum()) == cells
        assert {"prefix", "before"} <= set(prepared.given)


def test_those_at_three_sizes_are_refused(tmp_path: Path) -> None:
    helios.save(tmp_path / "mid", stages=3, stage_range=[0, 1 / 3, 2 / 3, 1])
    with pytest.raises(BadWeights, match="three sizes"):
        opened(tmp_path / "mid")
