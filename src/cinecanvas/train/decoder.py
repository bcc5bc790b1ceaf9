"""The decoder's own training: pixels from worn latents, worn by plain noise at first and by the transformer at last."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cinecanvas.models.diorama import Diorama
from cinecanvas.train import data
from cinecanvas.train.losses import picture_loss
from cinecanvas.train.optim import cooled
from cinecanvas.train.recipes import Bucket
from cinecanvas.train.remix import remixed
from cinecanvas.train.run import SAVE_EVERY, Progress, Run, checkpoint, pixel_path
from cinecanvas.world.captions import caption
from cinecanvas.world.scene import LEVELS, draw, mirror

FRAMES_AT_ONCE = 136  # of a batch: eight clips of 17
# clean latents (B, C, T, H, W) and the sentences of their clips to what the decoder will have to forgive
Wear = Callable[[Tensor, Sequence[str]], Tensor]


class Pool(NamedTuple):
    """Clips whose pixels are kept (N, T, H, W, 3) uint8, and a sentence of each and of its mirror image."""

    pixels: Tensor
    texts: tuple[list[str], list[str]]


def noisy(variance: Tensor, generator: torch.Generator) -> Wear:
    """Gaussian noise of up to 0.3 of each channel's deviation."""

    def wear(z: Tensor, texts: Sequence[str]) -> Tensor:
        amount = 0.3 * torch.rand(len(z), 1, 1, 1, 1, generator=generator).to(z)
        return z + amount * variance.sqrt().view(1, -1, 1, 1, 1) * torch.randn(z.shape, generator=generator).to(z)

    return wear


def filmed(family: Diorama, generator: torch.Generator) -> Wear:
    """The transformer's own remix of the clips: what it gets wrong from half-way on is what shows as squares.

    The higher the noise it begins at, the more is the transformer's own and the less agrees with the pixels.
    """

    def wear(z: Tensor, texts: Sequence[str]) -> Tensor:
        level, seed = torch.rand(2, generator=generator).tolist()
        return remixed(family, z, family.read(texts), level=0.8 * level**0.5, seed=int(seed * 2**31))

    return wear


def learn_decoder(run: Run, phase: str, wear: Wear, *, minutes: float, rate: float) -> Iterator[Progress]:
    """Train the decoder's residual for at most `minutes` over all calls, so that it repairs what `wear` does."""
    limit = 60 * minutes
    begun, before = time.monotonic(), run.spent.get(phase, 0.0)
    if before >= limit:
        return
    pools = [pool for bucket in run.recipe.buckets if (pool := read_pool(run, bucket)) is not None]
    picker, saved, step = random.Random(run.code_steps), begun, 0
    while (spent := before + time.monotonic() - begun) < limit:
        (pool,) = picker.choices(pools, [len(p.pixels) * p.pixels.shape[1] for p in pools])
        size = min(32, max(2, FRAMES_AT_ONCE // pool.pixels.shape[1]))
        rows = torch.randint(len(pool.pixels), (size,), generator=run.generator)
        mirrored = picker.random() < 0.5
        pixels = pool.pixels[rows].flip(-2) if mirrored else pool.pixels[rows]
        rgb = data.to_rgb(pixels).to(run.recipe.device)
        with torch.no_grad():
            z = wear(run.code.encode(rgb), [pool.texts[mirrored][row] for row in rows.tolist()])
        step += 1
        loss = _step(run, rgb, z, rate * min(1.0, step / 60) * cooled(spent / limit, decay=0.4))
        run.spent[phase] = spent
        if step % 10 == 0:
            yield Progress(phase, spent / limit, limit - spent, run.code_steps, float(loss))
        if time.monotonic() - saved > SAVE_EVERY:
            saved = time.monotonic()
            checkpoint(run)
    run.spent[phase] = limit
    checkpoint(run)


def read_pool(run: Run, bucket: Bucket) -> Pool | None:
    """The kept pixels of a bucket, with the plain sentence of each clip; None where nothing is kept."""
    pixels, plain, mirrored = [], [], []
    for chunk in range(data.chunks(bucket)):
        if (path := pixel_path(run, bucket, chunk)).exists():
            pixels.append(load_file(path)["pixels"])
            for seed in data.seeds_of(bucket, chunk, run.recipe):
                scene = draw(seed, LEVELS[run.recipe.level])
                plain.append(caption(scene, seed, style="plain").text)
                mirrored.append(caption(mirror(scene), seed, style="plain").text)
    return Pool(torch.cat(pixels), (plain, mirrored)) if pixels else None


def _step(run: Run, rgb: Tensor, z: Tensor, rate: float) -> Tensor:
    """One batch; trap: at a rate of 2e-3 the net died within 40 steps, every activation gone negative."""
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
