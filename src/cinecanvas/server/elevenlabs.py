"""ElevenLabs' API, as far as it shows: videos and pictures ("flows") and the assets they begin with."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from cinecanvas.errors import BadMedia, BadRequest
from cinecanvas.jobs.files import NoFile, StoredFile
from cinecanvas.jobs.job import Job, State
from cinecanvas.jobs.keys import Caller
from cinecanvas.jobs.order import Source
from cinecanvas.jobs.queue import NoJob
from cinecanvas.models import card
from cinecanvas.server.deliver import sent_twice
from cinecanvas.server.desk import Desk
from cinecanvas.server.dialect import Dialect, Fault, Refused
from cinecanvas.server.message import At, Base, Creator, Fields, Message, Reader, Sent, Upload

NAME = "elevenlabs"
VIDEO_MODELS = (
    *("veo-3.1-generate-001", "veo-3.1-fast-generate-001", "bytedance-seedance-v2", "bytedance-seedance-v2-fast"),
    *("bytedance-seedance-v2-mini", "bytedance-seedance-v2.5"),
)
IMAGE_MODELS = (
    *("bytedance-seedream-5-lite", "bytedance-seedream-5-pro", "gemini-2.5-flash-image", "gemini-3-pro-image"),
    *("gemini-3.1-flash-image", "gemini-3.1-flash-lite-image", "gpt-image-1", "gpt-image-1.5", "gpt-image-2"),
    *("gpt-image-2.5-flare", "gpt-image-2.5-sunburst"),
)
MOST_INLINE = 25 << 20  # bytes
MOST_CREDITS = 2**31 - 1  # where nobody counts them
_SHORT_SIDES = {"480p": 480, "720p": 720, "1080p": 1080, "1k": 1024, "2k": 1440, "4k": 2160}  # px
_RATIO = re.compile(r"([1-9]\d{0,2}):([1-9]\d{0,2})")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_QUALITY = {"low": "draft", "medium": "standard", "high": "best", "auto": None}
_STATES: dict[str, tuple[State, ...]] = {
    "pending": ("queued",),
    "generating": ("running",),
    "completed": ("succeeded",),
    "failed": ("failed", "cancelled"),
}
_REASONS = {
    **dict.fromkeys(("bad_request", "unsupported", "bad_media"), "invalid_parameters"),
    "deadline": "timeout",
    "worker_lost": "model_error",
    "bad_weights": "model_error",
    "storage": "dependency_failed",
}
_ONE_FRAME = "no model here takes references; give a picture as start_frame or end_frame"
_CANNOT = {  # fields that no model here can follow, and what would work
    "images": _ONE_FRAME,
    "videos": "no model here takes references; video_to_video of Runway's API and remix of /api/v1 take a film",
    "audios": "no model here hears",
    "mask": "the task inpaint of /api/v1 takes a mask",
    "webhook": "ask for the generation until it has ended, as often as retry-after says",
}
_SOUND = (
    *("sound-generation", "music", "text-to-speech", "text-to-dialogue", "text-to-voice", "speech-to-speech"),
    *("speech-to-text", "audio-isolation", "dubbing", "voices", "flows/text-to-speech", "forced-alignment"),
)
_SERVED = "Served here are flows/video, flows/image, assets, models and user."

router = APIRouter()
Kind = TypeVar("Kind", bound=BaseModel)
One = TypeVar("One", Job, StoredFile)


class Reference(Fields):
    """A picture: an asset, what was generated here, or the bytes themselves."""

    type: Literal["asset", "generation", "inline_base64"]
    asset_id: str = ""
    generation_id: str = ""
    content_base64: str = Field(default="", repr=False)
    mime_type: str = ""


class Flow(Fields):
    """POST /v1/flows/image, and what it shares with videos; `quality` of ours, draft to best, is taken too."""

    model_id: str
    prompt: str
    negative_prompt: str | None = None
    seed: int | None = Field(default=None, ge=0)
    aspect_ratio: str = "auto"
    resolution: str = ""
    quality: Literal["low", "medium", "high", "auto", "draft", "standard", "best"] | None = None
    background: Literal["opaque", "auto"] | None = None


class Video(Flow):
    """POST /v1/flows/video."""

    duration_secs: float | None = Field(default=None, gt=0)
    generate_audio: bool = False
    enhance_prompt: bool = False
    start_frame: Reference | None = None
    end_frame: Reference | None = None


class Bring(Fields):
    """POST /v1/assets; a client that sends it again forgets the name."""

    asset: Upload
    name: str = Field(default="", max_length=255)


# Flows


@router.post("/v1/flows/video")
def create_video(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    if sent.fields.get("model_id") == "creatify-aurora":
        text = "No model here moves lips to a voice. start_frame of another model moves a picture by words."
        raise Refused(Fault(400, "unsupported", text, "model_id"))
    body = _read(sent, Video)
    frames = {"first": body.start_frame, "second": body.end_frame}
    sources = {name: _picture(desk, caller, one) for name, one in frames.items() if one is not None}
    shape = _shape_of(desk, caller, next(iter(sources.values()))) if sources else (16, 9)
    asked = _words(body) | _size(body, shape, own=bool(sources))
    asked |= {
        "seconds": body.duration_secs,
        "sound": body.generate_audio or None,
        "enhance": body.enhance_prompt or None,
    }
    if len(sources) == 2:
        return _accepted(desk, caller, sent, request, "interpolate", body, asked | sources)
    for name, source in sources.items():
        more = {"picture": source, "last": name == "second"}
        return _accepted(desk, caller, sent, request, "animate", body, asked | more)
    return _accepted(desk, caller, sent, request, "text_to_video", body, asked)


@router.post("/v1/flows/image")
def create_image(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    body = _read(sent, Flow)
    asked = _words(body) | _size(body, (1, 1), own=False)
    return _accepted(desk, caller, sent, request, "text_to_image", body, asked)


@router.get("/v1/flows/video/{name}")
def get_video(desk: At, caller: Reader, base: Base, name: str) -> Any:
    return _seen(desk, _job(desk, caller, name, "video"), base)


@router.get("/v1/flows/image/{name}")
def get_image(desk: At, caller: Reader, base: Base, name: str) -> Any:
    return _seen(desk, _job(desk, caller, name, "image"), base)


@router.get("/v1/flows/video")
@router.get("/v1/flows/image")
def listed(
    desk: At,
    caller: Reader,
    base: Base,
    request: Request,
    cursor: str | None = None,
    page_size: int = Query(default=30, ge=1, le=100),
    status: Literal["pending", "generating", "completed", "failed"] | None = None,
    model_id: str | None = None,
) -> Any:
    kind = request.url.path.rpartition("/")[2]

    def more(after: str | None) -> list[Job]:
        states = _STATES[status] if status else ()
        return desk.queue.listed(
            account=caller.account, dialect=NAME, kind=kind, states=states, after=after, limit=page_size
        )

    found = _page(more, cursor, page_size, lambda job: model_id in (None, job.echo.get("model")))
    return _listed("generations", [generation(job, _url(desk, job, base)) for job in found[:page_size]], found)


# Assets


@router.post("/v1/assets")
def bring(desk: At, caller: Creator, sent: Sent) -> Any:
    body = sent.read(Bring)
    name = body.name or body.asset.filename or "asset"
    return _asset(desk.brought(caller, body.asset.file, dialect=NAME, name=name, purpose="asset", days=None))


@router.get("/v1/assets")
def assets(
    desk: At,
    caller: Reader,
    cursor: str | None = None,
    page_size: int = Query(default=30, ge=1, le=100),
    search: str = "",
) -> Any:
    def more(after: str | None) -> list[StoredFile]:
        return desk.files.listed(account=caller.account, dialect=NAME, purpose="asset", after=after, limit=page_size)

    found = _page(more, cursor, page_size, lambda file: search.lower() in file.name.lower())
    return _listed("assets", [_asset(file) for file in found[:page_size]], found)


@router.get("/v1/assets/{name}")
def asset(desk: At, caller: Reader, name: str) -> Any:
    return _asset(_file(desk, caller, name))


@router.delete("/v1/assets/{name}")
def delete_asset(desk: At, caller: Creator, name: str) -> Any:
    desk.files.delete(_file(desk, caller, name).id, account=caller.account)
    return {"status": "ok"}


# Who asks, and what is here


@router.get("/v1/models")
def models(desk: At, caller: Reader) -> Any:
    """An array, as this API has it; none of them speaks."""
    return [_model(name) for name in desk.models]


@router.get("/v1/user/subscription")
def subscription(desk: At, caller: Reader) -> Any:
    """Credits stand where this API counts characters; where nobody counts them, all that the number holds are left."""
    ledger = desk.ledger
    used = sum(row.credits for row in ledger.spent(account=caller.account))
    left = ledger.balance(caller)
    nothing = dict.fromkeys(
        (
            *("voice_slots_used", "professional_voice_slots_used", "professional_voice_slots_used_in_workspace"),
            *("voice_limit", "voice_add_edit_counter", "professional_voice_limit", "max_credit_limit_extension"),
        ),
        0,
    )
    never = dict.fromkeys(
        (
            *("can_extend_character_limit", "allowed_to_extend_character_limit", "can_extend_voice_limit"),
            *("can_use_instant_voice_cloning", "can_use_professional_voice_cloning", "has_open_invoices"),
        ),
        False,
    )
    return {
        "tier": "self-hosted",
        "status": "active",
        "character_count": used,
        "character_limit": MOST_CREDITS if left is None else used + left,
        "current_overage": {"amount": "0", "currency": "usd"},
        "open_invoices": [],
        **nothing,
        **never,
    }


@router.get("/v1/user")
def user(desk: At, caller: Reader) -> Any:
    name = caller.account or caller.name
    return {
        "user_id": name,
        "workspace_id": name,
        "first_name": caller.name,
        "subscription": subscription(desk, caller),
        "is_new_user": False,
        "can_use_delayed_payment_methods": False,
        "is_onboarding_completed": True,
        "is_onboarding_checklist_completed": True,
        "created_at": 0,
        "seat_type": "workspace_admin" if caller.may("admin") else "workspace_member",
    }


@router.api_route("/v1/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def other(caller: Reader, path: str) -> Any:
    """Whatever else the vendor has. 400, not 501: the clients would send that again."""
    if any(path == name or path.startswith(f"{name}/") for name in _SOUND):
        text = f"{path[:40]}: not available with this model, for no model that makes or hears sound is served here."
        raise Refused(Fault(400, "model_not_available", f"{text} {_SERVED}"))
    raise Refused(Fault(404, "not_found", f"/v1/{path[:60]} is not served here. {_SERVED}"))


# What a job is in this dialect


def generation(job: Job, url: str) -> dict[str, Any]:
    """A job in one of the four states; url: where what it made is, once it is there."""
    match job.state:
        case "queued":
            return {"id": job.id, "status": "pending"}
        case "running":
            return {"id": job.id, "status": "generating"}
        case "succeeded" if job.outcome:
            media_type = job.outcome.assets[0].media_type
            return {"id": job.id, "status": "completed", "content_url": url, "content_mime_type": media_type}
    code = job.error.code if job.error else ""
    text = "What it made has expired." if job.state == "succeeded" else "It was cancelled."
    return {
        "id": job.id,
        "status": "failed",
        "failure_reason": _REASONS.get(code, "internal_error"),
        "error_message": job.error.message if job.error else text,
    }


def envelope(fault: Fault) -> dict[str, Any]:
    about = {"param": fault.param} if fault.param else {}
    return {"detail": {"status": fault.code, "message": fault.message, **about}}


def _accepted(
    desk: Desk, caller: Caller, sent: Message, request: Request, verb: str, body: Flow, asked: dict[str, Any]
) -> Any:
    """A job for what was asked; its first word is always that it waits."""
    job = sent_twice(desk, caller, sent, request)
    if job is None:
        model = desk.served(body.model_id, foreign=(*VIDEO_MODELS, *IMAGE_MODELS))
        order = desk.order(verb, model=model, **asked)
        kind: Literal["video", "image"] = "image" if verb == "text_to_image" else "video"
        job = desk.accept(caller, order, dialect=NAME, kind=kind, echo={"model": body.model_id}, body=sent.digest)
    return JSONResponse({"id": job.id, "status": "pending"}, headers=_pace(job))


def _seen(desk: Desk, job: Job, base: str) -> Any:
    return JSONResponse(generation(job, _url(desk, job, base)), headers={} if job.ended else _pace(job))


def _pace(job: Job) -> dict[str, str]:
    """The whole seconds after which it is worth asking again: a fifth of what is left, 1 to 10."""
    left = job.eta if job.eta is not None else job.foretold.seconds
    return {"retry-after": str(max(1, min(10, math.ceil(left / 5))))}


def _url(desk: Desk, job: Job, base: str) -> str:
    return desk.url(job, base) if job.state == "succeeded" else ""


# What a body stands for


def _read(sent: Message, kind: type[Kind]) -> Kind:
    """A body, once what no model here can do is refused by name."""
    for name, why in _CANNOT.items():
        if sent.fields.get(name):
            raise Refused(Fault(400, "unsupported", f"{name} is not possible here: {why}.", name))
    fields = {name: value for name, value in sent.fields.items() if name not in _CANNOT and value is not None}
    return sent.model_copy(update={"fields": fields}).read(kind)


def _words(body: Flow) -> dict[str, Any]:
    quality = _QUALITY.get(body.quality, body.quality) if body.quality else None
    return {"prompt": body.prompt, "negative": body.negative_prompt, "seed": body.seed, "quality": quality}


def _size(body: Flow, shape: tuple[int, int], *, own: bool) -> dict[str, Any]:
    """Pixels or a shape; shape: the one that holds where none is asked, `own` if it is that of a picture."""
    match = _RATIO.fullmatch(body.aspect_ratio)
    if not match and body.aspect_ratio not in ("", "auto"):
        raise BadRequest(f"The aspect_ratio {body.aspect_ratio[:20]!r} was asked", "It is such as 16:9, or auto")
    if match:
        shape = (int(match[1]), int(match[2]))
    if not body.resolution:
        return {"shape": f"{shape[0]}:{shape[1]}"} if match or not own else {}
    short = _SHORT_SIDES.get(body.resolution.lower())
    if short is None:
        possible = f"Possible are {', '.join(_SHORT_SIDES)}"
        raise BadRequest(f"The resolution {body.resolution[:20]!r} was asked", possible)
    width, height = (2 * round(short * side / min(shape) / 2) for side in shape)
    return {"width": width, "height": height}


def _picture(desk: Desk, caller: Caller, reference: Reference) -> Source:
    """Where a frame is to be found."""
    if reference.type == "asset":
        return Source(file=_file(desk, caller, reference.asset_id).id)
    if reference.type == "generation":
        return Source(job=_job(desk, caller, reference.generation_id, "image").id)
    if len(reference.content_base64) > MOST_INLINE * 4 // 3 + 4:
        raise BadMedia("A picture was sent inline", f"At most {MOST_INLINE >> 20} MB are possible", "Upload it")
    try:
        data = base64.b64decode(reference.content_base64, validate=True)
    except binascii.Error:
        raise BadMedia("content_base64 does not hold base64") from None
    return Source(file=desk.brought(caller, data, dialect=NAME).id)


def _shape_of(desk: Desk, caller: Caller, source: Source) -> tuple[int, int]:
    known = desk.asset_of(caller, source)
    return (known.width or 16, known.height or 9)


def _job(desk: Desk, caller: Caller, name: str, kind: str) -> Job:
    job = desk.queue.get(name, account=caller.account) if _ID.fullmatch(name) else None
    if job is None or (job.dialect, job.kind) != (NAME, kind):
        raise NoJob(f"There is no such {kind} generation", do="Check its id")
    return job


def _file(desk: Desk, caller: Caller, name: str) -> StoredFile:
    file = desk.files.get(name, account=caller.account) if _ID.fullmatch(name) else None
    if file is None or (file.dialect, file.purpose) != (NAME, "asset"):
        raise NoFile("There is no such asset", do="Check its id, or upload it again")
    return file


def _page(
    more: Callable[[str | None], list[One]], cursor: str | None, size: int, wanted: Callable[[One], bool]
) -> list[One]:
    """One more than a page of what is wanted, so that it is known whether there is more."""

    def all_after(after: str | None) -> Iterator[One]:
        while batch := more(after):
            yield from batch
            after = batch[-1].id

    return list(islice((one for one in all_after(cursor or None) if wanted(one)), size + 1))


def _listed(name: str, shown: list[dict[str, Any]], found: list[Any]) -> dict[str, Any]:
    more = len(found) > len(shown)
    return {name: shown, "next_cursor": found[len(shown) - 1].id if more else None, "has_more": more}


def _asset(file: StoredFile) -> dict[str, Any]:
    return {
        "asset_id": file.id,
        "name": file.name,
        "mime_type": file.media_type,
        "created_at_unix": int(file.created),
        "content_url": None,
    }


def _model(name: str) -> dict[str, Any]:
    cannot = ("can_be_finetuned", "can_do_text_to_speech", "can_do_voice_conversion", "can_use_style")
    return {
        "model_id": name,
        "name": card(name).title,
        "description": card(name).limits,
        "languages": [],
        **dict.fromkeys((*cannot, "can_use_speaker_boost", "serves_pro_voices", "requires_alpha_access"), False),
    }


DIALECT = Dialect(NAME, ("/elevenlabs", "/eleven"), router, envelope)
