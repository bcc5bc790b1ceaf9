"""What the guard adds to one request, in µs: python bench/guard.py"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cinecanvas.server.guard import Guard
from cinecanvas.server.pace import Pace

BODY = b'{"model":"diorama","prompt":"a red cube turns on a green floor","seconds":5.0,"size":"1280x720"}'
HEAD = [(b"host", b"localhost:8000"), (b"accept", b"*/*"), (b"user-agent", b"a"), (b"authorization", b"Bearer a")]
JSON = [*HEAD, (b"content-type", b"application/json"), (b"content-length", str(len(BODY)).encode())]
FAST, SPENT = Pace(rate=1e9, burst=10**9), Pace(rate=1e-3, burst=1)


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def anybody(scope: Scope) -> object:
    return "anybody"


def envelope(scope: Scope, status: int, code: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"code": code, "message": message}}


async def seconds(app: ASGIApp, headers: list[tuple[bytes, bytes]], body: bytes, *, count: int = 4000) -> float:
    """Of one request, in the best of five rounds."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        pass

    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count):
            scope = {"type": "http", "method": "POST", "path": "/v1/videos", "query_string": b"", "headers": headers}
            await app({**scope, "client": ("127.0.0.1", 1)}, receive, send)
        rounds.append((time.perf_counter() - began) / count)
    return min(rounds)


async def table() -> None:
    options: dict[str, Any] = {"authenticate": anybody, "refuse": envelope, "named": str, "stranger": FAST}
    guard = Guard(nothing, pace=lambda caller: FAST, **options)
    spent = Guard(nothing, pace=lambda caller: SPENT, **options)
    bare = await seconds(nothing, HEAD, b"")
    for name, app, headers, body in (
        ("no body", guard, HEAD, b""),
        ("JSON of 97 bytes", guard, JSON, BODY),
        ("refused with 429", spent, HEAD, b""),
    ):
        print(f"{name:18} {1e6 * (await seconds(app, headers, body) - bare):5.1f}")


if __name__ == "__main__":
    print("without a log")
    asyncio.run(table())
    print("with its line in the log")
    logging.basicConfig(level=logging.INFO, stream=open("/dev/null", "w"))  # noqa: SIM115
    asyncio.run(table())
