"""Stable Diffusion XL's checkpoints give in our fill what they give in the pipelines that they were published for.

Where their steps begin below the noisiest level that was trained, their noise is a little more than the level says
(sqrt(1 + 1 / sigma^2) times, 0.4 % at 30 steps); ours is what it says, so it is given to theirs without that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parity import NEGATIVE, PROMPT, SEED, grid_of, opened, ours, picture, pictures, psnr, starting
from tiny import sdxl

from cinecanvas.canvas import Canvas
from cinecanvas.guidance import guided
from cinecanvas.model import Model
from cinecanvas.models.latents import lifted
from cinecanvas.sampler import fill
from cinecanvas.schedule import Schedule
from cinecanvas.solvers import SOLVERS, euler

STEPS, WIDTH, HEIGHT = 4, 64, 48


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("sdxl")
    return {kind: sdxl.save(place / kind, kind) for kind in sdxl.KINDS}


@pytest.fixture(autouse=True)
def the_likeliest_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs draws a picture's code at random; ours takes the likeliest, which is nearer to the picture."""
    from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution as Code

    monkeypatch.setattr(Code, "sample", lambda code, generator=None: code.mode())


def theirs(folder: Path, ending: str = "", *, negative: str | None = NEGATIVE, output: str = "np", **asked: Any) -> Any:
    import diffusers

    pipe = getattr(diffusers, f"StableDiffusionXL{ending}Pipeline").from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    size = {} if ending == "Img2Img" else {"width": WIDTH, "height": HEIGHT}
    asked = {"prompt": PROMPT, "num_inference_steps": STEPS, "guidance_scale": 3.0, **size, **asked}
    return pipe(negative_prompt=negative, output_type=output, **asked).images


def levels(model: Model, steps: int = STEPS) -> tuple[float, ...]:
    return model.card.recipes["standard"].ramp.levels(steps, shift=1.0, cells=0)


def blank(model: Model) -> Canvas:
    return Canvas.blank(grid_of(model.card, frames=1, width=WIDTH, height=HEIGHT))


def noise(model: Model, *, step: int | None = None) -> torch.Tensor:
    return starting(model, grid_of(model.card, frames=1, width=WIDTH, height=HEIGHT), step=step)[:, :, 0]


def begun(model: Model) -> torch.Tensor:
    """Our noise for theirs, which multiplies it."""
    sigma = levels(model)[0] / (1 - levels(model)[0])
    return noise(model) * sigma / (sigma**2 + 1) ** 0.5


def filled(model: Model, canvas: Canvas, down: tuple[float, ...], *, negative: str = NEGATIVE) -> torch.Tensor:
    """Latents (1, C, H', W')."""
    asked = guided(model, 3.0, negative=negative, interval=(0.0, 1.0))
    schedule = Schedule(levels=tuple((level,) for level in down))
    *_, last = fill(asked, asked.prepare(canvas, [PROMPT]), schedule, seed=SEED, solver=euler)
    return last.z["video"][:, :, 0]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("kind", ["base", "velocity"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_words_become_the_same_picture(folders: dict[str, Path], kind: str, guidance: float) -> None:
    model = opened(folders[kind])
    wanted = theirs(folders[kind], latents=begun(model), guidance_scale=guidance)
    assert psnr(ours(model, blank(model), levels(model), guidance=guidance), wanted) > 60


def test_the_turbo_gives_the_same_picture_in_one_step(folders: dict[str, Path]) -> None:
    model = opened(folders["turbo"])
    recipe = model.card.recipes["standard"]
    assert (model.card.name, recipe.steps, recipe.guidance) == ("turbo", 1, 1.0)
    wanted = theirs(folders["turbo"], latents=noise(model), num_inference_steps=1, guidance_scale=0.0)
    assert psnr(ours(model, blank(model), levels(model, 1)), wanted) > 60


def test_the_turbo_gives_the_same_picture_in_four_steps_of_which_each_takes_other_noise(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.schedulers import scheduling_euler_ancestral_discrete as place

    model = opened(folders["turbo"])
    steps = iter(range(STEPS))
    monkeypatch.setattr(place, "randn_tensor", lambda *_, **__: noise(model, step=next(steps)))
    wanted = theirs(folders["turbo"], latents=noise(model), guidance_scale=0.0)
    solver = SOLVERS[model.card.recipes["standard"].solver]
    assert psnr(ours(model, blank(model), levels(model), solver=solver), wanted) > 60
    assert psnr(ours(model, blank(model), levels(model)), wanted) < 50


def test_no_words_at_all_are_zeros_as_in_theirs(folders: dict[str, Path]) -> None:
    model = opened(folders["base"])
    wanted = theirs(folders["base"], latents=begun(model), negative=None, output="latent")
    assert apart(filled(model, blank(model), levels(model), negative=""), wanted) < 1e-5
    assert apart(filled(model, blank(model), levels(model)), wanted) > 1e-3


def test_another_size_scale_or_prompt_is_seen(folders: dict[str, Path]) -> None:
    model = opened(folders["base"])
    own = filled(model, blank(model), levels(model))
    for other in ({"guidance_scale": 3.5}, {"prompt": "a blue ball"}, {"original_size": (512, 512)}):
        assert apart(own, theirs(folders["base"], latents=begun(model), output="latent", **other)) > 1e-3


def test_a_picture_is_remixed_to_the_same(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """By 0.5 in theirs: the last half of its steps. Here the noise at their first is the ceiling."""
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_img2img as place

    model = opened(folders["base"])
    first, down = pictures(HEIGHT, WIDTH), levels(model)
    canvas = blank(model).place("video", first[None, :, None], keep=1 - down[STEPS // 2])
    monkeypatch.setattr(place, "randn_tensor", lambda *_, **__: noise(model))
    wanted = theirs(folders["base"], "Img2Img", image=picture(first), strength=0.5)
    assert psnr(ours(model, canvas, down, guidance=3.0), wanted) > 60


def test_a_hole_in_a_picture_is_painted_alike_and_what_is_known_stays(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a strength of 0.75, where theirs too begins with what its first level, the second of four, leaves of it."""
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_inpaint as place

    model = opened(folders["base"])
    first, down = pictures(HEIGHT, WIDTH), levels(model)[1:]
    keep = torch.ones(1, 1, 1, HEIGHT, WIDTH)
    keep[..., 16:40, 16:48] = 0
    canvas = blank(model).place("video", first[None, :, None], keep=keep)
    got = filled(model, canvas, down)
    track = model.prepare(canvas, [PROMPT]).canvas.tracks["video"]
    known = (track.keep >= 1)[:, :, 0].expand(-1, 4, -1, -1)
    assert torch.equal(got[known], track.x[:, :, 0][known])
    one = torch.ones_like(track.keep)
    drawn = torch.where(known, lifted(track.x, 0 * one, one)[:, :, 0], noise(model))
    monkeypatch.setattr(place, "randn_tensor", lambda *_, **__: drawn)
    mask = picture((1 - keep[0, :, 0]).expand(3, -1, -1) * 2 - 1)
    asked = {"image": picture(first), "mask_image": mask, "strength": 0.75}
    assert apart(got, theirs(folders["base"], "Inpaint", output="latent", **asked)) < 1e-5
