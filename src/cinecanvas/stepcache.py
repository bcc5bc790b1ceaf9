"""The step cache: between two questions to the network its answer is foretold from the last two that it gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from cinecanvas.canvas import Tensors

FOLLOWED = ("euler", "dpm", "unipc")  # solvers whose answers lie on one smooth way, one a step
LEAST_STEPS = 10  # with fewer, answers are too far apart to be foretold
_WARM, _SHARE = 3, 0.2  # calls of a fill, and their share of its steps, before anything is foretold


class StepCache(BaseModel):
    """Ask at every `every`-th step. breaks: levels of noise at which answers jump, as where another expert answers."""

    model_config = ConfigDict(frozen=True)

    every: int = Field(default=1, ge=1)
    breaks: tuple[float, ...] = ()

    def asks(self, step: int, *, steps: int, calls: int, last: bool) -> bool:
        """Whether the network is asked at a step, whatever is remembered: at first, at every n-th step, and at last.

        The first fifth decides what the words leave open: where it was foretold, films became others (docs/log.md).
        """
        return calls < max(_WARM, _SHARE * steps) or step % self.every == 0 or last

    def calls(self, steps: int) -> int:
        """How many of so many steps ask, but for breaks."""
        return sum(self.asks(step, steps=steps, calls=step, last=step == steps - 1) for step in range(steps))

    def foretold(self, past: Tensors, sigma: Tensors) -> Tensors | None:
        """x0 at levels sigma (B, 1, T, H, W), straight on from the last two answers, cell by cell.

        x0 = x0_1 + (x0_1 - x0_2) (s^2 - s_1^2) / (s_1^2 - s_2^2): the first-order forecast of Liu et al. 2025
        (TaylorSeer), of the guided answer instead of features, and in the variance: near its end the posterior mean of
        a Gaussian moves with s^2. A cell whose level stood still keeps its last answer. None: there are no two answers
        on this side of every break.
        """
        found: Tensors = {}
        for name, s in sigma.items():
            if f"x0_before/{name}" not in past:
                return None
            x0, before = past[f"x0/{name}"], past[f"x0_before/{name}"]
            at, was = past[f"sigma/{name}"], past[f"sigma_before/{name}"]
            if any(bool(((was >= level) & (s < level)).any()) for level in self.breaks):
                return None
            moved = at < was
            far = ((s**2 - at**2) / (at**2 - was**2).where(moved, 1)).where(moved, 0)
            found[name] = x0 + far * (x0 - before)
        return found

    def remembered(self, past: Tensors, x0: Tensors, sigma: Tensors) -> Tensors:
        """The last two answers and their levels under flat names, now that another came; nothing if all steps ask."""
        found: Tensors = {}
        for name in x0 if self.every > 1 else ():
            found |= {f"x0/{name}": x0[name], f"sigma/{name}": sigma[name]}
            if f"x0/{name}" in past:
                found |= {f"{group}_before/{name}": past[f"{group}/{name}"] for group in ("x0", "sigma")}
        return found


ALWAYS = StepCache()
