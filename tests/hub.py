"""A hub on loopback: as much of the wire as a pull uses, with faults to order."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Repository:
    """The files of a folder under a name; `cut`: after how many bytes connections of a file break off, once each."""

    folder: Path
    name: str = "someone/tiny"
    url: str = ""
    token: str = ""
    served: int = 0
    asked: list[str] = field(default_factory=list)
    cut: dict[str, list[int]] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)  # files whose bytes are others
    extra: list[dict[str, Any]] = field(default_factory=list)  # more of the listing
    page: bool = False  # a web page instead of everything
    ranges: bool = True

    def files(self) -> dict[str, Path]:
        return {p.relative_to(self.folder).as_posix(): p for p in sorted(self.folder.rglob("*")) if p.is_file()}

    def listing(self) -> dict[str, Any]:
        return {"sha": COMMIT, "siblings": [_sibling(name, path) for name, path in self.files().items()] + self.extra}


def _sibling(name: str, path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    if name.endswith((".safetensors", ".bin")):
        return {
            "rfilename": name,
            "size": len(data),
            "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)},
        }
    blob = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    return {"rfilename": name, "size": len(data), "blobId": blob}


@contextmanager
def hub(repository: Repository) -> Iterator[Repository]:
    """The repository served on loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            repository.asked.append(path)
            if repository.page:
                return self._sent(200, b"<html>sign in</html>", "text/html")
            if repository.token and self.headers.get("Authorization") != f"Bearer {repository.token}":
                return self._sent(401, b"{}")
            api, resolve = f"/api/models/{repository.name}/revision/", f"/{repository.name}/resolve/{COMMIT}/"
            if path.startswith(api) and path.removeprefix(api) in ("main", COMMIT):
                return self._sent(200, json.dumps(repository.listing()).encode())
            name = path.removeprefix(resolve)
            if not path.startswith(resolve) or name not in repository.files():
                return self._sent(404, b"{}")
            self._file(name, repository.files()[name].read_bytes())

        def _file(self, name: str, data: bytes) -> None:
            if name in repository.wrong:
                data = bytes(len(data))
            start = 0
            asked = self.headers.get("Range", "")
            if asked and repository.ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            rest = data[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            cuts = repository.cut.get(name, [])
            much = cuts.pop(0) if cuts else len(rest)
            repository.served += len(rest[:much])
            self.wfile.write(rest[:much])
            if much < len(rest):
                self.close_connection = True

        def _sent(self, status: int, body: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a pull that stops hangs up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    repository.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield repository
    finally:
        server.shutdown()
        server.server_close()
