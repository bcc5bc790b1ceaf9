"""The server: every dialect at its place, one envelope for every error, nothing heavier than a database behind it."""

from __future__ import annotations

import errno
import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from cinecanvas import __version__
from cinecanvas.errors import CinecanvasError
from cinecanvas.media.destination import cannot_write
from cinecanvas.server import agents, elevenlabs, luma, native, openai, page, runway
from cinecanvas.server.deliver import made, watched
from cinecanvas.server.desk import Desk, named
from cinecanvas.server.dialect import Dialect, Fault, fault_of
from cinecanvas.server.document import document
from cinecanvas.server.message import Admin, At, first_fault
from cinecanvas.server.metrics import CONTENT_TYPE, Metrics
from cinecanvas.server.pace import Turnstile

LOG = logging.getLogger("cinecanvas.server")
DIALECTS: tuple[Dialect, ...] = (
    *(native.DIALECT, openai.DIALECT, luma.DIALECT, agents.DIALECT),
    *(runway.DIALECT, elevenlabs.DIALECT),
)
_WORDS = {401: "unauthorized", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_ABOUT = """\
Video generation that you host yourself. Everything you ask for is a **job**: it is queued, runs, and ends; it goes on
after a crash or restart where it was. Media come as files, URLs or earlier jobs, and results as URLs that need no key.

The vendors' APIs are served beside this one, for programs that were written for them.
"""


def build(desk: Desk) -> FastAPI:
    """The application over a desk; its guard is put in front of it by `serve`."""
    app = FastAPI(
        title="cinecanvas",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        redirect_slashes=False,  # a redirect would be an answer that no dialect knows
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.desk = desk
    app.state.streams = Turnstile()
    app.state.metrics = Metrics(desk.queue, lambda path: dialect_of(path).name)
    app.add_middleware(app.state.metrics.counted)
    app.add_api_route("/healthz", health, include_in_schema=False)
    app.add_api_route("/readyz", ready, include_in_schema=False)
    for dialect in DIALECTS:
        for prefix in dialect.prefixes:
            app.include_router(dialect.router, prefix=prefix, include_in_schema=dialect is native.DIALECT)
    app.include_router(page.router)
    app.add_api_route("/metrics", metrics, include_in_schema=False)
    app.add_api_route("/media/{job}/{output}/{variant}", media, include_in_schema=False, methods=["GET", "HEAD"])
    written = app.openapi
    app.openapi = lambda: document(written(), models=desk.models, failure=native.Failure)  # type: ignore[method-assign]
    app.add_exception_handler(CinecanvasError, _refused)
    app.add_exception_handler(RequestValidationError, _unreadable)
    app.add_exception_handler(HTTPException, _http)
    return app


def dialect_of(path: str) -> Dialect:
    """Whose words a path is answered in."""
    found = ((len(prefix), dialect) for dialect in DIALECTS for prefix in dialect.prefixes if _under(path, prefix))
    return max(found, default=(0, native.DIALECT), key=lambda pair: pair[0])[1]


def answer(path: str, fault: Fault) -> Response:
    """A fault in the words of the dialect that was asked."""
    headers = {}
    if fault.retry is not None:
        headers["retry-after"] = str(max(1, round(fault.retry)))
    elif fault.status in (408, 409, 429) or fault.status >= 500:
        headers["x-should-retry"] = "false"  # a client that sends it again makes a second job, or nothing
    return JSONResponse(dialect_of(path).envelope(fault), fault.status, headers)


async def health() -> Any:
    """The process lives."""
    return {"status": "ok", "version": __version__}


def ready(desk: At) -> Any:
    """The database answers."""
    desk.queue.database.clock()
    return {"status": "ok"}


def metrics(caller: Admin, request: Request) -> Response:
    """Numbers about all jobs of everybody."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE)


def media(
    desk: At, request: Request, job: str, output: int, variant: str, until: int = 0, signature: str = ""
) -> Response:
    """What a signed URL stands for; it needs no key."""
    if not desk.signed(f"/media/{job}/{output}/{variant}", until, signature):
        return answer(
            request.url.path, Fault(403, "expired", "This URL is not signed, or its time is over. Ask again.")
        )
    found = desk.queue.get(job)
    if variant == "live":
        return made(desk, found, "video", output, request) if found.ended else watched(desk, found, request)
    return made(desk, found, named(variant), output, request)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, CinecanvasError)
    fault = fault_of(error)
    if fault.status >= 500:
        LOG.error("%s %s: %s", request.method, request.url.path, type(error).__name__)
    return answer(request.url.path, fault)


async def _unreadable(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fault = first_fault(error.errors())
    return answer(request.url.path, fault._replace(status=422))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(cause := error.__cause__, OSError):  # FastAPI takes a disk that cannot keep a form for a bad form
        return answer(request.url.path, fault_of(cannot_write("to the disk of the server", cause.errno or errno.EIO)))
    word = _WORDS.get(error.status_code, "invalid_request")
    text = {404: "There is nothing at this address.", 405: "This method is not possible at this address."}
    said = text.get(error.status_code, str(error.detail))
    response = answer(request.url.path, Fault(error.status_code, word, said))
    response.headers.update({k: v for k, v in (error.headers or {}).items() if k.lower() == "allow"})
    if error.status_code == 405 and (methods := _methods(request.url.path)):
        response.headers["allow"] = ", ".join(sorted(methods))
    return response


def _methods(path: str) -> set[str]:
    """What can be done at a path of a dialect: each of its routes knows its own methods alone."""
    return {
        method
        for dialect in DIALECTS
        for prefix in dialect.prefixes
        if _under(path, prefix)
        for route in dialect.router.routes
        if isinstance(route, APIRoute) and route.path_regex.fullmatch(path.removeprefix(prefix))
        for method in route.methods or ()
    }


def _under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(f"{prefix}/")
