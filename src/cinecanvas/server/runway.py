"""Runway's API, as the official clients speak it: generations as tasks, uploads in two steps, the organization."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Mapping
from itertools import groupby
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.types import Message as Piece

from cinecanvas.errors import BadMedia, BadRequest, Unsupported
from cinecanvas.jobs.files import NoFile
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.keys import Caller
from cinecanvas.jobs.order import Source
from cinecanvas.jobs.queue import NoJob
from cinecanvas.media.assets import Asset
from cinecanvas.models import card
from cinecanvas.server.deliver import sent_twice
from cinecanvas.server.desk import URL_SECONDS, Desk
from cinecanvas.server.dialect import Dialect, Fault, Refused, iso
from cinecanvas.server.message import At, Base, Creator, Reader, Sent, Upload
from cinecanvas.server.runway_bodies import (
    CANNOT,
    MODELS,
    Asked,
    FromImage,
    FromVideo,
    Larger,
    Picture,
    Pinned,
    Slot,
    Span,
    guided,
    read,
    refused,
    size,
    times,
    wider,
    words,
)

NAME = "runway"
MOST_UPLOAD = 200 << 20  # bytes
MOST_CREDITS = 2**31 - 1  # where nobody counts them
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_FAILURES = {  # in the vendor's families, as far as they say what happened here
    "bad_media": "ASSET.INVALID",
    "bad_request": "INPUT_PREPROCESSING.INVALID",
    "unsupported": "INPUT_PREPROCESSING.UNSUPPORTED",
    "deadline": "INTERNAL.DEADLINE",
}
_SOUND = "No model that makes sound is served here. A film keeps the sound of the films that it is made of."
_NOT_MADE = {  # generations that are none here, by path
    **dict.fromkeys(
        (
            *("sound_effect", "video_to_audio", "text_to_speech", "speech_to_speech", "voice_dubbing"),
            *("voice_isolation", "generate/audio"),
        ),
        _SOUND,
    ),
    "character_performance": "No model here follows a performance. image_to_video moves a picture by words.",
    "avatar_videos": "There are no avatars here. image_to_video moves a picture by words.",
    "video_to_hdr": "Films leave with 8 bits a channel. Take the MP4.",
    "generate/video": "There are no routers here. Send the model to text_to_video or image_to_video.",
    "generate/image": "There are no routers here. Send the model to text_to_image.",
    "recipes/": "There are no recipes here. Send their words to text_to_video or image_to_video.",
}
_SERVED = (
    "Served here are text_to_video, image_to_video, video_to_video, text_to_image, video_upscale, image_upscale, "
    "tasks, uploads and organization."
)
router = APIRouter()


# Generations


@router.post("/v1/text_to_video")
def text_to_video(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    body = read(sent, Asked)
    asked = words(body) | size(body) | {"seconds": body.seconds}
    return _accepted(desk, caller, sent, request, "text_to_video", body, asked)


@router.post("/v1/image_to_video")
def image_to_video(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    body = read(sent, FromImage)
    given = body.prompt_image
    pinned = [Pinned(uri=given, position="first")] if isinstance(given, str) else given
    places = [one.position for one in pinned]
    if None in places:
        raise refused("promptImage", f"promptImage without a position is a reference: {CANNOT['references']}")
    if not places or len(set(places)) < len(places):
        raise refused("promptImage", "promptImage is one picture, or one for first and one for last.")
    at = {str(one.position): _source(desk, caller, one.uri, "promptImage") for one in pinned}
    known = _known(desk, caller, next(iter(at.values())))
    asked = words(body) | size(body, of=known, field="promptImage") | {"seconds": body.seconds}
    if len(at) == 2:
        return _accepted(
            desk, caller, sent, request, "interpolate", body, asked | {"first": at["first"], "second": at["last"]}
        )
    ((place, picture),) = at.items()
    return _accepted(
        desk, caller, sent, request, "animate", body, asked | {"picture": picture, "last": place == "last"}
    )


@router.post("/v1/video_to_video")
def video_to_video(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    body = read(sent, FromVideo)
    field = "videoUri" if body.video_uri else "promptVideo"
    uri = body.video_uri or body.prompt_video
    if not uri or (body.video_uri and body.prompt_video):
        raise refused("videoUri", "videoUri, which some models call promptVideo, is needed once.")
    clip = _source(desk, caller, uri, field)
    film, asked = _known(desk, caller, clip), words(body)
    if body.mode == "extend":
        more = {"clip": clip, "seconds": body.seconds} | size(body, of=film, field=field, same=True)
        return _accepted(desk, caller, sent, request, "extend", body, asked | more)
    if body.mode == "reference":
        raise refused("mode", f"mode reference is not possible here: {CANNOT['references']}.")
    if body.seconds is not None:
        raise refused("duration", "An edit is as long as its video. Leave out duration, or send mode: extend.")
    if body.target_aspect_ratio is not None:
        if body.keyframes:
            raise refused("keyframes", "Keyframes and targetAspectRatio are two edits. Send one after the other.")
        to = wider(body.target_aspect_ratio, film)
        return _accepted(desk, caller, sent, request, "outpaint", body, asked | {"clip": clip, "to": to})
    if body.keyframes:
        if film is None or not film.seconds:
            raise refused("keyframes", "Keyframes need a video whose length is known. Upload it (POST /v1/uploads).")
        pictures = [_source(desk, caller, one.uri, "keyframes") for one in body.keyframes]
        rate = card(desk.served(body.model, foreign=MODELS)).fps
        clips = guided(clip, film, list(zip(body.keyframes, pictures, strict=True)), keep=body.keep, fps=rate)
        whole = {"clips": clips, "seconds": film.seconds} | size(body, of=film, field=field, same=True)
        return _accepted(desk, caller, sent, request, "canvas", body, asked | whole)
    whole = {"clip": clip, "keep": body.keep} | size(body, of=film, field=field, same=True)
    return _accepted(desk, caller, sent, request, "remix", body, asked | whole)


@router.post("/v1/text_to_image")
def text_to_image(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    body = read(sent, Picture)
    suffix = {"jpeg": "jpg"}.get(body.output_format or "png", body.output_format or "png")
    if suffix not in ("png", "jpg", "webp"):
        raise refused("outputFormat", f"outputFormat {suffix[:20]!r} is not possible. Pictures are png, jpeg or webp.")
    if body.seconds is not None:
        raise refused("duration", "A picture has no duration.")
    asked = words(body, still=True) | size(body) | {"count": body.output_count}
    return _accepted(desk, caller, sent, request, "text_to_image", body, asked, kind="image", suffix=suffix)


@router.post("/v1/video_upscale")
@router.post("/v1/image_upscale")
def upscale(desk: At, caller: Creator, sent: Sent, request: Request) -> Any:
    body = read(sent, Larger)
    if body.target_framerate is not None or body.model == "enhance_frame_rate":
        text = "No model here adds frames between those of a film. Send fps when the film is made."
        raise Refused(Fault(400, "unsupported", text, "targetFramerate"))
    model = desk.served(body.model, foreign=MODELS)
    if "upscale" not in card(model).tasks:
        able = desk.able("upscale")
        what = f"Models here that can: {able}." if able else "No model here can."
        text = f"{model} cannot upscale. {what} Or make the film at the size: ratio takes pixels, such as 1280:720."
        raise Refused(Fault(400, "unsupported", text, "model"))
    field = "imageUri" if body.image_uri else "videoUri"
    if bool(body.image_uri) == bool(body.video_uri):
        raise refused(field, "videoUri or imageUri is needed.")
    clip = _source(desk, caller, body.image_uri or body.video_uri, field)
    asked = {"clip": clip, "prompt": _prompt_of(desk, clip), "seed": body.seed}
    asked["keep"] = 1 - 0.6 * body.creativity / 100
    asked["times"] = times(body, _known(desk, caller, clip), field)
    kind: Literal["video", "image"] = "image" if body.image_uri else "video"
    return _accepted(desk, caller, sent, request, "upscale", body, asked, kind=kind)


# Tasks


@router.get("/v1/tasks/{name}")
def retrieve(desk: At, caller: Reader, base: Base, request: Request, name: str) -> Any:
    job = _job(desk, caller, name)
    made = job.outcome.assets if job.outcome and job.state == "succeeded" else ()
    urls = [desk.url(job, base, "video", number) for number in range(len(made))]
    return task(job, urls, throttled=_throttled(desk, caller, job), waits_on=_waits_on(request))


@router.delete("/v1/tasks/{name}", status_code=204)
def delete(desk: At, caller: Creator, name: str) -> None:
    """One that waits or runs is cancelled, one that has ended is forgotten."""
    job = _job(desk, caller, name)
    (desk.queue.hide if job.ended else desk.queue.cancel)(job.id, account=caller.account)


# Uploads


@router.post("/v1/uploads")
def open_upload(desk: At, caller: Creator, sent: Sent, base: Base) -> Any:
    body = sent.read(Slot)
    days = URL_SECONDS / 86400
    file = desk.files.add(account=caller.account, dialect=NAME, name=body.filename, purpose="upload", days=days)
    path, until = f"/runway/uploads/{file.id}", int(time.time() + URL_SECONDS)
    signed = desk.signed_url(base, path, until=until)
    return {"uploadUrl": signed, "fields": {"key": file.id}, "runwayUri": f"runway://{file.id}"}


@router.post("/uploads/{name}", status_code=204)
async def upload(desk: At, request: Request, name: str, until: int = 0, signature: str = "") -> Response:
    """The second step: nobody says who he is, so what was signed in the first is looked at before a byte is read."""
    if not desk.signed(f"/runway/uploads/{name}", until, signature):
        raise Refused(Fault(403, "expired", "This upload is not signed, or its time is over. Ask for a new one."))
    async with Request(request.scope, _at_most(request, MOST_UPLOAD)).form(max_files=1, max_fields=20) as form:
        file = form.get("file")
        if form.get("key") != name or not isinstance(file, Upload):
            raise refused("file", "The fields of the upload come first, and then the part file.")
        await run_in_threadpool(_fill, desk, name, file)
    return Response(status_code=204)


# The organization


@router.get("/v1/organization")
def organization(desk: At, caller: Reader) -> Any:
    ledger = desk.ledger
    left = ledger.balance(caller)
    used = {row.model: row.jobs for row in ledger.spent(account=caller.account, since=ledger.today())}
    limits = {"maxConcurrentGenerations": caller.quota.running, "maxDailyGenerations": None}
    return {
        "creditBalance": MOST_CREDITS if left is None else left,
        "tier": {"maxMonthlyCreditSpend": MOST_CREDITS, "models": dict.fromkeys(desk.models, limits)},
        "usage": {"models": {name: {"dailyGenerations": used.get(name, 0)} for name in desk.models}},
    }


@router.post("/v1/organization/usage")
def used(desk: At, caller: Reader, sent: Sent) -> Any:
    body, ledger, day = sent.read(Span), desk.ledger, datetime.timedelta(days=1)
    since = body.start_date or datetime.date.fromisoformat(ledger.today()) - 30 * day
    before = body.before_date or since + 30 * day
    if not since < before <= since + 90 * day:
        raise refused("beforeDate", "beforeDate is 1 to 90 days after startDate.")
    rows = ledger.spent(account=caller.account, since=since.isoformat(), until=(before - day).isoformat())
    days = [
        {"date": date, "usedCredits": [{"model": row.model, "amount": row.credits} for row in of_day]}
        for date, of_day in groupby(rows, key=lambda row: row.day)
    ]
    return {"models": sorted({row.model for row in rows}), "results": days}


@router.api_route("/v1/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
def other(caller: Reader, request: Request, path: str) -> Any:
    """Whatever else the vendor has: what it is, or that it is not here."""
    for name, why in _NOT_MADE.items():
        if request.method == "POST" and (path == name or (name.endswith("/") and path.startswith(name))):
            raise Refused(Fault(400, "unsupported", f"{path[:40]} is not possible here. {why} {_SERVED}"))
    raise Refused(Fault(404, "not_found", f"/v1/{path[:60]} is not served here. {_SERVED}"))


# What a job is in this dialect


def task(job: Job, urls: list[str], *, throttled: bool, waits_on: bool) -> dict[str, Any]:
    """The task of a job, with every field of its state: where one is missing, the clients take it for a pending one.

    waits_on: the asker would wait on for one that is cancelled, so to him it has failed.
    """
    facts = {"id": job.id, "createdAt": iso(job.created)}
    estimate, nothing = {"estimatedCost": {"credits": job.credits}}, {"cost": {"credits": 0}}
    match job.state:
        case "queued":
            return facts | {"status": "THROTTLED" if throttled else "PENDING"} | estimate
        case "running":
            return facts | {"status": "RUNNING", "progress": job.progress} | estimate
        case "succeeded":
            return facts | {"status": "SUCCEEDED", "output": urls, "cost": {"credits": job.credits}}
        case "cancelled" if not waits_on:
            return facts | {"status": "CANCELLED"} | nothing
    code = _FAILURES.get(job.error.code, "INTERNAL") if job.error else "CANCELLED"
    text = job.error.message if job.error else "The task was cancelled."
    return facts | {"status": "FAILED", "failure": text, "failureCode": code} | nothing


def envelope(fault: Fault) -> dict[str, Any]:
    issues = {"issues": [{"path": fault.param.split("."), "message": fault.message}]} if fault.param else {}
    return {"error": fault.message, "code": fault.code, **issues}


def _accepted(
    desk: Desk,
    caller: Caller,
    sent: Any,
    request: Request,
    verb: str,
    body: Asked | Larger,
    asked: Mapping[str, Any],
    *,
    kind: Literal["video", "image"] = "video",
    suffix: str = "",
) -> Any:
    """A job for what was asked, and the answer to whoever asked."""
    job = sent_twice(desk, caller, sent, request)
    if job is None:
        model = desk.served(body.model, foreign=MODELS)
        order = desk.order(verb, model=model, **asked)
        echo = {"model": body.model, "seconds": asked.get("seconds") or card(model).seconds}
        job = desk.accept(caller, order, dialect=NAME, kind=kind, suffix=suffix, echo=echo, body=sent.digest)
    return {"id": job.id, "estimatedCost": {"credits": job.credits}}


def _throttled(desk: Desk, caller: Caller, job: Job) -> bool:
    """Whether a job waits because others of its account run, as many as may."""
    most = caller.quota.running
    if job.state != "queued" or most is None:
        return False
    return len(desk.queue.listed(account=caller.account, states=("running",), limit=most)) >= most


def _waits_on(request: Request) -> bool:
    """Whether the client is the one that does not know CANCELLED: the synchronous one for Python."""
    sent = request.headers.get
    return sent("x-stainless-lang") == "python" and sent("x-stainless-async", "false") == "false"


# What a body stands for


def _source(desk: Desk, caller: Caller, uri: str, field: str) -> Source:
    """What a URI of a body stands for."""
    if not uri.startswith("runway://"):
        try:
            return desk.source(caller, uri, dialect=NAME)
        except (BadRequest, BadMedia) as error:
            raise refused(field, f"{field}: {error}") from None
    name = uri.removeprefix("runway://")
    try:
        file = desk.files.get(name, account=caller.account)
    except NoFile:
        raise refused(field, f"{field}: there is no such upload. It is kept for a day; upload it again.") from None
    if file.state != "ready":
        why = file.trouble or "Its bytes have not come. Send them to uploadUrl first."
        raise refused(field, f"{field}: the upload is {file.state}. {why}")
    return Source(file=file.id)


def _known(desk: Desk, caller: Caller, source: Source) -> Asset | None:
    """What a source is, where it is here already."""
    return None if source.url is not None else desk.asset_of(caller, source)


def _prompt_of(desk: Desk, clip: Source) -> str:
    """The words that a film of ours was made of; of another's there are none."""
    words = desk.queue.get(clip.job).asked.get("prompt") if clip.job else None
    return words or "the same, with finer detail"


def _fill(desk: Desk, name: str, file: Upload) -> None:
    """The bytes of an upload, looked at and kept; what cannot be used is remembered with its upload."""
    waits = desk.files.get(name)
    if waits.dialect != NAME or waits.state != "pending":
        raise NoFile("No file waits for these bytes", do="Ask for a new upload")
    try:
        asset = desk.looked_at(file.file, name=waits.name)
    except (BadMedia, BadRequest, Unsupported) as error:
        desk.files.fail(name, str(error))
        raise
    desk.files.fill(name, asset)


def _at_most(request: Request, most: int) -> Any:
    """What a request receives, refused where it becomes too much."""
    count = 0

    async def receive() -> Piece:
        nonlocal count
        piece = await request.receive()
        count += len(piece.get("body", b""))
        if count > most:
            raise Refused(Fault(413, "too_large", f"An upload has at most {most >> 20} MB."))
        return piece

    return receive


def _job(desk: Desk, caller: Caller, name: str) -> Job:
    job = desk.queue.get(name, account=caller.account) if _ID.fullmatch(name) else None
    if job is None or job.dialect != NAME:
        raise NoJob("There is no such task", do="Check its id")
    return job


DIALECT = Dialect(NAME, ("/runway",), router, envelope, open=("/runway/uploads",))
