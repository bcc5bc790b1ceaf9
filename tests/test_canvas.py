"""A Canvas: known cells, holes, and the noise that either may have."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from cinecanvas.canvas import Canvas, Reference, Track, latent_keep
from cinecanvas.grid import Grid
from cinecanvas.schedule import causal, full

GRID = Grid(frames=4, height=2, width=3, fps=8)


def test_placing_makes_cells_known_and_leaves_the_old_canvas_alone() -> None:
    empty = Canvas({"video": Track.blank(GRID, channels=3)})
    x = torch.rand(1, 3, 1, 2, 2)
    placed = empty.place("video", x, at=(1, 0, 1))
    assert torch.equal(placed.tracks["video"].x[:, :, 1:2, :, 1:], x)
    assert placed.known["video"].sum() == 4
    assert not empty.known["video"].any()


def test_the_noise_of_a_cell_is_the_level_under_the_ceiling_that_keep_leaves() -> None:
    canvas = Canvas({"video": Track.blank(GRID, channels=3)})
    for t, keep in enumerate((0.0, 0.25, 0.75, 1.0)):
        canvas = canvas.place("video", torch.zeros(1, 3, 1, 2, 3), at=(t, 0, 0), keep=keep)
    half = [canvas.sigma(full(2), step)["video"][0, 0, :, 0, 0].tolist() for step in range(3)]
    assert half == [[1, 0.75, 0.25, 0], [0.5, 0.5, 0.25, 0], [0, 0, 0, 0]]


def test_tracks_of_different_rates_follow_one_clock() -> None:
    sound = Track.blank(Grid(frames=8, height=5, width=1, fps=16), channels=1)
    canvas = Canvas({"video": Track.blank(GRID, channels=3), "sound": sound})
    sigma = canvas.sigma(causal(1, canvas.tracks["video"].times()), 2)
    assert sigma["video"][0, 0, :, 0, 0].tolist() == [0, 0, 1, 1]
    assert sigma["sound"][0, 0, :, 0, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_a_window_keeps_the_true_times_of_its_cells() -> None:
    canvas = Canvas({"video": Track.blank(GRID, channels=3)}).window("video", 1, 4).window("video", 1, 3)
    assert canvas.tracks["video"].times() == GRID.times()[2:4]


def test_each_half_of_a_repeated_canvas_is_the_canvas() -> None:
    track = Track(torch.rand(2, 3, 4, 2, 3), torch.rand(2, 1, 4, 2, 3), GRID)
    canvas = Canvas({"video": track}, (Reference(torch.rand(2, 3, 1, 2, 3), time=0.2),))
    twice = canvas.repeat(2)
    assert twice.batch == 4
    for half in (twice.videos(0, 2), twice.videos(2, 4)):
        assert torch.equal(half.tracks["video"].keep, track.keep)
        assert torch.equal(half.references[0].x, canvas.references[0].x)


def test_a_latent_cell_is_known_only_as_far_as_its_least_known_pixel() -> None:
    grid = Grid(frames=5, height=4, width=4, fps=8, strides=(4, 2, 2))
    keep = torch.ones(1, 1, 5, 4, 4)
    keep[0, 0, 3, 3, 0] = 0.5
    assert latent_keep(keep, grid)[0, 0].tolist() == [[[1, 1], [1, 1]], [[1, 1], [0.5, 1]]]
    blocks = grid.model_copy(update={"frames": 4, "causal": False})
    assert latent_keep(keep[:, :, :4], blocks)[0, 0].tolist() == [[[1, 1], [0.5, 1]]]


def test_the_ten_lines_on_the_page_about_the_canvas_run() -> None:
    page = Path(__file__).parents[1] / "docs" / "concepts" / "canvas.md"
    _, code, _ = re.split(r"```(?:python)?\n", page.read_text())
    names: dict[str, Any] = {}
    exec(code, names)
    assert len(names["frames"]) == 16
    assert (names["frames"][0] == 128).all()
