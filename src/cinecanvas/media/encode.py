"""The encoders: each takes frames and their sound into a folder, and says at the end which files it made there."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from cinecanvas.errors import Unsupported
from cinecanvas.media.audio import RATE, Sound
from cinecanvas.media.destination import cannot_write

_THREADS = 4  # fixed, not the number of cores: another number of threads may give other bytes
# On pictures such as 64x48 and 96x64 x264's macroblock tree gave up to 19 different files in 60 runs on the same frames
# (one thread or four, seen at no size from 80x80 up); without it always one. Tiny files lose nothing that matters.
_TREELESS = 128 * 128  # px


@dataclass(frozen=True)
class Look:
    """How frames are encoded: width, height (px), rate (1/s), metadata, quality 1..100 (0: our choice), with sound."""

    width: int
    height: int
    rate: Fraction
    metadata: Mapping[str, str]
    quality: int = 0
    sound: bool = False


class Encoder(Protocol):
    """Frames (H, W, 3) uint8 RGB in, in time order, each with the sound while it stands, maybe empty; files out."""

    def add(self, frame: np.ndarray, sound: Sound) -> None: ...

    def finish(self) -> list[Path]: ...

    def close(self) -> None: ...


def holds_sound(ending: str) -> bool:
    """Whether files of this ending can have sound."""
    return ending in _FORMATS and bool(_FORMATS[ending].sound)


def encoder(folder: Path, *, ending: str, shown: str, look: Look) -> Encoder:
    """The encoder of an ending, writing into `folder`; its failures speak of `shown`."""
    if ending in _FORMATS:
        return Movie(folder / f"movie{ending}", ending=ending, shown=shown, look=look)
    return Pictures(folder, ending=ending, look=look)


@dataclass(frozen=True)
class _Format:
    """What FFmpeg is told for an ending; crf runs from 0 to `worst` and is taken at `quality` if none is asked."""

    muxer: str
    codec: str
    pixel_format: str
    codec_options: Mapping[str, str]
    muxer_options: Mapping[str, str]
    worst: int = 0
    quality: int = 67
    jump: float = 2.0  # s between key frames, to which a player can jump
    sound: str = ""  # the codec of its sound; "": it holds none
    sound_bits: int = 0  # 1/s


LIVE = "live"  # in the place of an ending: an MP4 that can be watched while it grows

_FORMATS: dict[str, _Format] = {
    # bitexact leaves out the encoder's version and, in WebM, a random number: the same frames give the same bytes.
    ".mp4": _Format(
        "mp4",
        "libx264",
        "yuv420p",
        {"preset": "medium"},
        {"movflags": "+faststart+use_metadata_tags", "fflags": "+bitexact"},
        worst=51,
        sound="aac",
        sound_bits=160_000,
    ),
    ".webm": _Format(
        "webm",
        "libvpx-vp9",
        "yuv420p",
        {"b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
        {"fflags": "+bitexact"},
        worst=63,
        sound="libopus",
        sound_bits=128_000,
    ),
    # every key frame begins a fragment, and nothing waits for a later frame: a second behind the maker at most
    LIVE: _Format(
        "mp4",
        "libx264",
        "yuv420p",
        {"preset": "ultrafast", "tune": "zerolatency"},
        {"movflags": "+frag_keyframe+empty_moov+default_base_moof", "fflags": "+bitexact", "flush_packets": "1"},
        worst=51,
        jump=1.0,
        sound="aac",
        sound_bits=128_000,
    ),
    ".gif": _Format("gif", "gif", "pal8", {}, {"loop": "0", "fflags": "+bitexact"}),
}


class Movie:
    """One file of frames through FFmpeg: MP4 (H.264, AAC) and WebM (VP9, Opus) in BT.709, GIF with palettes."""

    def __init__(self, file: Path, *, ending: str, shown: str, look: Look) -> None:
        import av

        self._file, self._shown, self._look, self._count = file, shown, look, 0
        form = _FORMATS[ending]
        with self._told():
            self._container = av.open(str(file), "w", format=form.muxer, options=dict(form.muxer_options))
            self._container.metadata.update(look.metadata)
            stream = self._container.add_stream(form.codec, rate=look.rate, options=_options(form, look))
            self._stream = cast(Any, stream)
            self._stream.width, self._stream.height = look.width, look.height
            self._stream.pix_fmt = form.pixel_format
            self._stream.codec_context.time_base = 1 / look.rate
            self._stream.codec_context.thread_count = _THREADS
            palette = form.pixel_format == "pal8"
            self._convert = _Palette(look) if palette else _Bt709(self._stream.codec_context)
            self._sound = _Track(self._container, form) if look.sound and form.sound else _Mute()

    def add(self, frame: np.ndarray, sound: Sound) -> None:
        import av

        with self._told():
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = self._count, 1 / self._look.rate
            self._count += 1
            for converted in self._convert(picture):
                self._container.mux(self._stream.encode(converted))
            self._sound.add(sound)

    def finish(self) -> list[Path]:
        with self._told():
            for converted in self._convert(None):
                self._container.mux(self._stream.encode(converted))
            self._container.mux(self._stream.encode(None))
            self._sound.finish()
            self._container.close()
        return [self._file]

    def close(self) -> None:
        # Closing an unfinished file makes FFmpeg write its end; on a full disk that fails again and says nothing new.
        with suppress(Exception):
            self._container.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """FFmpeg's failures: those of the system are ours to tell; else the encoder refuses what it was given."""
        import av

        try:
            yield
        except av.error.FFmpegError as error:
            if error.errno is not None and error.errno in errno.errorcode and error.errno != errno.EINVAL:
                raise cannot_write(self._shown, error.errno) from error
            asked = f"The encoder of {self._shown} does not take {self._look.width}x{self._look.height}"
            raise Unsupported(f"{asked} at {float(self._look.rate):g} frames per second") from error


class _Track:
    """The sound beside the frames of a movie; what an encoder puts before its first sample, the file tells to skip."""

    def __init__(self, container: Any, form: _Format) -> None:
        from av.codec.context import Flags

        self._container, self._count = container, 0
        self._stream = container.add_stream(form.sound, rate=RATE)
        self._stream.layout, self._stream.bit_rate = "stereo", form.sound_bits
        self._stream.codec_context.flags |= Flags.bitexact

    def add(self, sound: Sound) -> None:
        import av

        if not len(sound):
            return
        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound.T), format="fltp", layout="stereo")
        block.sample_rate, block.pts, block.time_base = RATE, self._count, Fraction(1, RATE)
        self._count += len(sound)
        self._container.mux(self._stream.encode(block))

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))


class _Mute:
    """No sound."""

    def add(self, sound: Sound) -> None: ...

    def finish(self) -> None: ...


_PILLOW = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


class Pictures:
    """Numbered pictures through Pillow: PNG (lossless, metadata in its text chunks), JPEG and WebP."""

    def __init__(self, folder: Path, *, ending: str, look: Look) -> None:
        self._folder, self._ending, self._files = folder, ending, list[Path]()
        self._options = _picture_options(ending, look)

    def add(self, frame: np.ndarray, sound: Sound) -> None:
        from PIL import Image

        file = self._folder / f"{len(self._files)}.aside{self._ending}"
        # Through memory: writing to the file itself, Pillow 13 takes a half-written JPEG on a full disk for a success.
        encoded = io.BytesIO()
        Image.fromarray(frame).save(encoded, _PILLOW[self._ending], **self._options)
        file.write_bytes(encoded.getbuffer())
        self._files.append(file)

    def finish(self) -> list[Path]:
        return self._files

    def close(self) -> None:
        """Nothing is open between two pictures."""


def _options(form: _Format, look: Look) -> dict[str, str]:
    """Constant quality, and key frames at even distances."""
    if not form.worst:
        return dict(form.codec_options)
    crf = round(form.worst * (100 - (look.quality or form.quality)) / 100)
    steady = {"x264-params": "mbtree=0"} if form.codec == "libx264" and look.width * look.height <= _TREELESS else {}
    return {**form.codec_options, **steady, "crf": str(crf), "g": str(max(1, round(form.jump * look.rate)))}


def _picture_options(ending: str, look: Look) -> dict[str, Any]:
    from PIL.PngImagePlugin import PngInfo

    if ending != ".png":
        return {"quality": look.quality or 92, **({"subsampling": 0} if ending != ".webp" else {})}
    text = PngInfo()
    for key, value in look.metadata.items():
        text.add_itxt(key, value)
    return {"pnginfo": text}


class _Bt709:
    """RGB to limited-range BT.709 yuv420p; left alone, FFmpeg converts as BT.601 under the BT.709 name."""

    def __init__(self, context: Any) -> None:
        from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

        context.color_range, context.color_primaries, context.color_trc, context.colorspace = 1, 1, 1, 1
        self._reformatter, self._matrix = VideoReformatter(), Colorspace.ITU709
        self._filter = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
        self._filter |= Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP

    def __call__(self, picture: Any) -> Iterator[Any]:
        if picture is not None:
            yield self._reformatter.reformat(
                picture,
                format="yuv420p",
                dst_colorspace=self._matrix,
                src_color_range="JPEG",
                dst_color_range="MPEG",
                interpolation=self._filter,
                threads=1,
            )


class _Palette:
    """RGB to 256 colours chosen for each frame, so that nothing waits for the last one.

    The ordered (Bayer) pattern stands still in time; error diffusion boils (a slow sky flickers by 2.0 against 1.6).
    """

    def __init__(self, look: Look) -> None:
        import av

        self._graph = graph = av.filter.Graph()
        pixels = av.VideoFormat("rgb24")
        source = graph.add_buffer(width=look.width, height=look.height, format=pixels, time_base=1 / look.rate)
        split, choose = graph.add("split"), graph.add("palettegen", "stats_mode=single:reserve_transparent=0")
        use, sink = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=3"), graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(choose, 1, 0)
        choose.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()

    def __call__(self, picture: Any) -> Iterator[Any]:
        import av

        self._graph.push(picture)
        with suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                yield self._graph.pull()
