"""The studio: a page that was built from `studio/`, under a policy that lets nothing else in."""

from __future__ import annotations

import mimetypes
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Response

from cinecanvas.server.dialect import Fault, Refused

FOLDER = Path(__file__).parent / "studio"
OPEN = ("/", "/studio")  # what needs no key: the page asks for it
router = APIRouter(include_in_schema=False)
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {"content-security-policy": _POLICY, "referrer-policy": "no-referrer", "x-frame-options": "DENY"}


@router.get("/")
def get_page() -> Response:
    """The page itself, asked for anew each time: what it names is kept for good."""
    return Response(_files()["index.html"], media_type="text/html", headers={**_HEADERS, "cache-control": "no-cache"})


@router.get("/studio/{name}")
def get_part(name: str) -> Response:
    """A part of the page; its name changes with what it holds."""
    data = _files().get(name)
    if data is None or name == "index.html":
        raise Refused(Fault(404, "not_found", "There is nothing at this address."))
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(data, media_type=kind, headers={**_HEADERS, "cache-control": "public, max-age=31536000, immutable"})


@cache
def _files() -> dict[str, bytes]:
    """All files of the page by name: some hundred kilobytes, read once."""
    return {path.name: path.read_bytes() for path in FOLDER.iterdir() if path.is_file()}
