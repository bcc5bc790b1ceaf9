"""The pictures of the README and the docs, made by the shipped weights: python docs/pictures/make.py

ten.png    ten sentences, ten videos, one seed for all of them, none picked
tasks.png  one set of weights, five canvases: what is known, and the same canvas filled
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cinecanvas.canvas import Canvas, Track
from cinecanvas.grid import Grid
from cinecanvas.guidance import guided
from cinecanvas.media.sheet import sheet
from cinecanvas.model import Model
from cinecanvas.models import diorama, load
from cinecanvas.sampler import SOLVERS, fill
from cinecanvas.schedule import full
from cinecanvas.train.validate import TEN
from cinecanvas.world.captions import caption
from cinecanvas.world.render import render
from cinecanvas.world.scene import LEVELS, draw

HERE = Path(__file__).parent


def filled(model: Model, canvas: Canvas, prompts: list[str], *, seed: int, guidance: float) -> list[np.ndarray]:
    """The canvas filled at standard quality: one clip (T, H, W, 3) per prompt; video b gets the seed + b."""
    recipe = model.card.recipes["standard"]
    guide = guided(model, guidance)
    cond = guide.prepare(canvas, prompts)
    *_, last = fill(guide, cond, full(recipe.steps, shift=recipe.shift), seed=seed, solver=SOLVERS[recipe.solver])
    rows = [{"video": last.z["video"][b : b + 1]} for b in range(len(prompts))]
    return [np.concatenate([frames.rgb for frames in model.decode(row)]) for row in rows]


def ten(model: Model) -> Image.Image:
    """The ten sentences, seeds 0 to 9."""
    width, height = model.card.sizes[0]
    grid = Grid(frames=17, width=width, height=height, fps=model.card.fps)
    canvas = Canvas({"video": Track.blank(grid, channels=3, batch=len(TEN))})
    clips = filled(model, canvas, list(TEN), seed=0, guidance=model.card.recipes["standard"].guidance)
    return sheet(clips, labels=TEN, columns=6, scale=2)


def tasks(model: Model) -> Image.Image:
    """Five canvases over one rendered scene: the known part (holes in grey) above, the filled canvas below."""
    scene = draw(1_000_000_777, LEVELS["first"])
    size = {"frames": 17, "width": 64, "height": 64, "fps": 8.0}
    pixels = render([scene], **size).rgb
    rgb = pixels.movedim(-1, 1).float() / 127.5 - 1
    prompt = caption(scene, 0, style="plain").text
    whole = torch.zeros(17, 64, 64, dtype=torch.bool)
    known = {
        name: whole.clone() for name in ("image to video", "first and last", "extend", "extend backward", "outpaint")
    }
    known["image to video"][0] = True
    known["first and last"][[0, *range(13, 17)]] = True
    known["extend"][:9] = True
    known["extend backward"][9:] = True
    known["outpaint"][:, 16:48, 16:48] = True
    blank = Canvas({"video": Track.blank(Grid(**size), channels=3)})
    clips, labels = [], []
    for name, mask in known.items():
        canvas = blank.place("video", rgb, keep=mask[None, None].float())
        (clip,) = filled(model, canvas, [prompt], seed=3, guidance=1.5)
        clips += [np.where(mask[..., None], pixels[0].numpy(), np.uint8(200)), clip]
        labels += [f"{name}: what is known", f"{name}: filled   ({prompt})"]
    return sheet(clips, labels=labels, columns=9, scale=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="an exported run instead of the shipped weights")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    model = diorama.load(args.folder) if args.folder else load("diorama")
    ten(model).save(args.out / "ten.png", optimize=True)
    tasks(model).save(args.out / "tasks.png", optimize=True)


if __name__ == "__main__":
    main()
