"""Every task is a canvas with holes: what is known comes back, what makes no sense is refused before weights load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cinecanvas import request as tasks
from cinecanvas.compose import compose
from cinecanvas.errors import BadMedia, BadRequest, CinecanvasError, Unsupported
from cinecanvas.generate import Done, generate, request_of
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.intake import take
from cinecanvas.media.video import info, read, write
from cinecanvas.models import card
from cinecanvas.models.toy import CARD
from cinecanvas.plan import plan
from cinecanvas.request import Clip, Request
from cinecanvas.settings import settings

TOY: dict[str, Any] = {"model": "toy", "quality": "draft", "seed": 4, "fps": 8.0}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


def picture(store: Store, name: str, *, size: tuple[int, int] = (16, 16), level: int = 200) -> Asset:
    """A still with a corner of its own, so that a flip or a shift would show."""
    frame = np.full((size[1], size[0], 3), level, dtype=np.uint8)
    frame[: size[1] // 2, : size[0] // 2, 0] = 20
    file = (store.root or Path()).parent / f"{name}.png"
    write([frame], file, fps=1)
    return take(store, file)


def film(store: Store, name: str, *, frames: int = 8, fps: float = 8.0) -> Asset:
    """A film of flat greys that rise: every frame tells its number."""
    file = (store.root or Path()).parent / f"{name}.mp4"
    write([np.full((16, 16, 3), 20 * i + 10, dtype=np.uint8) for i in range(frames)], file, fps=fps)
    return take(store, file)


def made(request: Request, store: Store, tmp_path: Path) -> np.ndarray:
    """The frames of a request (T, H, W, 3), written without loss."""
    out = tmp_path / "made"
    out.mkdir()
    where = settings({"CINECANVAS_HOME": str(tmp_path / "home")})
    *_, done = generate(request, out=f"{out}/", store=store, where=where)
    assert isinstance(done, Done)
    return np.stack(list(read(f"{out}/")))


def test_a_picture_is_the_first_frame_or_the_last(store: Store, tmp_path: Path) -> None:
    still = picture(store, "a")
    pixels = next(iter(read(store.path(still.digest))))
    frames = made(tasks.animate(still, "red", seconds=1.0, **TOY), store, tmp_path)
    assert len(frames) == 8 and np.array_equal(frames[0], pixels) and not np.array_equal(frames[1], pixels)
    (tmp_path / "made").rename(tmp_path / "before")
    frames = made(tasks.animate(still, "red", seconds=1.0, last=True, **TOY), store, tmp_path)
    assert np.array_equal(frames[-1], pixels) and not np.array_equal(frames[0], pixels)


def test_keyframes_stand_at_their_seconds(store: Store, tmp_path: Path) -> None:
    one, two = picture(store, "a", level=80), picture(store, "b", level=220)
    frames = made(tasks.keyframes([(two, 0.75), (one, 0.25)], "red", seconds=1.0, **TOY), store, tmp_path)
    for asset, at in ((one, 2), (two, 6)):
        assert np.array_equal(frames[at], next(iter(read(store.path(asset.digest)))))


@pytest.mark.parametrize("backward", [False, True])
def test_an_extended_film_still_holds_what_it_was(store: Store, tmp_path: Path, backward: bool) -> None:
    clip = film(store, "a")
    frames = made(tasks.extend(clip, "red", seconds=1.0, backward=backward, **TOY), store, tmp_path)
    old = np.stack(list(read(store.path(clip.digest))))
    assert len(frames) == 16 and np.array_equal(frames[8:] if backward else frames[:8], old)


def test_a_retake_changes_its_part_alone(store: Store, tmp_path: Path) -> None:
    clip = film(store, "a")
    frames = made(tasks.retake(clip, "red", start=0.25, end=0.5, **TOY), store, tmp_path)
    old = np.stack(list(read(store.path(clip.digest))))
    same = [np.array_equal(a, b) for a, b in zip(frames, old, strict=True)]
    assert same == [True, True, False, False, True, True, True, True]


def test_a_mask_keeps_what_is_white(store: Store, tmp_path: Path) -> None:
    clip = film(store, "a")
    mask = np.zeros((16, 16, 3), dtype=np.uint8)
    mask[:, 8:] = 255
    write([mask], tmp_path / "mask.png", fps=1)
    frames = made(tasks.inpaint(clip, take(store, tmp_path / "mask.png"), "red", **TOY), store, tmp_path)
    old = np.stack(list(read(store.path(clip.digest))))
    assert np.array_equal(frames[:, :, 8:], old[:, :, 8:]) and not np.array_equal(frames[:, :, :8], old[:, :, :8])


def test_an_outpainted_film_lies_where_it_was_put(store: Store, tmp_path: Path) -> None:
    clip = film(store, "a")
    asked = {**TOY, "shape": ""}
    frames = made(tasks.outpaint(clip, "red", to="3:2", place=(1.0, 0.5), **asked), store, tmp_path)
    old = np.stack(list(read(store.path(clip.digest))))
    assert frames.shape == (8, 16, 24, 3) and np.array_equal(frames[:, :, 8:], old)
    request = tasks.outpaint(clip, "red", to="3:2", box=(0.25, 0.25, 0.5, 0.5), **asked)
    assert request.clips[0].box == (0.25, 0.25, 0.5, 0.5)


def test_a_remix_keeps_more_of_the_film_the_more_is_kept(store: Store, tmp_path: Path) -> None:
    clip = film(store, "a")
    old = np.stack(list(read(store.path(clip.digest)))).astype(float)
    far = []
    for keep in (0.1, 0.9, 1.0):
        frames = made(tasks.remix(clip, "red", keep=keep, **TOY), store, tmp_path)
        (tmp_path / "made").rename(tmp_path / f"made-{keep}")
        far.append(np.abs(frames - old).mean())
    assert far[0] > far[1] > far[2] == 0


def test_an_upscaled_film_is_larger_and_still_the_same(store: Store, tmp_path: Path) -> None:
    clip = film(store, "a")
    old = np.stack(list(read(store.path(clip.digest)))).astype(float)
    request = tasks.upscale(clip, "red", times=2, keep=0.9, **TOY)
    frames = made(request, store, tmp_path)
    smaller = frames.reshape(8, 16, 2, 16, 2, 3).mean((2, 4))
    assert frames.shape == (8, 32, 32, 3) and 0 < np.abs(smaller - old).mean() < 20
    with pytest.raises(Unsupported, match="asked for upscale"):
        plan(request, card("diorama"), media={clip.digest: clip})


def test_variations_are_the_same_request_with_other_seeds() -> None:
    request = tasks.text_to_video("red", **TOY)
    again = tasks.variations(request, count=3, seed=9)
    assert again.seeds == (9, 10, 11) and again == request.model_copy(update={"seed": 9, "count": 3})
    assert tasks.variations(request).seed != tasks.variations(request).seed


def test_two_films_are_joined_by_new_frames(store: Store, tmp_path: Path) -> None:
    one, two = film(store, "a"), film(store, "b", frames=4)
    frames = made(tasks.join(one, two, "red", seconds=0.5, **TOY), store, tmp_path)
    assert len(frames) == 16
    assert np.array_equal(frames[:8], np.stack(list(read(store.path(one.digest)))))
    assert np.array_equal(frames[12:], np.stack(list(read(store.path(two.digest)))))


def test_the_end_of_a_loop_is_as_near_to_its_beginning_as_any_frame_to_the_next(store: Store, tmp_path: Path) -> None:
    frames = made(tasks.loop("red", seconds=1.0, **TOY), store, tmp_path).astype(float)
    steps = [np.abs(a - b).mean() for a, b in zip(frames, np.roll(frames, -1, axis=0), strict=True)]
    assert len(frames) == 8 and steps[-1] < 1.5 * np.median(steps[:-1]) and min(steps) > 1
    (tmp_path / "made").rename(tmp_path / "closed")
    frames = made(tasks.text_to_video("red", seconds=1.0, **TOY), store, tmp_path).astype(float)
    steps = [np.abs(a - b).mean() for a, b in zip(frames, np.roll(frames, -1, axis=0), strict=True)]
    assert steps[-1] > 1.5 * np.median(steps[:-1])  # which an open film of the same seed is not


def test_a_loop_begins_with_its_picture(store: Store, tmp_path: Path) -> None:
    still = picture(store, "a")
    frames = made(tasks.loop("red", of=still, seconds=1.0, **TOY), store, tmp_path)
    assert np.array_equal(frames[0], next(iter(read(store.path(still.digest)))))


def test_a_film_of_another_rate_is_sampled_at_its_moments(store: Store, tmp_path: Path) -> None:
    clip = film(store, "a", frames=10, fps=20.0)
    frames = made(tasks.extend(clip, "red", seconds=0.5, **TOY), store, tmp_path)
    old = np.stack(list(read(store.path(clip.digest))))
    assert np.array_equal(frames[:4], old[[0, 2, 5, 7]])


def test_a_wide_picture_is_cropped_padded_or_stretched(store: Store, tmp_path: Path) -> None:
    wide = picture(store, "wide", size=(32, 16))
    seen = {}
    for fit in ("crop", "pad", "stretch"):
        request = tasks.animate(wide, "red", seconds=0.5, fit=fit, **{**TOY, "shape": "1:1"})
        (step,) = plan(request, CARD, media={wide.digest: wide}).passes
        track = compose(step.clips, step.grid, store.path, window=step.frames).tracks["video"]
        dark = (track.x[0, 0, 0] < -0.5) & (track.keep[0, 0, 0] > 0)
        seen[fit] = int(track.keep[0, 0, 0].sum()), int(dark.any(0).sum())  # px known, columns of the dark corner
    assert seen == {"crop": (256, 8), "pad": (128, 8), "stretch": (256, 8)}


def test_a_request_comes_back_from_the_file_that_it_made(store: Store, tmp_path: Path) -> None:
    request = tasks.animate(picture(store, "a"), "red", seconds=0.5, **TOY)
    where = settings({"CINECANVAS_HOME": str(tmp_path / "home")})
    list(generate(request, out=tmp_path / "a.mp4", store=store, where=where))
    assert request_of(tmp_path / "a.mp4") == request
    (tmp_path / "r.json").write_text(request.model_dump_json())
    list(generate(request_of(tmp_path / "r.json"), out=tmp_path / "b.mp4", store=store, where=where))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    (tmp_path / "not.json").write_text(json.dumps([1]))
    with pytest.raises(BadRequest, match=r"not.json does not say"):
        request_of(tmp_path / "not.json")


@pytest.mark.parametrize(
    ("clips", "said"),
    [
        ((Clip(media="A", start=3.0),), "does not fit a video of 1 s"),
        ((Clip(media="B", start=0.5),), "does not fit"),
        ((Clip(media="A", start=0.5), Clip(media="A", start=0.5)), "on one place at 0.5 s"),
        ((Clip(media="B", mask="W"),), "A mask of 32x16 px"),
        ((Clip(media="B", trim=(2.0, 3.0)),), "begins before the clip ends"),
        ((Clip(media="sha256:" + "0" * 64),), "no asset"),
    ],
)
def test_clips_that_cannot_lie_there_are_refused_before_weights_load(
    store: Store, tmp_path: Path, clips: tuple[Clip, ...], said: str
) -> None:
    named = {"A": picture(store, "a"), "B": film(store, "b"), "W": picture(store, "w", size=(32, 16))}
    found = tuple(
        c.model_copy(update={k: named[v].digest for k, v in (("media", c.media), ("mask", c.mask)) if v in named})
        for c in clips
    )

    def untouchable(name: str) -> Any:
        raise AssertionError("weights were loaded")

    request = Request(prompt="red", seconds=1.0, clips=found, **TOY)
    with pytest.raises(CinecanvasError, match=said):
        list(generate(request, out=tmp_path / "a.mp4", store=store, models=untouchable))
    assert not (tmp_path / "a.mp4").exists()


def test_tasks_that_make_no_sense_are_refused(store: Store) -> None:
    still, clip = picture(store, "a"), film(store, "b")
    for wrong, said in (
        (lambda: tasks.extend(still, "red"), "A picture was given to extend"),
        (lambda: tasks.retake(clip, "red", start=0.5, end=0.5), "not empty"),
        (lambda: tasks.retake(clip, "red", start=0.5, end=9.0), "ends by 1 s"),
        (lambda: tasks.keyframes([(still, 0.5), (still, 0.5)], "red"), "one second"),
        (lambda: tasks.keyframes([], "red"), "No keyframe"),
        (lambda: tasks.remix(clip, "red", keep=1.5), "kept by 1.5"),
        (lambda: tasks.outpaint(clip, "red", to="16:9", place=(2.0, 0.0)), "to sit at 2, 0"),
    ):
        with pytest.raises(BadRequest, match=said):
            wrong()


def test_a_model_that_cannot_is_told_by_what_it_can() -> None:
    lame = CARD.model_copy(update={"tasks": {"text_to_video": "exact"}})
    with pytest.raises(Unsupported, match=r"asked for image to video\. It does text to video"):
        plan(Request(prompt="red", clips=(Clip(media="x"),)), lame)


def test_what_is_no_picture_or_film_or_too_large_never_enters_the_store(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 50)
    (tmp_path / "a.mp4").write_bytes(b"not a film")
    write([np.zeros((8, 8, 3), dtype=np.uint8)] * 4, tmp_path / "cut.mp4", fps=8)
    whole = (tmp_path / "cut.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    for name in ("a.png", "a.mp4", "cut.mp4", "huge.png", "none.png"):
        with pytest.raises(BadMedia) as refused:
            take(store, tmp_path / name)
        assert str(tmp_path) not in str(refused.value) and "\n" not in str(refused.value)
    assert store.root is not None and not [p for p in store.root.rglob("*") if p.is_file()]


def test_a_picture_knows_no_seconds_and_a_film_does(store: Store, tmp_path: Path) -> None:
    assert picture(store, "a").seconds is None
    clip = film(store, "b")
    assert (clip.seconds, clip.frames, clip.width) == (1.0, 8, 16)
    assert info(store.path(clip.digest)).frames == 8
