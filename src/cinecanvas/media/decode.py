"""The decoders: what any file shows, upright, in RGB and at its true moments; PyAV for movies, Pillow for pictures."""

from __future__ import annotations

import functools
import itertools
import math
import os
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from pydantic import BaseModel

from cinecanvas.errors import BadMedia
from cinecanvas.media.allowed import FILMS_ALONE, MOST_PIXELS, PICTURE_CODECS
from cinecanvas.media.audio import codec_of, films_of
from cinecanvas.media.destination import shown_name

Moment: TypeAlias = tuple[float, Callable[[], np.ndarray]]
"""From this second on stands this frame, (H, W, 3) uint8 RGB; whoever skips it pays for no conversion."""

_MOST_DRAWN = 4_000_000_000  # px of an animated picture, whose length only drawing it tells
OWN_KEYS = {"major_brand", "minor_version", "compatible_brands", "encoder"}  # what FFmpeg adds to metadata
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_PICTURE = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|RIFF....WEBP|....ftyp(avi[fs]|hei[cxs]|m[is]f1)", re.DOTALL)
_MOST_PICTURE = 256 << 20  # bytes, which Pillow reads at once
_PILLOW = {"PNG", "JPEG", "WEBP", "AVIF"}
_ONE = "JPEG", "MPO"  # the second picture in a phone's JPEG is its depth, or a preview
_POSSIBLE = "PNG, JPEG, WebP and AVIF pictures and MP4, MOV, WebM, MKV, GIF and AVI films are read"
_JUMPS = "mov", "matroska"  # containers with an index of key frames
_COARSE = "matroska", "gif"  # their clocks count whole ms or 1/100 s, whatever the frame rate


class VideoInfo(BaseModel, frozen=True):
    """What a file holds: width, height (px), fps (1/s, 0 for pictures), seconds, bytes; notes: what is not as asked.

    sound: the codec of its sound, "" if it has none.
    """

    name: str
    width: int
    height: int
    frames: int
    fps: float
    seconds: float
    codec: str
    pixel_format: str
    bytes: int
    sound: str = ""
    metadata: dict[str, str] = {}
    notes: tuple[str, ...] = ()


def moments(file: Path, *, start: float = 0.0) -> Iterator[Moment]:
    """The frames of a file in time order, from one that stands at `start` (s) or before."""
    shown = _picture_moments(file) if _is_picture(file) else _movie_moments(file, start)
    first = next(shown, None)
    if first is None:
        raise _unreadable(file)
    return itertools.chain([first], shown)


def facts(file: Path) -> VideoInfo:
    """What a file holds; of a movie only the first frame is decoded, to see that it can be."""
    return _picture_facts(file) if _is_picture(file) else _movie_facts(file)


def _is_picture(file: Path) -> bool:
    """By content, not by name: Pillow reads pictures, FFmpeg all that moves."""
    with _readable(file), file.open("rb") as stream:
        return bool(_PICTURE.match(stream.read(12)))


def _picture_moments(file: Path) -> Iterator[Moment]:
    with _readable(file), _picture(file) as picture:
        second = 0.0
        for frame in _each(picture):
            with _quiet():
                rgb = _picture_rgb(frame)
            yield second, functools.partial(np.asarray, rgb)
            second += _shown_for(frame)


def _picture_facts(file: Path) -> VideoInfo:
    with _readable(file), _picture(file) as picture, _quiet():
        frames = 1 if picture.format in _ONE else picture.n_frames
        if frames * picture.width * picture.height > _MOST_DRAWN:
            raise BadMedia(f"{shown_name(file.name)} is an animated picture of {frames} frames", do="Make it an MP4")
        picture.load()  # PNG keeps text after the pixels too
        text = {key.lower(): value for key, value in getattr(picture, "text", {}).items()}
        turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF's orientation
        width, height = picture.size[::-1] if turned else picture.size
        codec, mode = (picture.format or "").lower().replace("mpo", "jpeg"), picture.mode.lower()
        seconds = sum(map(_shown_for, _each(picture))) if frames > 1 else 0.0
        return VideoInfo(
            name=file.name,
            width=width,
            height=height,
            frames=frames,
            fps=frames / seconds if seconds else 0.0,
            seconds=seconds,
            codec=codec,
            pixel_format=mode,
            bytes=file.stat().st_size,
            metadata=text,
        )


@contextmanager
def _picture(file: Path) -> Iterator[Any]:
    """An opened picture of bearable size; nothing but its header has been read."""
    from PIL import Image

    if file.stat().st_size > _MOST_PICTURE:
        possible = f"A picture of at most {_MOST_PICTURE >> 20} MB is read"
        raise BadMedia(f"{shown_name(file.name)} is too large for a picture", possible, "Shrink it first")
    Image.init()  # older releases of Pillow know no AVIF
    kinds = tuple(_PILLOW & Image.OPEN.keys())
    try:
        with _quiet():
            picture = Image.open(file, formats=kinds)
    except Image.DecompressionBombError:
        raise _too_large(file.name) from None
    except Image.UnidentifiedImageError:
        raise _unreadable(file, "Save it as JPEG or PNG") from None
    with picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise _too_large(file.name, f"{picture.width}x{picture.height}")
        yield picture


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow warns of what it forgives, and up to 179 million pixels of what it does not refuse: the bound is ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _each(picture: Any) -> Iterator[Any]:
    """The frames of an animated picture."""
    from PIL import ImageSequence

    return itertools.islice(ImageSequence.Iterator(picture), 1 if picture.format in _ONE else None)


def _shown_for(frame: Any) -> float:
    """Seconds that a frame of an animated picture is shown for; players make 0.1 of nothing."""
    frame.load()
    return (float(frame.info.get("duration", 0)) or 100) / 1000


def _picture_rgb(picture: Any) -> np.ndarray:
    """Upright, 8 bits, without alpha."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off at 255
        grey = np.clip(np.asarray(upright).astype(np.int64), 0, 65535)
        return ((grey * 255 + 32767) // 65535).astype(np.uint8)[..., None].repeat(3, -1)
    if upright.has_transparency_data:
        return _on_black(np.asarray(upright.convert("RGBA")))
    return np.asarray(upright.convert("RGB"))


def opaque(file: Path) -> np.ndarray:
    """Where a picture is opaque, as a mask (H, W, 3): white where it is, black where it can be seen through."""
    from PIL import ImageOps

    with _picture(file) as picture, _quiet():
        upright = ImageOps.exif_transpose(picture)
        if not upright.has_transparency_data:
            raise BadMedia("The mask is opaque everywhere", "What is to be made anew is transparent in it")
        return np.asarray(upright.convert("RGBA"))[..., 3:].repeat(3, -1)


def _on_black(rgba: np.ndarray) -> np.ndarray:
    """What is not there is black, as in every film editor; and in a mask black is what is to be made."""
    return ((rgba[..., :3].astype(np.uint16) * rgba[..., 3:] + 127) // 255).astype(np.uint8)


def _movie_moments(file: Path, start: float) -> Iterator[Moment]:
    with _movie(file) as (container, stream):
        turn = _turning()
        for second, frame in _decoded(container, stream, start):
            yield second, functools.partial(turn, frame)


def _decoded(container: Any, stream: Any, start: float) -> Iterator[tuple[float, Any]]:
    """Frames with their seconds, from one at `start` or before: from the key frame before it if the film can jump.

    The first frames after a jump may be missing, for they lean on frames before it; and where pictures are refreshed
    bit by bit they are not yet quite themselves. Then it begins earlier.
    """
    import av
    from av.video.frame import PictureType

    lead = 1.0  # s
    while lead < start and any(name in container.format.name for name in _JUMPS):
        try:
            container.seek(round((start - lead) / stream.time_base) + (stream.start_time or 0), stream=stream)
        except av.error.FFmpegError:
            break
        frames = _timed(container, stream)
        first = next(frames, None)
        if first is not None and first[0] <= start and first[1].pict_type == PictureType.I:
            yield first
            yield from frames
            return
        lead *= 8
    if lead > 1:
        container.seek(stream.start_time or 0, stream=stream)
    yield from _timed(container, stream)


def _timed(container: Any, stream: Any) -> Iterator[tuple[float, Any]]:
    """Decoded frames with the second from which each stands; a coarse clock may have rounded it up by a tick."""
    tick, origin = stream.time_base, stream.start_time or 0
    early = float(tick) if any(name in container.format.name for name in _COARSE) else 0.0
    step, second = 1 / float(stream.average_rate or 25), 0.0
    for frame in container.decode(stream):
        if frame.pts is not None and container.format.name != "avi":  # which has no times, only an order
            second = float((frame.pts - origin) * tick) - early
        yield second, frame
        second += step


def _turning() -> Callable[[Any], np.ndarray]:
    """Decoded frames to upright RGB by the matrix they name; unnamed, it is BT.709 from 720 lines up, else BT.601."""
    from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

    accurate = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    reformatter = VideoReformatter()

    def turn(frame: Any) -> np.ndarray:
        unnamed = frame.colorspace == _UNSPECIFIED and frame.height >= 720
        picture = reformatter.reformat(
            frame,
            format="rgba" if any(part.is_alpha for part in frame.format.components) else "rgb24",
            src_colorspace=Colorspace.ITU709 if unnamed else None,
            interpolation=accurate,
            threads=1,
        ).to_ndarray()
        return _upright(_on_black(picture) if picture.shape[-1] == 4 else picture, frame)

    return turn


def _upright(rgb: np.ndarray, frame: Any) -> np.ndarray:
    """A phone films lying down and says how the film is to be turned: x' = a x + c y, y' = b x + d y."""
    a, b, c, d = _display(frame)
    if abs(b) > abs(a):
        rgb, a, d = rgb.swapaxes(0, 1), c, b
    return np.ascontiguousarray(rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _display(frame: Any) -> tuple[int, int, int, int]:
    """a, b, c, d of the display matrix, 65536 for 1."""
    found = [data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"]
    if not found:
        return 65536, 0, 0, 65536
    a, b, _, c, d = struct.unpack_from("=5i", bytes(found[0]))
    return a, b, c, d


def _movie_facts(file: Path) -> VideoInfo:
    # One thread: to close others with work in hand stands still for ever in a program that has switched av's log on.
    with _movie(file, threads=1) as (container, stream):
        frame = next(container.decode(stream), None)
        if frame is None:
            raise _unreadable(file)
        a, b, _, _ = _display(frame)
        size = (frame.width, frame.height)[:: -1 if abs(b) > abs(a) else 1]
        pixel_format = frame.format.name
    with _movie(file) as (container, stream):
        frames, length = _extent(file, stream) or _counted(container, stream)
        rate = _rate(container, stream, frames=frames, length=length)
        if frames > 1 and not rate:
            raise BadMedia(f"{shown_name(file.name)} does not say how long its frames last", do="Convert it to MP4")
        text = {key.lower(): value for key, value in container.metadata.items() if key.lower() not in OWN_KEYS}
        return VideoInfo(
            name=file.name,
            width=size[0],
            height=size[1],
            frames=frames,
            fps=rate,
            seconds=frames / rate if rate else length,
            codec=stream.codec_context.codec.canonical_name,
            pixel_format=pixel_format,
            bytes=file.stat().st_size,
            sound=codec_of(container),
            metadata=text,
        )


def _extent(file: Path, stream: Any) -> tuple[int, float] | None:
    """(frames, seconds) by the index in an MP4's header, if it has one and the file holds all that it promises."""
    if not (stream.frames and stream.duration and len(stream.index_entries) >= stream.frames):
        return None
    size = file.stat().st_size
    entries = [(entry.pos + entry.size <= size, entry.is_discard) for entry in stream.index_entries]
    if not all(there for there, _ in entries):
        part = sum(there for there, _ in entries) / len(entries)
        raise BadMedia(
            f"{shown_name(file.name)} is cut short: {part:.0%} of its frames are there", do="Copy the whole file"
        )
    return sum(not cut for _, cut in entries), float(stream.duration * stream.time_base)


def _counted(container: Any, stream: Any) -> tuple[int, float]:
    """(frames, seconds) by the packets, as WebM, GIF and streamed MP4 do not say: it decodes nothing."""
    times = sorted(
        (packet.pts, packet.duration or 0)
        for packet in container.demux(stream)
        if packet.size and packet.pts is not None and not packet.is_discard
    )
    if not times:
        return 0, 0.0
    last = times[-1][1] or (times[-1][0] - times[0][0]) / max(1, len(times) - 1)
    return len(times), float((times[-1][0] - times[0][0] + last) * stream.time_base)


def _rate(container: Any, stream: Any, *, frames: int, length: float) -> float:
    """Frames per second: the rate that the file names unless its frames and its length say another.

    A GIF's own rate is that of most of its frames: 24 per second are 4, 4, 4, 5 hundredths, and it says 25.
    """
    named = float(stream.average_rate or 0)
    if not length:
        return named
    near = max(2 * float(stream.time_base), 0.01 * length)
    if named and container.format.name != "gif" and math.isclose(frames / named, length, abs_tol=near):
        return named
    return frames / length


@contextmanager
def _movie(file: Path, *, threads: int = 4) -> Iterator[tuple[Any, Any]]:
    """A file's container and its video stream."""
    import av

    with _readable(file), av.open(os.path.abspath(file), options=FILMS_ALONE) as container:
        films = films_of(container)
        if not films:
            what = "sound and no video" if container.streams.audio else "no video"
            raise BadMedia(f"{shown_name(file.name)} holds {what}", _POSSIBLE)
        stream = films[0]
        if stream.codec_context is None or stream.codec_context.codec.canonical_name not in PICTURE_CODECS:
            raise BadMedia(f"{shown_name(file.name)} has a codec that is not read here", do="Convert it to MP4 (H.264)")
        if stream.width * stream.height > MOST_PIXELS:
            raise _too_large(file.name, f"{stream.width}x{stream.height}")
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # what the frames themselves say may be more
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO"
        yield container, stream


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """What a decoder stumbles over is told as one BadMedia line, without its own words: they may hold addresses."""
    import av

    try:
        yield
    except MemoryError as error:
        asked = f"{shown_name(file.name)} needs more memory than there is"
        raise BadMedia(asked, do="Shrink it first") from error
    except (av.error.FFmpegError, OSError, SyntaxError, ValueError, ArithmeticError, LookupError) as error:
        raise _unreadable(file) from error
    except (EOFError, TypeError, RuntimeError, struct.error) as error:  # which Pillow lets through
        raise _unreadable(file) from error


def _unreadable(file: Path, do: str = "It may be damaged or cut short") -> BadMedia:
    return BadMedia(f"{shown_name(file.name)} cannot be read as a video or picture", _POSSIBLE, do)


def _too_large(name: str, size: str = "") -> BadMedia:
    has = f"has {size} px" if size else "has too many pixels"
    possible = f"At most {MOST_PIXELS // 1_000_000} million pixels are read"
    return BadMedia(f"{shown_name(name)} {has}", possible, "Shrink it first")
