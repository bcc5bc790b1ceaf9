"""A film longer than a window: every window goes on from the one before, and what was made is never made again."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cinecanvas import request as tasks
from cinecanvas.anchor import Anchor
from cinecanvas.generate import Done, Step, Watch, generate
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.intake import take
from cinecanvas.media.video import read, write
from cinecanvas.models.toy import CARD, Toy
from cinecanvas.plan import plan
from cinecanvas.request import Cue, Request
from cinecanvas.sampler import Fill
from cinecanvas.settings import settings

WINDOWED = CARD.model_copy(update={"window": 9, "overlap": 3})
ASKED: dict[str, Any] = {"model": "toy", "quality": "draft", "seed": 4, "fps": 8.0}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Step], Done]]:
    monkeypatch.setattr(importlib.import_module("cinecanvas.generate"), "card", lambda name, where: WINDOWED)

    def run(request: Request, out: Path | str, *, store: Store | None = None, stop: int = 10**9) -> Any:
        where = settings({"CINECANVAS_HOME": str(tmp_path / "home")})
        steps = []
        events = generate(request, out=f"{out}", store=store, where=where, models=lambda name: Toy(card=WINDOWED))
        with closing(events):  # type: ignore[type-var]
            for event in events:
                if isinstance(event, Step):
                    steps.append(event)
                if len(steps) >= stop:
                    return steps, None
        return steps, event

    return run


def frames(folder: Path) -> np.ndarray:
    return np.stack(list(read(f"{folder}/")))


def test_steps_count_through_all_windows(tmp_path: Path, run: Any) -> None:
    steps, done = run(tasks.text_to_video("red", seconds=3.0, **ASKED), tmp_path / "a.mp4")
    assert len(done.plan.passes) == 4 and [step.done for step in steps] == list(range(1, 25))
    assert {step.of for step in steps} == {24} and done.videos[0].frames == 24


def test_a_window_keeps_what_the_one_before_has_made(tmp_path: Path, run: Any) -> None:
    store = Store.at(tmp_path / "store")
    _, done = run(tasks.text_to_video("red", seconds=3.0, **ASKED), tmp_path / "a.mp4", store=store)
    kept = [Fill.unpack(store.get_named(step.key) or b"").z["video"] for step in done.plan.passes]
    for before, after, z, later in zip(done.plan.passes, done.plan.passes[1:], kept, kept[1:], strict=False):
        shared = before.stop - after.start
        assert shared >= 3 and np.array_equal(z[:, :, -shared:], later[:, :, :shared])


def test_a_longer_film_begins_as_the_shorter_one(tmp_path: Path, run: Any) -> None:
    store = Store.at(tmp_path / "store")
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    run(tasks.text_to_video("red", seconds=15 / 8, **ASKED), f"{tmp_path}/a/", store=store)
    steps, done = run(tasks.text_to_video("red", seconds=27 / 8, **ASKED), f"{tmp_path}/b/", store=store)
    assert len(done.plan.passes) == 4 and len(steps) == 2 * 6  # two of the four were there


@pytest.mark.parametrize("stop", [3, 6, 7, 13, 23])
def test_a_run_that_was_stopped_repeats_no_network_call(tmp_path: Path, run: Any, stop: int) -> None:
    request = tasks.text_to_video("red", seconds=3.0, **ASKED)
    run(request, tmp_path / "whole.mp4")
    store = Store.at(tmp_path / "store")
    run(request, tmp_path / "a.mp4", store=store, stop=stop)
    assert not (tmp_path / "a.mp4").exists()
    steps, _ = run(request, tmp_path / "a.mp4", store=store)
    assert len(steps) == 24 - stop
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_film_grows_backward_from_its_beginning(tmp_path: Path, run: Any) -> None:
    store = Store.at(tmp_path / "store")
    write([np.full((16, 16, 3), 25 * i, dtype=np.uint8) for i in range(8)], tmp_path / "clip.mp4", fps=8)
    clip = take(store, tmp_path / "clip.mp4")
    request = tasks.extend(clip, "red", seconds=2.0, backward=True, **ASKED)
    order = [(step.start, step.stop) for step in plan(request, WINDOWED, media={clip.digest: clip}).passes]
    assert order == [(15, 24), (9, 18), (3, 12), (0, 9)]
    (tmp_path / "out").mkdir()
    run(request, f"{tmp_path}/out/", store=store)
    assert np.array_equal(frames(tmp_path / "out")[16:], np.stack(list(read(store.path(clip.digest)))))


def test_a_retake_runs_only_the_windows_that_have_a_hole(tmp_path: Path, run: Any) -> None:
    store = Store.at(tmp_path / "store")
    write([np.full((16, 16, 3), 5 * i, dtype=np.uint8) for i in range(45)], tmp_path / "clip.mp4", fps=8)
    clip = take(store, tmp_path / "clip.mp4")
    request = tasks.retake(clip, "red", start=2.0, end=2.25, **ASKED)
    (tmp_path / "out").mkdir()
    steps, done = run(request, f"{tmp_path}/out/", store=store)
    busy = [s for s in done.plan.passes if set(range(16, 18)) & set(s.frames)]
    worked = [step for step in steps if step.done % 6]
    assert len(done.plan.passes) == 7 and len(worked) <= 5 * len(busy)
    old, new = np.stack(list(read(store.path(clip.digest)))), frames(tmp_path / "out")
    assert [i for i in range(45) if not np.array_equal(old[i], new[i])] == [16, 17]


@pytest.mark.parametrize(("order", "seconds"), [("full", 12.0), ("causal", 6.0)])
def test_a_film_can_be_watched_while_the_rest_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, seconds: float
) -> None:
    monkeypatch.setattr(importlib.import_module("cinecanvas.generate"), "card", lambda name, where: WINDOWED)
    where = settings({"CINECANVAS_HOME": str(tmp_path / "home")})
    request = tasks.text_to_video("red", seconds=seconds, **{**ASKED, "order": order})
    (tmp_path / "out").mkdir()
    seen, steps = [], 0
    for event in generate(
        request, out=tmp_path / "out" / "a.mp4", where=where, models=lambda name: Toy(card=WINDOWED), live=True
    ):
        steps += isinstance(event, Step)
        if isinstance(event, Watch) and event.seconds > 1 + 1 / 8:
            seen.append((steps, len(list(read(event.file))) / 8, event.seconds))
    shown = [found for _, found, _ in seen]
    assert seen[0][0] < steps / 2 and shown == sorted(shown)
    assert all(told - 1 <= found <= told for _, found, told in seen)  # whole seconds reach the file
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["a.mp4"]


@pytest.mark.parametrize("order", ["full", "causal", "pyramid"])
def test_a_film_decoded_in_pieces_is_the_film_decoded_at_once(tmp_path: Path, run: Any, order: str) -> None:
    (tmp_path / "a").mkdir()
    store = Store.at(tmp_path / "store")
    request = tasks.text_to_video("red", seconds=27 / 8, **{**ASKED, "order": order})
    _, done = run(request, f"{tmp_path}/a/", store=store)
    kept = [Fill.unpack(store.get_named(step.key) or b"").z["video"] for step in done.plan.passes]
    whole = torch.zeros(*kept[0].shape[:2], 27, *kept[0].shape[3:])
    for step, z in zip(done.plan.passes, kept, strict=True):
        whole[:, :, step.start : step.stop] = z
    assert np.array_equal(frames(tmp_path / "a"), np.concatenate([f.rgb for f in Toy().decode({"video": whole})]))


def test_a_window_holds_to_the_first_and_what_is_told_or_laid_sets_it_free() -> None:
    picture = Asset(digest=f"sha256:{0:064}", media_type="image/png", bytes=1, width=16, height=16)

    def anchors(request: Request) -> list[tuple[int, int] | None]:
        return [step.anchor for step in plan(request, WINDOWED, media={picture.digest: picture}).passes]

    plain = tasks.text_to_video("red", seconds=27 / 8, **ASKED)
    assert anchors(plain) == [None, (0, 9), (0, 9), (0, 9)]
    cued = plain.model_copy(update={"cues": (Cue(at=9 / 8, prompt="blue"),)})
    assert anchors(cued) == [None, None, (9, 15), (9, 15)]
    pinned = tasks.keyframes([(picture, 0.0), (picture, 2.0)], "red", seconds=27 / 8, **ASKED)
    assert anchors(pinned) == [None, (0, 9), None, (12, 21)]


def test_colour_that_runs_away_is_held_in_the_range_of_the_first_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fading(Toy):
        """Every guess a little lighter than it should be, as if it had learnt it."""

        def denoise(self, z: Any, sigma: Any, cond: Any, *, to: Any = None) -> Any:
            return {name: x0 + 0.05 for name, x0 in super().denoise(z, sigma, cond, to=to).items()}

    monkeypatch.setattr(importlib.import_module("cinecanvas.generate"), "card", lambda name, where: WINDOWED)
    where, out = settings({"CINECANVAS_HOME": str(tmp_path / "home")}), tmp_path / "out"
    out.mkdir()
    request = tasks.text_to_video("red", seconds=9.0, **ASKED)
    list(generate(request, out=f"{out}/", where=where, models=lambda name: Fading(card=WINDOWED)))
    seen = frames(out).astype(float).mean((1, 2))  # (T, 3)
    assert (seen[9:].max(0) <= seen[:9].max(0) + 1).all() and (seen[9:].min(0) >= seen[:9].min(0) - 1).all()


def test_what_lies_in_the_range_is_left_alone() -> None:
    z = torch.randn(2, 3, 9, 4, 5, generator=torch.Generator().manual_seed(0))
    anchor = Anchor.of(z)
    assert torch.allclose(anchor.hold(z), z, atol=1e-6)
    far = anchor.hold(3 * z + 5)
    assert (far.mean(4, keepdim=True) <= anchor.high + 1e-5).all()
    assert (far.std(4, keepdim=True, correction=0) <= anchor.deviation + 1e-5).all()
