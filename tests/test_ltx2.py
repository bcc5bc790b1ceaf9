"""LTX-2's checkpoints give in our fill the frames and the sound that they give in their own pipelines."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, filled, grid_of, opened, picture, pictures, psnr, sounding, starting
from tiny import ltx2

from cinecanvas.canvas import Canvas
from cinecanvas.errors import Unsupported
from cinecanvas.generate import Done, generate
from cinecanvas.grid import Grid
from cinecanvas.guidance import guided
from cinecanvas.media.assets import Store
from cinecanvas.media.audio import Voice
from cinecanvas.media.audio import read as heard_in
from cinecanvas.model import Model
from cinecanvas.models import shelf
from cinecanvas.models.ltx2 import CARDS
from cinecanvas.request import loop, text_to_video
from cinecanvas.sampler import Fill, fill
from cinecanvas.schedule import Schedule
from cinecanvas.settings import Settings, settings
from cinecanvas.solvers import euler

STEPS = 4
SIZE = {"width": 96, "height": 64, "num_frames": 17}
GUIDED = {"guidance_scale": 3.0, "audio_guidance_scale": 7.0, "guidance_rescale": 0.7, "audio_guidance_rescale": 0.7}
SEEN = 80  # dB; other words, which move a tiny network little, leave up to 71
LEANING = {"stg_scale": 1.0, "audio_stg_scale": 1.0, "modality_scale": 3.0, "audio_modality_scale": 3.0}
HEARD = 5e-5  # the most by which samples in [-1, 1] may differ


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("ltx2")
    return {kind: ltx2.save(place / kind, kind) for kind in ltx2.KINDS}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Model]:
    return {kind: opened(folder) for kind, folder in folders.items()}


def theirs(
    folder: Path, name: str, film: torch.Tensor, sound: torch.Tensor, **asked: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Frames in 0..1, and samples (s, 2), of the pipeline of that name from this noise."""
    import diffusers

    pipe = getattr(diffusers, name).from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    # latents that are given are brought to unit variance, even if they are noise
    mean, std = (x.view(1, -1, 1, 1, 1) for x in (pipe.vae.latents_mean, pipe.vae.latents_std))
    low, wide = (x.view(1, -1, 1, sound.shape[3]) for x in (pipe.audio_vae.latents_mean, pipe.audio_vae.latents_std))
    frames, samples = pipe(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        frame_rate=8,
        latents=film * std + mean,
        audio_latents=sound[..., 0] * wide + low,
        use_cross_timestep=pipe.transformer.config.cross_attn_mod,
        output_type="np",
        return_dict=False,
        **{
            "stg_scale": 0.0,
            "audio_stg_scale": 0.0,
            "modality_scale": 1.0,
            "audio_modality_scale": 1.0,
            "num_inference_steps": STEPS,
            **asked,
        },
    )
    return frames[0], samples[0].T.numpy()


def made(
    model: Model,
    canvas: Canvas,
    grid: Grid,
    *,
    guidance: float = 3.0,
    sound: float = 7.0,
    rescale: float = 0.7,
    hindered: tuple[tuple[str, float], ...] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) uint8 and samples (s, 2) of our fill."""
    asked = guided(
        model,
        guidance,
        sound=sound,
        negative=NEGATIVE,
        interval=(0.0, 1.0),
        rescale=rescale,
        hindered=hindered,
    )
    return shown(model, filled(asked, canvas, levels(model, grid)))


def shown(model: Model, *parts: Mapping[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Frames and samples of latents, decoded part after part."""
    frames, memory = [], None
    for part in parts:
        way = model.decode(dict(part), memory=memory)
        while True:
            try:
                frames.append(next(way))
            except StopIteration as end:
                memory = end.value
                break
    return np.concatenate([f.rgb for f in frames]), np.concatenate([f.sound for f in frames if f.sound is not None])


def levels(model: Model, grid: Grid) -> tuple[float, ...]:
    moments, down, across = grid.cells
    return model.card.recipes["standard"].ramp.levels(STEPS, shift=1.0, cells=moments * down * across)


@pytest.mark.parametrize("kind", ltx2.KINDS)
def test_words_become_the_same_frames_and_the_same_sound(
    folders: dict[str, Path], models: dict[str, Model], kind: str
) -> None:
    model = models[kind]
    grid = grid_of(model.card, frames=17, width=96, height=64)
    frames, samples = theirs(
        folders[kind], "LTX2Pipeline", starting(model, grid), sounding(model, grid), **SIZE, **GUIDED
    )
    rgb, sound = made(model, Canvas.blank(grid), grid)
    assert psnr(rgb, frames) > SEEN
    assert sound.shape == samples.shape and abs(sound - samples).max() < HEARD < sound.std() / 100


@pytest.mark.parametrize("kind", ltx2.KINDS)
def test_leaning_away_from_a_hindered_network_gives_the_same(
    folders: dict[str, Path], models: dict[str, Model], kind: str
) -> None:
    """All four answers of the recipe of each: 2.0 gives the same when its attention is to be skipped."""
    model = models[kind]
    grid = grid_of(model.card, frames=17, width=96, height=64)
    asked = {**SIZE, **GUIDED, **LEANING, "spatio_temporal_guidance_blocks": [1]}
    frames, samples = theirs(folders[kind], "LTX2Pipeline", starting(model, grid), sounding(model, grid), **asked)
    rgb, sound = made(model, Canvas.blank(grid), grid, hindered=model.card.recipes["standard"].hindered)
    assert psnr(rgb, frames) > SEEN and abs(sound - samples).max() < HEARD
    without, quiet = made(model, Canvas.blank(grid), grid)
    assert psnr(rgb, without) < SEEN and abs(sound - quiet).max() > HEARD


@pytest.mark.parametrize("kind", ltx2.KINDS)
def test_a_picture_becomes_the_same_frames_and_the_same_sound(
    folders: dict[str, Path], models: dict[str, Model], kind: str
) -> None:
    """Without rescaling: theirs takes the contrast of the picture's own cells for noise as it is at that step."""
    model = models[kind]
    grid = grid_of(model.card, frames=17, width=96, height=64)
    first = pictures(64, 96)
    canvas = Canvas.blank(grid).place("video", first[None, :, None])
    film = starting(model, grid)
    film[:, :, :1] = model.prepare(canvas, [PROMPT]).canvas.tracks["video"].x[:, :, :1]
    scales = {**GUIDED, "guidance_rescale": 0.0, "audio_guidance_rescale": 0.0}
    asked = {**SIZE, **scales, "image": picture(first), "image_crf": 0}
    frames, samples = theirs(folders[kind], "LTX2ImageToVideoPipeline", film, sounding(model, grid), **asked)
    rgb, sound = made(model, canvas, grid, rescale=0.0)
    assert psnr(rgb, frames) > SEEN
    assert abs(sound - samples).max() < HEARD < sound.std() / 100


@pytest.mark.parametrize("kind", ltx2.KINDS)
def test_a_film_goes_on_to_the_same_frames_and_the_same_sound(
    folders: dict[str, Path], models: dict[str, Model], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs draws noise where the clip is not; here it draws ours."""
    from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

    model = models[kind]
    grid = grid_of(model.card, frames=17, width=96, height=64)
    clip = pictures(9, 64, 96)
    canvas = Canvas.blank(grid).place("video", clip.movedim(0, 1)[None])
    film, sound = starting(model, grid), sounding(model, grid)
    noises = {x.shape[1:]: x for x in (film.flatten(2).transpose(1, 2), sound[..., 0].transpose(1, 2).flatten(2))}
    where = "diffusers.pipelines.ltx2.pipeline_ltx2_condition.randn_tensor"
    monkeypatch.setattr(where, lambda shape, **_: noises[torch.Size(shape)[1:]])
    condition = LTX2VideoCondition(frames=[picture(rgb) for rgb in clip], index=0, strength=1.0)
    scales = {**GUIDED, "guidance_rescale": 0.0, "audio_guidance_rescale": 0.0}
    asked = {**SIZE, **scales, "conditions": [condition]}
    frames, samples = theirs(folders[kind], "LTX2ConditionPipeline", film, sound, **asked)
    rgb, heard = made(model, canvas, grid, rescale=0.0)
    assert psnr(rgb, frames) > SEEN and abs(heard - samples).max() < HEARD


def test_eight_steps_of_the_distilled_give_the_same(
    folders: dict[str, Path], models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the levels that diffusers lists for it, which its scheduler must leave as they are."""
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.pipelines.ltx2.utils import DISTILLED_SIGMA_VALUES

    monkeypatch.setattr(
        FlowMatchEulerDiscreteScheduler, "from_pretrained", lambda *_, **__: FlowMatchEulerDiscreteScheduler()
    )
    model, recipe = models["2.3"], CARDS["ltx-2.3-distilled"].recipes["standard"]
    grid = grid_of(model.card, frames=17, width=96, height=64)
    alone = {"guidance_scale": 1.0, "audio_guidance_scale": 1.0, "guidance_rescale": 0.0, "audio_guidance_rescale": 0.0}
    asked = {**SIZE, **alone, "sigmas": DISTILLED_SIGMA_VALUES, "num_inference_steps": 8}
    frames, samples = theirs(folders["2.3"], "LTX2Pipeline", starting(model, grid), sounding(model, grid), **asked)
    assert recipe.guidance == 1 and not recipe.hindered and recipe.sound is None
    levels = recipe.ramp.levels(recipe.steps, shift=recipe.shift, cells=18)
    rgb, heard = shown(model, filled(model, Canvas.blank(grid), levels))
    assert psnr(rgb, frames) > SEEN and abs(heard - samples).max() < HEARD


@pytest.mark.parametrize("kind", ltx2.KINDS)
def test_another_scale_or_other_words_leave_other_frames_and_samples(models: dict[str, Model], kind: str) -> None:
    """So sameness is not by chance."""
    model = models[kind]
    grid = grid_of(model.card, frames=17, width=96, height=64)
    canvas = Canvas.blank(grid)
    rgb, sound = made(model, canvas, grid)
    for asked in ({"guidance": 2.0}, {"sound": 6.0}):
        other, heard = made(model, canvas, grid, **asked)
        assert psnr(rgb, other) < SEEN and abs(heard - sound).max() > 5 * HEARD
    rgb, sound = shown(model, filled(model, canvas, levels(model, grid)))
    other, heard = shown(model, filled(model, canvas, levels(model, grid), prompt="blue"))
    assert psnr(rgb, other) < SEEN and abs(heard - sound).max() > 5 * HEARD


@pytest.mark.parametrize("kind", ltx2.KINDS)
def test_sound_decoded_in_parts_is_as_it_is_whole(models: dict[str, Model], kind: str) -> None:
    model = models[kind]
    assert model.card.sound is not None
    after = model.card.sound.after
    torch.manual_seed(3)
    film, sound = torch.randn(1, 8, 10, 2, 2), torch.randn(1, 8, 230, 2, 1)
    _, whole = shown(model, {"video": film, "sound": sound})
    cuts = ((0, 0), (4, 80), (7, 160), (10, 230))
    parts = [
        {"video": film[:, :, a:c], "sound": sound[:, :, b:d], "sound_after": sound[:, :, d : d + after]}
        for (a, b), (c, d) in itertools.pairwise(cuts)
    ]
    _, joined = shown(model, *parts)
    assert joined.shape == whole.shape and abs(joined - whole).max() < HEARD


@pytest.fixture(scope="module")
def where(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A machine on which both were added."""
    home = tmp_path_factory.mktemp("home")
    here = settings({"CINECANVAS_HOME": str(home), "CINECANVAS_PRECISION": "float32"})
    for kind, folder in folders.items():
        shelf.add(f"ltx2-{kind}", folder, here)
    return here


@pytest.mark.parametrize("kind", ltx2.KINDS)
def test_a_film_of_two_windows_sounds_as_its_latents_do_whole(
    models: dict[str, Model], kind: str, where: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[np.ndarray] = []
    add = Voice.add

    def overheard(self: Voice, samples: np.ndarray, *, last: bool = False) -> None:
        given.append(samples)
        add(self, samples, last=last)

    monkeypatch.setattr(Voice, "add", overheard)
    store = Store.at(tmp_path / "store")
    request = text_to_video("a fox", model=f"ltx2-{kind}", seconds=12.0, width=64, height=64, steps=2, sound=True)
    *_, done = generate(request, out=tmp_path / "a.mp4", store=store, where=where)
    assert isinstance(done, Done) and done.videos[0].sound == "aac" and len(done.plan.passes) == 2
    windows = [Fill.unpack(store.get_named(step.key) or b"").z for step in done.plan.passes]
    shared = windows[0]["sound"].shape[2] + windows[1]["sound"].shape[2] - round(12.0 * 25 + 1)
    before, after = (z["sound"] for z in windows)
    assert shared > 0 and torch.equal(before[:, :, -shared:], after[:, :, :shared])
    sound = torch.cat([before, after[:, :, shared:]], 2)
    _, whole = shown(models[kind], {"video": windows[0]["video"][:, :, :1], "sound": sound})
    joined = np.concatenate(given)
    assert joined.shape == whole.shape and abs(joined - whole).max() < HEARD
    assert models[kind].card.sound is not None
    rate = models[kind].card.sound.rate
    written = np.concatenate([*heard_in(tmp_path / "a.mp4")])[:: 48_000 // rate]
    size = min(len(written), len(whole))
    one, other = (x[:size, 1] - x[:size, 1].mean() for x in (written, whole))
    # AAC leaves out what is high; a millisecond aside nothing of this noise would agree
    assert (one * other).sum() > 0.7 * np.sqrt((one**2).sum() * (other**2).sum())


def test_without_being_asked_the_film_is_silent_and_its_passes_are_the_same(where: Settings, tmp_path: Path) -> None:
    request = text_to_video("a fox", model="ltx2-2.0", seconds=1.0, width=64, height=64, steps=2, seed=1)
    *_, quiet = generate(request, out=tmp_path / "a.mp4", where=where)
    *_, loud = generate(request.model_copy(update={"sound": True}), out=tmp_path / "b.mp4", where=where)
    assert isinstance(quiet, Done) and isinstance(loud, Done) and not quiet.videos[0].sound and loud.videos[0].sound
    assert quiet.plan.passes[0].key == loud.plan.passes[0].key
    with pytest.raises(Unsupported, match="sound of a loop"):
        next(generate(loop("a fox", model="ltx2-2.0", seconds=1.0, sound=True), out=tmp_path / "c.mp4", where=where))


@pytest.mark.parametrize("kind", ltx2.KINDS)
def test_a_later_window_keeps_what_it_knows_and_sounds_where_it_lies(models: dict[str, Model], kind: str) -> None:
    """Its cells stand where second ones stood in training, and its sound at the same seconds."""
    model = models[kind]
    grid = grid_of(model.card, frames=33, width=64, height=64)
    first, later = Canvas.blank(grid), Canvas.blank(grid).window("video", 17, 33)
    whole, part = (model.prepare(canvas, [PROMPT]).canvas for canvas in (first, later))
    assert part.tracks["video"].start == 3 and part.tracks["sound"].start == round(17 / 8 * 25)
    assert part.tracks["sound"].times()[0] == whole.tracks["sound"].times()[part.tracks["sound"].start]
    torch.manual_seed(1)
    known = {name: torch.randn(track.x[:, :, :1].shape) for name, track in part.tracks.items()}
    prepared = model.prepare(later, [PROMPT])
    canvas = prepared.canvas
    for name, x in known.items():
        canvas = canvas.place(name, x)
    schedule = Schedule(levels=tuple((level,) for level in levels(model, grid)))
    *_, last = fill(model, replace(prepared, canvas=canvas), schedule, seed=3, solver=euler)
    assert all(torch.equal(last.z[name][:, :, :1], x) and last.z[name].isfinite().all() for name, x in known.items())
