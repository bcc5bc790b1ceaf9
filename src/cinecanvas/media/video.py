"""Frames are encoded as they are made and decoded as they are needed: memory does not grow with a video's length."""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from cinecanvas.errors import BadMedia, BadRequest, CannotWrite, Unsupported
from cinecanvas.media.audio import RATE, Sound, Tape
from cinecanvas.media.decode import OWN_KEYS, VideoInfo, facts, moments
from cinecanvas.media.destination import (
    NUMBERED,
    Destination,
    check_destination,
    destination,
    land,
    shown_name,
    told,
    written_aside,
)
from cinecanvas.media.encode import LIVE, Encoder, Look, Movie, encoder, holds_sound

__all__ = ["Frames", "VideoInfo", "check_destination", "info", "read", "read_at", "resized", "write", "writing"]

Frames: TypeAlias = np.ndarray
"""RGB, uint8, (t, H, W, 3)."""

_MOST_SIDE = 16383  # px, the most that WebP can hold, and H.264 all but one
_LEAST_FPS, _MOST_FPS, _MOST_GIF_FPS = Fraction(1, 10), 240, 50
_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,78}")  # Matroska gives keys back in capitals, PNG holds 79 letters


def write(
    frames: Iterable[np.ndarray],
    path: str | os.PathLike[str],
    *,
    fps: float | Fraction,
    size: tuple[int, int] | None = None,
    metadata: Mapping[str, str] = MappingProxyType({}),
    quality: int | None = None,
    sound: Iterable[Sound] = (),
) -> VideoInfo:
    """Encode RGB uint8 frames, each (t, H, W, 3) or (H, W, 3), in the format that the path's ending names.

    size: (width, height) in px to resize to on the way; metadata: lower-case keys such as title and comment;
    quality: 1..100, higher is better; crf = 51 (WebM 63) x (100 - quality) / 100, 67 if None; GIF and PNG ignore it;
    sound: blocks (n, 2) float32 at 48 kHz, cut or followed by silence to the length of the film; none, no sound track.
    One frame to .png, .jpg or .webp is that file, several are NAME-0001.png and so on; folder/ and %04d always number.
    """
    source = _each(frames)
    first = next(source, None)
    if first is None:
        shown = destination(path).shown
        raise BadRequest(f"There is nothing to write to {shown}: no frame came", do="Give at least one frame")
    size = size or (first.shape[1], first.shape[0])
    with writing(path, fps=fps, size=size, metadata=metadata, quality=quality, sound=sound) as film:
        for frame in itertools.chain([first], source):
            film.add(frame)
    return film.info


class Film:
    """A film on its way into its file; `info` is what the file holds, once it is finished."""

    info: VideoInfo

    def __init__(self, shown: str, look: Look, tape: Tape, encoders: Sequence[Encoder]) -> None:
        self.count, self._shown, self._look, self._tape, self._encoders = 0, shown, look, tape, encoders

    def add(self, frame: np.ndarray) -> None:
        """One more frame (H, W, 3) uint8, of any size, and the sound that is heard while it stands."""
        begins, self.count = self.count, self.count + 1
        first, stop = (round(at * RATE / self._look.rate) for at in (begins, self.count))
        heard = self._tape.take(stop - first if self._look.sound else 0)
        with told(self._shown):
            fitted = resized(frame, (self._look.width, self._look.height))
            for encoder in self._encoders:
                encoder.add(fitted, heard)


@contextmanager
def writing(
    path: str | os.PathLike[str],
    *,
    fps: float | Fraction,
    size: tuple[int, int],
    metadata: Mapping[str, str] = MappingProxyType({}),
    quality: int | None = None,
    sound: Iterable[Sound] = (),
    live: Path | None = None,
) -> Iterator[Film]:
    """The same as `write` for who has frames one by one; the file appears when the block ends, and not if it fails.

    live: a fragmented MP4 that can be watched meanwhile, a frame behind at most; it goes when the block ends.
    """
    check_destination(path)  # again: what has become of the place since, and never replace a device
    place = destination(path)
    rate, text, quality = _rate(fps, ending=place.ending), _text(metadata), _quality(quality)
    asked = _size(size)
    width, height = _even(asked) if live or place.ending == ".mp4" else asked
    blocks = _blocks(sound)
    begins = next(blocks, None)
    tape = Tape(blocks if begins is None else itertools.chain([begins], blocks))
    look = Look(width, height, rate, text, quality, sound=begins is not None and holds_sound(place.ending))
    with written_aside(place) as folder, ExitStack() as open_ones:
        out = open_ones.enter_context(closing(encoder(folder, ending=place.ending, shown=place.shown, look=look)))
        shown = [open_ones.enter_context(_shown_live(live, place.shown, look))] if live else []
        film = Film(place.shown, look, tape, [out, *shown])
        yield film
        if not film.count:
            raise BadRequest(f"There is nothing to write to {place.shown}: no frame came", do="Give at least one frame")
        with told(place.shown):
            files = out.finish()
        made = _checked(files, count=film.count, shown=place.shown)
        with told(place.shown):
            name = land(files, place)
    notes = (
        *_size_note(asked, (width, height)),
        *_sound_note(place, lost=begins is not None and not look.sound),
        *_leftover_note(place, name=name, count=film.count),
    )
    seconds = float(film.count / rate)
    film.info = made.model_copy(update={"name": name, "fps": float(rate), "seconds": seconds, "notes": notes})


@contextmanager
def _shown_live(file: Path, shown: str, look: Look) -> Iterator[Encoder]:
    """An encoder whose file can be watched as it grows."""
    try:
        with closing(Movie(file, ending=LIVE, shown=shown, look=look)) as out:
            yield out
    finally:
        file.unlink(missing_ok=True)


def read(path: str | os.PathLike[str], *, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
    """Frames start..stop of a video, picture, pattern or folder/ of pictures: (H, W, 3) uint8 RGB, in time order."""
    files, _ = _found(path)
    for _, frame in itertools.islice(itertools.chain.from_iterable(map(moments, files)), start, stop):
        yield frame()


def read_at(path: str | os.PathLike[str], seconds: Sequence[float]) -> Iterator[np.ndarray]:
    """The frame (H, W, 3) that stands at each of these rising seconds of a file; the last one stands on for ever.

    It begins at the key frame before the first of them: a part of a long film costs no more than that part.
    """
    if not seconds:
        return
    (file,), _ = _found(path)
    coming = moments(file, start=seconds[0])
    (_, frame), later = next(coming), next(coming, None)
    for second in seconds:
        while later is not None and later[0] <= second + 1e-6:  # which forgives 3 * (8 / 24) = 0.9999999
            (_, frame), later = later, next(coming, None)
        yield frame()


def info(path: str | os.PathLike[str]) -> VideoInfo:
    """What a video, picture, pattern or folder/ of pictures holds, upright; a movie is not decoded for it."""
    files, name = _found(path)
    return _whole(files).model_copy(update={"name": name})


def _each(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Batches to frames (H, W, 3), refused if they are not RGB bytes or change their size on the way."""
    shape: tuple[int, ...] = ()
    for item in frames:
        if not isinstance(item, np.ndarray) or item.dtype != np.uint8 or item.ndim not in (3, 4) or item.shape[-1] != 3:
            got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
            raise BadRequest(f"Frames came as {got}", "Frames are numpy uint8 arrays, RGB, (t, height, width, 3)")
        for frame in item if item.ndim == 4 else item[None]:
            shape = shape or frame.shape
            if frame.shape != shape:
                asked = f"A frame of {frame.shape[1]}x{frame.shape[0]} came after frames of {shape[1]}x{shape[0]}"
                raise BadRequest(asked, "All frames of a video have one size")
            yield frame


def _blocks(sound: Iterable[Sound]) -> Iterator[Sound]:
    """Sound as it comes, refused if it is not stereo floats; an encoder fails on what is no number."""
    for item in sound:
        if not isinstance(item, np.ndarray) or item.dtype != np.float32 or item.ndim != 2 or item.shape[1] != 2:
            got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
            raise BadRequest(f"Sound came as {got}", f"Sound is numpy float32 arrays, (n, 2), at {RATE} Hz")
        if not np.isfinite(item).all():
            raise BadRequest("Sound came with samples that are not finite", "Samples are between -1 and 1")
        yield item


def resized(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame (H, W, 3) at size (width, height) px: Lanczos to shrink; to enlarge bicubic, whose halos are smaller."""
    if (frame.shape[1], frame.shape[0]) == size:
        return np.ascontiguousarray(frame)
    from PIL import Image

    smaller = size[0] * size[1] < frame.shape[0] * frame.shape[1]
    kernel = Image.Resampling.LANCZOS if smaller else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(size, kernel))


def _rate(fps: float | Fraction, *, ending: str) -> Fraction:
    """Frames per second as a ratio small enough for every container."""
    most = _MOST_GIF_FPS if ending == ".gif" else _MOST_FPS
    if not math.isfinite(fps) or not _LEAST_FPS <= fps <= most:
        kind = Unsupported if ending == ".gif" and _MOST_GIF_FPS < fps <= _MOST_FPS else BadRequest
        unit = "GIF counts hundredths of a second; ask" if kind is Unsupported else "Ask"
        raise kind(f"{float(fps):g} frames per second were asked", f"{unit} {float(_LEAST_FPS):g} to {most}")
    return Fraction(fps if isinstance(fps, Fraction) else float(fps)).limit_denominator(1001)


def _size(size: tuple[int, int]) -> tuple[int, int]:
    width, height = size
    if not (1 <= width <= _MOST_SIDE and 1 <= height <= _MOST_SIDE):
        raise BadRequest(f"A size of {width}x{height} px was asked", f"Each side can be 1 to {_MOST_SIDE} px")
    return int(width), int(height)


def _even(size: tuple[int, int]) -> tuple[int, int]:
    """H.264 halves the colours both ways, so it needs even sides; scaled up by 1 px nothing is cut off."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def _quality(quality: int | None) -> int:
    if quality is not None and not 1 <= quality <= 100:
        raise BadRequest(f"A quality of {quality} was asked", "Quality is 1 to 100, higher is better")
    return quality or 0


def _text(metadata: Mapping[str, str]) -> dict[str, str]:
    """Metadata that every container keeps; a stray byte in a prompt must not cost the film, so it is replaced."""
    for key in metadata:
        if not _KEY.fullmatch(key) or key in OWN_KEYS:
            raise BadRequest(f"{key!r} cannot be a metadata key", "Keys are lower-case letters, digits, _ . and -")
    return {key: value.encode("utf-8", "replace").decode().replace("\0", "?") for key, value in metadata.items()}


def _checked(files: list[Path], *, count: int, shown: str) -> VideoInfo:
    """What was written, read back: the last chance to see that the file is not whole."""
    try:
        made = _whole(files)
    except BadMedia as error:
        raise CannotWrite(f"{shown} came out damaged", do="Check the disk") from error
    if made.frames != count:
        raise CannotWrite(f"{shown} came out with {made.frames} frames of {count}", do="Check the disk")
    return made


def _size_note(asked: tuple[int, int], size: tuple[int, int]) -> tuple[str, ...]:
    if asked == size:
        return ()
    return (f"scaled from {asked[0]}x{asked[1]} to {size[0]}x{size[1]}: H.264 needs even sides",)


def _sound_note(place: Destination, *, lost: bool) -> tuple[str, ...]:
    return (f"the sound was left out: {place.ending} holds none",) if lost else ()


def _leftover_note(place: Destination, *, name: str, count: int) -> tuple[str, ...]:
    """Pictures of a longer run before this one stay (they may be somebody's), but who reads the folder must know."""
    if name != place.pattern or not (place.folder / (name % (count + 1))).exists():
        return ()
    return (f"older pictures from {name % (count + 1)} on are still there",)


def _found(path: str | os.PathLike[str]) -> tuple[list[Path], str]:
    """The files of a path and their common name; numbered pictures count from 0 or 1 up to the first gap."""
    text = os.fspath(path)
    if "\0" not in text and os.path.isfile(text):
        return [Path(text)], Path(text).name
    folder, pattern = (Path(text), "%04d.png") if text.endswith("/") else (Path(text).parent, Path(text).name)
    if "\0" not in text and NUMBERED.fullmatch(pattern):
        numbers = itertools.count(0 if (folder / (pattern % 0)).is_file() else 1)
        files = list(itertools.takewhile(Path.is_file, (folder / (pattern % number) for number in numbers)))
        if files:
            return files, pattern
    raise BadMedia(f"There is no file {shown_name(text)}", do="Check the name")


def _whole(files: list[Path]) -> VideoInfo:
    """The first file's facts, with the count and bytes of all."""
    first = facts(files[0])
    if len(files) == 1:
        return first
    return first.model_copy(update={"frames": len(files), "bytes": sum(file.stat().st_size for file in files)})
