"""A Schedule: steps x moments of noise, from 1 down to 0."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cinecanvas.errors import BadRequest
from cinecanvas.ramp import shifted
from cinecanvas.request import Order
from cinecanvas.schedule import Schedule, causal, full, pyramid, schedule

MOMENTS = (0.0, 0.5, 1.0)


@pytest.mark.parametrize("order", ["full", "causal", "pyramid"])
def test_every_moment_falls_from_noise_to_none_without_rising(order: Order) -> None:
    made = schedule(order, 8, MOMENTS, shift=3)
    for column in zip(*made.levels, strict=True):
        assert column[0] == 1 and column[-1] == 0
        assert all(a >= b for a, b in pairwise(column))
        assert sum(a > b for a, b in pairwise(column)) == 8


def test_causal_finishes_each_moment_before_the_next_begins() -> None:
    made = causal(4, MOMENTS)
    assert made.steps == 12
    assert all(sum(0 < level < 1 for level in row) <= 1 for row in made.levels)
    assert [made.finished(step) for step in (3, 4, 8, 12)] == [0, 1, 2, 3]


def test_pyramid_starts_each_moment_one_lag_later() -> None:
    made = pyramid(4, MOMENTS, lag=2)
    assert made.steps == 8
    assert [row[1] for row in made.levels][2:] == [row[0] for row in made.levels][:-2]


def test_tracks_of_any_rate_read_the_moment_that_they_fall_into() -> None:
    made = causal(1, MOMENTS)
    assert [made.at(1, second) for second in (0, 0.49, 0.5, 0.99, 7)] == [0, 0, 1, 1, 1]


def test_the_shift_keeps_both_ends_and_its_inverse_undoes_it() -> None:
    assert (shifted(0, 3), shifted(1, 3)) == (0, 1)
    assert shifted(0.5, 3) == 0.75
    assert shifted(shifted(0.3, 3), 1 / 3) == pytest.approx(0.3)


def test_a_schedule_survives_json_to_the_bit() -> None:
    made = pyramid(7, MOMENTS, shift=2.7)
    assert Schedule.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_a_senseless_number_of_steps_is_refused(steps: int) -> None:
    with pytest.raises(BadRequest, match="Between 1 and 1000"):
        full(steps)
