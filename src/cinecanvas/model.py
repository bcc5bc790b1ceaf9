"""A Model is three verbs: prepare a canvas, denoise its latents, decode them; a Card says what it is and can fill."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from cinecanvas.ramp import STRAIGHT, Ramp
from cinecanvas.request import STILL, Lora, Quality
from cinecanvas.runtime.placement import Placement

if TYPE_CHECKING:  # the server reads Cards on machines without torch
    import numpy as np

    from cinecanvas.canvas import Canvas, Tensors

Fidelity = Literal["exact", "approximate"]


class Frames(NamedTuple):
    """What decode yields, in time order: RGB uint8 (t, H, W, 3) and sound float32 (s, channels), either maybe empty.

    resume: set where a decoder looks ahead and the cells that follow were not there. A film that has them leaves these
    frames and all after them, and goes on with this memory: then they come again, as they are.
    """

    rgb: np.ndarray[Any, Any]
    sound: np.ndarray[Any, Any] | None = None
    resume: Any = None


class Score(BaseModel):
    """One measured number: a value in `unit` with its 95 % interval, the command that made it, and when."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 0
    unit: str = ""
    ceiling: float | None = None  # the same number for rendered truth
    floor: float | None = None  # the same number for shuffled captions
    command: str = ""
    date: str = ""


class Recipe(BaseModel):
    """How a family is sampled at one quality: solver steps, guidance scale, timestep shift, solver's name.

    Guidance acts from the noise `guided_from` up to `guided_to`; elsewhere a call costs half. rescale 0..1: how much of
    the contrast that it adds is taken back. rising: the scale at the first moment, from which it rises to `guidance` at
    the last. below: another scale under a level, (level, scale). sound: another scale for the track of sound.
    hindered: (how, scale): how far to lean, besides, away from what the same network says when it is hindered so.
    experts: the level under which another network answers; 0: there is one.
    """

    model_config = ConfigDict(frozen=True)

    steps: int
    guidance: float
    shift: float
    solver: Literal["euler", "heun", "dpm", "unipc", "ancestral", "sde", "consistency"] = "dpm"
    guided_from: float = 0.1
    guided_to: float = 1.0
    rescale: float = 0.0
    rising: float | None = None
    below: tuple[float, float] | None = None
    sound: float | None = None
    hindered: tuple[tuple[str, float], ...] = ()
    experts: float = 0.0
    ramp: Ramp = STRAIGHT

    def guides(self, level: float) -> bool:
        """Whether guidance acts at a level."""
        return self.guided_from <= level <= self.guided_to


class Source(BaseModel):
    """Where weights are published: a repository, its pinned revision, and the patterns of the files that are needed."""

    model_config = ConfigDict(frozen=True)

    repository: str
    revision: str = "main"  # a commit where it is known; what `main` was at the pull is kept in the receipt
    beside: dict[str, str] = Field(default_factory=dict)  # other repositories, by the folder within that they go to
    files: tuple[str, ...] = ()  # such as "transformer/*"; (): what model_index.json names
    bytes: int = 0  # of all of them
    gated: bool = False  # the hub asks for an account's token


class Terms(BaseModel):
    """What a licence asks beyond its name: `accept` once before the weights are fetched; where and for whom it ends."""

    model_config = ConfigDict(frozen=True)

    url: str = ""
    accept: bool = False
    territory: str = ""  # where it grants nothing
    revenue: str = ""  # above what it grants nothing
    use: str = ""  # such as "not for commercial use"


class SoundCode(BaseModel):
    """The latent sound of a family: `rate` samples come of it a second; spectra of `bins`, `moments` of them a second.

    strides: (moments, bins) that share a cell; the first cell in time holds one moment alone. after: how many cells
    ahead a moment is heard in the light of: with those a film is decoded in parts as it is whole.
    """

    model_config = ConfigDict(frozen=True)

    rate: int
    moments: float
    bins: int
    strides: tuple[int, int]
    channels: int
    after: int = 0

    def before(self, frames: int, fps: float) -> int:
        """How many cells-in-time are heard while so many first frames are seen, as training counted them."""
        return max(1, round(frames / fps * (self.moments / self.strides[0]))) if frames else 0


class Cost(BaseModel):
    """Measured seconds on `machine`: a network call on n cells takes call + cell * n + pair * n^2."""

    model_config = ConfigDict(frozen=True)

    load: float = 0.0
    prepare: float = 0.0
    call: float = 0.0
    cell: float = 0.0
    pair: float = 0.0
    decode_frame: float = 0.0
    bytes_fixed: int = 0
    bytes_cell: int = 0
    machine: str = ""


class Card(BaseModel):
    """What a family is and can fill: grids, tracks, tasks, max cells, bytes, licence and limits, digests, scores."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    licence: str
    limits: str = ""  # what the licence or the training leaves out, in plain words
    tracks: tuple[str, ...] = ("video",)
    sound: SoundCode | None = None  # how the track of that name is laid out; None: there is none in latents
    channels: int = 3
    strides: tuple[int, int, int] = (1, 1, 1)
    causal: bool = True
    sizes: tuple[tuple[int, int], ...] = ()  # (width, height) px that it was trained on; the first is its own
    sides: int = 0  # px: sides asked for may be any multiple of it; 0: only the trained sizes are made
    groups: int = 1  # cells-in-time after the first come in groups of so many
    chunk: int = 0  # cells-in-time that are made at once, after which the code begins anew; 0: it begins once
    display: int = Field(default=1, ge=1)  # times that a picture is enlarged when no size in pixels was asked
    fps: float = 8.0
    seconds: float = 2.0  # its natural length
    max_seconds: float = 2.0
    max_cells: int = 100_000  # in one pass
    window: int = 0  # cells-in-time of one pass; longer films are made window by window; 0: all in one
    overlap: int = 0  # cells-in-time that a window knows from the one before
    tasks: dict[str, Fidelity] = Field(default_factory=dict)
    ways: dict[str, str] = Field(default_factory=dict)  # how a task is done: per-token noise, channels, replacement
    batched: bool = True  # guidance asks for both of its answers in one call; False: in turn, in half the memory
    embedded: bool = False  # the network is told how far to lean towards the prompt, instead of asked twice
    orders: tuple[Literal["full", "causal", "pyramid"], ...] = ("full",)
    recipes: dict[Quality, Recipe] = Field(default_factory=dict)
    cost: Cost = Cost()
    parameters: int = 0
    bytes: int = 0
    parts: dict[str, int] = Field(default_factory=dict)  # parameters of each network, by its folder in the checkpoint
    digests: dict[str, str] = Field(default_factory=dict)  # file name to sha256
    source: Source | None = None  # None: the weights are part of this package
    terms: Terms = Terms()
    shows: float | None = None  # dB, at which its code shows 99 of 100 pictures of its own world, or better
    words: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # slot to the values learnt; empty = open domain
    training: str = ""  # the exact command and its cost
    scores: tuple[Score, ...] = ()
    notes: str = ""

    @property
    def still(self) -> bool:
        """Whether single pictures are all that it makes."""
        return self.max_seconds <= STILL


class Conditioning(Protocol):
    """What `prepare` returns: the latent canvas, and whatever else the family wants beside it."""

    @property
    def canvas(self) -> Canvas: ...


@runtime_checkable
class Model(Protocol):
    """A family of networks as a filler of canvases."""

    @property
    def card(self) -> Card: ...

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Any:
        """Pixel canvas (B videos) and B prompts to a Conditioning: latent canvas and text states.

        Of k times B prompts the canvas is laid k times over: guidance asks twice of what is encoded once.
        Its `videos(start, stop)` is the same of these alone: guidance asks for the prompted ones where it does not act.
        """
        ...

    def denoise(self, z: Tensors, sigma: Tensors, cond: Any, *, to: Tensors | None = None) -> Tensors:
        """x0 per track, like z (B, C, T, H, W), float32; sigma (B, 1, T, H, W); `to`: the next, for few-step models."""
        ...

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """Latents of ONE video (B = 1) to frames and sound, in time order; returns what its continuation needs.

        So a film is decoded while it is made: `memory = yield from decode(first)`, then `decode(rest, memory=memory)`.
        Without a track "sound" no sound is made. "sound_after" are cells that follow, of which nothing is given, and
        which come again with the next part: as many as the Card's `sound.after`, until the film ends.
        """
        ...


@runtime_checkable
class Hinderable(Protocol):
    """A Model whose network can be asked with a part of it left out."""

    def hindered(self, how: str) -> Model:
        """The same model, hindered in one of the ways that its recipes name."""
        ...


@dataclass(frozen=True)
class Around:
    """A Model round a Model: all is as the inner one has it, but for what a subclass says otherwise."""

    model: Model

    @property
    def card(self) -> Card:
        return self.model.card

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Any:
        return self.model.prepare(canvas, text)

    def denoise(self, z: Tensors, sigma: Tensors, cond: Any, *, to: Tensors | None = None) -> Tensors:
        return self.model.denoise(z, sigma, cond, to=to)

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        return self.model.decode(z, memory=memory)


@dataclass(frozen=True)
class Weights:
    """What a model is loaded from: the folder of a checkpoint, the LoRA files that change it, the files that stand in
    place of networks of the folder, by their parts."""

    folder: Path
    loras: tuple[tuple[Lora, Path], ...] = ()
    networks: tuple[tuple[str, Path], ...] = ()


class Family(NamedTuple):
    """What a family registers: its Cards; how the model of one is loaded; how it knows a folder of weights as its own.

    load(card, weights, placement): weights are None where they are part of a package. recognise(layout): the Card
    of a folder by what its configurations say, part by part (`model_index` among them), or None.
    """

    cards: tuple[Card, ...]
    load: Callable[[Card, Weights | None, Placement], Model]
    recognise: Callable[[Mapping[str, Any]], Card | None] = lambda layout: None
