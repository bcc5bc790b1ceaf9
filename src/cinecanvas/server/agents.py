"""Luma's Agents API, as the official client speaks it: generations by type, and files that come by PUT."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import Field, model_validator

from cinecanvas.errors import BadMedia, BadRequest, Unsupported
from cinecanvas.jobs.files import DAY, NoFile, StoredFile
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.keys import Caller
from cinecanvas.jobs.order import Source
from cinecanvas.media.destination import told
from cinecanvas.models import card
from cinecanvas.request import Quality
from cinecanvas.server.deliver import sent_twice
from cinecanvas.server.desk import Desk
from cinecanvas.server.dialect import Dialect, Fault, Link, Refused, iso
from cinecanvas.server.luma_terms import (
    ID,
    SECONDS,
    STRENGTHS,
    Call,
    Calling,
    Shown,
    echoed,
    ends,
    linked,
    made_before,
    mine,
    seconds_of,
    shown,
    sized,
    why,
)
from cinecanvas.server.message import At, Base, Creator, Fields, Reader, Sent, Upload

NAME = "luma-agents"
PREFIXES = ("/luma-agents/v1", "/luma-agents", "/luma/agents/v1", "/agents/v1", "/agents")
MODELS = ("uni-1", "uni-1-max", "ray-3.2")  # each stands for the default model
GRID = 24.0  # keyframe indexes a second
MOST_UPLOAD = 256 << 20  # bytes
MOST_DAYS = 36525.0  # that a file may be asked to be kept; the end of the calendar cannot be written everywhere
UPLOAD_SECONDS = 3600.0  # that the URL of an upload is good for
_STATES = {"queued": "queued", "running": "processing", "succeeded": "completed"}
_CODES = {"bad_media": "corrupt_input", "bad_request": "invalid_request", "unsupported": "invalid_request"}
Shape = Literal["3:1", "2:1", "21:9", "16:9", "4:3", "3:2", "1:1", "3:4", "2:3", "9:16", "1:2", "1:3"]
Purpose = Literal["input", "reference"]

router = APIRouter()


class Reference(Fields):
    """A picture or film: exactly one of a URL, its bytes, a generation and a file."""

    url: str | None = None
    data: str | None = None
    generation_id: str | None = Field(default=None, max_length=64)
    file_id: str | None = Field(default=None, max_length=64)
    media_type: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Reference:
        given = [one for one in (self.url, self.data, self.generation_id, self.file_id) if one is not None]
        if len(given) != 1:
            raise ValueError("exactly one of url, data, generation_id and file_id is given")
        if self.data is not None and self.media_type is None:
            raise ValueError("data needs a media_type such as image/png")
        return self


class Rectangle(Fields):
    """Where the source lies in the new frame, in fractions of it."""

    x_norm: float
    y_norm: float
    w_norm: float
    h_norm: float


class Control(Fields):
    """One signal of the source that an edit is to follow."""

    enabled: bool | None = None
    blur: float | None = None
    augmentation: float | None = None
    sparsity: float | None = None
    strength: str | None = None


class Controls(Fields):
    """The signals of the source that an edit is to follow."""

    depth: Control | None = None
    face: Control | None = None
    normals: Control | None = None
    pose: Control | None = None
    trajectory: Control | None = None


class EditOptions(Fields):
    """How a film is edited."""

    strength: str | None = None
    auto_controls: bool | None = None
    controls: Controls | None = None
    keyframes: tuple[Reference, ...] | None = None
    keyframe_indexes: tuple[int, ...] | None = None


class VideoOptions(Fields):
    """How a film is made."""

    duration: str | None = None
    resolution: str | None = None
    start_frame: Reference | None = None
    end_frame: Reference | None = None
    keyframes: tuple[Reference, ...] | None = Field(default=None, min_length=1, max_length=64)
    keyframe_indexes: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    loop: bool | None = None
    hdr: bool | None = None
    exr_export: bool | None = None
    source_position: Rectangle | None = None
    edit: EditOptions | None = None


class Create(Fields):
    """POST /generations; `seed` and `quality` are ours, by extra_body."""

    prompt: str = Field(min_length=1)
    model: str | None = None
    type: Literal["image", "image_edit", "video", "video_edit", "video_reframe", "layering"] | None = None
    aspect_ratio: Shape | None = None
    image_ref: tuple[Reference, ...] | None = None
    source: Reference | None = None
    output_format: Literal["png", "jpeg"] | None = None
    style: Literal["auto", "manga"] | None = None
    layering: dict[str, Any] | None = None
    user_id: str | None = None
    web_search: bool | None = None
    video: VideoOptions | None = None
    seed: int | None = None
    quality: Quality | None = None

    @property
    def kind(self) -> str:
        """The type; where none is said, a film if anything of one is asked."""
        return self.type or ("video" if self.video is not None or (self.model or "").startswith("ray") else "image")

    @property
    def options(self) -> VideoOptions:
        return self.video or VideoOptions()


class NewFile(Fields):
    """POST /files: a place for bytes that come by PUT."""

    mime_type: str = Field(pattern=r"^(image|video)/[\w.+-]{1,60}$")
    size_bytes: int = Field(gt=0)
    filename: str | None = Field(default=None, max_length=255)
    purpose: Purpose = "input"
    expires_at: datetime | None = None
    user_id: str | None = None


@router.post("/generations", status_code=201)
def create(call: Calling) -> Any:
    body = call.sent.read(Create)
    _check(body)
    task, asked = _TASKS[body.kind](call, body)
    job = sent_twice(call.desk, call.caller, call.sent, call.request)
    if job is None:
        model = call.desk.served(body.model or "", foreign=MODELS)
        asked = {"prompt": body.prompt, "seed": body.seed, "quality": body.quality, **asked}
        still = body.kind in ("image", "image_edit")
        told = {"model": body.model or ("uni-1" if still else "ray-3.2"), "type": body.kind}
        job = call.desk.accept(
            call.caller,
            call.desk.order(task, model=model, **asked),
            dialect=NAME,
            kind="image" if still else "video",
            suffix=("jpg" if body.output_format == "jpeg" else "png") if still else "",
            echo={**told, "request": echoed(call.sent.fields)},
            body=call.sent.digest,
        )
    return generation(job, call.link)


@router.get("/generations/{name}")
def retrieve(desk: At, caller: Reader, base: Base, name: str) -> Any:
    return generation(mine(desk, caller, name, NAME), linked(desk, base))


# Files


@router.post("/files", status_code=201)
def new_file(desk: At, caller: Creator, base: Base, sent: Sent) -> Any:
    if isinstance(sent.fields.get("file"), Upload):  # the bytes are in the form
        return _brought(desk, caller, sent.fields)
    body = sent.read(NewFile)
    if body.size_bytes > MOST_UPLOAD:
        asked = f"A file of {body.size_bytes:,} bytes was announced"
        raise Refused(Fault(413, "too_large", f"{asked}. At most {MOST_UPLOAD:,} are possible.", "size_bytes"))
    days: float | None = None
    if body.expires_at is not None:
        with suppress(ValueError, OverflowError):  # of the year 1, which has no seconds since 1970 everywhere
            days = (body.expires_at.timestamp() - time.time()) / DAY
        if days is None or not 0 < days <= MOST_DAYS:
            raise BadRequest("expires_at is over already, or too far", do="Give a time within a century, or none")
    file = desk.files.add(
        account=caller.account,
        dialect=NAME,
        name=body.filename or "",
        purpose=body.purpose,
        media_type=body.mime_type,
        bytes_=body.size_bytes,
        days=days,
    )
    _tidy(desk)
    until = int(time.time() + UPLOAD_SECONDS)
    path = f"{PREFIXES[1]}/uploads/{file.id}"
    url = desk.signed_url(base, path, until=until, method="PUT")
    upload = {"method": "PUT", "url": url, "headers": {"content-type": body.mime_type}, "expires_at": iso(until)}
    return _created(file, upload)


@router.put("/uploads/{name}", status_code=200)
async def upload(desk: At, request: Request, name: str, until: int = 0, signature: str = "") -> Response:
    """The bytes of a file, to the URL that was signed for them: without a key, and no more than was announced."""
    if not desk.signed(f"PUT {PREFIXES[1]}/uploads/{name}", until, signature):
        raise Refused(Fault(403, "expired", "This URL is not signed, or its time is over. Ask for a new upload."))
    file = await run_in_threadpool(desk.files.get, name)
    if file.state != "pending":
        raise Refused(Fault(409, "conflict", f"The file is {file.state}. Ask for a new upload."))
    place = _waiting(desk, file)
    aside = place.with_name(f"{place.name}.{secrets.token_hex(4)}")
    try:
        count = 0
        with told("to the disk of the server"), aside.open("wb") as out:
            async for piece in request.stream():
                count += len(piece)
                if count > file.bytes:
                    break
                await run_in_threadpool(out.write, piece)
        if count != file.bytes:
            more = "More" if count > file.bytes else "Fewer"
            raise BadRequest(
                f"{more} bytes came than the {file.bytes:,} that were announced", do="Send all of them again"
            )
        os.replace(aside, place)
    finally:
        aside.unlink(missing_ok=True)
    return Response(status_code=200)


@router.post("/files/{name}/complete")
def complete(desk: At, caller: Creator, name: str) -> Any:
    """What came is looked at: from now on the file is ready, or failed."""
    file = _own_file(desk, caller, name)
    if file.state != "pending":
        return _file(file)
    place = _waiting(desk, file)
    if not place.is_file():
        raise BadRequest("The bytes of the file have not come", do="PUT them to the URL of the upload first")
    try:
        asset = desk.warden.take(place, name=file.name or "The upload")
        file = desk.files.fill(file.id, asset)
    except (BadMedia, Unsupported) as error:
        file = desk.files.fail(file.id, str(error))
    place.unlink(missing_ok=True)
    return _file(file)


@router.get("/files")
def files(
    desk: At,
    caller: Reader,
    cursor: Annotated[str | None, Query(pattern=ID.pattern, max_length=36)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 25,
    purpose: Purpose | None = None,
    state: Literal["pending", "ready", "failed", "deleted"] | None = None,
) -> Any:
    found = desk.files.listed(
        account=caller.account,
        dialect=NAME,
        purpose=purpose,
        besides=("media",),
        state=state,
        after=cursor,
        limit=limit + 1,
    )
    more = len(found) > limit
    page = found[:limit]
    return {"data": [_file(file) for file in page], "has_more": more, "next_cursor": page[-1].id if more else None}


@router.get("/files/{name}")
def file(desk: At, caller: Reader, name: str) -> Any:
    return _file(_own_file(desk, caller, name))


@router.delete("/files/{name}", status_code=204)
def delete_file(desk: At, caller: Creator, name: str) -> None:
    gone = _own_file(desk, caller, name)
    desk.files.delete(gone.id, account=caller.account)
    _waiting(desk, gone).unlink(missing_ok=True)


# What a job and a file are in this dialect


def generation(job: Job, link: Link) -> dict[str, Any]:
    """The Generation object of a job."""
    failed = job.state in ("failed", "cancelled")
    made = job.outcome.assets if job.state == "succeeded" and job.outcome else ()
    output = [{"type": asset.media_type.partition("/")[0], "url": link(job, "video")} for asset in made[:1]]
    return {
        "id": job.id,
        "created_at": iso(job.created),
        "model": job.echo["model"],
        "type": job.echo["type"],
        "state": _STATES.get(job.state, "failed"),
        "output": output,
        "failure_reason": why(job),
        "failure_code": _CODES.get(job.error.code if job.error else "", "generation_failed") if failed else None,
    }


def envelope(fault: Fault) -> dict[str, Any]:
    return {"detail": fault.message, "code": fault.code}


def _created(file: StoredFile, upload: dict[str, Any] | None) -> dict[str, Any]:
    return {"id": file.id, "state": file.state, "file": _file(file), "upload": upload}


def _file(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "created_at": iso(file.created),
        "mime_type": file.media_type,
        "purpose": file.purpose,
        "size_bytes": file.bytes,
        "state": file.state,
        "filename": file.name or None,
        "expires_at": iso(file.expires) if file.expires else None,
        "failure_reason": file.trouble or None,
    }


# What each type comes to


def _check(body: Create) -> None:
    """Refuse at once what no model here can do, whatever the type."""
    options = body.options
    if body.kind == "layering":
        raise Unsupported("Layers of a picture were asked", "No model here takes a picture apart", "Ask for image_edit")
    if body.image_ref:
        raise Unsupported(
            "image_ref was given",
            "The models here make pictures from words, or change one picture",
            "Describe it in the prompt, or give the picture to change as source of an image_edit",
        )
    asked = (
        (body.style == "manga", "The style manga", "Say it in the prompt"),
        (body.web_search, "web_search", "Describe in the prompt what is to be seen"),
        (options.hdr or options.exr_export, "HDR", "Leave out hdr and exr_export"),
    )
    for wanted, what, do in asked:
        if wanted:
            raise Unsupported(f"{what} was asked", "The models here do not do it", do)
    if options.source_position is not None and body.kind != "video_reframe":
        raise BadRequest("source_position was given", "It belongs to video_reframe")
    if options.edit is not None and body.kind != "video_edit":
        raise BadRequest("video.edit was given", "It belongs to video_edit")
    started = (options.start_frame, options.end_frame, options.keyframes, options.keyframe_indexes, options.loop)
    if body.kind != "video" and any(started):
        raise Unsupported(
            f"A frame or loop was given to {body.kind}",
            "Films begin and end with frames, are pinned to them and loop with the type video alone",
            "Leave it out",
        )


def _image(call: Call, body: Create) -> tuple[str, dict[str, Any]]:
    return "text_to_image", sized(None, body.aspect_ratio)


def _image_edit(call: Call, body: Create) -> tuple[str, dict[str, Any]]:
    picture = _source(call, body)
    return "remix", {"clip": picture.source, "keep": STRENGTHS["flex_2"], **sized(None, body.aspect_ratio, picture)}


def _video(call: Call, body: Create) -> tuple[str, dict[str, Any]]:
    options = body.options
    seconds = seconds_of(options.duration)
    if (options.keyframes is None) != (options.keyframe_indexes is None):
        raise BadRequest("Only one of keyframes and keyframe_indexes was given", do="Give both, of one length")
    if options.keyframes is not None:
        return _keyframes(call, body, seconds or SECONDS)
    if options.loop and (seconds or 0) > SECONDS:
        raise BadRequest(f"A loop of {options.duration} was asked", f"Loops are of {SECONDS:g}s or less")
    first, second = (_shown(call, frame) if frame else None for frame in (options.start_frame, options.end_frame))
    task, asked = ends(first, second, seconds=seconds, loop=bool(options.loop))
    return task, asked | sized(options.resolution, body.aspect_ratio, first or second)


def _keyframes(call: Call, body: Create, seconds: float) -> tuple[str, dict[str, Any]]:
    """Pictures at moments of a grid of 24 a second; its last one stands for the film's last frame."""
    options = body.options
    frames, indexes = options.keyframes or (), options.keyframe_indexes or ()
    if options.start_frame or options.end_frame or options.loop:
        raise BadRequest("keyframes were given with start_frame, end_frame or loop", "They exclude one another")
    if len(frames) != len(indexes) or len(set(indexes)) < len(indexes):
        raise BadRequest(
            f"{len(frames)} keyframes and {len(set(indexes))} different indexes were given", "Each keyframe has its own"
        )
    if max(indexes) > GRID * seconds:
        raise BadRequest(
            f"A keyframe was pinned to {max(indexes)}", f"A film of {seconds:g}s has 0 to {GRID * seconds:.0f}"
        )
    known = [_shown(call, frame) for frame in frames]
    if any(one.film for one in known):
        raise BadRequest("A film was given as a keyframe", "Keyframes are pictures", "Give it as start_frame")
    last = seconds - 1 / card(call.desk.served(body.model or "", foreign=MODELS)).fps
    pinned = [{"picture": one.source, "at": min(index / GRID, last)} for one, index in zip(known, indexes, strict=True)]
    pinned.sort(key=lambda pin: pin["at"])  # type: ignore[arg-type, return-value]
    size = sized(options.resolution, body.aspect_ratio, known[0])
    return "keyframes", {"pictures": pinned, "seconds": seconds, **size}


def _video_edit(call: Call, body: Create) -> tuple[str, dict[str, Any]]:
    edit = body.options.edit or EditOptions()
    wanted = [name for name, control in edit.controls or () if control is not None and control.enabled is not False]
    if wanted:
        raise Unsupported(
            f"The controls {', '.join(wanted)} were asked",
            "The models here keep a film by strength alone",
            f"Give video.edit.strength, one of {', '.join(STRENGTHS)}",
        )
    if edit.keyframes or edit.keyframe_indexes:
        raise Unsupported(
            "Keyframes were given to a video_edit", "Films are edited by words alone", "Use keyframes with type video"
        )
    strength = edit.strength or "flex_2"
    if strength not in STRENGTHS:
        raise BadRequest(f"The strength {strength[:20]!r} was asked", f"Possible are {', '.join(STRENGTHS)}")
    film = _source(call, body)
    if body.options.resolution is not None and body.aspect_ratio is None and film.asset is None:
        raise BadRequest(
            "A resolution was asked for a source that is still to be fetched", do="Give aspect_ratio too, or none"
        )
    size = sized(body.options.resolution, body.aspect_ratio, film)
    return "remix", {"clip": film.source, "keep": STRENGTHS[strength], **size}


def _video_reframe(call: Call, body: Create) -> tuple[str, dict[str, Any]]:
    if body.aspect_ratio is None:
        raise BadRequest("A video_reframe needs aspect_ratio", do="Give it, such as 9:16")
    size = sized(body.options.resolution, body.aspect_ratio)
    to = size.get("shape") or f"{size['width']}x{size['height']}"
    asked: dict[str, Any] = {"clip": _source(call, body).source, "to": to}
    if (place := body.options.source_position) is not None:
        box = (place.x_norm, place.y_norm, place.w_norm, place.h_norm)
        inside = min(box[:2]) >= 0 and min(box[2:]) > 0 and max(box[0] + box[2], box[1] + box[3]) <= 1 + 1e-6
        if not inside:
            raise Unsupported(
                "The source was to lie beyond the frame", "All of it is kept", "Give a source_position within 0 and 1"
            )
        asked["box"] = (*box[:2], min(box[2], 1 - box[0]), min(box[3], 1 - box[1]))
    return "outpaint", asked


_TASKS: dict[str, Callable[[Call, Create], tuple[str, dict[str, Any]]]] = {
    "image": _image,
    "image_edit": _image_edit,
    "video": _video,
    "video_edit": _video_edit,
    "video_reframe": _video_reframe,
}


def _source(call: Call, body: Create) -> Shown:
    if body.source is None:
        raise BadRequest(f"A {body.kind} needs a source", do="Give its url, data, generation_id or file_id")
    return _shown(call, body.source)


def _shown(call: Call, reference: Reference) -> Shown:
    """What a reference stands for."""
    desk, caller = call.desk, call.caller
    if reference.generation_id is not None:
        return made_before(desk, caller, reference.generation_id)
    if reference.file_id is not None:
        file = _own_file(desk, caller, reference.file_id)
        if file.state != "ready":
            raise BadRequest(f"The file {file.id} is {file.state}", "Files that are ready can be used", file.trouble)
        return shown(desk, caller, Source(file=file.id))
    text = reference.url or f"data:{reference.media_type};base64,{reference.data}"
    return shown(desk, caller, desk.source(caller, text, dialect=NAME))


# Where the bytes of a file wait until it is complete


def _brought(desk: Desk, caller: Caller, fields: dict[str, Any]) -> dict[str, Any]:
    """A file whose bytes came in the form itself."""
    file, purpose = fields["file"], fields.get("purpose", "input")
    if purpose not in ("input", "reference"):
        raise BadRequest(f"The purpose {str(purpose)[:20]!r} was given", "It is input or reference")
    name = file.filename or ""
    return _created(desk.brought(caller, file.file, dialect=NAME, name=name, purpose=purpose, days=None), None)


def _own_file(desk: Desk, caller: Caller, name: str) -> StoredFile:
    file = desk.files.get(name, account=caller.account) if ID.fullmatch(name) else None
    if file is None or file.dialect != NAME or file.purpose == "media":
        raise NoFile("There is no such file", do="Check its id")
    return file


def _waiting(desk: Desk, file: StoredFile) -> Path:
    folder = desk.where.data / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / file.id


def _tidy(desk: Desk) -> None:
    """Forget bytes that nobody completed."""
    folder = desk.where.data / "uploads"
    for file in folder.iterdir() if folder.is_dir() else ():
        try:
            if time.time() - file.stat().st_mtime > 2 * UPLOAD_SECONDS:
                file.unlink()
        except OSError:  # another server was faster
            continue


DIALECT = Dialect(NAME, PREFIXES, router, envelope, generation, open=tuple(f"{prefix}/uploads" for prefix in PREFIXES))
