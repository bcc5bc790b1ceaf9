"""What the bodies of Runway's API may hold, and what it stands for: words, pixels, a film with pictures in it."""

from __future__ import annotations

import datetime
import re
from itertools import groupby
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from cinecanvas.errors import BadRequest
from cinecanvas.jobs.order import Source
from cinecanvas.media.assets import Asset
from cinecanvas.server.dialect import Fault, Refused
from cinecanvas.server.message import Fields

MODELS = (
    *("gen4.5", "gen4_turbo", "gen3a_turbo", "gen4_aleph", "aleph2", "gen4_image", "gen4_image_turbo", "act_two"),
    *("veo3", "veo3.1", "veo3.1_fast", "seedance2", "seedance2_5", "seedance2_fast", "seedance2_mini", "hailuo3"),
    *("h3_max", "wan3", "wan3_prime", "grok_imagine_1_5", "grok_imagine_1_5_lite", "happyhorse_1_0", "kling_4"),
    *("kling2.5_turbo_pro", "kling3.0_pro", "kling3.0_4k", "kling3.0_standard", "klingO3_pro", "klingO3_standard"),
    *("klingO3_4k", "gemini_omni_flash", "gemini_omni_flash_1.1", "gpt_image_2", "gpt_image_2_5_flare"),
    *("gpt_image_2_5_sunburst", "gemini_2.5_flash", "gemini_image3_pro", "gemini_image3.1_flash", "muse_image"),
    *("gemini_image3.1_flash_lite", "nano_banana_2.1", "recraft_v4_1_flash", "recraft_v4_1_vector", "seedream5_pro"),
    *("seedream5_flash", "seedream5_lite", "grok_imagine_image_2", "bria_fibo_1_5", "bria_fibo_edit_1_5"),
    *("ideogram_4_0", "ideogram_4_5", "magnific_precision_upscaler_v2", "magnific_video_upscaler_creative"),
    *("upscale_v1", "enhance_frame_rate", "ruby", "mirelo_sfx_2_0", "seed_audio", "eleven_text_to_sound_v2"),
    *("eleven_multilingual_v2", "eleven_v3", "eleven_v4", "eleven_voice_isolation", "eleven_voice_dubbing"),
    *("eleven_multilingual_sts_v2", "eleven_scribe_v2", "gwm1_avatars", "gwm1_avatar_async_audio_to_video"),
    *("gwm1_avatar_async_text_to_video", "voice_processing", "product_swap", "product_ad", "multi_shot_video"),
    *("product_ugc", "marketing_stock_image", "product_campaign_image", "ad_localization"),
)
_SHORT = {  # models of whose prompts 1000 UTF-16 units are read
    *("gen4.5", "gen4_turbo", "gen3a_turbo", "gen4_aleph", "gen4_image", "gen4_image_turbo"),
    *("veo3", "veo3.1", "veo3.1_fast"),
}
MOST_PROMPT = 1000
_SHORT_SIDES = {"480p": 480, "720p": 720, "768p": 768, "1080p": 1080, "1k": 1024, "2k": 1440, "4k": 2160}  # px
_FIRST_DAY, _LAST_DAY = datetime.date(2000, 1, 1), datetime.date(2999, 12, 31)
_RATIO = re.compile(r"(\d{1,5}):(\d{1,5})")
_QUALITY = {"very_low": "draft", "low": "draft", "medium": "standard", "high": "best", "auto": None} | {
    name: name for name in ("draft", "standard", "best")
}
_PICTURES = "give a picture as promptImage of image_to_video, at its first or last moment"
CANNOT = {  # fields that no model here can follow, and what would work
    "references": f"no model here takes references; {_PICTURES}",
    "referenceImages": f"no model here takes references; {_PICTURES}",
    "referenceVideos": "no model here takes references; give the video to video_to_video",
    "referenceAudio": "no model here hears",
    "providerSettings": "shots are made one by one; send a task for each",
    "draft": "send quality: draft",
    "draftTaskId": "send the same with the same seed, and another quality",
    "cfgScale": "the model's own recipe sets it; quality is draft, standard or best",
    "promptExpansionMode": "a prompt is taken as it is",
    "thinkingLevel": "no model here thinks",
    "grounding": "nothing is looked up",
    "backgroundColor": "say it in promptText",
    "colors": "say them in promptText",
    "maskUri": "the task inpaint of /api/v1 takes a mask",
    "edit": "video_to_video edits, a picture too",
    "preciseEdit": "video_to_video edits, a picture too",
    "proresProfile": "films leave as MP4",
    "fpsBoost": "send fps when the film is made",
}
Kind = TypeVar("Kind", bound=BaseModel)


class _Fields(Fields):
    """As ever, in the vendor's camelCase."""

    model_config = ConfigDict(alias_generator=to_camel)


class Asked(_Fields):
    """What all generations may ask; of `quality`, `fps` and `keep` the vendor knows nothing, extra_body sends them."""

    model: str
    prompt_text: str = ""
    negative_prompt: str | None = None
    ratio: str = ""
    resolution: str = ""
    duration: float | Literal["auto"] | None = Field(default=None, gt=0)
    seed: int | None = Field(default=None, ge=0, le=2**32 - 1)
    output_format: str | None = None
    audio: bool = False
    content_moderation: dict[str, Any] | None = None  # nothing is moderated here
    quality: str | None = None
    fps: float | None = None
    keep: float = Field(default=0.5, ge=0, le=1)

    @property
    def seconds(self) -> float | None:
        return None if self.duration in (None, "auto") else float(self.duration)


class Pinned(_Fields):
    """A picture at one end of the film."""

    uri: str
    position: Literal["first", "last"] | None = None


class FromImage(Asked):
    """POST /v1/image_to_video."""

    prompt_image: str | list[Pinned]


class Range(BaseModel):
    """Where an edit applies (s); the vendor leaves these two in snake_case."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start_seconds: float = Field(ge=0)
    end_seconds: float = Field(gt=0)


class Keyframe(_Fields):
    """A picture that a film is to show at a moment: in seconds, or `at` from 0 to 1 of its length."""

    uri: str
    seconds: float | None = Field(default=None, ge=0)
    at: float | None = Field(default=None, ge=0, le=1)
    range: Range | None = None


class FromVideo(Asked):
    """POST /v1/video_to_video; some models call the film videoUri, others promptVideo."""

    video_uri: str = ""
    prompt_video: str = ""
    keyframes: list[Keyframe] = Field(default=[], max_length=5)
    target_aspect_ratio: str | None = None
    mode: Literal["reference", "extend", "edit"] | None = None


class Picture(Asked):
    """POST /v1/text_to_image."""

    output_count: int = Field(default=1, ge=1, le=10)
    background: Literal["opaque", "auto"] | None = None


class Larger(_Fields):
    """POST /v1/video_upscale and /v1/image_upscale."""

    model: str
    video_uri: str = ""
    image_uri: str = ""
    resolution: Literal["720p", "1k", "2k", "4k"] | None = None
    scale_factor: int | None = None
    creativity: int = Field(default=30, ge=0, le=100)
    flavor: str | None = None
    seed: int | None = Field(default=None, ge=0, le=2**32 - 1)
    target_framerate: Any = None
    sharpen: Literal[0] | None = None
    smart_grain: Literal[0] | None = None
    ultra_detail: Literal[0] | None = None


class Slot(_Fields):
    """POST /v1/uploads."""

    filename: str = Field(min_length=1, max_length=255)
    type: Literal["ephemeral"] = "ephemeral"


class Span(_Fields):
    """POST /v1/organization/usage: days (UTC), the last of them not included."""

    start_date: datetime.date | None = Field(default=None, ge=_FIRST_DAY, le=_LAST_DAY)
    before_date: datetime.date | None = Field(default=None, ge=_FIRST_DAY, le=_LAST_DAY)


def read(sent: Any, kind: type[Kind]) -> Kind:
    """A body, once what no model here can do is refused by name."""
    for name, why in CANNOT.items():
        if sent.fields.get(name):
            raise Refused(Fault(400, "unsupported", f"{name} is not possible here: {why}.", name))
    fields = {name: value for name, value in sent.fields.items() if name not in CANNOT and value is not None}
    read: Kind = sent.model_copy(update={"fields": fields}).read(kind)
    return read


def words(body: Asked, *, still: bool = False) -> dict[str, Any]:
    """What every verb takes, from what every body has."""
    if not body.prompt_text.strip():
        raise refused("promptText", "promptText is needed here: say what to show, for every model listens to it.")
    units = len(body.prompt_text.encode("utf-16-le", "surrogatepass")) // 2
    if body.model in _SHORT and units > MOST_PROMPT:
        raise refused("promptText", f"promptText has {units} UTF-16 units; {body.model} reads up to {MOST_PROMPT}.")
    if not still and body.output_format not in (None, "mp4"):
        text = f"outputFormat {body.output_format!r:.30} is not possible here. Films leave as mp4, H.264 of 8 bits."
        raise Refused(Fault(400, "unsupported", text, "outputFormat"))
    if body.quality is not None and body.quality not in _QUALITY:
        raise refused("quality", f"quality is one of {', '.join(_QUALITY)}.")
    return {
        "prompt": body.prompt_text,
        "negative": body.negative_prompt,
        "seed": body.seed,
        "fps": body.fps,
        "quality": _QUALITY[body.quality] if body.quality else None,
        "sound": body.audio or None,
    }


def size(body: Asked, *, of: Asset | None = None, field: str = "", same: bool = False) -> dict[str, Any]:
    """The pixels or the shape of a body; of: a picture that has its own shape; same: and its size is kept."""
    ratio, resolution = body.ratio, body.resolution.lower()
    if ratio.startswith("auto_"):
        ratio, resolution = "auto", ratio.removeprefix("auto_")
    match = _RATIO.fullmatch(ratio)
    if not match and ratio not in ("", "auto", "adaptive"):
        raise refused(
            "ratio", f"ratio {ratio[:20]!r} is not possible. It is 1280:720 (pixels), 16:9 (a shape) or auto."
        )
    if match and max(int(match[1]), int(match[2])) >= 100:
        return {"width": int(match[1]), "height": int(match[2])}
    if not resolution:
        kept = {"width": of.width, "height": of.height} if same and of else {}
        return {"shape": ratio} if match else kept
    if resolution not in _SHORT_SIDES:
        raise refused("resolution", f"resolution is one of {', '.join(_SHORT_SIDES)}.")
    sides = (float(match[1]), float(match[2])) if match else (of.width, of.height) if of else (16.0, 9.0)
    if not match and field and of is None:
        raise refused("resolution", f"{field} is not here yet. Send ratio in pixels, or upload it (POST /v1/uploads).")
    return _pixels(sides, _SHORT_SIDES[resolution])


def wider(ratio: str, film: Asset | None) -> str:
    """The size of a film in another shape when all of it stays; the shape alone where the film is not here yet."""
    match = _RATIO.fullmatch(ratio)
    if not match or "0" in match.groups():
        raise refused("targetAspectRatio", f"targetAspectRatio {ratio[:20]!r} is not possible. It is such as 16:9.")
    if film is None or not film.width or not film.height:
        return ratio
    wide = int(match[1]) / int(match[2]) / (film.width / film.height)
    width, height = film.width * max(1.0, wide), film.height * max(1.0, 1 / wide)
    return f"{2 * round(width / 2)}x{2 * round(height / 2)}"


def times(body: Larger, known: Asset | None, field: str) -> int:
    """How many times its size: as asked, or the fewest that reach a resolution."""
    if body.scale_factor is not None or body.resolution is None:
        return body.scale_factor or 2
    if known is None or not known.width or not known.height:
        raise refused("resolution", f"{field} is not here yet. Upload it (POST /v1/uploads), or leave resolution out.")
    return 2 if 2 * min(known.width, known.height) >= _SHORT_SIDES[body.resolution] else 4


def guided(
    clip: Source, film: Asset, pinned: list[tuple[Keyframe, Source]], *, keep: float, fps: float
) -> tuple[dict[str, Any], ...]:
    """A film with pictures in it, as clips of a canvas: each is a frame, and what may change is kept by `keep`.

    With ranges, what lies outside of them stays as it was.
    """
    length = film.seconds or 0.0
    frames = max(1, int(length * fps + 1e-6))
    pictures = {min(frames - 1, int(_moment(one, length) * fps + 1e-6)): picture for one, picture in pinned}
    if len(pictures) < len(pinned):
        raise refused("keyframes", f"Two keyframes stand at one frame; there are {fps:g} in a second.")
    ranges = [one.range for one, _ in pinned if one.range is not None]
    if ranges and len(ranges) < len(pinned):
        raise refused("keyframes", "Either all keyframes have a range or none has.")

    def kept(frame: int) -> float | None:
        """How much of a frame stays; None: a picture stands in its place."""
        free = not ranges or any(one.start_seconds <= frame / fps < one.end_seconds for one in ranges)
        return None if frame in pictures else keep if free else 1.0

    clips: list[dict[str, Any]] = [{"media": clip, "keep": 0.0}] if ranges else []  # under the holes, as for a retake
    clips += [{"media": picture, "start": frame / fps} for frame, picture in pictures.items()]
    clips += [{"media": clip, "role": "sound"}] if film.sound else []
    for much, part in groupby(range(frames), key=kept):
        first, *_, last = (*(run := list(part)), run[-1])
        if much is not None:
            end = length if last == frames - 1 else (last + 1) / fps
            clips.append({"media": clip, "start": first / fps, "trim": (first / fps, end), "keep": much})
    return tuple(clips)


def refused(field: str, text: str) -> Refused:
    return Refused(Fault(400, "invalid_request", text, field))


def _pixels(sides: Any, short: float) -> dict[str, Any]:
    """Even pixels of a shape whose short side is given."""
    if not all(sides):
        raise BadRequest("A shape without width or height was asked")
    width, height = (2 * round(short * side / min(sides) / 2) for side in sides)
    return {"width": width, "height": height}


def _moment(one: Keyframe, length: float) -> float:
    """The second of a keyframe, within its film and its range."""
    if (one.seconds is None) == (one.at is None):
        raise refused("keyframes", "A keyframe stands at seconds, or at a part of the length from 0 to 1.")
    second = one.seconds if one.seconds is not None else (one.at or 0.0) * length
    if second > length:
        raise refused("keyframes", f"A keyframe stands at {second:g} s of a video of {length:.4g} s.")
    if one.range and not one.range.start_seconds <= second < one.range.end_seconds:
        raise refused("keyframes", "A keyframe stands within its range.")
    return second
