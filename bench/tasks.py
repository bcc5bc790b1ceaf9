"""Are pinned pictures seen and met smoothly, known cells kept, loops closed? Beside it naive ways on the same seeds.

python bench/tasks.py [--clips 24] [--folder EXPORT] [--write]      (--write puts the scores on the Card in the folder)

keyframe: dB, the PSNR of a frame that is pinned at 1.25 s, in mid-cell; jump, the largest step from frame to frame
into, within or out of its cell, over the median step; edge, the steps over the cell's two edges, over those between the
groups of frames before it (1: nobody sees which one was pinned).
  picture   that one frame is known, as in `cine keyframes`
  cell      all four frames of its cell are known
  replaced  the naive way to know all four: their latents are put back after every step, under the noise of that step,
            and the network sees one sigma for all cells
  free      nothing is known
  coded     the truth through the autoencoder alone
known: the largest difference of a known latent cell after `fill`.
loop: seam, the step from the last frame to the first, over the median step; joint, over the median step between groups;
sharp, the sharpness of the half second after the seam over that of the rest. Films that hardly move do not count.
  ring      time is closed
  faded     the naive way: an open film, half a second longer, whose end is cross-faded into its beginning
  open      that film, cut
"""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from cinecanvas import sampler
from cinecanvas.canvas import Canvas, Tensors, Track
from cinecanvas.eval.faithfulness import sharpness, wilson
from cinecanvas.eval.scores import keep, middle, signed
from cinecanvas.grid import Grid
from cinecanvas.guidance import guided
from cinecanvas.likeness import likeness
from cinecanvas.model import Around, Conditioning, Model, Score
from cinecanvas.models import diorama
from cinecanvas.schedule import full
from cinecanvas.world.captions import caption
from cinecanvas.world.render import render
from cinecanvas.world.scene import FIRST, FULL, draw

FIRST_SEED = 1_000_003_000  # past those of training, validation and the exams
GRID = Grid(frames=17, height=64, width=64, fps=8)
PINNED = 10  # the second of the four frames of its cell
CELL = range(9, 13)  # those frames
FADE = 4  # frames
MOVES = 0.025  # grey levels in [-1, 1] by which a pixel deviates in time: films of things at rest have at most 0.020


def keyframes(model: diorama.Diorama, texts: Sequence[str], truth: Tensor, seeds: Sequence[int]) -> dict[str, Tensor]:
    """Films (B, T, H, W, 3) of every way to pin a part of the truth, like them."""
    rgb = pixels(truth)
    blank = Canvas.blank(GRID, batch=len(texts))
    picture = blank.place("video", rgb[:, :, PINNED : PINNED + 1], at=(PINNED, 0, 0))
    cell = blank.place("video", rgb[:, :, CELL.start : CELL.stop], at=(CELL.start, 0, 0))
    pasted = Pasted(led(model), model.prepare(cell, texts).canvas)
    z = {
        "picture": filled(led(model), picture, texts, seeds),
        "cell": filled(led(model), cell, texts, seeds),
        "replaced": filled(pasted, blank, texts, seeds),
        "free": filled(led(model), blank, texts, seeds),
        "coded": model.autoencoder.encode(rgb),
    }
    return {way: shown(model, latents) for way, latents in z.items()}


def loops(model: diorama.Diorama, texts: Sequence[str], seeds: Sequence[int]) -> dict[str, Tensor]:
    """Films of 2 s (B, T, H, W, 3) of every way to close them."""
    ring = filled(led(model), late(16, batch=len(texts), closed=True), texts, seeds)
    longer = shown(model, filled(led(model), late(16 + FADE, batch=len(texts)), texts, seeds), late=True)
    return {"ring": shown(model, ring, late=True), "faded": faded(longer.float()), "open": longer[:, :16]}


def faded(films: Tensor) -> Tensor:
    """Films (B, T, H, W, 3) whose last half second is cross-faded into their first, and taken away."""
    share = (torch.arange(1, FADE + 1) / (FADE + 1)).view(1, -1, 1, 1, 1)
    begin = share * films[:, :FADE] + (1 - share) * films[:, -FADE:]
    return torch.cat([begin, films[:, FADE:-FADE]], dim=1)


@dataclass(frozen=True)
class Pasted(Around):
    """Replace and re-noise (RePaint, Lugmayr et al. 2022, without its resampling), as a Model round a Model.

    Its guess of a known cell is the truth, so that every step of the solver leaves there the truth under the noise of
    that step. The network is not told which cells are known.
    """

    over: Canvas  # latent

    def denoise(self, z: Tensors, sigma: Tensors, cond: Conditioning, *, to: Tensors | None = None) -> Tensors:
        x0 = self.model.denoise(z, sigma, cond, to=to)
        return {name: torch.where(self.over.known[name], self.over.tracks[name].x, x) for name, x in x0.items()}


def led(model: Model) -> Model:
    """The model under the guidance of its recipe."""
    recipe = model.card.recipes["standard"]
    return guided(model, recipe.guidance, interval=(recipe.guided_from, recipe.guided_to))


def filled(model: Model, canvas: Canvas, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """Latents (B, C, T, H, W) of a pixel canvas, as the library fills it."""
    recipe = model.card.recipes["standard"]
    schedule, solver = full(recipe.steps, shift=recipe.shift), sampler.SOLVERS[recipe.solver]
    *_, last = sampler.fill(model, model.prepare(canvas, texts), schedule, seed=seeds, solver=solver)
    return last.z["video"]


def late(frames: int, *, batch: int, closed: bool = False) -> Canvas:
    """A canvas of holes that begins with a whole group of frames, for a ring has no first frame."""
    x = torch.zeros(batch, 3, frames, GRID.height, GRID.width)
    grid = GRID.pixels.model_copy(update={"frames": frames + 1})
    return Canvas({"video": Track(x, x[:, :1], grid, 1)}, closed=closed)


def shown(model: Model, z: Tensor, *, late: bool = False) -> Tensor:
    """Frames (B, T, H, W, 3) uint8 of latents; what comes before those of a late canvas are their last two groups."""
    films = []
    for one in z.split(1):
        source = model.decode({"video": torch.cat([one[:, :, -2:], one], dim=2) if late else one})
        films.append(torch.cat([torch.as_tensor(some.rgb) for some in source])[5 if late else 0 :])
    return torch.stack(films)


def pixels(films: Tensor) -> Tensor:
    """(B, T, H, W, 3) in 0..255 to (B, 3, T, H, W) in [-1, 1]."""
    return films.movedim(-1, 1).float() / 127.5 - 1


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """dB of pictures (B, H, W, 3) in 0..255, (B,)."""
    return 10 * (255**2 / (a.float() - b.float()).square().mean((1, 2, 3))).log10()


def steps(films: Tensor) -> Tensor:
    """Mean change of a pixel from frame to frame (B, T); the last one leads to the first frame."""
    return (films.float() - films.float().roll(-1, 1)).abs().mean((2, 3, 4))


def jump(films: Tensor) -> Tensor:
    """The largest step into, within or out of the pinned cell, over the median step (B,)."""
    inner = steps(films)[:, :-1]
    return inner[:, CELL.start - 1 : CELL.stop].amax(1) / inner.median(1).values


def edge(films: Tensor) -> Tensor:
    """The mean step over the edges of the pinned cell, over that between the groups before it (B,)."""
    step = steps(films)
    return step[:, [CELL.start - 1, CELL.stop - 1]].mean(1) / step[:, : CELL.start - 4 : 4].mean(1)


def seam(films: Tensor) -> Tensor:
    """The step from the last frame to the first, over the median step (B,)."""
    step = steps(films)
    return step[:, -1] / step[:, :-1].median(1).values


def joint(films: Tensor) -> Tensor:
    """The same step over the median step between groups (B,)."""
    step = steps(films)
    return step[:, -1] / step[:, 3:-1:4].median(1).values


def sharp(films: Tensor) -> Tensor:
    """Sharpness of the half second after the seam, over that of the rest (B,): a double exposure is soft."""
    rgb = pixels(films)
    return sharpness(rgb[:, :, :FADE]) / sharpness(rgb[:, :, FADE:])


def moving(films: Tensor) -> Tensor:
    """Whether anything moves in a film, bool (B,); steps cannot tell, for groups of frames never meet quite."""
    return pixels(films).std(2, correction=0).mean((1, 2, 3)) > MOVES


def line(name: str, **measured: Tensor) -> str:
    """Medians, with least and most in brackets."""
    parts = (
        f"{what} {median(x.tolist()):.2f} ({x.min():.2f} to {x.max():.2f})" for what, x in measured.items() if len(x)
    )
    return "  ".join([f"{name:18}", *parts])


def keyframe_scores(made: dict[str, Tensor], truth: Tensor) -> list[Score]:
    """A line for each way; the scores of a pinned picture, and the truth through the autoencoder as their ceiling."""
    near = {way: psnr(films[:, PINNED], truth[:, PINNED]) for way, films in made.items()}
    jumps = {way: jump(films) for way, films in made.items()}
    for way, films in made.items():
        print(line(f"keyframe {way}", dB=near[way], jump=jumps[way], edge=edge(films)))
    named = (("pinned picture in mid-cell", near, "dB"), ("jump round a pinned picture", jumps, "median steps"))
    return [
        middle(name, x["picture"].tolist(), unit=unit, ceiling=median(x["coded"].tolist())) for name, x, unit in named
    ]


def loop_scores(made: dict[str, Tensor]) -> list[Score]:
    """A line for each way, of the films that move in all of them; the scores of a ring."""
    moves = {way: moving(films) for way, films in made.items()}
    all_move = torch.stack(list(moves.values())).all(0)
    for way, films in made.items():
        some = films[all_move]
        facts = line(f"loop {way}", seam=seam(some), joint=joint(some), sharp=sharp(some))
        print(f"{facts}  moving {int(moves[way].sum())} of {len(films)}, measured on {len(some)}")
    ring = made["ring"][moves["ring"]]
    n = len(made["ring"])
    low, high = wilson(len(ring), n)
    share = Score(name="loops that move", value=len(ring) / n, low=low, high=high, n=n, unit="share of films")
    if not len(ring):
        return [share]
    return [
        share,
        middle("seam of a loop that moves", seam(ring).tolist(), unit="median steps"),
        middle("seam of a loop that moves, beside joints", joint(ring).tolist(), unit="median joints"),
    ]


def at_home(model: Model, *, stills: int = 300) -> float:
    """The PSNR (dB) that 99 of 100 stills of the whole world reach through the model's code: what strangers do not."""
    seeds = range(FIRST_SEED, FIRST_SEED + stills)
    pictures = render([draw(seed, FULL) for seed in seeds], frames=1, height=GRID.height, width=GRID.width, fps=1).rgb
    return float(np.quantile([likeness(model, picture[0].numpy()) for picture in pictures], 0.01))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--folder", type=Path, default=diorama.SHIPPED)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    model = diorama.load(asked.folder)
    seeds = range(FIRST_SEED, FIRST_SEED + asked.clips)
    scenes = [draw(seed, FIRST) for seed in seeds]
    texts = [caption(scene, seed, style="plain").text for scene, seed in zip(scenes, seeds, strict=True)]
    truth = render(scenes, frames=GRID.frames, height=GRID.height, width=GRID.width, fps=GRID.fps).rgb
    scores = keyframe_scores(keyframes(model, texts, truth, seeds), truth)

    begun = Canvas.blank(GRID, batch=len(texts)).place("video", pixels(truth)[:, :, :9])
    off = filled(model, begun, texts, seeds) - model.autoencoder.encode(pixels(truth))
    print(f"known: {float(off[:, :, :3].abs().max()):g}")

    scores += loop_scores(loops(model, texts, seeds))
    least = at_home(model)
    print(f"its own pictures through its code: 99 of 100 at {least:.1f} dB or more")
    if asked.write:
        diorama.write_card(asked.folder, model.card.model_copy(update={"shows": round(least, 1)}))
        command, today = f"python bench/tasks.py --clips={asked.clips}", datetime.date.today().isoformat()
        keep(asked.folder, signed(scores, of="tasks", command=command, date=today))


if __name__ == "__main__":
    main()
