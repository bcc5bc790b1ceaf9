"""What all of OpenAI's API has alike: its ids and its pages."""

from __future__ import annotations

import re
from typing import Any

NAME = "openai"
_ID = re.compile(r"([a-z]+)_([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})")


def outer(kind: str, ours: str) -> str:
    """The id of a thing of ours as this API shows it: video_, file_, char_ or whe_ and 32 digits."""
    return f"{kind}_{ours.replace('-', '')}"


def inner(kind: str, theirs: str) -> str | None:
    """Our id behind one of this API's, if it is one of a kind."""
    match = _ID.fullmatch(theirs)
    return None if match is None or match[1] != kind else "-".join(match.groups()[1:])


def page(data: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """A page; the clients take the place of the next one from last_id alone."""
    ends = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": ends[0], "last_id": ends[1], "has_more": more}
