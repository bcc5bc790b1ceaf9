"""The decoder's own training: pixels from worn latents, worn by plain noise at first and by the transformer at last."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cinecanvas.models.diorama import Diorama
from cinecanvas.train import data
from cinecanvas.train.losses import picture_loss
from cinecanvas.train.optim import cooled
from cinecanvas.train.run import SAVE_EVERY, Progress, Run, checkpoint

FRAMES_AT_ONCE = 136  # of a batch: eight clips of 17
Wear = Callable[[Tensor], Tensor]  # clean latents (B, C, T, H, W) to what the decoder will have to forgive


def noisy(variance: Tensor, generator: torch.Generator) -> Wear:
    """Gaussian noise of up to 0.3 of each channel's deviation."""

    def wear(z: Tensor) -> Tensor:
        amount = 0.3 * torch.rand(len(z), 1, 1, 1, 1, generator=generator).to(z)
        return z + amount * variance.sqrt().view(1, -1, 1, 1, 1) * torch.randn(z.shape, generator=generator).to(z)

    return wear


def guessed(family: Diorama, generator: torch.Generator) -> Wear:
    """The transformer's own guess of the latents from sigma 0 to 0.5: what it gets wrong is what shows as squares."""

    def wear(z: Tensor) -> Tensor:
        sigma = (0.5 * torch.rand(len(z), 1, 1, 1, 1, generator=generator)).expand(-1, 1, *z.shape[2:]).to(z)
        noise = torch.randn(z.shape, generator=generator).to(z)
        with torch.inference_mode():
            guess = family.dit((1 - sigma) * z + sigma * noise, sigma, family.read([""] * len(z)))
        return guess.clone()

    return wear


def learn_decoder(run: Run, phase: str, wear: Wear, *, minutes: float, rate: float) -> Iterator[Progress]:
    """Train the decoder's residual for at most `minutes` over all calls, so that it repairs what `wear` does."""
    limit = 60 * minutes
    begun, before = time.monotonic(), run.spent.get(phase, 0.0)
    if before >= limit:
        return
    pools = [load_file(path)["pixels"] for path in sorted((run.folder / "pixels").glob("*.safetensors"))]
    picker, saved, step = random.Random(run.code_steps), begun, 0
    while (spent := before + time.monotonic() - begun) < limit:
        (pool,) = picker.choices(pools, [len(p) * p.shape[1] for p in pools])
        rows = torch.randint(len(pool), (min(32, max(2, FRAMES_AT_ONCE // pool.shape[1])),), generator=run.generator)
        pixels = pool[rows] if picker.random() < 0.5 else pool[rows].flip(-2)
        rgb = data.to_rgb(pixels).to(run.recipe.device)
        step += 1
        loss = _step(run, rgb, wear, rate * min(1.0, step / 60) * cooled(spent / limit, decay=0.4))
        run.spent[phase] = spent
        if step % 10 == 0:
            yield Progress(phase, spent / limit, limit - spent, run.code_steps, float(loss))
        if time.monotonic() - saved > SAVE_EVERY:
            saved = time.monotonic()
            checkpoint(run)
    run.spent[phase] = limit
    checkpoint(run)


def _step(run: Run, rgb: Tensor, wear: Wear, rate: float) -> Tensor:
    """One batch; trap: at a rate of 2e-3 the net died within 40 steps, every activation gone negative."""
    z = wear(run.code.encode(rgb))
    with torch.autocast(rgb.device.type, torch.bfloat16):
        decoded = run.code.decode(z)
    loss = picture_loss(decoded.float(), rgb)
    run.code_optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(run.code.parameters(), 1.0)
    for group in run.code_optimizer.param_groups:
        group["lr"] = rate
    run.code_optimizer.step()
    run.code_steps += 1
    return loss.detach()
