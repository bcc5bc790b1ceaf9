"""Over a real wire: those who lie, dawdle and vanish."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from dataclasses import replace

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

import httpx
from guarded import KEY, SMALL, Brisk, Calm, Seen, application, dialled, guarded, head, rest, serving, until
from starlette.types import Receive, Scope, Send

from cinecanvas.server.guard import Limits

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
