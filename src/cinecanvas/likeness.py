"""How much of a picture a model can show at all: what its own code loses, no film of it will show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from cinecanvas.canvas import Canvas
from cinecanvas.grid import Grid
from cinecanvas.media.video import read, resized
from cinecanvas.model import Model


def likeness(model: Model, picture: np.ndarray) -> float:
    """PSNR (dB) of a picture (H, W, 3) uint8, of a size that the model knows, through its code and back."""
    height, width = picture.shape[:2]
    rgb = torch.tensor(picture).movedim(-1, 0)[None, :, None] / 127.5 - 1
    canvas = Canvas.blank(Grid(frames=1, height=height, width=width, fps=1)).place("video", rgb)
    latents = {name: track.x for name, track in model.prepare(canvas, [""]).canvas.tracks.items()}
    (shown,) = model.decode(latents)
    error = np.square(shown.rgb[0].astype(float) - picture).mean()
    return 10 * math.log10(255**2 / error) if error else math.inf


def strangers(
    model: Model, digests: Iterable[str], find: Callable[[str], Path], *, size: tuple[int, int]
) -> Iterator[str]:
    """A line for every picture or film, at size (width, height) px, that begins with what the model's code cannot show.

    What pictures of its own world come to (`Card.shows`) tells it. A smooth picture of anything passes: that it can be
    shown does not mean that the model knows what moves in it.
    """
    least = model.card.shows
    for digest in digests if least is not None else ():
        found = likeness(model, resized(next(read(find(digest))), size))
        if least is not None and found < least:
            yield (
                f"{digest[:15]} is not of the world of {model.card.name}: its code shows it at {found:.0f} dB, "
                f"pictures of its own at {least:.0f} or more; expect colours and large shapes, no faces and no textures"
            )
