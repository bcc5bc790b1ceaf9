"""OpenAI's Videos API, and the images, files and models beside it, as the official clients speak it."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BeforeValidator, Field

from cinecanvas.errors import BadMedia, BadRequest, Unsupported
from cinecanvas.jobs.files import StoredFile
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.keys import Caller
from cinecanvas.jobs.order import Source
from cinecanvas.jobs.queue import NoJob
from cinecanvas.request import parse_size
from cinecanvas.server import openai_webhooks
from cinecanvas.server.deliver import made, sent_twice, stored, waited
from cinecanvas.server.desk import Desk, named
from cinecanvas.server.dialect import Dialect, Fault, Link, Refused
from cinecanvas.server.message import At, Creator, Fields, Reader, Sent, Upload
from cinecanvas.server.openai_terms import NAME, inner, outer, page

_PICTURES = "openai-images"  # of these nobody is told, and nobody asks: their asker waits
MODELS = (
    *("sora-2", "sora-2-pro", "sora-2-2025-10-06", "sora-2-pro-2025-10-06", "sora-2-2025-12-08"),
    *("gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5", "gpt-image-2", "gpt-image-2.5-sunburst"),
    *("gpt-image-2.5-flare", "gpt-image-2.6-sunburst", "gpt-image-2.6-flare", "chatgpt-image-latest"),
    *("dall-e-2", "dall-e-3"),
)
_STATES = {"queued": "queued", "running": "in_progress", "succeeded": "completed"}
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error"}
_QUALITY = {"low": "draft", "standard": "standard", "medium": "standard", "high": "best", "hd": "best", "auto": None}

_KINDS = {"video": "video", "file": "file", "char": "character"}  # by the first word of their ids

router = APIRouter()


class Reference(Fields):
    """A picture by its URL, a data URL, or a file that was uploaded."""

    image_url: str | None = None
    file_id: str | None = None


class Which(Fields):
    """A video that was made here."""

    id: str


class Create(Fields):
    """POST /videos."""

    prompt: str = Field(min_length=1, max_length=32000)
    model: str = "sora-2"
    seconds: float = Field(default=4.0, gt=0)
    size: str = "720x1280"
    input_reference: Upload | Reference | None = None
    characters: Any = None  # known, so that their refusal says why
    # ours, by extra_body: what the vendor's API has no field for
    seed: int | None = None
    fps: float | None = None
    negative_prompt: str | None = None
    sound: bool = False
    quality: Literal["draft", "standard", "best"] | None = None


class Edit(Fields):
    """POST /videos/edits, and /videos/{id}/remix where the video is in the path."""

    prompt: str = Field(min_length=1, max_length=32000)
    video: Upload | Which | None = None
    model: str = "sora-2"
    seed: int | None = None
    keep: float = Field(default=0.5, ge=0, le=1)


class Extend(Fields):
    """POST /videos/extensions: `seconds` more."""

    prompt: str = Field(min_length=1, max_length=32000)
    video: Upload | Which
    seconds: float = Field(default=4.0, gt=0)
    model: str = "sora-2"
    seed: int | None = None


class Character(Fields):
    """POST /videos/characters."""

    name: str = Field(min_length=1, max_length=80)
    video: Upload


@router.post("/videos")
def create(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    body = sent.read(Create)
    if body.characters:
        raise Unsupported("Characters were given", "No model here can show one again", "Describe them in the prompt")
    asked = {"prompt": body.prompt, "seconds": body.seconds, "seed": body.seed, "fps": body.fps}
    asked |= {"negative": body.negative_prompt, "quality": body.quality, **parse_size(body.size)._asdict()}
    asked["sound"] = body.sound or None
    task = "text_to_video"
    if body.input_reference is not None:
        task, asked["picture"] = "animate", _picture(desk, caller, body.input_reference)
    return _accepted(desk, caller, sent, request, task, body.model, asked, size=body.size)


@router.post("/videos/edits")
def edit(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    body = sent.read(Edit)
    if body.video is None:
        raise Refused(Fault(400, "missing_required_parameter", "A video is needed.", "video"))
    asked = {"clip": _film(desk, caller, body.video), "prompt": body.prompt, "keep": body.keep, "seed": body.seed}
    return _accepted(desk, caller, sent, request, "remix", body.model, asked)


@router.post("/videos/extensions")
def extend(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    body = sent.read(Extend)
    asked = {"clip": _film(desk, caller, body.video), "prompt": body.prompt, "seconds": body.seconds, "seed": body.seed}
    return _accepted(desk, caller, sent, request, "extend", body.model, asked)


@router.post("/videos/{video}/remix")
def remix(desk: At, caller: Creator, sent: Sent, request: Request, video: str) -> Any:
    body = sent.read(Edit)
    before = _job(desk, caller, video)
    asked = {"clip": Source(job=before.id), "prompt": body.prompt, "keep": body.keep, "seed": body.seed}
    told = {"remixed_from_video_id": video}
    return _accepted(desk, caller, sent, request, "remix", before.echo.get("model", body.model), asked, **told)


@router.post("/videos/characters")
def create_character(desk: At, caller: Creator, sent: Sent) -> Any:
    body = sent.read(Character)
    made = desk.brought(caller, body.video.file, dialect=NAME, name=body.name, purpose="character", days=None)
    return _character(_moving(desk, made))


@router.get("/videos/characters/{character}")
def get_character(desk: At, caller: Reader, character: str) -> Any:
    return _character(_stored_file(desk, caller, character, kind="char"))


@router.get("/videos")
def listed(
    desk: At,
    caller: Reader,
    after: str | None = None,
    limit: int = Query(default=20, ge=0, le=100),
    order: Literal["asc", "desc"] = "desc",
) -> Any:
    found = desk.queue.listed(
        account=caller.account,
        dialect=NAME,
        kind="video",
        limit=limit + 1,
        after=_bare(after, "video") if after else None,
        newest_first=order == "desc",
    )
    return page([video(job) for job in found[:limit]], more=len(found) > limit)


@router.get("/videos/{name}")
def retrieve(desk: At, caller: Reader, name: str) -> Any:
    job = _job(desk, caller, name)
    return JSONResponse(video(job), headers={"openai-poll-after-ms": str(_poll_after(job))})


@router.delete("/videos/{name}")
def delete(desk: At, caller: Creator, name: str) -> Any:
    desk.queue.hide(_job(desk, caller, name).id, account=caller.account)
    return {"id": name, "object": "video.deleted", "deleted": True}


@router.get("/videos/{name}/content")
def content(
    desk: At,
    caller: Reader,
    request: Request,
    name: str,
    variant: Literal["video", "thumbnail", "spritesheet"] = "video",
) -> Response:
    job = _job(desk, caller, name)
    if not job.ended:
        raise Refused(Fault(404, "video_not_ready", f"The video is {_state(job)}; its content comes with completed."))
    return made(desk, job, named(variant), 0, request)


# The neighbours


@router.get("/models")
def models(desk: At, caller: Reader) -> Any:
    return {"object": "list", "data": [_model(name) for name in (*desk.models, *MODELS)]}


@router.get("/models/{name}")
def model(desk: At, caller: Reader, name: str) -> Any:
    if name not in (*desk.models, *MODELS):
        raise Refused(Fault(404, "model_not_found", f"There is no model {name[:60]!r} here.", "model"))
    return _model(name)


class Generate(Fields):
    """POST /images/generations; of what the vendor's models alone can do, the harmless values pass."""

    prompt: str = Field(min_length=1, max_length=32000)
    model: str | None = None
    n: int | None = Field(default=1, ge=1, le=10)
    size: str | None = "auto"
    quality: str | None = "auto"
    output_format: Literal["png", "webp", "jpeg"] | None = "png"
    output_compression: int | None = None
    response_format: Literal["b64_json"] | None = None
    background: Literal["opaque", "auto"] | None = None
    moderation: Literal["low", "auto"] | None = None
    stream: Annotated[Literal[False] | None, BeforeValidator(lambda said: False if said == "false" else said)] = None
    user: str | None = None
    safety_identifier: str | None = None
    seed: int | None = None


class EditImage(Generate):
    """POST /images/edits: a picture, maybe a mask whose clear parts are painted anew."""

    image: Upload | list[Upload]
    mask: Upload | None = None
    input_fidelity: str | None = None


@router.post("/images/generations")
async def generate_images(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    body = sent.read(Generate)
    return await _pictures(desk, caller, sent, request, "text_to_image", body, {})


@router.post("/images/edits")
async def edit_images(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    body = sent.read(EditImage)
    pictures = body.image if isinstance(body.image, list) else [body.image]
    if len(pictures) > 1:
        raise Unsupported("Several pictures were given to one edit", "The models here take one", "Send one image")
    return await _pictures(desk, caller, sent, request, "edit", body, {"picture": pictures[0], "mask": body.mask})


class Expiry(Fields):
    """When a file goes: so many seconds after it came."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2592000)


class NewFile(Fields):
    """POST /files."""

    file: Upload
    purpose: Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]
    expires_after: Expiry | None = None


@router.post("/files")
def upload(desk: At, caller: Creator, sent: Sent) -> Any:
    body = sent.read(NewFile)
    days = body.expires_after.seconds / 86400 if body.expires_after else 30.0
    name = body.file.filename or "upload"
    return _file(desk.brought(caller, body.file.file, dialect=NAME, name=name, purpose=body.purpose, days=days))


@router.get("/files")
def files(
    desk: At,
    caller: Reader,
    after: str | None = None,
    limit: int = Query(default=100, ge=0, le=10000),
    order: Literal["asc", "desc"] = "desc",
    purpose: str | None = None,
) -> Any:
    found = desk.files.listed(
        account=caller.account,
        dialect=NAME,
        purpose=purpose,
        besides=("character", "media"),
        after=_bare(after, "file") if after else None,
        limit=limit + 1,
        newest_first=order == "desc",
    )
    return page([_file(file) for file in found[:limit]], more=len(found) > limit)


@router.get("/files/{name}")
def file(desk: At, caller: Reader, name: str) -> Any:
    return _file(_stored_file(desk, caller, name))


@router.delete("/files/{name}")
def delete_file(desk: At, caller: Creator, name: str) -> Any:
    desk.files.delete(_stored_file(desk, caller, name).id, account=caller.account)
    return {"id": name, "object": "file", "deleted": True}


@router.get("/files/{name}/content")
def file_content(desk: At, caller: Reader, request: Request, name: str) -> Response:
    found = _stored_file(desk, caller, name)
    assert found.asset is not None, "files of this dialect come with their bytes"
    return stored(desk, (found.asset.digest, found.asset.media_type, found.asset.bytes), request)


router.include_router(openai_webhooks.router)

# What a job is in this dialect


def video(job: Job) -> dict[str, Any]:
    """The Video object of a job."""
    failed = job.state in ("failed", "cancelled")
    code = job.error.code if job.error else job.state
    text = job.error.message if job.error else "The video was cancelled."
    return {
        "id": outer("video", job.id),
        "object": "video",
        "created_at": int(job.created),
        "completed_at": int(job.finished) if job.finished and job.state == "succeeded" else None,
        "expires_at": int(job.expires) if job.expires and not job.kept and job.state == "succeeded" else None,
        "status": _state(job),
        "progress": int(100 * job.progress),
        "model": job.echo["model"],
        "prompt": job.asked.get("prompt"),
        "seconds": f"{job.foretold.video_seconds:.6g}" if job.foretold.frames else job.echo.get("seconds", "0"),
        "size": f"{job.foretold.width}x{job.foretold.height}" if job.foretold.width else job.echo.get("size", ""),
        "remixed_from_video_id": job.echo.get("remixed_from_video_id"),
        "error": {"code": code, "message": text} if failed else None,
    }


def event(job: Job, link: Link) -> dict[str, Any]:
    """What a webhook is told of a job that has ended."""
    kind = "video.completed" if job.state == "succeeded" else "video.failed"
    return {
        "id": f"evt_{job.id.replace('-', '')}",
        "object": "event",
        "created_at": int(job.finished or job.created),
        "type": kind,
        "data": {"id": outer("video", job.id)},
    }


def envelope(fault: Fault) -> dict[str, Any]:
    kind = _TYPES.get(fault.status, "server_error" if fault.status >= 500 else "invalid_request_error")
    kind = "rate_limit_error" if fault.status == 429 else kind
    return {"error": {"message": fault.message, "type": kind, "param": fault.param or None, "code": fault.code}}


def _state(job: Job) -> str:
    return _STATES.get(job.state, "failed")


def _poll_after(job: Job) -> int:
    """Milliseconds after which it is worth asking again; the client keeps the first answer for good."""
    left = job.eta if job.eta is not None else job.foretold.seconds
    return max(250, min(5000, int(1000 * left / 5)))


def _accepted(
    desk: Desk, caller: Caller, sent: Any, request: Request, task: str, model: str, asked: dict[str, Any], **told: Any
) -> Any:
    """A job for what was asked, and its Video."""
    again = sent_twice(desk, caller, sent, request)
    if again is not None:
        return video(again)
    if "clip" in asked:  # this API keeps the size of a video, whatever is done with it
        asset = desk.asset_of(caller, asked["clip"])
        asked |= {"width": asset.width, "height": asset.height}
    order = desk.order(task, model=desk.served(model, foreign=MODELS), **asked)
    echo = {"model": model, "seconds": f"{asked.get('seconds') or 0:.6g}", **told}
    return video(desk.accept(caller, order, dialect=NAME, echo=echo, body=sent.digest))


async def _pictures(
    desk: Desk, caller: Caller, sent: Any, request: Request, task: str, body: Generate, given: dict[str, Any]
) -> Any:
    """Pictures, waited for: this API has no jobs for them."""
    suffix = {"jpeg": "jpg"}.get(body.output_format or "png", body.output_format or "png")

    def accept() -> Job:
        if (again := sent_twice(desk, caller, sent, request)) is not None:
            return again
        asked: dict[str, Any] = {"prompt": body.prompt, "count": body.n or 1, "seed": body.seed}
        asked["quality"] = _quality(body.quality)
        if body.size not in (None, "auto"):
            asked |= parse_size(body.size or "")._asdict()
        verb = task
        if task == "edit":
            verb = "inpaint" if given["mask"] is not None else "remix"
            brought = _still(desk.brought(caller, given["picture"].file, dialect=NAME))
            asked["clip"] = Source(file=brought.id)
            if brought.asset is not None and "width" not in asked:
                asked |= {"width": brought.asset.width, "height": brought.asset.height}
            if given["mask"] is not None:
                clear = desk.looked_at(given["mask"].file, name=given["mask"].filename or "")
                mask = desk.brought(caller, desk.warden.mask(clear.digest), dialect=NAME)
                asked["mask"] = Source(file=mask.id)
        order = desk.order(verb, model=desk.served(body.model or "", foreign=MODELS), **asked)
        echo = {"model": body.model or desk.models[0]}
        return desk.accept(caller, order, dialect=_PICTURES, kind="image", suffix=suffix, echo=echo, body=sent.digest)

    job = await waited(desk, caller, request, accept)
    if job.outcome is None:
        text = job.error.message if job.error else "The picture was cancelled."
        status = 400 if job.error and not job.error.passing else 500
        raise Refused(Fault(status, job.error.code if job.error else "cancelled", text))
    data = []
    for asset in job.outcome.assets:
        with desk.store.open(asset.digest) as stream:
            data.append({"b64_json": base64.b64encode(stream.read()).decode()})
    size = f"{job.outcome.assets[0].width}x{job.outcome.assets[0].height}"
    usage = {"total_tokens": 0, "input_tokens": 0, "output_tokens": 0}
    usage["input_tokens_details"] = {"text_tokens": 0, "image_tokens": 0}  # type: ignore[assignment]
    return {
        "created": int(job.created),
        "data": data,
        "background": "opaque",
        "output_format": body.output_format or "png",
        "quality": body.quality or "auto",
        "size": size,
        "usage": usage,
    }


def _quality(name: str | None) -> str | None:
    if name is None:
        return None
    if name not in _QUALITY:
        raise BadRequest(f"The quality {name[:20]!r} was asked", f"Possible are {', '.join(_QUALITY)}")
    return _QUALITY[name]


def _picture(desk: Desk, caller: Caller, reference: Upload | Reference) -> Source:
    """What an input_reference stands for."""
    if isinstance(reference, Upload):
        file = desk.brought(caller, reference.file, dialect=NAME, name=reference.filename or "")
        return Source(file=_still(file).id)
    if (reference.image_url is None) == (reference.file_id is None):
        raise BadRequest("An input_reference holds image_url or file_id", "Exactly one of the two is possible")
    if reference.file_id is not None:
        return Source(file=_still(_stored_file(desk, caller, reference.file_id)).id)
    return desk.source(caller, reference.image_url or "", dialect=NAME)


def _film(desk: Desk, caller: Caller, which: Upload | Which) -> Source:
    if isinstance(which, Upload):
        return Source(file=_moving(desk, desk.brought(caller, which.file, dialect=NAME, name=which.filename or "")).id)
    return Source(job=_job(desk, caller, which.id).id)


def _moving(desk: Desk, file: StoredFile) -> StoredFile:
    """The file, if it is a film; a picture is forgotten."""
    if file.asset is None or file.asset.seconds is None:
        desk.files.delete(file.id)
        raise BadMedia("A picture was given as a video", do="Pictures move as input_reference of a new video")
    return file


def _still(file: StoredFile) -> StoredFile:
    """The file, if it is a picture."""
    if file.asset is not None and file.asset.seconds is not None:
        raise BadMedia("A film was given as a picture", do="Films go into edits and extensions of videos")
    return file


def _job(desk: Desk, caller: Caller, name: str) -> Job:
    with suppress(NoJob):
        job = desk.queue.get(_bare(name, "video"), account=caller.account)
        if job.dialect == NAME:
            return job
    raise NoJob("There is no such video", do="Check its id")


def _stored_file(desk: Desk, caller: Caller, name: str, *, kind: str = "file") -> StoredFile:
    """A file that was brought through this dialect, or a character."""
    found = desk.files.get(_bare(name, kind), account=caller.account)
    if found.dialect != NAME or (found.purpose == "character") != (kind == "char"):
        raise NoJob(f"There is no such {_KINDS[kind]}", do="Check its id")
    return found


def _bare(name: str, kind: str) -> str:
    """Our id behind one of this dialect's."""
    found = inner(kind, name)
    if found is None:
        raise NoJob(f"There is no such {_KINDS[kind]}", do="Check its id")
    return found


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 1764028800, "owned_by": "cinecanvas"}


def _character(file: StoredFile) -> dict[str, Any]:
    return {"id": outer("char", file.id), "name": file.name, "created_at": int(file.created)}


def _file(file: StoredFile) -> dict[str, Any]:
    return {
        "id": outer("file", file.id),
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created),
        "expires_at": int(file.expires) if file.expires else None,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
    }


DIALECT = Dialect(NAME, ("/openai/v1", "/v1"), router, envelope, event)
