"""A file from outside becomes an asset, described and within bounds, or is refused in one line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from cinecanvas.errors import BadMedia
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.audio import check_sound, stored
from cinecanvas.media.decode import VideoInfo, facts, moments
from cinecanvas.media.destination import shown_name

MOST_BYTES = 4 << 30
MOST_SECONDS = 3600.0
MOST_FRAMES = 500_000  # an hour at 120 frames per second is 432 000
MOST_SIDE = 32_767  # px
_TAIL = 5.0  # s
_KINDS = {name: f"image/{name}" for name in ("png", "jpeg", "webp", "avif", "gif")} | {"vp9": "video/webm"}


def take(store: Store, path: str | os.PathLike[str]) -> Asset:
    """Keep a picture or film in the store; what cannot be read, or is too large, leaves nothing behind."""
    file = Path(path)
    if not file.is_file():
        raise BadMedia(f"There is no file {shown_name(file.name)}", do="Check the name")
    seen = look(file)
    return described(store.put(file, media_type(seen)), seen)


def describe(store: Store, digest: str) -> Asset:
    """What the store holds under a digest."""
    file = store.path(digest)
    seen = look(file, name=digest[:18])
    return described(Asset(digest=digest, media_type=media_type(seen), bytes=file.stat().st_size), seen)


def look(file: Path, *, name: str = "") -> VideoInfo:
    """What a file holds, if it can be read and is within bounds; one frame of it is decoded, and a moment of sound."""
    _check_bytes(file)
    seen = facts(file)
    _check(seen.model_copy(update={"name": name}) if name else seen)
    if seen.sound:  # that nobody can decode would else be found out when the film is made and is to be written
        check_sound(file)
    return seen


def look_through(file: Path, seen: VideoInfo, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
    """Decode all of a file once, to see that it can be: what breaks a decoder breaks it here and not in the work.

    Of a film that takes longer than `seconds` the beginning is decoded and its last 5 s: it is mostly there that films
    are gone on with. A break in between then costs whoever asks for it one job; to refuse every long film costs all.
    """
    until = clock() + seconds
    for _ in moments(file):
        if clock() > until:
            for _ in moments(file, start=max(0.0, seen.seconds - _TAIL)):
                pass
            break
    if seen.sound:
        for _ in stored(file):
            if clock() > until + seconds:
                break


def media_type(seen: VideoInfo) -> str:
    """How the web calls it."""
    return _KINDS.get(seen.codec, "video/mp4")


def described(asset: Asset, seen: VideoInfo) -> Asset:
    """An asset with its facts; a picture has no seconds."""
    moving = seen.frames > 1
    return asset.model_copy(
        update={
            "width": seen.width,
            "height": seen.height,
            "frames": seen.frames,
            "fps": seen.fps if moving else None,
            "seconds": seen.seconds if moving else None,
            "sound": bool(seen.sound),
        }
    )


def _check_bytes(file: Path) -> None:
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise BadMedia(f"{shown_name(file.name)} holds {size / 1e9:.1f} GB", f"At most {MOST_BYTES / 1e9:.1f} are read")


def _check(seen: VideoInfo) -> None:
    name = shown_name(seen.name)
    if seen.seconds > MOST_SECONDS:
        raise BadMedia(
            f"{name} is {seen.seconds:.0f} s long", f"At most {MOST_SECONDS:.0f} s are read", "Trim it first"
        )
    if seen.frames > MOST_FRAMES:
        raise BadMedia(f"{name} has {seen.frames} frames", f"At most {MOST_FRAMES} are read", "Trim it first")
    if max(seen.width, seen.height) > MOST_SIDE:
        size = f"{seen.width}x{seen.height}"
        raise BadMedia(f"{name} has {size} px", f"At most {MOST_SIDE} px a side are read", "Shrink it first")
