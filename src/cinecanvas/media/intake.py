"""A file from outside becomes an asset, described and within bounds, or is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

from cinecanvas.errors import BadMedia
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.audio import check_sound
from cinecanvas.media.destination import shown_name
from cinecanvas.media.video import VideoInfo, info

MOST_BYTES = 4 << 30
MOST_SECONDS = 3600.0
_KINDS = {name: f"image/{name}" for name in ("png", "jpeg", "webp", "avif", "gif")} | {"vp9": "video/webm"}


def take(store: Store, path: str | os.PathLike[str]) -> Asset:
    """Keep a picture or film in the store; what cannot be read, or is too large, leaves nothing behind."""
    file = Path(path)
    if not file.is_file():
        raise BadMedia(f"There is no file {shown_name(file.name)}", do="Check the name")
    _check_bytes(file)
    facts = info(file)
    _check(facts)
    _check_sound(file, facts)
    return _described(store.put(file, _KINDS.get(facts.codec, "video/mp4")), facts)


def describe(store: Store, digest: str) -> Asset:
    """What the store holds under a digest."""
    file = store.path(digest)
    facts = info(file)
    _check(facts.model_copy(update={"name": digest[:18]}))
    _check_sound(file, facts)
    return _described(
        Asset(digest=digest, media_type=_KINDS.get(facts.codec, "video/mp4"), bytes=file.stat().st_size), facts
    )


def _described(asset: Asset, facts: VideoInfo) -> Asset:
    """An asset with its facts; a picture has no seconds."""
    moving = facts.frames > 1
    return asset.model_copy(
        update={
            "width": facts.width,
            "height": facts.height,
            "frames": facts.frames,
            "fps": facts.fps if moving else None,
            "seconds": facts.seconds if moving else None,
            "sound": bool(facts.sound),
        }
    )


def _check_bytes(file: Path) -> None:
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise BadMedia(f"{shown_name(file.name)} holds {size / 1e9:.1f} GB", f"At most {MOST_BYTES / 1e9:.1f} are read")


def _check_sound(file: Path, facts: VideoInfo) -> None:
    """A sound that nobody can decode would else be found out when the film is made and is to be written."""
    if facts.sound:
        check_sound(file)


def _check(facts: VideoInfo) -> None:
    name = shown_name(facts.name)
    if facts.seconds > MOST_SECONDS:
        raise BadMedia(
            f"{name} is {facts.seconds:.0f} s long", f"At most {MOST_SECONDS:.0f} s are read", "Trim it first"
        )
