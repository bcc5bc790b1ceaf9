"""The queue: every job is a row, every change of it one transaction, and who works on it holds a lease.

A job is queued, then running, then succeeded, failed or cancelled, and never leaves those three. A worker that holds
its lease no longer (it was killed, or stopped for too long) finds that out at its next word: each claim has its own
number, the fence, and a word with an old one changes nothing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import sqlalchemy as sa

from cinecanvas.errors import BadRequest, CinecanvasError
from cinecanvas.jobs import audit
from cinecanvas.jobs.database import Database, following, inserted, now
from cinecanvas.jobs.job import ENDED, FOREVER, LATE, Foretold, Job, Outcome, State, Trouble
from cinecanvas.jobs.order import Order, kept
from cinecanvas.jobs.tables import deliveries, endpoints, events, holds, jobs, keys, usage, workers
from cinecanvas.jobs.tariff import Tariff

LEASE = 10.0  # s without a word from its worker, and a job is another's
MOST_DEATHS = 3  # workers that one job may take with it
MOST_TRIES = 3  # of a cause that may pass
KEEP = 7 * 86400.0  # s that what was made is kept
GRACE = 3600.0  # s between an asset's being needed by nobody and its end: somebody may just be about to need it
_COLUMNS = [jobs.c[name] for name in Job.model_fields]
_MADE = ("jobs", "megapixel_frames", "video_seconds", "compute_seconds")
# workers that a job took with it, one after the other: where one came further than all before it, the count is new
_FURTHER = jobs.c.step > jobs.c.mark
_LOST = sa.case((_FURTHER, 1), else_=jobs.c.deaths + 1)
_LIVE = jobs.c.state.in_(("queued", "running"))
_MOST_KEY = 200  # characters of an idempotency key

Word = Literal["go on", "stop", "late", "lost"]


class Claim(NamedTuple):
    """A job that is a worker's now, and the number that its words carry."""

    job: Job
    fence: int


class Event(NamedTuple):
    """Something that happened to a job; `seq` rises."""

    seq: int
    at: float
    kind: str
    data: dict[str, Any]


class Census(NamedTuple):
    """Counts over all jobs: by state, workers alive, age of the oldest that waits (s), and what was made so far."""

    states: dict[str, int]
    workers: int
    oldest: float
    made: dict[str, float]


class NoJob(CinecanvasError):
    """There is no such job, or it is somebody else's, which is the same."""


class NotNow(CinecanvasError):
    """The job is not in a state in which this can be done."""


@dataclass(frozen=True)
class Queue:
    """All jobs of a database; lease: s without a word from its worker, and a job is another's; deaths: workers that
    one job may take with it."""

    database: Database
    lease: float = LEASE
    deaths: int = MOST_DEATHS

    def submit(
        self,
        order: Order,
        *,
        account: str = "",
        dialect: str = "native",
        kind: Literal["video", "image"] = "video",
        suffix: str = "",
        model: str,
        echo: Mapping[str, Any] | None = None,
        callback: str = "",
        foretold: Foretold = Foretold(),
        priority: int = 0,
        deadline: float | None = None,
        idempotency: str | None = None,
        body: str = "",
        named: str | None = None,
        price: Tariff = Tariff(),
        admit: Callable[[sa.Connection], None] | None = None,
    ) -> Job:
        """Accept an order: once this returns, it will be made. The same idempotency key gives the same job again.

        `admit` may refuse it by raising: it is asked in the same transaction, one job of a key after the other.
        """
        if idempotency is not None and (len(idempotency) > _MOST_KEY or "\0" in idempotency):
            raise BadRequest("The idempotency key cannot be kept", f"It has at most {_MOST_KEY} characters")
        row = {
            "id": named or str(uuid.uuid4()),
            "account": account,
            "dialect": dialect,
            "kind": kind,
            "suffix": suffix or ("png" if kind == "image" else "mp4"),
            "model": model,
            "asked": kept(order),
            "echo": dict(echo or {}),
            "callback": callback,
            "foretold": foretold.model_dump(),
            "state": "queued",
            "paused": False,
            "priority": priority,
            "place": now(),
            "created": now(),
            "not_before": 0.0,
            "deadline": deadline,
            "worker": "",
            "lease": 0.0,
            "fence": 0,
            "tries": 0,
            "deaths": 0,
            "mark": 0,
            "stop": False,
            "phase": "",
            "step": 0,
            "steps": 0,
            "watchable": 0.0,
            "causes": [],
            "idempotency": idempotency,
            "body": body,
            "hidden": False,
            "price": price.model_dump(),
            "credits": price.credits(foretold.work),
        }
        with self.database.write() as connection:
            if admit is not None:
                connection.execute(sa.select(keys.c.id).where(keys.c.id == account).with_for_update())
            if idempotency is not None:
                same = sa.and_(jobs.c.account == account, jobs.c.idempotency == idempotency)
                before = connection.execute(sa.select(*_COLUMNS).where(same)).one_or_none()
                if before is not None:
                    return _job(before)
            if admit is not None:
                admit(connection)
            try:
                with connection.begin_nested():
                    made = connection.execute(sa.insert(jobs).values(row).returning(*_COLUMNS)).one()
            except sa.exc.IntegrityError:  # on PostgreSQL two at once: the other one was first
                before = connection.execute(sa.select(*_COLUMNS).where(same)).one_or_none() if idempotency else None
                if before is None:
                    raise
                return _job(before)
            hold(connection, made.id, [source.asset for source in order.sources() if source.asset])
            _tell(connection, made.id, "queued", {})
            audit.note(connection, account, "job.accepted", made.id, {"model": model, "credits": made.credits})
            return _job(made)

    def get(self, job: str, *, account: str | None = None) -> Job:
        """One job; with an account, only if it is its own. What was deleted is not there."""
        with self.database.read() as connection:
            return _job(_found(connection, job, account))

    def repeated(self, body: str, *, account: str, within: float = 600.0) -> Job | None:
        """The job that an account got for the same body (its digest) in the last seconds, and has not deleted."""
        lately = sa.and_(jobs.c.created > now() - within, sa.not_(jobs.c.hidden))
        same = sa.and_(jobs.c.account == account, jobs.c.body == body, lately)
        with self.database.read() as connection:
            row = connection.execute(sa.select(*_COLUMNS).where(same).order_by(jobs.c.created.desc())).first()
            return None if row is None else _job(row)

    def listed(
        self,
        *,
        account: str | None = None,
        dialect: str | None = None,
        kind: str | None = None,
        states: Sequence[State] = (),
        text: str = "",
        limit: int = 20,
        offset: int = 0,
        after: str | None = None,
        newest_first: bool = True,
    ) -> list[Job]:
        """Jobs in the order in which they were accepted; `after`: those that follow this one; `text`: whose prompt has
        all of these words, or their beginnings."""
        asked = sa.select(*_COLUMNS).where(sa.not_(jobs.c.hidden))
        if account is not None:
            asked = asked.where(jobs.c.account == account)
        if dialect is not None:
            asked = asked.where(jobs.c.dialect == dialect)
        if kind is not None:
            asked = asked.where(jobs.c.kind == kind)
        if states:
            asked = asked.where(jobs.c.state.in_(states))
        for word in text.split():
            asked = asked.where(jobs.c.asked["prompt"].as_string().icontains(word, autoescape=True))
        with self.database.read() as connection:
            # what was deleted counts as the last: who deletes page by page goes on
            last = None if after is None else _found(connection, after, account, hidden=True)
            page = following(asked, jobs, last, newest_first=newest_first).limit(limit).offset(offset)
            return [_job(row) for row in connection.execute(page)]

    def waiting(self) -> list[Job]:
        """What is queued, in the order in which it will be claimed."""
        asked = sa.select(*_COLUMNS).where(jobs.c.state == "queued").order_by(*_TURN)
        with self.database.read() as connection:
            return [_job(row) for row in connection.execute(asked)]

    def census(self) -> Census:
        """How many jobs, workers and films there are."""
        of_state = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
        alive = sa.select(sa.func.count()).select_from(workers).where(workers.c.beat > now() - LEASE)
        oldest = sa.select(now() - sa.func.min(jobs.c.created)).where(jobs.c.state == "queued")
        sums = [sa.func.coalesce(sa.func.sum(usage.c[name]), 0.0) for name in _MADE]
        with self.database.read() as connection:
            found = {state: int(count) for state, count in connection.execute(of_state)}
            states = dict.fromkeys(get_args(State), 0) | found
            made = connection.execute(sa.select(*sums)).one()
            return Census(
                states=states,
                workers=connection.execute(alive).scalar_one(),
                oldest=connection.execute(oldest).scalar_one() or 0.0,
                made=dict(zip(_MADE, map(float, made), strict=True)),
            )

    def events(self, job: str, *, after: int = 0, limit: int = 1000) -> list[Event]:
        """What happened to a job since the event with a number."""
        asked = sa.select(events.c.seq, events.c.at, events.c.kind, events.c.data).where(
            events.c.job == job, events.c.seq > after
        )
        with self.database.read() as connection:
            return [Event(*row) for row in connection.execute(asked.order_by(events.c.seq).limit(limit))]

    # What an asker may do

    def cancel(self, job: str, *, account: str | None = None) -> Job:
        """A queued job is cancelled at once, a running one within one network call; an ended one stays as it is."""
        with self.database.write() as connection:
            return _job(_cancelled(connection, _found(connection, job, account, lock=True), by=account or ""))

    def hide(self, job: str, *, account: str | None = None) -> Job:
        """Delete: cancelled if it had not ended, and never seen again."""
        with self.database.write() as connection:
            _cancelled(connection, _found(connection, job, account, lock=True), by=account or "")
            row = _changed(connection, job, hidden=True, expires=now())
            audit.note(connection, account or "", "job.deleted", job)
            return _job(row)

    def keep(self, job: str, *, account: str | None = None, kept: bool = True) -> Job:
        """Let what a job made be there for good, or again for the usual while."""
        with self.database.write() as connection:
            row = _found(connection, job, account, lock=True)
            if row.outcome is None:
                raise NotNow(f"The job is {row.state}", "What a job made and still has can be kept")
            return _job(_changed(connection, job, expires=FOREVER if kept else now() + KEEP))

    def pause(self, job: str, *, account: str | None = None, paused: bool = True) -> Job:
        """Let a queued job wait, or let it wait no longer."""
        with self.database.write() as connection:
            return _arranged(connection, job, account, "paused" if paused else "unpaused", paused=paused)

    def prioritize(self, job: str, priority: int, *, account: str | None = None) -> Job:
        """Of queued jobs the highest priority is made first."""
        with self.database.write() as connection:
            return _arranged(connection, job, account, "moved", priority=priority)

    def move(self, job: str, before: str, *, account: str | None = None) -> Job:
        """Put a queued job before another one."""
        with self.database.write(lock="claim") as connection:
            there = _found(connection, before, account)
            if there.state != "queued":
                raise NotNow("A job was to be moved before one that waits no longer", do="Ask for the queue again")
            earlier = sa.and_(
                *(jobs.c.state == "queued", jobs.c.priority == there.priority),
                sa.tuple_(jobs.c.place, jobs.c.id) < sa.tuple_(sa.literal(there.place), sa.literal(there.id)),
            )
            low = connection.execute(sa.select(sa.func.max(jobs.c.place)).where(earlier)).scalar_one()
            place = there.place - 1.0 if low is None else (low + there.place) / 2
            if low is not None and not low < place < there.place:  # no number is left between them
                connection.execute(sa.update(jobs).where(earlier).values(place=jobs.c.place - 1.0))
                place = there.place - 0.5
            return _arranged(connection, job, account, "moved", priority=there.priority, place=place)

    # What a worker says

    def claim(self, worker: str, *, models: Sequence[str] = ()) -> Claim | None:
        """The next job, this worker's from now on: one whose worker was lost, or the first that may begin."""
        with self.database.write(lock="claim") as connection:
            self._bury(connection)
            able = [jobs.c.model.in_(models)] if models else []
            lapsed = sa.select(jobs.c.id).where(jobs.c.state == "running", jobs.c.lease < now(), *able)
            lapsed = lapsed.order_by(jobs.c.lease).limit(1).with_for_update(skip_locked=True)
            others = jobs.alias()
            at_work = sa.select(sa.func.count()).where(others.c.account == jobs.c.account, others.c.state == "running")
            most = sa.select(keys.c.running).where(keys.c.id == jobs.c.account)
            free = sa.or_(
                most.scalar_subquery().is_(None),
                at_work.correlate(jobs).scalar_subquery() < most.scalar_subquery(),
            )
            ready = sa.select(jobs.c.id).where(
                jobs.c.state == "queued", sa.not_(jobs.c.paused), jobs.c.not_before <= now(), free, *able
            )
            ready = ready.order_by(*_TURN).limit(1).with_for_update(of=jobs, skip_locked=True)
            job = connection.execute(lapsed).scalar_one_or_none()
            taken_over = job is not None
            if job is None:
                job = connection.execute(ready).scalar_one_or_none()
            if job is None:
                return None
            row = _changed(
                connection,
                job,
                state="running",
                worker=worker,
                lease=now() + self.lease,
                fence=jobs.c.fence + 1,
                started=sa.func.coalesce(jobs.c.started, now()),
                deaths=_LOST if taken_over else jobs.c.deaths,
                mark=sa.case((_FURTHER, jobs.c.step), else_=jobs.c.mark),
            )
            _tell(connection, job, "running", {"again": row.fence > 1})
            if row.fence == 1:
                _announced(connection, row)
            return Claim(_job(row), row.fence)

    def tell(
        self, claim: Claim, kind: str, data: Mapping[str, Any], *, holds: Iterable[str] = (), **values: Any
    ) -> Word:
        """A worker's word about its job: what happened, assets it needs, columns it changes; the answer: what to do."""
        with self.database.write() as connection:
            held = sa.and_(jobs.c.id == claim.job.id, jobs.c.fence == claim.fence, jobs.c.state == "running")
            said = sa.update(jobs).where(held).values(lease=now() + self.lease, **values)
            row = connection.execute(said.returning(jobs.c.stop, _LATE)).one_or_none()
            if row is None:
                return "lost"
            hold(connection, claim.job.id, holds)
            _tell(connection, claim.job.id, kind, data)
            return _word(*row)

    def beat(self, worker: str, *, claims: Iterable[Claim] = (), models: Sequence[str] = ()) -> dict[str, Word]:
        """A sign of life, which holds the leases of what a worker has in hand; what each of these jobs is to do."""
        mine = {claim.job.id: claim.fence for claim in claims}
        words: dict[str, Word] = dict.fromkeys(mine, "lost")
        with self.database.write() as connection:
            row = {"id": worker, "started": now(), "beat": now(), "models": list(models)}
            known = inserted(connection, workers).values(row)
            connection.execute(known.on_conflict_do_update(index_elements=["id"], set_={"beat": now()}))
            if mine:
                held = sa.and_(sa.tuple_(jobs.c.id, jobs.c.fence).in_(mine.items()), jobs.c.state == "running")
                said = sa.update(jobs).where(held).values(lease=now() + self.lease)
                for job, stop, late in connection.execute(said.returning(jobs.c.id, jobs.c.stop, _LATE)):
                    words[job] = _word(stop, late)
        return words

    def finish(
        self, claim: Claim, state: State, *, outcome: Outcome | None = None, error: Trouble | None = None
    ) -> Word:
        """The end of a job, said by the worker that holds it; said again, it changes nothing."""
        with self.database.write() as connection:
            row = _claimed(connection, claim)
            if row is None:
                return "lost"
            if row.state == "running":
                _ended(connection, row, state, outcome=outcome, error=error)
            return "go on"

    def again(self, claim: Claim, cause: Trouble, *, after: float) -> Word:
        """Back into the queue, for a cause that may pass, not to be tried before some seconds; a few times only. Said
        again, it changes nothing."""
        with self.database.write() as connection:
            row = _claimed(connection, claim)
            if row is None:
                return "lost"
            if row.state != "running":
                return "go on"
            if row.stop:
                _ended(connection, row, "cancelled")
            elif row.tries + 1 >= MOST_TRIES:
                _ended(connection, row, "failed", error=cause)
            else:
                causes = [*row.causes, cause.model_dump()]
                _released(connection, row.id, tries=row.tries + 1, causes=causes, not_before=now() + after)
                _tell(connection, row.id, "queued", {"cause": cause.message})
            return "go on"

    def release(self, worker: str, *, lost: bool) -> int:
        """What a worker held is queued again: it ended (`lost`: it was killed, and the job may be why)."""
        with self.database.write() as connection:
            mine = sa.select(*_COLUMNS).where(jobs.c.worker == worker, jobs.c.state == "running")
            rows = connection.execute(mine.with_for_update()).all()
            for row in rows:
                if row.stop:
                    _ended(connection, row, "cancelled")
                    continue
                _released(connection, row.id, deaths=_LOST if lost else jobs.c.deaths)
                _tell(connection, row.id, "queued", {})
            connection.execute(sa.delete(workers).where(workers.c.id == worker))
            return len(rows)

    # What time brings

    def _bury(self, connection: sa.Connection) -> None:
        """Jobs whose time is over, whose askers gave up on them, or that took too many workers with them."""
        late = sa.and_(_LIVE, jobs.c.deadline < now(), sa.or_(jobs.c.state == "queued", jobs.c.lease < now()))
        deaths = sa.case((jobs.c.state == "running", _LOST), else_=jobs.c.deaths)
        deadly = sa.and_(_LIVE, deaths >= self.deaths, jobs.c.lease < now())
        unwanted = sa.and_(jobs.c.state == "running", jobs.c.stop, jobs.c.lease < now())
        found = sa.select(*_COLUMNS, deaths.label("lost")).where(sa.or_(late, deadly, unwanted))
        for row in connection.execute(found.with_for_update(skip_locked=True)).all():
            lost = row.lost
            if row.stop:
                _ended(connection, row, "cancelled")
            elif lost >= self.deaths:
                row = _changed(connection, row.id, deaths=lost)
                message = f"{lost} workers were lost over this job."
                _ended(connection, row, "failed", error=Trouble(code="worker_lost", message=message))
            else:
                _ended(connection, row, "failed", error=LATE)

    def sweep(self, forget: Callable[[str], None], *, idle_days: float = 30.0) -> None:
        """Forget what has expired, the workers that are gone, and the assets (`forget` a digest) that nobody needs."""
        with self.database.write(lock="sweep") as connection:
            self._bury(connection)
            connection.execute(sa.delete(workers).where(workers.c.beat < now() - 60 * self.lease))
            over = sa.and_(jobs.c.state.in_(ENDED), jobs.c.expires < now())
            for job in connection.execute(sa.select(jobs.c.id).where(over)).scalars().all():
                _changed(connection, job, outcome=sa.null(), expires=sa.null())
                connection.execute(sa.delete(events).where(events.c.job == job))
                drop_holds(connection, job)
            old = sa.and_(jobs.c.finished < now() - idle_days * 86400.0, jobs.c.expires.is_(None))
            gone = connection.execute(
                sa.delete(jobs).where(jobs.c.state.in_(ENDED), old).returning(jobs.c.id)
            ).scalars()
            connection.execute(sa.delete(deliveries).where(deliveries.c.job.in_(gone.all())))
        while self._swept(forget):
            pass

    def _swept(self, forget: Callable[[str], None]) -> bool:
        """One asset that nobody needs any more: who comes to need it waits here, and then sees that it is gone."""
        with self.database.write() as connection:
            marked = sa.select(holds.c.digest).where(holds.c.holder == "", holds.c.since < now() - GRACE)
            digest = connection.execute(marked.limit(1).with_for_update(skip_locked=True)).scalar_one_or_none()
            if digest is None:
                return False
            if not connection.execute(sa.select(holds).where(holds.c.digest == digest, holds.c.holder != "")).first():
                forget(digest)
            connection.execute(sa.delete(holds).where(holds.c.digest == digest, holds.c.holder == ""))
            return True


_LATE = sa.func.coalesce(jobs.c.deadline < now(), sa.false())
_TURN = (jobs.c.priority.desc(), jobs.c.place, jobs.c.id)


def _job(row: Any) -> Job:
    return Job.model_validate(dict(row._mapping))


def _word(stop: bool, late: bool) -> Word:
    return "stop" if stop else "late" if late else "go on"


def _found(
    connection: sa.Connection, job: str, account: str | None, *, lock: bool = False, hidden: bool = False
) -> Any:
    asked = sa.select(*_COLUMNS).where(jobs.c.id == job.replace("\0", ""))  # PostgreSQL takes no NUL
    if not hidden:
        asked = asked.where(sa.not_(jobs.c.hidden))
    if account is not None:
        asked = asked.where(jobs.c.account == account)
    row = connection.execute(asked.with_for_update() if lock else asked).one_or_none()
    if row is None:
        raise NoJob("There is no such job", do="Check its id")
    return row


def _claimed(connection: sa.Connection, claim: Claim) -> Any:
    """The row of a claim, if nobody has claimed it since."""
    held = sa.and_(jobs.c.id == claim.job.id, jobs.c.fence == claim.fence)
    return connection.execute(sa.select(*_COLUMNS).where(held).with_for_update()).one_or_none()


def _changed(connection: sa.Connection, job: str, **values: Any) -> Any:
    return connection.execute(sa.update(jobs).where(jobs.c.id == job).values(**values).returning(*_COLUMNS)).one()


def _cancelled(connection: sa.Connection, row: Any, *, by: str) -> Any:
    """At once, or asked of the worker, or too late."""
    if row.state == "queued":
        row = _ended(connection, row, "cancelled")
    elif row.state == "running" and not row.stop:
        _tell(connection, row.id, "stopping", {})
        row = _changed(connection, row.id, stop=True)
    else:
        return row
    audit.note(connection, by, "job.cancelled", row.id)
    return row


def _arranged(connection: sa.Connection, job: str, account: str | None, told: str, **values: Any) -> Job:
    row = _found(connection, job, account, lock=True)
    if row.state != "queued":
        raise NotNow(f"The job is {row.state}", "Only a job that waits can be paused or moved")
    _tell(connection, job, told, {})
    return _job(_changed(connection, job, **values))


def _released(connection: sa.Connection, job: str, **values: Any) -> Any:
    """Queued, by nobody's fault but what `values` say."""
    return _changed(connection, job, state="queued", worker="", lease=0.0, eta=None, **values)


def _ended(
    connection: sa.Connection, row: Any, state: State, *, outcome: Outcome | None = None, error: Trouble | None = None
) -> Any:
    """The end of a job, what it used, and whom that is to be told, in one transaction."""
    cost = Tariff.model_validate(row.price).credits(outcome.work) if outcome else 0
    ended = _changed(
        connection,
        row.id,
        state=state,
        worker="",
        lease=0.0,
        eta=None,
        finished=now(),
        expires=now() + (0.0 if row.hidden else KEEP),
        outcome=outcome.model_dump(mode="json") if outcome else sa.null(),
        error=error.model_dump() if error else sa.null(),
        credits=cost,
    )
    _tell(connection, row.id, state, {"error": error.message} if error else {})
    if outcome is not None:
        hold(connection, row.id, [asset.digest for asset in outcome.assets])
        _used(connection, ended, outcome)
    _announced(connection, ended)
    return ended


def _used(connection: sa.Connection, row: Any, outcome: Outcome) -> None:
    """What an account has used, by day and model."""
    facts = {"jobs": 1, "credits": row.credits, **outcome.work.model_dump()}
    name = {
        "account": row.account,
        "day": time.strftime("%Y-%m-%d", time.gmtime(row.finished)),
        "model": row.model,
    }
    more = {column: usage.c[column] + value for column, value in facts.items()}
    first = inserted(connection, usage).values(name | facts)  # two workers may make it the first of a day at once
    connection.execute(first.on_conflict_do_update(index_elements=list(name), set_=more))


def _announced(connection: sa.Connection, row: Any) -> None:
    """A delivery for whoever is to be told of a job's state: a callback of its beginning too."""
    told = [""] if row.callback else []
    mine = sa.and_(endpoints.c.account == row.account, endpoints.c.dialect == row.dialect, endpoints.c.enabled)
    asked = connection.execute(sa.select(endpoints.c.id, endpoints.c.states).where(mine))
    told += [endpoint for endpoint, states in asked if row.state in states]
    for endpoint in told:
        row_of = {"id": str(uuid.uuid4()), "account": row.account, "job": row.id, "endpoint": endpoint}
        row_of |= {"state": row.state}
        blank = {"status": "waiting", "attempts": 0, "due": now(), "lease": 0.0, "log": [], "created": now()}
        connection.execute(sa.insert(deliveries).values(row_of | blank))


def hold(connection: sa.Connection, holder: str, digests: Iterable[str]) -> None:
    """Somebody, a job or a file, needs these assets; whether they are in the store is to be seen after this."""
    for digest in sorted(set(digests)):  # in one order, so that no two wait for each other
        connection.execute(sa.delete(holds).where(holds.c.digest == digest, holds.c.holder == ""))
        held = inserted(connection, holds).values(digest=digest, holder=holder, since=now())
        connection.execute(held.on_conflict_do_nothing())


def drop_holds(connection: sa.Connection, holder: str) -> None:
    """Somebody needs nothing any more: each asset is marked, and the sweep sees later whether another needs it."""
    mine = connection.execute(sa.delete(holds).where(holds.c.holder == holder).returning(holds.c.digest)).scalars()
    for digest in sorted(mine.all()):
        mark = inserted(connection, holds).values(digest=digest, holder="", since=now())
        connection.execute(
            mark.on_conflict_do_update(index_elements=["digest", "holder"], set_={"since": mark.excluded.since})
        )


def _tell(connection: sa.Connection, job: str, kind: str, data: Mapping[str, Any]) -> None:
    connection.execute(sa.insert(events).values(job=job, at=now(), kind=kind, data=dict(data)))
