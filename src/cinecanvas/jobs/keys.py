"""Keys: who asks, and what they may. A key is 256 random bits, of which only a hash is kept."""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field

from cinecanvas.errors import BadRequest, CinecanvasError
from cinecanvas.jobs import audit
from cinecanvas.jobs.database import Database, now
from cinecanvas.jobs.tables import keys

PREFIX = "cine-"
SCOPES = ("read", "create", "admin")
SEEN = 3.0  # s for which a key that was looked up is not looked up again
_USED = 60.0  # s between two notes of a key's use
_MOST_SEEN = 10_000  # keys that are remembered, whoever sends what
_SHORTEST = 4  # characters of an id that may stand for it

Scope = Literal["read", "create", "admin"]


class Quota(BaseModel):
    """What a key may use; None: as much as there is. `running` and `queued` count jobs at a time."""

    model_config = ConfigDict(frozen=True)

    running: int | None = Field(default=None, ge=1)
    queued: int | None = Field(default=None, ge=1)
    per_minute: int | None = Field(default=None, ge=1)  # jobs accepted
    daily_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # of video
    credits: int | None = Field(default=None, ge=0)  # to be spent in all, ever


class Caller(BaseModel):
    """Who asks: the account that jobs belong to, and what it may."""

    model_config = ConfigDict(frozen=True)

    account: str
    name: str
    scopes: tuple[str, ...] = SCOPES
    quota: Quota = Quota()

    def may(self, scope: str) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def need(self, scope: Scope) -> None:
        """Refuse, unless the key may do this."""
        if not self.may(scope):
            raise NotAllowed(
                f"This key may not {_MEANS[scope]}",
                f"It has the scope{'s'[: len(self.scopes) > 1]} {', '.join(self.scopes)}",
                f"Use a key with the scope {scope}",
            )


LOCAL = Caller(account="", name="local")  # this machine's own user, where no key exists
_MEANS = {"read": "read", "create": "make, change or delete anything", "admin": "see or change what is others'"}


class Key(BaseModel):
    """A key as its operator sees it, its secret being gone; times in seconds since 1970."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    scopes: tuple[str, ...]
    quota: Quota
    created: float
    revoked: float | None
    used: float | None  # to the minute


class NotAllowed(CinecanvasError):
    """The key is good, but not for this."""


class NoKey(CinecanvasError):
    """There is no such key."""


@dataclass(frozen=True)
class Keys:
    """The keys of a database; what `caller` found holds for a few seconds, so a key that was revoked does too."""

    database: Database
    seen: float = SEEN  # s
    _known: dict[str, tuple[float, Caller | None]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def make(
        self, name: str, *, scopes: Sequence[str] = ("read", "create"), quota: Quota = Quota(), by: str = ""
    ) -> str:
        """A new key; it is shown this once. `by`: the account that made it."""
        secret = PREFIX + secrets.token_urlsafe(32)
        row = {
            "id": str(uuid.uuid4()),
            "name": _name(name),
            "hash": _hash(secret),
            "scopes": _scopes(scopes),
            "quota": quota.model_dump(),
            "running": quota.running,
            "created": now(),
        }
        with self.database.write() as connection:
            connection.execute(sa.insert(keys).values(row))
            audit.note(connection, by, "key.made", str(row["id"]), {"scopes": row["scopes"], **quota.model_dump()})
        self._known.clear()
        return secret

    def caller(self, secret: str) -> Caller | None:
        """Whose key this is; None: nobody's, or revoked. The hash is looked up, so no time tells of its digits."""
        digest, clock = _hash(secret), time.monotonic()
        until, known = self._known.get(digest, (0.0, None))
        if clock < until:
            return known
        mine = sa.and_(keys.c.hash == digest, keys.c.revoked.is_(None))
        stale = sa.func.coalesce(keys.c.used, 0.0) < now() - _USED
        with self.database.read() as connection:
            row = connection.execute(sa.select(keys, stale.label("stale")).where(mine)).one_or_none()
        found = None if row is None else _caller(row)
        if row is not None and row.stale:
            with suppress(CinecanvasError), self.database.write() as connection:  # nobody is turned away for a note
                connection.execute(sa.update(keys).where(mine, stale).values(used=now()))
        if len(self._known) >= _MOST_SEEN:
            self._known.clear()
        self._known[digest] = clock + self.seen, found
        return found

    def remembered(self, secret: str) -> Caller | None:
        """Whose key this is, if it was looked up just now; None: it is to be looked up. This reads no database."""
        until, known = self._known.get(_hash(secret), (0.0, None))
        return known if time.monotonic() < until else None

    def exist(self) -> bool:
        """Whether anybody has a key; where nobody has one, only this machine's own user is let in."""
        clock = time.monotonic()
        if clock < self._known.get("", (0.0, None))[0]:  # only a yes is remembered: the first key closes the door
            return True
        with self.database.read() as connection:
            some = connection.execute(sa.select(keys.c.id).where(keys.c.revoked.is_(None))).first() is not None
        if some:
            self._known[""] = clock + self.seen, None
        return some

    def listed(self, *, revoked: bool = False) -> list[Key]:
        """All keys, the oldest first; those that were revoked only if asked for."""
        asked = sa.select(*_COLUMNS).order_by(keys.c.created, keys.c.id)
        with self.database.read() as connection:
            rows = connection.execute(asked if revoked else asked.where(keys.c.revoked.is_(None)))
            return [Key.model_validate(dict(row._mapping)) for row in rows]

    def of(self, secret: str) -> Key:
        """The key that a secret is, without its being used."""
        with self.database.read() as connection:
            row = connection.execute(sa.select(*_COLUMNS).where(keys.c.hash == _hash(secret))).one_or_none()
        if row is None:
            raise NoKey("This is nobody's key")
        return Key.model_validate(dict(row._mapping))

    def find(self, named: str) -> Key:
        """The key of a name, an id, or the beginning of an id."""
        found = [key for key in self.listed(revoked=True) if key.id == named]
        found = found or [key for key in self.listed() if key.name == named]
        if not found and len(named) >= _SHORTEST:
            found = [key for key in self.listed(revoked=True) if key.id.startswith(named)]
        if not found:
            raise NoKey(f"There is no key {named[:40]!r}", do="List them: cine keys list")
        if len(found) > 1:
            raise NoKey(f"{len(found)} keys are called {named[:40]!r}", "An id names one", found[0].id)
        return found[0]

    def revoke(self, named: str, *, by: str = "") -> Key:
        """End a key; servers learn of it within a few seconds. Its jobs go on and stay."""
        key = self.find(named)
        with self.database.write() as connection:
            live = sa.and_(keys.c.id == key.id, keys.c.revoked.is_(None))
            if connection.execute(sa.update(keys).where(live).values(revoked=now())).rowcount:
                audit.note(connection, by, "key.revoked", key.id)
        self._known.clear()
        return self.find(key.id)

    def change(self, named: str, *, name: str | None = None, quota: Quota | None = None, by: str = "") -> Key:
        """Rename a key, or let it use more or less."""
        key = self.find(named)
        values: dict[str, Any] = {} if name is None else {"name": _name(name)}
        if quota is not None:
            values |= {"quota": quota.model_dump(), "running": quota.running}
        if values:
            with self.database.write() as connection:
                connection.execute(sa.update(keys).where(keys.c.id == key.id).values(values))
                audit.note(connection, by, "key.changed", key.id, quota.model_dump() if quota else {})
        self._known.clear()
        return self.find(key.id)


_COLUMNS = [keys.c[name] for name in Key.model_fields]


def _name(name: str) -> str:
    if not 0 < len(name) <= 100 or not name.isprintable() or name != name.strip():
        raise BadRequest("This name of a key is not usable", "It has 1 to 100 printable characters")
    return name


def _scopes(scopes: Sequence[str]) -> list[str]:
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown or not scopes:
        raise BadRequest(f"The scope {', '.join(unknown)[:40]!r} was asked", f"Scopes are {', '.join(SCOPES)}")
    return [scope for scope in SCOPES if scope in scopes]


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _caller(row: Any) -> Caller:
    return Caller(account=row.id, name=row.name, scopes=tuple(row.scopes), quota=Quota.model_validate(row.quota))
