"""Who is told of a video, by a running server: OpenAI's endpoints and `unwrap`, Luma's callbacks, our own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import lumaai
import openai
import pytest
from service import Service, service
from standardwebhooks import Webhook

WORDS = "a red ball bounces on grass"


class Heard(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """A program of somebody's that is told."""

    def __init__(self) -> None:
        self.heard = heard = list[Heard]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                heard.append(Heard(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def at(self, path: str, *, most: float = 60.0, until: Callable[[list[Heard]], bool] = bool) -> list[Heard]:
        """What was heard at a path, once it is what is waited for."""
        end = time.monotonic() + most
        while not until(found := [one for one in self.heard if one.path == path]):
            assert time.monotonic() < end, self.heard
            time.sleep(0.05)
        return found


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(Path(tmp_path_factory.mktemp("hooks")), options=("--trust", "127.0.0.1")) as one:
        yield one


@pytest.fixture
def client(running: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="local")


def test_an_endpoint_hears_of_a_video_and_unwrap_believes_it(client: openai.OpenAI, receiver: Receiver) -> None:
    made: Any = client.webhooks.create(
        name="mine", url=receiver.url("/openai"), event_types=["video.completed", "video.failed"]
    )
    video = client.videos.create_and_poll(prompt=WORDS, seconds="1", model="diorama", size="256x256")
    (heard,) = receiver.at("/openai")
    event: Any = client.webhooks.unwrap(heard.body.decode(), heard.headers, secret=made.signing_secret)
    assert (event.type, event.data.id) == ("video.completed", video.id)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(
            heard.body.decode().replace("completed", "failed"), heard.headers, secret=made.signing_secret
        )
    client.webhooks.delete(made.id)


def test_endpoints_are_made_changed_tried_rotated_and_deleted(client: openai.OpenAI, receiver: Receiver) -> None:
    hooks = client.webhooks
    made: Any = hooks.create(name="first", url=receiver.url("/one"), event_types=["video.failed"])
    assert made.signing_secret.startswith("whsec_") and hooks.retrieve(made.id).name == "first"
    changed = hooks.update(made.id, name="second", url=receiver.url("/two"))
    assert (changed.name, changed.event_types) == ("second", ["video.failed"])
    assert made.id in [one.id for one in hooks.list()]
    tried = hooks.test(made.id, event_type="video.completed")
    assert tried.status_code == 200 and json.loads(receiver.at("/two")[-1].body)["type"] == "video.completed"
    rotated: Any = hooks.rotate_secret(made.id)
    assert rotated.signing_secret != made.signing_secret
    hooks.test(made.id, event_type="video.failed")
    heard = receiver.at("/two", until=lambda found: len(found) == 2)[-1]
    Webhook(rotated.signing_secret).verify(heard.body, heard.headers)
    assert hooks.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        hooks.retrieve(made.id)


def test_what_is_never_told_here_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"video\.completed"):
        client.webhooks.create(name="x", url="https://example.org/", event_types=["batch.completed"])


def test_news_go_to_no_private_address(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="not on the public internet"):
        client.webhooks.create(name="x", url="http://10.0.0.1/", event_types=["video.failed"])


def test_luma_tells_of_dreaming_and_of_the_end(running: Service, receiver: Receiver) -> None:
    luma = lumaai.LumaAI(base_url=f"{running.url}/luma/dream-machine/v1", auth_token="local")
    made = luma.generations.create(model="ray-2", prompt=WORDS, duration="1s", callback_url=receiver.url("/luma"))

    def states(found: list[Heard]) -> list[str]:
        return [json.loads(one.body)["state"] for one in found]

    heard = receiver.at("/luma", until=lambda found: "completed" in states(found))
    assert states(heard) == ["dreaming", "completed"]
    said = json.loads(heard[-1].body)
    assert said["id"] == made.id and httpx.get(said["assets"]["video"]).status_code == 200
    secret = httpx.get(f"{running.url}/api/v1/account").json()["callback_secret"]
    Webhook(secret).verify(heard[-1].body, heard[-1].headers)


def test_our_own_callbacks_tell_of_a_job(running: Service, receiver: Receiver) -> None:
    order = {"task": "text_to_image", "prompt": WORDS, "model": "toy"}
    made = httpx.post(f"{running.url}/api/v1/jobs", params={"callback": receiver.url("/ours")}, json=order).json()
    heard = receiver.at("/ours", until=lambda found: b"job.succeeded" in (found[-1].body if found else b""))
    assert json.loads(heard[-1].body)["job"]["id"] == made["id"]
