"""A Request says what is asked, in the asker's units; whatever makes no sense is refused here, in one line."""

from __future__ import annotations

import math
import re
import secrets
import unicodedata
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from cinecanvas.errors import BadRequest

Quality = Literal["draft", "standard", "best"]
Role = Literal["content", "reference", "control", "sound"]

MOST_PROMPT = 10_000  # characters
MOST_SECONDS = 3600.0
SIDES = (16, 4096)  # px
MOST_FPS = 120.0  # 1/s
MOST_COUNT = 100  # videos
MOST_SEED = 2**63 - 1
STILL = 1 / 1000  # s: shorter than any frame, so it asks for one picture

Value = TypeVar("Value")
_RATIO = re.compile(r"(\d{1,5}):(\d{1,5})")
_PIXELS = re.compile(r"(\d{1,7})\s*[x×*]\s*(\d{1,7})", re.IGNORECASE)
_SIZES = "A size is WIDTHxHEIGHT such as 640x480, a shape such as 16:9 or 9:16, or square"


class Clip(BaseModel):
    """Media laid on the canvas: start (s), box (x, y, w, h in 0..1), mask (white keeps), keep 0..1, role."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    media: str  # the digest of a stored asset
    start: float = 0.0
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    mask: str = ""  # the digest of a picture or film; "": all of the clip
    keep: float = 1.0
    role: Role = "content"

    @model_validator(mode="wrap")
    @classmethod
    def _legible(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        clip = _told(handler, data)
        x, y, w, h = clip.box
        if not all(math.isfinite(v) for v in (*clip.box, clip.start, clip.keep)):
            raise BadRequest("A clip was placed by numbers that are not finite", "Every number must be finite")
        if min(x, y) < 0 or min(w, h) <= 0 or max(x + w, y + h) > 1 + 1e-9:
            raise BadRequest(f"A clip was laid into the box {clip.box}", "x, y, w and h are fractions within the frame")
        if not 0 <= clip.start <= MOST_SECONDS:
            asked = f"A clip was to start at {clip.start:g} s"
            raise BadRequest(asked, f"Clips start between 0 and {MOST_SECONDS:g} s")
        if not 0 <= clip.keep <= 1:
            raise BadRequest(f"A clip was to be kept by {clip.keep:g}", "keep is between 0 (free) and 1 (exact)")
        return clip


class Request(BaseModel):
    """What is asked, in the asker's units: seconds, width and height (px), fps (1/s); None leaves it to the model.

    A shape such as "16:9" may stand instead of width and height; it leaves the number of pixels to the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str
    negative: str = ""
    seconds: float | None = None
    width: int | None = None
    height: int | None = None
    shape: str = ""
    fps: float | None = None
    clips: tuple[Clip, ...] = ()
    loop: bool = False
    sound: bool = False
    seed: int = Field(default_factory=lambda: draw_seed())
    model: str = "diorama"
    quality: Quality = "standard"
    count: int = 1

    @model_validator(mode="wrap")
    @classmethod
    def _sensible(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, dict) and data.get("seed", 0) is None:
            data = {**data, "seed": draw_seed()}
        request = _told(handler, data)
        _check_text(request)
        _check_size(request)
        _check_number("seconds", request.seconds, most=MOST_SECONDS, unit="s")
        _check_number("fps", request.fps, most=MOST_FPS, unit="frames per second")
        if not 0 <= request.seed <= MOST_SEED:
            asked = f"The seed {_short(request.seed)} was asked"
            raise BadRequest(asked, "A seed is a whole number from 0 to 2^63 - 1")
        if not 1 <= request.count <= MOST_COUNT:
            raise BadRequest(f"{_short(request.count)} videos were asked", f"Between 1 and {MOST_COUNT} are possible")
        return request

    @property
    def ratio(self) -> float | None:
        """Width over height as asked, or None if the model may choose."""
        if self.width is not None and self.height is not None:
            return self.width / self.height
        return _ratio(self.shape) if self.shape else None

    @property
    def seeds(self) -> tuple[int, ...]:
        """One seed for each of the videos: the asked one and those after it."""
        return tuple((self.seed + i) % (MOST_SEED + 1) for i in range(self.count))


def text_to_video(
    prompt: str,
    *,
    negative: str = "",
    seconds: float | None = None,
    width: int | None = None,
    height: int | None = None,
    shape: str = "",
    fps: float | None = None,
    seed: int | None = None,
    model: str = "diorama",
    quality: Quality = "standard",
    count: int = 1,
) -> Request:
    """Words in, video out: nothing on the canvas is known."""
    return Request(
        prompt=prompt,
        negative=negative,
        seconds=seconds,
        width=width,
        height=height,
        shape=shape,
        fps=fps,
        seed=draw_seed() if seed is None else seed,
        model=model,
        quality=quality,
        count=count,
    )


class Size(NamedTuple):
    """What a size in words comes to: pixels, or only a shape."""

    width: int | None = None
    height: int | None = None
    shape: str = ""


def parse_size(text: str) -> Size:
    """640x480 to pixels; 16:9, 9:16, square to a shape."""
    words = text.strip().lower()
    if pixels := _PIXELS.fullmatch(words):
        return Size(int(pixels[1]), int(pixels[2]))
    if words == "square":
        return Size(shape="1:1")
    if _RATIO.fullmatch(words):
        return Size(shape=words)
    raise BadRequest(f"The size {_short(text)!r} was asked", _SIZES)


def draw_seed() -> int:
    """A seed nobody chose, short enough to be typed again."""
    return secrets.randbelow(2**32)


def _told(handler: Callable[[Any], Value], data: Any) -> Value:
    """What pydantic refuses, as one line of ours."""
    try:
        return handler(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "The request"
        raise BadRequest(f"{_short(name)} is not usable: {first['msg']}") from error


def _check_text(request: Request) -> None:
    """A prompt that can be read, and a negative that may be empty."""
    for name, text in (("prompt", request.prompt), ("negative prompt", request.negative)):
        if len(text) > MOST_PROMPT:
            raise BadRequest(
                f"A {name} of {len(text):,} characters was given", f"At most {MOST_PROMPT:,} are possible", "Shorten it"
            )
        strange = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r"), None)
        if strange is not None:
            broken = unicodedata.category(strange) == "Cs"
            kind = "broken UTF-8" if broken else f"the control character U+{ord(strange):04X}"
            raise BadRequest(f"The {name} holds {kind}", "Plain text is possible", "Remove it")
    if not any(c.isprintable() and not c.isspace() for c in request.prompt):
        raise BadRequest("The prompt is empty", do='Say what to show, such as "a red ball bounces on grass at sunset"')
    if not 0 < len(request.model) <= 100 or not request.model.isprintable():
        raise BadRequest("The model's name is empty, too long or unprintable", do="Choose one that `cine models` lists")


def _check_size(request: Request) -> None:
    """Width and height come together, in bounds, and not with a shape."""
    sides = (request.width, request.height)
    if request.shape:
        if sides != (None, None):
            raise BadRequest("A shape and a size in pixels were both asked", do="Give one of them")
        if not _RATIO.fullmatch(request.shape) or 0 in map(int, request.shape.split(":")):
            raise BadRequest(f"The shape {_short(request.shape)!r} was asked", _SIZES)
        return
    if sides == (None, None):
        return
    if None in sides:
        raise BadRequest("Only one of width and height was given", do="Give both, or a shape such as 16:9")
    if not all(SIDES[0] <= side <= SIDES[1] for side in sides if side is not None):
        raise BadRequest(
            f"A size of {_short(sides[0])}x{_short(sides[1])} px was asked",
            f"Each side is possible from {SIDES[0]} to {SIDES[1]} px",
        )


def _check_number(name: str, value: float | None, *, most: float, unit: str) -> None:
    """A positive, finite number of the unit, or none."""
    if value is None or (math.isfinite(value) and 0 < value <= most):
        return
    possible = f"More than 0 and at most {most:g} {unit} are possible"
    raise BadRequest(f"{name} = {_short(f'{value:g}')} was asked", possible)


def _ratio(shape: str) -> float:
    width, height = map(int, shape.split(":"))
    return width / height


def _short(value: object) -> str:
    """A value for a message, never longer than it is useful."""
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= 40 else f"{text[:32]}..."
