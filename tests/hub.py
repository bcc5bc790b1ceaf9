"""A hub in miniature for the tests: it speaks as much of the hub's wire as we use, and can be told to go wrong."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from safetensors.numpy import save

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/some-model"


def weights(size: int, seed: int) -> bytes:
    """A safetensors file of about `size` bytes."""
    return save({f"w{seed}": np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)})


def checkpoint() -> dict[str, bytes]:
    """The files of a small checkpoint (5 MB), with everything beside it that nobody needs."""
    index = {
        "_class_name": "SomePipeline",
        "transformer": ["diffusers", "SomeTransformer"],
        "text_encoder": ["transformers", "SomeEncoder"],
        "tokenizer": ["transformers", "T5TokenizerFast"],
        "scheduler": ["diffusers", "SomeScheduler"],
        "image_encoder": [None, None],
        "boundary": 0.9,
    }
    stem = "transformer/diffusion_pytorch_model"
    shards = {f"{stem}-0000{i}-of-00002.safetensors": weights(2_000_000, i) for i in (1, 2)}
    names = {f"w{i}": f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    return {
        "model_index.json": json.dumps(index).encode(),
        "LICENSE": b"Do as you like.",
        "README.md": b"# A model",
        ".gitattributes": b"*.safetensors filter=lfs",
        "transformer/config.json": b'{"_class_name": "SomeTransformer"}',
        f"{stem}.safetensors.index.json": json.dumps({"weight_map": names}).encode(),
        **shards,
        f"{stem}.fp16.safetensors": weights(1_000, 8),
        "text_encoder/config.json": b'{"model_type": "some"}',
        "text_encoder/model.safetensors": weights(1_000_000, 3),
        "text_encoder/model.fp16.safetensors": weights(1_000, 4),
        "text_encoder/pytorch_model.bin": b"\x80\x04pickle" * 100,
        "tokenizer/tokenizer.json": b'{"model": {}}',
        "tokenizer/tokenizer_config.json": b"{}",
        "scheduler/scheduler_config.json": b"{}",
        "vae_1_0/diffusion_pytorch_model.safetensors": weights(1_000, 5),
        "all-in-one.safetensors": weights(1_000, 6),
    }


NEEDED = frozenset(checkpoint()) - {
    "README.md",
    ".gitattributes",
    "transformer/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder/model.fp16.safetensors",
    "text_encoder/pytorch_model.bin",
    "vae_1_0/diffusion_pytorch_model.safetensors",
    "all-in-one.safetensors",
}


@dataclass
class Hub:
    """What is served, what goes wrong, and what was asked; `cut` is after how many bytes of an answer."""

    files: dict[str, bytes]
    repository: str = REPOSITORY
    url: str = ""
    served: dict[str, int] = field(default_factory=dict)  # bytes of each file
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # verb, path, headers
    token: str = ""  # that is needed
    refusal: tuple[int, str] | None = None  # a status and the hub's code, to everything
    page: bool = False  # a proxy's page instead of files
    pages: bool = False  # and instead of lists
    cut: dict[str, int] = field(default_factory=dict)
    cuts: int = 1 << 30  # how often
    hold: dict[str, int] = field(default_factory=dict)  # as cut, but the line stays open
    held: threading.Event = field(default_factory=threading.Event)
    body: dict[str, bytes] = field(default_factory=dict)  # sent instead of the file
    ranges: bool = True
    listed: Callable[[list[dict[str, Any]]], None] = lambda rows: None  # changes the list before it is sent
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def total(self) -> int:
        """Bytes of files that were sent."""
        return sum(self.served.values())

    @property
    def large(self) -> str:
        """The path of the first large file."""
        return "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"


def rows(files: dict[str, bytes]) -> list[dict[str, Any]]:
    """Files as the hub lists them: large ones with the sha256 of their LFS pointer, small ones with git's sha1."""
    listed = []
    for path, data in files.items():
        row: dict[str, Any] = {"rfilename": path, "size": len(data)}
        if path.endswith((".safetensors", ".bin")):
            row |= {"blobId": "f" * 40}
            row["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
        else:
            row["blobId"] = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        listed.append(row)
    return listed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def handle(self) -> None:
        with suppress(ConnectionError):  # who was killed hangs up
            super().handle()

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        hub.asked.append(("GET", self.path, {name.lower(): value for name, value in self.headers.items()}))
        if path.startswith("/cdn/"):
            self._file(path.removeprefix("/cdn/"))
        elif hub.refusal is not None:
            self._end(hub.refusal[0], b'{"error": "no"}', {"X-Error-Code": hub.refusal[1]})
        elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._end(401, b'{"error": "gated"}', {"X-Error-Code": "GatedRepo"})
        elif path.startswith("/api/models/"):
            self._list(path)
        elif path.startswith(f"/{hub.repository}/resolve/{COMMIT}/"):
            name = path.removeprefix(f"/{hub.repository}/resolve/{COMMIT}/")
            if name.endswith(".safetensors"):
                self._end(302, b"", {"Location": f"/cdn/{name}", "X-Repo-Commit": COMMIT})
            else:
                self._file(name)
        else:
            self._end(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _list(self, path: str) -> None:
        hub = self.hub
        if hub.pages:
            self._page()
        elif not path.startswith(f"/api/models/{hub.repository}/revision/"):
            self._end(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        elif path.rsplit("/", 1)[-1] not in ("main", COMMIT):
            self._end(404, b'{"error": "Invalid rev id"}', {"X-Error-Code": "RevisionNotFound"})
        else:
            listed = rows(hub.files)
            hub.listed(listed)
            body = json.dumps({"id": hub.repository, "sha": COMMIT, "siblings": listed}).encode()
            self._end(200, body, {"Content-Type": "application/json"})

    def _file(self, name: str) -> None:
        hub = self.hub
        data = hub.body.get(name, hub.files.get(name))
        if hub.page:
            self._page()
            return
        if data is None:
            self._end(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        wanted = self.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and hub.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        end = len(data)
        if name in hub.hold:
            end = min(end, hub.hold[name])
        if name in hub.cut and hub.cuts > 0:
            end = min(end, hub.cut[name])
        self.wfile.write(data[start:end])
        hub.served[name] = hub.served.get(name, 0) + max(0, end - start)
        if name in hub.hold:
            self.wfile.flush()
            hub.held.set()
            hub.ended.wait(30)
        if end < len(data):
            hub.cuts -= 1
            self.close_connection = True

    def _page(self) -> None:
        self._end(200, b"<html>Please log in</html>", {"Content-Type": "text/html; charset=utf-8"})

    def _end(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at its `url`, until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()


def laid(folder: Path, files: dict[str, bytes]) -> Path:
    """The files in a folder."""
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder
