"""OpenAI's webhook endpoints: whom to tell of a video's end, signed so that the clients' `unwrap` accepts it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from cinecanvas.errors import Unsupported
from cinecanvas.jobs.courier import Courier
from cinecanvas.jobs.hooks import Endpoint, NoHook
from cinecanvas.jobs.job import State
from cinecanvas.server.desk import Desk
from cinecanvas.server.message import At, Creator, Fields, Reader, Sent
from cinecanvas.server.openai_terms import NAME, inner, outer, page

EVENTS: dict[str, tuple[State, ...]] = {"video.completed": ("succeeded",), "video.failed": ("failed", "cancelled")}

router = APIRouter()


class Make(Fields):
    """POST /webhook_endpoints."""

    url: str = Field(min_length=1, max_length=2000)
    name: str = Field(max_length=100)
    event_types: list[str] = Field(min_length=1, max_length=100)


class Change(Fields):
    """POST /webhook_endpoints/{id}; what is left out stays."""

    url: str | None = Field(default=None, min_length=1, max_length=2000)
    name: str | None = Field(default=None, max_length=100)
    event_types: list[str] | None = Field(default=None, min_length=1, max_length=100)


class Rotate(Fields):
    """POST /webhook_endpoints/{id}/rotate_secret; the old secret signs beside the new one for a day if asked."""

    keep_old_secret_active_for_24_hours: bool = False


class Try(Fields):
    """POST /webhook_endpoints/{id}/test."""

    event_type: str


@router.get("/webhook_event_types")
def event_types(caller: Reader) -> Any:
    return {"object": "list", "data": list(EVENTS)}


@router.post("/webhook_endpoints")
def make(desk: At, caller: Creator, sent: Sent) -> Any:
    body = sent.read(Make)
    made = desk.hooks.make(
        body.url,
        account=caller.account,
        dialect=NAME,
        name=body.name,
        events=body.event_types,
        states=_states(body.event_types),
    )
    return endpoint(made.endpoint) | {"signing_secret": made.secret, "signing_secret_hint": _hint(made.secret)}


@router.get("/webhook_endpoints")
def listed(
    desk: At,
    caller: Reader,
    after: str | None = None,
    limit: int = Query(default=20, ge=0, le=100),
    order: Literal["asc", "desc"] = "desc",
) -> Any:
    found = desk.hooks.listed(account=caller.account, dialect=NAME)
    found = found[::-1] if order == "desc" else found
    if after is not None:
        places = [number for number, one in enumerate(found) if one.id == _bare(after)]
        found = found[places[0] + 1 :] if places else []
    return page([endpoint(one) for one in found[:limit]], more=len(found) > limit)


@router.get("/webhook_endpoints/{name}")
def retrieve(desk: At, caller: Reader, name: str) -> Any:
    return endpoint(_found(desk, caller.account, name))


@router.post("/webhook_endpoints/{name}")
def change(desk: At, caller: Creator, sent: Sent, name: str) -> Any:
    body = sent.read(Change)
    known = _found(desk, caller.account, name)
    changed = desk.hooks.change(
        known.id,
        account=caller.account,
        url=body.url,
        name=body.name,
        events=body.event_types,
        states=None if body.event_types is None else _states(body.event_types),
    )
    return endpoint(changed)


@router.delete("/webhook_endpoints/{name}")
def delete(desk: At, caller: Creator, name: str) -> Any:
    desk.hooks.delete(_found(desk, caller.account, name).id, account=caller.account)
    return {"id": name, "object": "webhook_endpoint.deleted", "deleted": True}


@router.post("/webhook_endpoints/{name}/rotate_secret")
def rotate(desk: At, caller: Creator, sent: Sent, name: str) -> Any:
    keep = sent.read(Rotate).keep_old_secret_active_for_24_hours
    known = _found(desk, caller.account, name)
    made = desk.hooks.rotate_secret(known.id, account=caller.account, keep=keep)
    return endpoint(made.endpoint) | {"signing_secret": made.secret, "signing_secret_hint": _hint(made.secret)}


@router.post("/webhook_endpoints/{name}/test")
def test(desk: At, caller: Creator, sent: Sent, name: str) -> Any:
    kind = sent.read(Try).event_type
    _states([kind])
    known = _found(desk, caller.account, name)
    sample = {
        "id": "evt_test",
        "object": "event",
        "created_at": int(time.time()),
        "type": kind,
        "data": {"id": "video_test"},
    }
    courier = Courier(desk.queue.database, lambda job, state: b"", desk.web)  # it sends the sample, and no job
    tried = courier.test(known, json.dumps(sample).encode())
    return {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": name,
        "event_type": kind,
        "status_code": tried.status,
        "success": True,
    }


def endpoint(one: Endpoint) -> dict[str, Any]:
    """The WebhookEndpoint object; its secret is shown when it is made or rotated, and never again."""
    return {
        "id": outer("whe", one.id),
        "object": "webhook_endpoint",
        "created_at": int(one.created),
        "name": one.name,
        "url": one.url,
        "event_types": list(one.events),
    }


def _states(kinds: Sequence[str]) -> tuple[State, ...]:
    """The states of a job that an event tells of; what is never told here is refused rather than waited for."""
    strange = [kind for kind in kinds if kind not in EVENTS]
    if strange:
        raise Unsupported(f"News of {strange[0][:40]!r} was asked", f"Told here: {', '.join(EVENTS)}")
    return tuple(state for kind in EVENTS if kind in kinds for state in EVENTS[kind])


def _found(desk: Desk, account: str, name: str) -> Endpoint:
    return desk.hooks.get(_bare(name), account=account)


def _bare(name: str) -> str:
    found = inner("whe", name)
    if found is None:
        raise NoHook("There is no such endpoint", do="Check its id")
    return found


def _hint(secret: str) -> str:
    return f"{secret[:6]}...{secret[-4:]}"
