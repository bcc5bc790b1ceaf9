"""What the operator of a server does by our own API: keys are made, seen and revoked, and their use is told."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Path
from pydantic import BaseModel, ConfigDict, Field

from cinecanvas.jobs.keys import Key, Keys, Quota, Scope
from cinecanvas.jobs.ledger import Spent
from cinecanvas.jobs.order import ID
from cinecanvas.server.document import problems
from cinecanvas.server.message import Admin, At

router = APIRouter(tags=["keys"])


class KeyAsked(BaseModel):
    """A key that is to be made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100, description="Whose it is.")
    scopes: tuple[Scope, ...] = Field(
        default=("read", "create"), min_length=1, max_length=3, description="What it may: read, create, admin."
    )
    quota: Quota = Field(default=Quota(), description="How much it may; null is as much as there is.")


class NewKey(BaseModel):
    """A key, and its secret, which is told this once."""

    model_config = ConfigDict(frozen=True)

    key: Key
    secret: str = Field(description="What is sent as Authorization: Bearer ...; nobody can read it again.")


@router.get("/keys", summary="All keys, those that were revoked too", responses=problems())
def list_keys(desk: At, caller: Admin) -> list[Key]:
    return Keys(desk.queue.database).listed(revoked=True)


@router.post("/keys", status_code=201, summary="Make a key", responses=problems(408, 413))
def make_key(desk: At, caller: Admin, asked: Annotated[KeyAsked, Body()]) -> NewKey:
    """Once there is one, nobody is let in without: make one with the scope admin first."""
    keys = Keys(desk.queue.database)
    secret = keys.make(asked.name, scopes=asked.scopes, quota=asked.quota, by=caller.account)
    return NewKey(key=keys.of(secret), secret=secret)


@router.delete("/keys/{key}", summary="Revoke a key", responses=problems(404))
def revoke_key(desk: At, caller: Admin, key: Annotated[str, Path(pattern=ID, description="Its id.")]) -> Key:
    """Servers learn of it within a few seconds; its jobs go on and stay."""
    return Keys(desk.queue.database).revoke(key, by=caller.account)


@router.get("/usage/keys", summary="What every key has used, by day and model", responses=problems())
def get_usage_of_keys(desk: At, caller: Admin) -> list[Spent]:
    """`account` is the id of a key; it is empty for this machine's own user."""
    return desk.ledger.spent()
