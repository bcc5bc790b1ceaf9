"""What stands before every route: a request is known, bounded and plain before the API sees it, or it is refused.

In this order: an id; the pace of its address; its head; its Host (against DNS rebinding) and Origin (against other
sites' pages); its key, before a byte of its body is read; the pace of its caller; its body, counted as it comes. No
answer tells of the inside: a failure is one sentence to the client, and a traceback in the log under the request's id.

uvicorn is started around it with `http=wire.Punctual` (heads come in time), `ws="none"`, `access_log=False` (it would
write queries, and they hold signatures), `server_header=False`, `timeout_graceful_shutdown=30`, `limit_concurrency`
(connections of all together), and `forwarded_allow_ips` naming the proxy, where there is one: all addresses are its
own otherwise. uvicorn itself answers, in a line of plain text without an id, what is no HTTP (400) and what comes when
`limit_concurrency` is reached (503).
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
import re
import time
import traceback
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cinecanvas.server.pace import Pace, Turnstile
from cinecanvas.server.strict import NotStrict, strict

log = logging.getLogger("cinecanvas.server")

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_READ = frozenset(
    (
        *(b"host", b"origin", b"sec-fetch-site", b"access-control-request-method", b"access-control-request-headers"),
        *(b"x-request-id", b"content-type", b"content-length", b"transfer-encoding"),
    )
)
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(rb"(\[[0-9a-f:.]{2,45}\]|[a-z0-9_-][a-z0-9_.-]{0,252}?)\.?(:[0-9]{1,5})?", re.IGNORECASE)
_TOKENS = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,2000}")  # names of headers, as a preflight lists them
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNSAID = re.compile(r"[^!-~]|[\"\\=]")  # what a value in a log line is written without
_OURS = frozenset(
    (
        *(b"server", b"x-request-id", b"x-content-type-options", b"referrer-policy"),
        *(b"access-control-allow-origin", b"access-control-allow-credentials"),
    )
)
_MOST_TRACE = 20_000  # characters


@dataclass(frozen=True)
class Limits:
    """The most of everything that one request may be."""

    json: tuple[tuple[str, int], ...] = (("/", 1 << 20),)  # bytes, by the longest prefix of its path
    form: tuple[tuple[str, int], ...] = (("/", 200 << 20),)  # bytes of multipart/form-data, likewise
    files: tuple[str, ...] = ()  # prefixes of paths where a body is a file, whatever it calls itself: it is not held
    depth: int = 32  # containers of JSON in one another
    items: int = 10_000  # values of JSON in all
    headers: int = 100
    header_bytes: int = 32 << 10
    target: int = 8000  # bytes of path and query
    idle: float = 15.0  # s without a byte of a body that is to come
    total: float = 300.0  # s of waiting for all of it
    send: float = 60.0  # s that a piece of an answer waits for its reader


@dataclass(frozen=True)
class Refusal:
    """Why a request is not served: an HTTP status, a code for programs, a sentence for people."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()


_FAILED = Refusal(
    500, "internal_error", "The server failed at this. Its log has the reason under the id in the header x-request-id."
)


class Guard:
    """ASGI middleware; the outermost one, so that nothing is answered past it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticate: Callable[[Scope], Awaitable[Refusal | object]],
        refuse: Callable[[Scope, int, str, str], tuple[int, dict[str, Any]]],
        named: Callable[[Any], str],
        limits: Limits = Limits(),
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        linkable: Iterable[str] = (),
        pace: Callable[[Any], Pace] = lambda caller: Pace(),
        stranger: Pace = Pace(rate=200.0, burst=400, together=256),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What differs by server; none of it is read from a request.

        `authenticate`: the scope to a caller, who is kept as scope["state"]["caller"], or to a Refusal.
        `refuse`: scope, status, code and message to the status and envelope of the dialect that the path belongs to.
        `named`: a caller's name, for the log and his pace; "" has none but that of his address.
        `hosts`: names this server goes by, besides loopback; ports do not matter.
        `origins`: https://example.org, whose pages may call; a page served by this very host and port always may.
        `linkable`: prefixes of paths that other sites may link to and show (GET and HEAD): pages, signed files.
        `pace`: a caller's; `stranger`: that of one address, before anything is known of who asks.
        """
        self.app, self.authenticate, self.refuse, self.named = app, authenticate, refuse, named
        self.limits, self.pace, self.stranger, self.clock = limits, pace, stranger, clock
        self.hosts = {_host(name.encode()) or f"[{name.lower()}]" for name in (*LOOPBACK, *hosts)}
        self.origins = {origin.lower().rstrip("/").encode() for origin in origins}
        self.linkable = tuple(prefix.rstrip("/") or "/" for prefix in linkable)
        self.turnstile = Turnstile(clock=clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:  # a WebSocket would be a way round everything here, and none is served
            await send({"type": "websocket.close", "code": 1008})


class _Stopped(Exception):
    """Thrown into an application that reads a body which is refused meanwhile; what it makes of it goes nowhere."""


class _Stuck(OSError):
    """Thrown into an application whose reader has stopped reading."""


class _Exchange:
    """One request and its answer."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard, self._receive, self._send = guard, receive, send
        self.heads = _heads(scope["headers"])
        given = self.heads.get(b"x-request-id", [b""])
        self.id = given[0].decode() if len(given) == 1 and _ID.fullmatch(given[0]) else uuid.uuid4().hex
        self.scope = {**scope, "state": {**scope.get("state", {}), "request_id": self.id}}
        self.inside: list[str] = []  # the turnstile's names for who is counted
        self.name = ""
        self.status = 499  # gone before an answer, as the logs of nginx have it
        self.origin = b""  # of another site's page, which may read the answer
        self.refusal: Refusal | None = None
        self.begun = self.lost = False  # the answer has begun; nobody is there to read one
        self.whole: bytes | None = None  # a body that was read before the application asked for it
        self.most, self.count, self.waited, self.arrived = 0, 0, 0.0, False  # of the body

    async def run(self) -> None:
        began = self.guard.clock()
        try:
            try:
                await self._serve()
            except Exception as error:
                self._failed(error)
                traceback.clear_frames(error.__traceback__)  # else a broken stream keeps what it holds until some gc
            except asyncio.CancelledError:  # the server ends, and has waited for this long enough
                self.refusal = _ENDS
            if not self.begun and not self.lost:
                await self._refuse(self.refusal or _FAILED)
        except _Stuck:  # not even the refusal was taken
            pass
        finally:
            for who in self.inside:
                self.guard.turnstile.leave(who)
            self._note(self.guard.clock() - began)

    async def _serve(self) -> None:
        """The steps, in order of what they cost us."""
        guard = self.guard
        self.refusal = (
            self._paced(f"address {_address(self.scope)}", guard.stranger)
            or _odd(self.scope, self.heads, guard.limits)
            or self._foreign()
        )
        if self.refusal:
            return
        if self._asks_permission():
            await self._permit()
            return
        self.refusal = await self._known() or await self._body()
        if not self.refusal:
            await guard.app(self.scope, self.receive, self.send)

    # Who asks

    def _paced(self, who: str, pace: Pace) -> Refusal | None:
        wait = self.guard.turnstile.enter(who, pace)
        if wait:
            again = (("retry-after", str(math.ceil(wait))),)
            return Refusal(429, "rate_limited", "Too many requests. Ask again after the seconds of retry-after.", again)
        self.inside.append(who)
        return None

    def _foreign(self) -> Refusal | None:
        """That the request is meant for this host, and that no page of another site is behind it."""
        (host,) = self.heads[b"host"]
        if _host(host) not in self.guard.hosts:
            return Refusal(421, "unknown_host", "This server does not go by the name in Host. Its settings list hosts.")
        origins = self.heads.get(b"origin", [])
        own = host.lower()
        for origin in map(bytes.lower, origins):
            if origin in self.guard.origins:
                self.origin = origin
            elif origin.partition(b"://")[2] != own:  # "null" too: whoever is in a sandbox
                return _CROSS
        site = self.heads.get(b"sec-fetch-site", [b"none"])
        if origins or site in ([b"none"], [b"same-origin"]):
            return None
        shown = self.scope["method"] in ("GET", "HEAD") and under(self.scope["path"], self.guard.linkable)
        return None if shown else _CROSS  # same-site too: another port of localhost is that

    def _asks_permission(self) -> bool:
        """Whether this is a browser's preflight, which comes without a key."""
        return self.scope["method"] == "OPTIONS" and bool(
            self.heads.get(b"origin") and self.heads.get(b"access-control-request-method")
        )

    async def _permit(self) -> None:
        """The answer to a preflight whose origin is allowed; what may be done is for the real request to find out."""
        headers = [(b"access-control-max-age", b"600")]
        headers.append((b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"))
        wanted = b", ".join(self.heads.get(b"access-control-request-headers", []))
        if wanted and _TOKENS.fullmatch(wanted):
            headers.append((b"access-control-allow-headers", wanted))
        await self.send({"type": "http.response.start", "status": 204, "headers": headers})
        await self.send({"type": "http.response.body"})

    async def _known(self) -> Refusal | None:
        caller = await self.guard.authenticate(self.scope)
        if isinstance(caller, Refusal):
            return caller
        self.scope["state"]["caller"] = caller
        self.name = self.guard.named(caller)
        return self._paced(f"caller {self.name}", self.guard.pace(caller)) if self.name else None

    # What comes

    async def _body(self) -> Refusal | None:
        """How much of a body may come; and one of JSON at once, for it is checked as a whole."""
        limits, path = self.guard.limits, self.scope["path"]
        kind = self.heads.get(b"content-type", [b""])[0].partition(b";")[0].strip().lower()
        self.most = _most(limits.form if kind == b"multipart/form-data" else limits.json, path)
        if kind.startswith(b"multipart/") and not _in_utf8(self.heads[b"content-type"][0].lower()):
            return Refusal(415, "unsupported_charset", "A form is read as UTF-8 alone.")
        if int(self.heads.get(b"content-length", [b"0"])[0]) > self.most:
            return _too_large(self.most)
        if (kind != b"application/json" and not kind.endswith(b"+json")) or under(path, limits.files):
            return None
        body = bytearray()
        while not self.arrived:
            message = await self.receive()
            if message["type"] != "http.request":
                raise ClientDisconnect
            body += message.get("body", b"")
        self.whole = bytes(body)
        try:
            if body:
                strict(self.whole, depth=limits.depth, items=limits.items)
        except NotStrict as error:
            return Refusal(400, "invalid_json", f"{error}.")
        return None

    async def receive(self) -> Message:
        """What the application hears: a body that keeps to its bounds."""
        if self.whole is not None:
            body, self.whole = self.whole, None
            return {"type": "http.request", "body": body, "more_body": False}
        if self.arrived:  # all that can still come is that the client goes
            return await self._receive()
        if self.refusal:
            raise _Stopped
        limits, began = self.guard.limits, self.guard.clock()
        try:
            async with asyncio.timeout(min(limits.idle, limits.total - self.waited)):
                message = await self._receive()
        except TimeoutError:
            raise self._stop(Refusal(408, "too_slow", "The body did not come in time. Send it again.")) from None
        self.waited += self.guard.clock() - began
        if message["type"] != "http.request":
            self.arrived = self.lost = True
            return message
        self.count += len(message.get("body", b""))
        self.arrived = not message.get("more_body", False)
        if self.count > self.most:
            raise self._stop(_too_large(self.most))
        return message

    def _stop(self, refusal: Refusal) -> Exception:
        self.refusal = refusal
        return _Stopped()

    # What goes

    async def send(self, message: Message) -> None:
        """What the application says: dressed, and not for ever."""
        if message["type"] == "http.response.start":
            if self.refusal or message["status"] == 500:  # our own words follow: its may be those of an exception
                return
            await self._start(message["status"], message.get("headers", ()))
        elif self.begun:
            await self._pass(message)

    async def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.begun, self.status = True, status
        kept = [(name, value) for name, value in headers if name.lower() not in _OURS]
        kept.append((b"x-request-id", self.id.encode()))
        kept.append((b"x-content-type-options", b"nosniff"))
        kept.append((b"referrer-policy", b"no-referrer"))
        if not any(name.lower() == b"cache-control" for name, _ in kept):
            kept.append((b"cache-control", b"no-store"))
        if self.origin:
            kept.append((b"access-control-allow-origin", self.origin))
            kept.append((b"access-control-expose-headers", b"x-request-id, retry-after"))
        if self.guard.origins:
            kept.append((b"vary", b"origin"))
        await self._pass({"type": "http.response.start", "status": status, "headers": kept})

    async def _pass(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self.guard.limits.send):
                await self._send(message)
        except TimeoutError:
            self.lost = True
            _hang_up(self._send)
            raise _Stuck("the reader has stopped reading") from None

    async def _refuse(self, refusal: Refusal) -> None:
        """The dialect's envelope round a refusal, at once.

        What is left of a body runs into the sand, for as long as the wire allows: to close on it is to reset the
        connection, and who still sends would find that in the answer's place.
        """
        status, envelope = self.guard.refuse(self.scope, refusal.status, refusal.code, refusal.message)
        body = json.dumps(envelope).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in refusal.headers]
        await self._start(status, headers)
        await self._pass({"type": "http.response.body", "body": body})

    # What is written down

    def _failed(self, error: Exception) -> None:
        """A traceback, each line of it under the id, so that none can be forged; not if we or the client broke off."""
        if not self.refusal and not self.lost and not isinstance(error, ClientDisconnect):
            lines = "".join(traceback.format_exception(error))[-_MOST_TRACE:].splitlines()
            told = "\n".join(f"{self.id} | {_CONTROL.sub('?', line)}" for line in lines)
            log.error("failed request=%s\n%s", self.id, told)

    def _note(self, seconds: float) -> None:
        """One line for one request: no query, no header, no body, and nothing that could pass for another line."""
        if log.isEnabledFor(logging.INFO):
            path = _template(self.scope["path"], getattr(self.scope.get("route"), "path", None))
            facts = {"method": _said(self.scope["method"]), "path": _said(path), "status": self.status}
            facts |= {"seconds": round(seconds, 4), "request": self.id, "caller": _said(self.name) or "-"}
            log.info(" ".join(f"{name}=%({name})s" for name in facts), facts)


def _template(path: str, template: str | None) -> str:
    """A path without what was asked in it: a route knows itself only from where its router was mounted."""
    if template is None:
        return path
    mounted = 1 if ":path}" in template else path.count("/") - template.count("/")
    return "/".join(path.split("/")[: mounted + 1]) + template


_ENDS = Refusal(503, "unavailable", "The server is about to end. Ask the next one.", (("retry-after", "5"),))
_CROSS = Refusal(403, "cross_site", "A page of another site may not ask this. The server's settings list origins.")


def _odd(scope: Scope, heads: dict[bytes, list[bytes]], limits: Limits) -> Refusal | None:
    """What is wrong with a head as such; where two programs could read it differently, it is."""
    headers = scope["headers"]
    if len(headers) > limits.headers or sum(len(name) + len(value) for name, value in headers) > limits.header_bytes:
        return Refusal(431, "headers_too_large", f"At most {limits.headers} headers of {limits.header_bytes} bytes.")
    if len(scope["path"]) + len(scope.get("query_string", b"")) > limits.target:
        return Refusal(414, "uri_too_long", f"A path and query have at most {limits.target} characters.")
    if not scope["path"].startswith("/") or _CONTROL.search(scope["path"]):
        return Refusal(400, "invalid_path", "The path is none, or holds control characters.")
    if b"%00" in scope.get("query_string", b""):  # no database keeps it, as in JSON
        return Refusal(400, "invalid_query", "The query holds the character NUL.")
    lengths = heads.get(b"content-length", [])
    if len(heads.get(b"host", [])) != 1 or len(heads.get(b"content-type", [])) > 1 or len(lengths) > 1:
        return Refusal(400, "invalid_headers", "One Host is needed, and at most one content-type and content-length.")
    if lengths and (not _counts(lengths[0]) or heads.get(b"transfer-encoding")):
        return Refusal(400, "invalid_headers", "The length of the body can be read in two ways.")
    return None


def _in_utf8(kind: bytes) -> bool:
    """Whether a form is to be read as UTF-8: the parser would take any codec of Python's, idna (slow) and undefined."""
    said = [option.strip() for option in kind.split(b";")[1:] if b"charset" in option]
    return all(option in (b"charset=utf-8", b'charset="utf-8"') for option in said)


def _counts(length: bytes) -> bool:
    return length.isdigit() and len(length) < 20


def _heads(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """Every value of the headers that we go by."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        name = name.lower()
        if name in _READ:
            found.setdefault(name, []).append(value)
    return found


def _host(value: bytes) -> str:
    """The name in a Host header, without its port; "" if it is none."""
    found = _HOST.fullmatch(value)
    return found[1].decode().lower() if found else ""


def _address(scope: Scope) -> str:
    """Whom a peer is counted as: an IPv4 address, or the /64 that one subscriber of IPv6 has."""
    text = (scope.get("client") or ("local", 0))[0]
    if ":" not in text:
        return str(text)
    try:
        number = ipaddress.IPv6Address(text.partition("%")[0])
    except ValueError:
        return str(text)
    return str(number.ipv4_mapped or ipaddress.IPv6Address(int(number) >> 64 << 64))


def under(path: str, prefixes: Iterable[str]) -> bool:
    """Whether a path is one of these, or below one; everything is below "/", so that stands for itself alone."""
    return any(path == prefix or (prefix != "/" and path.startswith(f"{prefix}/")) for prefix in prefixes)


def _most(table: tuple[tuple[str, int], ...], path: str) -> int:
    return max(((len(prefix), most) for prefix, most in table if path.startswith(prefix)), default=(0, 0))[1]


def _too_large(most: int) -> Refusal:
    return Refusal(413, "too_large", f"The body is too large: at most {most} bytes are taken here.")


def _said(text: str) -> str:
    """Text as one word of a log line, in printable ASCII."""
    return _UNSAID.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "replace")), text[:300]
    )


def _hang_up(send: Send) -> None:
    """Drop a connection and what waits in it: ASGI has no word for that, and to close one waits for its reader."""
    abort = getattr(getattr(getattr(send, "__self__", None), "transport", None), "abort", None)
    if abort is not None:
        abort()
