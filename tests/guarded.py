"""A small application behind the guard, and ways to ask it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import httpx
import uvicorn
from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Message, Scope

from cinecanvas.server.guard import Guard, Limits, Refusal
from cinecanvas.server.pace import Pace
from cinecanvas.server.wire import Punctual

SECRET = "no such file: /srv/keys/a.pem, <object at 0x7f3a5c0de4b0>"
KEY = {"authorization": "Bearer good"}
JSON = {**KEY, "content-type": "application/json"}
SMALL = Limits(json=(("/", 1000), ("/v1/large", 5000)), form=(("/", 3000),), idle=0.3, total=1.0, send=0.3)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")


@dataclass(frozen=True)
class Caller:
    name: str


@dataclass(frozen=True)
class Seen:
    """What reached the application."""

    bodies: list[bytes] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)


def application(seen: Seen) -> FastAPI:
    app = FastAPI()

    @app.api_route("/v1/films/{name}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
    async def film(name: str, request: Request) -> dict[str, str]:
        seen.callers.append(request.state.caller.name)
        seen.bodies.append(await request.body())
        return {"name": name}

    @app.post("/v1/large/body")
    async def large(request: Request) -> dict[str, int]:
        return {"bytes": len(await request.body())}

    @app.post("/v1/form")
    async def form(file: UploadFile) -> dict[str, int | None]:
        return {"bytes": file.size}

    @app.get("/v1/boom")
    async def boom() -> None:
        raise RuntimeError(SECRET)

    @app.get("/v1/confession")
    async def confession() -> JSONResponse:
        return JSONResponse({"detail": SECRET}, status_code=500)

    @app.get("/v1/midway")
    async def midway() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"the beginning"
            raise RuntimeError(SECRET)

        return StreamingResponse(pieces())

    @app.get("/v1/endless")
    async def endless() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(1 << 16)
                    await asyncio.sleep(0)
            finally:
                seen.ended.append("endless")

        return StreamingResponse(pieces())

    @app.get("/v1/slow")
    async def slow() -> str:
        await asyncio.sleep(0.3)
        return "at last"

    @app.get("/v1/file")
    async def file() -> JSONResponse:
        return JSONResponse("x", headers={"cache-control": "private, max-age=60", "server": "secret/1.0"})

    @app.get("/studio")
    async def studio() -> str:
        return "a page"

    return app


async def by_key(scope: Scope) -> Refusal | Caller:
    key = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    if key.startswith("Bearer good"):
        return Caller(f"alice{key[11:]}")
    return Refusal(401, "no_key", "A key is needed.", (("www-authenticate", "Bearer"),))


def envelope(scope: Scope, status: int, code: str, message: str) -> tuple[int, dict[str, Any]]:
    if scope["path"].startswith("/other"):
        return status, {"detail": message}
    return status, {"error": {"code": code, "message": message}}


def guarded(app: Any = None, **options: Any) -> Guard:
    given: dict[str, Any] = {"authenticate": by_key, "refuse": envelope, "named": lambda caller: caller.name}
    given |= {"limits": SMALL, "hosts": ["cine.example"], "origins": ["https://studio.example"]}
    return Guard(application(Seen()) if app is None else app, **{**given, "linkable": ["/studio"], **options})


def ask(method: str, path: str, *, guard: Guard | None = None, base: str = "http://localhost", **more: Any) -> Any:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(guard or guarded())
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **{"headers": KEY, **more})

    return asyncio.run(once())


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def raw(guard: Guard, *, method: str = "GET", path: str = "/v1/films/a", headers: Any, body: bytes = b"") -> int:
    """The status for a scope that no client would send."""
    said: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        said.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers, "root_path": ""}
    asyncio.run(guard({**scope, "client": ("127.0.0.1", 1), "scheme": "http", "http_version": "1.1"}, receive, send))
    return int(said[0]["status"])


class Brisk(Punctual):
    seconds = 0.4
    lost: ClassVar[list[str]] = []

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.append(str(exc))


class Calm(Brisk):
    seconds = 2.0


@contextmanager
def serving(guard: Any, http: type[Brisk] = Brisk) -> Iterator[int]:
    """The port of a uvicorn on loopback."""
    Brisk.lost.clear()
    options: dict[str, Any] = {"ws": "none", "lifespan": "off", "log_config": None, "access_log": False}
    server = uvicorn.Server(uvicorn.Config(guard, http=http, timeout_graceful_shutdown=1, **options))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(20)


def dialled(port: int) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", port), timeout=20)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def rest(line: socket.socket) -> bytes:
    """All that comes until the other side hangs up, however it does."""
    found = b""
    try:
        while piece := line.recv(1 << 16):
            found += piece
    except ConnectionError:
        pass
    return found


def until(true: Callable[[], Any]) -> bool:
    """Whether something becomes true within many seconds."""
    for _ in range(1000):
        if true():
            return True
        time.sleep(0.02)
    return False


def head(path: str = "/v1/films/a", *more: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Authorization: Bearer good", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


GUARDED = guarded(stranger=Pace(rate=1e6, burst=10**6), pace=lambda caller: Pace(rate=1e6, burst=10**6))
