"""What strangers try on a server: every route of every dialect without a key, with another's, with hostile words."""

from __future__ import annotations

import io
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx
import pytest
from fastapi.routing import APIRoute
from PIL import Image

from cinecanvas.jobs.database import Database
from cinecanvas.jobs.files import Files
from cinecanvas.jobs.keys import Keys
from cinecanvas.jobs.queue import Queue
from cinecanvas.jobs.signing import signing_secret
from cinecanvas.media.assets import Store
from cinecanvas.media.warden import Warden
from cinecanvas.server.app import DIALECTS
from cinecanvas.server.deliver import STREAMS
from cinecanvas.server.desk import Desk, served_models
from cinecanvas.server.pace import Pace
from cinecanvas.server.serve import Options, guard
from cinecanvas.settings import settings

WORDS = "a red ball"
TELLING = re.compile(rb"\b0x[0-9a-f]{6,}|/tmp/|/home/|/root/|site-packages|Traceback|[A-Z]\w+(Error|Exception)\b")
URLS = (
    *(
        "http://127.0.0.1:{port}/a.png",
        "http://localhost:{port}/a.png",
        "http://2130706433:{port}/",
        "http://0177.0.0.1/",
    ),
    *("http://0x7f.1:{port}/", "http://127.1:{port}/", "http://[::1]:{port}/", "http://[::ffff:127.0.0.1]:{port}/"),
    *("http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://１２７.０.０.１:{port}/", "http://0/"),
    *("http://169.254.169.254/latest/meta-data/", "http://100.64.0.1/", "http://224.0.0.1/", "http://10.0.0.1/"),
    *(
        "http://example.org\\@127.0.0.1:{port}/",
        "http://user:secret@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}#@a.org/",
    ),
    *("file:///etc/passwd", "gopher://127.0.0.1:{port}/", "ftp://127.0.0.1/", "//127.0.0.1:{port}/", "http:///a.png"),
    *(
        "data:text/html;base64,PHNjcmlwdD4=",
        "data:image/png,plain",
        "http://a b/",
        "runway://../../etc",
        "javascript:1",
    ),
)


class Place(NamedTuple):
    """A guarded application, its keys, and what a canary on loopback has heard."""

    app: Any
    desk: Desk
    keys: dict[str, str]
    port: int
    heard: list[Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = Path(tmp_path_factory.mktemp("hostile"))
    where = settings({"CINECANVAS_HOME": str(home)})
    database, store = Database.at(where.database), Store.at(where.store)
    database.migrate()
    keys = Keys(database)
    made = {name: keys.make(name) for name in ("alice", "bob")} | {"reader": keys.make("reader", scopes=("read",))}
    canary, heard = socket.create_server(("127.0.0.1", 0)), list[Any]()

    def listen() -> None:
        while True:
            try:
                heard.append(canary.accept()[1])
            except OSError:
                return

    threading.Thread(target=listen, daemon=True).start()
    with Warden(store) as warden:
        desk = Desk(Queue(database), store, Files(database), warden, where, signing_secret(database), served_models())
        app = guard(desk, keys, Options(database=where.database), guarded=True)
        app.stranger = Pace(rate=1e6, burst=10**6, together=1000)  # else it is the pace that refuses, and not the route
        app.pace = lambda caller: app.stranger
        yield Place(app, desk, made, canary.getsockname()[1], heard)
    canary.close()


def ask(place: Place, method: str, path: str, key: str | None = "alice", **what: Any) -> httpx.Response:
    """One request to the application; nothing that it says may tell of its inside."""
    headers = dict(what.pop("headers", {}))
    if key is not None:
        headers["authorization"] = f"Bearer {place.keys.get(key, key)}"

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app=place.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers=headers, **what)

    answer = anyio.run(go)
    assert not TELLING.search(answer.content), (method, path, answer.text[:300])
    assert answer.status_code != 429, "a test of a refusal is one of the route's, not of the pace"
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-request-id"]
    return answer


def routes(place: Place) -> list[tuple[str, str]]:
    """Every method and path of every dialect, where it is mounted."""
    found = [
        (method, prefix + route.path)
        for dialect in DIALECTS
        for prefix in dialect.prefixes
        for route in dialect.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    ]
    assert len(found) > 150
    return found


def picture(side: int = 16) -> bytes:
    """A black square as a PNG: small, whatever its size."""
    stream = io.BytesIO()
    Image.new("1", (side, side)).save(stream, "png")
    return stream.getvalue()


def filled(path: str, name: str = "x") -> str:
    return re.sub(r"\{[^}]+\}", name, path)


def is_open(path: str) -> bool:
    return any(path.startswith(prefix) for dialect in DIALECTS for prefix in dialect.open)


def test_every_route_of_every_dialect_needs_a_key(place: Place) -> None:
    for method, path in routes(place):
        if not is_open(path):
            for key in (None, "nobody's"):
                assert ask(place, method, filled(path), key).status_code == 401, (method, path, key)


def test_signed_uploads_need_their_signature(place: Place) -> None:
    for method, path in routes(place):
        if is_open(path):
            assert ask(place, method, filled(path), None, content=b"x").status_code in (403, 404, 405, 422), path


def test_a_file_that_calls_itself_json_is_not_held_to_be_read(place: Place) -> None:
    (prefix, *_) = (prefix for dialect in DIALECTS for prefix in dialect.open)
    answer = ask(place, "PUT", f"{prefix}/x", None, content=b"{not json", headers={"content-type": "application/json"})
    assert "json" not in answer.text.lower()


def test_who_may_only_read_creates_nothing(place: Place) -> None:
    for method, path in routes(place):
        if method in ("POST", "DELETE", "PATCH", "PUT") and not is_open(path):
            status = ask(place, method, filled(path), "reader").status_code
            assert status in (400, 403, 404, 405, 422) or path.endswith("/usage"), (method, path, status)
    assert place.desk.queue.listed() == []


def test_who_may_only_read_is_refused_what_another_is_given(place: Place) -> None:
    dot = {"file": ("a.png", picture())}
    bodies = [*asked_with("https://example.org/a.png"), ("/v1/videos", {"prompt": WORDS, "seconds": 1})]
    asked: list[tuple[str, dict[str, Any]]] = [(path.partition("?")[0], {"json": body}) for path, body in bodies]
    asked += [(path, {"files": dot, "data": {"purpose": "vision"}}) for path in ("/v1/files", "/api/v1/files")]
    for path, what in asked:
        assert ask(place, "POST", path, "reader", **what).status_code == 403, path
    assert place.desk.queue.listed() == [] and place.desk.store.holds().assets == 0


def test_what_is_said_of_all_is_for_whom_it_concerns(place: Place) -> None:
    for path, status in (("/metrics", 403), ("/api/v1/openapi.json", 200)):
        assert ask(place, "GET", path, None).status_code == 401
        assert ask(place, "GET", path).status_code == status
    for path in ("/healthz", "/readyz"):
        assert ask(place, "GET", path, None).status_code == 200


def test_nobody_is_sent_elsewhere_for_a_slash(place: Place) -> None:
    for path in ("/v1/videos/", "/api/v1/jobs/", "/luma-agents/generations/", "/runway/v1/tasks/x/"):
        assert ask(place, "GET", path).status_code == 404, path
    assert ask(place, "GET", "/api/v1").json() == ask(place, "GET", "/api/v1/").json()


def test_what_is_alices_is_nothing_that_bob_can_name(place: Place) -> None:
    file = ask(place, "POST", "/api/v1/files", files={"file": ("a.png", picture())}).json()["id"]
    asset = place.desk.files.get(file).asset
    assert asset is not None
    for source, status in (({"file": file}, 404), ({"asset": asset.digest}, 400)):
        order = {"task": "animate", "prompt": WORDS, "picture": source}
        assert ask(place, "POST", "/api/v1/jobs", "bob", json=order).status_code == status
        assert ask(place, "POST", "/api/v1/jobs", json=order).status_code == 201


def owned(place: Place) -> Iterator[str]:
    """Ids of what Alice has, as every dialect spells them."""
    for path, body in (
        ("/v1/videos", {"prompt": "a secret", "seconds": 1}),
        ("/api/v1/jobs", {"task": "text_to_video", "prompt": "a secret", "seconds": 1}),
        ("/luma/dream-machine/v1/generations/video", {"model": "ray-2", "prompt": "a secret"}),
        ("/luma-agents/generations", {"prompt": "a secret", "model": "ray-3.2", "type": "video"}),
        (
            "/runway/v1/text_to_video",
            {"model": "gen4.5", "promptText": "a secret", "ratio": "1280:720", "duration": 2},
        ),
        ("/v1/webhook_endpoints", {"name": "secret", "url": "https://8.8.8.8/", "event_types": ["video.failed"]}),
    ):
        yield ask(place, "POST", path, json=body).json()["id"]
    dot = {"file": ("secret.png", picture())}
    yield ask(place, "POST", "/v1/files", files=dot, data={"purpose": "vision"}).json()["id"]
    file = ask(place, "POST", "/api/v1/files", files=dot).json()["id"]
    yield from (f"{head}_{file.replace('-', '')}" for head in ("file", "char"))
    yield file


def test_what_is_alices_is_for_bob_like_what_never_was(place: Place) -> None:
    names = list(owned(place))
    before = place.desk.queue.listed(limit=1000)
    for name in names:
        head, _, digits = name.rpartition("_")
        never = f"{head}_" * bool(head) + re.sub(r"[0-9a-f]", lambda found: "1" if found[0] == "0" else "0", digits)
        for method, path in routes(place):
            if "{" in path and not is_open(path) and ":path}" not in path:
                what = {"json": {"prompt": WORDS}} if method in ("POST", "PATCH", "PUT") else {}
                hers, nobodys = (ask(place, method, filled(path, one), "bob", **what) for one in (name, never))
                assert hers.status_code == nobodys.status_code >= 400, (method, path, hers.text)
                assert hers.text.replace(name, never) == nobodys.text and "secret" not in hers.text, (method, path)
    assert place.desk.queue.listed(limit=1000) == before, "Bob moved, stopped, deleted or made something"
    theirs = next(name for name in names if name.startswith("file_"))
    for path in (f"/v1/files/{theirs}", f"/api/v1/files/{names[-1]}"):
        assert ask(place, "GET", path).status_code == 200


@pytest.mark.parametrize("headers", [{"origin": "null"}, {"origin": "http://evil.example"}, {"host": "evil.example"}])
def test_other_sites_and_other_names_reach_no_method(place: Place, headers: dict[str, str]) -> None:
    for method in ("GET", "POST", "DELETE", "PATCH", "PUT", "OPTIONS"):
        for path in ("/v1/videos/video_x", "/api/v1/jobs/x", "/runway/v1/tasks/x", "/healthz"):
            assert ask(place, method, path, headers=headers).status_code in (403, 421), (method, path)


def asked_with(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field of every dialect that takes a URL."""
    frame = {"type": "image", "url": url}
    yield "/v1/videos", {"prompt": WORDS, "input_reference": {"image_url": url}}
    yield "/v1/webhook_endpoints", {"name": "n", "url": url, "event_types": ["video.failed"]}
    luma = "/luma/dream-machine/v1/generations"
    yield f"{luma}/video", {"model": "ray-2", "prompt": WORDS, "keyframes": {"frame0": frame}}
    yield f"{luma}/video", {"model": "ray-2", "prompt": WORDS, "keyframes": {"frame1": frame}}
    yield f"{luma}/video", {"model": "ray-2", "prompt": WORDS, "callback_url": url}
    yield (
        f"{luma}/video/modify",
        {"generation_type": "modify_video", "model": "ray-2", "mode": "flex_1", "media": {"url": url}},
    )
    yield (
        f"{luma}/video/reframe",
        {"generation_type": "reframe_video", "model": "ray-2", "aspect_ratio": "1:1", "media": {"url": url}},
    )
    yield f"{luma}/image", {"model": "photon-1", "prompt": WORDS, "modify_image_ref": {"url": url}}
    yield (
        "/luma-agents/generations",
        {"prompt": WORDS, "model": "ray-3.2", "type": "video", "video": {"start_frame": {"url": url}}},
    )
    runway = {"model": "gen4.5", "promptText": WORDS, "ratio": "1280:720", "duration": 2}
    yield "/runway/v1/image_to_video", {**runway, "promptImage": url}
    yield "/runway/v1/video_to_video", {"model": "aleph2", "promptText": WORDS, "videoUri": url}
    yield "/api/v1/jobs", {"task": "animate", "prompt": WORDS, "picture": {"url": url}}
    yield "/api/v1/jobs?callback=CALL", {"task": "text_to_video", "prompt": WORDS}


@pytest.mark.parametrize("url", URLS)
def test_a_url_that_leads_inside_is_refused_in_every_field(place: Place, url: str) -> None:
    named = "localhost" in url  # a name is looked up by whoever fetches, and refused there
    url = url.format(port=place.port)
    for path, body in asked_with(url):
        params = {"callback": url} if path.endswith("CALL") else None
        answer = ask(place, "POST", path.partition("?")[0], json=body, params=params)
        if named and answer.status_code < 300:
            continue
        assert 400 <= answer.status_code < 500, (path, url, answer.status_code, answer.text)
        assert "secret" not in answer.text
    assert not place.heard


def test_a_name_that_leads_inside_is_refused_by_whoever_fetches(place: Place) -> None:
    from cinecanvas.errors import CinecanvasError
    from cinecanvas.jobs.courier import send
    from cinecanvas.media.fetch import fetch

    url = f"http://localhost.localdomain:{place.port}/a.png"
    with pytest.raises(CinecanvasError):
        fetch(place.desk.store, url)
    assert send(url, b"{}", "m", ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",)).status == 0
    assert not place.heard


WORSE = (
    *("", "\x00", "a\x00b", "\u202eabc", "x" * 1_000_000, "<script>alert(1)</script>", "../../etc/passwd", "%00", "{}"),
    *("'; drop table jobs; --", "\r\nset-cookie: a=b", "a" * 70, "-1", "1e400", "٣", "😀"),
)


@pytest.mark.parametrize("words", WORSE, ids=range(len(WORSE)))
def test_no_words_break_a_route(place: Place, words: str) -> None:
    for path, body in (
        ("/v1/videos", {"prompt": words, "model": words, "size": words, "seconds": words}),
        ("/luma/dream-machine/v1/generations/video", {"model": "ray-2", "prompt": words, "aspect_ratio": words}),
        ("/runway/v1/text_to_video", {"model": "gen4.5", "promptText": words, "ratio": words, "duration": words}),
        ("/elevenlabs/v1/flows/video", {"model_id": words, "prompt": words}),
        ("/api/v1/jobs", {"task": "text_to_video", "prompt": words, "shape": words}),
        ("/api/v1/jobs", {"task": words}),
        ("/luma-agents/generations", {"prompt": words, "model": words, "type": words}),
    ):
        assert ask(place, "POST", path, json=body).status_code < 500, (path, words[:40])
    for path in ("/v1/videos", "/api/v1/jobs", "/luma/dream-machine/v1/generations", "/elevenlabs/v1/flows/video"):
        query = dict.fromkeys(("after", "limit", "order", "offset", "cursor", "state", "page_size"), words[:200])
        assert ask(place, "GET", path, params=query).status_code < 500, (path, words[:40])


@pytest.mark.parametrize(
    "name", ["a\r\nb.png", "../../x.png", "a\x00.png", "x" * 5000 + ".png", '"; rm', "\u202egnp.exe"]
)
def test_a_name_of_a_file_is_only_words(place: Place, name: str) -> None:
    answer = ask(place, "POST", "/v1/files", files={"file": (name, picture())}, data={"purpose": "vision"})
    assert answer.status_code < 500, answer.text
    assert not [path for path in Path(place.desk.where.data).rglob("*") if path.name.endswith((".png", ".exe"))]


@pytest.mark.parametrize(
    "content",
    [b"<svg onload='alert(1)'/>", b"<!doctype html><script>1</script>", b"#EXTM3U\nfile:///etc/passwd", b"MZ", b""],
)
def test_what_is_no_picture_is_not_kept(place: Place, content: bytes) -> None:
    before = place.desk.store.holds().assets
    answer = ask(place, "POST", "/api/v1/files", files={"file": ("a.png", content, "image/png")})
    assert answer.status_code in (400, 422) and place.desk.store.holds().assets == before


def test_a_script_in_a_prompt_comes_back_as_json(place: Place) -> None:
    made = ask(place, "POST", "/v1/videos", json={"prompt": "<script>alert(1)</script>", "seconds": 1})
    answer = ask(place, "GET", f"/v1/videos/{made.json()['id']}")
    assert answer.headers["content-type"].startswith("application/json")


def test_a_form_of_a_thousand_parts_or_brackets_is_refused(place: Place) -> None:
    for fields in ({f"f{n}": "x" for n in range(1000)}, {"a" + "[b]" * 500: "x"}, {"x" * 100_000: "x"}, {"a[b": "x"}):
        answer = ask(place, "POST", "/v1/videos", files={name: (None, value) for name, value in fields.items()})
        assert 400 <= answer.status_code < 500 and answer.json()["error"]["message"], answer.text[:200]


def test_bombs_do_not_silence_the_server(place: Place) -> None:
    bomb, said, looks = picture(30_000), list[int](), list[float]()

    async def go() -> None:
        transport = httpx.ASGITransport(app=place.app)
        head = {"authorization": f"Bearer {place.keys['alice']}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=head) as client:

            async def bring() -> None:
                said.append((await client.post("/api/v1/files", files={"file": ("a.png", bomb)})).status_code)

            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(bring)
                while len(said) < 4:
                    begun = anyio.current_time()
                    assert (await client.get("/healthz")).status_code == 200
                    looks.append(anyio.current_time() - begun)
                    await anyio.sleep(0.01)

    anyio.run(go)
    assert said == [400] * 4 and looks and max(looks) < 5.0


def opened(place: Place, path: str, count: int) -> list[int]:
    """The statuses of so many requests at once, none of which is read to its end."""
    head = [(b"host", b"localhost"), (b"authorization", f"Bearer {place.keys['alice']}".encode())]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": head}
    said: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            said.append(message["status"])

    async def one() -> None:
        heard = iter([{"type": "http.request"}])

        async def receive() -> dict[str, Any]:
            return next(heard, None) or await anyio.sleep_forever()  # type: ignore[func-returns-value]

        await place.app({**scope, "client": ("127.0.0.1", 1)}, receive, send)

    async def go() -> None:
        with anyio.fail_after(60.0):
            async with anyio.create_task_group() as group:
                for _ in range(count):
                    group.start_soon(one)
                while len(said) < count:
                    await anyio.sleep(0.01)
                group.cancel_scope.cancel()

    anyio.run(go)
    return sorted(said)


def test_an_account_has_only_so_many_streams_at_a_time(place: Place) -> None:
    order = {"task": "text_to_video", "prompt": WORDS}
    path = f"/api/v1/jobs/{ask(place, 'POST', '/api/v1/jobs', json=order).json()['id']}/events"
    assert opened(place, path, STREAMS.together + 3) == [200] * STREAMS.together + [429] * 3
    assert opened(place, path, 1) == [200], "who has gone is still counted"


def test_an_envelope_is_the_dialects_own_whatever_is_wrong(place: Place) -> None:
    shapes = {
        "/v1": "error",
        "/openai/v1": "error",
        "/luma/dream-machine/v1": "detail",
        "/runway": "error",
        "/api/v1": "error",
    }
    for prefix, field in {**shapes, "/elevenlabs": "detail", "/luma-agents": "detail"}.items():
        for method, path, key in (("GET", "/nothing", "alice"), ("PUT", "/nothing", "alice"), ("GET", "/x", None)):
            answer = ask(place, method, f"{prefix}{path}", key)
            assert answer.status_code >= 400 and field in answer.json(), (prefix, answer.text)
        broken = ask(
            place, "POST", f"{prefix}/anything", content=b'{"a": NaN}', headers={"content-type": "application/json"}
        )
        assert broken.status_code == 400 and field in broken.json(), (prefix, broken.text)


def test_the_server_starts_without_what_is_heavy() -> None:
    program = (
        "import sys, cinecanvas.server.serve as s; from cinecanvas.server.app import build;"
        "print([m for m in ('torch', 'av', 'PIL', 'dbos', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("codec", ["punycode", "undefined", "idna", "utf-16"])
def test_a_form_names_no_codec_of_its_own(place: Place, codec: str) -> None:
    headers = {"content-type": f"multipart/form-data; boundary=x; charset={codec}"}
    body = b'--x\r\ncontent-disposition: form-data; name="prompt"\r\n\r\nhi\r\n--x--\r\n'
    assert ask(place, "POST", "/v1/videos", content=body, headers=headers).status_code == 415


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2000-01-01T00:00:00Z"])
def test_a_file_is_kept_until_no_impossible_day(place: Place, when: str) -> None:
    slot = {"mime_type": "image/png", "size_bytes": 10, "purpose": "input", "expires_at": when}
    assert ask(place, "POST", "/luma-agents/files", json=slot).status_code == 400
    assert ask(place, "GET", "/luma-agents/files").status_code == 200


def test_a_form_that_holds_nul_is_refused(place: Place) -> None:
    answer = ask(place, "POST", "/v1/videos", files={"prompt": (None, "a\0b")})
    assert answer.status_code == 400 and "NUL" in answer.json()["error"]["message"]


def test_a_name_that_turns_itself_round_is_kept_without_that(place: Place) -> None:
    dot = io.BytesIO()
    Image.new("RGB", (16, 16)).save(dot, "png")
    made = ask(place, "POST", "/api/v1/files", files={"file": ("\u202egnp.a\u2066.png", dot.getvalue())})
    assert made.json()["name"] == "gnp.a.png"


def test_no_route_installs_runs_or_forwards_and_no_order_says_where_to_write(place: Place) -> None:
    dangerous = re.compile(r"install|plugin|exec|eval|proxy|forward|custom|shell", re.IGNORECASE)
    assert not [path for _, path in routes(place) if dangerous.search(path)]
    document = ask(place, "GET", "/api/v1/openapi.json").json()
    fields = {name for schema in document["components"]["schemas"].values() for name in schema.get("properties", {})}
    assert len(fields) > 50 and not fields & {
        "out",
        "output_path",
        "path",
        "folder",
        "filename",
        "code_path",
    }


def test_a_url_without_end_is_refused_in_every_field(place: Place) -> None:
    for path, body in asked_with("https://example.org/" + "a" * 5000):
        answer = ask(place, "POST", path.partition("?")[0], json=body)
        assert path.endswith("CALL") or 400 <= answer.status_code < 500, (path, answer.status_code)
