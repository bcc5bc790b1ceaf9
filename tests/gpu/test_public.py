"""Public families on a GPU: the frames of the CPU, memory as foretold, and blocks that wait their turn elsewhere.

    pytest tests/gpu

Skipped where there is no GPU. CINECANVAS_TEST_DEVICE=cpu runs what needs none, to see that the tests themselves work.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from parity import PROMPT, grid_of, opened, ours, psnr
from tiny import cogvideox, hunyuan, hunyuan15, ltx, wan

from cinecanvas.canvas import Canvas
from cinecanvas.fitting import rehearse
from cinecanvas.guidance import guided
from cinecanvas.plan import Pass
from cinecanvas.runtime.placement import Placement, Residency

DEVICE = os.environ.get("CINECANVAS_TEST_DEVICE", "cuda")
LEVELS = (1.0, 0.7, 0.3, 0.0)
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="no GPU here: run `pytest tests/gpu` where there is one"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("gpu")
    return {
        "wan": wan.save(place / "wan", "t2v"),
        "wan-tokens": wan.save(place / "wan-tokens", "ti2v"),
        "ltx": ltx.save(place / "ltx", "plain"),
        "cogvideox": cogvideox.save(place / "cogvideox", "5b"),
        "hunyuan": hunyuan.save(place / "hunyuan"),
        "hunyuan15": hunyuan15.save(place / "hunyuan15", "t2v"),
        "middling": wan.middling(place / "middling"),
    }


@pytest.mark.parametrize("name", ["wan", "wan-tokens", "ltx", "cogvideox", "hunyuan", "hunyuan15"])
@pytest.mark.parametrize("residency", ["resident", "staged", "blocks"])
def test_the_frames_are_those_of_the_cpu(folders: dict[str, Path], name: str, residency: Residency) -> None:
    at_home = opened(folders[name], Placement(precision="float32"))
    abroad = opened(folders[name], Placement(device=DEVICE, precision="float32", residency=residency))
    canvas = Canvas.blank(grid_of(at_home.card, frames=9, width=64, height=64))
    frames = [ours(model, canvas, LEVELS, guidance=3.0) for model in (at_home, abroad)]
    assert psnr(*frames) > 45


@pytest.mark.skipif(DEVICE != "cuda", reason="counts the bytes of a GPU")
@pytest.mark.parametrize("residency", ["resident", "staged"])
def test_memory_is_as_foretold(folders: dict[str, Path], residency: Residency) -> None:
    placement = Placement(device=DEVICE, residency=residency)
    model = opened(folders["middling"], placement)
    grid = grid_of(model.card, frames=33, width=512, height=320)
    step = Pass(
        model="middling",
        weights="",
        grid=grid,
        order="full",
        steps=2,
        shift=3.0,
        solver="euler",
        guidance=3.0,
        seed=0,
        prompt=PROMPT,
    )
    rehearsed = opened(folders["middling"], placement.model_copy(update={"rehearsed": True}))
    told = rehearse(rehearsed, step, device=DEVICE).most
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    asked = guided(model, 3.0)
    prepared = asked.prepare(Canvas.blank(grid), [PROMPT])
    track = prepared.canvas.tracks["video"]
    x0 = asked.denoise({"video": track.x.float()}, {"video": torch.ones_like(track.keep)}, prepared)
    for _ in model.decode(x0):
        pass
    assert 0.85 < told / torch.cuda.max_memory_allocated() < 1.15
