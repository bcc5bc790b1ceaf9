"""A Grid says which pixels share a latent cell, and at which second each cell stands."""

from __future__ import annotations

import math
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    chunk: int = Field(default=0, ge=0)  # cells-in-time after which the code begins anew; 0: it begins once

    @model_validator(mode="after")
    def _whole_cells(self) -> Self:
        t, y, x = self.strides
        if min(self.frames, self.height, self.width, t, y, x) < 1 or not (math.isfinite(self.fps) and self.fps > 0):
            raise BadRequest(
                f"A grid of {self.frames} frames, {self.width}x{self.height} px, {self.fps} fps has no cells",
                "Every extent must be positive",
            )
        lead = self._lead
        rest = self.frames % self.span if self.chunk else self.frames
        if (rest and (rest - lead) % t) or self.height % y or self.width % x:
            after = f", after whole chunks of {self.span}" if self.chunk else ""
            raise BadRequest(
                f"{self.frames} frames of {self.width}x{self.height} px do not divide into cells of {t}x{y}x{x}",
                f"Possible are {lead} + a multiple of {t} frames{after}, and sides that {y} and {x} divide",
            )
        return self

    @property
    def span(self) -> int:
        """Frames from one beginning of the code to the next; of a grid without chunks 0."""
        return self._lead + self.strides[0] * (self.chunk - self._lead) if self.chunk else 0

    @property
    def cells(self) -> tuple[int, int, int]:
        """(T', H', W') in cells."""
        _, y, x = self.strides
        return self.cell_of(self.frames - 1) + 1, self.height // y, self.width // x

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
        many, place = divmod(cell, self.chunk) if self.chunk else (0, cell)
        begin = many * self.span
        if not self.causal:
            return range(begin + place * t, begin + (place + 1) * t)
        return range(begin + max(0, 1 + (place - 1) * t), begin + 1 + place * t)

    def cell_of(self, frame: int) -> int:
        """The cell-in-time that covers the frame."""
        t = self.strides[0]
        many, place = divmod(frame, self.span) if self.chunk else (0, frame)
        return many * self.chunk + (place + (t - 1) * self._lead) // t

    def times(self) -> tuple[float, ...]:
        """The second at which each cell-in-time begins (s)."""
        return tuple(self.frames_of(cell).start / self.fps for cell in range(self.cells[0]))

    @property
    def _lead(self) -> int:
        """Frames of the first cell that are no whole stride."""
        return 1 if self.causal else 0

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
        chunk: int = 0,
    ) -> Self:
        """The nearest legal grid to (s, px, px, 1/s), never shorter than asked; sides round to the nearest cell.

        Chunks are whole.
        """
        t, y, x = strides
        lead = 1 if causal else 0
        # 1e-6 forgives 2.125 s * 8 fps = 17.000000001
        wanted = max(1, math.ceil(seconds * fps - 1e-6))
        if chunk:
            frames = math.ceil(wanted / (span := lead + t * (chunk - lead))) * span
        else:
            frames = lead + t * max(0 if causal else 1, math.ceil((wanted - lead) / t))
        return cls(
            frames=frames,
            height=max(y, round(height / y) * y),
            width=max(x, round(width / x) * x),
            fps=fps,
            strides=strides,
            causal=causal,
            chunk=chunk,
        )
