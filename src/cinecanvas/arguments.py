"""What the words of a command line stand for: files, URLs and digests; seconds, places and names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cinecanvas.errors import BadRequest, CinecanvasError
from cinecanvas.request import Fit, Request

if TYPE_CHECKING:  # none of it is needed to print the help
    from cinecanvas.media.assets import Asset, Store


def store_here() -> Store:
    """The store of this machine."""
    from cinecanvas.media.assets import Store
    from cinecanvas.settings import settings

    return Store.at(settings().store)


def keeper(request: Request) -> Store | None:
    """The store, tidied, for what a request makes; None where there can be none and nothing that is laid needs one."""
    try:
        store = store_here()
        store.tidy()
    except CinecanvasError:
        if request.clips:
            raise
        return None
    return store


def taken(*named: str) -> list[Asset]:
    """Pictures and films into the store, described: from files, from URLs, or there already by their digests."""
    store = store_here()
    return [_asset(store, name) for name in named]


def _asset(store: Store, name: str) -> Asset:
    """What a user calls by name; never for the words of somebody else, who would name our files."""
    from cinecanvas.media.fetch import fetch
    from cinecanvas.media.intake import describe, take

    if name.startswith("sha256:"):
        return describe(store, name)
    return fetch(store, name) if "://" in name else take(store, name)


def fit_named(text: str) -> Any:
    if text not in get_args(Fit):
        raise BadRequest(f"The fit {text!r} was asked", f"Possible are {', '.join(get_args(Fit))}")
    return text


def second_and_picture(text: str) -> tuple[float, str]:
    second, _, picture = text.partition(":")
    try:
        return float(second), picture
    except ValueError:
        raise BadRequest(f"The keyframe {text[:40]!r} was given", "A keyframe is SECOND:FILE, as 1.5:b.png") from None


def place_of(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise BadRequest(f"The place {text[:40]!r} was asked", "A place is X,Y, as 0.5,0.5") from None
    return x, y


def free_name(prompt: str, count: int, *, ending: str) -> str:
    """The prompt as a file name in this folder that is not taken yet; only a name given by -o is overwritten."""
    import re
    import unicodedata

    from cinecanvas.generate import destinations

    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    slug = "-".join(re.findall("[a-z0-9]+", plain))[:60].strip("-") or "video"
    number, name = 1, f"{slug}{ending}"
    while any(Path(file).exists() for file in destinations(name, count=max(1, min(count, 100)))):
        number += 1
        name = f"{slug}-{number}{ending}"
    return name
