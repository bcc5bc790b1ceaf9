"""A Job as everybody sees it: a frozen look at one row."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cinecanvas.jobs.tariff import Tariff, Work
from cinecanvas.media.assets import Asset
from cinecanvas.plan import Plan

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("succeeded", "failed", "cancelled")

FOREVER = 253_402_300_799.0  # the last second of the year 9999: when what is kept expires


class Foretold(BaseModel):
    """What a plan says of a job: size (px), frames, seconds of video and of work; zeros if media are not here yet."""

    model_config = ConfigDict(frozen=True)

    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0
    video_seconds: float = 0.0
    seconds: float = 0.0
    bytes: int = 0
    count: int = 1

    @property
    def megapixel_frames(self) -> float:
        return self.width * self.height * self.frames * self.count / 1e6

    @property
    def work(self) -> Work:
        """All of its videos together."""
        return Work(
            megapixel_frames=self.megapixel_frames,
            video_seconds=self.video_seconds * self.count,
            compute_seconds=self.seconds,
        )


class Trouble(BaseModel):
    """Why something failed: a word for programs, a line for people, and whether the same again may work."""

    model_config = ConfigDict(frozen=True)

    code: str  # bad_request, unsupported, bad_media, deadline, worker_lost, storage, internal ...
    message: str
    passing: bool = False


LATE = Trouble(code="deadline", message="The deadline was over before the job was done.")


class Outcome(BaseModel):
    """What a finished job left: assets in their order, their seeds, what was noticed, seconds of work by phase."""

    model_config = ConfigDict(frozen=True)

    assets: tuple[Asset, ...]
    seeds: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    phases: dict[str, float] = Field(default_factory=dict)

    @property
    def work(self) -> Work:
        return Work(
            megapixel_frames=sum((a.width or 0) * (a.height or 0) * (a.frames or 1) for a in self.assets) / 1e6,
            video_seconds=sum(a.seconds or 0.0 for a in self.assets),
            compute_seconds=sum(self.phases.values()),
        )


class Job(BaseModel):
    """One job; times in seconds since 1970, eta in seconds, `watchable` seconds of its film can be watched already.

    `credits`: what it will cost as far as is foretold, at the `price` at which it was accepted; once it has ended, what
    it did cost: nothing, unless it succeeded.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    account: str
    dialect: str
    kind: Literal["video", "image"]
    suffix: str  # of its files: mp4, png ...
    model: str
    asked: dict[str, Any]
    echo: dict[str, Any]
    callback: str
    foretold: Foretold
    state: State
    paused: bool
    priority: int
    place: float
    created: float
    not_before: float
    deadline: float | None
    started: float | None
    finished: float | None
    expires: float | None
    worker: str
    fence: int
    tries: int
    deaths: int
    stop: bool
    phase: str
    step: int
    steps: int
    eta: float | None
    watchable: float
    outcome: Outcome | None
    error: Trouble | None
    causes: tuple[Trouble, ...]
    hidden: bool
    price: Tariff = Tariff()
    credits: int = 0

    @property
    def kept(self) -> bool:
        """Whether what it made stays for good."""
        return self.expires == FOREVER

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def progress(self) -> float:
        """From 0 to 1: the share of network calls that are done; 1 only of a film that is there."""
        if self.state == "succeeded":
            return 1.0
        return min(0.99, self.step / self.steps) if self.steps else 0.0


def foretold(made: Plan) -> Foretold:
    """What a plan says, as far as a job keeps it."""
    return Foretold(
        width=made.width,
        height=made.height,
        frames=made.frames,
        fps=made.fps,
        video_seconds=made.frames / made.fps if made.frames > 1 else 0.0,
        seconds=made.seconds,
        bytes=made.bytes,
        count=made.request.count,
    )
