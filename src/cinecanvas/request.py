"""A Request says what is asked, in the asker's units; whatever makes no sense is refused here, in one line."""

from __future__ import annotations

import itertools
import math
import re
import secrets
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, Self, TypedDict, TypeVar, Unpack

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, ValidationError, model_validator

from cinecanvas.errors import BadRequest

Quality = Literal["draft", "standard", "best"]
Role = Literal["content", "reference", "control", "sound"]
Fit = Literal["crop", "pad", "stretch"]
Order = Literal["full", "causal", "pyramid"]

MOST_PROMPT = 10_000  # characters
MOST_SECONDS = 3600.0
SIDES = (16, 4096)  # px
LEAST_FPS, MOST_FPS = 0.1, 120.0  # 1/s
MOST_COUNT = 100  # videos
MOST_STEPS = 1000
MOST_GUIDANCE = 30.0
MOST_EVERY = 4  # steps to one network call
MOST_LORAS, MOST_WEIGHT = 8, 4.0
MOST_SEED = 2**63 - 1
STILL = 1 / 1000  # s: shorter than any frame, so it asks for one picture

Value = TypeVar("Value")
_RATIO = re.compile(r"(\d{1,5}):(\d{1,5})")
_PIXELS = re.compile(r"(\d{1,7})\s*[x×*]\s*(\d{1,7})", re.IGNORECASE)
_SIZES = "A size is WIDTHxHEIGHT such as 640x480, a shape such as 16:9 or 9:16, or square"


class Media(Protocol):
    """What is known of a stored picture or clip: digest, width, height (px), seconds (a picture has None), sound."""

    @property
    def digest(self) -> str: ...
    @property
    def width(self) -> int | None: ...
    @property
    def height(self) -> int | None: ...
    @property
    def seconds(self) -> float | None: ...
    @property
    def sound(self) -> bool: ...


class Clip(BaseModel):
    """Media laid on the canvas: start (s), box (x, y, w, h in 0..1), mask (white keeps), keep 0..1, role.

    A picture holds one frame. trim (s, s) takes a part of a clip; fit says how media of another shape fill the box.
    What is laid as content is seen and heard; as sound it is only heard, and then nothing else is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    media: str  # the digest of a stored asset
    start: float = 0.0
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    mask: str = ""  # the digest of a picture or film; "": all of the clip
    keep: float = 1.0
    role: Role = "content"
    trim: tuple[float, float] | None = None
    fit: Fit = "crop"
    anchor: Literal["start", "end"] = "start"  # "end": it ends `start` s before the video does

    @model_validator(mode="wrap")
    @classmethod
    def _legible(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        clip = _told(handler, data)
        x, y, w, h = clip.box
        if not all(math.isfinite(v) for v in (*clip.box, *(clip.trim or ()), clip.start, clip.keep)):
            raise BadRequest("A clip was placed by numbers that are not finite", "Every number must be finite")
        if min(x, y) < 0 or min(w, h) <= 0 or max(x + w, y + h) > 1 + 1e-9:
            raise BadRequest(f"A clip was laid into the box {clip.box}", "x, y, w and h are fractions within the frame")
        if not 0 <= clip.start <= MOST_SECONDS:
            asked = f"A clip was to start at {clip.start:g} s"
            raise BadRequest(asked, f"Clips start between 0 and {MOST_SECONDS:g} s")
        if not 0 <= clip.keep <= 1:
            raise BadRequest(f"A clip was to be kept by {clip.keep:g}", "keep is between 0 (free) and 1 (exact)")
        if clip.trim is not None and not 0 <= clip.trim[0] < clip.trim[1]:
            asked = f"The part from {clip.trim[0]:g} to {clip.trim[1]:g} s of a clip was asked"
            raise BadRequest(asked, "A part begins at 0 s or later and ends after it begins")
        return clip

    @property
    def seen(self) -> bool:
        """Whether it is laid on the pictures of the film."""
        return self.role != "sound"


class Cue(BaseModel):
    """From this second on, other words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float = Field(strict=True, description="The second.", json_schema_extra={"minimum": 0, "maximum": MOST_SECONDS})
    prompt: str = Field(description="What to show from then on.", json_schema_extra={"maxLength": MOST_PROMPT})

    @model_validator(mode="wrap")
    @classmethod
    def _legible(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        cue = _told(handler, data)
        if not (math.isfinite(cue.at) and 0 <= cue.at <= MOST_SECONDS):
            raise BadRequest(f"Words were to begin at {cue.at:g} s", f"From 0 to {MOST_SECONDS:g} s is possible")
        return cue


class Enhanced(BaseModel):
    """What a language model made of the words of a prompt; without a caption they hold as they were asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(description="The words as they were asked.", json_schema_extra={"maxLength": MOST_PROMPT})
    caption: str = Field(
        default="",
        description="What is shown in their place; empty if nothing usable came.",
        json_schema_extra={"maxLength": MOST_PROMPT},
    )
    by: str = Field(default="", description="Who wrote it.", json_schema_extra={"maxLength": MOST_PROMPT})
    trouble: str = Field(
        default="", description="Why nothing usable came.", json_schema_extra={"maxLength": MOST_PROMPT}
    )


class Lora(BaseModel):
    """A file that changes a model's weights a little, by its name on the shelf, as far as `weight` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="As `cine models` lists it.", json_schema_extra={"maxLength": 64})
    weight: float = Field(
        default=1.0,
        description="How far the model is changed; below 0 the other way.",
        json_schema_extra={"minimum": -MOST_WEIGHT, "maximum": MOST_WEIGHT},
    )
    expert: Literal["", "high", "low"] = Field(
        default="", description="Of a model with two experts, only the one for high or for low noise."
    )
    digest: str = Field(
        default="", description="The file's sha256, written down when it is used; another file is refused then."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _legible(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        lora = _told(handler, data)
        if not (math.isfinite(lora.weight) and abs(lora.weight) <= MOST_WEIGHT):
            asked = f"A LoRA was to count by {_short(f'{lora.weight:g}')}"
            raise BadRequest(asked, f"From -{MOST_WEIGHT:g} to {MOST_WEIGHT:g} is possible")
        if not (0 < len(lora.name) <= 64 and lora.name.isprintable() and len(lora.digest) <= 64):
            raise BadRequest("The name of a LoRA is empty, too long or unprintable", do="See `cine models`")
        return lora


class Request(BaseModel):
    """What is asked, in the asker's units: seconds, width and height (px), fps (1/s); None leaves it to the model.

    A shape such as "16:9" may stand instead of width and height; it leaves the number of pixels to the model. The
    descriptions below are the help of the command and the words of every other form: they stand nowhere else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(description="What to show, in words.")
    negative: str = Field(default="", description="What to keep out, in words.")
    seconds: float | None = Field(default=None, description="Length (s); the model's own if left out.")
    width: int | None = Field(default=None, description="Pixels across.")
    height: int | None = Field(default=None, description="Pixels down.")
    shape: str = Field(default="", description="A shape such as 16:9 instead of pixels.")
    fps: float | None = Field(default=None, description="Frames per second; the model's own if left out.")
    clips: tuple[Clip, ...] = Field(default=(), description="What is known of the canvas already.")
    cues: tuple[Cue, ...] = Field(default=(), description="Other words from a second on.")
    loop: bool = Field(default=False, description="Let the end lead back to the beginning.")
    finer: bool = Field(
        default=False, description="Fill a canvas of the asked size itself, so that the model adds what is finer."
    )
    sound: bool = Field(default=False, description="Let the model make sound; that of clips is kept unasked.")
    seed: int = Field(
        default_factory=lambda: draw_seed(), description="The same seed gives the same video; drawn if left out."
    )
    model: str = Field(default="diorama", description="One of `cine models`.")
    quality: Quality = Field(default="standard", description="More steps look better and take longer.")
    order: Order = Field(default="full", description="Moments together, one after the other, or staggered.")
    count: int = Field(default=1, description="How many videos, each with the next seed.")
    steps: int | None = Field(default=None, description="Steps from noise to film; the quality's own if left out.")
    guidance: float | None = Field(
        default=None, description="How far to lean towards the prompt, 1 is not at all; the model's own if left out."
    )
    guided: tuple[float, float] | None = Field(
        default=None, description="From which noise to which it leans, in 0 to 1; the model's own if left out."
    )
    rescale: float | None = Field(
        default=None, description="How much of the contrast that leaning adds is taken back, from 0 to 1 (all)."
    )
    step_cache: int = Field(
        default=1, description="Ask the network at every n-th step and foretell its answers between; 1 is at all steps."
    )
    loras: tuple[Lora, ...] = Field(default=(), description="LoRA files that change a public model, by their names.")
    enhance: bool = Field(
        default=False, description="Let a language model that the operator names make a detailed caption of the prompt."
    )
    enhanced: tuple[Enhanced, ...] = Field(
        default=(), description="What came of that, written down when it came: nobody is asked again for these words."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _sensible(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(data, dict) and data.get("seed", 0) is None:
            data = {**data, "seed": draw_seed()}
        request = _told(handler, data)
        _check_text(request)
        _check_size(request)
        _check_number("seconds", request.seconds, most=MOST_SECONDS, unit="s")
        _check_number("fps", request.fps, above=LEAST_FPS, most=MOST_FPS, unit="frames per second")
        if not 0 <= request.seed <= MOST_SEED:
            asked = f"The seed {_short(request.seed)} was asked"
            raise BadRequest(asked, "A seed is a whole number from 0 to 2^63 - 1")
        if not 1 <= request.count <= MOST_COUNT:
            raise BadRequest(f"{_short(request.count)} videos were asked", f"Between 1 and {MOST_COUNT} are possible")
        _check_cues(request)
        _check_recipe(request)
        if request.finer and request.width is None:
            raise BadRequest("A finer film was asked, but no size", do="Give its width and height")
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

    @property
    def spoken(self) -> tuple[str, ...]:
        """The words of the film as they were asked, each once, in their order."""
        return tuple(dict.fromkeys((self.prompt, *(cue.prompt for cue in self.cues))))

    @property
    def unenhanced(self) -> tuple[str, ...]:
        """Those of them that are still to be enhanced."""
        known = {"", *(one.prompt for one in self.enhanced)}
        return tuple(words for words in self.spoken if words not in known) if self.enhance else ()

    def prompt_at(self, second: float) -> str:
        """The words that hold at a second, enhanced as far as they are."""
        asked = next((cue.prompt for cue in reversed(self.cues) if cue.at <= second + 1e-9), self.prompt)
        captions = {one.prompt: one.caption for one in self.enhanced} if self.enhance else {}
        return captions.get(asked) or asked


class Options(TypedDict, total=False):
    """What every task may also ask: fields of Request, by their names."""

    negative: str
    width: int | None
    height: int | None
    shape: str
    fps: float | None
    seed: int | None
    model: str
    quality: Quality
    order: Order
    sound: bool
    cues: tuple[Cue, ...]
    count: int
    steps: int | None
    guidance: float | None
    guided: tuple[float, float] | None
    rescale: float | None
    step_cache: int
    loras: tuple[Lora, ...]
    enhance: bool
    enhanced: tuple[Enhanced, ...]


# Every task is a Request and nothing else: which cells are known. Media stand at a second and hold their own length.


def text_to_video(prompt: str, *, seconds: float | None = None, **options: Unpack[Options]) -> Request:
    """Words in, video out: nothing on the canvas is known."""
    return _asked(prompt, options, seconds=seconds)


def text_to_image(prompt: str, **options: Unpack[Options]) -> Request:
    """One frame and nothing known."""
    return _asked(prompt, options, seconds=STILL)


def animate(
    picture: Media,
    prompt: str,
    *,
    seconds: float | None = None,
    last: bool = False,
    fit: Fit = "crop",
    **options: Unpack[Options],
) -> Request:
    """A picture moves: it is the first frame, or with `last` the one that everything leads to."""
    clip = Clip(media=picture.digest, fit=fit, anchor="end" if last else "start")
    return _asked(prompt, _of(picture, options), seconds=seconds, clips=(clip,))


def interpolate(
    first: Media, second: Media, prompt: str, *, seconds: float = 2.0, fit: Fit = "crop", **options: Unpack[Options]
) -> Request:
    """`seconds` of new video lead from one picture or clip to another."""
    begins, ends = first.seconds or 0.0, second.seconds or 0.0
    clips = (Clip(media=first.digest, fit=fit), Clip(media=second.digest, fit=fit, anchor="end"))
    return _asked(prompt, _of(first, options), seconds=begins + seconds + ends, clips=clips)


def keyframes(
    pictures: Sequence[tuple[Media, float]],
    prompt: str,
    *,
    seconds: float | None = None,
    fit: Fit = "crop",
    **options: Unpack[Options],
) -> Request:
    """Pictures, each at its second, and everything between them."""
    if not pictures:
        raise BadRequest("No keyframe was given", do="Give at least one picture and its second")
    times = sorted(at for _, at in pictures)
    if any(b - a < 1e-6 for a, b in itertools.pairwise(times)):
        raise BadRequest(
            "Two keyframes were given for one second", "Every second holds one picture", "Move one of them"
        )
    clips = tuple(Clip(media=picture.digest, start=at, fit=fit) for picture, at in pictures)
    return _asked(prompt, _of(pictures[0][0], options), seconds=seconds, clips=clips)


def extend(
    clip: Media, prompt: str, *, seconds: float = 2.0, backward: bool = False, **options: Unpack[Options]
) -> Request:
    """`seconds` more after a clip, or with `backward` before it; the whole is what comes out."""
    length = _length(clip, "extend")
    laid = Clip(media=clip.digest, start=seconds if backward else 0.0)
    return _asked(prompt, _of(clip, options), seconds=length + seconds, clips=(laid,))


def loop(prompt: str, *, of: Media | None = None, seconds: float | None = None, **options: Unpack[Options]) -> Request:
    """A video whose end leads back to its beginning; of a picture or clip, `seconds` are what is added to it."""
    if of is None:
        return _asked(prompt, options, seconds=seconds, loop=True)
    whole = (of.seconds or 0.0) + (2.0 if seconds is None else seconds)
    return _asked(prompt, _of(of, options), seconds=whole, clips=(Clip(media=of.digest),), loop=True)


def retake(clip: Media, prompt: str, *, start: float, end: float, **options: Unpack[Options]) -> Request:
    """Seconds `start` to `end` of a clip once more; the rest is known, and all of its sound stays."""
    length = _length(clip, "retake a part of")
    if not 0 <= start < end <= length + 1e-6:
        asked = f"{start:g} to {end:g} s of a clip of {length:.4g} s were to be retaken"
        raise BadRequest(asked, f"A part begins at 0 s or later, ends by {length:.4g} s, and is not empty")
    kept = ((a, b) for a, b in ((0.0, start), (end, length)) if b - a > 1e-6)
    heard = (Clip(media=clip.digest, role="sound"),) if clip.sound else ()
    whole = Clip(media=clip.digest, keep=0.0)  # what was there before, under the hole: what follows is decoded after it
    clips = (whole, *(Clip(media=clip.digest, start=a, trim=(a, b)) for a, b in kept), *heard)
    return _asked(prompt, _of(clip, options), seconds=length, clips=clips)


def inpaint(clip: Media, mask: Media, prompt: str, **options: Unpack[Options]) -> Request:
    """What the mask leaves black is painted anew, white is kept; a mask is a picture for all frames, or a clip."""
    laid = Clip(media=clip.digest, mask=mask.digest)
    return _asked(prompt, _of(clip, options), seconds=clip.seconds or STILL, clips=(laid,))


def outpaint(
    clip: Media,
    prompt: str,
    *,
    to: str,
    place: tuple[float, float] = (0.5, 0.5),
    box: tuple[float, float, float, float] | None = None,
    **options: Unpack[Options],
) -> Request:
    """A clip or picture in another shape or size, such as 16:9: it stays whole, and what lies beside it is new.

    place: where it sits in the free space, (0, 0) at the left and top, (1, 1) at the right and bottom;
    or box: its x, y, w and h in fractions of the new frame.
    """
    if clip.width is None or clip.height is None:
        raise BadRequest("The size of the clip is not known", do="Store it first")
    if not all(math.isfinite(p) and 0 <= p <= 1 for p in place):
        raise BadRequest(f"A clip was to sit at {place[0]:g}, {place[1]:g}", "Both are between 0 and 1")
    extent = parse_size(to)
    wide = extent.ratio / (clip.width / clip.height)
    w, h = min(1.0, 1 / wide), min(1.0, wide)
    there = box or ((1 - w) * place[0], (1 - h) * place[1], w, h)
    laid = Clip(media=clip.digest, box=there, fit="stretch")
    asked = {**options, **extent._asdict()}
    return _asked(prompt, asked, seconds=clip.seconds or STILL, clips=(laid,))


def remix(clip: Media, prompt: str, *, keep: float = 0.5, **options: Unpack[Options]) -> Request:
    """A clip with other words: keep says how much of it stays, from 0 (nothing) to 1 (all)."""
    laid = Clip(media=clip.digest, keep=keep)
    return _asked(prompt, _of(clip, options), seconds=clip.seconds or STILL, clips=(laid,))


def upscale(
    clip: Media, prompt: str, *, times: Literal[2, 4] = 2, keep: float = 0.7, **options: Unpack[Options]
) -> Request:
    """A clip or picture at two or four times its size: it is kept by `keep`, and the model adds what is finer."""
    if clip.width is None or clip.height is None:
        raise BadRequest("The size of the clip is not known", do="Store it first")
    if times not in (2, 4):
        raise BadRequest(f"{_short(times)} times the size was asked", "2 and 4 are possible")
    asked = {**options, "shape": "", "width": clip.width * times, "height": clip.height * times}
    return _asked(prompt, asked, seconds=clip.seconds or STILL, clips=(Clip(media=clip.digest, keep=keep),), finer=True)


def variations(of: Request, *, count: int = 4, seed: int | None = None) -> Request:
    """The same canvas and words again, `count` times, each with a seed of its own; the first is drawn if left out."""
    fresh = draw_seed() if seed is None else seed
    return Request.model_validate({**of.model_dump(), "count": count, "seed": fresh})


def join(first: Media, second: Media, prompt: str, *, seconds: float = 1.0, **options: Unpack[Options]) -> Request:
    """Two clips with a transition of `seconds` that leads from one into the other."""
    _length(first, "join"), _length(second, "join")
    return interpolate(first, second, prompt, seconds=seconds, **options)


def _asked(prompt: str, options: Mapping[str, Any], **known: Any) -> Request:
    """A Request from the arguments of a task."""
    return Request.model_validate({"prompt": prompt, **options, **known})


def _length(clip: Media, verb: str) -> float:
    """Seconds of a clip; a picture has none."""
    if not clip.seconds:
        raise BadRequest(
            f"A picture was given to {verb}", "A clip with a length is possible", "Animate the picture first"
        )
    return clip.seconds


def _of(media: Media, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, and the shape of the media where none is asked."""
    asked = dict(options)
    if asked.get("width") is None and not asked.get("shape") and media.width and media.height:
        divisor = math.gcd(media.width, media.height)
        asked["shape"] = f"{media.width // divisor}:{media.height // divisor}"
    return asked


class Size(NamedTuple):
    """What a size in words comes to: pixels, or only a shape."""

    width: int | None = None
    height: int | None = None
    shape: str = ""

    @property
    def ratio(self) -> float:
        """Width over height."""
        return self.width / self.height if self.width and self.height else _ratio(self.shape)


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


def legible(text: str) -> bool:
    """Whether there is anything to read."""
    return any(c.isprintable() and not c.isspace() for c in text)


def strange(text: str) -> str:
    """What a text holds that no text should, in words; "": nothing."""
    found = next((c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r"), None)
    if found is None:
        return ""
    return "broken UTF-8" if unicodedata.category(found) == "Cs" else f"the control character U+{ord(found):04X}"


def _told(handler: Callable[[Any], Value], data: Any) -> Value:
    """What pydantic refuses, as one line of ours."""
    try:
        return handler(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or "The request"
        raise BadRequest(f"{_short(name)} is not usable: {first['msg']}") from error


def _check_cues(request: Request) -> None:
    """Words in their order, each with its own second."""
    times = [cue.at for cue in request.cues]
    if any(b <= a for a, b in itertools.pairwise(times)):
        raise BadRequest("Words were given out of order, or twice for one second", do="Give them by rising seconds")
    if request.seconds is not None and times and times[-1] >= request.seconds:
        asked = f"Words were to begin at {times[-1]:g} s of a video of {request.seconds:g} s"
        raise BadRequest(asked, "They begin before its end")


def _check_recipe(request: Request) -> None:
    """What an expert asks instead of the model's recipe, within bounds that hold for all models."""
    steps, guidance, guided, rescale = request.steps, request.guidance, request.guided, request.rescale
    if steps is not None and not 1 <= steps <= MOST_STEPS:
        raise BadRequest(f"{_short(steps)} steps were asked", f"Between 1 and {MOST_STEPS} are possible")
    if guidance is not None and not 0 <= guidance <= MOST_GUIDANCE:
        asked = f"A guidance of {_short(f'{guidance:g}')} was asked"
        raise BadRequest(asked, f"From 0 to {MOST_GUIDANCE:g} is possible; 1 is none")
    if guided is not None and not 0 <= guided[0] < guided[1] <= 1:
        asked = f"Guidance was asked from a noise of {_short(f'{guided[0]:g}')} to {_short(f'{guided[1]:g}')}"
        raise BadRequest(asked, "It acts from one level to a higher one, both from 0 to 1")
    if rescale is not None and not 0 <= rescale <= 1:
        raise BadRequest(f"A rescale of {_short(f'{rescale:g}')} was asked", "From 0 (none) to 1 (all) is possible")
    if not 1 <= request.step_cache <= MOST_EVERY:
        asked = f"A network call at every {_short(request.step_cache)} steps was asked"
        raise BadRequest(asked, f"From 1 to {MOST_EVERY} is possible")
    if len(request.loras) > MOST_LORAS:
        raise BadRequest(f"{len(request.loras)} LoRA files were asked", f"At most {MOST_LORAS} are possible")


def _check_text(request: Request) -> None:
    """A prompt that can be read, and a negative that may be empty."""
    cues = (("prompt", cue.prompt) for cue in request.cues)
    made = (("caption", text) for one in request.enhanced for text in (one.prompt, one.caption, one.by, one.trouble))
    for name, text in (("prompt", request.prompt), ("negative prompt", request.negative), *cues, *made):
        if len(text) > MOST_PROMPT:
            raise BadRequest(
                f"A {name} of {len(text):,} characters was given", f"At most {MOST_PROMPT:,} are possible", "Shorten it"
            )
        if kind := strange(text):
            raise BadRequest(f"The {name} holds {kind}", "Plain text is possible", "Remove it")
    if not legible(request.prompt):
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


def _check_number(name: str, value: float | None, *, above: float = 0.0, most: float, unit: str) -> None:
    """A positive, finite number of the unit, or none."""
    if value is None or (math.isfinite(value) and above < value <= most):
        return
    possible = f"More than {above:g} and at most {most:g} {unit} are possible"
    raise BadRequest(f"{name} = {_short(f'{value:g}')} was asked", possible)


def _ratio(shape: str) -> float:
    width, height = map(int, shape.split(":"))
    return width / height


def _short(value: object) -> str:
    """A value for a message, never longer than it is useful."""
    text = "".join(c if c.isprintable() else "?" for c in str(value))
    return text if len(text) <= 40 else f"{text[:32]}..."
