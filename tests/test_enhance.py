"""Enhanced prompts: what was asked stays beside what is shown, nobody is asked twice, and trouble costs no film."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from crew import Crew
from tiny import wan

from cinecanvas.enhance import MOST_CAPTION, captions, check_enhancer, with_captions
from cinecanvas.errors import BadRequest
from cinecanvas.generate import Done, Note, generate
from cinecanvas.jobs.order import order
from cinecanvas.models import card, shelf
from cinecanvas.plan import plan
from cinecanvas.request import Cue, Enhanced, Request, text_to_video
from cinecanvas.settings import Settings, settings

pytest.importorskip("httpcore")
KEY = "sk-never-to-be-seen"
ASKED = {"model": "tiny-wan", "seconds": 0.3, "seed": 1, "steps": 1, "width": 32, "height": 32}
OPEN = "wan2.1-t2v-1.3b"  # its Card is enough where nothing is made


def caption(asked: dict[str, Any]) -> bytes:
    """A good answer to a question."""
    words = json.loads(asked["messages"][-1]["content"])["asked"]
    text = json.dumps({"caption": f"In bright light, {words}, seen from afar."})
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def said(content: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda asked: json.dumps({"choices": [{"message": {"content": content}}]}).encode()


@dataclass
class Speaker:
    """A language model in OpenAI's terms, as far as anybody asks it: what it heard, and how it answers."""

    url: str = ""
    heard: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], bytes] = caption
    status: int = 200
    wait: float = 0.0  # s

    @property
    def where(self) -> dict[str, str]:
        named = {"URL": f"{self.url}/v1", "MODEL": "small-talker", "KEY": KEY, "SECONDS": "2"}
        return {f"CINECANVAS_ENHANCE_{name}": value for name, value in named.items()}


@pytest.fixture
def speaker() -> Iterator[Speaker]:
    here = Speaker()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            here.heard.append(({k.lower(): v for k, v in self.headers.items()}, {**body, "path": self.path}))
            time.sleep(here.wait)
            answer = here.answer(body)
            self.send_response(here.status)
            self.send_header("content-length", str(len(answer)))
            if here.status == 302:
                self.send_header("location", f"{here.url}/elsewhere")
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Nobody listens."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield here
    server.shutdown()
    server.server_close()


def there(speaker: Speaker, home: Path) -> Settings:
    """A home with a model of open words, and the language model named."""
    where = settings({"CINECANVAS_HOME": str(home), **speaker.where})
    shelf.add("tiny-wan", wan.save(home / "wan", "t2v"), where)
    return where


def asked(request: Request, speaker: Speaker, home: Path) -> tuple[Enhanced, ...]:
    """What comes of the words of a request."""
    where = settings({"CINECANVAS_HOME": str(home), **speaker.where})
    return tuple(captions(request, card(OPEN), where))


def made(request: Request, where: Settings, out: Path) -> tuple[Done, list[str]]:
    """A film, and the notes on the way."""
    events = list(generate(request, out=out, where=where))
    assert isinstance(events[-1], Done)
    return events[-1], [event.text for event in events if isinstance(event, Note)]


def test_the_caption_is_shown_and_what_was_asked_stays_beside_it(speaker: Speaker, tmp_path: Path) -> None:
    request = text_to_video("a red fox", enhance=True, **ASKED)
    done, notes = made(request, there(speaker, tmp_path), tmp_path / "a.mp4")
    kept = done.plan.request
    (one,) = kept.enhanced
    assert (kept.prompt, one.prompt, one.by, one.trouble) == ("a red fox", "a red fox", "small-talker", "")
    assert one.caption == "In bright light, a red fox, seen from afar."
    assert [step.prompt for step in done.plan.passes] == [one.caption] and not any(
        "as they were asked" in note for note in notes
    )
    ((heads, body),) = speaker.heard
    assert heads["authorization"] == f"Bearer {KEY}" and body["path"] == "/v1/chat/completions"
    assert body["model"] == "small-talker" and body["temperature"] == 0
    assert body["response_format"]["json_schema"]["strict"] is True


def test_nobody_is_asked_again_for_a_film_that_is_made_again(speaker: Speaker, tmp_path: Path) -> None:
    where = there(speaker, tmp_path)
    first, _ = made(text_to_video("a red fox", enhance=True, **ASKED), where, tmp_path / "a.mp4")
    as_kept = Request.model_validate_json(first.plan.request.model_dump_json())
    made(as_kept, settings({"CINECANVAS_HOME": str(tmp_path)}), tmp_path / "b.mp4")  # no model is named now
    assert len(speaker.heard) == 1 and (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_each_sentence_is_enhanced_once(speaker: Speaker, tmp_path: Path) -> None:
    cues = tuple(Cue(at=at, prompt=words) for at, words in ((1, "a blue fox"), (2, "a red fox"), (3, "a blue fox")))
    request = text_to_video("a red fox", enhance=True, cues=cues, seconds=4)
    found = asked(request, speaker, tmp_path)
    assert [json.loads(body["messages"][-1]["content"])["asked"] for _, body in speaker.heard] == [
        "a red fox",
        "a blue fox",
    ]
    told = with_captions(request, list(found))
    assert told.prompt_at(1.5) == found[1].caption and told.prompt_at(2.5) == told.prompt_at(0) == found[0].caption
    assert told.unenhanced == ()


TROUBLE: list[tuple[dict[str, Any], str]] = [
    ({"status": 500}, "500"),
    ({"status": 401}, "401"),
    ({"status": 302}, "302"),
    ({"wait": 3.0}, "too slow"),
    ({"answer": lambda asked: b"<html>"}, "form"),
    ({"answer": lambda asked: b"x" * (2 << 20)}, ""),
    ({"answer": said(None)}, "form"),
    ({"answer": said("a fine red fox")}, "form"),
    ({"answer": said('{"caption": "a fox", "more": 1}')}, "form"),
    ({"answer": said('{"caption": 3}')}, "form"),
    ({"answer": said(json.dumps({"caption": " \u200b"}))}, "cannot be read"),
    ({"answer": said(json.dumps({"caption": "a\x00fox"}))}, "cannot be read"),
    ({"answer": said(json.dumps({"caption": "x" * (MOST_CAPTION + 1)}))}, "form"),
]


@pytest.mark.parametrize(("how", "why"), TROUBLE)
def test_trouble_costs_no_film_and_is_told_without_key_or_address(
    how: dict[str, Any], why: str, speaker: Speaker, tmp_path: Path
) -> None:
    for name, value in how.items():
        setattr(speaker, name, value)
    (one,) = asked(text_to_video("a red fox", enhance=True), speaker, tmp_path)
    assert (one.caption, one.by) == ("", "") and one.trouble.startswith("The language model")
    assert why in one.trouble and KEY not in one.trouble and "127.0.0.1" not in one.trouble and "\n" not in one.trouble


def test_trouble_costs_no_film_and_is_noted(speaker: Speaker, tmp_path: Path) -> None:
    speaker.status = 500
    request = text_to_video("a red fox", enhance=True, **ASKED)
    done, notes = made(request, there(speaker, tmp_path), tmp_path / "a.mp4")
    assert [step.prompt for step in done.plan.passes] == ["a red fox"]
    assert [note for note in notes if note.startswith("the words are shown as they were asked: The language model")]


def test_a_model_that_is_away_is_asked_about_one_sentence_alone(speaker: Speaker, tmp_path: Path) -> None:
    speaker.status = 503
    request = text_to_video("a red fox", enhance=True, cues=(Cue(at=1, prompt="a blue fox"),), seconds=2)
    found = asked(request, speaker, tmp_path)
    assert len(speaker.heard) == 1 and [one.caption for one in found] == ["", ""]


def test_without_a_language_model_it_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    request, where = text_to_video("a", enhance=True), settings({"CINECANVAS_HOME": str(tmp_path)})
    with pytest.raises(BadRequest, match="CINECANVAS_ENHANCE_URL and CINECANVAS_ENHANCE_MODEL"):
        check_enhancer(request, card(OPEN), where)
    for url in ("file:///etc/passwd", "http://user:word@host/v1", "http://", "not a url"):
        named = where.model_copy(update={"enhance_url": url, "enhance_model": "m"})
        with pytest.raises(BadRequest, match="no URL that could be asked"):
            check_enhancer(request, card(OPEN), named)


def test_a_plan_asks_nobody_and_a_small_world_needs_no_caption(speaker: Speaker, tmp_path: Path) -> None:
    told = plan(text_to_video("a red fox", enhance=True, seconds=1), card(OPEN))
    assert any("will be enhanced" in note for note in told.notes)
    where = settings({"CINECANVAS_HOME": str(tmp_path), **speaker.where})
    small = text_to_video("a red ball", enhance=True, model="toy", seconds=0.5, quality="draft")
    done, _ = made(small, where, tmp_path / "a.mp4")
    assert any("enhance has no effect" in note for note in done.plan.notes) and speaker.heard == []


def test_a_caption_and_the_same_words_asked_make_the_same_latents() -> None:
    plain, shown = text_to_video("a red fox", seed=1), "a red fox in the snow"
    found = Enhanced(prompt="a red fox", caption=shown, by="someone")
    written = plan(plain.model_copy(update={"enhance": True, "enhanced": (found,)}), card(OPEN))
    spoken = plan(plain.model_copy(update={"prompt": shown}), card(OPEN))
    assert written.passes[0].key == spoken.passes[0].key != plan(plain, card(OPEN)).passes[0].key


def test_a_worker_that_was_killed_after_the_answer_asks_nobody_again(
    speaker: Speaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there(speaker, tmp_path / "home")
    for name, value in speaker.where.items():
        monkeypatch.setenv(name, value)
    with Crew(tmp_path / "home", f"sqlite:///{tmp_path / 'jobs.sqlite'}") as crew:
        crew.queue.database.migrate()
        wish = order("text_to_video", prompt="a red fox", enhance=True, **{**ASKED, "steps": 80})
        job = crew.queue.submit(wish, account="", dialect="native", model="tiny-wan").id
        first = crew.worker()
        crew.at_step(job, 2)
        shown = crew.queue.get(job).asked
        assert shown["prompt"] == "a red fox" and shown["enhanced"][0]["caption"].startswith("In bright light")
        first.kill()
        speaker.status = 500  # what it would say now is another thing
        crew.worker()
        assert crew.ended(job).state == "succeeded" and len(speaker.heard) == 1
        kinds = [event.kind for event in crew.queue.events(job, limit=9999)]
        assert kinds.count("enhanced") == 1
        assert KEY not in json.dumps(crew.queue.get(job).model_dump(mode="json")) + crew.log()
