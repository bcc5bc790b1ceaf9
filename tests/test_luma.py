"""Luma's own clients, unmodified, against a running server: what they ask, they get, or are told why not."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import luma_agents
import lumaai
import pytest
from PIL import Image
from service import Service, ran, service

from cinecanvas.media.video import info

BALL = "a red ball rolls to the right on grass at sunset"
DRAFT = {"quality": "draft"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("luma")) as here:
        yield here


@pytest.fixture(scope="module")
def luma(running: Service) -> lumaai.LumaAI:
    return lumaai.LumaAI(base_url=running.url + "/luma/dream-machine/v1", auth_token="local", max_retries=0)


@pytest.fixture(scope="module")
def agents(running: Service) -> luma_agents.Luma:
    return luma_agents.Luma(base_url=running.url + "/luma-agents", auth_token="local", max_retries=0)


def until_done(client: Any, generation: Any) -> Any:
    until = time.monotonic() + 60
    while generation.state not in ("completed", "failed"):
        assert time.monotonic() < until, generation
        time.sleep(0.05)
        generation = client.generations.get(generation.id)
    return generation


def film(luma: lumaai.LumaAI, **asked: Any) -> Any:
    asked = {"model": "ray-2", "prompt": BALL, "duration": "1s", "extra_body": DRAFT, **asked}
    made = until_done(luma, luma.generations.create(**asked))
    assert made.state == "completed", made.failure_reason
    return made


def fetched(url: str, tmp_path: Path, name: str = "film.mp4") -> Any:
    """What a URL holds, with no key sent, as a file that can be looked at."""
    answer = httpx.get(url)
    assert answer.status_code == 200, answer.text
    (tmp_path / name).write_bytes(answer.content)
    return info(tmp_path / name)


def png(colour: str = "red", size: tuple[int, int] = (64, 64)) -> bytes:
    """A picture of one colour; of "", noise, which no PNG makes small."""
    out = io.BytesIO()
    noise = os.urandom(3 * size[0] * size[1])
    image = Image.new("RGB", size, colour) if colour else Image.frombytes("RGB", size, noise)
    image.save(out, "png")
    return out.getvalue()


def data_uri(colour: str = "red") -> str:
    return "data:image/png;base64," + base64.b64encode(png(colour)).decode()


@pytest.fixture(scope="module")
def ball(luma: lumaai.LumaAI) -> Any:
    return film(luma)


# Dream Machine


def test_a_film_is_asked_for_awaited_and_downloaded_without_a_key(luma: lumaai.LumaAI, tmp_path: Path) -> None:
    asked = {"prompt": BALL, "aspect_ratio": "9:16", "duration": "1s", "resolution": "540p", "loop": False}
    first = luma.generations.video.create(model="ray-2", **asked)  # type: ignore[arg-type]
    assert first.state in ("queued", "dreaming") and first.generation_type == "video" and first.model == "ray-2"
    assert first.created_at is not None and first.created_at.tzinfo is not None
    assert first.request is not None and first.request.model_dump(exclude_none=True) == {"model": "ray-2", **asked}
    made = until_done(luma, first)
    assert made.state == "completed" and made.failure_reason is None
    seen = fetched(made.assets.video, tmp_path)
    assert (seen.width, seen.height, seen.seconds) == (540, 960, pytest.approx(1.0))
    assert fetched(made.assets.image, tmp_path, "first.png").width == 540
    assert made.assets.progress_video is None


def test_both_places_and_old_paths_lead_to_the_same(running: Service, luma: lumaai.LumaAI, ball: Any) -> None:
    short = lumaai.LumaAI(base_url=running.url + "/luma", auth_token="local")
    assert short.generations.get(ball.id).id == ball.id
    old = httpx.post(f"{running.url}/luma/dream-machine/v1/generations", json={"prompt": BALL, "duration": "1s"})
    assert old.status_code == 201 and old.json()["model"] == "ray-2"
    motions = httpx.get(f"{running.url}/luma/generations/camera_motion/list").json()
    assert "pan left" in motions and "static camera" in motions


@pytest.mark.parametrize(
    ("frames", "seconds"),
    [("i-", 1), ("-i", 1), ("ii", 1), ("g-", 2), ("-g", 2), ("gi", 2), ("ig", 2), ("gg", 3)],
)
def test_what_a_film_begins_and_ends_with(
    luma: lumaai.LumaAI, ball: Any, frames: str, seconds: float, tmp_path: Path
) -> None:
    given = {"i": {"type": "image", "url": ball.assets.image}, "g": {"type": "generation", "id": ball.id}}
    keyframes = {f"frame{n}": given[kind] for n, kind in enumerate(frames) if kind != "-"}
    made = film(luma, keyframes=keyframes)
    seen = fetched(made.assets.video, tmp_path)
    assert seen.seconds == pytest.approx(seconds, abs=0.13)
    assert seen.width / seen.height == pytest.approx(16 / 9, abs=0.05)


def test_without_words_those_of_the_generation_hold(running: Service, luma: lumaai.LumaAI, ball: Any) -> None:
    made = luma.generations.create(model="ray-2", keyframes={"frame0": {"type": "generation", "id": ball.id}})
    assert running.desk.queue.get(made.id or "").asked["prompt"] == BALL
    noise = "data:image/bmp;base64," + base64.b64encode(os.urandom(9000)).decode()
    with pytest.raises(lumaai.BadRequestError, match="cannot be read"):
        luma.generations.create(model="ray-2", keyframes={"frame0": {"type": "image", "url": noise}})
    noise = "data:image/png;base64," + base64.b64encode(png("", (64, 64))).decode()
    picture = luma.generations.create(model="ray-2", keyframes={"frame0": {"type": "image", "url": noise}})
    assert running.desk.queue.get(picture.id or "").asked["prompt"] == "a film"
    assert picture.request.keyframes.frame0.url.endswith("...")  # type: ignore[union-attr]
    for one in (made, picture):
        luma.generations.delete(one.id or "")


def test_a_loop_of_words_of_a_picture_and_of_a_film(luma: lumaai.LumaAI, ball: Any, tmp_path: Path) -> None:
    image, before = {"type": "image", "url": data_uri()}, {"type": "generation", "id": ball.id}
    for keyframes, seconds in (({}, 1.0), ({"frame0": image}, 1.0), ({"frame0": before}, 2.0)):
        made = film(luma, loop=True, keyframes=keyframes)
        assert fetched(made.assets.video, tmp_path).seconds == pytest.approx(seconds, abs=0.13)
    with pytest.raises(lumaai.BadRequestError, match="A loop ends where it begins"):
        luma.generations.create(model="ray-2", prompt=BALL, loop=True, keyframes={"frame1": before})  # type: ignore
    with pytest.raises(lumaai.BadRequestError, match=r"Ask for 4\.5 s or less"):
        luma.generations.create(model="ray-2", prompt=BALL, loop=True, duration="5s")


def test_concepts_are_the_camera_motions_that_the_model_knows(running: Service, luma: lumaai.LumaAI) -> None:
    keys = luma.generations.concepts.list()
    assert {"static", "pan_left", "zoom_in"} <= set(keys)
    made = luma.generations.create(
        model="ray-2", prompt=BALL, concepts=[{"key": "zoom_in"}, {"key": "pan_left"}], duration="1s"
    )
    assert running.desk.queue.get(made.id or "").asked["prompt"] == f"{BALL}, zoom in, pan left"
    luma.generations.delete(made.id or "")
    with pytest.raises(lumaai.BadRequestError, match="The concept 'crane' was asked"):
        luma.generations.create(model="ray-2", prompt=BALL, concepts=[{"key": "crane"}])


def test_a_film_is_modified_by_modes(running: Service, luma: lumaai.LumaAI, ball: Any, tmp_path: Path) -> None:
    made = luma.generations.video.modify(
        generation_type="modify_video",
        model="ray-2",
        mode="adhere_1",
        media={"url": ball.assets.video},
        prompt="a blue ball on snow",
    )
    asked = running.desk.queue.get(made.id or "").asked
    assert (asked["task"], asked["keep"]) == ("remix", 0.9)
    done = until_done(luma, made)
    assert done.state == "completed" and fetched(done.assets.video, tmp_path).seconds == pytest.approx(1.0)
    assert type(done.request).__name__ == "RequestModifyVideoRequest"
    with pytest.raises(lumaai.BadRequestError, match="Modes are adhere_1"):
        luma.generations.video.modify(
            generation_type="modify_video",
            model="ray-2",
            mode="wild",  # type: ignore[arg-type]
            media={"url": ball.assets.video},
        )


def test_a_film_is_reframed_with_and_without_a_place(
    running: Service, luma: lumaai.LumaAI, ball: Any, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"generation_type": "reframe_video", "model": "ray-2", "media": {"url": ball.assets.video}}
    whole = until_done(luma, luma.generations.video.reframe(aspect_ratio="9:16", **asked))
    seen = fetched(whole.assets.video, tmp_path)
    assert seen.width / seen.height == pytest.approx(9 / 16, abs=0.03)
    assert type(whole.request).__name__ == "RequestReframeVideoRequest"
    bounds = {"x_start": 0, "x_end": 360, "y_start": 240, "y_end": 440}
    put = luma.generations.video.reframe(aspect_ratio="9:16", **bounds, **asked)  # type: ignore[arg-type]
    order = running.desk.queue.get(put.id or "").asked
    assert order["to"] == "360x640" and order["box"] == pytest.approx([0, 0.375, 1, 0.3125])
    corner = {"grid_position_x": 0, "grid_position_y": 240, "resized_width": 360, "resized_height": 200}
    same = luma.generations.video.reframe(aspect_ratio="9:16", **corner, **asked)  # type: ignore[arg-type]
    assert running.desk.queue.get(same.id or "").asked["box"] == order["box"]
    assert until_done(luma, put).state == "completed"
    seen = fetched(until_done(luma, same).assets.video, tmp_path)
    assert (seen.width, seen.height) == (360, 640)
    beyond, other = bounds | {"x_start": -4}, bounds | corner | {"resized_width": 9}
    for wrong in ({"x_start": 3}, {"grid_position_x": 1}, beyond, other):
        with pytest.raises(lumaai.BadRequestError):
            luma.generations.video.reframe(aspect_ratio="9:16", **wrong, **asked)  # type: ignore[arg-type]


def test_pictures_are_made_waited_for_modified_and_reframed(luma: lumaai.LumaAI, tmp_path: Path) -> None:
    made = luma.generations.image.create(model="photon-1", prompt=BALL, sync=True, aspect_ratio="1:1")
    assert made.state == "completed" and made.generation_type == "image"
    assert made.assets is not None and made.assets.image and made.assets.video is None
    seen = fetched(made.assets.image, tmp_path, "a.jpg")
    assert httpx.get(made.assets.image).headers["content-type"] == "image/jpeg" and seen.width == seen.height
    other = luma.generations.image.create(
        model="photon-flash-1",
        prompt="a blue ball on snow",
        format="png",
        modify_image_ref={"url": made.assets.image, "weight": 0.7},
        sync=True,
        sync_timeout=30,
    )
    assert other.assets is not None and httpx.get(other.assets.image or "").headers["content-type"] == "image/png"
    wide = luma.generations.image.reframe(
        generation_type="reframe_image", model="photon-1", aspect_ratio="16:9", media={"url": made.assets.image}
    )
    seen = fetched(until_done(luma, wide).assets.image, tmp_path, "b.jpg")
    assert seen.width / seen.height == pytest.approx(16 / 9, abs=0.05)
    film(luma, keyframes={"frame0": {"type": "generation", "id": made.id}})  # a picture, so it is animated
    for name, value in {"image_ref": [{"url": data_uri()}], "character_ref": {"identity0": {"images": []}}}.items():
        with pytest.raises(lumaai.BadRequestError, match=name):
            luma.generations.image.create(model="photon-1", prompt="x", **{name: value})  # type: ignore[arg-type]


def test_upscaling_is_done_by_a_model_that_can_and_refused_with_its_name_by_one_that_cannot(
    luma: lumaai.LumaAI, ball: Any, tmp_path: Path
) -> None:
    with pytest.raises(lumaai.BadRequestError, match=r"diorama was asked to upscale.*toy can.*larger resolution"):
        luma.generations.upscale(ball.id, resolution="1080p")
    toy: Any = {"model": "toy", "prompt": "red", "aspect_ratio": "1:1"}
    small = until_done(luma, luma.generations.create(duration="1s", **toy))
    twice = luma.generations.upscale(small.id)
    assert type(twice.request).__name__ == "RequestUpscaleVideoGenerationRequest" and twice.model == "toy"
    sizes = [fetched(one.assets.video, tmp_path).width for one in (small, until_done(luma, twice))]
    assert sizes == [16, 32]


def test_sound_is_refused_truthfully(luma: lumaai.LumaAI, ball: Any) -> None:
    with pytest.raises(lumaai.BadRequestError, match="adds sound to a film that is done"):
        luma.generations.audio(ball.id, prompt="rain")


def test_pages_count_credits_and_pings(luma: lumaai.LumaAI, ball: Any) -> None:
    first = luma.generations.list(limit=1)
    assert (first.count, first.has_more, first.limit, first.offset) == (1, True, 1, 0)
    second = luma.generations.list(limit=1, offset=1)
    assert second.generations[0].id != first.generations[0].id
    everything = luma.generations.list()
    assert everything.limit == 100 and not everything.has_more and ball.id in [g.id for g in everything.generations]
    assert luma.credits.get().credit_balance > 0 and luma.ping.check().message


def test_what_is_deleted_is_gone_and_what_is_refused_says_why(running: Service, luma: lumaai.LumaAI) -> None:
    made = luma.generations.create(model="ray-2", prompt=BALL)
    assert httpx.delete(f"{running.url}/luma/generations/{made.id}").status_code == 204
    for call, kind, words in (
        (lambda: luma.generations.get(made.id or ""), lumaai.NotFoundError, "no such generation"),
        (lambda: luma.generations.create(model="sora-2", prompt="x"), lumaai.BadRequestError, "Served here"),  # type: ignore
        (lambda: luma.generations.create(model="ray-2"), lumaai.BadRequestError, "Neither a prompt"),
        (lambda: luma.generations.create(model="ray-2", prompt="x", duration="long"), lumaai.BadRequestError, "5s"),
        (lambda: luma.generations.create(model="ray-2", prompt="x", resolution="8k"), lumaai.BadRequestError, "540p"),
        (lambda: luma.generations.create(model="ray-2", prompt="x", extra_body={"a": 1}), lumaai.BadRequestError, "a "),
        (lambda: luma.generations.list(limit=0), lumaai.UnprocessableEntityError, "limit"),
        (lambda: luma.get("/nothing", cast_to=object), lumaai.NotFoundError, "nothing at this address"),
        (
            lambda: luma.generations.create(
                model="ray-2", prompt="x", aspect_ratio="21:9", resolution="4k", callback_url="https://example.org/x"
            ),
            lumaai.BadRequestError,
            "5040x2160",
        ),
        (
            lambda: luma.generations.create(model="ray-2", prompt="x", callback_url="http://127.0.0.1/x"),
            lumaai.BadRequestError,
            "not on the public internet",
        ),
    ):
        with pytest.raises(kind) as caught:
            call()
        assert list(caught.value.body) == ["detail"] and words in caught.value.body["detail"]  # type: ignore


def test_a_generation_that_fails_says_why(luma: lumaai.LumaAI) -> None:
    picture = {"type": "image", "url": "https://nowhere.invalid/a.png"}
    made = until_done(luma, luma.generations.create(model="ray-2", prompt=BALL, keyframes={"frame0": picture}))  # type: ignore
    assert made.state == "failed" and "nowhere.invalid" in made.failure_reason and made.assets is None


def test_a_film_can_be_watched_while_it_is_dreamt(luma: lumaai.LumaAI, tmp_path: Path) -> None:
    made = luma.generations.create(model="ray-2", prompt=BALL, duration="12s", extra_body=DRAFT)
    while not (made.assets and made.assets.progress_video):
        assert made.state in ("queued", "dreaming"), made
        time.sleep(0.02)
        made = luma.generations.get(made.id or "")
    seen = fetched(made.assets.progress_video, tmp_path)  # it ends when the film does
    assert seen.seconds == pytest.approx(12.0, abs=0.2)
    assert until_done(luma, made).state == "completed"
    assert httpx.head(made.assets.progress_video).status_code == 200  # and is the film from then on


def test_a_request_sent_twice_is_one_generation(running: Service) -> None:
    url, body = f"{running.url}/luma/generations/video", {"model": "ray-2", "prompt": "a cone", "duration": "1s"}
    first = httpx.post(url, json=body).json()["id"]
    assert httpx.post(url, json=body, headers={"x-stainless-retry-count": "1"}).json()["id"] == first
    assert httpx.post(url, json=body).json()["id"] != first
    elsewhere = url.removesuffix("/video")  # the same to another address is another wish
    assert httpx.post(elsewhere, json=body, headers={"x-stainless-retry-count": "1"}).json()["id"] != first


def test_the_async_clients_do_the_same(running: Service) -> None:
    async def both() -> list[str]:
        old = lumaai.AsyncLumaAI(base_url=running.url + "/luma", auth_token="local")
        new = luma_agents.AsyncLuma(base_url=running.url + "/agents", auth_token="local")
        one: Any = await old.generations.create(model="ray-2", prompt=BALL, duration="1s")
        two: Any = await new.generations.create(prompt=BALL, type="image", model="uni-1")
        while "completed" not in (one.state,) or "completed" not in (two.state,):
            assert "failed" not in (one.state, two.state)
            await asyncio.sleep(0.05)
            one, two = await old.generations.get(one.id), await new.generations.get(two.id)
        return [one.assets.video, two.output[0].url]

    assert all(httpx.get(url).status_code == 200 for url in asyncio.run(both()))


# Agents


def brought(agents: luma_agents.Luma, data: bytes, mime: str = "image/png") -> Any:
    slot = agents.files.create(mime_type=mime, size_bytes=len(data), filename="x", purpose="input")
    assert slot.state == "pending" and slot.upload is not None and slot.upload.method == "PUT"
    assert httpx.put(slot.upload.url, headers=slot.upload.headers, content=data).status_code == 200
    return agents.files.complete(slot.id)


def test_files_come_by_a_signed_put_and_are_looked_at(running: Service, agents: luma_agents.Luma) -> None:
    assert brought(agents, png("", (1200, 900))).state == "ready"  # more than a message may hold
    file = brought(agents, png())
    assert (file.state, file.mime_type, file.filename, file.purpose) == ("ready", "image/png", "x", "input")
    assert agents.files.get(file.id).size_bytes == len(png())
    bad = brought(agents, b"no picture", "image/jpeg")
    assert bad.state == "failed" and bad.failure_reason
    page = agents.files.list(limit=1)
    assert page.data[0].id == bad.id and page.has_more
    assert agents.files.list(limit=1, cursor=page.next_cursor or "").data[0].id == file.id
    assert [one.id for one in agents.files.list(state="failed", purpose="input").data] == [bad.id]
    inline = {"file": ("a.png", png(), "image/png")}
    form = httpx.post(f"{running.url}/luma-agents/files", files=inline, data={"purpose": "reference"}).json()
    assert form["upload"] is None and agents.files.list(purpose="reference").data[0].id == form["id"]
    agents.files.delete(file.id)
    with pytest.raises(luma_agents.NotFoundError):
        agents.files.get(file.id)


def test_an_upload_is_no_longer_than_announced_and_only_for_who_has_its_url(agents: luma_agents.Luma) -> None:
    slot = agents.files.create(mime_type="image/png", size_bytes=len(png()))
    assert slot.upload is not None
    assert httpx.put(slot.upload.url.replace("signature=", "signature=0"), content=png()).status_code == 403
    assert httpx.put(slot.upload.url, content=png() + b"more").status_code == 400
    with pytest.raises(luma_agents.BadRequestError, match="have not come"):
        agents.files.complete(slot.id)
    with pytest.raises(luma_agents.BadRequestError, match="is pending"):
        agents.generations.create(prompt="x", type="image_edit", source={"file_id": slot.id})
    assert httpx.put(slot.upload.url, content=png()).status_code == 200
    assert agents.files.complete(slot.id).state == "ready" and agents.files.complete(slot.id).state == "ready"
    assert httpx.put(slot.upload.url, content=png()).status_code == 409
    with pytest.raises(luma_agents.APIStatusError, match="At most"):
        agents.files.create(mime_type="video/mp4", size_bytes=5 << 30)


def test_pictures_pinned_to_moments_become_a_film(running: Service, agents: luma_agents.Luma, tmp_path: Path) -> None:
    files = [brought(agents, png(colour)).id for colour in ("red", "blue")]
    pins: Any = {"keyframes": [{"file_id": files[0]}, {"file_id": files[1]}], "keyframe_indexes": [0, 24]}
    asked = agents.generations.create(prompt=BALL, model="ray-3.2", type="video", video={"duration": "1s", **pins})
    assert [p["at"] for p in running.desk.queue.get(asked.id).asked["pictures"]] == [0.0, 0.875]  # the last frame
    made = until_done(agents, asked)
    assert made.state == "completed" and made.output[0].type == "video" and made.model == "ray-3.2"
    assert fetched(made.output[0].url, tmp_path).seconds == pytest.approx(1.0)
    for wrong, words in (
        ({"keyframe_indexes": [0]}, "Each keyframe has its own"),
        ({"keyframe_indexes": [0, 25]}, "0 to 24"),
        ({"loop": True}, "exclude one another"),
        ({"start_frame": {"file_id": files[0]}}, "exclude one another"),
    ):
        with pytest.raises(luma_agents.BadRequestError, match=words):
            agents.generations.create(prompt="x", type="video", video={"duration": "1s", **pins, **wrong})


def test_frames_edits_and_reframes_of_the_agents_api(
    running: Service, agents: luma_agents.Luma, tmp_path: Path
) -> None:
    def asked(**body: Any) -> Any:
        return agents.generations.create(prompt=BALL, extra_body=DRAFT, **body)

    def task(generation: Any) -> dict[str, Any]:
        order: dict[str, Any] = running.desk.queue.get(generation.id).asked
        return order

    first = until_done(agents, asked(type="video", video={"duration": "1s", "resolution": "360p"}))
    assert fetched(first.output[0].url, tmp_path).width == 640
    again = {"generation_id": first.id}
    inline = {"data": base64.b64encode(png()).decode(), "media_type": "image/png"}
    jobs = {
        "extend": asked(type="video", video={"duration": "1s", "start_frame": again}),
        "backward": asked(type="video", video={"duration": "1s", "end_frame": again}),
        "animate": asked(type="video", video={"duration": "1s", "start_frame": inline}),
        "interpolate": asked(type="video", video={"duration": "1s", "start_frame": inline, "end_frame": again}),
        "loop": asked(type="video", video={"duration": "1s", "loop": True}),
        "remix": asked(type="video_edit", source=again, video={"edit": {"strength": "reimagine_3"}}),
        "outpaint": asked(
            type="video_reframe",
            source={"url": first.output[0].url, "media_type": "video/mp4"},
            aspect_ratio="1:1",
            video={"source_position": {"x_norm": 0, "y_norm": 0.25, "w_norm": 1, "h_norm": 0.5}},
        ),
        "image_edit": asked(type="image_edit", source=inline, output_format="jpeg"),
    }
    for name, job in jobs.items():
        assert task(job)["task"] == {"backward": "extend", "image_edit": "remix"}.get(name, name)
    assert task(jobs["backward"])["backward"] and task(jobs["remix"])["keep"] == 0.1
    assert task(jobs["outpaint"])["box"] == [0, 0.25, 1, 0.5]
    done = {name: until_done(agents, job) for name, job in jobs.items()}
    assert {job.state for job in done.values()} == {"completed"}
    assert done["image_edit"].output[0].type == "image" and done["image_edit"].model == "uni-1"
    assert fetched(done["extend"].output[0].url, tmp_path).seconds == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"type": "layering"}, "takes a picture apart"),
        ({"type": "image", "image_ref": [{"url": "https://example.org/a.png"}]}, "image_ref was given"),
        ({"type": "image", "style": "manga"}, "The style manga"),
        ({"type": "image", "web_search": True}, "web_search"),
        ({"type": "video", "video": {"hdr": True}}, "HDR"),
        ({"type": "video", "video": {"loop": True, "duration": "10s"}}, "Loops are of 5s"),
        ({"type": "video", "video": {"edit": {"strength": "flex_1"}}}, "belongs to video_edit"),
        ({"type": "video_edit"}, "needs a source"),
        ({"type": "video_reframe", "source": {"url": "https://example.org/a.mp4"}}, "needs aspect_ratio"),
        ({"type": "image_edit", "source": {"url": "https://example.org/a", "data": "eA=="}}, "exactly one"),
        ({"type": "video_edit", "video": {"edit": {"controls": {"pose": {"enabled": True}}}}}, "The controls pose"),
        ({"type": "video", "model": "uni-9"}, "Served here"),
    ],
)
def test_what_no_model_here_can_do_is_refused_in_a_line(agents: luma_agents.Luma, asked: Any, words: str) -> None:
    with pytest.raises(luma_agents.BadRequestError) as caught:
        agents.generations.create(prompt="x", **asked)
    assert words in caught.value.body["detail"]  # type: ignore[index, call-overload]


def test_a_failure_has_a_code_of_the_vendors(agents: luma_agents.Luma) -> None:
    source = {"url": "https://nowhere.invalid/a.png"}
    made = until_done(agents, agents.generations.create(prompt="x", type="image_edit", source=source))  # type: ignore
    assert made.state == "failed" and made.failure_code in ("corrupt_input", "invalid_request") and made.failure_reason


# The page


def test_the_program_on_the_page_runs_with_nothing_but_its_environment_changed(
    running: Service, tmp_path: Path
) -> None:
    ran("how-to/leave-luma.md", tmp_path, LUMAAI_BASE_URL=f"{running.url}/luma", LUMAAI_API_KEY="local")
    (film,) = tmp_path.glob("*.mp4")
    assert info(film).seconds == pytest.approx(5.0)
