"""Solvers step as the schedulers step that public checkpoints are published with."""

from __future__ import annotations

import pytest
import torch

from cinecanvas.canvas import Tensors
from cinecanvas.solvers import unipc


def denoised(z: torch.Tensor, sigma: float) -> torch.Tensor:
    """A guess of the end that bends with the noise, so that a solver of another order would be seen."""
    mixed = torch.einsum("ij,bjthw->bithw", torch.linspace(-1, 1, 16).view(4, 4), z)
    return torch.tanh(mixed) * (1 - 0.3 * sigma) + 0.1 * z


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
@pytest.mark.parametrize("steps", [2, 5, 20])
def test_unipc_is_that_of_diffusers(shift: float, steps: int) -> None:
    from diffusers import UniPCMultistepScheduler

    theirs = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    theirs.set_timesteps(steps)
    start = torch.randn(1, 4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    wanted, got, memory = start, {"video": start}, Tensors()
    for step, time in enumerate(theirs.timesteps):
        now, then = (float(theirs.sigmas[i]) for i in (step, step + 1))
        velocity = (wanted - denoised(wanted, now)) / now
        wanted = theirs.step(velocity, time, wanted, return_dict=False)[0]
        sigma, to = ({"video": torch.full((1, 1, 3, 4, 4), level)} for level in (now, then))
        got, memory, _ = unipc(got, {"video": denoised(got["video"], now)}, sigma, to, memory)
    assert float((got["video"] - wanted).norm() / wanted.norm()) < 1e-6
