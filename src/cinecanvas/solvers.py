"""Solvers: what becomes of latents in one step, given the network's guess of their end; each cell has its own noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cinecanvas.canvas import Tensors


class Move(NamedTuple):
    """What a solver makes of one network call: latents, what to remember, and whether it asks again at `to` first."""

    z: Tensors
    memory: Tensors
    again: bool = False


# fresh(): standard normal noise like z, this step's own: the same whenever and wherever the step is made.
Fresh: TypeAlias = "Callable[[], Tensors]"

# solver(z, x0, sigma, to, memory, fresh): latents and denoised guess like them, noise now and next (B, 1, T, H, W).
# Cells with to == sigma do not move. If it had asked again, z and x0 are those at `to`, and memory holds the way there.
Solver: TypeAlias = "Callable[[Tensors, Tensors, Tensors, Tensors, Tensors, Fresh], Move]"


def euler(z: Tensors, x0: Tensors, sigma: Tensors, to: Tensors, memory: Tensors, fresh: Fresh) -> Move:
    """A straight step towards x0; one call, first order."""
    return Move(_straight(z, x0, sigma, to), {})


def heun(z: Tensors, x0: Tensors, sigma: Tensors, to: Tensors, memory: Tensors, fresh: Fresh) -> Move:
    """Euler's step, then the mean velocity of both its ends (Karras et al. 2022, algorithm 1): two calls, second order.

    Cells that end at sigma 0 keep Euler's step: a velocity (z - x0) / sigma does not exist there.
    """
    if not memory:
        between = any(bool(((to[k] > 0) & (to[k] < sigma[k])).any()) for k in z)
        return Move(_straight(z, x0, sigma, to), named(z=z, x0=x0) if between else {}, between)
    return Move({k: _corrected(z[k], x0[k], sigma[k], to[k], memory[f"z/{k}"], memory[f"x0/{k}"]) for k in z}, {})


def dpm(z: Tensors, x0: Tensors, sigma: Tensors, to: Tensors, memory: Tensors, fresh: Fresh) -> Move:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2) with alpha = 1 - sigma: one call, second order.

    z' = (s' / s) z - alpha' (e^-h - 1) D is Euler's step towards D = x0 + h / (2 h_prev) (x0 - x0_prev), for here
    alpha' (1 - e^-h) = 1 - s' / s; h is the step in lambda = log(alpha / sigma), per cell.
    """
    return Move(_straight(z, _ahead(x0, sigma, to, memory), sigma, to), named(x0=x0, sigma=sigma))


def unipc(z: Tensors, x0: Tensors, sigma: Tensors, to: Tensors, memory: Tensors, fresh: Fresh) -> Move:
    """UniPC of order 2 with B(h) = e^-h - 1 (Zhao et al. 2023): one call, which first corrects the step before.

    The authors of Wan publish their checkpoints with it. First order where a cell has no past or ends at 0.
    """
    z = {k: _hindsight(z[k], x0[k], sigma[k], memory, k) for k in z}
    before = {k: memory[f"sigma/{k}"] if memory else torch.ones_like(sigma[k]) for k in z}
    way = {k: _trend(sigma[k], to[k], before[k]) if memory else torch.zeros_like(sigma[k]) for k in z}
    past = {k: memory[f"x0/{k}"] if memory else x0[k] for k in z}
    ahead = {k: x0[k] + way[k] * (x0[k] - past[k]) for k in z}
    second = {k: (way[k] != 0).float() for k in z}
    found = named(x0=x0, sigma=sigma, z=z, past=past, before=before, second=second)
    return Move(_straight(z, ahead, sigma, to), found)


def ancestral(z: Tensors, x0: Tensors, sigma: Tensors, to: Tensors, memory: Tensors, fresh: Fresh) -> Move:
    """Euler's step of the stochastic equation (k-diffusion): some of the noise is taken anew; one call, first order."""
    return Move(_renewed(z, x0, sigma, to, fresh(), kept=1), {})


def sde(z: Tensors, x0: Tensors, sigma: Tensors, to: Tensors, memory: Tensors, fresh: Fresh) -> Move:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, section 5): `ancestral` towards what `dpm` looks ahead to.

    The authors of CogVideoX advise it.
    """
    ahead = _ahead(x0, sigma, to, memory)
    return Move(_renewed(z, ahead, sigma, to, fresh(), kept=1), named(x0=x0, sigma=sigma))


def consistency(z: Tensors, x0: Tensors, sigma: Tensors, to: Tensors, memory: Tensors, fresh: Fresh) -> Move:
    """To the end and back with other noise (Song et al. 2023, algorithm 1): for checkpoints distilled to few steps."""
    return Move(_renewed(z, x0, sigma, to, fresh(), kept=0), {})


SOLVERS: dict[str, Solver] = {
    "euler": euler,
    "heun": heun,
    "dpm": dpm,
    "unipc": unipc,
    "ancestral": ancestral,
    "sde": sde,
    "consistency": consistency,
}


def named(**groups: Tensors) -> Tensors:
    """Groups of tensors as one flat dict, group/track: the shape that serialises."""
    return {f"{group}/{name}": x for group, tensors in groups.items() for name, x in tensors.items()}


def _straight(z: Tensors, x0: Tensors, sigma: Tensors, to: Tensors) -> Tensors:
    """Every cell on its line towards x0."""
    return {k: _towards(z[k], x0[k], sigma[k], to[k]) for k in z}


def _ahead(x0: Tensors, sigma: Tensors, to: Tensors, memory: Tensors) -> Tensors:
    """D of DPM-Solver++(2M): where x0 is going, by the last two guesses."""
    if not memory:
        return x0
    return {k: x0[k] + _trend(sigma[k], to[k], memory[f"sigma/{k}"]) * (x0[k] - memory[f"x0/{k}"]) for k in x0}


def _renewed(z: Tensors, x0: Tensors, sigma: Tensors, to: Tensors, eps: Tensors, *, kept: float) -> Tensors:
    """Every cell at its next level, with other noise."""
    return {k: _noised(z[k], x0[k], sigma[k], to[k], eps[k], kept) for k in z}


def _noised(z: Tensor, x0: Tensor, sigma: Tensor, to: Tensor, eps: Tensor, kept: float) -> Tensor:
    """z' = (1 - s') x0 + s' (c e + sqrt(1 - c^2) eps), e = (z - (1 - s) x0) / s the noise in z, where a cell moves.

    c is `kept` times e^-h = (s' / (1 - s')) (1 - s) / s: with it all, this is the stochastic equation of the same flow.
    """
    moves = to < sigma
    now, then = sigma.where(moves, 1), to.where(moves, 0)
    c = kept * then * (1 - now) / (now * (1 - then))
    e = (z - (1 - now) * x0) / now
    return torch.where(moves, (1 - then) * x0 + then * (c * e + (1 - c**2).sqrt() * eps), z)


def _towards(z: Tensor, x0: Tensor, sigma: Tensor, to: Tensor) -> Tensor:
    """z' = x0 + (s' / s) (z - x0): the straight line of flow matching (Lipman et al. 2022), where a cell moves."""
    moves = to < sigma
    return torch.where(moves, x0 + to / sigma.where(moves, 1) * (z - x0), z)


def _corrected(z: Tensor, x0: Tensor, sigma: Tensor, to: Tensor, z_before: Tensor, x0_before: Tensor) -> Tensor:
    """z' = z_before + (s' - s) (v(s) + v(s')) / 2 with v = (z - x0) / s, where a cell moves and does not end at 0."""
    moves = (to > 0) & (to < sigma)
    v_before, v = (z_before - x0_before) / sigma.where(moves, 1), (z - x0) / to.where(moves, 1)
    return torch.where(moves, z_before + (to - sigma) * (v_before + v) / 2, z)


def _trend(sigma: Tensor, to: Tensor, before: Tensor) -> Tensor:
    """h / (2 h_prev) per cell; 0, first order, where a cell has no past (pure noise, it stood still) or ends at 0."""
    log_snr = [torch.log((1 - s) / s) for s in (before, sigma, to)]
    h_prev, h = log_snr[1] - log_snr[0], log_snr[2] - log_snr[1]
    has_past = h.isfinite() & h_prev.isfinite() & (h_prev > 0)
    return torch.where(has_past, h / (2 * h_prev.where(has_past, 1)), 0)


def _hindsight(z: Tensor, x0: Tensor, sigma: Tensor, memory: Tensors, k: str) -> Tensor:
    """UniPC's corrector: the step that led to z once more, now that x0 at its end is known too."""
    if not memory:
        return z
    last, m, s, past, before = (memory[f"{name}/{k}"] for name in ("z", "x0", "sigma", "past", "before"))
    moved = (sigma < s) & (sigma > 0)
    second = moved & (memory[f"second/{k}"] > 0)
    h = _log_snr(sigma.where(moved, 0.5)) - _log_snr(s.where(moved, 0.6))
    b = torch.expm1(-h)
    first = b / -h - 1  # b_1 and b_2 of UniPC's system, times B(h); at h = inf they are -1 and -1/2
    then = 2 * (first / -h - 0.5)
    r = (_log_snr(before.where(second, 0.9)) - _log_snr(s.where(second, 0.6))) / h.where(second, 1)
    of_past = ((first - then) / (1 - r)).where(second, 0)
    of_end = (first - of_past).where(second, 0.5 * b)
    trend = (past - m) / r.where(second, 1)
    step = sigma / s.where(moved, 1) * last - (1 - sigma) * (b * m + of_past * trend + of_end * (x0 - m))
    return torch.where(moved, step, z)


def _log_snr(sigma: Tensor) -> Tensor:
    return torch.log((1 - sigma) / sigma)
