"""ElevenLabs' API: its official client, unmodified, against a server on loopback with a worker."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from elevenlabs import (
    ImageGenerationRequest_GptImage1,
    VideoGenerationRequest_BytedanceSeedanceV2,
    VideoGenerationRequest_Veo31Generate001,
)
from elevenlabs.client import AsyncElevenLabs, ElevenLabs
from elevenlabs.core.api_error import ApiError
from elevenlabs.types.media_generation_response import MediaGenerationResponse
from PIL import Image
from service import Service, service

from cinecanvas.jobs.job import Trouble
from cinecanvas.server import elevenlabs

PROMPT = "a red ball rolls to the right on grass during the day"
Veo = VideoGenerationRequest_Veo31Generate001


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("running")) as served:
        yield served


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Nobody works here: jobs stay as they are."""
    with service(tmp_path_factory.mktemp("idle"), workers=0) as served:
        yield served


def client(served: Service) -> ElevenLabs:
    return ElevenLabs(base_url=f"{served.url}/elevenlabs", api_key="local")


def png() -> bytes:
    held = io.BytesIO()
    Image.new("RGB", (80, 48), (90, 160, 70)).save(held, "png")
    return held.getvalue()


def inline() -> dict[str, str]:
    return {
        "type": "inline_base64",
        "content_base64": base64.b64encode(png()).decode(),
        "mime_type": "image/png",
    }


def refused(call: Callable[[], Any], status: int) -> dict[str, Any]:
    """What the client shows of a refusal."""
    with pytest.raises(ApiError) as error:
        call()
    assert error.value.status_code == status
    detail: dict[str, Any] = error.value.body["detail"]
    return detail


def test_words_become_a_film_that_is_waited_for(running: Service) -> None:
    asked = Veo(prompt=PROMPT, duration_secs=1, resolution="720p", aspect_ratio="9:16", seed=3)
    made = client(running).flows.video.create_and_wait(request=asked, min_poll_interval_in_seconds=0.5)
    assert (made.status, made.content_mime_type) == ("completed", "video/mp4")
    answer = httpx.get(made.content_url)
    assert answer.headers["content-type"] == "video/mp4"
    assert running.desk.queue.get(made.id).outcome.assets[0].width == 720  # type: ignore[union-attr]


def test_a_generated_picture_is_where_a_film_begins(running: Service) -> None:
    c = client(running)
    image = ImageGenerationRequest_GptImage1(prompt=PROMPT, aspect_ratio="16:9")
    picture = c.flows.image.create_and_wait(request=image, min_poll_interval_in_seconds=0.5)
    assert (picture.status, picture.content_mime_type) == ("completed", "image/png")
    begins = {"type": "generation", "generation_id": picture.id}
    made = c.flows.video.create(request=Veo(prompt=PROMPT, duration_secs=1, start_frame=begins))  # type: ignore[arg-type]
    job = running.desk.queue.get(made.id)
    assert (job.asked["task"], round(job.foretold.width / job.foretold.height, 1)) == ("animate", 1.8)


def test_frames_are_assets_or_come_inline(idle: Service) -> None:
    c = client(idle)
    asset = c.assets.create(asset=("a.png", png(), "image/png"), name="a")
    ends = {"start_frame": {"type": "asset", "asset_id": asset.asset_id}, "end_frame": inline()}
    asked = VideoGenerationRequest_BytedanceSeedanceV2(
        prompt=PROMPT,
        duration_secs=3,
        resolution="480p",
        aspect_ratio="auto",
        **ends,  # type: ignore[arg-type]
    )
    job = idle.desk.queue.get(c.flows.video.create(request=asked).id)
    assert (job.asked["task"], job.foretold.video_seconds) == ("interpolate", 3.0)
    assert (job.foretold.width, job.foretold.height) == (800, 480)  # the shape of the picture
    last = c.flows.video.create(request=Veo(prompt=PROMPT, end_frame=inline()))  # type: ignore[arg-type]
    assert idle.desk.queue.get(last.id).asked["last"] is True


def test_assets_are_brought_listed_and_forgotten(idle: Service) -> None:
    c = client(idle)
    named = [c.assets.create(asset=("a.png", png(), "image/png"), name=name) for name in ("one", "two", "three")]
    assert c.assets.get(named[0].asset_id).name == "one"
    assert [asset.name for asset in c.assets.list(search="TWO").assets] == ["two"]
    page = c.assets.list(page_size=2)
    assert ([asset.name for asset in page.assets], page.has_more) == (["three", "two"], True)
    assert c.assets.list(page_size=2, cursor=page.next_cursor).assets[0].name == "one"
    c.assets.delete(named[0].asset_id)
    refused(lambda: c.assets.get(named[0].asset_id), 404)


def test_an_asset_that_is_sent_again_without_its_name_is_taken(idle: Service) -> None:
    answer = httpx.post(f"{idle.url}/elevenlabs/v1/assets", files={"asset": ("a.png", png(), "image/png")})
    assert answer.json()["name"] == "a.png"


def test_generations_are_listed_by_state_and_model_in_pages(idle: Service) -> None:
    c = client(idle)
    mine = [c.flows.video.create(request=Veo(prompt=PROMPT)).id for _ in range(3)]
    c.flows.video.create(request=VideoGenerationRequest_BytedanceSeedanceV2(prompt=PROMPT))
    page = c.flows.video.list(page_size=2, model_id="veo-3.1-generate-001", status="pending")
    assert ([one.id for one in page.generations], page.has_more) == (mine[:0:-1], True)
    rest = c.flows.video.list(page_size=2, model_id="veo-3.1-generate-001", cursor=page.next_cursor)
    assert rest.generations[0].id == mine[0]
    assert not c.flows.video.list(status="completed").generations


def test_there_are_four_states_and_each_is_its_own_object(idle: Service) -> None:
    from elevenlabs.core.unchecked_base_model import construct_type

    job = idle.desk.queue.get(client(idle).flows.video.create(request=Veo(prompt=PROMPT)).id)
    trouble = Trouble(code="bad_media", message="It cannot be read.")
    seen = []
    for facts in ({}, {"state": "running"}, {"state": "failed", "error": trouble}, {"state": "cancelled"}):
        said = elevenlabs.generation(job.model_copy(update=facts), "https://a.example/b")
        seen.append(type(construct_type(type_=MediaGenerationResponse, object_=said)).__name__.rpartition("_")[2])
    assert seen == ["Pending", "Generating", "Failed", "Failed"]


def test_a_wait_is_paced_from_the_first_answer_on(idle: Service) -> None:
    c = client(idle)
    made = c.flows.video.with_raw_response.create(request=Veo(prompt=PROMPT, duration_secs=60))
    seen = c.flows.video.with_raw_response.get(made.data.id)
    assert made.data.status == "pending"
    for headers in (made.headers, seen.headers):
        assert 1 <= int(headers["retry-after"]) <= 10


def test_the_asynchronous_client_speaks_to_the_short_address(idle: Service) -> None:
    import asyncio

    async def make() -> Any:
        c = AsyncElevenLabs(base_url=f"{idle.url}/eleven", api_key="local")
        made = await c.flows.video.create(request=Veo(prompt=PROMPT))
        return await c.flows.video.get(made.id)

    assert asyncio.run(make()).status == "pending"


def test_sound_is_refused_once_and_truly(idle: Service) -> None:
    c = client(idle)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: b"".join(c.text_to_sound_effects.convert(text="thunder", duration_seconds=2.0)),
        lambda: b"".join(c.music.compose(prompt="calm", music_length_ms=10000)),
        lambda: b"".join(c.text_to_speech.convert(voice_id="v", text="hello")),
        lambda: c.voices.get_all(),
    )
    for call in calls:
        detail = refused(call, 400)
        assert detail["status"] == "model_not_available"
        assert "no model that makes or hears sound is served here" in detail["message"]
    assert refused(lambda: c.history.list(), 404)["status"] == "not_found"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"images": [inline()]}, "give a picture as start_frame"),
        ({"audios": [{"type": "asset", "asset_id": "a"}]}, "no model here hears"),
        ({"generate_audio": True}, "Ask without sound"),
        ({"webhook": {"type": "all"}}, "retry-after"),
        ({"resolution": "9p"}, "480p"),
        ({"aspect_ratio": "wide"}, "16:9"),
        ({"duration_secs": 3000}, "at most 600 s"),
        ({"model_id": "nix"}, "Served here: diorama, toy"),
        ({"model_id": "creatify-aurora"}, "moves a picture by words"),
        ({"start_frame": {"type": "asset", "asset_id": "nix"}}, "no such asset"),
        ({"start_frame": {**inline(), "content_base64": "%"}}, "base64"),
        ({"unheardOf": 1}, "unheardOf"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(idle: Service, changed: dict[str, Any], said: str) -> None:
    body = {"model_id": "veo-3.1-generate-001", "prompt": PROMPT, **changed}
    before = len(idle.desk.queue.listed(limit=1000))
    answer = httpx.post(f"{idle.url}/elevenlabs/v1/flows/video", json=body)
    assert answer.status_code in (400, 404)
    assert said in answer.json()["detail"]["message"]
    assert len(idle.desk.queue.listed(limit=1000)) == before


def test_who_asks_and_what_is_here(idle: Service) -> None:
    c = client(idle)
    assert [model.model_id for model in c.models.list()] == ["diorama", "toy"]
    subscription = c.user.subscription.get()
    assert subscription.character_count < subscription.character_limit
    assert subscription.voice_limit == 0
    assert c.user.get().subscription.tier == "self-hosted"
