"""What a request refuses, and that it survives its journey as JSON."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinecanvas.errors import BadRequest, CinecanvasError
from cinecanvas.request import MOST_SEED, Clip, Options, Request, parse_size, text_to_video


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": " \n\t "}, "prompt is empty"),
        ({"prompt": "\u200b\u200b"}, "prompt is empty"),
        ({"prompt": "x" * 40_000}, "40,000 characters"),
        ({"prompt": "a\x00b"}, "U+0000"),
        ({"prompt": "a\x1b[31mb"}, "U+001B"),
        ({"prompt": "a\x9bb"}, "U+009B"),
        ({"prompt": "a\udce9b"}, "broken UTF-8"),
        ({"prompt": "a", "negative": "\x07"}, "negative prompt"),
        ({"prompt": "a", "negative": "x" * 10_001}, "10,001 characters"),
        ({"prompt": 5}, "prompt is not usable"),
        ({"prompt": "a", "seconds": 0}, "seconds = 0"),
        ({"prompt": "a", "seconds": -2}, "seconds = -2"),
        ({"prompt": "a", "seconds": math.nan}, "seconds = nan"),
        ({"prompt": "a", "seconds": math.inf}, "seconds = inf"),
        ({"prompt": "a", "seconds": 1e9}, "seconds = 1e+09"),
        ({"prompt": "a", "seconds": "soon"}, "seconds is not usable"),
        ({"prompt": "a", "fps": 0}, "fps = 0"),
        ({"prompt": "a", "fps": math.nan}, "fps = nan"),
        ({"prompt": "a", "fps": 1000}, "fps = 1000"),
        ({"prompt": "a", "width": 0, "height": 64}, "0x64 px"),
        ({"prompt": "a", "width": -64, "height": 64}, "-64x64 px"),
        ({"prompt": "a", "width": 10**6, "height": 64}, "1000000x64 px"),
        ({"prompt": "a", "width": 64}, "Only one of width and height"),
        ({"prompt": "a", "shape": "16:0"}, "16:0"),
        ({"prompt": "a", "shape": "wide"}, "wide"),
        ({"prompt": "a", "shape": "16:9", "width": 64, "height": 64}, "both"),
        ({"prompt": "a", "count": 0}, "0 videos"),
        ({"prompt": "a", "steps": 0}, "0 steps"),
        ({"prompt": "a", "steps": 10**9}, "1000000000 steps"),
        ({"prompt": "a", "guidance": -1}, "guidance of -1"),
        ({"prompt": "a", "guidance": math.nan}, "guidance of nan"),
        ({"prompt": "a", "guidance": 31}, "From 0 to 30"),
        ({"prompt": "a", "guided": (0.9, 0.1)}, "0.9 to 0.1"),
        ({"prompt": "a", "guided": (0.5, math.nan)}, "0.5 to nan"),
        ({"prompt": "a", "guided": (0.5,)}, "guided.1 is not usable"),
        ({"prompt": "a", "rescale": 1.1}, "rescale of 1.1"),
        ({"prompt": "a", "count": 10**6}, "1000000 videos"),
        ({"prompt": "a", "seed": -1}, "seed -1"),
        ({"prompt": "a", "seed": 2**63}, "seed 9223372036854775808"),
        ({"prompt": "a", "seed": 10**200}, "..."),
        ({"prompt": "a", "quality": "superb"}, "quality is not usable"),
        ({"prompt": "a", "model": ""}, "model"),
        ({"prompt": "a", "model": "x\ny"}, "model"),
        ({"prompt": "a", "colour": "red"}, "colour is not usable"),
    ],
)
def test_nonsense_is_refused_in_one_line(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        Request(**asked)
    line = str(refused.value)
    assert said in line and line.isprintable() and len(line) < 300


@pytest.mark.parametrize(
    "asked",
    [
        {"box": (0, 0, 2, 1)},
        {"box": (0, 0, 0, 1)},
        {"box": (0, math.nan, 1, 1)},
        {"start": -1},
        {"start": math.inf},
        {"keep": 1.5},
        {"role": "star"},
    ],
)
def test_a_clip_that_lies_nowhere_is_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        Clip(media="sha256:0", **asked)


def test_a_request_survives_json() -> None:
    clip = Clip(media="sha256:0", box=(0.1, 0.2, 0.3, 0.4), keep=0.5)
    request = Request(
        prompt="ein Fuchs \N{FOX FACE}", seconds=2.5, shape="9:16", clips=(clip,), seed=MOST_SEED, count=3
    )
    expert = request.model_copy(update={"steps": 12, "guidance": 6.0, "guided": (0.1, 0.9), "rescale": 0.7})
    assert Request.model_validate_json(expert.model_dump_json()) == expert
    assert Request.model_validate_json(request.model_dump_json()) == request


def test_a_seed_that_nobody_chose_is_drawn_and_recorded() -> None:
    drawn = {text_to_video("a").seed for _ in range(5)} | {
        Request(prompt="a").seed,
        Request(prompt="a", seed=None).seed,
    }  # type: ignore[arg-type]
    assert len(drawn) == 7 and all(0 <= seed <= MOST_SEED for seed in drawn)


def test_each_video_has_the_next_seed() -> None:
    assert text_to_video("a", seed=7, count=3).seeds == (7, 8, 9)
    assert text_to_video("a", seed=MOST_SEED, count=2).seeds == (MOST_SEED, 0)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("640x480", (640, 480, "")),
        (" 640 X 480 ", (640, 480, "")),
        ("1280×720", (1280, 720, "")),
        ("16:9", (None, None, "16:9")),
        ("square", (None, None, "1:1")),
    ],
)
def test_sizes_are_read(text: str, size: tuple[int | None, int | None, str]) -> None:
    assert tuple(parse_size(text)) == size


@pytest.mark.parametrize("text", ["", "x", "640", "640x", "-640x480", "1e3x480", "nan", "640x480x3", "9" * 50, "٣x٤x"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="A size is"):
        parse_size(text)


@given(st.text(max_size=80), st.floats(), st.floats(), st.integers(), st.text(max_size=12))
def test_a_request_is_made_or_refused_whatever_comes(
    prompt: str, seconds: float, fps: float, seed: int, shape: str
) -> None:
    try:
        request = Request(prompt=prompt, seconds=seconds, fps=fps, seed=seed, shape=shape)
    except CinecanvasError as error:
        assert str(error).isprintable()
    else:
        assert Request.model_validate_json(request.model_dump_json()) == request


def test_every_task_may_ask_whatever_a_request_holds_beside_its_canvas() -> None:
    assert set(Request.model_fields) - set(Options.__annotations__) == {"prompt", "seconds", "clips", "loop", "finer"}
