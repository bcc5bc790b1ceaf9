"""Runway's API: its official client, unmodified, against a server on loopback with a worker."""

from __future__ import annotations

import asyncio
import datetime
import io
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
import pytest
import runwayml
from PIL import Image
from runwayml._models import construct_type
from runwayml.types import task_retrieve_response as theirs
from service import Service, ran, service

from cinecanvas.jobs.job import Job, Trouble
from cinecanvas.jobs.keys import Caller, Quota
from cinecanvas.jobs.order import Source
from cinecanvas.media.assets import Asset
from cinecanvas.models import card
from cinecanvas.plan import plan
from cinecanvas.server import runway
from cinecanvas.server.desk import Desk
from cinecanvas.server.runway_bodies import Keyframe, Range, guided

PROMPT = "a red ball rolls to the right on grass during the day"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("running")) as served:
        yield served


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Nobody works here: jobs stay as they are."""
    with service(tmp_path_factory.mktemp("idle"), workers=0) as served:
        yield served


@pytest.fixture(scope="module")
def film(running: Service) -> str:
    """The URL of a film of two seconds."""
    made = client(running).text_to_video.create(model="gen4.5", prompt_text=PROMPT, ratio="320:192", duration=2, seed=3)
    return ended(running, made).output[0]


def client(served: Service, **options: Any) -> runwayml.RunwayML:
    return runwayml.RunwayML(base_url=f"{served.url}/runway", api_key="local", **options)


def picture(colour: tuple[int, int, int] = (90, 160, 70)) -> tuple[str, bytes, str]:
    held = io.BytesIO()
    Image.new("RGB", (80, 48), colour).save(held, "png")
    return ("a.png", held.getvalue(), "image/png")


def ended(served: Service, made: Any) -> Any:
    """The task when it has ended; `wait_for_task_output` would sleep for 6 s first."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        task = client(served).tasks.retrieve(made.id)
        if task.status in ("SUCCEEDED", "FAILED"):
            assert task.status == "SUCCEEDED", task
            return task
        time.sleep(0.05)
    raise AssertionError("it never ended")


def frames(url: str) -> np.ndarray[Any, Any]:
    with av.open(io.BytesIO(httpx.get(url).content)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def job_of(desk: Desk, made: Any) -> Job:
    return desk.queue.get(made.id)


# Films


def test_words_become_a_film_of_the_asked_size_and_length(running: Service, film: str) -> None:
    shown = frames(film)
    assert shown.shape[1:] == (192, 320, 3)
    assert len(shown) == 16


def test_an_uploaded_picture_is_the_first_frame_or_the_last(running: Service) -> None:
    c = client(running)
    uploaded = c.uploads.create_ephemeral(file=picture()).uri
    shared: dict[str, Any] = {"model": "veo3.1", "prompt_text": PROMPT, "ratio": "320:192", "duration": 1}
    first = c.image_to_video.create(prompt_image=uploaded, **shared)
    last = c.image_to_video.create(prompt_image=[{"uri": uploaded, "position": "last"}], **shared)
    for made, number in ((first, 0), (last, -1)):
        assert np.abs(frames(ended(running, made).output[0])[number].mean((0, 1)) - (90, 160, 70)).max() < 25
    assert (job_of(running.desk, first).asked["task"], job_of(running.desk, last).asked["last"]) == ("animate", True)


def test_two_pictures_are_interpolated(idle: Service) -> None:
    c = client(idle)
    ends = [{"uri": c.uploads.create_ephemeral(file=picture()).uri, "position": place} for place in ("first", "last")]
    shared: dict[str, Any] = {"model": "veo3.1", "prompt_text": PROMPT, "ratio": "320:192", "duration": 4}
    made = c.image_to_video.create(prompt_image=ends, **shared)  # type: ignore[arg-type]
    job = job_of(idle.desk, made)
    assert (job.asked["task"], job.foretold.video_seconds) == ("interpolate", 4.0)


def test_an_edit_keeps_the_size_and_the_length_of_its_film(running: Service, film: str) -> None:
    made = client(running).video_to_video.create(
        model="aleph2", video_uri=film, prompt_text="a blue ball rolls to the right on snow", seed=1
    )
    job = job_of(running.desk, made)
    assert (job.asked["task"], job.foretold.width, job.foretold.height, job.foretold.frames) == ("remix", 320, 192, 16)
    assert frames(ended(running, made).output[0]).shape == (16, 192, 320, 3)


def test_keyframes_stand_at_their_seconds_and_outside_of_a_range_the_film_stays(running: Service, film: str) -> None:
    c = client(running)
    uploaded = c.uploads.create_ephemeral(file=picture()).uri
    made = c.video_to_video.create(
        model="aleph2",
        video_uri=film,
        prompt_text=PROMPT,
        keyframes=[{"seconds": 1.5, "uri": uploaded, "range": {"start_seconds": 1, "end_seconds": 2}}],
    )
    shown, before = (frames(url).astype(float) for url in (ended(running, made).output[0], film))
    assert np.abs(shown[12].mean((0, 1)) - (90, 160, 70)).max() < 25
    assert np.abs(shown[:4] - before[:4]).mean() < 8


def test_a_keyframe_may_stand_at_a_part_of_the_length(idle: Service, running: Service, film: str) -> None:
    made = client(running).video_to_video.create(
        model="aleph2", video_uri=film, prompt_text=PROMPT, keyframes=[{"at": 0.5, "uri": data_uri()}]
    )
    clips = job_of(running.desk, made).asked["clips"]
    assert [clip["start"] for clip in clips if "trim" not in clip] == [1.0]
    client(running).tasks.delete(made.id)


@pytest.mark.parametrize("length", [0.3, 2.0, 2.125, 5.04, 9.9])
@pytest.mark.parametrize("ranged", [False, True])
def test_pictures_in_a_film_fit_any_length(idle: Service, length: float, ranged: bool) -> None:
    facts: dict[str, Any] = {"media_type": "video/mp4", "bytes": 1, "width": 320, "height": 192, "sound": True}
    film = Asset(digest=f"sha256:{0:064x}", seconds=length, frames=int(24 * length), fps=24.0, **facts)
    still = Asset(digest=f"sha256:{1:064x}", seconds=None, frames=1, fps=None, **{**facts, "sound": False})
    clip, picture = Source(asset=film.digest), Source(asset=still.digest)
    within = Range(start_seconds=0, end_seconds=length / 2) if ranged else None
    pinned = [(Keyframe(uri="", at=at, range=within), picture) for at in ((0.0, 0.45) if ranged else (0.0, 1.0))]
    clips = guided(clip, film, pinned, keep=0.5, fps=8.0)
    asked = idle.desk.order("canvas", prompt=PROMPT, seconds=length, width=320, height=192, clips=clips)
    media = {film.digest: film, still.digest: still}
    made = plan(asked.request({clip: film, picture: still}), card("diorama"), media=media)
    assert made.frames == round(length * 8)


def test_another_shape_is_painted_round_a_film(running: Service, film: str) -> None:
    made = client(running).video_to_video.create(
        model="aleph2", video_uri=film, prompt_text=PROMPT, target_aspect_ratio="1:1"
    )
    assert job_of(running.desk, made).asked["to"] == "320x320"
    assert frames(ended(running, made).output[0]).shape == (16, 320, 320, 3)


def test_the_mode_extend_makes_a_film_longer(running: Service, film: str) -> None:
    made = client(running).video_to_video.create(
        model="seedance2_5", prompt_video=film, prompt_text=PROMPT, mode="extend", duration=1
    )
    assert len(frames(ended(running, made).output[0])) == 24


def test_pictures_come_as_many_as_are_asked(running: Service) -> None:
    made = client(running).text_to_image.create(
        model="seedream5_pro", prompt_text=PROMPT, ratio="1184:896", output_count=2, output_format="jpeg"
    )
    task = ended(running, made)
    assert task.cost.credits == 1  # two frames of a megapixel
    for url in task.output:
        answer = httpx.get(url)
        assert Image.open(io.BytesIO(answer.content)).size == (1184, 896)
        assert answer.headers["content-type"] == "image/jpeg"


def test_a_model_that_can_upscale_does(running: Service) -> None:
    c = client(running)
    small = ended(running, c.text_to_video.create(model="toy", prompt_text="red", ratio="24:16", duration=1))  # type: ignore[arg-type]
    made = c.video_upscale.create(model="toy", video_uri=small.output[0])  # type: ignore[call-overload]
    assert frames(ended(running, made).output[0]).shape[1:] == (32, 48, 3)


def test_the_asynchronous_client_makes_a_film(running: Service) -> None:
    async def make() -> Any:
        async with runwayml.AsyncRunwayML(base_url=f"{running.url}/runway", api_key="local") as c:
            uploaded = await c.uploads.create_ephemeral(file=picture())
            made = await c.image_to_video.create(
                model="gen4.5", prompt_image=uploaded.uri, prompt_text=PROMPT, ratio="960:960", duration=1
            )
            while (task := await c.tasks.retrieve(made.id)).status not in ("SUCCEEDED", "FAILED"):
                await asyncio.sleep(0.05)
            return task

    task = asyncio.run(make())
    assert type(task).__name__ == "AsyncAwaitableSucceeded"
    assert task.cost.credits == 1


# Tasks


def test_each_state_is_an_object_of_its_own_class(idle: Service) -> None:
    made = client(idle).text_to_video.create(model="gen4.5", prompt_text=PROMPT, ratio="1280:720", duration=2)
    job = job_of(idle.desk, made)
    trouble = Trouble(code="bad_media", message="It cannot be read.")
    cases: list[tuple[type[Any], dict[str, Any], dict[str, Any]]] = [
        (theirs.Pending, {}, {}),
        (theirs.Throttled, {}, {"throttled": True}),
        (theirs.Running, {"state": "running", "step": 3, "steps": 12}, {}),
        (theirs.Succeeded, {"state": "succeeded"}, {}),
        (theirs.Failed, {"state": "failed", "error": trouble}, {}),
        (theirs.Cancelled, {"state": "cancelled"}, {}),
        (theirs.Failed, {"state": "cancelled"}, {"waits_on": True}),
    ]
    for kind, facts, asker in cases:
        said = runway.task(
            job.model_copy(update=facts), ["https://a.example/b"], **{"throttled": False, "waits_on": False, **asker}
        )
        assert type(construct_type(type_=theirs.TaskRetrieveResponse, value=said)) is kind
        assert kind.model_validate(said).created_at.tzinfo is not None
    assert said["failureCode"] == "CANCELLED"


def test_a_running_task_tells_its_progress(idle: Service) -> None:
    c, queue = client(idle), idle.desk.queue
    made = c.text_to_video.create(model="gen4.5", prompt_text=PROMPT, ratio="1280:720", duration=2)
    while (claim := queue.claim("me")) and claim.job.id != made.id:
        queue.finish(claim, "cancelled")
    assert claim is not None
    queue.tell(claim, "step", {}, step=3, steps=12)
    task: Any = c.tasks.retrieve(made.id)
    assert (task.status, task.progress, task.estimated_cost.credits) == ("RUNNING", 0.25, 2)
    queue.finish(claim, "failed", error=Trouble(code="bad_media", message="It cannot be read."))
    task = c.tasks.retrieve(made.id)
    assert (task.failure, task.failure_code, task.cost.credits) == ("It cannot be read.", "ASSET.INVALID", 0)


def test_deleting_cancels_first_and_then_forgets(idle: Service) -> None:
    c = client(idle)
    made = c.text_to_video.create(model="gen4.5", prompt_text=PROMPT, ratio="1280:720", duration=2)
    c.tasks.delete(made.id)
    assert type(c.tasks.retrieve(made.id)).__name__ == "AwaitableFailed"  # it would wait for ever on CANCELLED

    async def seen() -> Any:
        async with runwayml.AsyncRunwayML(base_url=f"{idle.url}/runway", api_key="local") as waiting:
            return await waiting.tasks.retrieve(made.id)

    assert type(asyncio.run(seen())).__name__ == "AsyncAwaitableCancelled"
    c.tasks.delete(made.id)
    with pytest.raises(runwayml.NotFoundError):
        c.tasks.retrieve(made.id)


def test_a_task_behind_others_of_its_key_is_throttled(idle: Service) -> None:
    desk, caller = idle.desk, Caller(account="k", name="k", quota=Quota(running=1))
    order = desk.order("text_to_video", prompt=PROMPT, seconds=2.0)
    first, second = (desk.accept(caller, order, dialect="runway", echo={"model": "gen4.5"}) for _ in range(2))
    assert not runway._throttled(desk, caller, second)
    while (claim := desk.queue.claim("me")) and claim.job.id != first.id:
        desk.queue.finish(claim, "cancelled")
    assert runway._throttled(desk, caller, second)


def test_what_a_client_sends_again_is_one_task(idle: Service) -> None:
    body = {"model": "gen4.5", "promptText": PROMPT, "ratio": "1280:720", "duration": 2, "seed": 77}
    url = f"{idle.url}/runway/v1/text_to_video"
    once, again = (
        httpx.post(url, json=body, headers={"x-stainless-retry-count": str(count)}).json() for count in range(2)
    )
    assert once == again


# Uploads


def test_an_upload_is_signed_and_comes_once(idle: Service) -> None:
    opened = httpx.post(f"{idle.url}/runway/v1/uploads", json={"filename": "a.png", "type": "ephemeral"}).json()
    form: dict[str, Any] = {"data": opened["fields"], "files": {"file": picture()}}
    forged = re.sub(r"signature=.", "signature=~", opened["uploadUrl"])
    assert httpx.post(forged, **form).status_code == 403
    assert httpx.post(forged.replace("~", "é"), **form).status_code == 403
    assert httpx.post(opened["uploadUrl"], files={"file": picture()}).status_code == 400
    assert httpx.post(opened["uploadUrl"], **form).status_code == 204
    assert httpx.post(opened["uploadUrl"], **form).status_code == 404


def test_an_upload_that_is_too_large_is_refused_before_it_comes(idle: Service) -> None:
    opened = httpx.post(f"{idle.url}/runway/v1/uploads", json={"filename": "a.png", "type": "ephemeral"}).json()
    head = {"content-type": "multipart/form-data; boundary=x", "content-length": str(runway.MOST_UPLOAD * 2)}
    where = httpx.URL(opened["uploadUrl"])
    with socket.create_connection((where.host, where.port or 80)) as line:
        line.sendall(f"POST {where.raw_path.decode()} HTTP/1.1\r\nhost: {where.netloc.decode()}\r\n".encode())
        line.sendall("".join(f"{name}: {value}\r\n" for name, value in head.items()).encode() + b"\r\n")
        assert line.recv(1000).startswith(b"HTTP/1.1 413")


def test_what_is_no_picture_is_refused_as_an_upload_and_as_a_source(idle: Service) -> None:
    c = client(idle)
    with pytest.raises(runwayml.APIStatusError) as refused:
        c.uploads.create_ephemeral(file=("a.png", b"no picture at all", "image/png"))
    assert refused.value.status_code == 400
    junk = idle.desk.files.listed(account="", dialect="runway", limit=1)[0]
    with pytest.raises(runwayml.BadRequestError, match="promptImage: the upload is failed"):
        c.image_to_video.create(
            model="gen4.5", prompt_image=f"runway://{junk.id}", prompt_text=PROMPT, ratio="1280:720", duration=2
        )


# Refusals


def data_uri() -> str:
    import base64

    return "data:image/png;base64," + base64.b64encode(picture()[1]).decode()


GOOD: dict[str, Any] = {"model": "gen4.5", "promptText": PROMPT, "ratio": "1280:720", "duration": 2}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("text_to_video", {"promptText": "\U0001f600" * 501}, "1002 UTF-16 units"),
    ("text_to_video", {"promptText": " "}, "promptText is needed"),
    ("text_to_video", {"model": "nix"}, "Served here: diorama, toy"),
    ("text_to_video", {"seed": 2**32}, "seed"),
    ("text_to_video", {"seed": -1}, "seed"),
    ("text_to_video", {"ratio": "wide"}, "1280:720"),
    ("text_to_video", {"ratio": "9000:9000"}, "16 to 4096 px"),
    ("text_to_video", {"duration": 3000}, "at most 600 s"),
    ("text_to_video", {"outputFormat": "prores"}, "leave as mp4"),
    ("text_to_video", {"audio": True}, "Ask without sound"),
    ("text_to_video", {"references": [{"uri": "https://a.example/b.png"}]}, "promptImage"),
    ("text_to_video", {"providerSettings": {"shotType": "customize"}}, "a task for each"),
    ("text_to_video", {"unheardOf": 1}, "unheardOf"),
    ("image_to_video", {"promptImage": [{"uri": data_uri()}]}, "without a position"),
    ("image_to_video", {"promptImage": [{"uri": data_uri(), "position": "first"}] * 2}, "one for first"),
    ("image_to_video", {"promptImage": "https://127.0.0.1/a.png"}, "promptImage: 127.0.0.1 is not on the public"),
    ("image_to_video", {"promptImage": "runway://nix"}, "no such upload"),
    ("image_to_video", {"promptImage": "http://[::1"}, "promptImage: The URL cannot be read"),
    ("image_to_video", {"promptImage": "data:image/png;base64,AAAA"}, "promptImage"),
    ("image_to_video", {"promptImage": "https://a.example/b", "ratio": "", "resolution": "720p"}, "upload it"),
    ("video_to_video", {}, "videoUri"),
    ("video_to_video", {"videoUri": "https://a.example/b.mp4", "mode": "reference", "duration": None}, "mode"),
    ("video_to_video", {"videoUri": "https://a.example/b.mp4"}, "as long as its video"),
    (
        "video_to_video",
        {"videoUri": "https://a.example/b.mp4", "duration": None, "keyframes": [{"at": 0.5, "uri": data_uri()}]},
        "Upload it",
    ),
    (
        "text_to_image",
        {"duration": None, "referenceImages": [{"uri": data_uri(), "tag": "abc"}]},
        "no model here takes",
    ),
    ("text_to_image", {"duration": None, "outputFormat": "tiff"}, "png, jpeg or webp"),
    ("character_performance", {}, "image_to_video moves a picture"),
    ("sound_effect", {}, "keeps the sound"),
    ("video_to_audio", {}, "No model that makes sound"),
    ("generate/video", {}, "text_to_video or image_to_video"),
    ("recipes/product_ad", {}, "no recipes here"),
    ("video_to_hdr", {}, "Take the MP4"),
]


@pytest.mark.parametrize(("path", "changed", "said"), REFUSED)
def test_what_cannot_be_is_refused_with_what_can(idle: Service, path: str, changed: dict[str, Any], said: str) -> None:
    before = len(idle.desk.queue.listed(limit=1000))
    answer = httpx.post(f"{idle.url}/runway/v1/{path}", json={**GOOD, **changed})
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert len(idle.desk.queue.listed(limit=1000)) == before


def test_an_upscale_is_refused_by_a_model_that_cannot_and_names_one_that_can(idle: Service) -> None:
    c = client(idle)
    with pytest.raises(runwayml.BadRequestError, match=r"diorama cannot upscale\. Models here that can: toy"):
        c.video_upscale.create(model="magnific_video_upscaler_creative", video_uri="https://a.example/b.mp4")
    with pytest.raises(runwayml.BadRequestError, match="adds frames"):
        c.video_upscale.create(model="enhance_frame_rate", video_uri="https://a.example/b.mp4", target_framerate="60")


def test_whatever_is_not_served_says_so(idle: Service) -> None:
    c = client(idle)
    for call in (c.workflows.list, lambda: c.voices.list(limit=3), lambda: c.avatars.list(limit=3)):
        with pytest.raises(runwayml.NotFoundError, match=r"is not served here\. Served here are text_to_video"):
            call()  # type: ignore[operator]


# The organization


def test_the_organization_and_what_it_used(running: Service, film: str) -> None:
    c = client(running)
    here = c.organization.retrieve()
    assert here.credit_balance > 0
    assert here.usage.models["diorama"].daily_generations >= 1
    today = datetime.datetime.now(datetime.UTC).date()
    (used,) = c.organization.retrieve_usage(start_date=today).results
    assert (used.date, used.used_credits[0].amount >= 1) == (today, True)
    assert not c.organization.retrieve_usage(before_date=today).results  # the last day is not included
    with pytest.raises(runwayml.BadRequestError, match="1 to 90 days"):
        c.organization.retrieve_usage(start_date="2026-01-01", before_date="2026-06-01")
    with pytest.raises(runwayml.BadRequestError, match="startDate"):
        c.organization.retrieve_usage(start_date="9999-12-31")


# The page


def test_the_program_on_the_page_runs_unmodified(running: Service, tmp_path: Path) -> None:
    (tmp_path / "ball.png").write_bytes(picture()[1])
    address = {"RUNWAYML_BASE_URL": f"{running.url}/runway", "RUNWAYML_API_SECRET": "local"}
    ran("how-to/leave-runway.md", tmp_path, **address)
    assert (tmp_path / "ball.mp4").stat().st_size > 1000
