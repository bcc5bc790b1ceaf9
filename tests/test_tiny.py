"""The whole in seconds: library, command and, once its weights are shipped, our own model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cinecanvas
from cinecanvas import cli
from cinecanvas.media.video import info, read

MODELS = [
    "toy",
    pytest.param(
        "diorama",
        marks=pytest.mark.skipif("diorama" not in cinecanvas.cards(), reason="its weights are not trained yet"),
    ),
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CINECANVAS_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("model", MODELS)
def test_words_become_a_video_in_the_library(model: str, tmp_path: Path) -> None:
    request = cinecanvas.text_to_video("a red ball on grass", seconds=1, seed=3, model=model, quality="draft")
    *_, done = cinecanvas.generate(request, out=tmp_path / "a.mp4")
    frames = np.stack(list(read(tmp_path / "a.mp4")))
    assert len(frames) == 8 and frames.std() > 5 and done.seeds == (3,)  # type: ignore[union-attr]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("ending", ["mp4", "webm", "gif"])
def test_words_become_a_video_on_the_command_line(model: str, ending: str, tmp_path: Path) -> None:
    out = str(tmp_path / f"a.{ending}")
    args = ["generate", "a blue cube", "-o", out, "--model", model, "--quality", "draft", "--seconds", "0.5", "-q"]
    assert cli.main([*args, "--size", "96x54", "--fps", "12"]) == 0
    assert (info(out).width, info(out).height, info(out).frames) == (96, 54, 6)


@pytest.mark.parametrize("model", MODELS)
def test_other_words_are_another_video(model: str, tmp_path: Path) -> None:
    for name, words in (("a", "a red ball"), ("b", "a blue ball")):
        request = cinecanvas.text_to_video(words, seconds=0.5, seed=3, model=model, quality="draft")
        list(cinecanvas.generate(request, out=tmp_path / f"{name}.webm"))
    red, blue = (np.stack(list(read(tmp_path / f"{name}.webm"))).mean((0, 1, 2)) for name in "ab")
    assert red[0] - red[2] > blue[0] - blue[2]


def test_plans_and_cards_need_no_weights() -> None:
    made = cinecanvas.plan(cinecanvas.text_to_video("a red ball", model="toy"), cinecanvas.cards()["toy"])
    assert made.passes and made.seconds >= 0
