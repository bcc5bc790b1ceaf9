"""Every family of films does every task that its Card names, from the request to the file, and keeps what is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import grid_of, opened, pictures
from tiny import cogvideox, helios, hunyuan, hunyuan15, ltx, ltx2, svd, wan

from cinecanvas import request as tasks
from cinecanvas.canvas import Canvas
from cinecanvas.generate import Done, Step, generate
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.intake import take
from cinecanvas.media.video import write
from cinecanvas.model import Model
from cinecanvas.models import card, cards, shelf
from cinecanvas.request import Request
from cinecanvas.sampler import fill
from cinecanvas.schedule import full
from cinecanvas.settings import Settings, settings
from cinecanvas.solvers import SOLVERS

SIZE = {"width": 64, "height": 64}
MADE: dict[str, Callable[[Path], Path]] = {
    "wan-words": lambda folder: wan.save(folder, "t2v"),
    "wan-picture": lambda folder: wan.save(folder, "i2v"),
    "wan-ends": lambda folder: wan.save(folder, "flf2v"),
    "wan-experts": lambda folder: wan.save(folder, "t2v-a14b"),
    "wan-tokens": lambda folder: wan.save(folder, "ti2v"),
    "helios-tiny": helios.save,
    "ltx": lambda folder: ltx.save(folder, "plain"),
    "ltx2": lambda folder: ltx2.save(folder, "2.0"),
    "cogvideox": lambda folder: cogvideox.save(folder, "5b"),
    "cogvideox-picture": lambda folder: cogvideox.save(folder, "5b-i2v"),
    "hunyuan-tiny": hunyuan.save,
    "hunyuan-picture": lambda folder: hunyuan.save(folder, "token_replace"),
    "hunyuan-channels": lambda folder: hunyuan.save(folder, "latent_concat"),
    "hunyuan15": lambda folder: hunyuan15.save(folder, "t2v"),
    "hunyuan15-picture": lambda folder: hunyuan15.save(folder, "i2v"),
    "svd-tiny": svd.save,
}
each = pytest.mark.parametrize("name", MADE)


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A machine on which all of them were added."""
    place = tmp_path_factory.mktemp("families")
    here = settings({"CINECANVAS_HOME": str(place / "home"), "CINECANVAS_PRECISION": "float32"})
    for name, save in MADE.items():
        shelf.add(name, save(place / name), here)
    return here


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.at(tmp_path_factory.mktemp("store"))


def kept(store: Store, folder: Path, frames: int, *, level: float | None = None) -> Asset:
    """A picture or film of smooth colours, or of one grey."""
    rgb = ((pictures(frames, 64, 64).movedim(1, -1) + 1) * 127.5).round().byte().numpy()
    if level is not None:
        rgb = np.full_like(rgb, int(255 * level))
    path = folder / ("a.mp4" if frames > 1 else "a.png")
    write([rgb], path, fps=8)
    return take(store, path)


def asked(name: str, where: Settings, store: Store, folder: Path) -> dict[str, Request]:
    """A request for every task that a Card may name."""
    one = card(name, where=where)
    size = SIZE if one.sides else {"width": 64, "height": 32}  # one knows its own shape alone
    options: Any = {"model": name, "steps": 2, "seed": 3, "fps": one.fps, **size}
    seconds = 9 / one.fps
    first, mask, film = (kept(store, folder, n, level=level) for n, level in ((1, None), (1, 0.0), (9, None)))
    words = "a red fox"
    requests = {
        "text_to_video": tasks.text_to_video(words, seconds=seconds, **options),
        "text_to_image": tasks.text_to_image(words, **options),
        "image_to_video": tasks.animate(first, words, seconds=seconds, **options),
        "keyframes": tasks.keyframes([(first, 0.0), (first, seconds - 1 / one.fps)], words, seconds=seconds, **options),
        "inpaint": tasks.inpaint(first, mask, words, **options),
        "remix": tasks.remix(first, words, keep=0.4, **options),
        "loop": tasks.loop(words, of=None if "text_to_video" in one.tasks else first, seconds=8 / one.fps, **options),
    }
    if "keyframes" in one.tasks and one.max_seconds > 3:
        requests["extend"] = tasks.extend(film, words, seconds=8 / one.fps, **options)
    return {task: request for task, request in requests.items() if task in one.tasks or task == "extend"}


@each
def test_every_task_of_a_card_comes_to_its_file(name: str, where: Settings, store: Store, tmp_path: Path) -> None:
    for task, request in asked(name, where, store, tmp_path).items():
        out = tmp_path / f"{task}.{'png' if request.seconds == tasks.STILL else 'mp4'}"
        *events, done = generate(request, out=out, store=store, where=where)
        assert isinstance(done, Done) and done.files[0].stat().st_size > 0, task
        video = done.videos[0]
        assert (video.width, video.height) == (request.width, request.height), task
        assert video.frames == done.plan.frames, task
        steps = sum(step.steps for step in done.plan.passes)
        assert [event.done for event in events if isinstance(event, Step)][-1] == steps


@each
def test_what_is_pinned_comes_back_to_the_bit(name: str, where: Settings) -> None:
    folder = shelf.folder_of(name, where)
    assert folder is not None
    model = opened(folder)
    width, height = (64, 64) if model.card.sides else model.card.sizes[0]
    grid = grid_of(model.card, frames=9, width=width, height=height)
    canvas = Canvas.blank(grid).place("video", pictures(9, height, width).movedim(0, 1)[None])
    canvas.tracks["video"].keep[:, :, -4:, :, width // 2 :] = 0  # a hole at the end, on the right
    z, known = filled(model, canvas)
    for track, mask in known.items():
        assert track != "video" or (bool(mask.any()) and not bool(mask.all()))
        assert torch.equal(z[track][mask.expand_as(z[track])], z["pinned"][mask.expand_as(z[track])])


def filled(model: Model, canvas: Canvas) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Latents after two steps, with those that were pinned, and where they were."""
    recipe = model.card.recipes["standard"]
    prepared = model.prepare(canvas, ["a fox"])
    *_, last = fill(
        model, prepared, full(2, shift=recipe.shift, ramp=recipe.ramp), seed=0, solver=SOLVERS[recipe.solver]
    )
    video = prepared.canvas.tracks["video"]
    return {"video": last.z["video"], "pinned": video.x}, {"video": prepared.canvas.known["video"]}


def test_every_public_card_says_how_it_does_what_it_does() -> None:
    for one in cards().values():
        if one.source is None:
            continue
        assert one.recipes.keys() == {"draft", "standard", "best"} and one.sizes, one.name
        approximate = {task for task, how in one.tasks.items() if how == "approximate"}
        assert approximate <= one.ways.keys(), one.name
        assert one.licence and one.terms.url, one.name
        for width, height in one.sizes:
            assert not width % max(1, one.sides) and not height % max(1, one.sides), (one.name, width, height)
