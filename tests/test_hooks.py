"""Who is to be told is told, by a message that is surely ours, until it has arrived; nobody inside the walls is."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cinecanvas.errors import BadRequest

pytest.importorskip("sqlalchemy")
pytest.importorskip("httpcore")
pytest.importorskip("standardwebhooks")

import sqlalchemy as sa
import standardwebhooks

from cinecanvas.jobs import courier as couriers
from cinecanvas.jobs.courier import AGAIN, Answer, Courier
from cinecanvas.jobs.database import Database, now
from cinecanvas.jobs.hooks import MOST, Hooks, NoHook, signed
from cinecanvas.jobs.job import Job, Outcome, State
from cinecanvas.jobs.order import order
from cinecanvas.jobs.queue import Queue
from cinecanvas.jobs.tables import deliveries, endpoints
from cinecanvas.media.fetch import Web, post

HERE = "127.0.0.1"
WEB = Web(allowed=lambda address: address == HERE, seconds=5)
RED = order("text_to_video", prompt="a red fox", seed=1)


@dataclass(frozen=True)
class Receiver:
    """A server on loopback, what it heard, and what it answers."""

    url: str
    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)  # one after the other; then 200


@contextmanager
def receiving(*answers: int, head: Callable[[BaseHTTPRequestHandler], None] = lambda _: None) -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.heard.append((self.path, {name.lower(): text for name, text in self.headers.items()}, body))
            self.send_response(told.answers.pop(0) if told.answers else 200)
            head(self)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer((HERE, 0), Handler)
    server.daemon_threads = True
    told = Receiver(f"http://{HERE}:{server.server_address[1]}/told", answers=list(answers))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def render(job: Job, state: str) -> bytes:
    kinds = {"succeeded": "video.completed", "failed": "video.failed"}
    envelope = {"id": f"evt_{job.id}", "object": "event", "created_at": 1, "type": kinds.get(state, state)}
    return json.dumps({**envelope, "data": {"id": job.id, "words": "ü"}}, ensure_ascii=False).encode()


def courier(database: Database, web: Web = WEB) -> Courier:
    return Courier(database, render, web)


def ended(database: Database, state: State = "succeeded", **given: str) -> Job:
    """A job that was accepted, began and ended."""
    queue = Queue(database)
    job = queue.submit(RED, model="toy", **given)
    claim = queue.claim("worker")
    assert claim is not None and claim.job.id == job.id
    queue.finish(claim, state, outcome=Outcome(assets=()) if state == "succeeded" else None)
    return queue.get(job.id)


def late(database: Database) -> None:
    """As if the time of every further try had come."""
    with database.write() as connection:
        connection.execute(sa.update(deliveries).values(due=now() - 1, lease=0.0))


# Endpoints


def test_the_secret_of_an_endpoint_is_shown_once(database: Database) -> None:
    made, secret = Hooks(database).make("https://example.org/hook", name="mine", events=("video.completed",))
    assert secret.startswith("whsec_") and len(base64.b64decode(secret[6:])) >= 24
    assert Hooks(database).get(made.id) == made and secret not in made.model_dump_json()
    assert made.events == ("video.completed",) and made.states == ("succeeded", "failed", "cancelled")


def test_an_endpoint_is_changed_listed_and_deleted(database: Database) -> None:
    hooks = Hooks(database)
    made, _ = hooks.make("https://example.org/hook", dialect="openai")
    changed = hooks.change(made.id, url="https://example.org/other", name="new", states=("failed",), enabled=False)
    assert (changed.url, changed.name, changed.states, changed.enabled) == (
        *("https://example.org/other", "new"),
        *(("failed",), False),
    )
    assert hooks.listed(account="") == [changed] and hooks.listed(dialect="luma") == []
    hooks.delete(made.id)
    assert hooks.listed() == []


def test_another_s_endpoint_is_not_there(database: Database) -> None:
    hooks = Hooks(database)
    made, _ = hooks.make("https://example.org/hook", account="alice")
    for touch in (hooks.get, hooks.change, hooks.delete, hooks.rotate_secret):
        with pytest.raises(NoHook):
            touch(made.id, account="bob")
    assert hooks.get(made.id, account="alice") == made and hooks.listed(account="bob") == []


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://127.0.0.1/",
            "http://169.254.169.254/",
            "http://[::1]/",
            "http://10.0.0.1:8080/",
            "file:///etc/passwd",
        ),
        *("http://localhost/", "http://user:word@example.org/", "ftp://example.org/", "", "http://0x7f.1/", "gopher:a"),
    ],
)
def test_an_endpoint_that_could_never_be_told_is_refused(database: Database, url: str) -> None:
    with pytest.raises(BadRequest):
        Hooks(database).make(url)
    assert Hooks(database).listed() == []


def test_endpoints_are_not_without_number(database: Database) -> None:
    hooks = Hooks(database)
    hooks.make("https://example.org/hook")
    with database.write() as connection:
        row = dict(connection.execute(sa.select(endpoints)).one()._mapping)
        rows = [{**row, "id": str(number)} for number in range(MOST - 1)]
        connection.execute(sa.insert(endpoints), rows)
    with pytest.raises(BadRequest, match="There are 100 endpoints already"):
        hooks.make("https://example.org/hook")
    hooks.make("https://example.org/hook", account="another")


# Signatures


def test_the_official_openai_client_accepts_what_we_sign(database: Database) -> None:
    openai = pytest.importorskip("openai")
    with receiving() as told:
        _, secret = Hooks(database, WEB).make(told.url, dialect="openai", states=("succeeded", "failed"))
        job = ended(database, dialect="openai")
        courier(database).deliver()
    ((_, headers, body),) = told.heard
    client = openai.OpenAI(api_key="none", webhook_secret=secret)
    event = client.webhooks.unwrap(body, headers)
    assert (event.type, event.data.id) == ("video.completed", job.id)
    for changed in (body.replace(b"completed", b"exploded"), body + b" "):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(changed, headers)


def test_after_a_rotation_the_old_secret_is_good_for_a_while(database: Database) -> None:
    hooks = Hooks(database, WEB)
    with receiving() as told:
        made, old = hooks.make(told.url)
        _, new = hooks.rotate_secret(made.id)
        ended(database)
        courier(database).deliver()
        with database.write() as connection:
            connection.execute(sa.update(endpoints).values(old_until=now() - 1))
        ended(database)
        courier(database).deliver()
    (_, first, one), (_, second, two) = told.heard
    for secret in (old, new):
        standardwebhooks.Webhook(secret).verify(one, first)
    standardwebhooks.Webhook(new).verify(two, second)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(old).verify(two, second)


def test_an_old_message_is_not_good_again(database: Database) -> None:
    _, secret = Hooks(database).make("https://example.org/hook")
    headers = signed(b"{}", "a", [secret], at=database.clock() - 3600)
    with pytest.raises(standardwebhooks.WebhookVerificationError, match="too old"):
        standardwebhooks.Webhook(secret).verify(b"{}", headers)


def test_a_callback_is_told_of_beginning_and_end_in_this_order_and_signed(database: Database) -> None:
    with receiving() as told:
        job = ended(database, callback=f"{told.url}?a=b", account="alice", dialect="luma")
        while courier(database).deliver():
            pass
    assert [json.loads(body)["type"] for _, _, body in told.heard] == ["running", "video.completed"]
    hooks = Hooks(database)
    assert hooks.callback_secret("alice") == hooks.callback_secret("alice") != hooks.callback_secret("bob")
    for path, headers, body in told.heard:
        standardwebhooks.Webhook(hooks.callback_secret("alice")).verify(body, headers)
        assert path == "/told?a=b" and json.loads(body)["data"]["id"] == job.id


# Deliveries


def test_endpoints_hear_of_their_own_account_dialect_and_states(database: Database) -> None:
    hooks = Hooks(database, WEB)
    with receiving() as told:
        for name, account, dialect, states in (
            ("all", "alice", "openai", ("succeeded", "failed")),
            ("failures", "alice", "openai", ("failed",)),
            ("other dialect", "alice", "luma", ("succeeded",)),
            ("other account", "bob", "openai", ("succeeded",)),
        ):
            hooks.make(f"{told.url}/{name[:5].strip()}", account=account, dialect=dialect, states=states)
        sleeping, _ = hooks.make(told.url, account="alice", dialect="openai")
        hooks.change(sleeping.id, enabled=False)
        ended(database, account="alice", dialect="openai")
        assert courier(database).deliver() == 1
    assert [path for path, _, _ in told.heard] == ["/told/all"]


def test_what_has_arrived_is_not_sent_again(database: Database) -> None:
    with receiving(204) as told:
        Hooks(database, WEB).make(told.url)
        job = ended(database)
        assert [courier(database).deliver(), courier(database).deliver()] == [1, 0]
    (delivery,) = Hooks(database).deliveries(job=job.id)
    assert (delivery.status, delivery.attempts, [one.status for one in delivery.log]) == ("delivered", 1, [204])


def test_what_was_not_taken_is_sent_again_later_under_the_same_id(database: Database) -> None:
    with receiving(500, 429) as told:
        Hooks(database, WEB).make(told.url)
        job = ended(database)
        for _ in range(3):
            assert [courier(database).deliver(), courier(database).deliver()] == [1, 0]
            late(database)
        assert courier(database).deliver() == 0
    assert len({headers["webhook-id"] for _, headers, _ in told.heard}) == 1 and len(told.heard) == 3
    (delivery,) = Hooks(database).deliveries(job=job.id)
    assert (delivery.status, [one.status for one in delivery.log]) == ("delivered", [500, 429, 200])


def test_tries_come_ever_later_and_then_no_more(database: Database) -> None:
    Hooks(database, WEB).make(f"http://{HERE}:9/")
    ended(database)
    waits = []
    for _ in range(len(AGAIN) + 1):
        late(database)
        (taken,) = courier(database).due()
        courier(database).done(taken, Answer(503))
        waits.append(Hooks(database).deliveries()[0].due - database.clock())
    assert all(0.7 * plain < wait < 1.3 * plain for plain, wait in zip(AGAIN, waits, strict=False))
    (delivery,) = Hooks(database).deliveries()
    assert (delivery.status, delivery.attempts) == ("failed", 8)
    late(database)
    assert courier(database).due() == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(database: Database, status: int) -> None:
    with receiving() as there, receiving(status, head=lambda self: self.send_header("Location", there.url)) as told:
        Hooks(database, WEB).make(told.url)
        ended(database)
        courier(database).deliver()
    (delivery,) = Hooks(database).deliveries()
    assert there.heard == [] and (delivery.log[0].status, delivery.log[0].note) == (status, "redirect")
    assert delivery.status == "waiting"


def test_who_is_gone_is_not_asked_again(database: Database) -> None:
    with receiving(410) as told:
        Hooks(database, WEB).make(told.url)
        ended(database)
        courier(database).deliver()
    assert Hooks(database).deliveries()[0].status == "failed"


def test_a_receiver_that_hangs_is_left_and_holds_nobody_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(couriers, "SECONDS", 0.5)
    over = threading.Event()
    with receiving(head=lambda _: over.wait(20) and None) as hangs, receiving() as told:
        slow, _ = Hooks(database, WEB).make(hangs.url)
        quick, _ = Hooks(database, WEB).make(told.url)
        ended(database)
        assert courier(database).deliver() == 2
        over.set()
    (lost,), (arrived,) = (Hooks(database).deliveries(endpoint=one.id) for one in (slow, quick))
    assert (lost.status, lost.log[0].note, arrived.status) == ("waiting", "unreachable", "delivered")


def test_one_receiver_never_fills_a_round(database: Database) -> None:
    hooks = Hooks(database, WEB)
    for number in range(2):
        hooks.make(f"http://{HERE}:9/{number}", account=str(number))
        for _ in range(20 if number == 0 else 1):
            ended(database, account=str(number))
    assert sorted(one.account for one in courier(database).due(16)) == ["0", "0", "0", "0", "1"]


def test_two_couriers_do_not_send_the_same(database: Database) -> None:
    Hooks(database, WEB).make(f"http://{HERE}:9/")
    ended(database)
    assert (len(courier(database).due()), len(courier(database).due())) == (1, 0)


def test_what_a_lost_courier_had_taken_is_sent_by_another(database: Database) -> None:
    with receiving() as told:
        Hooks(database, WEB).make(told.url)
        ended(database)
        (taken,) = courier(database).due()
        late(database)  # as if its lease were over
        assert courier(database).deliver() == 1
        courier(database).done(taken, Answer(500))  # it was only slow
    assert len(told.heard) == 1 and Hooks(database).deliveries()[0].status == "delivered"


def test_a_message_that_cannot_be_written_does_not_stop_the_others(database: Database) -> None:
    def broken(job: Job, state: str) -> bytes:
        return 1 / 0 if job.dialect == "luma" else render(job, state)  # type: ignore[return-value]

    with receiving() as told:
        for dialect in ("luma", "openai"):
            Hooks(database, WEB).make(told.url, dialect=dialect)
            ended(database, dialect=dialect)
        assert Courier(database, broken, WEB).deliver() == 2
    assert sorted((one.status, one.log[0].note) for one in Hooks(database).deliveries()) == [
        ("delivered", ""),
        ("waiting", "internal"),
    ]


def test_a_courier_goes_on_until_it_is_told_to_stop(database: Database) -> None:
    stop = threading.Event()
    working = threading.Thread(target=courier(database).run, args=(stop,), kwargs={"every": 0.01})
    with receiving() as told:
        Hooks(database, WEB).make(told.url)
        working.start()
        ended(database)
        while not told.heard:
            stop.wait(0.01)
    stop.set()
    working.join(10)
    assert not working.is_alive()


def test_of_a_job_that_was_deleted_nothing_is_told(database: Database) -> None:
    with receiving() as told:
        Hooks(database, WEB).make(told.url)
        Queue(database).hide(ended(database).id)
        courier(database).deliver()
    (delivery,) = Hooks(database).deliveries()
    assert told.heard == [] and (delivery.status, delivery.log[0].note) == ("failed", "gone")


def test_a_late_word_of_the_beginning_does_not_come_after_the_end(database: Database) -> None:
    with receiving(500) as told:
        ended(database, callback=told.url)
        while courier(database).deliver():
            pass
        late(database)
        courier(database).deliver()
    assert [json.loads(body)["type"] for _, _, body in told.heard] == ["running", "video.completed"]
    assert {one.state: one.status for one in Hooks(database).deliveries()} == {
        "running": "failed",
        "succeeded": "delivered",
    }


def test_a_job_taken_up_again_begins_once(database: Database) -> None:
    queue = Queue(database)
    queue.submit(RED, model="toy", callback="https://example.org/")
    queue.claim("first")
    queue.release("first", lost=True)
    queue.claim("second")
    assert [one.state for one in Hooks(database).deliveries()] == ["running"]


def test_an_old_message_is_told_again_when_asked(database: Database) -> None:
    hooks = Hooks(database, WEB)
    with receiving() as told:
        hooks.make(told.url, account="alice")
        ended(database, account="alice")
        courier(database).deliver()
        (first,) = hooks.deliveries(account="alice")
        with pytest.raises(NoHook):
            hooks.redeliver(first.id, account="bob")
        hooks.redeliver(first.id, account="alice")
        courier(database).deliver()
    (one, two) = (headers["webhook-id"] for _, headers, _ in told.heard)
    assert one == two == first.id and [try_.status for try_ in hooks.deliveries()[0].log] == [200, 200]


def test_an_endpoint_can_be_tried(database: Database) -> None:
    hooks = Hooks(database, WEB)
    with receiving(200, 500) as told:
        made, secret = hooks.make(told.url)
        assert courier(database).test(made, b'{"type":"test"}').status == 200
        assert courier(database).test(made, b'{"type":"test"}').status == 500
    _, headers, body = told.heard[0]
    standardwebhooks.Webhook(secret).verify(body, headers)
    assert sorted(one.status for one in hooks.deliveries(endpoint=made.id)) == ["delivered", "failed"]
    late(database)
    assert courier(database).due() == []


def test_the_log_holds_no_word_and_no_address(database: Database) -> None:
    with receiving(500) as told:
        Hooks(database, WEB).make(told.url)
        ended(database)
        courier(database).deliver()
    written = json.dumps([one.model_dump() for one in Hooks(database).deliveries()])
    assert HERE not in written and "fox" not in written


def test_the_log_is_forgotten_after_a_month_and_what_waits_is_not(database: Database) -> None:
    hooks = Hooks(database, WEB)
    with receiving() as told:
        hooks.make(told.url)
        ended(database)
        courier(database).deliver()
        ended(database)
    with database.write() as connection:
        connection.execute(sa.update(deliveries).values(created=now() - 31 * 86400))
    hooks.sweep()
    assert [one.status for one in hooks.deliveries()] == ["waiting"]


def test_a_deleted_endpoint_hears_nothing_that_still_waits(database: Database) -> None:
    hooks = Hooks(database, WEB)
    made, _ = hooks.make(f"http://{HERE}:9/")
    ended(database)
    hooks.delete(made.id)
    assert courier(database).due() == [] and hooks.deliveries() == []


# The wall


@pytest.mark.parametrize("found", [["10.0.0.1"], ["93.184.216.34", HERE], ["::1"], []])
def test_a_name_that_leads_inside_is_not_told(database: Database, found: list[str]) -> None:
    web = Web(resolve=lambda host, port: found, seconds=2)
    Hooks(database, web).make("http://example.org/hook")
    ended(database)
    courier(database, web).deliver()
    assert [(one.status, one.note) for one in Hooks(database).deliveries()[0].log] == [(0, "refused")]


def test_a_post_brings_body_and_headers_and_nothing_of_us() -> None:
    with receiving(201) as told:
        assert post(f"{told.url}?q=ü", b"\x00body", {"X-Own": "a"}, web=WEB) == 201
    ((path, headers, body),) = told.heard
    assert (path, body, headers["x-own"]) == ("/told?q=%C3%BC", b"\x00body", "a")
    assert set(headers) == {"host", "accept", "accept-encoding", "user-agent", "x-own", "content-length"}


def test_an_endless_answer_costs_nothing() -> None:
    def endless(self: BaseHTTPRequestHandler) -> None:
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(1 << 16))
        except OSError:
            self.close_connection = True

    with receiving(head=endless) as told:
        assert post(told.url, b"", {}, web=replace(WEB, most_bytes=1)) == 200
