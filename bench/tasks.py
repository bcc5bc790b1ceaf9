"""Are known cells kept, pinned pictures seen, loops closed? python bench/tasks.py [--clips 16] [--folder EXPORT].

keyframe: PSNR (dB) of a frame pinned at 1.25 s, in mid-cell, beside the same frame through the autoencoder alone.
known: the largest difference of a known latent cell after `fill`.
loop: the step from the last frame to the first, over the median step, and over the median step between groups of
frames; beside it the same of an open film. Films that stand still have no steps to compare and are left out.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from torch import Tensor

from cinecanvas import sampler
from cinecanvas.canvas import Canvas, Track
from cinecanvas.eval.faithfulness import generated
from cinecanvas.grid import Grid
from cinecanvas.guidance import guided
from cinecanvas.models import diorama
from cinecanvas.schedule import full
from cinecanvas.world.captions import caption
from cinecanvas.world.render import render
from cinecanvas.world.scene import FIRST, draw

FIRST_SEED = 1_000_003_000  # past those of training, validation and the exams
GRID = Grid(frames=17, height=64, width=64, fps=8)
PINNED = 10  # the second of the four frames of its cell
MOVING = ("bounce", "left", "right", "near", "away")


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """dB of pictures (B, H, W, 3) in 0..255, (B,)."""
    return 10 * (255**2 / (a.float() - b.float()).square().mean((1, 2, 3))).log10()


def loop_steps(model: diorama.Diorama, texts: list[str], *, closed: bool) -> tuple[list[float], list[float]]:
    """Per film of four groups: last-to-first step over the median step, and over that between groups."""
    pixels = torch.zeros(len(texts), 3, 16, 64, 64)
    canvas = Canvas({"video": Track(pixels, pixels[:, :1], GRID.pixels, 1)}, closed=closed)
    recipe = model.card.recipes["standard"]
    asked = guided(model, recipe.guidance)
    way = sampler.fill(asked, asked.prepare(canvas, texts), full(recipe.steps, shift=recipe.shift), seed=0)
    *_, last = way
    by_frame, by_group = [], []
    for row in range(len(texts)):
        z = last.z["video"][row : row + 1]
        shown = model.decode({"video": torch.cat([z[:, :, -1:], z], dim=2)})
        frames = torch.cat([torch.as_tensor(some.rgb) for some in shown])[1:].float()
        steps = (frames - frames.roll(-1, 0)).abs().mean((1, 2, 3))
        by_frame.append(float(steps[-1] / steps[:-1].median()))
        by_group.append(float(steps[-1] / steps[3:-1:4].median()))
    return by_frame, by_group


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=16)
    parser.add_argument("--folder", type=Path, default=diorama.SHIPPED)
    asked = parser.parse_args()
    model = diorama.load(asked.folder)
    seeds = range(FIRST_SEED, FIRST_SEED + asked.clips)
    scenes = [draw(seed, FIRST) for seed in seeds]
    texts = [caption(scene, seed, style="plain").text for scene, seed in zip(scenes, seeds, strict=True)]
    pixels = render(scenes, frames=17, height=64, width=64, fps=8).rgb
    rgb = pixels.movedim(-1, 1).float() / 127.5 - 1
    recipe = model.card.recipes["standard"]

    blank = Canvas.blank(GRID, batch=len(texts))
    pinned = blank.place("video", rgb[:, :, PINNED : PINNED + 1], at=(PINNED, 0, 0))
    made = generated(model, pinned, texts, recipe=recipe, seeds=list(seeds))
    z = model.autoencoder.encode(rgb)
    alone = diorama.to_uint8(model.autoencoder.decode(z).detach()).movedim(1, -1)
    ours, ceiling = (psnr(clips[:, PINNED], pixels[:, PINNED]) for clips in (made, alone))
    print(f"keyframe: {ours.mean():.2f} dB ({ours.min():.2f} to {ours.max():.2f}), autoencoder {ceiling.mean():.2f} dB")

    cond = model.prepare(blank.place("video", rgb[:, :, :9], at=(0, 0, 0)), texts)
    *_, last = sampler.fill(model, cond, full(8, shift=4.0), seed=list(seeds))
    print(f"known: {float((last.z['video'][:, :, :3] - z[:, :, :3]).abs().max()):g}")

    moving = [t for scene, t in zip(scenes, texts, strict=True) if scene.things[0].motion in MOVING]
    for closed in (True, False):
        by_frame, by_group = loop_steps(model, moving, closed=closed)
        print(
            f"{'loop' if closed else 'open'}: seam over the median step {statistics.median(by_frame):.2f}, "
            f"over the median joint {statistics.median(by_group):.2f} (worst {max(by_group):.2f}), n = {len(moving)}"
        )


if __name__ == "__main__":
    main()
