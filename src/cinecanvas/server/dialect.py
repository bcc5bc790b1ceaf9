"""A dialect is a foreign API as data: where it is mounted, its routes, and how it says that something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastapi import APIRouter

from cinecanvas.errors import BadMedia, BadRequest, BadWeights, CannotWrite, CinecanvasError, Unsupported
from cinecanvas.jobs.database import NoDatabase
from cinecanvas.jobs.files import NoFile
from cinecanvas.jobs.job import Job
from cinecanvas.jobs.queue import NoJob, NotNow


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


@dataclass(frozen=True)
class Dialect:
    """One API: its name, where it is mounted, its routes, its envelope for errors; and what it tells of a job."""

    name: str
    prefixes: tuple[str, ...]
    router: APIRouter
    envelope: Envelope
    event: Callable[[Job, str], dict[str, Any]] | None = None  # the body of a webhook or callback: job, its URL's base
    models: Mapping[str, str] = field(default_factory=dict)  # names of the vendor's models and what they are
    open: tuple[str, ...] = ()  # prefixes of paths that need no key, for what is asked there is signed


_STATUS: tuple[tuple[type[CinecanvasError], int, str], ...] = (
    (NoJob, 404, "not_found"),
    (NoFile, 404, "not_found"),
    (NotNow, 409, "conflict"),
    (NoDatabase, 503, "unavailable"),
    (CannotWrite, 503, "storage_full"),
    (BadWeights, 503, "model_unavailable"),
    (BadMedia, 400, "invalid_media"),
    (Unsupported, 400, "unsupported"),
    (BadRequest, 400, "invalid_request"),
)


class Refused(CinecanvasError):
    """A refusal with its own status and word."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.message)


def fault_of(error: CinecanvasError) -> Fault:
    """What one of our refusals is in the terms of HTTP."""
    if isinstance(error, Refused):
        return error.fault
    if isinstance(error, (NoDatabase, CannotWrite)):
        found = next((status, code) for kind, status, code in _STATUS if isinstance(error, kind))
        return Fault(*found, str(error), retry=5.0)
    after = getattr(error, "retry_after", None)
    if after is not None or type(error).__name__ == "OverQuota":
        return Fault(429, "rate_limit_exceeded", str(error), retry=after)
    for kind, status, code in _STATUS:
        if isinstance(error, kind):
            return Fault(status, code, str(error))
    return Fault(500, "internal_error", "The server failed; its log tells why.")
