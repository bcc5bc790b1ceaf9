"""Runs as functions of one dial: how long they may take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cinecanvas.models.autoencoder import CodeShape
from cinecanvas.models.dit import DiTShape

Preset = Literal["tiny", "cpu", "gpu"]


class Bucket(BaseModel):
    """Clips of one extent: `frames` of `width` x `height` px, `count` in the bank, in `share` of the batches.

    Late clips begin at any moment of a long film, so their first frame is only what came before, and not shown.
    """

    model_config = ConfigDict(frozen=True)

    frames: int
    width: int
    height: int
    count: int
    share: float
    batch: int
    late: bool = False

    @property
    def name(self) -> str:
        """For example 64x64x17."""
        return f"{self.width}x{self.height}x{self.frames}{'-late' if self.late else ''}"


class Recipe(BaseModel):
    """One run: what is rendered, what is trained, and how the minutes are shared out."""

    model_config = ConfigDict(frozen=True)

    preset: Preset
    level: str
    fps: float
    code: CodeShape
    dit: DiTShape
    buckets: tuple[Bucket, ...]
    device: str = "cpu"
    compiled: bool = True  # blocks through the compiler where one is at hand: 1.25x on two cores, after half a minute
    code_clips: int = 1500  # clips whose pixels are kept for the decoder
    code_minutes: float = 8.0
    polish_minutes: float = 6.0  # of the decoder again, at the end, on what the transformer makes
    stills_minutes: float = 20.0  # stills first, clips after (Emu Video's factorisation, Girdhar et al. 2023)
    # mean and deviation of logit sigma: many cells share one layout, so it takes much noise to hide it. At a mean of
    # 0.9 only 2 % of the examples lie above sigma 0.95, where sky and floor are decided: clips did not follow words
    noise_still: float = 0.8
    noise_clip: float = 1.7
    noise_spread: float = 1.3
    # at a constant 0.02 and these small batches the loss stood still for 1800 steps, and fell as soon as the rate did
    muon_rate: float = 0.014
    adam_rate: float = 1e-3
    warmup: int = 60
    decay: float = 0.9  # the last part of a run in which the rate falls to 2 %
    ema: float = 0.998
    oracle: float = 0.4  # weight of the lesson in what the renderer knows, at the full rate
    unconditional: float = 0.12  # captions dropped, for classifier-free guidance
    forget: float = 0.08  # words whose own row is dropped, so that sub-words learn to stand alone


def cpu(minutes: float) -> Recipe:
    """64 px, 17 frames, 8 M parameters: what two cores learn in a few hours."""
    # a fifth of the time renders and trains the code; the bank grows with the run, so that no clip is seen too often
    clips = int(min(60_000, 200 * minutes))
    stills = int(min(120_000, 350 * minutes))
    return Recipe(
        preset="cpu",
        level="first",
        fps=8.0,
        code=CodeShape(),
        dit=DiTShape(),
        buckets=(
            Bucket(frames=17, width=64, height=64, count=int(clips * 0.76), share=0.44, batch=48),
            Bucket(frames=17, width=80, height=48, count=int(clips * 0.12), share=0.12, batch=48),
            Bucket(frames=17, width=48, height=80, count=int(clips * 0.08), share=0.08, batch=48),
            Bucket(frames=33, width=64, height=64, count=int(clips * 0.04), share=0.06, batch=24),
            Bucket(frames=1, width=64, height=64, count=int(stills * 0.8), share=0.06, batch=128),
            Bucket(frames=1, width=80, height=48, count=int(stills * 0.12), share=0.01, batch=128),
            Bucket(frames=1, width=48, height=80, count=int(stills * 0.08), share=0.01, batch=128),
            Bucket(frames=33, width=64, height=64, count=int(clips * 0.1), share=0.22, batch=24, late=True),
        ),
        code_clips=int(min(1500, 12 * minutes + 64)),
        code_minutes=minutes * 0.07,
        polish_minutes=minutes * 0.18,  # what it repairs is seen in every film: 14 minutes in 230 left squares
        stills_minutes=minutes * 0.2,
    )


def gpu(minutes: float) -> Recipe:
    """128 px, 33 frames, about 31 M parameters: one large GPU for under half an hour."""
    clips = int(min(60_000, 1500 * minutes))
    return Recipe(
        preset="gpu",
        level="first",
        fps=12.0,
        device="cuda",
        code=CodeShape(channels=96, widths=(256, 192, 96, 64)),
        dit=DiTShape(channels=96, width=512, heads=8),
        buckets=(
            Bucket(frames=33, width=128, height=128, count=int(clips * 0.6), share=0.5, batch=192),
            Bucket(frames=33, width=160, height=96, count=int(clips * 0.15), share=0.15, batch=192),
            Bucket(frames=33, width=96, height=160, count=int(clips * 0.1), share=0.1, batch=192),
            Bucket(frames=9, width=128, height=128, count=int(clips * 0.15), share=0.1, batch=512),
            Bucket(frames=1, width=128, height=128, count=clips, share=0.05, batch=1024),
            Bucket(frames=33, width=128, height=128, count=int(clips * 0.1), share=0.1, batch=192, late=True),
        ),
        code_minutes=minutes * 0.12,
        polish_minutes=minutes * 0.08,
        stills_minutes=minutes * 0.12,
        noise_still=1.2,
        noise_clip=2.2,
        adam_rate=1e-3,
        ema=0.9995,
    )


def tiny(minutes: float) -> Recipe:
    """A rehearsal of every phase in seconds: what the tests run, and what to try before renting a machine."""
    return Recipe(
        preset="tiny",
        level="first",
        fps=8.0,
        code=CodeShape(channels=24, widths=(32, 16, 8, 8)),
        dit=DiTShape(channels=24, width=64, depth=2, heads=2, rank=16, text_width=64),
        buckets=(
            Bucket(frames=5, width=32, height=32, count=256, share=0.6, batch=16),
            Bucket(frames=1, width=32, height=32, count=256, share=0.2, batch=16),
            Bucket(frames=9, width=32, height=32, count=256, share=0.2, batch=16, late=True),
        ),
        compiled=False,
        code_clips=64,
        code_minutes=minutes * 0.1,
        polish_minutes=minutes * 0.1,
        stills_minutes=minutes * 0.1,
    )


RECIPES: dict[str, Callable[[float], Recipe]] = {"tiny": tiny, "cpu": cpu, "gpu": gpu}
