"""Our own API: every task of the library as a job, with events, previews and the film while it is made."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, File, Header, Path, Query, Request, Response, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import SkipJsonSchema

from cinecanvas import __version__
from cinecanvas.jobs.files import StoredFile
from cinecanvas.jobs.hooks import Attempt
from cinecanvas.jobs.job import Foretold, Job, State, Trouble
from cinecanvas.jobs.keys import Quota
from cinecanvas.jobs.order import ID, WHOLE, AnyOrder
from cinecanvas.jobs.queue import NotNow
from cinecanvas.jobs.worker import preview_file
from cinecanvas.model import Card
from cinecanvas.models import card
from cinecanvas.server import operate
from cinecanvas.server.deliver import Stream, events, made, watched
from cinecanvas.server.desk import Variant
from cinecanvas.server.dialect import Dialect, Fault, Link
from cinecanvas.server.document import EVENT, EXAMPLES, problems
from cinecanvas.server.message import At, Base, Creator, Reader
from cinecanvas.server.outlook import Outlook, outlook

NAME = "native"
router = APIRouter()
_YEAR = 366 * 86400.0  # s
_DAY = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
Id = Annotated[str, Field(pattern=ID)]
JobId = Annotated[str, Path(pattern=ID, description="The id of a job of yours.")]
FileId = Annotated[str, Path(pattern=ID, description="The id of a file of yours.")]
Absent = SkipJsonSchema[None]  # what a query or header leaves out; it cannot say null


class Problem(BaseModel):
    """What is wrong, for programs and for people."""

    model_config = ConfigDict(frozen=True)

    code: str = Field(description="A word for programs, such as not_found or unsupported.")
    message: str = Field(description="What was asked, what is possible, and what to do.")
    field: str | None = Field(default=None, description="The field of the request that it is about.")


class Failure(BaseModel):
    """The body of every answer that is not a success."""

    model_config = ConfigDict(frozen=True)

    error: Problem


class Film(BaseModel):
    """One thing that a job made; its URL needs no key and is good for a day."""

    model_config = ConfigDict(frozen=True)

    url: str = Field(description="Where its bytes are.")
    thumbnail_url: str = Field(description="A small picture of it, WebP.")
    digest: str = Field(description="The hash of its bytes, sha256:...")
    media_type: str = Field(description="video/mp4, image/png ...")
    bytes: int
    width: int | None = Field(description="Pixels across.")
    height: int | None = Field(description="Pixels down.")
    frames: int | None
    fps: float | None = Field(description="Frames per second.")
    seconds: float | None = Field(description="Its length; null for a picture.")
    sound: bool = Field(description="Whether it can be heard.")
    seed: int | None = Field(description="The seed that makes it again.")


class JobView(BaseModel):
    """A job: what was asked, how far it is, and what it made. Times are seconds since 1970."""

    model_config = ConfigDict(frozen=True)

    id: str
    state: State = Field(description="queued, then running, then succeeded, failed or cancelled.")
    paused: bool = Field(description="Whether it is to wait until it is unpaused.")
    priority: int = Field(description="The highest is made first.")
    place: float = Field(description="Where it stands among waiting jobs of its priority: the lowest is made first.")
    model: str
    order: dict[str, Any] = Field(description="What was asked, with the seed that was drawn.")
    foretold: Foretold = Field(description="What it will come to, as planned; zeros while media are to be fetched.")
    phase: str = Field(description="What the worker does: fetch, load, prepare, denoise, write.")
    progress: float = Field(ge=0, le=1, description="The share of denoising steps that are done.")
    step: int = Field(description="Denoising steps that are done.")
    steps: int = Field(description="Denoising steps in all; 0 until that is known.")
    eta: float | None = Field(description="Seconds to the last file, foretold from the steps so far.")
    watchable_seconds: float = Field(description="How much of the film can be watched already at `live_url`.")
    live_url: str | None = Field(
        description="The film while it is made; like that of a film it needs no key and is good for a day."
    )
    created: float = Field(description="When it was accepted.")
    started: float | None = Field(description="When a worker first began with it.")
    finished: float | None = Field(description="When it ended.")
    expires: float | None = Field(description="When what it made will be forgotten; null: never, or it is already.")
    kept: bool = Field(description="Whether what it made stays for good.")
    films: list[Film] = Field(description="What it made, in the order of its seeds.")
    notes: list[str] = Field(description="What was noticed while it was made, for people.")
    error: Trouble | None = Field(description="Why it failed or was cancelled.")
    causes: list[Trouble] = Field(description="Why earlier tries failed.")


class JobPage(BaseModel):
    """Jobs, and whether there are more after the last."""

    model_config = ConfigDict(frozen=True)

    jobs: list[JobView]
    more: bool = Field(description="Whether there are more: ask again, `after` the last of these.")


class FileView(BaseModel):
    """A file that you brought."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="What an order's `file` names.")
    name: str = Field(description="The name that it came with.")
    state: Literal["pending", "ready", "failed", "deleted"]
    media_type: str = Field(description="What it is found to be, whatever it was called.")
    bytes: int
    width: int | None = Field(description="Pixels across.")
    height: int | None = Field(description="Pixels down.")
    seconds: float | None = Field(description="Its length; null for a picture.")
    created: float = Field(description="When it came, in seconds since 1970.")
    expires: float | None = Field(description="When it will be forgotten.")


class Change(BaseModel):
    """How a job that waits, or what one made, is to be treated; what is left out stays."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paused: bool | None = Field(default=None, strict=True, description="Let it wait, or wait no longer.")
    priority: Annotated[int, Field(ge=-1000, le=1000), WHOLE] | None = Field(
        default=None, description="The highest is made first."
    )
    before: str | None = Field(default=None, pattern=ID, description="The id of a job to be made before.")
    kept: bool | None = Field(default=None, strict=True, description="Let what it made stay for good, or no longer.")


class About(BaseModel):
    """What this server is."""

    model_config = ConfigDict(frozen=True)

    version: str
    models: list[str] = Field(description="Their names; the first is the default.")


class Account(BaseModel):
    """Who asks, and what is left; `callback_secret` verifies the signatures of callbacks (Standard Webhooks)."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="The name of the key.")
    scopes: tuple[str, ...] = Field(description="What it may: read, create, admin.")
    quota: Quota
    credits_left: int | None = Field(description="null: as many as there are.")
    callback_secret: str


class Usage(BaseModel):
    """What was made on a day with a model."""

    model_config = ConfigDict(frozen=True)

    day: str = Field(description="YYYY-MM-DD (UTC).")
    model: str
    jobs: int = Field(description="Those that succeeded.")
    megapixel_frames: float
    video_seconds: float = Field(description="Seconds of film.")
    compute_seconds: float = Field(description="Seconds of work.")
    credits: int


class Delivery(BaseModel):
    """A message about a job; `endpoint` is empty for the job's own callback, `due` when the next try is."""

    model_config = ConfigDict(frozen=True)

    id: str
    endpoint: str = Field(description="The id of a webhook endpoint.")
    state: str = Field(description="The state of the job that is told.")
    status: Literal["waiting", "delivered", "failed"]
    attempts: int
    due: float = Field(description="When the next try is, in seconds since 1970.")
    log: tuple[Attempt, ...] = Field(description="How each try went.")


_OF_BODY = (408, 413)  # what else can be wrong with a request that has one


@router.get("", include_in_schema=False)
@router.get("/", summary="What this server is", responses=problems(), tags=["server"])
def get_server(desk: At, caller: Reader) -> About:
    return About(version=__version__, models=list(desk.models))


@router.get("/models", summary="The Cards of the models", responses=problems(), tags=["server"])
def list_models(desk: At, caller: Reader) -> list[Card]:
    return [card(name) for name in desk.models]


@router.get("/account", summary="Who you are here, and what you may", responses=problems(), tags=["server"])
def get_account(desk: At, caller: Reader) -> Account:
    return Account(
        name=caller.name,
        scopes=caller.scopes,
        quota=caller.quota,
        credits_left=desk.ledger.balance(caller),
        callback_secret=desk.hooks.callback_secret(caller.account),
    )


@router.get("/usage", summary="What you have used, by day and model", responses=problems(), tags=["server"])
def get_usage(
    desk: At,
    caller: Reader,
    since: Annotated[str, Query(pattern=_DAY, description="The first day, YYYY-MM-DD (UTC).")] = "1970-01-01",
    until: Annotated[str, Query(pattern=_DAY, description="The last day.")] = "9999-12-31",
) -> list[Usage]:
    rows = desk.ledger.spent(account=caller.account, since=since, until=until)
    return [Usage.model_validate(row.model_dump(include=set(Usage.model_fields))) for row in rows]


@router.post(
    "/jobs", status_code=201, summary="Ask for something", responses=problems(404, 409, *_OF_BODY), tags=["jobs"]
)
def create_job(
    desk: At,
    caller: Creator,
    base: Base,
    order: Annotated[AnyOrder, Body(description="One of the tasks.", openapi_examples=EXAMPLES)],
    priority: Annotated[int, Query(ge=-1000, le=1000, description="The highest is made first.")] = 0,
    deadline: Annotated[
        Annotated[float, Field(gt=0, le=_YEAR)] | Absent,
        Query(description="Seconds from now after which it is not wanted."),
    ] = None,
    callback: Annotated[str, Query(max_length=2000, description="A URL that is told of the job's end.")] = "",
    idempotency_key: Annotated[
        str | Absent, Header(max_length=200, description="The same key gives the same job again.")
    ] = None,
) -> JobView:
    """The job is accepted once this answers; it will be made whatever happens to the server meanwhile."""
    served = desk.served(order.model if "model" in order.model_fields_set else "")
    until = None if deadline is None else desk.queue.database.clock() + deadline
    job = desk.accept(
        caller,
        order.model_copy(update={"model": served}),
        dialect=NAME,
        kind="image" if order.task == "text_to_image" else "video",
        priority=priority,
        deadline=until,
        callback=callback,
        idempotency=idempotency_key,
    )
    return view(desk, job, base)


@router.post("/plan", summary="What an order would come to", responses=problems(404, *_OF_BODY), tags=["jobs"])
def plan_order(
    desk: At,
    caller: Reader,
    order: Annotated[AnyOrder, Body(description="One of the tasks.", openapi_examples=EXAMPLES)],
) -> Outlook:
    """Nothing is made or kept. An order that no model here can fill is told why, and what would help."""
    served = desk.served(order.model if "model" in order.model_fields_set else "")
    return outlook(desk, caller, order.model_copy(update={"model": served}))


@router.get("/jobs", summary="Your jobs, the newest first", responses=problems(404), tags=["jobs"])
def list_jobs(
    desk: At,
    caller: Reader,
    base: Base,
    state: Annotated[State | Absent, Query(description="Only those in this state.")] = None,
    text: Annotated[str, Query(max_length=200, description="Only those whose prompt holds these words.")] = "",
    after: Annotated[Id | Absent, Query(description="The last job of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="At most so many.")] = 20,
) -> JobPage:
    states = (state,) if state else ()
    found = desk.queue.listed(account=caller.account, states=states, text=text, after=after, limit=limit + 1)
    return JobPage(jobs=[view(desk, job, base) for job in found[:limit]], more=len(found) > limit)


@router.get("/jobs/{job}", summary="One job", responses=problems(404), tags=["jobs"])
def get_job(desk: At, caller: Reader, base: Base, job: JobId) -> JobView:
    return view(desk, desk.queue.get(job, account=caller.account), base)


@router.get("/jobs/{job}/deliveries", summary="Whom it was told to", responses=problems(404), tags=["jobs"])
def list_deliveries(desk: At, caller: Reader, job: JobId) -> list[Delivery]:
    """The messages about a job to its callback and to webhook endpoints, and how each try went."""
    found = desk.queue.get(job, account=caller.account)
    rows = desk.hooks.deliveries(account=caller.account, job=found.id)
    return [Delivery.model_validate(row.model_dump(include=set(Delivery.model_fields))) for row in rows]


@router.patch(
    "/jobs/{job}",
    summary="Pause or move a job that waits, keep what one made",
    responses=problems(404, 409, *_OF_BODY),
    tags=["jobs"],
)
def change_job(desk: At, caller: Creator, base: Base, job: JobId, asked: Change) -> JobView:
    changed = desk.queue.get(job, account=caller.account)
    if asked.priority is not None:
        changed = desk.queue.prioritize(job, asked.priority, account=caller.account)
    if asked.before is not None:
        changed = desk.queue.move(job, asked.before, account=caller.account)
    if asked.paused is not None:
        changed = desk.queue.pause(job, account=caller.account, paused=asked.paused)
    if asked.kept is not None:
        changed = desk.queue.keep(job, account=caller.account, kept=asked.kept)
    return view(desk, changed, base)


@router.post("/jobs/{job}/cancel", summary="Stop a job", responses=problems(404), tags=["jobs"])
def cancel_job(desk: At, caller: Creator, base: Base, job: JobId) -> JobView:
    """One that waits is cancelled at once, one that runs within a denoising step; one that has ended stays as it is."""
    return view(desk, desk.queue.cancel(job, account=caller.account), base)


@router.delete("/jobs/{job}", status_code=204, summary="Forget a job", responses=problems(404), tags=["jobs"])
def delete_job(desk: At, caller: Creator, job: JobId) -> None:
    """It is cancelled if it has not ended, and what it made is forgotten."""
    desk.queue.hide(job, account=caller.account)


@router.get(
    "/jobs/{job}/events",
    summary="What happens, as it happens",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": EVENT}}}, **problems(404)},
    tags=["jobs"],
)
def follow_job(
    desk: At,
    caller: Reader,
    request: Request,
    job: JobId,
    last_event_id: Annotated[str | Absent, Header(max_length=30, description="Where an earlier stream ended.")] = None,
) -> StreamingResponse:
    """Server-sent events: queued, running, phase, step (with eta), watch, preview, stored, note, and the job's end."""
    found = desk.queue.get(job, account=caller.account)
    after = int(last_event_id) if last_event_id and last_event_id.isdecimal() and len(last_event_id) < 19 else 0
    stream = events(desk, found, request, after=after)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return Stream(stream, found, media_type="text/event-stream", headers=headers)


_BYTES: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_PICTURES: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": _BYTES}}, **problems(404, 409)}
_FILMS: dict[int | str, dict[str, Any]] = {
    200: {"content": dict.fromkeys(("video/mp4", "image/png", "image/webp", "image/jpeg", "video/webm"), _BYTES)},
    206: {"description": "The part of it that a Range asked for."},
    304: {"description": "You have it already: its ETag is the one of your If-None-Match."},
    416: {"description": "It is shorter than the Range that was asked.", "content": {"text/plain": {}}},
    **problems(404, 409),
}


@router.get(
    "/jobs/{job}/preview",
    summary="What it may become",
    response_class=Response,
    responses=_PICTURES,
    tags=["jobs"],
)
def preview_job(desk: At, caller: Reader, job: JobId) -> Response:
    """The model's latest guess of a frame, while the job runs."""
    found = desk.queue.get(job, account=caller.account)
    file = preview_file(desk.where, found)
    if found.state != "running" or not file.is_file():
        raise NotNow("There is no preview of this job now", "A job has one while it runs on this machine")
    return Response(file.read_bytes(), media_type="image/png", headers={"cache-control": "no-store"})


@router.get(
    "/jobs/{job}/live",
    summary="The film while it is made",
    response_class=StreamingResponse,
    responses={200: {"content": {"video/mp4": _BYTES}}, **problems(404, 409)},
    tags=["jobs"],
)
def watch_job(desk: At, caller: Reader, request: Request, job: JobId) -> Response:
    """A fragmented MP4 that grows until the film is whole."""
    return watched(desk, desk.queue.get(job, account=caller.account), request)


@router.get(
    "/jobs/{job}/films/{number}", summary="What it made", response_class=Response, responses=_FILMS, tags=["jobs"]
)
def get_film(
    desk: At,
    caller: Reader,
    request: Request,
    job: JobId,
    number: Annotated[int, Path(ge=0, le=999, description="Which of its films, counted from 0.")],
    variant: Annotated[Variant, Query(description="The film itself, or a picture of it.")] = "video",
) -> Response:
    found = desk.queue.get(job, account=caller.account)
    return made(desk, found, variant, number, request)


@router.post(
    "/files", status_code=201, summary="Bring a picture or film", responses=problems(*_OF_BODY), tags=["files"]
)
def upload_file(
    desk: At, caller: Creator, file: Annotated[UploadFile, File(description="The picture or film.")]
) -> FileView:
    return _file(desk.brought(caller, file.file, dialect=NAME, name=file.filename or "", purpose="upload", days=30.0))


@router.get("/files", summary="What you brought, the newest first", responses=problems(404), tags=["files"])
def list_files(
    desk: At,
    caller: Reader,
    after: Annotated[Id | Absent, Query(description="The last file of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="At most so many.")] = 20,
) -> list[FileView]:
    found = desk.files.listed(account=caller.account, dialect=NAME, after=after, limit=limit)
    return [_file(one) for one in found]


@router.get("/files/{file}", summary="One file", responses=problems(404), tags=["files"])
def get_file(desk: At, caller: Reader, file: FileId) -> FileView:
    return _file(desk.files.get(file, account=caller.account))


@router.delete("/files/{file}", status_code=204, summary="Forget a file", responses=problems(404), tags=["files"])
def delete_file(desk: At, caller: Creator, file: FileId) -> None:
    desk.files.delete(file, account=caller.account)


def view(desk: Any, job: Job, base: str) -> JobView:
    """A job in our own words."""
    outcome = job.outcome
    seeds = dict(enumerate(outcome.seeds)) if outcome else {}
    films = [
        Film(
            url=desk.url(job, base, "video", number),
            thumbnail_url=desk.url(job, base, "thumbnail", number),
            seed=seeds.get(number),
            **asset.model_dump(),
        )
        for number, asset in enumerate(outcome.assets if outcome else ())
    ]
    shown = job.model_dump(include=set(JobView.model_fields) - {"causes"})
    live_url = desk.url(job, base, "live") if job.state == "running" and job.watchable > 0 else None
    return JobView.model_validate(
        {
            **shown,
            "order": job.asked,
            "expires": None if job.kept else job.expires,
            "kept": job.kept,
            "progress": job.progress,
            "watchable_seconds": job.watchable,
            "live_url": live_url,
            "films": films,
            "notes": list(outcome.notes) if outcome else [],
            "causes": list(job.causes),
        }
    )


def _file(file: StoredFile) -> FileView:
    facts = file.asset.model_dump(include={"width", "height", "seconds"}) if file.asset else {}
    shown = file.model_dump(include=set(FileView.model_fields))
    return FileView.model_validate({"width": None, "height": None, "seconds": None, **shown, **facts})


def event(job: Job, link: Link) -> dict[str, Any]:
    """What a callback is told of a job."""
    facts = {"id": job.id, "state": job.state, "model": job.model, "created": job.created, "finished": job.finished}
    return {"type": f"job.{job.state}", "job": {**facts, "error": job.error.model_dump() if job.error else None}}


def envelope(fault: Fault) -> dict[str, Any]:
    return Failure(error=Problem(code=fault.code, message=fault.message, field=fault.param or None)).model_dump()


router.routes.extend(operate.router.routes)  # as if they were written here: who asks what a path allows looks there
DIALECT = Dialect(NAME, ("/api/v1",), router, envelope, event, data_uris=False)
