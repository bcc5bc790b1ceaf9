"""What people bring along: files that wait for their bytes or have them, each its account's own."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from cinecanvas.errors import CinecanvasError
from cinecanvas.jobs.database import Database, following, now
from cinecanvas.jobs.queue import drop_holds, hold
from cinecanvas.jobs.tables import files, holds, jobs
from cinecanvas.media.assets import Asset

DAY = 86400.0  # s
# in a name they forge lines, and turn it round
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
FileState = Literal["pending", "ready", "failed", "deleted"]


class StoredFile(BaseModel):
    """A file that somebody brought; times in seconds since 1970, no asset until its bytes are here."""

    model_config = ConfigDict(frozen=True)

    id: str
    account: str
    dialect: str
    name: str
    purpose: str
    state: FileState
    trouble: str
    asset: Asset | None
    media_type: str
    bytes: int
    created: float
    expires: float | None


class NoFile(CinecanvasError):
    """There is no such file, or it is somebody else's, which is the same."""


_COLUMNS = [files.c[name] for name in StoredFile.model_fields]


@dataclass(frozen=True)
class Files:
    """The files of a database."""

    database: Database

    def add(
        self,
        *,
        account: str,
        dialect: str,
        name: str = "",
        purpose: str = "",
        asset: Asset | None = None,
        media_type: str = "",
        bytes_: int = 0,
        days: float | None = None,
    ) -> StoredFile:
        """A file with its asset, or a place for one that is still to come."""
        row = {
            "id": str(uuid.uuid4()),
            "account": account,
            "dialect": dialect,
            "name": _CONTROL.sub("", name)[:255],
            "purpose": purpose[:40],
            "state": "pending" if asset is None else "ready",
            "trouble": "",
            "digest": "" if asset is None else asset.digest,
            "asset": sa.null() if asset is None else asset.model_dump(mode="json"),
            "media_type": media_type[:100] if asset is None else asset.media_type,
            "bytes": bytes_ if asset is None else asset.bytes,
            "created": now(),
            "expires": None if days is None else now() + days * DAY,
        }
        with self.database.write() as connection:
            made = connection.execute(sa.insert(files).values(row).returning(*_COLUMNS)).one()
            hold(connection, made.id, [asset.digest] if asset else [])
            return _file(made)

    def get(self, file: str, *, account: str | None = None) -> StoredFile:
        """One file; with an account, only if it is its own."""
        with self.database.read() as connection:
            return _file(_found(connection, file, account))

    def fill(self, file: str, asset: Asset) -> StoredFile:
        """The bytes that a file waited for are here; a second time they are refused."""
        facts = {
            "state": "ready",
            "digest": asset.digest,
            "asset": asset.model_dump(mode="json"),
            "media_type": asset.media_type,
            "bytes": asset.bytes,
        }
        return self._became(file, facts, [asset.digest])

    def fail(self, file: str, why: str) -> StoredFile:
        """What came for a file is not what it can be."""
        return self._became(file, {"state": "failed", "trouble": why}, [])

    def delete(self, file: str, *, account: str | None = None) -> None:
        """Forget a file; jobs that were made of it have what they need."""
        with self.database.write() as connection:
            _found(connection, file, account)
            connection.execute(sa.delete(files).where(files.c.id == file))
            drop_holds(connection, file)

    def listed(
        self,
        *,
        account: str,
        dialect: str | None = None,
        purpose: str | None = None,
        besides: tuple[str, ...] = (),
        state: FileState | None = None,
        after: str | None = None,
        limit: int = 100,
        newest_first: bool = True,
    ) -> list[StoredFile]:
        """Files in the order in which they came, but for some purposes; `after`: those that follow this one."""
        asked = sa.select(*_COLUMNS).where(files.c.account == account)
        if dialect is not None:
            asked = asked.where(files.c.dialect == dialect)
        if purpose is not None:
            asked = asked.where(files.c.purpose == purpose)
        if state is not None:
            asked = asked.where(files.c.state == state)
        if besides:
            asked = asked.where(files.c.purpose.not_in(besides))
        with self.database.read() as connection:
            last = None if after is None else _found(connection, after, account)
            page = following(asked, files, last, newest_first=newest_first).limit(limit)
            return [_file(row) for row in connection.execute(page)]

    def owns(self, account: str, digest: str) -> bool:
        """Whether an account brought these bytes, or a job of its own made them or needs them."""
        brought = sa.select(files.c.id).where(files.c.digest == digest, files.c.account == account)
        made = (
            sa.select(holds.c.holder)
            .join(jobs, jobs.c.id == holds.c.holder)
            .where(holds.c.digest == digest, jobs.c.account == account, sa.not_(jobs.c.hidden))
        )
        with self.database.read() as connection:
            return any(connection.execute(asked.limit(1)).first() is not None for asked in (brought, made))

    def sweep(self) -> None:
        """Forget the files whose time is over."""
        with self.database.write() as connection:
            over = sa.delete(files).where(files.c.expires < now()).returning(files.c.id)
            for file in connection.execute(over).scalars().all():
                drop_holds(connection, file)

    def _became(self, file: str, facts: dict[str, Any], digests: list[str]) -> StoredFile:
        with self.database.write() as connection:
            waits = sa.and_(files.c.id == file, files.c.state == "pending")
            row = connection.execute(sa.update(files).where(waits).values(facts).returning(*_COLUMNS)).one_or_none()
            if row is None:
                raise NoFile("No file waits for these bytes", do="Ask for a new upload")
            hold(connection, file, digests)
            return _file(row)


def _file(row: Any) -> StoredFile:
    return StoredFile.model_validate(dict(row._mapping))


def _found(connection: sa.Connection, file: str, account: str | None) -> Any:
    live = sa.and_(files.c.id == file, sa.or_(files.c.expires.is_(None), files.c.expires > now()))
    if account is not None:
        live = sa.and_(live, files.c.account == account)
    row = connection.execute(sa.select(*_COLUMNS).where(live)).one_or_none()
    if row is None:
        raise NoFile("There is no such file", do="Check its id, or upload it again")
    return row
