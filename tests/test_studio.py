"""The studio as people meet it: a real browser, a real server, real workers; each fact is what somebody does."""

from __future__ import annotations

import re
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from crew import Crew
from machine import Machine
from service import Service, service

from cinecanvas.jobs.keys import Keys
from cinecanvas.media.video import read

sync_api = pytest.importorskip("playwright.sync_api")
Browser, Page, expect = sync_api.Browser, sync_api.Page, sync_api.expect

WORDS = "a red ball bounces on grass at sunset"
PATIENCE = 90_000.0  # ms, on a busy machine
LONG = {
    "count": 50,
    "task": "text_to_video",
    "prompt": "a film that takes long",
    "model": "toy",
    "seconds": 30,
    "quality": "best",
}
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--no-first-run"]
_CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_SIZES = {"phone": (360, 740), "laptop": (1366, 768), "4K": (3840, 2160)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        try:
            found = play.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium can be started here: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("studio"), workers=1) as one:
        yield one


@pytest.fixture
def page(browser: Any, running: Service) -> Iterator[Any]:
    with_page = opened(browser, running.url)
    yield with_page
    assert with_page.wrong == [], with_page.wrong
    with_page.context.close()
    for job in httpx.get(f"{running.url}/api/v1/jobs").json()["jobs"]:
        if job["state"] in ("queued", "running"):
            httpx.post(f"{running.url}/api/v1/jobs/{job['id']}/cancel")


def opened(browser: Any, url: str, *, size: tuple[int, int] = (1280, 900)) -> Any:
    """A tab of a browser of its own; what its console complains of is kept, but for answers that tests ask for."""
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.wrong = []
    expected = ("Failed to load resource", "net::ERR")
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.on(
        "console",
        lambda said: (
            said.type == "error" and not any(x in said.text for x in expected) and page.wrong.append(said.text)
        ),
    )
    page.goto(url)
    page.get_by_label("Prompt", exact=True).wait_for()
    return page


def asked(running: Service, **order: Any) -> str:
    answer = httpx.post(f"{running.url}/api/v1/jobs", json=order)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def write(page: Any, words: str = WORDS) -> None:
    page.get_by_label("Prompt", exact=True).fill(words)
    page.locator(".facts").wait_for()


def make(page: Any, words: str = WORDS) -> None:
    """A film, from the words to the picture of it."""
    write(page, words)
    before = page.locator(".films .card img").count()
    page.locator("button.main").click()
    expect(page.locator(".films .card img")).to_have_count(min(6, before + 1), timeout=PATIENCE)


def look(page: Any, words: str = WORDS) -> None:
    """At the newest film of those words."""
    page.get_by_role("link", name="Gallery").click()
    page.locator(".films .card", has_text=words).first.click()
    page.locator(".screen video").wait_for()


def newest(running: Service, task: str) -> dict[str, Any]:
    """The newest job, once it is of that task and has ended well."""
    until = time.monotonic() + PATIENCE / 1000
    while True:
        job: dict[str, Any] = httpx.get(f"{running.url}/api/v1/jobs", params={"limit": 1}).json()["jobs"][0]
        if job["order"]["task"] == task and job["state"] == "succeeded":
            return job
        assert time.monotonic() < until, job
        time.sleep(0.1)


def picture(folder: Path) -> Path:
    """A PNG of 64 x 64 red pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\xd0\x30\x20" * 64) * 64
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    file = folder / "red.png"
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return file


def test_a_newcomer_makes_a_clip_extends_it_closes_its_loop_and_finds_it_again(page: Any, running: Service) -> None:
    make(page)
    look(page)
    assert page.locator(".screen video").evaluate("v => new Promise(r => v.readyState > 1 ? r(1) : v.oncanplay = r)")
    page.get_by_role("button", name="Extend", exact=True).click()
    expect(page.locator(".piece")).to_have_count(1)
    expect(page.locator(".hole")).to_have_count(1)
    page.locator(".facts", has_text="4.1 s").wait_for()
    page.locator("button.main").click()
    expect(page.locator(".films .card img")).to_have_count(2, timeout=PATIENCE)
    look(page)
    page.get_by_text("Made from").wait_for()
    page.get_by_role("link", name="Gallery").click()
    page.locator(".films .card").nth(1).click()  # the first clip
    page.get_by_role("button", name="Close its loop").click()
    page.locator(".note", has_text="the frame after the last is the first").wait_for()
    page.locator("button.main").click()
    expect(page.locator(".films .card img")).to_have_count(3, timeout=PATIENCE)
    page.get_by_role("link", name="Gallery").click()
    page.get_by_role("searchbox").fill("sunset BALL")
    expect(page.locator(".films .card")).to_have_count(3)
    page.get_by_role("searchbox").fill("a green cone")
    expect(page.locator(".films .card")).to_have_count(0)
    loop = httpx.get(f"{running.url}/api/v1/jobs").json()["jobs"][0]["order"]
    assert loop["task"] == "canvas" and loop["loop"] is True and "asset" in loop["clips"][0]["media"]


def test_words_that_the_model_does_not_know_are_shown_while_one_writes(page: Any) -> None:
    write(page, "a purple cat on snow")
    expect(page.locator(".chip", has_text="purple")).to_be_visible()
    expect(page.locator(".chip s")).to_have_text(re.compile("cat"))


def test_what_cannot_be_is_refused_with_a_button_that_mends_it(page: Any) -> None:
    write(page)
    page.get_by_label("Seconds", exact=True).fill("900")
    page.get_by_text("It makes at most 600 s").wait_for()
    expect(page.locator("button.main")).to_be_disabled()
    page.get_by_role("button", name="make it 600 s long").click()
    page.locator(".facts", has_text="600 s").wait_for()
    expect(page.locator("button.main")).to_be_enabled()


def frames(running: Service, url: str, file: Path) -> np.ndarray:
    """The pictures of a film, as its link gives them to anybody."""
    file.write_bytes(httpx.get(url).content)
    return np.stack(list(read(file)))


def test_a_part_is_retaken_and_the_rest_is_known(page: Any, running: Service, tmp_path: Path) -> None:
    make(page)
    look(page)
    page.get_by_role("button", name="Retake a part").click()
    expect(page.locator(".piece")).to_have_count(2)
    expect(page.locator(".hole")).to_have_count(1)
    page.locator("button.main").click()
    retaken = newest(running, "canvas")
    clips = retaken["order"]["clips"]
    assert [(clip.get("keep", 1), bool(clip.get("trim"))) for clip in clips] == [(0, False), (1, True), (1, True)]
    whole = httpx.get(f"{running.url}/api/v1/jobs").json()["jobs"][1]
    first, again = (frames(running, job["films"][0]["url"], tmp_path / f"{job['id']}.mp4") for job in (whole, retaken))
    assert np.abs(first[:4].astype(int) - again[:4]).mean() < 4, "but for what the codec does"
    assert np.abs(first[-3:].astype(int) - again[-3:]).mean() < 4


def test_what_is_painted_over_becomes_a_mask_and_a_box_reframes(page: Any, running: Service) -> None:
    make(page)
    look(page)
    page.get_by_role("button", name="Paint a part anew").click()
    page.locator(".piece").focus()
    page.get_by_role("button", name="Paint", exact=True).click()
    sheet = page.locator(".frame canvas")
    sheet.scroll_into_view_if_needed()
    place = sheet.bounding_box()
    assert place is not None
    middle = place["x"] + place["width"] / 2, place["y"] + place["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1] + 20, steps=5)
    page.mouse.up()
    page.get_by_text("The mask is kept.").wait_for()
    page.locator("button.main").click()
    painted = newest(running, "canvas")
    assert "asset" in painted["order"]["clips"][0]["mask"]
    look(page)
    page.get_by_role("button", name="Reframe").click()
    page.locator(".piece").focus()
    handle = page.locator(".corner-handle")
    handle.focus()
    handle.press("ArrowRight")
    page.get_by_label("Shape").select_option("4:3")
    page.get_by_role("button", name="Fit inside").click()
    page.locator("button.main").click()
    until = time.monotonic() + PATIENCE / 1000
    while (framed := newest(running, "canvas"))["id"] == painted["id"]:
        assert time.monotonic() < until
    assert framed["order"]["clips"][0]["box"] == [0.125, 0, 0.75, 1]
    assert framed["films"][0]["width"] / framed["films"][0]["height"] == pytest.approx(4 / 3, abs=0.02)


def test_a_picture_that_is_dropped_lies_on_the_timeline_and_moves_by_arrow_keys(page: Any, tmp_path: Path) -> None:
    write(page)
    page.locator("input[type=file]").set_input_files(picture(tmp_path))
    piece = page.locator(".piece")
    piece.wait_for()
    piece.focus()
    for _ in range(10):
        piece.press("ArrowRight")
    expect(piece).to_have_attribute("aria-label", re.compile("from 1 to 1 seconds"))
    expect(page.locator(".hole")).to_have_count(2)
    piece.press("Delete")
    expect(page.locator(".piece")).to_have_count(0)


def test_bytes_that_are_no_picture_are_refused_and_the_draft_stays(page: Any, tmp_path: Path) -> None:
    write(page)
    broken = tmp_path / "<img src=x onerror=alert(1)>.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n not at all")
    page.locator("input[type=file]").set_input_files(broken)
    page.locator(".said p.bad").wait_for()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value(WORDS)
    expect(page.locator(".said img, .piece")).to_have_count(0)


def test_a_film_shows_its_steps_and_a_glimpse_and_ends_when_it_is_cancelled(page: Any, running: Service) -> None:
    asked(running, **LONG)
    page.locator(".queue li", has_text="step ").wait_for()
    page.locator("img.glimpse").wait_for()
    assert page.locator("img.glimpse").evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
    page.reload()  # what runs is there again
    page.locator(".queue li", has_text="step ").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("Nothing is being made.").wait_for()


def test_what_waits_is_paused_and_moved_to_the_front(page: Any, running: Service) -> None:
    asked(running, **LONG)
    page.locator(".queue li", has_text="Being made").wait_for()
    first, second = (asked(running, **LONG | {"prompt": words}) for words in ("the first", "the second"))
    waiting = page.locator(".queue li", has_text="the second")
    waiting.get_by_role("button", name="Make it next").click()
    expect(page.locator(".queue li").nth(1)).to_contain_text("the second")
    waiting.get_by_role("button", name="Pause").click()
    page.locator(".queue li", has_text="Paused").wait_for()
    found = {job: httpx.get(f"{running.url}/api/v1/jobs/{job}").json() for job in (first, second)}
    assert found[second]["paused"] and not found[first]["paused"]


def test_two_tabs_show_the_same_jobs(browser: Any, page: Any, running: Service) -> None:
    other = opened(browser, running.url)
    make(page, "a blue cube rests on sand")
    other.locator(".films .card", has_text="blue cube").first.wait_for()
    other.context.close()


def test_script_in_a_prompt_and_a_prompt_without_end_do_nothing(page: Any, running: Service) -> None:
    evil = "<script>window.hit=1</script><img src=x onerror='window.hit=1'> red ball"
    make(page, evil)
    page.get_by_role("link", name="Gallery").click()
    page.locator(".films .card", has_text="window.hit").first.click()
    page.locator("h1", has_text="<script>").wait_for()
    assert page.evaluate("window.hit") is None
    page.get_by_role("link", name="Create").click()
    page.get_by_label("Prompt", exact=True).fill("x" * 100_000)
    page.locator(".plan .bad").wait_for()
    expect(page.locator("button.main")).to_be_disabled()


def test_a_draft_survives_a_reload(page: Any) -> None:
    write(page, "a yellow cone on snow")
    page.get_by_label("Close the loop").check()
    page.reload()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a yellow cone on snow")
    expect(page.get_by_label("Close the loop")).to_be_checked()


def test_nothing_is_asked_of_anybody_else_and_the_page_is_small_and_soon_there(browser: Any, running: Service) -> None:
    context = browser.new_context()
    page = context.new_page()
    sizes: dict[str, int] = {}
    page.on("response", lambda got: sizes.update({got.url: int(got.headers.get("content-length", 0))}))
    page.goto(running.url)
    page.get_by_label("Prompt", exact=True).wait_for()
    assert {url.split("/")[2] for url in sizes if not url.startswith(("data:", "blob:"))} == {running.url.split("/")[2]}
    own = {url: size for url, size in sizes.items() if "/api/" not in url and "/media/" not in url}
    assert 0 < sum(own.values()) < 300_000, own
    paints = "performance.getEntriesByName('first-contentful-paint').map(e => e.startTime)"
    page.wait_for_function(f"{paints}.length")
    print(f"first contentful paint {page.evaluate(paints)[0]:.0f} ms, {sum(own.values()) / 1000:.0f} kB")
    context.close()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_axe_finds_no_serious_fault(browser: Any, running: Service, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    asked(running, task="text_to_video", prompt=WORDS, seconds=1)
    page = opened(browser, running.url)
    page.emulate_media(color_scheme=scheme)
    write(page)
    page.locator(".films .card img").first.wait_for()
    faults = []
    for place in ("create", "gallery", "models", "account", "film"):
        if place == "film":
            page.goto(f"{running.url}/#/gallery")
            page.locator(".films .card").first.click()
            page.locator(".about h1").wait_for()
            page.get_by_text("Do the same by program").click()
        else:
            page.goto(f"{running.url}/#/{place}")
            page.locator("main h1").wait_for()
        found = axe.run(page).response["violations"]
        faults += [(place, one["id"], one["nodes"][0]["html"][:200]) for one in found if one["impact"] in _SERIOUS]
    page.context.close()
    assert faults == []


_SERIOUS = ("serious", "critical")


@pytest.mark.parametrize("size", _SIZES)
def test_no_page_is_wider_than_its_screen(browser: Any, running: Service, size: str) -> None:
    page = opened(browser, running.url, size=_SIZES[size])
    write(page)
    for place in ("create", "gallery", "models", "account"):
        page.goto(f"{running.url}/#/{place}")
        page.locator("main h1").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (size, place)
    page.context.close()


def test_a_film_goes_on_where_it_was_after_the_machine_was_killed(browser: Any, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    with Crew(tmp_path / "home", url, lease=3.0) as crew, Machine(crew, workers=1) as machine:
        machine.serving()
        page = opened(browser, machine.url)
        write(page, "a film that outlives the server")
        page.get_by_role("combobox", name="Model").select_option("toy")
        page.get_by_text("best", exact=True).click()
        page.get_by_label("Seconds", exact=True).fill("30")
        page.locator("button.main").click()
        page.locator(".queue li", has_text="step ").wait_for()
        machine.kill(*machine.everything())
        page.get_by_text("The server does not answer").wait_for()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("a film that outlives the server")
        machine.serving()
        page.get_by_text("The server does not answer").wait_for(state="hidden")
        page.locator(".films .card", has_text="outlives").first.wait_for()
        page.context.close()


def test_a_key_is_asked_for_and_one_that_is_revoked_keeps_the_draft(browser: Any, tmp_path: Path) -> None:
    with service(tmp_path / "keyed", workers=0) as one:
        keys = Keys(one.desk.queue.database)
        keys.make("somebody else")  # without any key, this machine's own user would be let in
        secret = keys.make("someone")
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(one.url)
        page.get_by_label("Key").fill("nonsense")
        page.get_by_role("button", name="Enter").click()
        page.get_by_text("not known here").wait_for()
        page.get_by_label("Key").fill(secret)
        page.get_by_role("button", name="Enter").click()
        write(page, "a draft that is kept")
        keys.revoke("someone")
        page.get_by_role("heading", name="not known here").wait_for()
        assert "a draft that is kept" in page.evaluate("localStorage.getItem('cinecanvas.draft')")
        context.close()


def test_an_operator_makes_the_first_key_and_stays_inside(browser: Any, tmp_path: Path) -> None:
    with service(tmp_path / "operated", workers=0) as one:
        page = opened(browser, one.url)
        page.get_by_role("link", name="Account").click()
        page.get_by_text("The first key needs the scope admin").wait_for()
        page.get_by_label("Whose").fill("me")
        expect(page.get_by_role("button", name="Make a key")).to_be_disabled()
        page.get_by_label("admin").check()
        page.get_by_role("button", name="Make a key").click()
        page.locator("td", has_text="me").first.wait_for()
        page.get_by_label("Whose").fill("guest")
        page.get_by_label("admin").uncheck()
        page.get_by_role("button", name="Make a key").click()
        page.get_by_text("This is told once").wait_for()
        guest = page.locator("tr", has_text="guest")
        guest.get_by_role("button", name="Revoke").click()
        guest.get_by_role("button", name="Really revoke?").click()
        guest.get_by_text("revoked").wait_for()
        assert httpx.get(f"{one.url}/api/v1/jobs").status_code == 401
        page.context.close()
