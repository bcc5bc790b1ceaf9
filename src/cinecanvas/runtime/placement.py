"""Where the networks of a model live while it works: on which device, in which precision, and for how long."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Precision = Literal["float32", "bfloat16", "float8", "int8", "int4"]
Residency = Literal["resident", "staged", "blocks", "disk"]


class Placement(BaseModel):
    """device: as torch names it; residency: all networks at once, one stage at a time, or block by block.

    tile (px): the side of the squares in which frames are decoded; 0 decodes whole frames. rehearsed: networks have
    shapes but no weights, to see how much memory the work would take.
    """

    model_config = ConfigDict(frozen=True)

    device: str = "cpu"
    precision: Precision = "bfloat16"
    residency: Residency = "staged"
    tile: int = 0
    rehearsed: bool = False
