"""OpenAI's own client, unmodified, against a running server: what it asks, it gets, or is told why not."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai.types import Video
from PIL import Image
from service import Service, ran, service

from cinecanvas.jobs.files import Files
from cinecanvas.jobs.job import Trouble
from cinecanvas.jobs.keys import Keys
from cinecanvas.media.video import info

BALL = "a red ball rolls to the right on grass"
SMALL: dict[str, Any] = {"seconds": "1", "size": "256x256", "extra_body": {"quality": "draft"}}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("openai")) as here:
        yield here


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Nobody works here: jobs stay as they are."""
    with service(tmp_path_factory.mktemp("idle"), workers=0) as here:
        yield here


@pytest.fixture(scope="module")
def client(running: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{running.url}/v1", api_key="local", max_retries=0)


@pytest.fixture(scope="module")
def waiting(idle: Service) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{idle.url}/v1", api_key="local", max_retries=0)


@pytest.fixture(scope="module")
def film(client: openai.OpenAI) -> Video:
    return done(client, client.videos.create(prompt=BALL, **SMALL))


def done(client: openai.OpenAI, video: Video) -> Video:
    """The same video when it is done."""
    made = client.videos.poll(video.id, poll_interval_ms=50)
    assert made.status == "completed" and made.error is None, made
    return made


def shown(client: openai.OpenAI, video: Video, tmp_path: Path) -> Any:
    client.videos.download_content(video.id).write_to_file(tmp_path / f"{video.id}.mp4")
    return info(tmp_path / f"{video.id}.mp4")


def picture(*, mode: str = "RGB", colour: Any = "red", kind: str = "png") -> bytes:
    held = io.BytesIO()
    Image.new(mode, (64, 64), colour).save(held, kind)
    return held.getvalue()


def data_url() -> str:
    return "data:image/png;base64," + base64.b64encode(picture()).decode()


def asked(served: Service, video: Any) -> dict[str, Any]:
    """The order behind a video."""
    digits = video.id.removeprefix("video_")
    name = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return served.desk.queue.get(name).asked


# Videos


def test_a_film_is_asked_for_polled_and_downloaded(client: openai.OpenAI, tmp_path: Path) -> None:
    made = client.videos.create_and_poll(prompt=BALL, model="sora-2-pro", seconds="1", size="256x256")
    facts = (made.object, made.status, made.progress, made.model, made.prompt, made.seconds, made.size, made.error)
    assert facts == ("video", "completed", 100, "sora-2-pro", BALL, "1", "256x256", None)
    assert made.created_at <= (made.completed_at or 0) < (made.expires_at or 0)
    assert re.fullmatch(r"video_[0-9a-f]{32}", made.id) and made.remixed_from_video_id is None
    seen = shown(client, made, tmp_path)
    assert (seen.width, seen.height, seen.seconds) == (256, 256, pytest.approx(1.0))


def test_what_is_left_out_is_the_vendors_default(waiting: openai.OpenAI) -> None:
    made = waiting.videos.create(prompt=BALL)
    facts = (made.status, made.progress, made.model, made.seconds, made.size, made.completed_at, made.expires_at)
    assert facts == ("queued", 0, "sora-2", "4", "720x1280", None, None)


def test_json_is_read_as_a_form_is(idle: Service, waiting: openai.OpenAI) -> None:
    body = {"prompt": BALL, "seconds": "8", "size": "1280x720", "model": "sora-2"}
    said = httpx.post(f"{idle.url}/v1/videos", json=body).json()
    form = waiting.videos.create(**body)  # type: ignore[arg-type]
    same = ("prompt", "seconds", "size", "model", "status")
    assert [said[name] for name in same] == [getattr(form, name) for name in same]
    extended = {"prompt": "x", "seconds": "4", "video": {"id": form.id}}
    assert httpx.post(f"{idle.url}/v1/videos/extensions", json=extended).json()["error"]["code"] == "conflict"


def test_the_server_says_how_often_to_ask(client: openai.OpenAI, waiting: openai.OpenAI, film: Video) -> None:
    for one, video in ((client, film), (waiting, waiting.videos.create(prompt=BALL, seconds="12"))):
        answer = one.videos.with_raw_response.retrieve(video.id)
        assert 250 <= int(answer.headers["openai-poll-after-ms"]) <= 5000
        assert answer.headers["x-request-id"]


def test_every_state_is_one_of_the_vendors(idle: Service, waiting: openai.OpenAI) -> None:
    queue = idle.desk.queue
    for left in waiting.videos.list():
        waiting.videos.delete(left.id)
    fails, stops = (waiting.videos.create(prompt=BALL, **SMALL) for _ in range(2))
    assert [waiting.videos.retrieve(one.id).status for one in (fails, stops)] == ["queued", "queued"]
    claim = queue.claim("me")
    assert claim is not None
    queue.tell(claim, "step", {}, step=3, steps=12)
    now = waiting.videos.retrieve(fails.id)
    assert (now.status, now.progress, now.completed_at, now.error) == ("in_progress", 25, None, None)
    with pytest.raises(openai.NotFoundError, match="in_progress"):
        waiting.videos.download_content(fails.id)
    queue.finish(claim, "failed", error=Trouble(code="bad_media", message="It cannot be read."))
    now = waiting.videos.poll(fails.id)
    assert now.status == "failed" and now.error is not None and now.completed_at is None and now.expires_at is None
    assert (now.error.code, now.error.message) == ("bad_media", "It cannot be read.")
    (cancelled,) = (job for job in queue.listed() if job.state == "queued")
    queue.cancel(cancelled.id)
    now = waiting.videos.retrieve(stops.id)
    assert now.status == "failed" and now.error is not None and now.error.code == "cancelled"
    with pytest.raises(openai.ConflictError, match="made nothing"):
        waiting.videos.download_content(stops.id)


def test_pages_follow_one_another_in_both_directions(waiting: openai.OpenAI) -> None:
    for left in waiting.videos.list():
        waiting.videos.delete(left.id)
    assert waiting.videos.list().data == []
    made = [waiting.videos.create(prompt=f"{BALL} {number}", **SMALL).id for number in range(5)]
    assert [video.id for video in waiting.videos.list(limit=2, order="asc")] == made
    assert [video.id for video in waiting.videos.list(limit=2)] == made[::-1]
    page: Any = waiting.videos.list(limit=2)
    assert (page.object, page.first_id, page.last_id, page.has_more) == ("list", made[4], made[3], True)
    last: Any = waiting.videos.list(limit=2, after=made[1])
    assert ([video.id for video in last.data], last.has_more) == ([made[0]], False)
    for video in waiting.videos.list(limit=2):  # who deletes as he goes reaches all
        gone = waiting.videos.delete(video.id)
        assert (gone.id, gone.object, gone.deleted) == (video.id, "video.deleted", True)
    assert waiting.videos.list().data == []
    with pytest.raises(openai.NotFoundError):
        waiting.videos.retrieve(made[0])


def test_content_has_variants_ranges_and_tags(running: Service, client: openai.OpenAI, film: Video) -> None:
    whole = client.videos.download_content(film.id).content
    url = f"{running.url}/v1/videos/{film.id}/content"
    part = httpx.get(url, headers={"range": "bytes=4-11"})
    assert (part.status_code, part.content) == (206, whole[4:12]) and part.content[:4] == b"ftyp"
    assert part.headers["content-range"] == f"bytes 4-11/{len(whole)}"
    assert httpx.get(url, headers={"range": f"bytes={len(whole)}-"}).status_code == 416
    for variant, kind in (("video", "video/mp4"), ("thumbnail", "image/webp"), ("spritesheet", "image/jpeg")):
        answer = client.videos.download_content(film.id, variant=variant)  # type: ignore[arg-type]
        assert answer.response.headers["content-type"] == kind
        if variant != "video":
            assert min(Image.open(io.BytesIO(answer.content)).size) >= 64
        tag = answer.response.headers["etag"]
        asked = {"params": {"variant": variant}, "headers": {"if-none-match": f'"other", W/{tag}'}}
        again = httpx.get(url, **asked)  # type: ignore[arg-type]
        assert (again.status_code, again.content) == (304, b"")
    with client.videos.with_streaming_response.download_content(film.id) as stream:
        assert b"".join(stream.iter_bytes()) == whole


def test_a_remix_is_as_large_and_long_as_its_source_and_names_it(
    running: Service, client: openai.OpenAI, film: Video, tmp_path: Path
) -> None:
    made = client.videos.remix(film.id, prompt="a blue ball rolls to the right on snow")
    facts = (made.remixed_from_video_id, made.size, made.seconds, made.model)
    assert facts == (film.id, "256x256", "1", "sora-2")
    assert (asked(running, made)["task"], asked(running, made)["keep"]) == ("remix", 0.5)
    seen = shown(client, done(client, made), tmp_path)
    assert (seen.width, seen.height, seen.seconds) == (256, 256, pytest.approx(1.0))
    form = httpx.post(f"{running.url}/v1/videos/{film.id}/remix", files={"prompt": (None, "the same at night")}).json()
    assert form["remixed_from_video_id"] == film.id
    client.videos.delete(form["id"])


def test_a_film_is_edited_and_extended_by_its_id_or_as_a_file(
    running: Service, client: openai.OpenAI, film: Video, tmp_path: Path
) -> None:
    whole, by_id = client.videos.download_content(film.id).content, {"video": {"id": film.id}}
    omit: Any = openai.omit
    edits = [
        client.videos.edit(prompt="a blue ball", video=("film.mp4", whole, "video/mp4")),
        client.videos.edit(prompt="a blue ball", video=whole),
        client.videos.edit(prompt="a blue ball", video=omit, extra_body=by_id),
    ]
    extensions = [
        client.videos.extend(prompt="the ball stops", seconds="1", video=("film.mp4", whole, "video/mp4")),  # type: ignore
        client.videos.extend(prompt="the ball stops", seconds="1", video=omit, extra_body=by_id),  # type: ignore
    ]
    assert {(made.size, made.seconds) for made in edits} == {("256x256", "1")}
    assert {(made.size, made.seconds) for made in extensions} == {("256x256", "2")}
    assert {asked(running, made)["task"] for made in edits} == {"remix"}
    for made in (edits[0], extensions[1]):
        seen = shown(client, done(client, made), tmp_path)
        assert (seen.width, seen.height) == (256, 256) and f"{seen.seconds:.6g}" == made.seconds
    for made in (*edits[1:], extensions[0]):
        client.videos.delete(made.id)


def test_a_picture_moves_however_it_is_given(running: Service, client: openai.OpenAI, idle: Service) -> None:
    file = client.files.create(file=("a.png", picture(), "image/png"), purpose="vision")
    omit: Any = openai.omit
    forms: list[Any] = [
        client.videos.create(
            prompt=BALL, input_reference=("a.png", picture(), "image/png"), seconds="1", size="256x256"
        ),  # type: ignore
        client.videos.create(prompt=BALL, input_reference=picture(kind="jpeg"), **SMALL),
    ]
    for given in ({"image_url": data_url()}, {"file_id": file.id}):
        extra = {"input_reference": given}
        forms.append(client.videos.create(prompt=BALL, input_reference=omit, **{**SMALL, "extra_body": extra}))
        forms.append(Video.construct(**httpx.post(f"{running.url}/v1/videos", json={"prompt": BALL, **extra}).json()))
        ((name, value),) = given.items()
        parts = {"prompt": (None, BALL), f"input_reference[{name}]": (None, value)}  # as Node sends it
        forms.append(Video.construct(**httpx.post(f"{running.url}/v1/videos", files=parts).json()))
    assert {asked(running, made)["task"] for made in forms} == {"animate"}
    assert done(client, forms[0]).seconds == "1"
    for made in forms[1:]:
        client.videos.delete(made.id)


def test_a_data_url_of_a_photograph_fits_into_a_form(waiting: openai.OpenAI) -> None:
    noise = Image.frombytes("RGB", (1000, 800), os.urandom(2_400_000))
    held = io.BytesIO()
    noise.save(held, "png")
    url = "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()
    extra = {"input_reference": {"image_url": url}}
    made = waiting.videos.create(prompt=BALL, input_reference=openai.omit, extra_body=extra)
    assert made.status == "queued"
    with pytest.raises(openai.BadRequestError, match="longer than"):
        waiting.videos.create(prompt=BALL, extra_body={"input_reference": {"image_url": "data:" + "x" * (26 << 20)}})


def test_a_second_try_gets_the_job_of_the_first(idle: Service, waiting: openai.OpenAI) -> None:
    first = waiting.videos.create(prompt=BALL, input_reference=picture(), **SMALL)
    again = {"x-stainless-retry-count": "1"}
    second = waiting.videos.create(prompt=BALL, input_reference=picture(), extra_headers=again, **SMALL)
    assert second.id == first.id
    blue = picture(colour="lime")
    assert len(blue) == len(picture())  # nothing but its pixels is different
    other = waiting.videos.create(prompt=BALL, input_reference=blue, extra_headers=again, **SMALL)
    anew = waiting.videos.create(prompt=BALL, input_reference=picture(), **SMALL)
    assert len({first.id, other.id, anew.id}) == 3


def test_a_character_is_kept_and_found_but_is_in_no_film(client: openai.OpenAI, film: Video) -> None:
    whole = client.videos.download_content(film.id).content
    made = client.videos.create_character(name="Bob", video=("film.mp4", whole, "video/mp4"))
    found = client.videos.get_character(made.id or "")
    assert (found.id, found.name, found.created_at) == (made.id, "Bob", made.created_at)
    assert made.id not in [file.id for file in client.files.list()]
    with pytest.raises(openai.BadRequestError, match="Describe them"):
        client.videos.create(prompt=BALL, extra_body={"characters": [{"id": made.id}]})
    for other in (film.id, (made.id or "").replace("char", "file"), "char_1"):
        with pytest.raises(openai.NotFoundError):
            client.videos.get_character(other)


def test_the_async_client_makes_several_at_once(running: Service) -> None:
    async def several() -> list[bytes]:
        async with openai.AsyncOpenAI(base_url=f"{running.url}/openai/v1", api_key="local") as client:
            made = await asyncio.gather(
                *(client.videos.create_and_poll(prompt=BALL, poll_interval_ms=50, **SMALL) for _ in range(3))
            )
            listed = [video.id async for video in client.videos.list(limit=2)]
            assert {video.id for video in made} <= set(listed) and len(set(listed)) == len(listed)
            return [(await client.videos.download_content(video.id)).content for video in made]

    assert all(content[4:8] == b"ftyp" for content in asyncio.run(several()))


# What is wrong


def test_errors_have_the_four_keys_whatever_is_wrong(idle: Service, tmp_path: Path) -> None:
    def said(method: str, path: str, **given: Any) -> tuple[int, dict[str, Any]]:
        answer = httpx.request(method, f"{idle.url}/v1{path}", **given)
        error = answer.json()["error"]
        assert set(answer.json()) == {"error"} and set(error) == {"message", "type", "param", "code"}
        assert answer.headers["x-request-id"] and error["message"] and error["code"]
        return answer.status_code, error

    status, error = said("POST", "/videos", json={"prompt": BALL, "sedonds": "4"})
    assert (status, error["param"], error["code"]) == (400, "sedonds", "unknown_parameter")
    assert error["type"] == "invalid_request_error" and "sedonds" in error["message"]
    assert said("POST", "/videos", json={})[1]["code"] == "missing_required_parameter"
    assert said("POST", "/videos", content=b"{", headers={"content-type": "application/json"})[0] == 400
    assert said("POST", "/videos", content=b"x", headers={"content-type": "multipart/form-data; boundary=a"})[0] == 400
    status, error = said("GET", "/videos/video_nope")
    assert (status, error["type"], error["param"]) == (404, "not_found_error", None)
    assert said("GET", "/chat/completions")[0] == 404
    assert said("PUT", "/videos")[0] == 405
    assert said("POST", "/videos", json={"prompt": "x" * (25 << 20)})[0] == 413
    status, error = said("GET", "/videos?order=up")
    assert (status, error["param"]) == (422, "order")
    assert said("GET", "/videos?limit=1000")[1]["param"] == "limit"


def test_a_stranger_is_told_so_in_the_same_words(tmp_path: Path) -> None:
    with service(tmp_path / "locked", workers=0) as here:
        key = Keys(here.desk.queue.database).make("mine")
        with pytest.raises(openai.AuthenticationError) as caught:
            openai.OpenAI(base_url=f"{here.url}/v1", api_key="local").videos.list()
        assert caught.value.code and caught.value.type == "authentication_error"
        assert set(caught.value.body or ()) == {"message", "type", "param", "code"}  # type: ignore[call-overload]
        assert openai.OpenAI(base_url=f"{here.url}/v1", api_key=key).videos.list().data == []


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"prompt": ""}, "prompt", "at least 1 character"),
        ({"prompt": "x" * 32001}, "prompt", "at most 32000"),
        ({"model": "sora-9"}, None, "Served here: diorama"),
        ({"seconds": "0"}, "seconds", "greater than 0"),
        ({"seconds": "four"}, "seconds", "valid number"),
        ({"seconds": "nan"}, "seconds", ""),
        ({"size": "large"}, None, "WIDTHxHEIGHT"),
        ({"size": "9000x16"}, None, "4096"),
        ({"input_reference": b"no picture"}, None, "cannot be read"),
        ({"extra_body": {"input_reference": {"image_url": "a", "file_id": "b"}}}, None, "Exactly one"),
        ({"extra_body": {"input_reference": {"image_url": "http://127.0.0.1/a.png"}}}, None, "127.0.0.1"),
        ({"extra_body": {"quality": "finest"}}, "quality", "'draft', 'standard' or 'best'"),
        ({"extra_body": {"nested": {"a": [1]}}}, "nested", "not known here"),
    ],
)
def test_what_cannot_be_made_is_refused_before_it_is_queued(
    waiting: openai.OpenAI, given: dict[str, Any], param: str | None, words: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        waiting.videos.create(**{"prompt": BALL, **given})
    assert words in caught.value.message and caught.value.param == param and caught.value.code


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        ("/videos", {"input_reference": "a.png"}, "input_reference", "an object"),
        ("/videos", {"input_reference": {"url": "a"}}, "input_reference.url", "not known here"),
        ("/videos/edits", {"video": "video_1"}, "video", "an object"),
        ("/videos/edits", {}, "video", "video"),
        ("/videos/extensions", {"video": {}}, "video.id", "required"),
        ("/videos/characters", {"name": "Bob", "video": "a"}, "video", "a file"),
        ("/images/edits", {"image": "a.png"}, "image", "list"),
        ("/videos", {"Style": "vivid"}, "Style", "not known here"),
    ],
)
def test_what_is_wrong_is_named_as_its_asker_named_it(
    idle: Service, path: str, body: dict[str, Any], param: str, words: str
) -> None:
    error = httpx.post(f"{idle.url}/v1{path}", json={"prompt": BALL, **body}).json()["error"]
    error = error if path != "/videos/characters" else httpx.post(f"{idle.url}/v1{path}", json=body).json()["error"]
    assert error["param"] == param and words in error["message"] and "Upload" not in error["message"]


def test_a_picture_is_no_film_and_a_film_no_picture(waiting: openai.OpenAI, client: openai.OpenAI, film: Video) -> None:
    still, moving = picture(), client.videos.download_content(film.id).content
    for ask in (
        lambda: waiting.videos.edit(prompt=BALL, video=still),
        lambda: waiting.videos.extend(prompt=BALL, video=still, seconds="4"),
        lambda: waiting.videos.create_character(name="Bob", video=still),
        lambda: waiting.videos.create(prompt=BALL, input_reference=moving),
        lambda: waiting.images.edit(prompt=BALL, image=("a.mp4", moving, "video/mp4")),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            ask()
        assert "picture" in caught.value.message, caught.value


def test_ids_are_of_their_kind_and_of_this_api(idle: Service, waiting: openai.OpenAI) -> None:
    mine = waiting.files.create(file=("a.png", picture(), "image/png"), purpose="vision")
    video = waiting.videos.create(prompt=BALL, **SMALL)
    slot = Files(idle.desk.queue.database).add(account="local", dialect="agents", name="a", purpose="input")
    digits = slot.id.replace("-", "")
    for name in (f"file_{digits}", video.id, mine.id.replace("file", "video")):
        for ask in (waiting.files.retrieve, waiting.files.content, waiting.files.delete):
            with pytest.raises(openai.NotFoundError):
                ask(name)
    with pytest.raises(openai.NotFoundError):
        waiting.videos.retrieve(video.id.replace("video", "file"))


# Pictures, files and models


@pytest.mark.parametrize(("kind", "name"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_pictures_come_in_their_answer(client: openai.OpenAI, kind: Any, name: str) -> None:
    made = client.images.generate(
        prompt=BALL, model="gpt-image-1", size="256x256", output_format=kind, n=2, quality="low"
    )
    assert (made.size, made.output_format, len(made.data or ())) == ("256x256", kind, 2)
    for one in made.data or ():
        seen = Image.open(io.BytesIO(base64.b64decode(one.b64_json or "")))
        assert (seen.format, seen.size) == (name, (256, 256))


def test_a_picture_is_edited_and_only_where_its_mask_is_clear(client: openai.OpenAI) -> None:
    grey = io.BytesIO()
    Image.new("RGB", (128, 128), (90, 160, 70)).save(grey, "png")
    mask, clear = Image.new("RGBA", (128, 128), "black"), io.BytesIO()
    mask.paste((0, 0, 0, 0), (0, 0, 64, 128))
    mask.save(clear, "png")
    given = {"prompt": "a blue ball on snow", "quality": "low"}
    one = client.images.edit(image=("a.png", grey.getvalue(), "image/png"), mask=clear.getvalue(), **given)  # type: ignore
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode((one.data or [])[0].b64_json or ""))), float)
    assert pixels.shape == (128, 128, 3)
    off = np.abs(pixels - (90, 160, 70)).mean((0, 2))
    assert off[72:].max() < 8 and off[:56].mean() > 20
    listed = client.images.edit(
        image=[("a.png", grey.getvalue(), "image/png")],
        output_format="jpeg",
        stream=False,  # a form says it in a word
        **given,  # type: ignore
    )
    assert Image.open(io.BytesIO(base64.b64decode((listed.data or [])[0].b64_json or ""))).size == (128, 128)
    with pytest.raises(openai.BadRequestError, match="Send one image"):
        client.images.edit(image=[grey.getvalue(), grey.getvalue()], **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"background": "transparent"}, "background"),
        ({"response_format": "url"}, "response_format"),
        ({"style": "vivid"}, "style"),
        ({"n": 11}, "n"),
    ],
)
def test_pictures_that_cannot_be_made_are_refused(client: openai.OpenAI, given: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt=BALL, **given)
    assert caught.value.param == param


def test_files_are_kept_listed_read_and_deleted(client: openai.OpenAI) -> None:
    made = [client.files.create(file=(f"{n}.png", picture(), "image/png"), purpose="user_data") for n in range(3)]
    assert (made[0].object, made[0].filename, made[0].purpose) == ("file", "0.png", "user_data")
    assert made[0].bytes == len(picture()) and made[0].status == "processed"
    names = [file.id for file in client.files.list(limit=2, purpose="user_data", order="asc")]
    assert names == [file.id for file in made]
    assert client.files.retrieve(made[1].id).filename == "1.png"
    assert client.files.content(made[1].id).content == picture()
    gone = client.files.delete(made[1].id)
    assert (gone.id, gone.object, gone.deleted) == (made[1].id, "file", True)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made[1].id)
    soon = client.files.create(
        file=picture(), purpose="vision", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (soon.expires_at or 0) - soon.created_at == pytest.approx(3600, abs=1)
    for file, purpose in ((b"words", "user_data"), (picture(), "character")):
        with pytest.raises(openai.BadRequestError, match=r"cannot be read|purpose"):
            client.files.create(file=("a.txt", file), purpose=purpose)  # type: ignore[arg-type]


def test_models_are_ours_and_the_names_that_stand_for_them(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"diorama", "toy", "sora-2", "sora-2-pro", "gpt-image-1"} <= set(names)
    one = client.models.retrieve("sora-2")
    assert (one.id, one.object, one.owned_by) == ("sora-2", "model", "cinecanvas")
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4")
    assert caught.value.code == "model_not_found"


# The page


def test_the_program_on_the_page_runs_with_nothing_but_its_environment_changed(
    running: Service, tmp_path: Path
) -> None:
    said = ran("how-to/leave-sora.md", tmp_path, OPENAI_BASE_URL=f"{running.url}/v1", OPENAI_API_KEY="local")
    assert "100.0%" in said
    film = info(tmp_path / "video.mp4")
    assert (film.width, film.height, film.seconds) == (1280, 720, pytest.approx(4.0))
