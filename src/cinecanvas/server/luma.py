"""Luma's Dream Machine, as the official client speaks it: films and pictures, and what is done to them."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Discriminator, Field

from cinecanvas.errors import BadRequest, Unsupported
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.keys import Caller
from cinecanvas.request import Quality
from cinecanvas.server.deliver import MOST_WAIT, POLL, sent_twice
from cinecanvas.server.desk import Desk
from cinecanvas.server.dialect import Dialect, Fault, Link, iso
from cinecanvas.server.luma_terms import (
    STRENGTHS,
    Call,
    Calling,
    Shown,
    camera_moves,
    echoed,
    ends,
    linked,
    made_before,
    mine,
    moved,
    seconds_of,
    shown,
    sized,
    upscaled,
    why,
    words,
)
from cinecanvas.server.message import At, Base, Creator, Fields, Reader

NAME = "luma"
VIDEO_MODELS = ("ray-2", "ray-flash-2", "ray-1-6")
IMAGE_MODELS = ("photon-1", "photon-flash-1")
MODELS = VIDEO_MODELS + IMAGE_MODELS  # each stands for the default model
UNLIMITED = 1e9  # USD cents: the balance of whoever may ask for as much as there is
Shape = Literal["1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21"]
_STATES = {"queued": "queued", "running": "dreaming", "succeeded": "completed"}

router = APIRouter()


class _Asked(Fields):
    """What every body may hold; the last two are ours, by extra_body."""

    callback_url: str = Field(default="", max_length=2000)
    seed: int | None = None
    quality: Quality | None = None


class Place(Fields):
    """Where a picture or film is: a URL, a data URI, or a URL of something made here."""

    url: str = Field(min_length=1)


class Image(Place):
    """A picture that a film begins or ends with."""

    type: Literal["image"]


class Earlier(Fields):
    """A generation that a film goes on from, or leads to."""

    type: Literal["generation"]
    id: str = Field(max_length=64)


Frame = Annotated[Image | Earlier, Discriminator("type")]


class Keyframes(Fields):
    """What a film begins and ends with."""

    frame0: Frame | None = None
    frame1: Frame | None = None


class Concept(Fields):
    """A motion of the camera."""

    key: str


class Create(_Asked):
    """POST /generations/video."""

    model: str = "ray-2"
    prompt: str | None = None
    aspect_ratio: Shape | None = None
    duration: str | None = None
    resolution: str | None = None
    loop: bool | None = None
    keyframes: Keyframes | None = None
    concepts: tuple[Concept, ...] | None = Field(default=None, max_length=8)
    generation_type: Literal["video"] | None = None


class Modify(_Asked):
    """POST /generations/video/modify."""

    generation_type: Literal["modify_video"] = "modify_video"
    media: Place
    mode: str
    model: str = "ray-2"
    prompt: str | None = None
    first_frame: Place | None = None


class Reframe(_Asked):
    """POST /generations/video/reframe and /generations/image/reframe; the numbers are pixels of the new frame."""

    generation_type: Literal["reframe_video", "reframe_image"] | None = None
    media: Place
    aspect_ratio: Shape
    model: str
    prompt: str | None = None
    format: Literal["jpg", "png"] | None = None
    first_frame: Place | None = None
    grid_position_x: int | None = None
    grid_position_y: int | None = None
    resized_width: int | None = Field(default=None, gt=0)
    resized_height: int | None = Field(default=None, gt=0)
    x_start: int | None = None
    x_end: int | None = None
    y_start: int | None = None
    y_end: int | None = None


class Weighed(Fields):
    """A picture, and how much of it counts."""

    url: str = Field(min_length=1)
    weight: float | None = Field(default=None, ge=0, le=1)


class Paint(_Asked):
    """POST /generations/image."""

    model: str = "photon-1"
    prompt: str | None = None
    aspect_ratio: Shape | None = None
    format: Literal["jpg", "png"] | None = None
    image_ref: tuple[Any, ...] | None = None
    style_ref: tuple[Any, ...] | None = None
    character_ref: dict[str, Any] | None = None
    modify_image_ref: Weighed | None = None
    sync: bool | None = None
    sync_timeout: float | None = Field(default=None, gt=0)
    generation_type: Literal["image"] | None = None


class Upscale(_Asked):
    """POST /generations/{id}/upscale."""

    resolution: str | None = None
    generation_type: Literal["upscale_video"] = "upscale_video"


class Sound(_Asked):
    """POST /generations/{id}/audio."""

    prompt: str | None = None
    negative_prompt: str | None = None
    generation_type: Literal["add_audio"] = "add_audio"


@router.post("/generations/video", status_code=201)
@router.post("/generations", status_code=201)  # of clients up to 1.4
def create(call: Calling) -> Any:
    body = call.sent.read(Create)
    frames = body.keyframes or Keyframes()
    first, second = (_frame(call.desk, call.caller, frame) for frame in (frames.frame0, frames.frame1))
    if first is None and second is None and not body.prompt:
        raise BadRequest("Neither a prompt nor keyframes were given", do="Say in the prompt what to show")
    model = call.desk.served(body.model, foreign=VIDEO_MODELS)
    task, asked = ends(first, second, seconds=seconds_of(body.duration), loop=bool(body.loop))
    asked |= sized(body.resolution, body.aspect_ratio, first or second)
    asked["prompt"] = moved(words(body.prompt, first, second), [one.key for one in body.concepts or ()], model)
    return _accepted(call, task, body, model, asked)


@router.post("/generations/video/modify", status_code=201)
def modify(call: Calling) -> Any:
    body = call.sent.read(Modify)
    if body.mode not in STRENGTHS:
        raise BadRequest(f"The mode {body.mode[:20]!r} was asked", f"Modes are {', '.join(STRENGTHS)}")
    _no_first_frame(body.first_frame)
    film = _media(call.desk, call.caller, body.media.url)
    asked = {"clip": film.source, "prompt": words(body.prompt, film), "keep": STRENGTHS[body.mode]}
    model = call.desk.served(body.model, foreign=VIDEO_MODELS)
    return _accepted(call, "remix", body, model, asked | sized(None, None, film))


@router.post("/generations/video/reframe", status_code=201)
def reframe(call: Calling) -> Any:
    body = call.sent.read(Reframe)
    model = call.desk.served(body.model, foreign=VIDEO_MODELS)
    return _accepted(call, "outpaint", body, model, _reframed(call.desk, call.caller, body))


@router.post("/generations/image/reframe", status_code=201)
def reframe_image(call: Calling) -> Any:
    body = call.sent.read(Reframe)
    model, asked = call.desk.served(body.model, foreign=IMAGE_MODELS), _reframed(call.desk, call.caller, body)
    return _accepted(call, "outpaint", body, model, asked, suffix=body.format or "jpg")


@router.post("/generations/image", status_code=201)
async def paint(call: Calling) -> Any:
    body = call.sent.read(Paint)
    made = await run_in_threadpool(_painted, call, body)
    if body.sync:  # what is not done by then goes on, and can be asked for as any other
        until = time.monotonic() + min(body.sync_timeout or MOST_WAIT, MOST_WAIT)
        while made["state"] not in ("completed", "failed") and time.monotonic() < until:
            await asyncio.sleep(POLL)
            job = await run_in_threadpool(call.desk.queue.get, made["id"], account=call.caller.account)
            made = generation(job, call.link)
    return made


@router.post("/generations/{name}/upscale")
def upscale(call: Calling, name: str) -> Any:
    body, before = call.sent.read(Upscale), mine(call.desk, call.caller, name, NAME)
    film = made_before(call.desk, call.caller, name)
    assert film.asset is not None
    times = upscaled(call.desk, before.model, film.asset, body.resolution)
    asked = {"clip": film.source, "prompt": words(None, film), "times": times}
    return _accepted(call, "upscale", body, before.model, asked, echo=before.echo["model"])


@router.post("/generations/{name}/audio")
def audio(call: Calling, name: str) -> Any:
    call.sent.read(Sound), mine(call.desk, call.caller, name, NAME)
    raise Unsupported(
        f"Sound was asked for the generation {name}",
        "No model here adds sound to a film that is done, and what they make of films with sound keeps it",
        "Add the sound with another program",
    )


@router.get("/generations/concepts/list")
@router.get("/generations/camera_motion/list")  # of clients up to 1.4, whose users put the words into their prompts
def concepts(desk: At, caller: Reader, request: Request) -> Any:
    moves = camera_moves(desk.models[0])
    return list(moves.values() if "camera_motion" in request.url.path else moves)


@router.get("/generations")
def listed(
    desk: At,
    caller: Reader,
    base: Base,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
    offset: Annotated[int, Query(ge=0, le=1 << 31)] = 0,
) -> Any:
    found = desk.queue.listed(account=caller.account, dialect=NAME, limit=limit + 1, offset=offset)
    page = [generation(job, linked(desk, base)) for job in found[:limit]]
    more = len(found) > limit
    return {"generations": page, "count": len(page), "has_more": more, "limit": limit, "offset": offset}


@router.get("/generations/{name}")
def retrieve(desk: At, caller: Reader, base: Base, name: str) -> Any:
    return generation(mine(desk, caller, name, NAME), linked(desk, base))


@router.delete("/generations/{name}", status_code=204)
def delete(desk: At, caller: Creator, name: str) -> None:
    desk.queue.hide(mine(desk, caller, name, NAME).id, account=caller.account)


@router.get("/credits")
def credits_left(desk: At, caller: Reader) -> Any:
    return {"credit_balance": balance(desk, caller)}


@router.get("/ping")
def ping(caller: Reader) -> Any:
    return {"message": "pong"}


def balance(desk: Desk, caller: Caller) -> float:
    """What a caller may still use, in USD cents."""
    left = desk.ledger.balance(caller)
    return UNLIMITED if left is None else desk.tariff.in_cents(left)


def generation(job: Job, link: Link) -> dict[str, Any]:
    """The Generation object of a job."""
    return {
        "id": job.id,
        "generation_type": job.kind,
        "state": _STATES.get(job.state, "failed"),
        "failure_reason": why(job),
        "created_at": iso(job.created),
        "assets": _assets(job, link),
        "model": job.echo["model"],
        "request": job.echo["request"],
    }


def envelope(fault: Fault) -> dict[str, Any]:
    return {"detail": fault.message}


def _assets(job: Job, link: Link) -> dict[str, str | None] | None:
    nothing: dict[str, str | None] = {"video": None, "image": None, "progress_video": None}
    if job.state == "running" and job.watchable > 0:
        return nothing | {"progress_video": link(job, "live")}
    if job.state != "succeeded" or job.outcome is None:
        return None
    if job.outcome.assets[0].media_type.startswith("image/"):
        return nothing | {"image": link(job, "video")}
    return nothing | {"video": link(job, "video"), "image": link(job, "first")}


def _accepted(
    call: Call, task: str, body: Any, model: str, asked: dict[str, Any], *, suffix: str = "", echo: str = ""
) -> Any:
    """A job for what was asked, and its Generation."""
    desk, caller, sent = call.desk, call.caller, call.sent
    job = sent_twice(desk, caller, sent, call.request)
    if job is None:
        order = desk.order(task, model=model, seed=body.seed, quality=body.quality, **asked)
        told = echoed(sent.fields)
        if isinstance(body, Upscale):  # the client tells by it which request this was
            told["generation_type"] = body.generation_type
        job = desk.accept(
            caller,
            order,
            dialect=NAME,
            kind="image" if suffix else "video",
            suffix=suffix,
            echo={"model": echo or body.model, "request": told},
            callback=body.callback_url,
            body=sent.digest,
        )
    return generation(job, call.link)


def _painted(call: Call, body: Paint) -> Any:
    for name in ("image_ref", "style_ref", "character_ref"):
        if getattr(body, name):
            raise Unsupported(
                f"{name} was given",
                "The models here make pictures from words, or change one picture",
                "Describe it in the prompt, or give the picture to change as modify_image_ref",
            )
    model, suffix = call.desk.served(body.model, foreign=IMAGE_MODELS), body.format or "jpg"
    if body.modify_image_ref is None:
        if not body.prompt:
            raise BadRequest("No prompt was given", do="Say in it what to show")
        asked = {"prompt": body.prompt, **sized(None, body.aspect_ratio)}
        return _accepted(call, "text_to_image", body, model, asked, suffix=suffix)
    picture, weight = _media(call.desk, call.caller, body.modify_image_ref.url), body.modify_image_ref.weight
    asked = {"clip": picture.source, "prompt": words(body.prompt, picture), "keep": 0.5 if weight is None else weight}
    asked |= sized(None, body.aspect_ratio, picture)
    return _accepted(call, "remix", body, model, asked, suffix=suffix)


def _reframed(desk: Desk, caller: Caller, body: Reframe) -> dict[str, Any]:
    _no_first_frame(body.first_frame)
    known = _media(desk, caller, body.media.url)
    return {"clip": known.source, "prompt": words(body.prompt, known), **_placed(body)}


def _placed(body: Reframe) -> dict[str, Any]:
    """Where the source lies. Its sides in pixels come from its bounds, or from its corner and its resized sides.

    The new frame is the smallest of the asked shape, from the corner (0, 0) on, that holds it: a source that is as
    wide or as tall as the frame, as all are that fill it, lies exactly where it was put.
    """
    x = _side("x", body.x_start, body.x_end, body.grid_position_x, body.resized_width)
    y = _side("y", body.y_start, body.y_end, body.grid_position_y, body.resized_height)
    if x is None and y is None:
        return {"to": body.aspect_ratio}
    if x is None or y is None:
        raise BadRequest("The place of the source was given in one direction", do="Give both x and y, or neither")
    across, down = map(int, body.aspect_ratio.split(":"))
    wide = max(x[1], round(y[1] * across / down))
    tall = max(y[1], round(wide * down / across))
    wide, tall = wide + wide % 2, tall + tall % 2
    box = (x[0] / wide, y[0] / tall, (x[1] - x[0]) / wide, (y[1] - y[0]) / tall)
    return {"to": f"{wide}x{tall}", "box": box}


def _side(
    axis: str, start: int | None, end: int | None, corner: int | None, length: int | None
) -> tuple[int, int] | None:
    """From where to where the source lies in one direction (px); None: it is not said."""
    if (start is None) != (end is None):
        raise BadRequest(f"One of {axis}_start and {axis}_end was given", do="Give both")
    given = (start, end) if start is not None and end is not None else None
    named = {"x": "grid_position_x and resized_width", "y": "grid_position_y and resized_height"}[axis]
    if corner is not None and length is None and given is None:
        raise BadRequest(f"grid_position_{axis} was given alone", do=f"Give {named}")
    resized = (corner or 0, (corner or 0) + length) if length is not None else None
    if given is not None and resized is not None and given != resized:
        raise BadRequest(f"{axis}_start and {axis}_end say another place than {named}", do="Give one of the two")
    side = given or resized
    if side is not None and not 0 <= side[0] < side[1]:
        raise Unsupported(
            f"The source was to lie from {side[0]} to {side[1]} px",
            "All of it is kept, so it lies within the frame",
            "Give a place that begins at 0 or later and ends after it begins",
        )
    return side


def _no_first_frame(frame: Place | None) -> None:
    if frame is not None:
        raise Unsupported(
            "A first_frame was given",
            "Films are edited and reframed by words alone",
            "Leave it out, or animate that picture: keyframes with it as frame0",
        )


def _frame(desk: Desk, caller: Caller, frame: Image | Earlier | None) -> Shown | None:
    if frame is None:
        return None
    if isinstance(frame, Earlier):
        return made_before(desk, caller, frame.id)
    known = _media(desk, caller, frame.url)
    if known.film:
        raise BadRequest(
            "A film was given as an image", "Films are named by their generation", 'Give {"type": "generation", "id"}'
        )
    return known


def _media(desk: Desk, caller: Caller, url: str) -> Shown:
    return shown(desk, caller, desk.source(caller, url, dialect=NAME))


DIALECT = Dialect(NAME, ("/luma/dream-machine/v1", "/luma"), router, envelope, generation)
