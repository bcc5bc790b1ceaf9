"""The network's own mistakes, for it and its decoder to learn from: clips remixed by the network that is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from cinecanvas import sampler
from cinecanvas.canvas import Canvas, Track
from cinecanvas.grid import Grid
from cinecanvas.models.autoencoder import Partial
from cinecanvas.models.diorama import Diorama, DioramaConditioning
from cinecanvas.models.dit import Words
from cinecanvas.schedule import full
from cinecanvas.solvers import SOLVERS
from cinecanvas.train import data
from cinecanvas.train.recipes import Bucket
from cinecanvas.train.run import Run, family_of

AT_ONCE = 32  # clips


def remixed(family: Diorama, z: Tensor, words: Words, *, level: float, seed: int, start: int = 0) -> Tensor:
    """Latents (B, C, T, H, W) noised to `level` and filled again, as the library does it, but without guidance."""
    recipe = family.card.recipes["standard"]
    grid = Grid(frames=z.shape[2] + start, width=z.shape[4], height=z.shape[3], fps=family.card.fps)
    canvas = Canvas({"video": Track(z, torch.full_like(z[:, :1], 1 - level), grid, start)})
    cond = DioramaConditioning(canvas, words, Partial(*[z.new_zeros(0)] * 3))
    way = full(recipe.steps, shift=recipe.shift)
    *_, last = sampler.fill(family, cond, way, seed=seed, solver=SOLVERS[recipe.solver])
    return last.z["video"]


def recycled(run: Run, bucket: Bucket, bank: data.Examples, pieces: Tensor) -> Tensor:
    """All clips of a bucket as the network remixes them, like bank.latents: a history as it is when films go on.

    A network that goes on from its own cells must have seen its own mistakes, and the truth after them: else each
    window adds to those of the one before (error recycling: Li et al. 2025, Stable Video Infinity).
    """
    family, first, parts = family_of(run), 1 if bucket.late else 0, []
    for rows in torch.arange(len(bank.latents)).split(AT_ONCE):
        z = bank.latents[rows, :, first:].to(run.recipe.device).float()
        ids = bank.ids[rows, 0].long().to(run.recipe.device)
        level, seed = torch.rand(2, generator=run.generator).tolist()
        with torch.inference_mode():
            states, padding = family.text(ids, pieces[ids.clamp(min=0)].masked_fill((ids < 0)[..., None], 0))
            words = family.dit.read(states, padding)
            parts.append(remixed(family, z, words, level=0.3 + 0.5 * level, seed=int(seed * 2**31), start=first))
    whole = bank.latents.clone()
    whole[:, :, first:] = torch.cat(parts).half().cpu()
    return whole
