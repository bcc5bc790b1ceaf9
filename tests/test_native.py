"""Our own API as its users meet it: a running server, a real worker, plain HTTP."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from service import Service, ran, service

from cinecanvas.media.video import info, read

WORDS = "a red ball bounces on grass"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(Path(tmp_path_factory.mktemp("native"))) as one:
        yield one


@pytest.fixture
def api(running: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{running.url}/api/v1", timeout=60.0) as client:
        yield client


def asked(api: httpx.Client, task: str = "text_to_video", /, *, params: Any = None, **order: Any) -> dict[str, Any]:
    answer = api.post("/jobs", json={"task": task, "prompt": WORDS, **order}, params=params)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def ended(api: httpx.Client, job: str, *, most: float = 90.0) -> dict[str, Any]:
    until = time.monotonic() + most
    while (seen := api.get(f"/jobs/{job}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, seen
        time.sleep(0.05)
    return dict(seen)


def begun(api: httpx.Client, job: str, field: str = "step") -> dict[str, Any]:
    """The job once a field of it is more than nothing."""
    until = time.monotonic() + 60
    while not (seen := api.get(f"/jobs/{job}").json())[field]:
        assert time.monotonic() < until and seen["state"] in ("queued", "running"), seen
        time.sleep(0.02)
    return dict(seen)


def heard(stream: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Server-sent events: number, kind, data."""
    found = re.findall(r"id: (\d+)\nevent: (\S+)\ndata: (.*)\n", stream)
    return [(int(number), kind, json.loads(data)) for number, kind, data in found]


def test_the_program_on_the_page_runs(running: Service, tmp_path: Path) -> None:
    said = ran("how-to/serve.md", tmp_path, CINECANVAS_URL=running.url)
    assert "step 1 of" in said and "succeeded" in said
    assert info(tmp_path / "ball.mp4").frames == 16


def test_a_plan_says_what_an_order_comes_to_and_which_change_would_mend_it(api: httpx.Client) -> None:
    before = api.get("/jobs").json()["jobs"]
    told = api.post("/plan", json={"task": "text_to_video", "prompt": f"{WORDS} with a cat", "seconds": 10}).json()
    assert told["possible"] and told["foretold"]["frames"] == 80 and told["credits"] >= 1
    assert len(told["windows"]) > 1 and told["windows"][0]["calls"] == told["windows"][0]["steps"]
    assert {one["slot"]: one["value"] for one in told["understood"]}["shape"] == "ball" and "cat" in told["ignored"]
    order = {"task": "canvas", "prompt": WORDS, "seconds": 2, "loop": True, "order": "causal"}
    refused = api.post("/plan", json=order).json()
    assert not refused["possible"] and "A loop has no first moment" in refused["refusal"]
    assert [one["change"] for one in refused["remedies"]] == [{"order": None}, {"loop": None}]
    for one in refused["remedies"]:  # each was tried, and works
        changed = {name: value for name, value in order.items() if name not in one["change"]}
        assert api.post("/plan", json=changed).json()["possible"]
    assert api.get("/jobs").json()["jobs"] == before, "nothing is made"


def test_what_is_kept_stays_and_prompts_are_found_by_their_words(api: httpx.Client) -> None:
    job = asked(api, prompt="a purple cone on 100% snow", seconds=1, model="toy")["id"]
    assert api.patch(f"/jobs/{job}", json={"kept": True}).status_code in (200, 409)  # it may have ended already
    assert ended(api, job)["expires"] is not None
    kept = api.patch(f"/jobs/{job}", json={"kept": True}).json()
    assert kept["kept"] and kept["expires"] is None
    for words, hits in (("Cone 100% purp", 1), ("cone _urple", 0), ("100%%", 0)):
        assert len(api.get("/jobs", params={"text": words}).json()["jobs"]) == hits, words
    assert api.patch(f"/jobs/{job}", json={"kept": False}).json()["expires"] is not None


def test_an_operator_makes_sees_and_revokes_keys(api: httpx.Client, tmp_path: Path) -> None:
    with service(tmp_path / "operated", workers=0) as one:
        url = f"{one.url}/api/v1/keys"
        made = httpx.post(url, json={"name": "me", "scopes": ["admin"]})
        assert made.status_code == 201 and made.json()["key"]["scopes"] == ["admin"]
        assert httpx.get(url).status_code == 401, "once there is a key, nobody is let in without"
        heads = {"authorization": f"Bearer {made.json()['secret']}"}
        guest = httpx.post(url, headers=heads, json={"name": "guest", "quota": {"credits": 5}}).json()
        as_guest = {"authorization": f"Bearer {guest['secret']}"}
        assert httpx.get(url, headers=as_guest).status_code == 403
        assert httpx.get(f"{one.url}/api/v1/account", headers=as_guest).json()["credits_left"] == 5
        assert httpx.delete(f"{url}/{guest['key']['id']}", headers=heads).json()["revoked"] is not None
        assert [key["name"] for key in httpx.get(url, headers=heads).json()] == ["me", "guest"]
        assert guest["secret"] not in httpx.get(url, headers=heads).text
        assert httpx.get(f"{one.url}/api/v1/usage/keys", headers=heads).json() == []
        assert httpx.delete(f"{url}/nobody", headers=heads).status_code == 404


def test_events_go_on_where_a_listener_broke_off(api: httpx.Client) -> None:
    job = asked(api, seconds=1)["id"]
    whole = heard(api.get(f"/jobs/{job}/events").text)
    kinds = [kind for _, kind, _ in whole]
    assert kinds[0] == "queued" and kinds[-1] == "succeeded" and {"running", "planned", "phase", "step"} <= set(kinds)
    middle = whole[len(whole) // 2][0]
    rest = heard(api.get(f"/jobs/{job}/events", headers={"last-event-id": str(middle)}).text)
    assert rest == [event for event in whole if event[0] > middle]


def test_a_film_is_watched_and_glimpsed_while_it_is_made(api: httpx.Client, tmp_path: Path) -> None:
    job = asked(api, seconds=8, order="causal")["id"]
    begun(api, job, "watchable_seconds")
    with api.stream("GET", f"/jobs/{job}/live") as growing:
        assert growing.headers["content-type"] == "video/mp4"
        glimpse = api.get(f"/jobs/{job}/preview")
        while glimpse.status_code == 409 and api.get(f"/jobs/{job}").json()["state"] == "running":
            time.sleep(0.1)
            glimpse = api.get(f"/jobs/{job}/preview")
        (tmp_path / "live.mp4").write_bytes(growing.read())
    assert Image.open(io.BytesIO(glimpse.content)).size == (64, 64)
    assert sum(1 for _ in read(tmp_path / "live.mp4")) == 8 * 8
    assert ended(api, job)["state"] == "succeeded"


def test_a_running_job_is_cancelled_and_the_next_begins(api: httpx.Client) -> None:
    long, short = asked(api, seconds=60)["id"], asked(api, seconds=1)["id"]
    begun(api, long)
    api.post(f"/jobs/{long}/cancel")
    assert ended(api, long)["state"] == "cancelled" and ended(api, short)["state"] == "succeeded"
    assert api.get(f"/jobs/{long}").json()["films"] == []


def test_jobs_that_wait_are_paused_and_moved(api: httpx.Client) -> None:
    busy = asked(api, seconds=60)["id"]
    begun(api, busy)
    first, second = asked(api, "text_to_image", model="toy"), asked(api, "text_to_image", model="toy")
    assert api.patch(f"/jobs/{first['id']}", json={"paused": True}).json()["paused"]
    assert api.patch(f"/jobs/{second['id']}", json={"before": first["id"]}).status_code == 200
    assert api.patch(f"/jobs/{busy}", json={"paused": True}).status_code == 409
    api.post(f"/jobs/{busy}/cancel")
    assert ended(api, second["id"])["state"] == "succeeded"
    assert api.get(f"/jobs/{first['id']}").json()["state"] == "queued"
    api.patch(f"/jobs/{first['id']}", json={"paused": False})
    assert ended(api, first["id"])["state"] == "succeeded"


def test_one_intention_is_one_job(api: httpx.Client) -> None:
    order = {"task": "text_to_image", "prompt": WORDS, "model": "toy"}
    twice = [api.post("/jobs", json=order, headers={"idempotency-key": "k1"}).json()["id"] for _ in range(2)]
    assert twice[0] == twice[1] != api.post("/jobs", json=order).json()["id"]


def test_a_job_takes_the_steps_that_were_asked(api: httpx.Client) -> None:
    made = ended(api, asked(api, "text_to_image", model="toy", steps=3, guidance=2.0, guided=[0.1, 0.9])["id"])
    assert (made["state"], made["step"], made["steps"]) == ("succeeded", 3, 3)
    refused = api.post("/jobs", json={"task": "text_to_image", "prompt": WORDS, "guided": [0.9, 0.1]})
    assert refused.status_code in (400, 422) and "0.9 to 0.1" in refused.json()["error"]["message"]


def test_a_deadline_that_is_over_ends_a_job(api: httpx.Client) -> None:
    late = ended(api, asked(api, seconds=60, params={"deadline": 1.5})["id"])
    assert (late["state"], late["error"]["code"]) == ("failed", "deadline")


def test_what_was_made_and_what_was_brought_are_sources(api: httpx.Client, tmp_path: Path) -> None:
    made = ended(api, asked(api, seconds=1, width=128, height=128)["id"])
    film = httpx.get(made["films"][0]["url"])
    brought = api.post("/files", files={"file": ("mine.mp4", film.content, "video/mp4")}).json()
    assert (brought["state"], brought["seconds"], brought["width"]) == ("ready", 1.0, 128)
    for clip in ({"job": made["id"]}, {"file": brought["id"]}, {"asset": made["films"][0]["digest"]}):
        longer = ended(api, asked(api, "extend", clip=clip, seconds=1, width=128, height=128)["id"])
        assert longer["films"][0]["seconds"] == 2.0, longer
    laid = [{"media": {"job": made["id"]}, "start": 0.5}]
    canvas = ended(api, asked(api, "canvas", clips=laid, seconds=2)["id"])
    assert canvas["state"] == "succeeded" and api.delete(f"/files/{brought['id']}").status_code == 204
    assert api.get(f"/files/{brought['id']}").status_code == 404


def test_the_same_seed_is_the_same_film_to_the_byte(api: httpx.Client) -> None:
    one, two = (ended(api, asked(api, seconds=1, seed=7)["id"])["films"][0] for _ in range(2))
    assert one["digest"] == two["digest"] and one["seed"] == 7


def test_a_url_that_is_not_ours_or_is_changed_opens_nothing(api: httpx.Client) -> None:
    made = ended(api, asked(api, "text_to_image", model="toy")["id"])["films"][0]
    assert httpx.get(made["url"]).headers["content-type"] == "image/png"
    assert httpx.get(made["thumbnail_url"]).headers["content-type"] == "image/webp"
    assert httpx.get(made["url"].replace("until=", "until=1")).status_code == 403
    assert httpx.get(made["url"].replace("/0/video", "/1/video")).status_code == 403


def test_what_cannot_be_is_refused_before_it_is_a_job(api: httpx.Client) -> None:
    before = len(api.get("/jobs", params={"limit": 100}).json()["jobs"])
    for order, status, field in (
        ({"task": "text_to_video", "prompt": ""}, 422, "prompt"),
        ({"task": "text_to_video", "prompt": WORDS, "seconds": 1e9}, 422, "seconds"),
        ({"task": "text_to_video", "prompt": WORDS, "seconds": 3000, "loop": True}, 422, "loop"),
        ({"task": "loop", "prompt": WORDS, "seconds": 3000}, 400, None),
        ({"task": "upscale", "prompt": WORDS, "clip": {"job": "nothing"}}, 404, None),
        ({"task": "animate", "prompt": WORDS}, 422, "picture"),
    ):
        answer = api.post("/jobs", json=order)
        assert answer.status_code == status and answer.json()["error"]["message"], (order, answer.text)
        assert answer.json()["error"]["field"] == field, answer.text
    assert len(api.get("/jobs", params={"limit": 100}).json()["jobs"]) == before


def test_a_page_of_jobs_goes_on_after_the_one_before(api: httpx.Client) -> None:
    for _ in range(3):
        asked(api, "text_to_image", model="toy")
    first = api.get("/jobs", params={"limit": 2}).json()
    second = api.get("/jobs", params={"limit": 2, "after": first["jobs"][-1]["id"]}).json()
    ids = [job["id"] for page in (first, second) for job in page["jobs"]]
    assert first["more"] and len(set(ids)) == 4


def test_usage_and_metrics_count_what_was_made(running: Service, api: httpx.Client) -> None:
    ended(api, asked(api, seconds=1)["id"])
    assert sum(row["video_seconds"] for row in api.get("/usage").json()) >= 1
    text = httpx.get(f"{running.url}/metrics").text
    assert re.search(r'cinecanvas_jobs\{state="succeeded"\} [1-9]', text) and "cinecanvas_workers 1.0" in text


def test_a_server_over_postgresql_makes_a_film(postgresql: Any, tmp_path: Path) -> None:
    with (
        service(tmp_path, database=postgresql.url(postgresql.database())) as one,
        httpx.Client(base_url=f"{one.url}/api/v1", timeout=60.0) as api,
    ):
        job = asked(api, seconds=1)["id"]
        assert ended(api, job)["state"] == "succeeded"
        assert [kind for _, kind, _ in heard(api.get(f"/jobs/{job}/events").text)][-1] == "succeeded"
