"""The pictures of the README and the docs, made by the shipped weights: python docs/pictures/make.py

ten.png    ten sentences, ten videos, seeds 0 to 9, none picked
tasks.png  one set of weights, five canvases: what is known, and the same canvas filled
strips/    each task of docs/how-to/tasks.md, made by the command beside it with seed 3, none picked
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cinecanvas import request as verbs
from cinecanvas.canvas import Canvas
from cinecanvas.compose import compose
from cinecanvas.eval.faithfulness import generated
from cinecanvas.generate import generate
from cinecanvas.grid import Grid
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.intake import take
from cinecanvas.media.sheet import sheet
from cinecanvas.media.video import read, write
from cinecanvas.model import Model
from cinecanvas.models import card, diorama, load
from cinecanvas.plan import plan
from cinecanvas.request import Media, Request
from cinecanvas.train.validate import TEN
from cinecanvas.world.captions import caption
from cinecanvas.world.render import render
from cinecanvas.world.scene import LEVELS, draw

HERE = Path(__file__).parent
GRID = Grid(frames=17, width=64, height=64, fps=8)
GREY = np.uint8(200)  # of holes
ROLLS = "a red ball rolls to the right on grass at sunset"
BOUNCES = "a red ball bounces on grass at sunset"
SLIDES = "a blue cube slides to the left on snow during the day"
TWO = (("", 3), ("2", 4))  # pictures of the same words: their names and seeds


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
        clips += [np.where(mask[..., None], pixels[0].numpy(), GREY), filled]
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


def strips(model: Model) -> Iterator[tuple[str, Image.Image]]:
    """A picture for each task: what its Request knows, and the film that it makes."""
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name), Store.at(Path(name) / "store")
        media = sources(folder, store, model)
        for task, request in requests(media).items():
            made(request, f"{folder / task}/", store, model)
            rows = [laid(request, media, store), np.stack(list(read(f"{folder / task}/")))]
            if request.loop:  # what comes after the last frame
                rows = [np.concatenate([row, row[:1]]) for row in rows]
            again = ", and the first frame again" if request.loop else ""
            yield task, sheet(rows, labels=["known", f'filled: "{request.prompt}"{again}'], columns=9, scale=2)


def requests(media: dict[str, Asset]) -> dict[str, Request]:
    """The tasks of the page, by the names of their pictures."""
    roll, ball, cube = media["roll"], media["ball"], media["cube"]
    own: dict[str, Any] = {"width": GRID.width, "height": GRID.height, "seed": 3}
    return {
        "animate": verbs.animate(cube, SLIDES, **own),
        "animate-last": verbs.animate(cube, SLIDES, last=True, **own),
        "interpolate": verbs.interpolate(cube, media["cube2"], SLIDES, seconds=2.0, **own),
        "keyframes": verbs.keyframes([(ball, 0.0), (media["ball2"], 1.25)], BOUNCES, **own),
        "extend": verbs.extend(roll, ROLLS, seconds=4.0, **own),
        "extend-backward": verbs.extend(roll, ROLLS, seconds=2.0, backward=True, **own),
        "loop": verbs.loop(BOUNCES, of=ball, seconds=2.0, **own),
        "retake": verbs.retake(roll, BOUNCES, start=0.6, end=1.6, **own),
        "inpaint": verbs.inpaint(roll, media["mask"], "a green cone on grass at sunset", **own),
        "outpaint": verbs.outpaint(roll, "a red ball on grass at sunset", to="80x44", place=(0.0, 0.5), seed=3),
        "remix": verbs.remix(roll, "a blue ball rolls to the right on snow at sunset", keep=0.1, **own),
        "join": verbs.join(roll, media["bounce"], "a red ball on grass at sunset", seconds=1.0, **own),
    }


def sources(folder: Path, store: Store, model: Model) -> dict[str, Asset]:
    """The films and pictures that the tasks begin with, made by words alone, and a mask."""
    asked = {
        "roll.mp4": verbs.text_to_video(ROLLS, seed=3),
        "bounce.mp4": verbs.text_to_video(BOUNCES, seed=3),
        **{f"ball{n}.png": verbs.text_to_image("a red ball on grass at sunset", seed=seed) for n, seed in TWO},
        **{f"cube{n}.png": verbs.text_to_image("a blue cube on snow during the day", seed=seed) for n, seed in TWO},
    }
    for name, request in asked.items():
        made(request, folder / name, store, model)
    mask = np.full((256, 256, 3), 255, dtype=np.uint8)
    mask[80:208] = 0  # wherever the ball comes
    write([mask], folder / "mask.png", fps=1)
    return {Path(name).stem: take(store, folder / name) for name in (*asked, "mask.png")}


def made(request: Request, out: Path | str, store: Store, model: Model) -> None:
    for _ in generate(request, out=out, store=store, models=lambda name: model):
        pass


def laid(request: Request, media: dict[str, Asset], store: Store) -> np.ndarray:
    """What a Request lays on its canvas (T, H, W, 3): holes in grey, and what is kept in part as far as it is kept."""
    known: dict[str, Media] = {one.digest: one for one in media.values()}
    planned = plan(request, card(request.model), media=known)
    film: dict[int, np.ndarray] = {}
    for step in planned.films[0]:
        track = compose(step.clips, step.grid, store.path, window=step.frames).tracks["video"]
        rgb, keep = ((x[0].movedim(0, -1).numpy()) for x in ((track.x + 1) * 127.5, track.keep))
        shown = (keep * rgb + (1 - keep) * GREY).round().astype(np.uint8)
        film.update(zip((frame - step.closed for frame in step.frames), shown, strict=True))
    width, height = planned.crop
    frames = np.stack([film[frame] for frame in range(planned.frames)])
    top, left = (frames.shape[1] - height) // 2, (frames.shape[2] - width) // 2
    return frames[:, top : top + height, left : left + width]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="an exported run instead of the shipped weights")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    model = diorama.load(args.folder) if args.folder else load("diorama")
    ten(model).save(args.out / "ten.png", optimize=True)
    tasks(model).save(args.out / "tasks.png", optimize=True)
    (args.out / "strips").mkdir(exist_ok=True)
    for name, strip in strips(model):
        # 256 colours, undithered: 0.4 of the bytes, and 1 to 2 of 255 levels off
        strip.quantize(256, dither=Image.Dither.NONE).save(args.out / "strips" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
