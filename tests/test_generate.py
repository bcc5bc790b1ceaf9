"""The whole trip with the toy: files as planned, the same bits again, nothing left behind when it is stopped."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from cinecanvas import Request, models, text_to_video
from cinecanvas.errors import BadRequest, CannotWrite, Unsupported
from cinecanvas.generate import Done, Event, Phase, Planned, Step, Stored, Watch, destinations, generate
from cinecanvas.media.assets import Store
from cinecanvas.media.video import info, read
from cinecanvas.reel import shown_for
from cinecanvas.settings import Settings, settings


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return settings({"CINECANVAS_HOME": str(tmp_path / "home")})


def toy(prompt: str = "a red ball", **asked: Any) -> Request:
    return text_to_video(prompt, **{"model": "toy", "quality": "draft", "seconds": 1.0, "seed": 5, **asked})


def run(request: Request, out: Path | str, here: Settings, **more: Any) -> tuple[list[Event], Done]:
    events = list(generate(request, out=out, where=here, **more))
    done = events[-1]
    assert isinstance(done, Done)
    return events, done


def untouchable(name: str) -> Any:
    raise AssertionError("weights were loaded")


def test_events_tell_the_trip_in_order(tmp_path: Path, here: Settings) -> None:
    events, done = run(toy(), tmp_path / "a.mp4", here)
    assert isinstance(events[0], Planned)
    assert [e.name for e in events if isinstance(e, Phase)] == ["load", "prepare", "denoise", "write"]
    steps = [e for e in events if isinstance(e, Step)]
    assert [(e.done, e.of) for e in steps] == [(i, 6) for i in range(1, 7)] and all(e.eta >= 0 for e in steps)
    assert done.phases.denoise > 0 and done.phases.write > 0 and done.seeds == (5,)


def test_the_file_is_as_planned(tmp_path: Path, here: Settings) -> None:
    _, done = run(toy(width=128, height=72, fps=12), tmp_path / "a.mp4", here)
    found = info(tmp_path / "a.mp4")
    assert (found.width, found.height, found.frames, found.fps, found.seconds) == (128, 72, 12, 12.0, 1.0)
    assert done.videos[0].frames == done.plan.frames == 12


def test_a_file_says_how_to_make_it_again_and_no_path(tmp_path: Path, here: Settings) -> None:
    run(toy(), tmp_path / "a.mp4", here)
    comment = info(tmp_path / "a.mp4").metadata["comment"]
    facts = json.loads(comment)
    assert Request.model_validate(facts["request"]) == toy() and facts["seed"] == 5 and facts["model"] == "toy"
    assert str(tmp_path) not in comment
    run(Request.model_validate(facts["request"]), tmp_path / "b.mp4", here)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_several_videos_are_those_of_their_seeds(tmp_path: Path, here: Settings) -> None:
    _, done = run(toy(count=2), tmp_path / "a.mp4", here)
    assert [file.name for file in done.files] == ["a-1.mp4", "a-2.mp4"] and done.seeds == (5, 6)
    run(toy(seed=6), tmp_path / "b.mp4", here)
    second, alone = (np.stack(list(read(tmp_path / name))) for name in ("a-2.mp4", "b.mp4"))
    assert np.array_equal(second, alone)
    assert not np.array_equal(second, np.stack(list(read(tmp_path / "a-1.mp4"))))


def test_a_wide_picture_is_the_middle_of_its_grid(tmp_path: Path, here: Settings) -> None:
    run(toy(shape="3:2"), tmp_path / "whole.png", here, models=models.load)
    whole = next(iter(read(tmp_path / "whole-0001.png")))
    run(toy(shape="2:1"), tmp_path / "wide.png", here)
    wide = next(iter(read(tmp_path / "wide-0001.png")))
    assert whole.shape == (16, 24, 3) and wide.shape == (12, 24, 3)
    assert np.array_equal(whole[2:14], wide)


def test_a_picture_name_without_a_length_is_one_picture(tmp_path: Path, here: Settings) -> None:
    run(toy(seconds=None), tmp_path / "a.png", here)
    assert info(tmp_path / "a.png").frames == 1
    assert [path.name for path in tmp_path.glob("*.png")] == ["a.png"]


def test_closing_stops_and_leaves_nothing(tmp_path: Path, here: Settings) -> None:
    place = tmp_path / "out"
    place.mkdir()
    seen = 0
    with closing(cast(Any, generate(toy(), out=place / "a.mp4", where=here))) as events:
        for event in events:
            seen += isinstance(event, Step)
            if seen == 2:
                break
    assert list(place.iterdir()) == []


def test_a_failing_decoder_leaves_nothing(tmp_path: Path, here: Settings) -> None:
    place = tmp_path / "out"
    place.mkdir()
    true = models.load("toy")

    class Broken:
        card = true.card
        prepare = staticmethod(true.prepare)
        denoise = staticmethod(true.denoise)

        def decode(self, z: Any, *, memory: Any = None) -> Iterator[Any]:
            yield next(true.decode(z))
            raise RuntimeError("the decoder broke")

    with pytest.raises(RuntimeError):
        run(toy(), place / "a.mp4", here, models=lambda name: Broken())
    assert list(place.iterdir()) == []


def test_bad_destinations_are_refused_before_weights_load(tmp_path: Path, here: Settings) -> None:
    (tmp_path / "file").write_text("")
    for out in ("missing/a.mp4", "file/a.mp4"):
        with pytest.raises(CannotWrite):
            run(toy(), tmp_path / out, here, models=untouchable)
    for out in ("a.xyz", "a"):
        with pytest.raises(Unsupported):
            run(toy(), tmp_path / out, here, models=untouchable)
    with pytest.raises(Unsupported, match="GIF"):
        run(toy(fps=60), tmp_path / "a.gif", here, models=untouchable)


def test_unknown_models_are_refused_by_name(tmp_path: Path, here: Settings) -> None:
    with pytest.raises(Unsupported, match=r"no model 'sora'.*toy"):
        run(toy(model="sora"), tmp_path / "a.mp4", here)
    with pytest.raises(Unsupported, match=r"Perhaps wan2.*`cine models` lists all"):
        run(toy(model="wan"), tmp_path / "a.mp4", here)


def test_what_is_in_the_store_is_not_done_again(tmp_path: Path, here: Settings) -> None:
    store = Store.at(tmp_path / "store")
    _, first = run(toy(), tmp_path / "a.mp4", here, store=store)
    events, second = run(toy(), tmp_path / "b.mp4", here, store=store)
    assert not [e for e in events if isinstance(e, Step)]
    assert first.assets == second.assets and store.has(first.assets[0].digest)
    assert [(e.video, e.asset) for e in events if isinstance(e, Stored)] == [(0, second.assets[0])]
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_an_interrupted_pass_goes_on_bit_for_bit(
    tmp_path: Path, here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("cinecanvas.generate"), "CHECKPOINT_EVERY", 0.0)
    store = Store.at(tmp_path / "store")
    with closing(cast(Any, generate(toy(), out=tmp_path / "a.mp4", where=here, store=store))) as events:
        for event in events:
            if isinstance(event, Step) and event.done == 4:
                break
    resumed, _ = run(toy(), tmp_path / "a.mp4", here, store=store)
    assert [e.done for e in resumed if isinstance(e, Step)] == [5, 6]
    run(toy(), tmp_path / "b.mp4", here)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_damaged_checkpoint_is_forgotten(tmp_path: Path, here: Settings) -> None:
    store = Store.at(tmp_path / "store")
    _, done = run(toy(), tmp_path / "a.mp4", here)
    store.put_named(done.plan.passes[0].key, b"not a fill")
    events, _ = run(toy(), tmp_path / "b.mp4", here, store=store)
    assert len([e for e in events if isinstance(e, Step)]) == 6


def test_the_pace_of_this_machine_is_learnt(tmp_path: Path, here: Settings) -> None:
    run(toy(), tmp_path / "a.mp4", here)
    assert json.loads((here.cache / "paces.json").read_text())["toy"]["denoise"] > 0


@pytest.mark.parametrize(
    ("source", "fps", "shown"),
    [
        (8, 8, [0, 1, 2, 3]),
        (8, 24, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]),
        (8, 4, [0, 2]),
        (8, 12, [0, 0, 1, 2, 2, 3]),
        (24, 8, [0, 3]),
    ],
)
def test_each_moment_shows_the_frame_that_stood_then(source: int, fps: int, shown: list[int]) -> None:
    times = [shown_for(index, source=source, fps=fps) for index in range(max(shown) + 1)]
    assert [index for index, moments in enumerate(times) for _ in moments] == shown
    assert [moment for moments in times for moment in moments] == list(range(len(shown)))


def test_several_destinations_are_numbered() -> None:
    assert destinations("a/b.mp4", count=1) == ("a/b.mp4",)
    assert destinations("a/b.mp4", count=2) == ("a/b-1.mp4", "a/b-2.mp4")
    assert destinations("frames/", count=2) == ("frames-1/", "frames-2/")


def test_what_was_understood_is_told(tmp_path: Path, here: Settings) -> None:
    events, done = run(toy("a red fox in Paris"), tmp_path / "a.mp4", here)
    assert done.reading is not None
    assert done.reading.values == {"colour": "red"} and set(done.reading.ignored) == {"fox", "paris"}
    planned = events[0]
    assert isinstance(planned, Planned) and "cine models pull" in planned.advice


@pytest.mark.parametrize(
    ("prompt", "advised"),
    [
        ("a red ball bounces on grass at sunset", False),
        ("a red ball", False),
        ("sunset", False),
        ("a fox bounces on grass at sunset", True),
        ("a ball and its many curious neighbours", True),
        ("Paris", True),
    ],
)
def test_a_model_of_a_small_world_says_where_its_world_ends(prompt: str, advised: bool) -> None:
    words = {
        "shape": ("ball", "cube"),
        "colour": ("red",),
        "floor": ("grass",),
        "sky": ("sunset",),
        "motion": ("bounce",),
    }
    small = models.card("toy").model_copy(update={"words": words})
    line = models.advice(small, models.understood(small, prompt))
    assert bool(line) == advised == ("shape: ball, cube" in line and "cine models pull" in line)


def test_a_model_of_the_open_domain_needs_no_reading() -> None:
    open_domain = models.card("toy").model_copy(update={"words": {}})
    assert models.understood(open_domain, "Paris") is None and models.advice(open_domain, None) == ""


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    assert settings({"CINECANVAS_HOME": "/h"}).store == Path("/h/data/store")
    places = settings({"XDG_CACHE_HOME": "/c", "XDG_DATA_HOME": "/d", "CINECANVAS_THREADS": "3"})
    assert (places.cache, places.data, places.threads) == (Path("/c/cinecanvas"), Path("/d/cinecanvas"), 3)
    with pytest.raises(BadRequest, match="CINECANVAS_THREADS"):
        settings({"CINECANVAS_THREADS": "many"})


def test_a_broken_plugin_harms_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "broken"

        def load(self) -> Any:
            raise ImportError("no such module")

    models.entries.cache_clear()
    monkeypatch.setattr(models, "entry_points", lambda group: [Point()])
    try:
        assert "toy" in models.cards() and "broken" not in models.cards()
        with pytest.raises(Unsupported, match="plugin is broken"):
            models.card("broken")
    finally:
        models.entries.cache_clear()


def test_pictures_in_a_folder_are_named_where_they_are(tmp_path: Path, here: Settings) -> None:
    _, done = run(toy(), f"{tmp_path}/frames/", here, live=True)
    assert done.files == (tmp_path / "frames" / "%04d.png",) and (tmp_path / "frames" / "0001.png").exists()


def test_one_picture_is_not_watched_while_it_is_made(tmp_path: Path, here: Settings) -> None:
    events, _ = run(toy(seconds=None), tmp_path / "a.png", here, live=True)
    assert not [event for event in events if isinstance(event, Watch)]
