"""The ledger: what accounts have used."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from cinecanvas.jobs.database import Database
from cinecanvas.jobs.keys import Caller
from cinecanvas.jobs.tables import usage

DAY = 86400.0  # s


class Spent(BaseModel):
    """What was used: of an account, on a day (YYYY-MM-DD, UTC), with a model."""

    model_config = ConfigDict(frozen=True)

    account: str = ""
    day: str = ""
    model: str = ""
    jobs: int = 0
    megapixel_frames: float = 0.0
    video_seconds: float = 0.0
    compute_seconds: float = 0.0

    @property
    def credits(self) -> int:
        return math.ceil(5 * self.video_seconds)


@dataclass(frozen=True)
class Ledger:
    """The ledger of a database."""

    database: Database

    def balance(self, caller: Caller) -> int | None:
        """Credits that are left; None: as many as there are."""
        return None

    def spent(self, *, account: str | None = None, since: str = "", until: str = "9999") -> list[Spent]:
        """What was used from one day to another (YYYY-MM-DD, UTC, both included), by account, day and model."""
        asked = sa.select(*(usage.c[name] for name in Spent.model_fields)).where(usage.c.day.between(since, until))
        if account is not None:
            asked = asked.where(usage.c.account == account)
        with self.database.read() as connection:
            rows = connection.execute(asked.order_by(usage.c.day, usage.c.account, usage.c.model))
            return [Spent.model_validate(dict(row._mapping)) for row in rows]

    def today(self, *, ago: int = 0) -> str:
        """The day by the database's clock, or one some days ago: YYYY-MM-DD, UTC."""
        return time.strftime("%Y-%m-%d", time.gmtime(self.database.clock() - ago * DAY))
