"""A user's URL opens what is public and nothing else, whatever it says, and never more than was allowed."""

from __future__ import annotations

import gzip
import io
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cinecanvas.errors import BadMedia, BadRequest, CannotWrite, CinecanvasError, Unsupported
from cinecanvas.media import fetch as fetching
from cinecanvas.media.assets import Store
from cinecanvas.media.fetch import Web, fetch, public

pytest.importorskip("httpcore")

OPEN, CLOSED = "127.0.0.1", "127.0.0.2"  # stand for an address of the public internet and one behind the wall
NAMES = {"open.test": [OPEN], "closed.test": [CLOSED], "both.test": [OPEN, CLOSED], "none.test": []}
WEB = Web(resolve=lambda host, port: NAMES.get(host, [host]), allowed=lambda address: address == OPEN, seconds=5)

_png = io.BytesIO()
Image.new("RGB", (8, 6), (200, 30, 30)).save(_png, "PNG")
PICTURE = _png.getvalue()
Talk = Callable[[socket.socket, bytes], None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


def files(store: Store) -> list[Path]:
    assert store.root is not None
    return [path for path in store.root.rglob("*") if path.is_file() or path.name.startswith(".fetch")]


def answer(body: bytes = PICTURE, *, status: str = "200 OK", length: int | None = None, **headers: str) -> Talk:
    lines = {"Content-Length": str(len(body) if length is None else length), "Connection": "close"}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return lambda line, asked: line.sendall(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)


def drip(line: socket.socket, asked: bytes) -> None:
    """A header that never ends, a byte each moment."""
    line.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        line.sendall(b"x")
        time.sleep(0.05)


def endless(line: socket.socket, asked: bytes) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        line.sendall(bytes(1 << 16))


@contextmanager
def serving(
    talk: Talk, address: str = OPEN, *, trust: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """A server on a loopback address: its port, and what it was asked."""
    asked: list[bytes] = []
    listener = socket.create_server((address, 0))

    def serve() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            try:
                with line, trust.wrap_socket(line, server_side=True) if trust else line as spoken:
                    asked.append(spoken.recv(65536))
                    talk(spoken, asked[-1])
            except OSError:
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_a_picture_comes_into_the_store_and_its_server_learns_nothing_of_us(store: Store) -> None:
    with serving(answer()) as (port, asked):
        asset = fetch(store, f"http://open.test:{port}/a/b.png?q=ü#part", web=WEB)
    assert (asset.width, asset.height, asset.media_type) == (8, 6, "image/png")
    assert store.path(asset.digest).read_bytes() == PICTURE and files(store) == [store.path(asset.digest)]
    first, *headers = asked[0].decode().split("\r\n")
    assert first == "GET /a/b.png?q=%C3%BC HTTP/1.1"
    names = {header.partition(":")[0] for header in headers if header}
    assert names == {"Host", "Accept", "Accept-Encoding", "User-Agent"} and "Accept-Encoding: identity" in headers


HOSTILE = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.0.0.1./",
    "http://１２７.0.0.1/",
    "http://127。0。0。1/",
    "http://0/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://168.63.129.16/",
    "http://172.31.255.1/",
    "http://192.168.1.1/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://[::]/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25lo]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://localhost/",
    "http://localhost.localdomain/",
    "http://intranet/",
    "http://example.org@127.0.0.1/",
    "http://user:secret@example.org/",
    "http://example.org\\@127.0.0.1/",
    "http://127.0.0.1\\.example.org/",
    "http://exam ple.org/",
    "http://example.org\n.evil.test/",
    "http://example.org:99999/",
    "http://[::1/",
    "http:///a.png",
    "http://",
    "//example.org/a.png",
    "file:///etc/passwd",
    "ftp://example.org/a.png",
    "gopher://127.0.0.1:70/_x",
    "data:image/png;base64,AAAA",
    "javascript://example.org/%0aalert(1)",
    "http://example.org/" + "x" * 5000,
]


@pytest.mark.parametrize("url", HOSTILE)
def test_a_hostile_url_reaches_nobody(store: Store, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import httpcore

    def dialled(*_: object, **__: object) -> None:
        raise AssertionError("somebody was called")

    def system(host: str, port: int) -> list[str]:
        """As a system whose names all lead inside, and which reads an address in any way it is written."""
        try:
            return [socket.inet_ntoa(socket.inet_aton(host))]
        except OSError:
            return [host.partition("%")[0] if ":" in host else "127.0.0.1"]

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", dialled)
    with pytest.raises(BadRequest) as refused:
        fetch(store, url, web=Web(resolve=system))
    said = str(refused.value)
    assert len(said) < 250 and "secret" not in said and "etc/passwd" not in said and "meta-data" not in said
    assert not files(store)


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        *((address, True) for address in ("8.8.8.8", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001::1")),
        *((address, False) for address in ("192.88.99.1", "203.0.113.9", "240.0.0.1", "2001:db8::1", "3fff::1")),
        *((address, False) for address in ("5f00::1", "100::1", "", "localhost", "1.2.3", "fec0::1")),
    ],
)
def test_what_is_public(address: str, is_public: bool) -> None:
    assert public(address) is is_public


def test_without_a_stub_only_public_addresses_are_let_in(store: Store) -> None:
    with serving(answer()) as (port, asked):
        for host in ("127.0.0.1", "[::ffff:127.0.0.1]"):
            with pytest.raises(BadRequest, match="not on the public internet"):
                fetch(store, f"http://{host}:{port}/")
    assert not asked


@pytest.mark.parametrize("host", ["closed.test", "both.test", "none.test"])
def test_a_name_with_one_address_behind_the_wall_is_refused_whole(store: Store, host: str) -> None:
    with serving(answer()) as (port, asked), pytest.raises(BadRequest, match=f"{host} is not on the public internet"):
        fetch(store, f"http://{host}:{port}/", web=WEB)
    assert not asked and not files(store)


def test_a_name_that_changes_its_mind_gains_nothing(store: Store) -> None:
    answers = iter([[OPEN], [CLOSED], [CLOSED]])
    with serving(answer()) as (port, asked):
        fetch(store, f"http://turncoat.test:{port}/", web=replace(WEB, resolve=lambda host, port: next(answers)))
    assert len(asked) == 1 and next(answers) == [CLOSED]  # it was asked once


def test_redirects_are_followed_to_public_places_alone(store: Store) -> None:
    with serving(answer(), CLOSED) as (inside, trapped):
        for there in (
            f"http://closed.test:{inside}/",
            f"http://{CLOSED}:{inside}/",
            f"//closed.test:{inside}/",
            "file:///etc/passwd",
            "http://user:secret@open.test/",
        ):
            with (
                serving(answer(b"", status="302 Found", Location=there)) as (port, _),
                pytest.raises(BadRequest),
            ):
                fetch(store, f"http://open.test:{port}/", web=WEB)
    assert not trapped and not files(store)
    with (
        serving(answer()) as (last, _),
        serving(answer(b"", status="307 Temporary Redirect", Location=f"http://open.test:{last}/b.png")) as (port, _),
    ):
        assert fetch(store, f"http://open.test:{port}/a", web=WEB).width == 8


def test_a_redirect_in_a_circle_ends(store: Store) -> None:
    with serving(answer(b"", status="301 Moved", Location="/again")) as (port, asked):
        with pytest.raises(BadMedia, match="leads on and on"):
            fetch(store, f"http://open.test:{port}/", web=WEB)
        assert len(asked) == 5


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (drip, "open.test was too slow"),
        (lambda line, asked: time.sleep(2), "open.test was too slow"),
        (endless, "open.test sends too much. At most 1 MB"),
        (answer(length=1 << 40), "open.test sends too much"),
        (answer(length=len(PICTURE) + 1), "broke off"),
        (answer(gzip.compress(PICTURE), Content_Encoding="gzip"), "open.test sent its answer packed"),
        (answer(status="404 Not Found"), "open.test answered 404"),
        (answer(status="206 Partial Content"), "open.test answered 206"),
        (answer(b"<html>Sign in</html>"), "The answer of open.test cannot be read as a video or picture"),
        (answer(b""), "The answer of open.test cannot be read"),
        (lambda line, asked: line.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"), "broke off"),
        (lambda line, asked: line.sendall(b"HTTP/1.1 200 OK\r\nX: " + bytes(300_000)), "broke off"),
        (answer(status="302 Found", Location="https://"), "The URL names no host"),
    ],
)
def test_a_server_that_misbehaves_is_one_line_and_leaves_nothing(store: Store, talk: Talk, said: str) -> None:
    bounds = replace(WEB, most_bytes=1 << 20, seconds=1.0)
    began = time.monotonic()
    with serving(talk) as (port, _), pytest.raises(CinecanvasError, match=said) as refused:
        fetch(store, f"http://open.test:{port}/a?token=secret", web=bounds)
    assert "secret" not in str(refused.value) and str(store.root) not in str(refused.value)
    assert time.monotonic() - began < 3 and not files(store)


def test_nobody_at_home_is_one_line(store: Store) -> None:
    with socket.create_server((OPEN, 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(BadMedia, match="could not be reached"):
        fetch(store, f"http://open.test:{port}/", web=WEB)

    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(BadMedia, match=r"No host nowhere\.test is known"):
        fetch(store, "http://nowhere.test/", web=replace(WEB, resolve=unknown))


def test_a_certificate_must_be_that_of_the_name(store: Store) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure_trust(ours)
    authority.issue_cert("open.test").configure_cert(theirs)
    web = replace(WEB, resolve=lambda host, port: [OPEN], trust=lambda: ours)
    with serving(answer(), trust=theirs) as (port, asked):
        assert fetch(store, f"https://open.test:{port}/", web=web).width == 8
        for host, trusted in (("other.test", web), ("open.test", replace(web, trust=None))):
            with pytest.raises(BadMedia, match=f"{host} does not prove that it is {host}"):
                fetch(store, f"https://{host}:{port}/", web=trusted)
        assert len(asked) == 1


def test_a_redirect_may_not_give_up_tls(store: Store) -> None:
    with pytest.raises(BadMedia, match="leads from https to http"):
        fetching._next(fetching._place("https://open.test/"), "http://open.test/")


def test_a_stop_in_mid_air_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching, "take", stopped)
    with serving(answer()) as (port, _), pytest.raises(KeyboardInterrupt):
        fetch(store, f"http://open.test:{port}/", web=WEB)
    assert not files(store)


def test_a_store_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    store = Store.at(tmp_path / "store")
    (tmp_path / "store").rmdir()
    with pytest.raises(CannotWrite, match="into the store"):
        fetch(store, "http://open.test/", web=WEB)


def test_without_the_extra_the_refusal_says_how_to_get_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpcore", None)
    with pytest.raises(Unsupported, match=r"pip install 'cinecanvas\[web\]'"):
        fetch(store, "http://open.test/", web=WEB)
    assert not files(store)
