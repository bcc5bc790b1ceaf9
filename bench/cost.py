"""What a network call, a decoded frame and the rest cost here: the numbers of a Card's `cost`, fitted, as JSON.

python bench/cost.py [--folder EXPORT] [--write]     (--write puts them on the Card in the folder)
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from cinecanvas.canvas import Canvas
from cinecanvas.grid import Grid
from cinecanvas.model import Card, Cost
from cinecanvas.models import diorama


def timed(work: Callable[[], object], runs: int = 7) -> float:
    """Median seconds of a call, after two that warm up."""
    seconds = []
    for _ in range(runs + 2):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[2:])


def canvas(frames: int, card: Card, batch: int = 1) -> Canvas:
    width, height = card.sizes[0]
    return Canvas.blank(Grid(frames=frames, width=width, height=height, fps=card.fps), batch=batch)


def measure(folder: Path) -> Cost:
    """Load once, then time calls of 17 to 65 frames, one video and two, and fit call + cell n + pair n^2 per video."""
    begun = time.perf_counter()
    model = diorama.load(folder)
    load = time.perf_counter() - begun
    rows, seconds = [], []
    for frames in (17, 33, 65):
        for batch in (1, 2):
            cond = model.prepare(canvas(frames, model.card, batch), ["a red ball bounces on grass at sunset"] * batch)
            z = cond.canvas.tracks["video"].x
            sigma = torch.full_like(z[:, :1], 0.7)
            n = z[0, 0].numel()
            rows.append([1.0, batch * n, batch * n * n])
            seconds.append(timed(lambda z=z, s=sigma, c=cond: model.denoise({"video": z}, {"video": s}, c)))
    weight = 1 / np.array(seconds)  # relative errors count, not absolute ones
    fit, *_ = np.linalg.lstsq(np.array(rows) * weight[:, None], np.ones(len(rows)), rcond=None)
    call, cell, pair = (max(0.0, float(x)) for x in fit)
    z = torch.randn(1, model.autoencoder.shape.channels, 9, 4, 4)
    decode = timed(lambda: [len(f.rgb) for f in model.decode({"video": z})]) / 33
    prepare = timed(lambda: model.prepare(canvas(17, model.card), ["a red ball"]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    machine = f"{torch.get_num_threads()} threads of {platform.machine()}, torch {torch.__version__}"
    return Cost(
        load=round(load, 3),
        prepare=round(prepare, 4),
        call=round(call, 5),
        cell=round(cell, 8),
        pair=round(pair, 11),
        decode_frame=round(decode, 5),
        bytes_fixed=int(peak),
        machine=machine,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=diorama.SHIPPED)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    cost = measure(args.folder)
    print(cost.model_dump_json(indent=1))
    if args.write:
        diorama.write_card(args.folder, diorama.read_card(args.folder).model_copy(update={"cost": cost}))


if __name__ == "__main__":
    main()
