"""A Grid says which pixels share a latent cell, and at which second each cell stands."""

from __future__ import annotations

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from cinecanvas.errors import BadRequest


class Grid(BaseModel):
    """Pixels to cells: frames T, height H, width W (px), fps (1/s); strides (t, y, x) in px per cell; causal start."""

    model_config = ConfigDict(frozen=True)

    frames: int
    height: int
    width: int
    fps: float
    strides: tuple[int, int, int] = (1, 1, 1)
    causal: bool = True  # the first cell in time holds the first frame alone, as in causal video autoencoders

    @model_validator(mode="after")
    def _whole_cells(self) -> Self:
        t, y, x = self.strides
        if min(self.frames, self.height, self.width, t, y, x) < 1 or not (math.isfinite(self.fps) and self.fps > 0):
            raise BadRequest(
                f"A grid of {self.frames} frames, {self.width}x{self.height} px, {self.fps} fps has no cells",
                "Every extent must be positive",
            )
        lead = 1 if self.causal else 0
        if (self.frames - lead) % t or self.height % y or self.width % x:
            raise BadRequest(
                f"{self.frames} frames of {self.width}x{self.height} px do not divide into cells of {t}x{y}x{x}",
                f"Possible are {lead} + a multiple of {t} frames, and sides that {y} and {x} divide",
            )
        return self

    @property
    def cells(self) -> tuple[int, int, int]:
        """(T', H', W') in cells."""
        t, y, x = self.strides
        lead = 1 if self.causal else 0
        return lead + (self.frames - lead) // t, self.height // y, self.width // x

    @property
    def seconds(self) -> float:
        """Length in s: every frame is shown for 1 / fps."""
        return self.frames / self.fps

    @property
    def pixels(self) -> Self:
        """The same piece of spacetime with one cell per pixel and frame."""
        return self.model_copy(update={"strides": (1, 1, 1)})

    def frames_of(self, cell: int) -> range:
        """The frames that the cell-in-time covers."""
        t = self.strides[0]
        if not self.causal:
            return range(cell * t, (cell + 1) * t)
        return range(1) if cell == 0 else range(1 + (cell - 1) * t, 1 + cell * t)

    def times(self) -> tuple[float, ...]:
        """The second at which each cell-in-time begins (s)."""
        return tuple(self.frames_of(cell).start / self.fps for cell in range(self.cells[0]))

    @classmethod
    def snap(
        cls,
        seconds: float,
        *,
        width: int,
        height: int,
        fps: float,
        strides: tuple[int, int, int] = (1, 1, 1),
        causal: bool = True,
    ) -> Self:
        """The nearest legal grid to (s, px, px, 1/s), never shorter than asked; sides round to the nearest cell."""
        t, y, x = strides
        lead = 1 if causal else 0
        # 1e-6 forgives 2.125 s * 8 fps = 17.000000001
        wanted = max(1, math.ceil(seconds * fps - 1e-6))
        frames = lead + t * max(0 if causal else 1, math.ceil((wanted - lead) / t))
        return cls(
            frames=frames,
            height=max(y, round(height / y) * y),
            width=max(x, round(width / x) * x),
            fps=fps,
            strides=strides,
            causal=causal,
        )
