"""Sound in and out: read as it is needed, laid on a film where its clips lie, at one rate everywhere in the house."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from pydantic import BaseModel

from cinecanvas.errors import BadMedia
from cinecanvas.media.allowed import FILMS_ALONE, SOUND_CODECS
from cinecanvas.media.destination import shown_name

Sound: TypeAlias = np.ndarray
"""Stereo, float32 in -1..1, (n, 2), `RATE` samples a second."""

RATE = 48_000  # 1/s, the one that Opus and AAC both know

_BLOCK = RATE // 10
_FADE = 5 * RATE // 1000  # samples: long enough that a cut does not click, too short to be heard as a fade
# A moment may be off by this much before it counts as a gap: Matroska rounds to 1 ms, and a lost AAC frame is 21.
_SLACK = 15 * RATE // 1000
_RUN_IN = 0.5  # s decoded before a second that is sought: Opus wants 0.08, and the first frames after a jump are noise
_RATES = (4_000, 768_000)  # 1/s; beyond, a small file could ask for any amount of memory


class Piece(BaseModel, frozen=True):
    """A part of a clip's sound, `seconds` from its second `begin` on, and the second of the film at which it is heard.

    media: the digest of the clip.
    """

    media: str
    at: float
    begin: float
    seconds: float


class Tape:
    """Sound taken off in stretches as long as one likes; after its end comes silence."""

    def __init__(self, blocks: Iterable[Sound]) -> None:
        self._blocks, self._left = iter(blocks), _silent(0)

    def take(self, count: int) -> Sound:
        """The next `count` samples."""
        parts = [self._left[:count]]
        self._left, missing = self._left[count:], count - len(parts[0])
        while missing and (block := next(self._blocks, None)) is not None:
            parts.append(block[:missing])
            self._left, missing = block[missing:], missing - len(parts[-1])
        return np.concatenate([*parts, _silent(missing)])


class Voice:
    """Sound that comes in pieces, at any rate, as blocks that a tape takes off; where none has come yet, silence."""

    def __init__(self, rate: int) -> None:
        from av import AudioResampler

        self._rate, self._blocks, self._owed = rate, deque[Sound](), 0
        self._resampler = AudioResampler(format="fltp", layout="stereo", rate=RATE)

    def add(self, samples: np.ndarray, *, last: bool = False) -> None:
        """What is heard next: float32 (n, 1 or 2); last: nothing comes after it."""
        from av import AudioFrame

        if len(samples):
            stereo = np.broadcast_to(samples, (len(samples), 2)).T
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(stereo), format="fltp", layout="stereo")
            frame.sample_rate = self._rate
            self._keep(self._resampler.resample(frame))
        if last:
            self._keep(self._resampler.resample(None))

    def _keep(self, frames: Iterable[Any]) -> None:
        for _, block in _numbered(frames, 0):
            late, self._owed = block[self._owed :], max(0, self._owed - len(block))
            self._blocks.append(late)

    def __iter__(self) -> Iterator[Sound]:
        while True:
            if not self._blocks:  # silence stands for what is late, which is not heard any more
                self._owed += _FADE
            yield self._blocks.popleft() if self._blocks else _silent(_FADE)


def amid(
    made: Iterable[Sound], pieces: Sequence[Piece], find: Callable[[str], Path], *, seconds: float
) -> Iterator[Sound]:
    """Sound that was made for a film of `seconds`, and where a piece is heard, that instead."""
    total, tape, laid = round(seconds * RATE), Tape(made), Tape(mixed(pieces, find, seconds=seconds))
    yield _silent(0)  # so that a film is known to have sound before any of it is made
    for at in range(0, total, _BLOCK):
        count = min(_BLOCK, total - at)
        n = np.arange(at, at + count, dtype=np.float32)[:, None] + 0.5
        cover = np.max([_covers(piece, n, total=total) for piece in pieces], axis=0) if pieces else 0.0
        yield np.float32(1 - cover) * tape.take(count) + laid.take(count)


def _covers(piece: Piece, n: np.ndarray, *, total: int) -> np.ndarray:
    """How far a piece stands before other sound at those samples, 0..1."""
    first, stop = round(piece.at * RATE), round((piece.at + piece.seconds) * RATE)
    begins = (n - first) / _FADE if first > 0 else np.ones_like(n)
    ends = (stop - n) / _FADE if stop < total else np.ones_like(n)
    return np.clip(np.minimum(begins, ends), 0, 1)


def mixed(
    pieces: Sequence[Piece], find: Callable[[str], Path], *, seconds: float, closed: bool = False
) -> Iterator[Sound]:
    """The sound of a film of `seconds`: every piece at its place, silence elsewhere; no pieces, no sound at all.

    A piece fades in and out over 5 ms where it is cut; where the film begins and ends it is not, unless it is closed.
    """
    total = round(seconds * RATE) if pieces else 0
    tapes = [Tape(_laid(piece, find, total=total, closed=closed)) for piece in pieces]
    for at in range(0, total, _BLOCK):
        count = min(_BLOCK, total - at)
        # a file of floats may hold what is no number
        yield np.clip(np.nan_to_num(sum((tape.take(count) for tape in tapes), _silent(count))), -1, 1)


def read(path: str | os.PathLike[str], *, start: float = 0.0) -> Iterator[Sound]:
    """The sound of a film from a second on; where there is none yet, or it cannot be decoded, there is silence.

    Seconds count from the first frame of the picture, so that the two stay together.
    """
    at = math.ceil(start * RATE - 1e-6)
    for stands, block in _decoded(Path(path), start):
        yield from _silence(stands - at)
        at = max(at, stands)
        fresh = block[at - stands :]
        at += len(fresh)
        yield fresh


def check_sound(path: str | os.PathLike[str]) -> None:
    """Refuse a film whose sound cannot be decoded at all, before anybody counts on it."""
    file = Path(path)
    with _opened(file) as (container, stream, _):
        packets = 0
        for packet in container.demux(stream):
            packets += packet.size > 0
            for frame in _frames(stream, packet):
                _kind(frame)
                return
    if packets:
        raise _unreadable(file)


def stored(path: str | os.PathLike[str]) -> Iterator[Sound]:
    """All the sound that a film holds, in blocks, without the silences between them: what there is to decode."""
    for _, block in _decoded(Path(path), 0.0):
        yield block


def codec_of(container: Any) -> str:
    """The name of the codec of a container's sound; "" if it has none."""
    if not container.streams.audio:
        return ""
    context = container.streams.audio[0].codec_context
    return context.codec.canonical_name if context is not None else "unknown"


def films_of(container: Any) -> list[Any]:
    """Its streams of moving pictures: the cover of a song is not one."""
    import av

    covers = av.stream.Disposition.attached_pic
    return [stream for stream in container.streams.video if not stream.disposition & covers]


def _laid(piece: Piece, find: Callable[[str], Path], *, total: int, closed: bool) -> Iterator[Sound]:
    """A piece on a film of `total` samples, after the silence before it."""
    first = round(piece.at * RATE)
    count = min(round(piece.seconds * RATE), total - first)
    yield from _silence(first)
    tape = Tape(read(find(piece.media), start=piece.begin))
    for here in range(0, count, _BLOCK):
        block = tape.take(min(_BLOCK, count - here))
        n = np.arange(here, here + len(block), dtype=np.float32)[:, None] + 0.5
        if first > 0 or closed:
            block = block * np.minimum(1, n / _FADE)
        if first + count < total or closed:
            block = block * np.minimum(1, (count - n) / _FADE)
        yield block


def _decoded(file: Path, start: float) -> Iterator[tuple[int, Sound]]:
    """Blocks from a while before `start` on, and the sample of the film at which each stands."""
    from av import AudioResampler

    with _opened(file) as (container, stream, origin):
        if start > _RUN_IN:
            container.seek(int((start - _RUN_IN + origin) / float(stream.time_base)), stream=stream)
        resampler, kind, at, due = None, None, 0, 0.0
        for packet in container.demux(stream):
            for frame in _frames(stream, packet):
                stands = due if frame.time is None else (frame.time - origin) * RATE
                if resampler is None or kind != _kind(frame) or abs(stands - due) > _SLACK:
                    if resampler is not None:
                        yield from _numbered(resampler.resample(None), at)
                    kind, at, due = _kind(frame), round(stands), stands
                    resampler = AudioResampler(format="fltp", layout="stereo", rate=RATE)
                due += frame.samples * RATE / frame.sample_rate
                for one, block in _numbered(resampler.resample(frame), at):
                    yield one, block
                    at = one + len(block)
        if resampler is not None:
            yield from _numbered(resampler.resample(None), at)


def _frames(stream: Any, packet: Any) -> list[Any]:
    """What a packet holds; nothing if it is broken: a scratch costs a moment, not the film."""
    import av

    try:
        return [frame for frame in stream.decode(packet) if frame.samples]
    except av.error.FFmpegError:  # how, depends on what the bytes happen to say
        return []


def _kind(frame: Any) -> tuple[str, str, int]:
    """What a resampler is made for; a stream may change it on the way."""
    if not _RATES[0] <= frame.sample_rate <= _RATES[1]:
        raise ValueError(f"{frame.sample_rate} samples a second")
    return frame.format.name, frame.layout.name, frame.sample_rate


def _numbered(frames: Iterable[Any], at: int) -> Iterator[tuple[int, Sound]]:
    """Frames of a resampler as blocks, each with its first sample, counted from `at`."""
    for frame in frames:
        block = frame.to_ndarray().T
        yield at, block
        at += len(block)


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, Any, float]]:
    """A film's container, its stream of sound, and the second at which its picture begins."""
    import av

    try:
        with av.open(os.path.abspath(file), options=FILMS_ALONE) as container:
            if codec_of(container) not in SOUND_CODECS:
                raise _unreadable(file)
            picture = next(iter(films_of(container)), None)
            begins = picture and picture.start_time and picture.time_base and picture.start_time * picture.time_base
            yield container, container.streams.audio[0], float(begins or 0)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(file) from error


def _unreadable(file: Path) -> BadMedia:
    return BadMedia(
        f"The sound of {shown_name(file.name)} cannot be read", do="Convert it to AAC or Opus, or remove it"
    )


def _silent(count: int) -> Sound:
    return np.zeros((count, 2), dtype=np.float32)


def _silence(count: int) -> Iterator[Sound]:
    """So many samples of silence, in blocks; none if it is less than none."""
    for at in range(0, count, _BLOCK):
        yield _silent(min(_BLOCK, count - at))
