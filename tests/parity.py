"""Ours beside theirs: the same weights, noise and steps through our fill and through the pipeline of diffusers."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cinecanvas.canvas import Canvas, Tensors, Track
from cinecanvas.grid import Grid
from cinecanvas.guidance import guided
from cinecanvas.model import Card, Model, Weights
from cinecanvas.models import recognised
from cinecanvas.models.checkpoint import layout
from cinecanvas.runtime.placement import Placement
from cinecanvas.sampler import fill, noise
from cinecanvas.schedule import Schedule
from cinecanvas.solvers import Solver, euler

SEED = 5
PROMPT, NEGATIVE = "a red fox jumps over the snow", "blurry"
FLOAT32 = Placement(precision="float32", residency="resident")


def opened(folder: Path, placement: Placement = FLOAT32) -> Model:
    """The model of a folder, as it is recognised."""
    found = recognised(layout(folder))
    assert found is not None, folder
    card, family = found
    return family.load(card.model_copy(update={"name": folder.name}), Weights(folder), placement)


def grid_of(card: Card, *, frames: int, width: int, height: int) -> Grid:
    """Pixels of that size in the cells of a family."""
    return Grid(
        frames=frames, width=width, height=height, fps=8, strides=card.strides, causal=card.causal, chunk=card.chunk
    )


def pictures(*shape: int) -> torch.Tensor:
    """Smooth pixels (..., 3, H, W) in [-1, 1], exactly as bytes hold them; every frame another."""
    *many, height, width = shape
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 4, width), indexing="ij")
    turns = torch.arange(math.prod(many) * 3).view(*many, 3, 1, 1) * 0.7
    bytes_ = ((torch.sin(x + turns) * torch.cos(y - turns) + 1) * 127.5).round()
    return bytes_ / 127.5 - 1


def starting(model: Model, grid: Grid, *, lead: int = 0, step: int | None = None) -> torch.Tensor:
    """The noise that our fill begins with (1, C, T', H', W'), or a step's; that of a track before the video first."""
    blank = Track.blank(grid, channels=model.card.channels)
    eps = noise(blank, seed=SEED, step=step)
    before = noise(blank, seed=SEED, name="lead", step=step)[:, :, :lead]
    return torch.cat([before, eps], 2)


def picture(rgb: torch.Tensor) -> Image.Image:
    """Pixels (3, H, W) in [-1, 1] as people have them."""
    return Image.fromarray(((rgb.movedim(0, -1) + 1) * 127.5).round().byte().numpy())


def sounding(model: Model, grid: Grid) -> torch.Tensor:
    """The noise that the sound of our fill begins with (1, C, T", bins, 1)."""
    from cinecanvas.models.latents import sound_track

    assert model.card.sound is not None
    video = Track.blank(grid.pixels, channels=3)
    return noise(sound_track(video, model.card.sound, device="cpu"), seed=SEED, name="sound")


def ours(
    model: Model,
    canvas: Canvas,
    levels: Sequence[float],
    *,
    guidance: float = 1.0,
    solver: Solver = euler,
    rescale: float = 0.0,
    prompt: str = PROMPT,
    rising: float | None = None,
) -> np.ndarray:
    """Frames (T, H, W, 3) uint8 of our fill over those levels."""
    asked = guided(model, guidance, negative=NEGATIVE, interval=(0.0, 1.0), rescale=rescale, rising=rising)
    return np.concatenate([frames.rgb for frames in model.decode(filled(asked, canvas, levels, solver, prompt))])


def filled(
    model: Model, canvas: Canvas, levels: Sequence[float], solver: Solver = euler, prompt: str = PROMPT
) -> Tensors:
    """The latents of our fill over those levels."""
    schedule = Schedule(levels=tuple((level,) for level in levels))
    *_, last = fill(model, model.prepare(canvas, [prompt]), schedule, seed=SEED, solver=solver)
    return last.z


def psnr(one: np.ndarray, other: Any) -> float:
    """Of frames as bytes (dB); theirs may be floats in 0..1."""
    theirs = np.asarray(other)
    if theirs.dtype != np.uint8:
        theirs = (theirs * 255).round().astype(np.uint8)
    assert one.shape == theirs.shape, (one.shape, theirs.shape)
    error = float(((one.astype(float) - theirs) ** 2).mean())
    found = 10 * math.log10(255**2 / error) if error else math.inf
    if log := os.environ.get("CINECANVAS_PARITY"):  # where the table of the documentation comes from
        with open(log, "a") as file:
            file.write(f"{os.environ['PYTEST_CURRENT_TEST'].split(' ')[0]} {found:.1f}\n")
    return found
