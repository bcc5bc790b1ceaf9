"""What a step cache saves and costs: distance of our model's latents to many steps, by solver, steps and period.

python bench/stepcache.py [--prompts 4]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cinecanvas.compose import compose
from cinecanvas.fitting import leaning
from cinecanvas.model import Model
from cinecanvas.models import card, load
from cinecanvas.plan import plan
from cinecanvas.request import text_to_video
from cinecanvas.sampler import Fill, fill
from cinecanvas.solvers import SOLVERS
from cinecanvas.stepcache import FOLLOWED

PROMPTS = (
    "a red ball bounces on grass at sunset",
    "a blue cube rolls left on sand",
    "a green cone slides right on snow at night",
    "a purple ball jumps on stone while the camera pans right",
    "a yellow cylinder spins on wood",
    "an orange cube falls on grass",
)
TRUTH = 96  # steps
WAYS = ((30, 1), (17, 1), (12, 1), (30, 2), (30, 3), (20, 2))  # steps, and at every which the network is asked


def made(model: Model, prompt: str, *, steps: int, every: int, solver: str) -> Fill:
    """The last Fill of a film of two seconds."""
    request = text_to_video(prompt, seed=7, steps=steps, guidance=2.0, guided=(0.0, 1.0), step_cache=every)
    step = plan(request, card("diorama")).passes[0]
    asked = leaning(model, step)
    blank = compose((), step.grid, Path, window=step.frames)
    prepared = asked.prepare(blank, [step.prompt])
    *_, last = fill(asked, prepared, step.schedule, seed=7, solver=SOLVERS[solver], key=step.name, cache=step.cache)
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=4)
    asked = parser.parse_args()
    model, prompts = load("diorama"), PROMPTS[: asked.prompts]
    truth = [made(model, prompt, steps=TRUTH, every=1, solver="dpm") for prompt in prompts]
    for solver in FOLLOWED:
        for steps, every in WAYS:
            fills = [made(model, prompt, steps=steps, every=every, solver=solver) for prompt in prompts]
            far = [_far(a, b) for a, b in zip(fills, truth, strict=True)]
            print(f"{solver:6} {steps} steps, {fills[0].calls} calls: {sum(far) / len(far):.4f}", flush=True)


def _far(fill: Fill, truth: Fill) -> float:
    """Relative L2 distance of latents."""
    a, b = fill.z["video"], truth.z["video"]
    return float((a - b).norm() / b.norm())


if __name__ == "__main__":
    main()
