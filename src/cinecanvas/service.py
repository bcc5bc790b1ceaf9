"""`cine serve`, and what an operator does beside it: `cine keys`, `cine jobs` and `cine audit`."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cinecanvas.console import print_rows, watched_job
from cinecanvas.errors import BadRequest, Unsupported

if TYPE_CHECKING:  # a database costs a second to import
    from cinecanvas.jobs.database import Database
    from cinecanvas.jobs.job import Job
    from cinecanvas.jobs.keys import Key, Quota
    from cinecanvas.jobs.queue import Queue

keys = typer.Typer(name="keys", help="Make, list, change and revoke keys.", no_args_is_help=True)
jobs = typer.Typer(name="jobs", help="List, watch, move and cancel jobs.", no_args_is_help=True)
audit = typer.Typer(name="audit", help="Read the audit, or see that nobody changed it.", no_args_is_help=True)

At = Annotated[str, typer.Option("--database", metavar="URL", help="sqlite:///FILE or postgresql://...")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Named = Annotated[str, typer.Argument(help="A key: its name, its id, or the beginning of its id.", show_default=False)]
Id = Annotated[str, typer.Argument(help="The id of a job.", show_default=False)]
Running = Annotated[int | None, typer.Option(help="Most jobs that run at a time.")]
Queued = Annotated[int | None, typer.Option(help="Most jobs that wait.")]
PerMinute = Annotated[int | None, typer.Option(help="Most jobs accepted in a minute.")]
DailySeconds = Annotated[float | None, typer.Option(help="Most seconds of video in a day (UTC).")]
Credits = Annotated[int | None, typer.Option(help="Most credits, in all.")]
_POLL = 0.3  # s between two looks at a job
_ERAS = ("queued", "running", "succeeded", "failed", "cancelled")


def serve(
    host: Annotated[
        str, typer.Option(help="Where to listen; beyond this machine only once there are keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Processes that make films.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Films at a time of each of them.")] = 1,
    models: Annotated[str, typer.Option(metavar="A,B", help="What to serve, the default first; all if left out.")] = "",
    database: At = "",
    name: Annotated[list[str] | None, typer.Option(help="A host name the server goes by; may be repeated.")] = None,
    origin: Annotated[list[str] | None, typer.Option(help="A site whose pages may call; may be repeated.")] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Media may come from it, and news go to it, though it is not public."),
    ] = None,
    public_url: Annotated[str, typer.Option(metavar="URL", help="What users know it by, if behind a proxy.")] = "",
    proxies: Annotated[str, typer.Option(metavar="ADDRESSES", help="Proxies whose word of a client counts.")] = "",
    tariff: Annotated[
        str, typer.Option(metavar="JSON", help='What work costs, in credits: {"per_video_second": 5}.')
    ] = "{}",
    logs: Annotated[str, typer.Option(metavar="text|json", help="For people, or for programs.")] = "text",
    lease: Annotated[float, typer.Option(hidden=True)] = 10.0,  # these two are the workers' own: see jobs/queue.py
    deaths: Annotated[int, typer.Option(hidden=True)] = 3,
) -> None:
    """Serve our API and the vendors', with workers that make what is asked."""
    from pydantic import ValidationError

    from cinecanvas.settings import settings

    server, here = needed("cinecanvas.server.serve"), settings()
    try:
        options = server.Options(
            host=host,
            port=port,
            workers=workers,
            concurrency=concurrency,
            models=tuple(filter(None, models.split(","))),
            database=database or here.database,
            hosts=tuple(name or ()),
            origins=tuple(origin or ()),
            trusted=tuple(trust or ()),
            public_url=public_url,
            proxies=proxies,
            tariff=server.Tariff.model_validate_json(tariff),
            logs=logs,
            lease=lease,
            deaths=deaths,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "The tariff"
        raise BadRequest(f"{where} is not usable: {first['msg']}", do="See `cine serve --help`") from None
    server.serve(options, here)


@keys.command("make")
def make_key(
    name: Annotated[str, typer.Argument(help="Whose it is, in a word.", show_default=False)],
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="read|create|admin", help="What it may; once for each; read and create if left out."),
    ] = None,
    running: Running = None,
    queued: Queued = None,
    per_minute: PerMinute = None,
    daily_seconds: DailySeconds = None,
    credits: Credits = None,  # noqa: A002
    database: At = "",
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    at = _database(database)
    from cinecanvas.jobs.keys import Keys, Quota

    quota = _quota(Quota(), running, queued, per_minute, daily_seconds, credits)
    secret = Keys(at).make(name, scopes=tuple(scope) if scope else ("read", "create"), quota=quota)
    if as_json:
        print(json.dumps({"key": secret, **Keys(at).of(secret).model_dump()}))
    else:
        print(secret)


@keys.command("list")
def list_keys(
    revoked: Annotated[bool, typer.Option("--revoked", help="Those too that were revoked.")] = False,
    database: At = "",
    as_json: Json = False,
) -> None:
    """List the keys: who has one, what it may, and when it was last used."""
    at = _database(database)
    from cinecanvas.jobs.keys import Keys

    found = Keys(at).listed(revoked=revoked)
    if as_json:
        print(json.dumps({"keys": [key.model_dump() for key in found]}))
        return
    rows = [(key.id, key.name, ",".join(key.scopes), _limits(key.quota), _moment(key.used), _end(key)) for key in found]
    print_rows(("id", "name", "scopes", "limits", "used", ""), rows, nothing="There are no keys.")


@keys.command("change")
def change_key(
    key: Named,
    name: Annotated[str | None, typer.Option(help="A new name.")] = None,
    running: Running = None,
    queued: Queued = None,
    per_minute: PerMinute = None,
    daily_seconds: DailySeconds = None,
    credits: Credits = None,  # noqa: A002
    unlimited: Annotated[bool, typer.Option("--unlimited", help="Take away the limits that are not given.")] = False,
    database: At = "",
    as_json: Json = False,
) -> None:
    """Rename a key, or let it use more or less."""
    at = _database(database)
    from cinecanvas.jobs.keys import Keys, Quota

    before = Quota() if unlimited else Keys(at).find(key).quota
    quota = _quota(before, running, queued, per_minute, daily_seconds, credits)
    _said_key(Keys(at).change(key, name=name, quota=quota), as_json)


@keys.command("revoke")
def revoke_key(key: Named, database: At = "", as_json: Json = False) -> None:
    """End a key: servers refuse it within a few seconds. Its jobs stay."""
    at = _database(database)
    from cinecanvas.jobs.keys import Keys

    _said_key(Keys(at).revoke(key), as_json)


@jobs.command("list")
def list_jobs(
    state: Annotated[list[str] | None, typer.Option(metavar="|".join(_ERAS), help="Once for each.")] = None,
    key: Annotated[str, typer.Option(metavar="NAME|ID", help="Only those of a key.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, the newest first.")] = 20,
    database: At = "",
    as_json: Json = False,
) -> None:
    """List jobs, the newest first."""
    if unknown := [one for one in state or () if one not in _ERAS]:
        raise BadRequest(f"Jobs that are {unknown[0][:20]!r} were asked", f"States are {', '.join(_ERAS)}")
    queue = _queue(database)
    states: Any = tuple(state or ())
    found = queue.listed(states=states, account=_account(queue, key), limit=limit)
    if as_json:
        print(json.dumps({"jobs": [job.model_dump(mode="json") for job in found]}, ensure_ascii=False))
        return
    rows = [(job.id, _state(job), job.model, _task(job), _moment(job.created), str(job.priority)) for job in found]
    print_rows(("id", "state", "model", "task", "accepted", "priority"), rows, nothing="There are no jobs.")


@jobs.command("show")
def show_job(job: Id, database: At = "", as_json: Json = False) -> None:
    """Show one job."""
    _said(_queue(database).get(job), as_json)


@jobs.command("cancel")
def cancel_job(job: Id, database: At = "", as_json: Json = False) -> None:
    """Cancel a job: one that waits at once, one that runs within one network call."""
    _said(_queue(database).cancel(job), as_json)


@jobs.command("pause")
def pause_job(job: Id, database: At = "", as_json: Json = False) -> None:
    """Let a job that waits go on waiting, until it is resumed."""
    _said(_queue(database).pause(job), as_json)


@jobs.command("resume")
def resume_job(job: Id, database: At = "", as_json: Json = False) -> None:
    """Let a paused job take its turn again."""
    _said(_queue(database).pause(job, paused=False), as_json)


@jobs.command("move")
def move_job(
    job: Id,
    before: Annotated[str, typer.Option(metavar="ID", help="The job that it is to come before.")],
    database: At = "",
    as_json: Json = False,
) -> None:
    """Put a job that waits before another one."""
    _said(_queue(database).move(job, before), as_json)


@jobs.command("priority")
def prioritize_job(
    job: Id,
    priority: Annotated[int, typer.Argument(min=-1000, max=1000, help="The highest first.", show_default=False)],
    database: At = "",
    as_json: Json = False,
) -> None:
    """Give a job that waits another priority."""
    _said(_queue(database).prioritize(job, priority), as_json)


@jobs.command("watch")
def watch_job(job: Id, database: At = "", as_json: Json = False) -> None:
    """Follow a job to its end; the exit code is 1 if it fails or is cancelled."""
    ended = watched_job(_followed(_queue(database), job), silent=as_json)
    _said(ended, as_json)
    if ended.state != "succeeded":
        raise typer.Exit(1)


@jobs.command("usage")
def show_usage(
    key: Annotated[str, typer.Option(metavar="NAME|ID", help="Only that of a key.")] = "",
    days: Annotated[int, typer.Option(min=1, max=36_500, help="How many, today the last (UTC).")] = 30,
    database: At = "",
    as_json: Json = False,
) -> None:
    """Say what was used, by day, key and model."""
    queue = _queue(database)
    from cinecanvas.jobs.ledger import Ledger

    ledger = Ledger(queue.database)
    account, since = _account(queue, key), ledger.today(ago=days - 1)
    spent, total = ledger.spent(account=account, since=since), ledger.total(account=account, since=since)
    if as_json:
        print(json.dumps({"usage": [row.model_dump() for row in spent], "total": total.model_dump()}))
        return
    names = _names(queue)
    rows = [
        (
            *(row.day, names.get(row.account, row.account), row.model, str(row.jobs)),
            *(f"{row.video_seconds:.1f}", f"{row.compute_seconds:.1f}", str(row.credits)),
        )
        for row in (*spent, *([total] if len(spent) > 1 else []))
    ]
    if len(spent) > 1:
        rows[-1] = ("all", "", "", *rows[-1][3:])
    titles = ("day", "key", "model", "jobs", "video (s)", "work (s)", "credits")
    print_rows(titles, rows, nothing="Nothing was used.")


@audit.command("verify")
def verify_audit(
    head: Annotated[str, typer.Option(metavar="HASH", help="A last hash noted earlier, to be found again.")] = "",
    database: At = "",
    as_json: Json = False,
) -> None:
    """See that no row of the audit was changed or taken out; note its last hash to see later that none was cut off."""
    at = _database(database)
    from cinecanvas.jobs.audit import Audit

    record = Audit(at)
    broken, last = record.verify(), record.head()
    lost = bool(head) and not record.has(head)
    if as_json:
        print(json.dumps({"whole": broken is None and not lost, "broken": broken, "head": last, "lost": lost}))
    elif broken is not None:
        print(f"Row {broken} is not what was written, or is missing.")
    elif lost:
        print("The hash that was noted is not there any more: rows were cut off.")
    else:
        print(f"The audit is whole. Its last hash is {last}")
    if broken is not None or lost:
        raise typer.Exit(1)


@audit.command("list")
def list_audit(
    key: Annotated[str, typer.Option(metavar="NAME|ID", help="Only what a key did.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many, the newest first.")] = 50,
    database: At = "",
    as_json: Json = False,
) -> None:
    """List who did what, the newest first."""
    queue = _queue(database)
    from cinecanvas.jobs.audit import Audit

    found = Audit(queue.database).listed(limit=limit, account=_account(queue, key), newest_first=True)
    if as_json:
        print(json.dumps({"audit": [entry._asdict() for entry in found]}))
        return
    names = _names(queue)
    rows = [
        (str(entry.seq), _moment(entry.at), names.get(entry.account, entry.account), entry.action, entry.object)
        for entry in found
    ]
    print_rows(("row", "when", "who", "what", "of"), rows, nothing="Nothing is written down.")


def needed(module: str) -> Any:
    """A part of ours that has dependencies of its own, or the line that says how to get them."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cinecanvas"):
            raise
        raise Unsupported(
            "The server or its database was asked", f"It needs {error.name}", "pip install 'cinecanvas[server]'"
        ) from None


def _database(url: str) -> Database:
    """The database of these settings or of a URL, brought up to date."""
    from cinecanvas.settings import settings

    at: Database = needed("cinecanvas.jobs.database").Database.at(url or settings().database)
    at.migrate()
    return at


def _queue(url: str) -> Queue:
    at = _database(url)
    from cinecanvas.jobs.queue import Queue

    return Queue(at)


def _account(queue: Queue, key: str) -> str | None:
    """The account of a key; None if no key is named."""
    from cinecanvas.jobs.keys import Keys

    return Keys(queue.database).find(key).id if key else None


def _names(queue: Queue) -> dict[str, str]:
    """What accounts are called."""
    from cinecanvas.jobs.keys import LOCAL, Keys

    return {LOCAL.account: LOCAL.name, **{key.id: key.name for key in Keys(queue.database).listed(revoked=True)}}


def _followed(queue: Queue, job: str) -> Iterator[tuple[Job, Sequence[str]]]:
    """Looks at a job, and what was noticed since the one before, until it has ended."""
    seen = 0
    while True:
        look = queue.get(job)
        new = queue.events(job, after=seen)
        seen = new[-1].seq if new else seen
        yield look, [str(event.data.get("text", "")) for event in new if event.kind == "note"]
        if look.ended:
            return
        time.sleep(_POLL)


def _quota(
    before: Quota,
    running: int | None,
    queued: int | None,
    per_minute: int | None,
    daily_seconds: float | None,
    credit: int | None,
) -> Quota:
    from pydantic import ValidationError

    given = {"running": running, "queued": queued, "per_minute": per_minute}
    given |= {"daily_seconds": daily_seconds, "credits": credit}  # type: ignore[dict-item]
    try:
        return type(before)(**before.model_dump() | {name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        flag = str(first["loc"][0]).replace("_", "-")
        raise BadRequest(f"--{flag} is not usable: {first['msg']}") from None


def _said(job: Job, as_json: bool) -> None:
    if as_json:
        print(json.dumps(job.model_dump(mode="json"), ensure_ascii=False))
        return
    print(f"{job.id}  {_state(job)}  {_task(job)}  {job.model}")
    facts = {
        "accepted": _moment(job.created),
        "began": _moment(job.started),
        "ended": _moment(job.finished),
        "priority": str(job.priority) if job.priority else "",
        "why": job.error.message if job.error else "",
        "credits": str(job.credits),
        "made": ", ".join(asset.digest for asset in job.outcome.assets) if job.outcome else "",
    }
    for name, text in facts.items():
        if text:
            print(f"  {name}: {text}")


def _said_key(key: Key, as_json: bool) -> None:
    if as_json:
        print(key.model_dump_json())
    else:
        print(f"{key.id}  {key.name}  {','.join(key.scopes)}  {_limits(key.quota)}  {_end(key)}".rstrip())


def _state(job: Job) -> str:
    if job.state == "running":
        return f"running {job.progress:.0%}"
    return "paused" if job.paused and job.state == "queued" else job.state


def _task(job: Job) -> str:
    return str(job.asked.get("task", ""))


def _limits(quota: Quota) -> str:
    given = quota.model_dump(exclude_none=True)
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in given.items()) or "none"


def _end(key: Key) -> str:
    return "" if key.revoked is None else f"revoked {_moment(key.revoked)}"


def _moment(clock: float | None) -> str:
    """By this machine's clock on the wall."""
    return "" if clock is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(clock))
