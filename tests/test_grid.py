"""A Grid: which pixels share a cell, and when each cell stands."""

from __future__ import annotations

import pytest

from cinecanvas.errors import BadRequest
from cinecanvas.grid import Grid


def test_the_cells_cover_every_frame_once_and_in_order() -> None:
    for causal in (True, False):
        grid = Grid(frames=17 if causal else 16, height=32, width=48, fps=8, strides=(4, 8, 8), causal=causal)
        frames = [frame for cell in range(grid.cells[0]) for frame in grid.frames_of(cell)]
        assert frames == list(range(grid.frames))


def test_a_causal_first_cell_holds_the_first_frame_alone() -> None:
    grid = Grid(frames=9, height=8, width=8, fps=8, strides=(4, 8, 8))
    assert grid.cells == (3, 1, 1)
    assert [grid.frames_of(cell) for cell in range(3)] == [range(1), range(1, 5), range(5, 9)]
    assert grid.times() == (0, 1 / 8, 5 / 8)


def test_a_code_that_begins_anew_has_a_frame_alone_in_every_chunk() -> None:
    grid = Grid(frames=14, height=8, width=8, fps=8, strides=(4, 8, 8), chunk=3)
    assert (grid.span, grid.cells) == (9, (5, 1, 1))
    assert [len(grid.frames_of(cell)) for cell in range(5)] == [1, 4, 4, 1, 4]
    assert [grid.cell_of(frame) for cell in range(5) for frame in grid.frames_of(cell)] == [
        cell for cell in range(5) for _ in grid.frames_of(cell)
    ]
    assert Grid.snap(10 / 8, width=8, height=8, fps=8, strides=(4, 8, 8), chunk=3).frames == 18
    with pytest.raises(BadRequest, match="after whole chunks of 9"):
        grid.model_validate(grid.model_dump() | {"frames": 17})


@pytest.mark.parametrize("seconds", [0.01, 1, 2, 2.125, 3.3, 59.999])
def test_snapping_never_shortens_and_adds_less_than_one_cell(seconds: float) -> None:
    grid = Grid.snap(seconds, width=50, height=30, fps=8, strides=(4, 16, 16))
    assert grid.seconds >= seconds - 1e-6
    assert grid.frames < seconds * 8 + 5
    assert (grid.width, grid.height) == (48, 32)


def test_snapping_a_legal_length_changes_nothing() -> None:
    for frames in range(1, 100, 4):
        assert Grid.snap(frames / 24, width=16, height=16, fps=24, strides=(4, 8, 8)).frames == frames


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"frames": 10}, {"width": 15}, {"fps": 0}, {"fps": float("nan")}])
def test_a_grid_without_whole_cells_is_refused(wrong: dict[str, float]) -> None:
    fields = {"frames": 9, "height": 16, "width": 16, "fps": 8, **wrong}
    with pytest.raises(BadRequest):
        Grid(**fields, strides=(4, 8, 8))
