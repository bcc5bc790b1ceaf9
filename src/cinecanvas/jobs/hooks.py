"""Hooks: whom to tell of a job. Endpoints hear of all jobs of an account, a callback of the one that named it.

Every message is signed as Standard Webhooks say, and bears the same webhook-id however often it is tried.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets as random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict

from cinecanvas.errors import BadRequest, CinecanvasError
from cinecanvas.jobs import audit
from cinecanvas.jobs.database import Database, inserted, now
from cinecanvas.jobs.job import ENDED, State
from cinecanvas.jobs.tables import deliveries, endpoints, secrets
from cinecanvas.media.fetch import Web, check_url

OVERLAP = 86400.0  # s for which the secret before the last one signs too
KEPT = 30.0  # days that the log of what was told is kept
MOST = 100  # endpoints of an account


class Endpoint(BaseModel):
    """A URL that is told of an account's jobs; `events` in the dialect's words, `states` of a job in ours."""

    model_config = ConfigDict(frozen=True)

    id: str
    account: str
    dialect: str
    name: str
    url: str
    events: tuple[str, ...]
    states: tuple[State, ...]
    enabled: bool
    created: float


class Attempt(BaseModel):
    """One try: when (s since 1970), the HTTP status (0: none came), how long it took (s), and a word of why not."""

    model_config = ConfigDict(frozen=True)

    at: float
    status: int
    seconds: float
    note: str = ""


class Delivery(BaseModel):
    """A message: of which job and state, to which endpoint ("": the job's callback), and how its tries went.

    `status` is waiting, delivered or failed; `due` when the next try is (s since 1970).
    """

    model_config = ConfigDict(frozen=True)

    id: str
    account: str
    job: str
    endpoint: str
    state: str
    status: str
    attempts: int
    due: float
    log: tuple[Attempt, ...]
    created: float


class Made(NamedTuple):
    """A new endpoint, and its secret, which is shown this once."""

    endpoint: Endpoint
    secret: str


class NoHook(CinecanvasError):
    """There is no such endpoint or delivery, or it is somebody else's, which is the same."""


@dataclass(frozen=True)
class Hooks:
    """Endpoints and the log of what was told; with an account, only its own are found."""

    database: Database
    web: Web = field(default_factory=Web)

    def make(
        self,
        url: str,
        *,
        account: str = "",
        dialect: str = "native",
        name: str = "",
        events: Sequence[str] = (),
        states: Sequence[State] = ENDED,
    ) -> Made:
        """A new endpoint."""
        check_url(url, web=self.web)
        secret = _fresh()
        row = {
            "id": str(uuid.uuid4()),
            "account": account,
            "dialect": dialect,
            "name": name[:100],
            "url": url,
            "secret": secret,
            "old_secret": "",
            "old_until": 0.0,
            "events": list(events),
            "states": list(states),
            "enabled": True,
            "created": now(),
        }
        with self.database.write() as connection:
            mine = sa.select(sa.func.count()).where(endpoints.c.account == account)
            if connection.execute(mine).scalar_one() >= MOST:
                raise BadRequest(f"There are {MOST} endpoints already", "That is the most", "Delete one")
            made = connection.execute(sa.insert(endpoints).values(row).returning(*_ENDPOINT)).one()
            audit.note(connection, account, "endpoint.made", made.id)
        return Made(_endpoint(made), secret)

    def get(self, endpoint: str, *, account: str | None = None) -> Endpoint:
        with self.database.read() as connection:
            return _endpoint(_found(connection, endpoint, account))

    def listed(self, *, account: str | None = None, dialect: str | None = None) -> list[Endpoint]:
        """Endpoints, the oldest first."""
        asked = sa.select(*_ENDPOINT).order_by(endpoints.c.created, endpoints.c.id)
        if account is not None:
            asked = asked.where(endpoints.c.account == account)
        if dialect is not None:
            asked = asked.where(endpoints.c.dialect == dialect)
        with self.database.read() as connection:
            return [_endpoint(row) for row in connection.execute(asked)]

    def change(
        self,
        endpoint: str,
        *,
        account: str | None = None,
        url: str | None = None,
        name: str | None = None,
        events: Sequence[str] | None = None,
        states: Sequence[State] | None = None,
        enabled: bool | None = None,
    ) -> Endpoint:
        """Change what is given. An endpoint that is not enabled is told nothing, and nothing is kept for it."""
        if url is not None:
            check_url(url, web=self.web)
        given = {
            "url": url,
            "name": name if name is None else name[:100],
            "events": events if events is None else list(events),
            "states": states if states is None else list(states),
            "enabled": enabled,
        }
        values = {column: value for column, value in given.items() if value is not None}
        with self.database.write() as connection:
            row = _found(connection, endpoint, account)
            if values:
                same = sa.update(endpoints).where(endpoints.c.id == endpoint).values(values)
                row = connection.execute(same.returning(*_ENDPOINT)).one()
                audit.note(connection, account or "", "endpoint.changed", endpoint, {"columns": sorted(values)})
            return _endpoint(row)

    def rotate_secret(self, endpoint: str, *, account: str | None = None, keep: bool = True) -> Made:
        """A new secret; if it is kept, the one before signs beside it for a day, so that a receiver can change over."""
        with self.database.write() as connection:
            _found(connection, endpoint, account)
            secret = _fresh()
            rotated = {
                "secret": secret,
                "old_secret": endpoints.c.secret,
                "old_until": now() + OVERLAP if keep else 0.0,
            }
            changed = sa.update(endpoints).where(endpoints.c.id == endpoint).values(rotated)
            row = connection.execute(changed.returning(*_ENDPOINT)).one()
            audit.note(connection, account or "", "endpoint.rotated", endpoint)
        return Made(_endpoint(row), secret)

    def delete(self, endpoint: str, *, account: str | None = None) -> None:
        """It is told nothing any more, not even what waits."""
        with self.database.write() as connection:
            _found(connection, endpoint, account)
            connection.execute(sa.delete(endpoints).where(endpoints.c.id == endpoint))
            connection.execute(sa.delete(deliveries).where(deliveries.c.endpoint == endpoint))
            audit.note(connection, account or "", "endpoint.deleted", endpoint)

    # What was told

    def deliveries(
        self,
        *,
        account: str | None = None,
        endpoint: str | None = None,
        job: str | None = None,
        limit: int = 100,
    ) -> list[Delivery]:
        """The log, the newest first: statuses and times, never what was sent or came back."""
        asked = sa.select(*DELIVERY).order_by(deliveries.c.created.desc(), deliveries.c.id)
        for column, value in {"account": account, "endpoint": endpoint, "job": job}.items():
            if value is not None:
                asked = asked.where(deliveries.c[column] == value)
        with self.database.read() as connection:
            return [Delivery.model_validate(dict(row._mapping)) for row in connection.execute(asked.limit(limit))]

    def redeliver(self, delivery: str, *, account: str | None = None) -> Delivery:
        """Tell it again, under the same id, and with all its tries."""
        again = sa.update(deliveries).where(deliveries.c.id == delivery, deliveries.c.job != "")
        if account is not None:
            again = again.where(deliveries.c.account == account)
        with self.database.write() as connection:
            values = {"status": "waiting", "attempts": 0, "due": now(), "lease": 0.0}
            row = connection.execute(again.values(values).returning(*DELIVERY)).one_or_none()
            if row is None:
                raise NoHook("There is no such delivery", do="Check its id")
            return Delivery.model_validate(dict(row._mapping))

    def sweep(self, *, days: float = KEPT) -> None:
        """Forget what was told long ago."""
        old = sa.and_(deliveries.c.status != "waiting", deliveries.c.created < now() - days * 86400.0)
        with self.database.write() as connection:
            connection.execute(sa.delete(deliveries).where(old))

    # What signs it

    def secrets(self, endpoint: str) -> tuple[str, ...]:
        """What signs a message to an endpoint now: its secret, and for a while the one before."""
        asked = sa.select(endpoints.c.secret, endpoints.c.old_secret, (endpoints.c.old_until > now()).label("two"))
        with self.database.read() as connection:
            row = connection.execute(asked.where(endpoints.c.id == endpoint)).one_or_none()
        if row is None:
            raise NoHook("There is no such endpoint", do="Check its id")
        return (row.secret, row.old_secret) if row.two and row.old_secret else (row.secret,)

    def callback_secret(self, account: str) -> str:
        """What signs the callbacks of an account's jobs; always the same."""
        with self.database.read() as connection:
            root = connection.execute(_ROOT).scalar_one_or_none()
        if root is None:
            new = {"name": "callbacks", "value": random.token_hex(32)}
            with self.database.write() as connection:
                connection.execute(inserted(connection, secrets).values(new).on_conflict_do_nothing())
                root = connection.execute(_ROOT).scalar_one()
        return _told(hmac.digest(bytes.fromhex(root), account.encode(), hashlib.sha256))


def signed(body: bytes, message: str, keys: Sequence[str], *, at: float) -> dict[str, str]:
    """The headers of a message, by which its receiver knows that it is ours, whole and new."""
    from standardwebhooks import Webhook

    moment = datetime.fromtimestamp(int(at), tz=UTC)
    signatures = [Webhook(key).sign(message, moment, body.decode()) for key in keys]
    return {
        "Content-Type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": " ".join(signatures),
    }


DELIVERY = [deliveries.c[name] for name in Delivery.model_fields]
_ENDPOINT = [endpoints.c[name] for name in Endpoint.model_fields]
_ROOT = sa.select(secrets.c.value).where(secrets.c.name == "callbacks")


def _endpoint(row: Any) -> Endpoint:
    return Endpoint.model_validate(dict(row._mapping))


def _found(connection: sa.Connection, endpoint: str, account: str | None) -> Any:
    asked = sa.select(*_ENDPOINT).where(endpoints.c.id == endpoint)
    row = connection.execute(asked if account is None else asked.where(endpoints.c.account == account)).one_or_none()
    if row is None:
        raise NoHook("There is no such endpoint", do="Check its id")
    return row


def _fresh() -> str:
    return _told(random.token_bytes(32))


def _told(key: bytes) -> str:
    return "whsec_" + base64.b64encode(key).decode()
