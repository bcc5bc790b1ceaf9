"""Solvers step as the schedulers step that public checkpoints are published with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cinecanvas.canvas import Canvas, Tensors, Track
from cinecanvas.grid import Grid
from cinecanvas.models.toy import Toy
from cinecanvas.ramp import STRAIGHT, Ramp, Table
from cinecanvas.sampler import fill, noise
from cinecanvas.schedule import full
from cinecanvas.solvers import SOLVERS, Solver, ancestral, consistency, dpm, euler, sde, unipc

SHAPE = (1, 4, 3, 4, 4)
START = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def denoised(z: Tensor, sigma: Tensor) -> Tensor:
    """A guess of the end that bends with the noise, so that a solver of another order would be seen."""
    mixed = torch.einsum("ij,bjthw->bithw", torch.linspace(-1, 1, 16).view(4, 4), z)
    return torch.tanh(mixed) * (1 - 0.3 * sigma) + 0.1 * z


class Dice:
    """Noise after noise, the same for whoever begins anew: what schedulers draw from a generator."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(1)

    def __call__(self) -> Tensors:
        return {"video": torch.randn(SHAPE, generator=self.generator)}


def ours(
    solver: Solver, levels: Sequence[float], *, start: Tensor = START, ceiling: float | Tensor = 1.0, drawn: int = 1
) -> Tensor:
    """The end of our steps over those levels; `drawn`: noises that theirs draws a step; the last counts."""
    dice, memory, z = Dice(), Tensors(), {"video": start}
    rows = [torch.full((1, 1, *SHAPE[2:]), level).minimum(torch.as_tensor(ceiling)) for level in levels]
    for step, (now, then) in enumerate(itertools.pairwise(rows)):
        for _ in range(drawn - 1 if memory and step < len(levels) - 2 else 0):
            dice()
        guess = {"video": denoised(z["video"], now)}
        z, memory, _ = solver(z, guess, {"video": now}, {"video": then}, memory, dice)
    return z["video"]


def flow(noise_: Tensor) -> list[float]:
    """Noise beside a signal of 1 as our sigma."""
    return (noise_.double() / (1 + noise_.double())).tolist()


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("steps", [2, 4, 5, 10, 20])
def test_unipc_is_that_of_diffusers(shift: float, steps: int) -> None:
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    scheduler.set_timesteps(steps)
    wanted = START
    for step, time in enumerate(scheduler.timesteps):
        now = scheduler.sigmas[step]
        velocity = (wanted - denoised(wanted, now)) / now
        wanted = scheduler.step(velocity, time, wanted, return_dict=False)[0]
    assert apart(ours(unipc, scheduler.sigmas.tolist()), wanted) < 1e-6
    if steps > 2:  # of two steps the second ends at 0 and is straight in both
        assert apart(ours(euler, scheduler.sigmas.tolist()), wanted) > 1e-3


@pytest.mark.parametrize("solver", [dpm, unipc], ids=lambda solver: solver.__name__)
def test_a_cell_that_stood_still_has_no_past(solver: Solver) -> None:
    """Beside others at other levels every cell goes as it would go alone, beginning with its first move."""
    levels = full(8, shift=3).levels
    ramp = [row[0] for row in levels]
    ceiling = torch.tensor([0.0, ramp[3], 1.0]).view(1, 1, 3, 1, 1)
    mixed = ours(solver, ramp, ceiling=ceiling)
    assert torch.equal(mixed[:, :, 0], START[:, :, 0])
    assert apart(mixed[:, :, 1], ours(solver, ramp[3:])[:, :, 1]) < 1e-6
    assert apart(mixed[:, :, 2], ours(solver, ramp)[:, :, 2]) < 1e-6


def diffusion(name: str, **config: Any) -> Any:
    import diffusers

    table = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return getattr(diffusers, name)(**table, **config)


@pytest.mark.parametrize("steps", [1, 2, 4, 20])
def test_ancestral_is_that_of_sdxl_turbo(steps: int) -> None:
    scheduler = diffusion("EulerAncestralDiscreteScheduler", timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    levels = Table(spacing="trailing").levels(steps, shift=1.0, cells=0)
    assert list(levels) == pytest.approx(flow(scheduler.sigmas), abs=2e-6)
    dice, wanted = Dice(), START / (1 - levels[0])
    for step, time in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(wanted, time)
        level = torch.tensor(levels[step])
        x0 = denoised(wanted * (1 - level), level)
        eps = (wanted - x0) / scheduler.sigmas[step]
        wanted = scheduler.step(eps, time, wanted, generator=dice.generator, return_dict=False)[0]
    assert apart(ours(ancestral, levels), wanted) < 1e-5


@pytest.mark.parametrize("steps", [2, 4, 20])
def test_sde_is_that_of_cogvideox(steps: int) -> None:
    """Theirs draws twice in a step that has a past, and takes the second."""
    scheduler = diffusion(
        "CogVideoXDPMScheduler",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=1.0,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    levels = Table(zero_snr=True, spacing="trailing").levels(steps, shift=1.0, cells=0)
    dice, wanted, old, before = Dice(), START, None, None
    for step, time in enumerate(scheduler.timesteps):
        share = scheduler.alphas_cumprod[time]
        a, b = share.sqrt(), (1 - share).sqrt()
        x0 = denoised(wanted / (a + b), torch.tensor(levels[step]))
        velocity = (a * wanted - x0) / b
        wanted, old = scheduler.step(velocity, old, time, before, wanted, generator=dice.generator)
        before = time
    assert apart(ours(sde, levels, drawn=2), wanted) < 2e-5


@pytest.mark.parametrize("steps", [1, 4, 8])
def test_consistency_is_the_stochastic_sampling_of_flows(steps: int) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    dice, wanted = Dice(), START
    for step, time in enumerate(scheduler.timesteps):
        now = scheduler.sigmas[step]
        velocity = (wanted - denoised(wanted, now)) / now
        wanted = scheduler.step(velocity, time, wanted, generator=dice.generator, return_dict=False)[0]
    assert apart(ours(consistency, STRAIGHT.levels(steps, shift=3.0, cells=0)), wanted) < 1e-6


def wide(known: Callable[[Tensor], Tensor] | None = None) -> Canvas:
    """Six frames of a thousand pixels that do not know of one another."""
    grid = Grid(frames=6, width=50, height=40, fps=8)
    canvas = Canvas({"video": Track.blank(grid, channels=3)})
    return canvas if known is None else canvas.place("video", known(canvas.tracks["video"].x[:, :, :1]))


@pytest.mark.parametrize(("solver", "steps"), [(ancestral, 200), (sde, 50)], ids=["ancestral", "sde"])
def test_with_noise_taken_anew_draws_keep_the_exact_mean_and_spread(solver: Solver, steps: int) -> None:
    """6000 values a frame: a standard error of 0.013 of the mean, of 0.009 of the spread."""
    toy = Toy(std=1.0, share=0.0)
    *_, last = fill(toy, toy.prepare(wide(), [""]), full(steps, shift=2), seed=3, solver=solver)
    z = last.z["video"].movedim(2, 0).flatten(1)
    assert z.mean(1).abs().max() < 0.05
    assert (z.std(1) - 1).abs().max() < 0.05
    beside = torch.corrcoef(z)[0, 1]
    wanted = np.exp(-(3**0.5) / 4) * (1 + 3**0.5 / 4)  # the kernel of the toy at an eighth of a second
    assert float(beside) == pytest.approx(float(wanted), abs=0.03)


@pytest.mark.parametrize("solver", [ancestral, sde, consistency], ids=lambda solver: solver.__name__)
def test_noise_taken_anew_is_the_same_whatever_the_batch_or_the_window(solver: Solver) -> None:
    """Pixels of a world without memory, so that a window may be filled without the rest."""
    toy = Toy(std=1.0, share=0.0, span=1e-3)
    canvas = wide(lambda x: x + 0.5)
    schedule = full(4, shift=3)

    def end(canvas: Canvas, seed: int | list[int]) -> Tensor:
        batch = canvas.batch
        *_, last = fill(toy, toy.prepare(canvas, ["red"] * batch), schedule, seed=seed, solver=solver, key="a")
        return last.z["video"]

    whole = end(canvas, 7)
    assert torch.equal(whole[:, :, :1], canvas.tracks["video"].x[:, :, :1])
    assert torch.allclose(end(canvas.repeat(3), [5, 7, 6])[1:2], whole, atol=1e-5)
    assert torch.allclose(end(canvas.window("video", 2, 5), 7), whole[:, :, 2:5], atol=1e-5)


def test_every_step_has_noise_of_its_own() -> None:
    track = wide().tracks["video"]
    made = [noise(track, seed=0, step=step) for step in (None, 0, 1)]
    assert len(torch.stack(made).unique()) > 0.99 * 3 * made[0].numel()
    assert float(torch.corrcoef(torch.stack(made).flatten(1)).sub(torch.eye(3)).abs().max()) < 0.03


def test_a_first_step_from_nothing_but_noise_is_finite() -> None:
    ramp: Ramp = Table(zero_snr=True, spacing="trailing")
    levels = ramp.levels(3, shift=1.0, cells=0)
    assert levels[0] == 1
    assert all(bool(ours(solver, levels).isfinite().all()) for solver in SOLVERS.values() if solver.__name__ != "heun")
