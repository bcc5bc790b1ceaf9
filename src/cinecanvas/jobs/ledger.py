"""The ledger: what accounts have used, what they may still use, and the place where a job is let in or refused.

Reserve, then settle: a job that waits or runs counts with what was foretold of it, one that is done with what it used,
and one that failed or was cancelled with nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from cinecanvas.errors import CinecanvasError
from cinecanvas.jobs import audit
from cinecanvas.jobs.database import Database, now
from cinecanvas.jobs.job import Foretold
from cinecanvas.jobs.keys import Caller
from cinecanvas.jobs.tables import jobs, usage
from cinecanvas.jobs.tariff import Tariff

DAY = 86400.0  # s
_LIVE = jobs.c.state.in_(("queued", "running"))
_SUMS = ("jobs", "megapixel_frames", "video_seconds", "compute_seconds", "credits")

Limit = Literal["queued", "per_minute", "daily_seconds", "credits"]
Admit = Callable[[sa.Connection], None]


class OverQuota(CinecanvasError):
    """A limit of the key is reached; `retry_after` seconds may bring room, None: time alone will not."""

    def __init__(self, asked: str, possible: str = "", do: str = "", *, limit: Limit, retry_after: float | None = None):
        self.limit, self.retry_after = limit, retry_after
        super().__init__(asked, possible, do)


class Spent(BaseModel):
    """What was used: of an account, on a day (YYYY-MM-DD, UTC), with a model; "" where all of them are meant."""

    model_config = ConfigDict(frozen=True)

    account: str = ""
    day: str = ""
    model: str = ""
    jobs: int = 0
    megapixel_frames: float = 0.0
    video_seconds: float = 0.0
    compute_seconds: float = 0.0
    credits: int = 0


@dataclass(frozen=True)
class Ledger:
    """The ledger of a database, and the prices at which jobs are accepted."""

    database: Database
    tariff: Tariff = field(default_factory=Tariff)

    def admission(self, caller: Caller, foretold: Foretold) -> Admit:
        """What Queue.submit is to ask in its own transaction: it raises OverQuota, and then nothing was accepted."""

        def admit(connection: sa.Connection) -> None:
            quota, account = caller.quota, caller.account
            if quota.queued is not None:
                _check_queued(connection, account, quota.queued)
            if quota.per_minute is not None:
                _check_rate(connection, account, quota.per_minute)
            if quota.daily_seconds is not None:
                _check_day(connection, account, quota.daily_seconds, foretold.work.video_seconds)
            if quota.credits is not None:
                _check_credits(connection, account, quota.credits, self.tariff.credits(foretold.work))

        return admit

    @contextmanager
    def admitting(self, caller: Caller, foretold: Foretold) -> Iterator[Admit]:
        """`admission` for one job; a refusal is written down in the audit, at most once a minute."""
        try:
            yield self.admission(caller, foretold)
        except OverQuota as refused:
            with self.database.write() as connection:
                if not audit.noted(connection, caller.account, "quota.refused", within=60.0):
                    audit.note(connection, caller.account, "quota.refused", caller.account, {"limit": refused.limit})
            raise

    def admit(self, caller: Caller, foretold: Foretold) -> None:
        """Whether a job would be let in now, which promises nothing: only `admission` holds its place."""
        with self.database.read() as connection:
            self.admission(caller, foretold)(connection)

    def balance(self, caller: Caller) -> int | None:
        """Credits that are left, never less than none; None: as many as there are."""
        if caller.quota.credits is None:
            return None
        with self.database.read() as connection:
            return max(0, caller.quota.credits - _charged(connection, caller.account))

    def spent(self, *, account: str | None = None, since: str = "", until: str = "9999") -> list[Spent]:
        """What was used from one day to another (YYYY-MM-DD, UTC, both included), by account, day and model."""
        asked = sa.select(*(usage.c[name] for name in Spent.model_fields)).where(usage.c.day.between(since, until))
        if account is not None:
            asked = asked.where(usage.c.account == account)
        with self.database.read() as connection:
            rows = connection.execute(asked.order_by(usage.c.day, usage.c.account, usage.c.model))
            return [Spent.model_validate(dict(row._mapping)) for row in rows]

    def total(self, *, account: str | None = None, since: str = "", until: str = "9999") -> Spent:
        """All of it as one."""
        rows = self.spent(account=account, since=since, until=until)
        return Spent(account=account or "", **{name: sum(getattr(row, name) for row in rows) for name in _SUMS})

    def today(self, *, ago: int = 0) -> str:
        """The day by the database's clock, or one some days ago: YYYY-MM-DD, UTC."""
        return _day(self.database.clock() - ago * DAY)


def _check_queued(connection: sa.Connection, account: str, most: int) -> None:
    waiting = sa.select(sa.func.count()).where(jobs.c.account == account, jobs.c.state == "queued")
    count = connection.execute(waiting).scalar_one()
    if count >= most:
        raise OverQuota(
            f"{count} jobs of this key are waiting", f"At most {most} may wait", "Wait for one to begin", limit="queued"
        )


def _check_rate(connection: sa.Connection, account: str, most: int) -> None:
    recent = sa.select(jobs.c.created - now() + 60.0).where(jobs.c.account == account, jobs.c.created > now() - 60.0)
    left = connection.execute(recent.order_by(jobs.c.created.desc()).limit(most)).scalars().all()
    if len(left) >= most:
        raise OverQuota(
            f"{most} jobs of this key were accepted within a minute",
            "That is the most",
            "Wait a moment",
            limit="per_minute",
            retry_after=max(0.0, left[-1]),
        )


def _check_day(connection: sa.Connection, account: str, most: float, asked: float) -> None:
    clock = float(connection.execute(sa.select(now())).scalar_one())
    today = sa.select(sa.func.sum(usage.c.video_seconds)).where(usage.c.account == account, usage.c.day == _day(clock))
    used = connection.execute(today).scalar_one() or 0.0
    live = sa.select(jobs.c.foretold).where(jobs.c.account == account, _LIVE)
    reserved = sum(Foretold.model_validate(told).work.video_seconds for told in connection.execute(live).scalars())
    if used + reserved + asked > most * (1 + 1e-9):
        raise OverQuota(
            f"{asked:.4g} s of video were asked, and {used + reserved:.4g} s are made or on their way today",
            f"A day has {most:.4g} s for this key",
            limit="daily_seconds",
            retry_after=None if asked > most else DAY - clock % DAY,
        )


def _check_credits(connection: sa.Connection, account: str, most: int, asked: int) -> None:
    left = max(0, most - _charged(connection, account))
    if asked > left:
        raise OverQuota(f"The job costs {asked} credits", f"This key has {left} left of {most}", limit="credits")


def _charged(connection: sa.Connection, account: str) -> int:
    """Credits that an account has spent, or has reserved."""
    spent = sa.select(sa.func.sum(usage.c.credits)).where(usage.c.account == account)
    reserved = sa.select(sa.func.sum(jobs.c.credits)).where(jobs.c.account == account, _LIVE)
    return sum(int(connection.execute(sums).scalar_one() or 0) for sums in (spent, reserved))


def _day(clock: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(clock))
