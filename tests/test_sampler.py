"""The one loop: exact on every task, the same bits everywhere, and stoppable within one network call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import blank, conditional, draw, error, filled, sampled
from test_guidance import Watched

from cinecanvas.canvas import Canvas, Tensors, Track
from cinecanvas.errors import BadMedia, BadRequest
from cinecanvas.grid import Grid
from cinecanvas.models.toy import Prepared, Toy
from cinecanvas.sampler import Fill, fill, noise
from cinecanvas.schedule import Schedule, causal, full, pyramid
from cinecanvas.solvers import SOLVERS, Fresh, Move, Solver, dpm, euler, heun

TOY = Toy(std=1.0)
STEPS = full(24, shift=2)
MOMENTS = blank().tracks["video"].times()


def with_frames(known: Iterable[int], *, closed: bool = False) -> Canvas:
    """Twelve frames of one pixel, of which some are known."""
    canvas = blank(closed=closed)
    world = draw(TOY, canvas)["video"]
    for t in known:
        canvas = canvas.place("video", world[:, :, t : t + 1], at=(t, 0, 0))
    return canvas


def with_pixel() -> Canvas:
    """Six frames of two pixels, one of which is known."""
    canvas = blank(frames=6, width=2)
    return canvas.place("video", draw(TOY, canvas)["video"][..., :1])


def with_track(name: str) -> Canvas:
    """Video, and sound at twice its rate; one of them is known."""
    canvas = blank(frames=6, sound=12)
    return canvas.place(name, draw(TOY, canvas)[name])


FRAME_TASKS: dict[str, Callable[[], Canvas]] = {
    "text_to_video": lambda: with_frames([]),
    "image_to_video": lambda: with_frames([0]),
    "first_last": lambda: with_frames([0, 11]),
    "keyframes": lambda: with_frames([2, 5, 9]),
    "extend": lambda: with_frames(range(4)),
    "extend_backward": lambda: with_frames(range(8, 12)),
    "retake": lambda: with_frames([0, 1, 2, 8, 9, 10, 11]),
    "loop": lambda: with_frames([0], closed=True),
}
TASKS = FRAME_TASKS | {
    "inpaint": with_pixel,
    "soundtrack": lambda: with_track("video"),
    "dub": lambda: with_track("sound"),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_the_exact_conditional(task: str) -> None:
    canvas = TASKS[task]()
    got, wanted = sampled(TOY, canvas, STEPS), conditional(TOY, canvas, "red")
    assert error(got, wanted) < 0.01
    assert np.abs(got[1] - wanted[1]).max() < 0.02  # and how cells vary together


@pytest.mark.parametrize(("task", "known"), [("first_last", [0, 11]), ("keyframes", [2, 5, 9]), ("extend", range(4))])
def test_pasting_known_frames_back_is_no_substitute_for_noise_per_cell(task: str, known: Iterable[int]) -> None:
    canvas = TASKS[task]()
    x, frames = canvas.tracks["video"].x, list(known)

    def pasting(z: Tensors, x0: Tensors, sigma: Tensors, to: Tensors, memory: Tensors, fresh: Fresh) -> Move:
        moved, memory, _ = dpm(z, x0, sigma, to, memory, fresh)
        again = (1 - to["video"]) * x + to["video"] * noise(blank().repeat(len(x0["video"])).tracks["video"], seed=0)
        moved["video"][:, :, frames] = again[:, :, frames]
        return Move(moved, memory)

    for steps in (24, 96):
        assert error(sampled(TOY, blank(), full(steps, shift=2), solver=pasting), conditional(TOY, canvas, "red")) > 0.3


@pytest.mark.parametrize("task", FRAME_TASKS)
def test_plain_draws_have_the_exact_mean_and_spread(task: str) -> None:
    """6000 videos x 3 channels, pooled: a standard error of 0.0075 of the mean, 0.0053 of the spread.

    In a world that shares nothing the 6000 pixels of one video are 6000 videos of one pixel.
    """
    loner, small = Toy(std=1.0, share=0.0), FRAME_TASKS[task]()
    track = small.tracks["video"]
    grid = Grid(frames=12, height=60, width=100, fps=8)
    wide = Track(track.x.expand(-1, -1, -1, 60, 100), track.keep.expand(-1, -1, -1, 60, 100), grid)
    z = filled(loner, Canvas({"video": wide}, closed=small.closed), STEPS).z["video"].flatten(3)
    mean, cov = conditional(loner, small, "red")
    mean_off = z.mean(3)[0].numpy() - mean.reshape(3, 12)
    std_off = z.std(3)[0].numpy() - np.sqrt(np.diag(cov).clip(0)).reshape(3, 12)
    assert np.abs(mean_off.mean(0)).max() < 0.02
    assert np.abs(std_off.mean(0)).max() < 0.02


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("solver", SOLVERS.values())
def test_known_cells_come_back_exact(task: str, solver: Solver) -> None:
    canvas = TASKS[task]()
    last = filled(TOY, canvas, full(4), solver=solver)
    for name, known in canvas.known.items():
        everywhere = known.expand_as(last.z[name])
        assert torch.equal(last.z[name][everywhere], canvas.tracks[name].x[everywhere])


def test_even_a_careless_solver_cannot_touch_known_cells() -> None:
    def careless(z: Tensors, x0: Tensors, sigma: Tensors, to: Tensors, memory: Tensors, fresh: Fresh) -> Move:
        return Move({name: x + 1 for name, x in z.items()}, {})

    canvas = with_frames([0])
    last = filled(TOY, canvas, full(2), solver=careless)
    assert torch.equal(last.z["video"][:, :, :1], canvas.tracks["video"].x[:, :, :1])


def test_solvers_converge_at_their_order() -> None:
    canvas = with_frames([0])
    wanted = conditional(TOY, canvas, "red")

    def off(solver: Solver, steps: int) -> float:
        return error(sampled(TOY, canvas, full(steps, shift=2), solver=solver), wanted)

    assert off(euler, 16) / off(euler, 32) == pytest.approx(2, rel=0.2)
    assert off(heun, 16) / off(heun, 32) > 3
    assert off(dpm, 16) / off(dpm, 32) > 3
    assert off(dpm, 16) < 0.25 * off(euler, 16)  # for the same number of network calls


@pytest.mark.parametrize(
    ("schedule", "tolerance"),
    [
        (causal(16, MOMENTS, shift=0.5), 0.02),
        (pyramid(16, MOMENTS, shift=2), 0.02),
        (pyramid(16, MOMENTS, lag=4), 0.02),
    ],
    ids=["causal", "pyramid", "pyramid of lag 4"],
)
def test_other_orders_are_exact_with_a_shift_of_their_own(schedule: Schedule, tolerance: float) -> None:
    canvas = with_frames([0])
    assert error(sampled(TOY, canvas, schedule), conditional(TOY, canvas, "red")) < tolerance


def test_causal_order_ends_each_moment_before_the_last_fill() -> None:
    canvas = with_frames([0])
    schedule = causal(2, MOMENTS, shift=0.5)
    fills = list(fill(TOY, TOY.prepare(canvas, ["red"]), schedule, seed=0))
    assert fills[3].finished == 3  # frame 0 was known, and four calls ended two more
    assert all(torch.equal(f.z["video"][:, :, : f.finished], fills[-1].z["video"][:, :, : f.finished]) for f in fills)


def test_soft_cells_join_at_their_ceiling_and_the_steps_above_it_cost_nothing() -> None:
    """One free cell under noise s moves along x = mean + std / sqrt((1 - s)^2 std^2 + s^2) (z - (1 - s) mean)."""
    canvas = blank(frames=1).place("video", torch.tensor([1.0, -2.0, 0.5]).view(1, 3, 1, 1, 1), keep=0.5)
    loner, track = Toy(std=1.0, share=0.0), canvas.tracks["video"]
    last = filled(loner, canvas, full(32), text="", solver=heun)
    z = 0.5 * track.x + 0.5 * noise(track, seed=0)
    assert last.z["video"] == pytest.approx(z / 0.5**0.5, abs=2e-3)
    assert last.calls == 2 * 16 - 1  # half of 32 steps; the last needs no second call


def test_a_canvas_without_holes_is_its_own_answer() -> None:
    canvas = with_frames(range(12))
    last = filled(TOY, canvas, STEPS)
    assert last.done and last.calls == 0
    assert torch.equal(last.z["video"], canvas.tracks["video"].x)


def test_noise_is_standard_normal() -> None:
    track = Track.blank(Grid(frames=50, height=20, width=20, fps=8), channels=3)
    eps = noise(track, seed=3)
    assert eps.mean() == pytest.approx(0, abs=0.02)
    assert eps.std() == pytest.approx(1, abs=0.02)
    assert len(eps.unique()) > 0.99 * eps.numel()


def test_noise_is_the_same_whatever_the_batch_the_window_or_the_threads() -> None:
    canvas = Canvas({"video": Track.blank(Grid(frames=8, height=4, width=5, fps=8), channels=3)})
    whole = noise(canvas.tracks["video"], seed=7, key="a pass")
    assert torch.equal(noise(canvas.window("video", 3, 6).tracks["video"], seed=7, key="a pass"), whole[:, :, 3:6])
    batch = canvas.repeat(3).tracks["video"]
    assert torch.equal(noise(batch, seed=5, key="a pass")[2:], whole)
    assert torch.equal(noise(batch, seed=[1, 7, 2], key="a pass")[1:2], whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert torch.equal(noise(canvas.tracks["video"], seed=7, key="a pass"), whole)
    finally:
        torch.set_num_threads(threads)


def test_noise_differs_by_seed_pass_track_and_frame() -> None:
    track = Track.blank(Grid(frames=2, height=1, width=1, fps=8), channels=1)
    made = [
        noise(track, seed=0),
        noise(track, seed=1),
        noise(track, seed=0, key="b"),
        noise(track, seed=0, name="sound"),
    ]
    assert len(torch.cat(made).unique()) == 8


def busy() -> tuple[Toy, Prepared, Schedule]:
    """Two tracks with known, soft and free cells under a pyramid: everything that a fill has to remember."""
    canvas = with_track("video")
    canvas = canvas.place("video", canvas.tracks["video"].x[:, :, 2:5], at=(2, 0, 0), keep=0.4)
    return TOY, TOY.prepare(canvas, ["red"]), pyramid(3, canvas.tracks["video"].times())


CONTINUE = """
import sys, pathlib
from cinecanvas.sampler import Fill, fill
from cinecanvas.solvers import SOLVERS
from test_sampler import busy
for path in pathlib.Path(sys.argv[1]).glob("*.fill"):
    solver, packed = SOLVERS[path.stem.split("-")[0]], path.read_bytes()
    *_, last = fill(*busy(), seed=7, solver=solver, resume=Fill.unpack(packed))
    path.with_suffix(".end").write_bytes(last.pack())
"""


def test_a_fill_goes_on_bit_for_bit_in_another_process(tmp_path: Path) -> None:
    ends = {}
    for name, solver in SOLVERS.items():
        fills = list(fill(*busy(), seed=7, solver=solver))
        assert fills[-1].done and len(fills) > 5
        for step in fills:
            (tmp_path / f"{name}-{step.calls}.fill").write_bytes(step.pack())
        ends[name] = fills[-1].pack()
    subprocess.run([sys.executable, "-c", CONTINUE, str(tmp_path)], cwd=Path(__file__).parent, check=True)
    found = list(tmp_path.glob("*.end"))
    assert len(found) == len(list(tmp_path.glob("*.fill")))
    assert [path.name for path in found if path.read_bytes() != ends[path.stem.split("-")[0]]] == []


def test_closing_stops_within_one_network_call() -> None:
    watched = Watched(TOY)
    running = fill(watched, watched.prepare(with_frames([0]), ["red"]), STEPS, seed=0)
    assert [next(running).calls for _ in range(3)] == [1, 2, 3]
    running.close()
    assert watched.batches.count(("denoise", 1)) == 3


def test_the_preview_is_the_end_when_the_fill_is_done() -> None:
    last = filled(TOY, with_frames([0]), STEPS)
    assert torch.equal(last.x0["video"], last.z["video"])


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\x80\x04pickle" + b])
def test_bytes_that_are_no_fill_are_refused_in_one_line(damage: Callable[[bytes], bytes]) -> None:
    packed = filled(TOY, with_frames([0]), full(2)).pack()
    with pytest.raises(BadMedia, match="not a packed fill") as refusal:
        Fill.unpack(damage(packed))
    assert "\n" not in str(refusal.value)


def test_a_fill_does_not_go_on_under_another_schedule_or_canvas() -> None:
    cond = TOY.prepare(with_frames([0]), ["red"])
    first = next(fill(TOY, cond, full(4), seed=0))
    other = TOY.prepare(blank(frames=5), ["red"])
    for wrong, schedule in ((cond, full(5)), (other, full(4))):
        with pytest.raises(BadRequest, match="began with"):
            next(fill(TOY, wrong, schedule, seed=0, resume=first))
