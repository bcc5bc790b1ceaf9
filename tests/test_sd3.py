"""Stable Diffusion 3's checkpoints give in our fill what they give in the pipelines that they were published for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import NEGATIVE, PROMPT, SEED, grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import sd3

from cinecanvas.canvas import Canvas
from cinecanvas.guidance import guided
from cinecanvas.model import Model
from cinecanvas.models.latents import lifted
from cinecanvas.sampler import fill
from cinecanvas.schedule import Schedule
from cinecanvas.solvers import euler

STEPS, WIDTH, HEIGHT = 4, 64, 48


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("sd3")
    return {kind: sd3.save(place / kind, kind) for kind in sd3.KINDS}


@pytest.fixture(autouse=True)
def the_likeliest_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs draws a picture's code at random; ours takes the likeliest, which is nearer to the picture."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution as Code

    monkeypatch.setattr(Code, "sample", lambda code, generator=None: code.mode())


def theirs(folder: Path, ending: str = "", *, prompt: str = PROMPT, output: str = "np", **asked: Any) -> Any:
    import diffusers

    left_out = {"text_encoder_3": None, "tokenizer_3": None} if folder.name == "without-t5" else {}
    kind = getattr(diffusers, f"StableDiffusion3{ending}Pipeline")
    pipe = kind.from_pretrained(folder, dtype=torch.float32, **left_out)
    pipe.set_progress_bar_config(disable=True)
    asked = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "width": WIDTH, "height": HEIGHT, **asked}
    return pipe(prompt=prompt, negative_prompt=NEGATIVE, output_type=output, **asked).images


def levels(model: Model, *, shift: float | None = None) -> tuple[float, ...]:
    recipe = model.card.recipes["standard"]
    return recipe.ramp.levels(STEPS, shift=shift or recipe.shift, cells=0)


def blank(model: Model) -> Canvas:
    return Canvas.blank(grid_of(model.card, frames=1, width=WIDTH, height=HEIGHT))


def noise(model: Model) -> torch.Tensor:
    return starting(model, grid_of(model.card, frames=1, width=WIDTH, height=HEIGHT))[:, :, 0]


@pytest.mark.parametrize("kind", sd3.KINDS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_words_become_the_same_picture(folders: dict[str, Path], kind: str, guidance: float) -> None:
    model = opened(folders[kind])
    wanted = theirs(folders[kind], latents=noise(model), guidance_scale=guidance)
    assert psnr(ours(model, blank(model), levels(model), guidance=guidance), wanted) > 60


def test_another_shift_scale_or_prompt_is_seen(folders: dict[str, Path]) -> None:
    model = opened(folders["medium"])
    own = ours(model, blank(model), levels(model), guidance=3.0)
    latents = noise(model)
    assert psnr(ours(model, blank(model), levels(model, shift=3.3), guidance=3.0), own) < 60
    for other in ({"guidance_scale": 3.5}, {"prompt": "a blue ball"}):
        assert psnr(own, theirs(folders["medium"], latents=latents, **other)) < 60


def test_a_picture_is_remixed_to_the_same(folders: dict[str, Path]) -> None:
    """By 0.5 in theirs: the last half of its steps. Here the noise at their first is the ceiling."""
    model = opened(folders["3.5-medium"])
    first, down = pictures(HEIGHT, WIDTH), levels(model)
    canvas = blank(model).place("video", first[None, :, None], keep=1 - down[STEPS // 2])
    code = model.prepare(canvas, [PROMPT]).canvas.tracks["video"].x[:, :, 0]
    begun = (1 - down[STEPS // 2]) * code + down[STEPS // 2] * noise(model)
    wanted = theirs(folders["3.5-medium"], "Img2Img", image=picture(first), strength=0.5, latents=begun)
    assert psnr(ours(model, canvas, down, guidance=3.0), wanted) > 60


def test_a_hole_in_a_picture_is_painted_alike_and_what_is_known_stays(folders: dict[str, Path]) -> None:
    """Theirs forgets the shift of the code when it decodes: latents are compared. Its known cells have our noise."""
    model = opened(folders["medium"])
    first, down = pictures(HEIGHT, WIDTH), levels(model)
    keep = torch.ones(1, 1, 1, HEIGHT, WIDTH)
    keep[..., 16:40, 16:48] = 0
    canvas = blank(model).place("video", first[None, :, None], keep=keep)
    asked = guided(model, 3.0, negative=NEGATIVE, interval=(0.0, 1.0))
    prepared = asked.prepare(canvas, [PROMPT])
    track = prepared.canvas.tracks["video"]
    schedule = Schedule(levels=tuple((level,) for level in down))
    *_, last = fill(asked, prepared, schedule, seed=SEED, solver=euler)
    known = (track.keep >= 1)[:, :, 0]
    assert bool(known.any()) and not bool(known.all())
    assert torch.equal(
        last.z["video"][:, :, 0][known.expand(-1, 16, -1, -1)], track.x[:, :, 0][known.expand(-1, 16, -1, -1)]
    )
    one = torch.ones_like(track.keep)
    begun = torch.where(known, lifted(track.x, 0 * one, one)[:, :, 0], noise(model))
    mask = picture((1 - keep[0, :, 0]).expand(3, -1, -1) * 2 - 1)
    wanted = theirs(
        folders["medium"],
        "Inpaint",
        image=picture(first),
        mask_image=mask,
        strength=1.0,
        latents=begun,
        output="latent",
    )
    assert float((last.z["video"][:, :, 0] - wanted).norm() / wanted.norm()) < 1e-5


def test_decoding_in_tiles_keeps_the_size(folders: dict[str, Path]) -> None:
    from cinecanvas.runtime.placement import Placement

    whole = opened(folders["medium"])
    tiled = opened(folders["medium"], Placement(precision="float32", tile=32))
    z = {"video": torch.randn(1, 16, 1, 8, 8, generator=torch.Generator().manual_seed(1))}
    one, other = (next(model.decode(z)).rgb for model in (whole, tiled))
    assert one.shape == other.shape == (1, 64, 64, 3) and not np.array_equal(one, other)
