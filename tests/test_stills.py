"""Models of single pictures go the whole way from a request to a file, and say no to films."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny import cascade, sd3, sdxl

from cinecanvas.errors import Unsupported
from cinecanvas.generate import Done, generate
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.intake import take
from cinecanvas.models import cards, others, shelf
from cinecanvas.request import Request, animate, inpaint, outpaint, remix, text_to_image, text_to_video
from cinecanvas.settings import Settings, settings

ASKED: dict[str, Any] = {"quality": "draft", "seed": 3, "width": 64, "height": 64}


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home to which three tiny checkpoints were added."""
    home = tmp_path_factory.mktemp("home")
    here = settings({"CINECANVAS_HOME": str(home), "CINECANVAS_PRECISION": "float32"})
    shelf.add("tiny-sd3", sd3.save(home / "sd3", "3.5-large"), here)
    shelf.add("tiny-sdxl", sdxl.save(home / "sdxl", "turbo"), here)
    shelf.add("tiny-cascade", cascade.save(home / "cascade"), here)
    return here


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


def kept(store: Store, tmp_path: Path, name: str, pixels: np.ndarray) -> Asset:
    file = tmp_path / f"{name}.png"
    Image.fromarray(pixels).save(file)
    return take(store, file)


def made(request: Request, where: Settings, store: Store, out: Path) -> np.ndarray:
    *_, done = generate(request, out=out, store=store, where=where)
    assert isinstance(done, Done)
    return np.asarray(Image.open(done.files[0]).convert("RGB"))


@pytest.mark.parametrize(("model", "size"), [("tiny-sd3", 64), ("tiny-sdxl", 64), ("tiny-cascade", 128)])
def test_words_become_a_picture_of_the_size_asked(
    where: Settings, store: Store, tmp_path: Path, model: str, size: int
) -> None:
    request = text_to_image("a red fox", model=model, **{**ASKED, "width": 2 * size, "height": size})
    assert made(request, where, store, tmp_path / "fox.png").shape == (size, 2 * size, 3)


@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-sdxl"])
def test_pictures_are_painted_into_and_outside_of_and_remixed(
    where: Settings, store: Store, tmp_path: Path, model: str
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    mask = np.full((64, 64, 3), 255, dtype=np.uint8)
    mask[16:48, 16:48] = 0
    fox, hole = kept(store, tmp_path, "fox", pixels), kept(store, tmp_path, "hole", mask)
    wide = {**ASKED, "width": None, "height": None}
    for request in (
        inpaint(fox, hole, "a blue ball", model=model, **ASKED),
        remix(fox, "a blue ball", keep=0.6, model=model, **ASKED),
        outpaint(fox, "a blue ball", to="128x64", model=model, **wide),
    ):
        shown = made(request, where, store, tmp_path / "out.png")
        assert shown.shape == (64, 128 if request.width == 128 else 64, 3)


@pytest.mark.parametrize("model", ["tiny-sd3", "tiny-sdxl", "tiny-cascade"])
def test_films_are_refused_before_anything_is_read(where: Settings, store: Store, tmp_path: Path, model: str) -> None:
    fox = kept(store, tmp_path, "fox", np.zeros((64, 64, 3), dtype=np.uint8))
    words, picture = text_to_video("a fox", seconds=2.0, model=model), animate(fox, "it runs", seconds=2.0, model=model)
    for request in (words, picture):
        with pytest.raises(Unsupported, match=r"asked for a film\. It makes single pictures.*, such as \w+"):
            next(generate(request, out=tmp_path / "fox.mp4", store=store, where=where))


def test_what_a_cascade_cannot_encode_is_refused_by_name(where: Settings, store: Store, tmp_path: Path) -> None:
    fox = kept(store, tmp_path, "fox", np.zeros((64, 64, 3), dtype=np.uint8))
    request = remix(fox, "a blue ball", model="tiny-cascade", **ASKED)
    with pytest.raises(
        Unsupported, match=r"for remix\. It does text to image\. Choose another model, such as .*tiny-sd3"
    ):
        next(generate(request, out=tmp_path / "fox.png", store=store, where=where))


def test_every_model_of_pictures_says_how_it_does_what(where: Settings) -> None:
    stills = {name: card for name, card in cards(where=where).items() if card.still}
    assert {"sd3-medium", "sd3.5-large", "sd3.5-large-turbo", "sd3.5-medium", "sdxl", "sdxl-turbo"} <= set(stills)
    for card in stills.values():
        assert "text_to_image" in card.tasks and "text_to_video" not in card.tasks
        assert {task for task, how in card.tasks.items() if how == "approximate"} <= set(card.ways)
    first = next(iter(others(where=where)))
    assert first.source is None or first.name.startswith("tiny")
