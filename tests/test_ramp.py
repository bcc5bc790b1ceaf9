"""The levels that a family meets are those of the scheduler that it is published with, in our count of noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cinecanvas.errors import Unsupported
from cinecanvas.ramp import STRAIGHT, Cosine, Karras, Line, LinearQuadratic, Listed, Ramp, Table


def flow(sigmas: torch.Tensor) -> list[float]:
    """Noise beside a signal of 1 as our sigma."""
    return (sigmas / (1 + sigmas)).tolist()


def close(levels: Any, theirs: list[float]) -> bool:
    return list(levels) == pytest.approx(theirs, abs=2e-6)


@pytest.mark.parametrize("steps", [1, 4, 30, 49, 50])
@pytest.mark.parametrize("shift", [3.0, 5.0, 8.0])
def test_wan_meets_the_levels_of_unipc_and_tells_whole_numbers(steps: int, shift: float) -> None:
    """At shift 1 levels are whole thousandths, of which theirs tells some a number less: 333 for 0.334."""
    from diffusers import UniPCMultistepScheduler

    theirs = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    theirs.set_timesteps(steps)
    ramp = Line(most=1 - 1e-6, least=0.001, whole=True)
    levels = ramp.levels(steps, shift=shift, cells=0)
    assert close(levels, theirs.sigmas.tolist())
    for level, wanted in zip(levels, theirs.timesteps.tolist(), strict=False):
        exact = abs(1000 * level - round(1000 * level)) < 1e-6  # theirs may then be one less, by how doubles round
        assert ramp.timestep(torch.tensor(level).item()) in ((wanted, wanted + 1) if exact else (wanted,))


@pytest.mark.parametrize("steps", [2, 28])
def test_a_flow_scheduler_by_itself_ends_at_a_shifted_thousandth(steps: int) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(steps)
    assert close(Line(least=0.001, twice=True, closed=True).levels(steps, shift=3.0, cells=0), theirs.sigmas.tolist())


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_ltx_from_0_9_5_on_begins_in_a_line_and_ends_in_a_parabola(steps: int) -> None:
    from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule

    assert close(LinearQuadratic().levels(steps, shift=1.0, cells=0)[:-1], linear_quadratic_schedule(steps).tolist())


@pytest.mark.parametrize("cells", [1024, 2048, 9000])
def test_a_shift_that_grows_with_the_lattice_and_a_level_to_end_at(cells: int) -> None:
    import numpy as np
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1)
    mu = 0.95 + (cells - 1024) * (2.05 - 0.95) / (4096 - 1024)
    theirs.set_timesteps(sigmas=np.linspace(1, 1 / 8, 8), mu=mu)
    ramp = Line(growing=((1024, 0.95), (4096, 2.05)), terminal=0.1)
    assert close(ramp.levels(8, shift=1.0, cells=cells), theirs.sigmas.tolist())


@pytest.mark.parametrize("steps", [4, 20, 50])
def test_a_zero_snr_table_begins_at_nothing_but_noise(steps: int) -> None:
    from diffusers import CogVideoXDDIMScheduler

    theirs = CogVideoXDDIMScheduler(rescale_betas_zero_snr=True, snr_shift_scale=3.0, timestep_spacing="trailing")
    theirs.set_timesteps(steps)
    share = theirs.alphas_cumprod[theirs.timesteps].double()
    ramp = Table(zero_snr=True, snr_shift=3.0, spacing="trailing")
    levels = ramp.levels(steps, shift=1.0, cells=0)
    signal, noise = share.sqrt(), (1 - share).sqrt()
    assert levels[0] == 1 and close(levels[:-1], (noise / (signal + noise)).tolist())
    assert [ramp.timestep(level) for level in levels[:-1]] == theirs.timesteps.tolist()


@pytest.mark.parametrize(("spacing", "offset"), [("leading", 1), ("trailing", 0), ("linspace", 0)])
@pytest.mark.parametrize("steps", [1, 4, 7, 30])
def test_a_diffusion_met_by_euler(spacing: str, offset: int, steps: int) -> None:
    from diffusers import EulerDiscreteScheduler

    theirs = EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing=spacing,
        steps_offset=offset,
    )
    theirs.set_timesteps(steps)
    ramp = Table(spacing=spacing, offset=offset)  # type: ignore[arg-type]
    levels = ramp.levels(steps, shift=1.0, cells=0)
    assert close(levels, flow(theirs.sigmas.double()))
    assert [ramp.timestep(level) for level in levels[:-1]] == pytest.approx(theirs.timesteps.tolist(), abs=1e-3)
    whole = [time for time in theirs.timesteps.tolist() if time == int(time)]
    assert set(whole) <= {ramp.timestep(level) for level in levels[:-1]}


def test_edm_is_met_in_the_root_of_its_noise() -> None:
    from diffusers import EulerDiscreteScheduler

    theirs = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_type="continuous",
    )
    theirs.set_timesteps(12)
    ramp = Karras()
    levels = ramp.levels(12, shift=1.0, cells=0)
    assert close(levels, flow(theirs.sigmas.double()))
    told = [ramp.timestep(level) for level in levels[:-1]]
    assert told == pytest.approx(theirs.timesteps.tolist(), abs=1e-4)


@pytest.mark.parametrize("steps", [1, 10, 20])
def test_stable_cascade_meets_the_times_of_its_scheduler(steps: int) -> None:
    from diffusers import DDPMWuerstchenScheduler

    theirs = DDPMWuerstchenScheduler()
    theirs.set_timesteps(steps)
    shares = theirs._alpha_cumprod(theirs.timesteps[:-1].double(), torch.device("cpu"))
    levels = Cosine().levels(steps, shift=1.0, cells=0)
    assert close(levels, [*flow(((1 - shares) / shares).sqrt()), 0.0])
    told = [Cosine().timestep(float(torch.tensor(level))) for level in levels[:-1]]
    assert told == pytest.approx(theirs.timesteps[:-1].tolist(), abs=1e-5)


def test_a_distilled_checkpoint_has_the_steps_of_its_list_and_no_others() -> None:
    ramp = Listed(at=(1.0, 0.75, 0.25))
    assert ramp.levels(3, shift=1.0, cells=0) == (1.0, 0.75, 0.25, 0.0)
    with pytest.raises(Unsupported, match="distilled to 3 steps"):
        ramp.levels(4, shift=1.0, cells=0)


RAMPS: tuple[Ramp, ...] = (STRAIGHT, Line(least=0.001, closed=True), Table(), Table(zero_snr=True), Karras(), Cosine())


@pytest.mark.parametrize("ramp", RAMPS, ids=lambda ramp: ramp.kind)
@pytest.mark.parametrize("steps", [1, 7, 50])
def test_every_ramp_comes_down_to_nothing_and_what_is_told_with_it(ramp: Ramp, steps: int) -> None:
    levels = ramp.levels(steps, shift=2.0, cells=100)
    assert len(levels) == steps + 1 and levels[-1] == 0 and sorted(levels, reverse=True) == list(levels)
    told = [ramp.timestep(level) for level in levels[:-1]]
    assert sorted(told, reverse=True) == told
