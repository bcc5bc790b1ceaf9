"""The courier: what is to be told is taken from the database, sent, and noted, until it has arrived or is given up.

A message may arrive twice, if the courier is lost between sending and noting, and never less than once.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import sqlalchemy as sa

from cinecanvas.errors import BadRequest, CinecanvasError
from cinecanvas.jobs.database import Database, NoDatabase, now
from cinecanvas.jobs.hooks import DELIVERY, Attempt, Delivery, Endpoint, Hooks, NoHook, signed
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.queue import NoJob, Queue
from cinecanvas.jobs.tables import deliveries
from cinecanvas.media.fetch import Web, post

LOG = logging.getLogger("cinecanvas.courier")
AGAIN = (5.0, 30.0, 120.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)  # s before each further try
SECONDS = 10.0  # that a receiver may take
_LEASE = 60.0  # s in which what was taken is sent and noted
_JITTER = 0.2
_SWEEP = 3600.0  # s between two looks at what is old
_AT_ONCE = 8  # messages on their way
_FOR_ONE = 4  # of them to one receiver, so that one which hangs does not hold up the others

Render = Callable[[Job, str], bytes]  # a job, and which of its states is told; the body, as its dialect has it


class Answer(NamedTuple):
    """What came of one try: the HTTP status, 0 if none came, the seconds it took, and a word of why not."""

    status: int
    seconds: float = 0.0
    note: str = ""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Courier:
    """What sends the messages of a database; several at once do not send the same."""

    database: Database
    render: Render
    web: Web = field(default_factory=Web)

    def deliver(self, *, limit: int = 32) -> int:
        """One round: take what is due, send it, note what came of it; how many there were."""
        taken = self.due(limit)
        with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
            list(pool.map(self._carry, taken))
        return len(taken)

    def run(self, stop: threading.Event, *, every: float = 1.0) -> None:
        """Round after round until told to stop; where there is nothing to do, one in so many seconds."""
        swept = 0.0
        while not stop.is_set():
            busy = 0
            try:
                busy = self.deliver()
                if time.monotonic() - swept > _SWEEP:
                    swept = time.monotonic()
                    Hooks(self.database).sweep()
            except CinecanvasError as error:
                LOG.warning("nothing could be told: %s", error)
            if not busy:
                stop.wait(every)

    def test(self, endpoint: Endpoint, body: bytes) -> Attempt:
        """Tell an endpoint something now, once; it stands in its log too."""
        message = str(uuid.uuid4())
        answer = send(endpoint.url, body, message, Hooks(self.database).secrets(endpoint.id), web=self.web)
        with self.database.write() as connection:
            at = float(connection.execute(sa.select(now())).scalar_one())
            attempt = Attempt(at=at, status=answer.status, seconds=answer.seconds, note=answer.note)
            row = Delivery(
                id=message,
                account=endpoint.account,
                job="",
                endpoint=endpoint.id,
                state="test",
                status="delivered" if answer.ok else "failed",
                attempts=1,
                due=at,
                log=(attempt,),
                created=at,
            )
            connection.execute(sa.insert(deliveries).values(**row.model_dump(), lease=0.0))
        return attempt

    def due(self, limit: int = 32) -> list[Delivery]:
        """What is to be sent now, this courier's for a minute: for each job and receiver in the order of its states."""
        earlier = deliveries.alias()
        before = sa.exists().where(
            earlier.c.job == deliveries.c.job,
            earlier.c.endpoint == deliveries.c.endpoint,
            earlier.c.status == "waiting",
            earlier.c.attempts == 0,
            earlier.c.created < deliveries.c.created,
        )
        receiver = (deliveries.c.account, deliveries.c.endpoint)
        turn = sa.func.row_number().over(partition_by=receiver, order_by=(deliveries.c.due, deliveries.c.id))
        free = sa.and_(deliveries.c.status == "waiting", deliveries.c.due <= now(), deliveries.c.lease < now())
        ready = sa.select(deliveries.c.id, turn.label("turn")).where(free, sa.not_(before)).subquery()
        chosen = sa.select(ready.c.id).where(ready.c.turn <= _FOR_ONE)
        asked = sa.select(deliveries.c.id).where(deliveries.c.id.in_(chosen), free).order_by(deliveries.c.due)
        with self.database.write() as connection:
            mine = connection.execute(asked.limit(limit).with_for_update(skip_locked=True)).scalars().all()
            held = sa.update(deliveries).where(deliveries.c.id.in_(mine)).values(lease=now() + _LEASE)
            rows = connection.execute(held.returning(*DELIVERY)).all()
        return sorted((Delivery.model_validate(dict(row._mapping)) for row in rows), key=lambda one: (one.due, one.id))

    def done(self, delivery: Delivery, answer: Answer) -> None:
        """Note what came of a try: it has arrived, is tried again later, or is given up."""
        tries = delivery.attempts + 1
        gone = answer.status == 410 or answer.note in ("gone", "overtaken")
        ended = answer.ok or gone or tries > len(AGAIN)
        after = 0.0 if ended else AGAIN[tries - 1] * random.uniform(1 - _JITTER, 1 + _JITTER)
        with self.database.write() as connection:
            at = float(connection.execute(sa.select(now())).scalar_one())
            attempt = Attempt(at=at, status=answer.status, seconds=answer.seconds, note=answer.note)
            same = sa.and_(
                deliveries.c.id == delivery.id,
                deliveries.c.status == "waiting",
                deliveries.c.attempts == delivery.attempts,
            )
            status = ("delivered" if answer.ok else "failed") if ended else "waiting"
            values = {"status": status, "attempts": tries, "due": at + after, "lease": 0.0}
            values["log"] = [past.model_dump() for past in (*delivery.log, attempt)]
            connection.execute(sa.update(deliveries).where(same).values(values))

    def _carry(self, delivery: Delivery) -> None:
        """One message on its way; whatever goes wrong, the others go on."""
        try:
            try:
                answer = self._sent(delivery)
            except NoDatabase:
                raise
            except Exception:
                LOG.exception("delivery %s of job %s could not be written", delivery.id, delivery.job)
                answer = Answer(0, note="internal")
            self.done(delivery, answer)
        except NoDatabase as error:  # it is due again when its lease is over
            LOG.warning("delivery %s of job %s was not noted: %s", delivery.id, delivery.job, error)

    def _sent(self, delivery: Delivery) -> Answer:
        hooks = Hooks(self.database)
        try:
            job = Queue(self.database).get(delivery.job, account=delivery.account)
            if delivery.endpoint:
                endpoint = hooks.get(delivery.endpoint, account=delivery.account)
                url, secrets = endpoint.url, hooks.secrets(endpoint.id)
                if not endpoint.enabled:
                    return Answer(0, note="gone")
            else:
                url, secrets = job.callback, (hooks.callback_secret(job.account),)
        except (NoJob, NoHook):
            return Answer(0, note="gone")
        if delivery.attempts and delivery.state == "running" and job.ended:
            return Answer(0, note="overtaken")
        answer = send(url, self.render(job, delivery.state), delivery.id, secrets, web=self.web)
        facts = {"delivery": delivery.id, "job": job.id, "status": answer.status, "seconds": answer.seconds}
        LOG.info("delivery %(delivery)s of job %(job)s: %(status)s in %(seconds)s s", facts)
        return answer


def send(url: str, body: bytes, message: str, secrets: Sequence[str], *, web: Web = Web()) -> Answer:
    """One signed message to a URL, once."""
    began = time.monotonic()
    note, status = "", 0
    try:
        web = replace(web, seconds=min(SECONDS, web.seconds))
        status = post(url, body, signed(body, message, secrets, at=time.time()), web=web)
        note = "redirect" if 300 <= status < 400 else ""
    except BadRequest:
        note = "refused"
    except CinecanvasError:
        note = "unreachable"
    return Answer(status, round(time.monotonic() - began, 3), note)
