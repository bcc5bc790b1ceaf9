"""The canvas in latents: as much of it is encoded as decides what is laid, and that comes out as of the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from parity import grid_of, opened, pictures
from tiny import cogvideox, hunyuan, hunyuan15, ltx, ltx2, svd, wan

from cinecanvas.canvas import Canvas, Track
from cinecanvas.fitting import heaviest, rehearse
from cinecanvas.layout import Placed
from cinecanvas.model import Model
from cinecanvas.models.latents import latent_canvas, neighbourly
from cinecanvas.plan import Pass
from cinecanvas.request import Clip
from cinecanvas.runtime.placement import Placement

MADE: dict[str, Callable[[Path], Path]] = {
    "wan": lambda folder: wan.save(folder, "t2v"),
    "cogvideox": lambda folder: cogvideox.save(folder, "5b"),
    "hunyuan": hunyuan.save,
    "hunyuan15": lambda folder: hunyuan15.save(folder, "t2v"),
    "ltx": lambda folder: ltx.save(folder, "plain"),
    "ltx2": lambda folder: ltx2.save(folder, "2.0"),
    "svd": svd.save,
}
WHOLE_IN_TIME = ("ltx", "ltx2")  # their kernels take all frames at once, and round by how many: 1e-6, measured
FRAMES = 49
# What is laid (frames from, to), and how many frames go through the code: alone, or in groups or tiles of its own.
LAID = {
    (0, 1): {"wan": 1, "cogvideox": 9, "hunyuan": 17, "hunyuan15": 1, "ltx": 1, "ltx2": 1, "svd": 1},
    (20, 25): {"wan": 25, "cogvideox": 25, "hunyuan": 29, "hunyuan15": 25, "ltx": 25, "ltx2": 25, "svd": 5},
    (45, 49): {"wan": 49, "cogvideox": 49, "hunyuan": 25, "hunyuan15": 49, "ltx": 49, "ltx2": 49, "svd": 4},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    place = tmp_path_factory.mktemp("latents")
    return {name: opened(save(place / name)) for name, save in MADE.items()}


def encoded(model: Any, canvas: Canvas) -> tuple[Track, list[int]]:
    """The latent canvas, and how many frames went through the code each time."""
    counted: list[int] = []

    def encode(rgb: torch.Tensor) -> torch.Tensor:
        counted.append(rgb.shape[2])
        return cast(torch.Tensor, model._encode(rgb))

    reach = {"hunyuan", "cogvideox"} & {type(model).__name__.lower()}
    with torch.inference_mode():
        latent = latent_canvas(canvas, model.card, encode, device="cpu", reach=model._reach if reach else None)
    return latent.tracks["video"], counted


def partly(canvas: Canvas, first: int, stop: int) -> Canvas:
    """Frames with a hole, some of them softly known."""
    width = canvas.tracks["video"].x.shape[-1]
    keep = torch.ones(1, 1, stop - first, *canvas.tracks["video"].x.shape[3:])
    keep[..., width // 2 :] = 0
    keep[:, :, -1] *= 0.5
    rgb = pictures(stop - first, *keep.shape[3:]).movedim(0, 1)[None]
    return canvas.place("video", rgb, at=(first, 0, 0), keep=keep)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("start", [0, 17])
def test_as_much_is_encoded_as_decides_what_is_laid(models: dict[str, Model], name: str, start: int) -> None:
    model = models[name]
    grid = grid_of(model.card, frames=FRAMES, width=64, height=64)
    for (first, stop), counts in LAID.items():
        lent = min(start, 1) if model.card.causal else 0
        blank = Canvas({"video": Track.blank(grid.pixels, channels=3)})
        whole = partly(blank, first, stop).tracks["video"]
        track, counted = encoded(
            model, Canvas({"video": Track(whole.x[:, :, lent:], whole.keep[:, :, lent:], grid.pixels, start)})
        )
        rgb = torch.cat([whole.x[:, :, lent : 2 * lent], whole.x[:, :, lent:]], 2)
        keep = torch.cat([whole.keep[:, :, lent : 2 * lent], whole.keep[:, :, lent:]], 2)
        with torch.inference_mode():
            code = cast(Any, model)._encode(neighbourly(rgb, keep, range(FRAMES))).float()[:, :, lent:]
        known = (track.keep > 0).expand_as(track.x)
        if name in WHOLE_IN_TIME:
            assert torch.allclose(track.x[known], code[known], atol=1e-5)
        else:
            assert torch.equal(track.x[known], code[known])
        if (first, stop) != (0, 1) or not start:
            assert counted == [counts[name]], (first, stop)


@pytest.mark.parametrize("name", MADE)
def test_nothing_is_encoded_of_an_empty_canvas(models: dict[str, Model], name: str) -> None:
    blank = Canvas.blank(grid_of(models[name].card, frames=17, width=64, height=64))
    track, counted = encoded(models[name], blank)
    assert not counted and not track.x.any() and not track.keep.any()


def test_what_is_foretold_follows_what_is_laid(tmp_path: Path) -> None:
    folder = ltx.save(tmp_path / "ltx", "plain")
    model = opened(folder, Placement(precision="float32", rehearsed=True))
    grid = grid_of(model.card, frames=FRAMES, width=256, height=256)

    def step(*frames: int) -> Pass:
        clips = [
            Placed(clip=Clip(media="a" * 64), first=0, frames=many, box=(0, 0, 256, 256)) for many in frames if many
        ]
        recipe = {"order": "full", "steps": 2, "shift": 1.0, "solver": "euler", "guidance": 1.0, "seed": 0}
        return Pass(model="ltx", weights="", grid=grid, prompt="a fox", clips=tuple(clips), **recipe)  # type: ignore[arg-type]

    rehearse(model, step(0))  # which loads it
    nothing, picture, film = (rehearse(model, step(many)).prepare for many in (0, 1, FRAMES))
    assert film > 1.5 * picture > nothing
    assert heaviest([step(1), step(FRAMES), step(0)]) == step(FRAMES)
