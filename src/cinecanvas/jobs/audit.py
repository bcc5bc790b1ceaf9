"""The audit: who did what, in rows that are only ever added, each sealed by a hash that holds the one before it.

Ids, names of limits and numbers stand in it: no prompt, no URL and no address.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from cinecanvas.jobs.database import Database, alone, now
from cinecanvas.jobs.tables import audit

FIRST = "0" * 64  # what stands before the first row
_PAGE = 1000  # rows that are read at a time


class Entry(NamedTuple):
    """A row; `at` in seconds since 1970, `account` "" for this machine's own user."""

    seq: int
    at: float
    account: str
    action: str
    object: str
    data: dict[str, Any]
    hash: str


def note(
    connection: sa.Connection, account: str, action: str, what: str, data: Mapping[str, Any] | None = None
) -> None:
    """Write down what is done in this same transaction; let it be its last word, since others wait for its end."""
    alone(connection, "audit")
    last = connection.execute(sa.select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).one_or_none()
    seq, before = (last.seq + 1, last.hash) if last is not None else (1, FIRST)
    at = float(connection.execute(sa.select(now())).scalar_one())
    entry = Entry(seq, at, account, action, what, dict(data or {}), "")
    connection.execute(sa.insert(audit).values(entry._replace(hash=_sealed(before, entry))._asdict()))


def noted(connection: sa.Connection, account: str, action: str, *, within: float) -> bool:
    """Whether an account has such an entry from the last seconds."""
    same = sa.and_(audit.c.account == account, audit.c.action == action, audit.c.at > now() - within)
    return connection.execute(sa.select(audit.c.seq).where(same).limit(1)).first() is not None


@dataclass(frozen=True)
class Audit:
    """The audit of a database, to be read."""

    database: Database

    def verify(self) -> int | None:
        """The first row that is not what was written, or is missing; None: all of them hold.

        Rows cut off at the end leave no trace here: keep `head` elsewhere, and ask `has` for it later.
        """
        seq, before = 0, FIRST
        while page := self.listed(after=seq, limit=_PAGE):
            for entry in page:
                if entry.seq != seq + 1 or entry.hash != _sealed(before, entry):
                    return seq + 1
                seq, before = entry.seq, entry.hash
        return None

    def head(self) -> str:
        """The hash of the last row, which holds all the others."""
        with self.database.read() as connection:
            last = sa.select(audit.c.hash).order_by(audit.c.seq.desc()).limit(1)
            return connection.execute(last).scalar_one_or_none() or FIRST

    def has(self, head: str) -> bool:
        """Whether a hash that was the last once is still there."""
        with self.database.read() as connection:
            same = sa.select(audit.c.seq).where(audit.c.hash == head)
            return head == FIRST or connection.execute(same).first() is not None

    def listed(
        self, *, after: int = 0, limit: int = 100, account: str | None = None, newest_first: bool = False
    ) -> list[Entry]:
        """Rows in their order; `after`: those with a higher number, `account`: one's own."""
        asked = sa.select(*(audit.c[name] for name in Entry._fields)).where(audit.c.seq > after)
        if account is not None:
            asked = asked.where(audit.c.account == account)
        way = audit.c.seq.desc() if newest_first else audit.c.seq
        with self.database.read() as connection:
            return [Entry(*row) for row in connection.execute(asked.order_by(way).limit(limit))]


def _sealed(before: str, entry: Entry) -> str:
    facts = {name: value for name, value in entry._asdict().items() if name != "hash"}
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(f"{before}{text}".encode()).hexdigest()
