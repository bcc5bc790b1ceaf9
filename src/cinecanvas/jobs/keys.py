"""Keys: who asks, and what they may. A key is 256 random bits, of which only a hash is kept."""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from cinecanvas.jobs.database import Database, now
from cinecanvas.jobs.tables import keys

PREFIX = "cine-"
SCOPES = ("read", "create", "admin")


class Quota(BaseModel):
    """What a key may use; None: as much as there is. `running` and `queued` count jobs at a time."""

    model_config = ConfigDict(frozen=True)

    running: int | None = Field(default=None, ge=1)
    queued: int | None = Field(default=None, ge=1)
    per_minute: int | None = Field(default=None, ge=1)  # jobs accepted
    daily_seconds: float | None = Field(default=None, gt=0)  # of video


class Caller(BaseModel):
    """Who asks: the account that jobs belong to, and what it may."""

    model_config = ConfigDict(frozen=True)

    account: str
    name: str
    scopes: tuple[str, ...] = SCOPES
    quota: Quota = Quota()

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes


LOCAL = Caller(account="", name="local")  # this machine's own user, where no key exists


@dataclass(frozen=True)
class Keys:
    """The keys of a database."""

    database: Database

    def make(self, name: str, *, scopes: tuple[str, ...] = ("read", "create"), quota: Quota = Quota()) -> str:
        """A new key; it is shown this once."""
        secret = PREFIX + secrets.token_urlsafe(32)
        row = {
            "id": str(uuid.uuid4()),
            "name": name,
            "hash": _hash(secret),
            "scopes": list(scopes),
            "quota": quota.model_dump(),
            "running": quota.running,
            "created": now(),
        }
        with self.database.write() as connection:
            connection.execute(sa.insert(keys).values(row))
        return secret

    def caller(self, secret: str) -> Caller | None:
        """Whose key this is; None: nobody's, or revoked. The hash is looked up, so no time tells of its digits."""
        mine = sa.and_(keys.c.hash == _hash(secret), keys.c.revoked.is_(None))
        with self.database.read() as connection:
            row = connection.execute(sa.select(keys).where(mine)).one_or_none()
        return None if row is None else _caller(row)

    def exist(self) -> bool:
        """Whether anybody has a key; where nobody has one, only this machine's own user is let in."""
        with self.database.read() as connection:
            return connection.execute(sa.select(keys.c.id).where(keys.c.revoked.is_(None))).first() is not None


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _caller(row: Any) -> Caller:
    return Caller(account=row.id, name=row.name, scopes=tuple(row.scopes), quota=Quota.model_validate(row.quota))
