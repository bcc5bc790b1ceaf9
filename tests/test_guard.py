"""Whatever comes over the wire, the API behind the guard sees plain requests, and the client sees no inside."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import httpx
import uvicorn
from fastapi import FastAPI, Request, UploadFile
from fastapi.responses import JSONResponse, StreamingResponse
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from cinecanvas.server.guard import Guard, Limits, Refusal
from cinecanvas.server.pace import Pace, Turnstile
from cinecanvas.server.strict import NotStrict, strict
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


# -- ids, and what every answer has ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/films/a", "/v1/boom", "/nowhere"])
def test_every_answer_has_an_id(path: str) -> None:
    assert re.fullmatch("[0-9a-f]{32}", ask("GET", path).headers["x-request-id"])


def test_a_sane_id_is_kept() -> None:
    answer = ask("GET", "/v1/films/a", headers={**KEY, "x-request-id": "trace-7.b_C"})
    assert answer.headers["x-request-id"] == "trace-7.b_C"


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "x" * 65, "a=b", '"', "<script>"])
def test_an_id_that_is_none_is_replaced(given: str) -> None:
    answer = ask("GET", "/v1/films/a", headers={**KEY, "x-request-id": given})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_of_two_ids_neither_is_kept() -> None:
    answer = ask("GET", "/v1/films/a", headers=[*KEY.items(), ("x-request-id", "a"), ("x-request-id", "b")])
    assert answer.headers["x-request-id"] not in ("a", "b", "a, b")


@pytest.mark.parametrize("path", ["/v1/films/a", "/v1/boom", "/nowhere"])
def test_every_answer_is_kept_out_of_caches_and_unsniffed(path: str) -> None:
    heads = ask("GET", path).headers
    said = [heads.get(name) for name in ("x-content-type-options", "referrer-policy", "cache-control")]
    assert said == ["nosniff", "no-referrer", "no-store"]


def test_a_route_may_say_how_its_answer_is_cached() -> None:
    assert ask("GET", "/v1/file").headers["cache-control"] == "private, max-age=60"


def test_no_answer_says_what_serves_it() -> None:
    assert "server" not in ask("GET", "/v1/file").headers


# -- hosts and origins -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base",
    ["http://localhost", "http://LOCALHOST:8000", "http://127.0.0.1:1", "http://[::1]:8000", "http://cine.example:9"],
)
def test_a_host_of_ours_is_served(base: str) -> None:
    assert ask("GET", "/v1/films/a", base=base).status_code == 200


HOSTS = [
    "evil.example",
    "localhost.evil.example",
    "127.0.0.1.nip.io",
    "169.254.169.254",
    "0.0.0.0",
    "cine.example.evil",
]


@pytest.mark.parametrize("host", [*HOSTS, "", "localhost:x", "a b", "localhost@evil.example", "local\x00host", "[::2]"])
def test_another_host_is_misdirected(host: str) -> None:
    assert raw(guarded(), headers=[(b"host", host.encode()), (b"authorization", b"Bearer good")]) == 421


def test_a_query_with_nul_is_refused() -> None:
    assert ask("GET", "/v1/films/a?after=a%00b").status_code == 400


@pytest.mark.parametrize("headers", [[], [(b"host", b"localhost"), (b"host", b"evil.example")]])
def test_one_host_is_needed(headers: list[tuple[bytes, bytes]]) -> None:
    assert raw(guarded(), headers=headers) == 400


FOREIGN = [
    {"origin": "null"},
    {"origin": "https://evil.example"},
    {"origin": "https://studio.example.evil.example"},
    {"origin": "http://studio.example"},
    {"origin": "http://localhost:3000"},
    {"origin": ""},
    {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"origin": "null", "sec-fetch-site": "cross-site"},
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("said", FOREIGN, ids=str)
def test_no_method_is_open_to_a_page_of_another_site(method: str, said: dict[str, str]) -> None:
    assert ask(method, "/v1/films/a", headers={**KEY, **said}).status_code == 403


def test_what_another_site_asks_does_not_reach_the_application() -> None:
    seen = Seen()
    ask("DELETE", "/v1/films/a", guard=guarded(application(seen)), headers={**KEY, "origin": "null"})
    assert not seen.callers


@pytest.mark.parametrize(
    "said", [{}, {"origin": "http://localhost"}, {"sec-fetch-site": "none"}, {"sec-fetch-site": "same-origin"}], ids=str
)
def test_programs_and_our_own_pages_may_ask(said: dict[str, str]) -> None:
    assert ask("POST", "/v1/films/a", headers={**KEY, **said}).status_code == 200


def test_an_allowed_origin_may_ask_and_read() -> None:
    said = {"origin": "https://studio.example", "sec-fetch-site": "cross-site"}
    answer = ask("DELETE", "/v1/films/a", headers={**KEY, **said})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://studio.example")


def test_an_allowed_origin_may_read_why_it_was_refused() -> None:
    answer = ask("GET", "/v1/films/a", headers={"origin": "https://studio.example"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "https://studio.example")


PREFLIGHT = {"access-control-request-method": "DELETE", "access-control-request-headers": "authorization, x-b"}


def test_a_preflight_of_an_allowed_origin_is_answered_without_a_key() -> None:
    answer = ask("OPTIONS", "/v1/films/a", headers={"origin": "https://studio.example", **PREFLIGHT})
    assert (answer.status_code, answer.headers["access-control-allow-headers"]) == (204, "authorization, x-b")


@pytest.mark.parametrize("origin", ["null", "https://evil.example"])
def test_a_preflight_of_another_origin_is_refused(origin: str) -> None:
    answer = ask("OPTIONS", "/v1/films/a", headers={"origin": origin, **PREFLIGHT})
    assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


def test_only_the_guard_says_who_may_read() -> None:
    async def open_house(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Access-Control-Allow-Origin", b"*")]})
        await send({"type": "http.response.body"})

    assert "access-control-allow-origin" not in ask("GET", "/", guard=guarded(open_house)).headers


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/studio", 200), ("POST", "/studio", 403), ("GET", "/studios", 403)]
)
def test_another_site_may_link_to_a_page_and_no_more(method: str, path: str, status: int) -> None:
    assert ask(method, path, headers={**KEY, "sec-fetch-site": "cross-site"}).status_code == status


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_no_method_is_open_without_a_key(method: str) -> None:
    answer = ask(method, "/v1/films/a", headers={"authorization": "Bearer bad"})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_a_path_that_is_none_needs_a_key_too() -> None:
    assert ask("GET", "/openapi.json", headers={}).status_code == 401


def test_the_caller_is_known_to_the_route() -> None:
    seen = Seen()
    ask("GET", "/v1/films/a", guard=guarded(application(seen)))
    assert seen.callers == ["alice"]


def test_no_byte_of_a_body_is_read_before_the_key() -> None:
    async def receive() -> Message:
        raise AssertionError("the body was read")

    async def send(message: Message) -> None:
        statuses.append(message.get("status"))

    statuses: list[Any] = []
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": "/v1/films/a", "headers": headers, "query_string": b""}
    asyncio.run(guarded()(scope, receive, send))
    assert statuses == [401, None]


def test_a_keyless_body_that_never_comes_is_answered_at_once() -> None:
    with serving(guarded(limits=Limits())) as port, dialled(port) as line:
        line.sendall(b"POST /v1/films/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{")
        assert line.recv(12) == b"HTTP/1.1 401"


def test_a_keyless_client_who_waits_to_send_is_not_told_to() -> None:
    with serving(guarded()) as port, dialled(port) as line:
        line.sendall(b"POST /v1/form HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert line.recv(12) == b"HTTP/1.1 401"


def test_a_keyless_client_sending_much_reads_why_it_is_refused() -> None:
    with serving(guarded()) as port:
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/form", content=bytes(8 << 20), timeout=30)
    assert answer.status_code == 401


# -- heads -------------------------------------------------------------------------------------------------------------


def test_many_headers_are_refused() -> None:
    assert ask("GET", "/v1/films/a", headers={**KEY, **{f"x-{n}": "1" for n in range(200)}}).status_code == 431


def test_long_headers_are_refused() -> None:
    assert ask("GET", "/v1/films/a", headers={**KEY, "x-long": "1" * 40_000}).status_code == 431


@pytest.mark.parametrize("path", ["/v1/films/" + "a" * 9000, "/v1/films/a?q=" + "a" * 9000])
def test_long_targets_are_refused(path: str) -> None:
    assert ask("GET", path).status_code == 414


@pytest.mark.parametrize(
    "path", ["", "*", "http://evil.example/", "/v1/films/a\x00", "/v1/films/\r\na", "/v1/films/\x1b[2J"]
)
def test_a_path_that_is_none_is_refused(path: str) -> None:
    assert raw(guarded(), path=path, headers=[(b"host", b"localhost")]) == 400


AMBIGUOUS = [
    [(b"content-length", b"1"), (b"content-length", b"2")],
    [(b"content-length", b"1"), (b"transfer-encoding", b"chunked")],
    [(b"content-length", b"-1")],
    [(b"content-length", b"1_0")],
    [(b"content-length", b"9" * 5000)],
    [(b"content-type", b"application/json"), (b"content-type", b"text/plain")],
]


@pytest.mark.parametrize("more", AMBIGUOUS)
def test_a_head_that_can_be_read_in_two_ways_is_refused(more: list[tuple[bytes, bytes]]) -> None:
    assert (
        raw(guarded(), method="POST", headers=[(b"host", b"localhost"), (b"authorization", b"Bearer good"), *more])
        == 400
    )


# -- bodies, bounded ---------------------------------------------------------------------------------------------------


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(100)


def test_a_body_larger_than_allowed_is_refused() -> None:
    assert code(ask("POST", "/v1/films/a", content=bytes(1001))) == "too_large"


def test_a_body_without_a_length_is_counted() -> None:
    assert ask("POST", "/v1/films/a", content=chunks(11)).status_code == 413


def test_a_body_that_is_just_not_too_large_passes_in_order() -> None:
    seen = Seen()
    body = b"".join(bytes([n]) * 100 for n in range(10))
    ask("POST", "/v1/films/a", guard=guarded(application(seen)), content=body)
    assert seen.bodies == [body]


def test_a_body_that_is_longer_than_it_says_is_counted() -> None:
    headers = [(b"host", b"localhost"), (b"authorization", b"Bearer good"), (b"content-length", b"5")]
    assert raw(guarded(), method="POST", headers=headers, body=bytes(1001)) == 413


@pytest.mark.parametrize(("path", "status"), [("/v1/films/a", 413), ("/v1/large/body", 200)])
def test_the_longest_prefix_of_a_path_says_how_much_it_takes(path: str, status: int) -> None:
    assert ask("POST", path, headers=JSON, content=json.dumps("x" * 4000)).status_code == status


@pytest.mark.parametrize(("size", "status"), [(2000, 200), (4000, 413)])
def test_a_form_has_a_bound_of_its_own(size: int, status: int) -> None:
    assert ask("POST", "/v1/form", files={"file": ("a.png", bytes(size))}).status_code == status


def test_a_form_that_grows_too_large_while_it_is_parsed_is_refused_in_our_words() -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

    async def body() -> AsyncIterator[bytes]:
        yield head
        async for chunk in chunks(40):
            yield chunk

    answer = ask("POST", "/v1/form", headers={**KEY, "content-type": "multipart/form-data; boundary=b"}, content=body())
    assert (answer.status_code, code(answer)) == (413, "too_large")


# -- JSON --------------------------------------------------------------------------------------------------------------


def test_what_is_json_reaches_the_route_byte_for_byte() -> None:
    seen, body = Seen(), ' {"prompt": "ein Würfel 🎲 \\ud83c\\udfb2", "n": [1, -2.5e3, null, true, {}]}\n'.encode()
    ask("POST", "/v1/films/a", guard=guarded(application(seen)), headers=JSON, content=body)
    assert seen.bodies == [body]


def test_an_empty_body_of_json_stays_empty() -> None:
    assert ask("POST", "/v1/films/a", headers=JSON).status_code == 200


NOT_STRICT = {
    "NaN": b'{"a": NaN}',
    "infinity": b"[-Infinity]",
    "1e400": b'{"a": 1e400}',
    "a whole number beyond all floats": b"1" * 390,
    "a number without end": b"1." + b"0" * 500,
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice, spelt differently": b'{"a": 1, "\\u0061": 2}',
    "half a character": b'["\\ud800"]',
    "half a character in a key": b'{"\\uDC00": 1}',
    "halves in the wrong order": b'["\\udc00\\ud800"]',
    "NUL": b'["\\u0000"]',
    "deep": b"[" * 33 + b"]" * 33,
    "deep objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "crowded": b"[" + b"1," * 400 + b"1]",
    "crowded with strings": b"[" + b'"",' * 300 + b'""]',
    "latin-1": b'"\xfc"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "words": b"hello",
    "two values": b"{} {}",
    "nothing but a blank": b" ",
    "an unfinished string": b'{"a": "',
    "an unfinished escape": b'"\\',
    "closed before opened": b"]]]][[[[",
    "a comma too many": b"[1,]",
}


@pytest.mark.parametrize("body", NOT_STRICT.values(), ids=NOT_STRICT)
def test_json_that_is_not_strict_is_refused(body: bytes) -> None:
    limits = Limits(items=300)
    answer = ask("POST", "/v1/films/a", guard=guarded(limits=limits), headers=JSON, content=body)
    assert (answer.status_code, code(answer)) == (400, "invalid_json")


@pytest.mark.parametrize("kind", ["application/JSON", "application/json; charset=utf-8", "application/problem+json"])
def test_json_is_strict_by_whatever_name(kind: str) -> None:
    assert ask("POST", "/v1/films/a", headers={**KEY, "content-type": kind}, content=b"NaN").status_code == 400


def test_brackets_in_strings_are_no_depth() -> None:
    strict(json.dumps(["[" * 500 + '\\"' * 50 + "\\" + "{" * 500]).encode(), depth=1)


def test_a_container_at_the_limit_passes() -> None:
    strict(b"[" * 32 + b"]" * 32, depth=32)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (8 << 20),
        b'{"a":' * 200_000,
        b'"' * (8 << 20),
        b'"' + rb"\"" * (4 << 20),
        b"]" * (8 << 20),
        b"," * (8 << 20),
    ],
)
def test_a_monstrous_text_costs_little(body: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(NotStrict):
        strict(body)
    assert time.perf_counter() - began < 5


def test_two_hundred_thousand_deep_is_refused_without_recursion() -> None:
    with pytest.raises(NotStrict, match="nested"):
        strict(b"[" * 200_000 + b"]" * 200_000, items=10**6)


def test_what_closes_without_end_is_refused_by_a_count() -> None:
    with pytest.raises(NotStrict, match="never opened"):
        strict(b"]" * 100_000)


TEXTS = st.one_of(
    st.binary(max_size=60),
    st.text(alphabet='[]{},:"\\ueE+-.01 nNaI\ud7ff', max_size=40).map(lambda text: text.encode("utf-8", "replace")),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode()),
    st.lists(
        st.sampled_from([b'"a":', b'"', b"\\", b"\\ud83d", b"\\udc00", b"{", b"}", b"[", b"]", b",", b"1e400", b"1"]),
        max_size=12,
    ).map(b"".join),
)


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_what_passes_is_what_every_parser_reads(body: bytes) -> None:
    try:
        value = strict(body)
    except NotStrict:
        return
    assert json.dumps(value) == json.dumps(json.loads(body))


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_no_body_makes_the_server_fail(body: bytes) -> None:
    assert ask("POST", "/v1/films/a", guard=GUARDED, headers=JSON, content=body).status_code in (200, 400, 413)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"host",
                    b"origin",
                    b"content-type",
                    b"content-length",
                    b"x-request-id",
                    b"transfer-encoding",
                    b"sec-fetch-site",
                ]
            ),
            st.binary(max_size=20),
        ),
        max_size=4,
    ),
    st.text(max_size=20),
    st.text(max_size=8),
)
def test_no_head_makes_the_server_fail(headers: list[tuple[bytes, bytes]], path: str, method: str) -> None:
    known = [(b"host", b"localhost"), (b"authorization", b"Bearer good")]
    assert raw(GUARDED, method=method, path=f"/v1/films/{path}", headers=[*known, *headers]) < 500


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/boom", "/v1/confession"])
def test_a_failure_tells_nothing_of_the_inside(path: str) -> None:
    answer = ask("GET", path)
    assert (answer.status_code, code(answer)) == (500, "internal_error")
    assert not re.search(r"0x[0-9a-f]|/srv|RuntimeError|Traceback|object at", answer.text)


def test_a_failing_debug_application_tells_nothing_either() -> None:
    app = application(Seen())
    app.debug = True
    assert "Traceback" not in ask("GET", "/v1/boom", guard=guarded(app)).text


def test_a_failure_is_logged_line_by_line_under_its_id(caplog: pytest.LogCaptureFixture) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a\nmethod=GET path=/forged\x1b[2J\x85b")

    ask("GET", "/v1/boom", guard=guarded(fails), headers={**KEY, "x-request-id": "abc"})
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    first, *lines = record.getMessage().split("\n")
    assert first == "failed request=abc" and len(lines) > 3
    assert all(line.startswith("abc | ") and line.isprintable() for line in lines)


def test_an_application_that_says_nothing_is_a_failure() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    assert ask("GET", "/v1/films/a", guard=guarded(silent)).status_code == 500


def test_a_failing_check_of_keys_is_a_failure_and_lets_nobody_in() -> None:
    async def fails(scope: Scope) -> object:
        raise RuntimeError(SECRET)

    assert code(ask("GET", "/v1/films/a", guard=guarded(authenticate=fails))) == "internal_error"


def test_each_path_is_refused_in_its_own_envelope() -> None:
    assert set(ask("GET", "/other/a", headers={}).json()) == {"detail"}


def test_a_websocket_is_no_way_round() -> None:
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    asyncio.run(guarded()({"type": "websocket", "path": "/"}, send, send))  # type: ignore[arg-type]
    assert said == [{"type": "websocket.close", "code": 1008}]


# -- pace --------------------------------------------------------------------------------------------------------------

SLOW = Pace(rate=0.01, burst=3, together=100)


def statuses(guard: Guard, paths: list[str], headers: list[dict[str, str]]) -> list[int]:
    """Of requests that are made at the same time."""

    async def all_of_them() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guard), base_url="http://localhost") as client:
            answers = await asyncio.gather(*(client.get(p, headers=h) for p, h in zip(paths, headers, strict=True)))
        return sorted(answer.status_code for answer in answers)

    return asyncio.run(all_of_them())


def test_a_caller_who_asks_too_often_is_told_when_to_ask_again() -> None:
    guard = guarded(pace=lambda caller: SLOW)
    answers = [ask("GET", "/v1/films/a", guard=guard) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 90 <= int(answers[3].headers["retry-after"]) <= 100


def test_one_caller_does_not_use_up_the_pace_of_another() -> None:
    guard = guarded(pace=lambda caller: SLOW)
    for _ in range(4):
        ask("GET", "/v1/films/a", guard=guard)
    assert ask("GET", "/v1/films/a", guard=guard, headers={"authorization": "Bearer good-bob"}).status_code == 200


def test_an_address_without_a_key_is_slowed_before_keys_are_looked_up() -> None:
    looked: list[Scope] = []

    async def counts(scope: Scope) -> Refusal:
        looked.append(scope)
        return Refusal(401, "no_key", "")

    guard = guarded(authenticate=counts, stranger=SLOW)
    assert [ask("GET", "/", guard=guard).status_code for _ in range(5)] == [401, 401, 401, 429, 429] and len(
        looked
    ) == 3


def test_a_caller_has_so_many_requests_in_progress_and_no_more() -> None:
    guard = guarded(pace=lambda caller: Pace(together=2))
    assert statuses(guard, ["/v1/slow"] * 5, [KEY] * 5) == [200, 200, 429, 429, 429]


def test_what_is_done_is_not_counted_any_more() -> None:
    guard = guarded(pace=lambda caller: Pace(together=1), stranger=Pace(together=1))
    for path in ("/v1/boom", "/v1/films/a", "/nowhere", "/v1/films/a"):
        assert ask("GET", path, guard=guard).status_code != 429


def test_a_bucket_fills_with_time() -> None:
    now = [0.0]
    turnstile = Turnstile(clock=lambda: now[0])
    pace = Pace(rate=2.0, burst=1)
    assert [turnstile.enter("a", pace), turnstile.enter("a", pace)] == [0.0, 0.5]
    now[0] = 0.5
    assert turnstile.enter("a", pace) == 0.0


def test_a_million_addresses_do_not_fill_the_memory() -> None:
    turnstile = Turnstile(most=10)
    for number in range(1000):
        turnstile.enter(str(number), Pace())
        turnstile.leave(str(number))
    assert len(turnstile._full) <= 10 and not turnstile._inside


def test_who_rested_longest_is_forgotten_first() -> None:
    turnstile, pace = Turnstile(most=2, clock=lambda: 0.0), Pace(rate=1.0, burst=2)
    assert [turnstile.enter(who, pace) for who in ("often", "once", "often", "new")] == [0.0] * 4
    assert turnstile.enter("often", pace) == 1.0


def test_the_addresses_of_one_subscriber_are_one() -> None:
    guard = guarded(stranger=SLOW)

    def status(address: str) -> int:
        async def once() -> int:
            transport = httpx.ASGITransport(guard, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return (await client.get("/v1/films/a", headers=KEY)).status_code

        return asyncio.run(once())

    assert [status(f"2001:db8:1:2::{n}") for n in range(4)] == [200, 200, 200, 429]
    assert {status("2001:db8:1:3::1"), *(status(f"::ffff:192.0.2.{n}") for n in range(4))} == {200}


# -- the log -----------------------------------------------------------------------------------------------------------


def line(caplog: pytest.LogCaptureFixture, method: str, path: str, **more: Any) -> str:
    with caplog.at_level(logging.INFO, "cinecanvas.server"):
        ask(method, path, **more)
    (found,) = [r.getMessage() for r in caplog.records if r.name == "cinecanvas.server" and r.levelno == logging.INFO]
    return found


def test_a_request_is_one_line_by_its_template(caplog: pytest.LogCaptureFixture) -> None:
    said = line(
        caplog, "POST", "/v1/films/private?sig=secret", headers={**KEY, "x-request-id": "abc"}, content=b"secret"
    )
    assert re.fullmatch(
        r"method=POST path=/v1/films/{name} status=200 seconds=\d+\.\d{4} request=abc caller=alice", said
    )


def test_a_path_that_is_no_route_is_logged_without_its_query(caplog: pytest.LogCaptureFixture) -> None:
    assert " path=/nowhere status=404 " in line(caplog, "GET", "/nowhere?sig=secret")


def test_no_path_forges_a_line(caplog: pytest.LogCaptureFixture) -> None:
    said = line(caplog, "GET", "/a%0d%0amethod=GET path=/x caller=root\u2028%1b[2Jé", headers={})
    assert said.isascii() and said.isprintable() and said.count(" ") == 5 and "caller=root" not in said


def test_what_is_refused_is_logged_too(caplog: pytest.LogCaptureFixture) -> None:
    said = line(caplog, "POST", "/v1/films/a", headers={"authorization": "Bearer secret"})
    assert " status=401 " in said and said.endswith("caller=-") and "secret" not in said


# -- over a real wire: those who lie, dawdle and vanish ----------------------------------------------------------------


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


KINDS = ["Content-Type: application/json", "Content-Type: multipart/form-data; boundary=b", "Content-Type: text/plain"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_stops_coming_is_not_waited_for(kind: str) -> None:
    path = "/v1/form" if "form" in kind else "/v1/films/a"
    with serving(guarded(limits=replace(SMALL, total=600))) as port, dialled(port) as line:
        line.sendall(head(path, "Content-Length: 900", kind) + b"--b\r\n")
        assert rest(line).startswith(b"HTTP/1.1 408")


def test_a_body_that_drips_is_not_waited_for() -> None:
    with serving(guarded(limits=replace(SMALL, idle=600))) as port, dialled(port) as line:
        line.sendall(head("/v1/films/a", "Content-Length: 900"))
        line.settimeout(0.1)
        answer = b""
        for _ in range(200):
            try:
                line.sendall(b"x")
                answer = line.recv(12)
                break
            except TimeoutError:
                continue
        assert answer == b"HTTP/1.1 408"


def test_chunks_without_end_are_refused_as_soon_as_they_are_too_much() -> None:
    with serving(guarded()) as port, dialled(port) as line:
        line.sendall(head("/v1/films/a", "Transfer-Encoding: chunked") + (b"64\r\n" + bytes(100) + b"\r\n") * 11)
        assert rest(line).startswith(b"HTTP/1.1 413")


def test_a_length_that_is_too_much_is_refused_before_it_comes() -> None:
    with serving(guarded()) as port, dialled(port) as line:
        line.sendall(head("/v1/films/a", "Content-Length: 99999999999"))
        assert rest(line).startswith(b"HTTP/1.1 413")


def test_a_client_who_goes_away_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), serving(guarded()) as port:
        with dialled(port) as line:
            line.sendall(head("/v1/films/a", "Content-Length: 900", KINDS[0]) + b"{")
        assert until(lambda: "status=499" in caplog.text)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_half_a_head_is_hung_up_on() -> None:
    with serving(guarded()) as port, dialled(port) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert rest(line) == b""


def test_a_head_that_drips_is_hung_up_on() -> None:
    with serving(guarded()) as port, dialled(port) as line:
        line.sendall(b"GET / HTTP/1.1\r\nX: ")

        def gone() -> bool:
            try:
                line.sendall(b"x")
            except ConnectionError:
                return True
            time.sleep(0.05)
            return False

        assert until(gone)


def test_a_connection_may_ask_again_and_again() -> None:
    with serving(guarded(), Calm) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=KEY) as client:
        for _ in range(4):
            assert client.get("/v1/films/a").status_code == 200
            time.sleep(0.7)  # together longer than the clock of the connection
        assert not Brisk.lost


def test_an_answer_that_takes_its_time_is_not_cut_by_the_clock_of_the_connection() -> None:
    app = application(Seen())

    @app.get("/v1/late")
    async def late() -> str:
        await asyncio.sleep(1.0)
        return "at last"

    with serving(guarded(app)) as port, dialled(port) as line:
        line.sendall(head("/v1/late", "Connection: close", method="GET"))
        assert rest(line).endswith(b'"at last"')


WHOLE = 32 << 20


async def at_one_stroke(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(WHOLE).encode())]})
    await send({"type": "http.response.body", "body": bytes(WHOLE)})


def test_an_answer_that_is_done_does_not_wait_for_its_reader_for_ever() -> None:
    with serving(guarded(at_one_stroke)) as port, dialled(port) as line:
        line.sendall(head(method="GET"))
        assert until(lambda: Brisk.lost)


def test_a_reader_who_is_slow_but_reads_has_the_whole_answer() -> None:
    with serving(guarded(at_one_stroke), Calm) as port, dialled(port) as line:
        line.sendall(head("/v1/films/a", "Connection: close", method="GET"))
        found = 0
        for _ in range(8):  # 3.2 s, longer than the clock of the connection
            found += len(line.recv(1 << 20, socket.MSG_WAITALL))
            time.sleep(0.4)
        assert found + len(rest(line)) > WHOLE


def test_what_is_said_piece_by_piece_arrives_piece_by_piece() -> None:
    heard = threading.Event()

    async def pieces(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        assert await asyncio.to_thread(heard.wait, 20)
        await send({"type": "http.response.body", "body": b"second"})

    with serving(guarded(pieces)) as port, httpx.stream("GET", f"http://127.0.0.1:{port}/", headers=KEY) as answer:
        said = answer.iter_raw()
        assert next(said) == b"first"
        heard.set()
        assert b"".join(said) == b"second"


def test_a_failure_midway_breaks_the_answer_off_and_tells_nothing() -> None:
    with serving(guarded()) as port, dialled(port) as line:
        line.sendall(head("/v1/midway", method="GET"))
        answer = rest(line)
    assert b"the beginning" in answer and not answer.endswith(b"0\r\n\r\n") and b"0x7f" not in answer


def test_a_reader_who_stops_reading_is_given_up() -> None:
    seen = Seen()
    with serving(guarded(application(seen))) as port, dialled(port) as line:
        line.sendall(head("/v1/endless", method="GET"))
        assert until(lambda: seen.ended)


def test_a_reader_who_stops_reading_is_hung_up_on() -> None:
    seen = Seen()
    with serving(guarded(application(seen))) as port, dialled(port) as line:
        line.sendall(head("/v1/endless", method="GET"))
        assert until(lambda: seen.ended)
        assert not rest(line).endswith(b"0\r\n\r\n")  # the end comes at all, and as a break


def test_a_reader_who_stops_reading_does_not_hold_up_others() -> None:
    with serving(guarded(limits=Limits())) as port, dialled(port) as stuck, dialled(port) as line:
        stuck.sendall(head("/v1/endless", method="GET"))
        assert stuck.recv(12) == b"HTTP/1.1 200"
        line.sendall(head(method="GET"))
        assert line.recv(12) == b"HTTP/1.1 200"


GUARDED = guarded(stranger=Pace(rate=1e6, burst=10**6), pace=lambda caller: Pace(rate=1e6, burst=10**6))
