"""A dialect is a foreign API as data: where it is mounted, its routes, and how it says that something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from fastapi import APIRouter

from cinecanvas.errors import BadMedia, BadRequest, BadWeights, CannotWrite, CinecanvasError, Unsupported
from cinecanvas.jobs.database import NoDatabase
from cinecanvas.jobs.files import NoFile
from cinecanvas.jobs.hooks import NoHook
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.keys import NoKey, NotAllowed
from cinecanvas.jobs.ledger import OverQuota
from cinecanvas.jobs.queue import NoJob, NotNow
from cinecanvas.media.warden import Busy


class Fault(NamedTuple):
    """What is wrong, before a dialect puts it into its words: an HTTP status, a word for programs, a line for people.

    `param`: the field it is about, "": none. `retry`: whether the very same may work later, after some seconds.
    """

    status: int
    code: str
    message: str
    param: str = ""
    retry: float | None = None


Envelope = Callable[[Fault], dict[str, Any]]
Link = Callable[[Job, str], str]  # a job and a variant (video, first, live ...) to a URL that needs no key


@dataclass(frozen=True)
class Dialect:
    """One API: its name, where it is mounted, its routes, its envelope for errors; and what it tells of a job."""

    name: str
    prefixes: tuple[str, ...]
    router: APIRouter
    envelope: Envelope
    event: Callable[[Job, Link], dict[str, Any]] | None = None  # the body of a webhook or callback
    open: tuple[str, ...] = ()  # prefixes of paths that need no key: their URLs are signed
    data_uris: bool = True  # whether media come inside of JSON, which is then long


_STATUS: tuple[tuple[type[CinecanvasError], int, str], ...] = (
    (NoJob, 404, "not_found"),
    (NoFile, 404, "not_found"),
    (NoHook, 404, "not_found"),
    (NoKey, 404, "not_found"),
    (NotAllowed, 403, "forbidden"),
    (NotNow, 409, "conflict"),
    (NoDatabase, 503, "unavailable"),
    (Busy, 503, "busy"),
    (CannotWrite, 503, "storage_full"),
    (BadWeights, 503, "model_unavailable"),
    (BadMedia, 400, "invalid_media"),
    (Unsupported, 400, "unsupported"),
    (BadRequest, 400, "invalid_request"),
)


def iso(seconds: float) -> str:
    """Seconds since 1970 as they are written in JSON."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Refused(CinecanvasError):
    """A refusal with its own status and word."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.message)


def fault_of(error: CinecanvasError) -> Fault:
    """What one of our refusals is in the terms of HTTP."""
    if isinstance(error, Refused):
        return error.fault
    if isinstance(error, (NoDatabase, Busy, CannotWrite)):
        found = next((status, code) for kind, status, code in _STATUS if isinstance(error, kind))
        return Fault(*found, str(error), retry=5.0)
    if isinstance(error, OverQuota):
        code = "insufficient_quota" if error.limit == "credits" else "rate_limit_exceeded"
        return Fault(429, code, str(error), retry=error.retry_after)
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return Fault(status, code, str(error))
    return Fault(500, "internal_error", "The server failed; its log tells why.")
