"""Does the colour of a long film drift? CIE76 distance of floor and sky from the first second, at 20 s and at 60 s.

python bench/long.py [--seconds 60] [--seeds 4] [--folder EXPORT] [--json FILE] [--write]

--write puts the scores on the Card in the folder.
Beside it the naive way on the same model, words and seeds: the last frame of a clip, encoded again, begins the next.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from cinecanvas import request as tasks
from cinecanvas.eval.scores import keep, middle, signed
from cinecanvas.generate import generate
from cinecanvas.media.assets import Store
from cinecanvas.media.intake import take
from cinecanvas.media.video import read, write
from cinecanvas.model import Model
from cinecanvas.models import diorama
from cinecanvas.request import Request

WORDS = (
    "a red ball bounces on grass at sunset",
    "a blue cube rests on sand during the day",
    "a yellow cone bounces on the snow on a cloudy day",
    "a green cylinder rests on a wooden floor at night",
)
SIDE = 64  # px, the model's own size
PIECE = 17 / 8  # s of a clip of the naive way


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB in 0..255 (..., 3)."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    t = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def drift(frames: np.ndarray, *, fps: float) -> list[float]:
    """Per second of a film (T, H, W, 3): the larger distance of its mean sky and mean floor from the first second's.

    Both are read at the sides, where no thing of these scenes comes.
    """
    sides = np.concatenate([frames[:, :, :8], frames[:, :, -8:]], axis=2).astype(float)
    parts = sides[:, :14], sides[:, -20:]  # px: the horizon lies at 36 % of the height
    seconds = len(frames) // round(fps)
    far = []
    for part in parts:
        colour = lab(part.mean((1, 2)))[: seconds * round(fps)].reshape(seconds, -1, 3).mean(1)
        far.append(np.linalg.norm(colour - colour[0], axis=1))
    return [float(x) for x in np.max(far, axis=0)]


def frames_of(request: Request, folder: Path, store: Store, model: Model) -> np.ndarray:
    """The frames of a request, without loss; the windows are those of the shipped Card, whatever the model's says."""
    folder.mkdir()
    list(generate(request, out=f"{folder}/", store=store, models=lambda name: model))
    return np.stack(list(read(f"{folder}/")))


def naive(words: str, seconds: float, seed: int, folder: Path, store: Store, model: Model) -> np.ndarray:
    """A film of clips, each begun by the last picture of the one before."""
    size = {"width": SIDE, "height": SIDE}
    film = frames_of(tasks.text_to_video(words, seconds=PIECE, seed=seed, **size), folder / "0", store, model)
    while len(film) < seconds * 8:
        number = len(film)
        write([film[-1]], folder / f"{number}.png", fps=1)
        still = take(store, folder / f"{number}.png")
        request = tasks.animate(still, words, seconds=PIECE, seed=seed + number, **size)
        film = np.concatenate([film, frames_of(request, folder / str(number), store, model)[1:]])
    return film[: round(seconds * 8)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--folder", type=Path, default=diorama.SHIPPED)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    model, rows, scores = diorama.load(asked.folder), [], []
    for words in WORDS:
        for seed in range(asked.seeds):
            with tempfile.TemporaryDirectory() as name:
                folder, store = Path(name), Store.at(Path(name) / "store")
                request = tasks.text_to_video(words, seconds=asked.seconds, seed=seed, width=SIDE, height=SIDE)
                ours = drift(frames_of(request, folder / "ours", store, model), fps=8)
                (folder / "naive").mkdir()
                theirs = drift(naive(words, asked.seconds, seed, folder / "naive", store, model), fps=8)
            rows.append({"words": words, "seed": seed, "windows": ours, "naive": theirs})
            print(f"{words}, seed {seed}: {ours[-1]:.1f}, naive {theirs[-1]:.1f}", file=sys.stderr, flush=True)
    for way in ("windows", "naive"):
        for second in (20, 60):
            if second <= asked.seconds:
                far = [max(row[way][:second]) for row in rows]
                print(f"{way}: the most in {second} s: median {statistics.median(far):.2f}, worst {max(far):.2f}")
                if way == "windows":
                    scores.append(middle(f"most drift of colour in {second} s", far, unit="CIE76"))
    if asked.json:
        asked.json.write_text(json.dumps(rows))
    if asked.write:
        command = f"python bench/long.py --seconds={asked.seconds:g} --seeds={asked.seeds}"
        keep(asked.folder, signed(scores, of="long", command=command, date=datetime.date.today().isoformat()))


if __name__ == "__main__":
    main()
