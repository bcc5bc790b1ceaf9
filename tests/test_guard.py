"""Whatever comes over the wire, the API behind the guard sees plain requests, and the client sees no inside."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import httpx
from guarded import JSON, KEY, METHODS, SECRET, Seen, application, ask, code, dialled, guarded, raw, serving
from starlette.types import Message, Receive, Scope, Send

from cinecanvas.server.guard import Guard, Limits, Refusal
from cinecanvas.server.pace import Pace, Turnstile

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
