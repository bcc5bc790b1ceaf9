"""What work costs: a Tariff turns what was foretold, or was done, into whole credits."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field


class Work(BaseModel):
    """An amount of work: frames times their megapixels, seconds of video, seconds of computing."""

    model_config = ConfigDict(frozen=True)

    megapixel_frames: float = 0.0
    video_seconds: float = 0.0
    compute_seconds: float = 0.0


class Tariff(BaseModel):
    """Credits for work; a credit is worth `cents` US cents.

    By itself only what is seen is paid for: a tenth of a credit for each frame of a megapixel, so that 5 s of 1280x720
    at 24 frames per second cost 12 credits, and every job costs at least one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    per_megapixel_frame: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    per_video_second: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    per_compute_second: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    least: int = Field(default=1, ge=0)  # for a job
    cents: float = Field(default=1.0, ge=0, allow_inf_nan=False)

    def credits(self, work: Work) -> int:
        """Credits for the work of one job, a begun one counting as whole."""
        exact = (
            self.per_megapixel_frame * work.megapixel_frames
            + self.per_video_second * work.video_seconds
            + self.per_compute_second * work.compute_seconds
        )
        return max(self.least, math.ceil(round(exact, 6)))  # 0.1 x 30 is no more than 3

    def in_cents(self, credit: int) -> int:
        """What an amount of credits is worth, in US cents."""
        return round(credit * self.cents)
