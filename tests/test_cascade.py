"""Stable Cascade gives in our fill, and in its decoding, what its two pipelines give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parity import NEGATIVE, PROMPT, SEED, grid_of, opened, pictures, psnr, starting
from tiny import cascade

from cinecanvas.canvas import Canvas
from cinecanvas.errors import Unsupported
from cinecanvas.guidance import guided
from cinecanvas.model import Model
from cinecanvas.sampler import Fill, fill
from cinecanvas.schedule import Schedule
from cinecanvas.solvers import euler

STEPS, WIDTH, HEIGHT = 4, 256, 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cascade.save(tmp_path_factory.mktemp("cascade"))


def straight() -> Any:
    """Their scheduler without its new noise at every step: DDIM, whose last step ends at no noise at all."""
    from diffusers import DDPMWuerstchenScheduler
    from diffusers.schedulers.scheduling_ddpm_wuerstchen import DDPMWuerstchenSchedulerOutput

    class Straight(DDPMWuerstchenScheduler):
        def step(self, model_output: Any, timestep: Any, sample: Any, **_: Any) -> Any:
            then = self.previous_timestep(timestep)[0]
            here = self._alpha_cumprod(timestep[:1], sample.device)
            there = torch.ones(1) if then == 0 else self._alpha_cumprod(then[None], sample.device)
            x0 = (sample - (1 - here).sqrt() * model_output) / here.sqrt()
            return DDPMWuerstchenSchedulerOutput(prev_sample=there.sqrt() * x0 + (1 - there).sqrt() * model_output)

    return Straight()


def theirs(folder: Path, latents: torch.Tensor, *, scale: float = 3.0) -> tuple[torch.Tensor, Any]:
    """Cells of stage C, and the picture (1, H, W, 3) in 0..1 that is decoded from them."""
    from diffusers import (
        DDPMWuerstchenScheduler,
        StableCascadeDecoderPipeline,
        StableCascadePriorPipeline,
        StableCascadeUNet,
    )
    from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel

    prior = StableCascadePriorPipeline.from_pretrained(folder / "prior", dtype=torch.float32, scheduler=straight())
    decoder = StableCascadeDecoderPipeline(
        decoder=StableCascadeUNet.from_pretrained(folder / "decoder").eval(),
        vqgan=PaellaVQModel.from_pretrained(folder / "vqgan").eval(),
        scheduler=DDPMWuerstchenScheduler(),
        text_encoder=prior.text_encoder,
        tokenizer=prior.tokenizer,
    )
    for pipe in (prior, decoder):
        pipe.set_progress_bar_config(disable=True)
    asked = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": scale}
    found = prior(width=WIDTH, height=HEIGHT, latents=latents, **asked)
    pictures = decoder(
        image_embeddings=found.image_embeddings,
        prompt=PROMPT,
        num_inference_steps=10,
        guidance_scale=0.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    return found.image_embeddings, pictures.images


def filled(model: Model, canvas: Canvas) -> Fill:
    asked = guided(model, 3.0, negative=NEGATIVE, interval=(0.0, 1.0))
    levels = model.card.recipes["standard"].ramp.levels(STEPS, shift=1.0, cells=0)
    schedule = Schedule(levels=tuple((level,) for level in levels))
    *_, last = fill(asked, asked.prepare(canvas, [PROMPT]), schedule, seed=SEED, solver=euler)
    return last


def test_words_become_the_same_cells_and_the_same_picture(folder: Path) -> None:
    """Theirs begins with noise of deviation 1, ours with what its first time says: 0.99995."""
    model = opened(folder)
    grid = grid_of(model.card, frames=1, width=WIDTH, height=HEIGHT)
    noise = torch.nn.functional.pixel_shuffle(starting(model, grid)[:, :, 0], 3) * (1 - 1e-4) ** 0.5
    cells, picture = theirs(folder, noise)
    last = filled(model, Canvas.blank(grid))
    got = torch.nn.functional.pixel_shuffle(last.z["video"][:, :, 0], 3)
    assert cells.shape == (1, 16, 3, 6)
    assert float((got - cells).norm() / cells.norm()) < 1e-5
    assert psnr(next(model.decode(last.z)).rgb, picture) > 60
    other, _ = theirs(folder, noise, scale=3.5)
    assert float((got - other).norm() / other.norm()) > 1e-3


def test_the_words_go_with_the_latents_to_stage_b(folder: Path) -> None:
    model = opened(folder)
    last = filled(model, Canvas.blank(grid_of(model.card, frames=1, width=WIDTH, height=HEIGHT)))
    restored = Fill.unpack(last.pack()).z
    other = {**restored, "words": restored["words"].flip(1)}
    whole, changed = (next(model.decode(z)).rgb for z in (restored, other))
    assert whole.shape == (1, HEIGHT, WIDTH, 3) and psnr(whole, changed) < 60


def test_a_picture_on_its_canvas_is_refused(folder: Path) -> None:
    model = opened(folder)
    canvas = Canvas.blank(grid_of(model.card, frames=1, width=WIDTH, height=HEIGHT))
    with pytest.raises(Unsupported, match="not among its parts"):
        model.prepare(canvas.place("video", pictures(HEIGHT, WIDTH)[None, :, None]), [PROMPT])
