"""The pictures of the README and the docs, made by the shipped weights: python docs/pictures/make.py

ten.png    ten sentences, ten videos, seeds 0 to 9, none picked
tasks.png  one set of weights, five canvases: what is known, and the same canvas filled
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cinecanvas.canvas import Canvas
from cinecanvas.eval.faithfulness import generated
from cinecanvas.grid import Grid
from cinecanvas.media.sheet import sheet
from cinecanvas.model import Model
from cinecanvas.models import diorama, load
from cinecanvas.train.validate import TEN
from cinecanvas.world.captions import caption
from cinecanvas.world.render import render
from cinecanvas.world.scene import LEVELS, draw

HERE = Path(__file__).parent
GRID = Grid(frames=17, width=64, height=64, fps=8)


def ten(model: Model) -> Image.Image:
    """The ten sentences, seeds 0 to 9."""
    canvas = Canvas.blank(GRID, batch=len(TEN))
    clips = generated(model, canvas, TEN, recipe=model.card.recipes["standard"], seeds=range(len(TEN)))
    return sheet(list(clips.numpy()), labels=TEN, columns=6, scale=2)


def tasks(model: Model) -> Image.Image:
    """Five canvases over one rendered scene: the known part (holes in grey) above, the filled canvas below."""
    scene = draw(1_000_000_777, LEVELS["first"])
    pixels = render([scene], frames=17, width=64, height=64, fps=8).rgb
    rgb = pixels.movedim(-1, 1).float() / 127.5 - 1
    prompt = caption(scene, 0, style="plain").text
    recipe = model.card.recipes["standard"].model_copy(update={"guidance": 2.0})  # known cells say most of it
    clips, labels = [], []
    for name, mask in known().items():
        canvas = Canvas.blank(GRID).place("video", rgb, keep=mask[None, None].float())
        filled = generated(model, canvas, [prompt], recipe=recipe, seeds=[3])[0].numpy()
        clips += [np.where(mask[..., None], pixels[0].numpy(), np.uint8(200)), filled]
        labels += [f"{name}: what is known", f'filled, with the words "{prompt}"']
    return sheet(clips, labels=labels, columns=9, scale=1)


def known() -> dict[str, torch.Tensor]:
    """Where each task knows its pixels, (T, H, W) bool."""
    names = ("image to video", "first and last", "extend", "extend backward", "outpaint")
    masks = {name: torch.zeros(17, 64, 64, dtype=torch.bool) for name in names}
    masks["image to video"][0] = True
    masks["first and last"][[0, *range(13, 17)]] = True
    masks["extend"][:9] = True
    masks["extend backward"][9:] = True
    masks["outpaint"][:, 16:48, 16:48] = True
    return masks


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
