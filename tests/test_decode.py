"""Whatever people bring is read as they see it, at its true moments, or refused in one line before anything is made."""

from __future__ import annotations

import io
import itertools
import struct
import warnings
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from cinecanvas.errors import BadMedia
from cinecanvas.media import decode
from cinecanvas.media.assets import Store
from cinecanvas.media.decode import moments
from cinecanvas.media.intake import take
from cinecanvas.media.video import info, read, read_at, write

GREYS = (0, 60, 128, 200, 255)
# EXIF's orientation, and the turn (degrees against the clock, mirrored across, mirrored down) that a film says it with
TURNS = {1: (0, False, False), 3: (180, False, False), 6: (-90, False, False), 8: (90, False, False)} | {
    2: (0, True, False), 4: (0, False, True), 5: (90, False, True), 7: (90, True, False)
}  # fmt: skip


def film(
    file: Path,
    frames: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int = 10,
    times: Sequence[int] = (),
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    turn: tuple[int, bool, bool] = (0, False, False),
) -> Path:
    """A film as other programs write it; times in ms."""
    with av.open(str(file), "w", options=container or {}) as out:
        stream: Any = out.add_stream(codec, rate=rate, options=options or {})
        (stream.height, stream.width), stream.pix_fmt = frames[0].shape[:2], pixels
        if any(turn):
            stream.set_display_rotation(turn[0], hflip=turn[1], vflip=turn[2])
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, rate)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgba" if frame.shape[-1] == 4 else "rgb24")
            picture = picture.reformat(format=pixels)
            picture.pts = times[number] if times else number
            picture.time_base = stream.codec_context.time_base
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return file


def flats(levels: Sequence[int], *, size: tuple[int, int] = (16, 32)) -> list[np.ndarray]:
    return [np.full((*size, 3), level, np.uint8) for level in levels]


def corner() -> np.ndarray:
    """A picture (16, 32, 3) that looks another way from every side: red at the top left, blue at the bottom left."""
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:8, :16, 0] = picture[8:, :16, 2] = 220
    return picture


def noise(count: int) -> list[np.ndarray]:
    """Frames (48, 64, 3) of which no two are alike, and each is like its neighbours."""
    rng = np.random.default_rng(0)
    wide = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 50, 3), dtype=np.uint8)).resize((64 + 8 * count, 48)))
    return [wide[:, 8 * i : 8 * i + 64] for i in range(count)]


def far(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


@pytest.mark.parametrize("orientation", TURNS)
def test_a_photo_comes_out_upright(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a.jpg", "a.png", "a.webp"):
        Image.fromarray(corner()).save(tmp_path / name, exif=exif, quality=100)
        (seen,) = read(tmp_path / name)
        with Image.open(tmp_path / name) as stored:
            assert far(seen, np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))) == 0
        assert (info(tmp_path / name).height, info(tmp_path / name).width) == seen.shape[:2]
        assert seen.shape[:2] == ((16, 32) if orientation < 5 else (32, 16))


@pytest.mark.parametrize("orientation", TURNS)
def test_a_phone_s_film_comes_out_upright(tmp_path: Path, orientation: int) -> None:
    """Turned as a photo of the same orientation is."""
    from PIL import ImageOps

    exif, stored = Image.Exif(), Image.fromarray(corner())
    exif[0x0112] = orientation
    still = io.BytesIO()
    stored.save(still, "PNG", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(still)))
    file = film(tmp_path / "a.mp4", [corner()] * 3, turn=TURNS[orientation])
    assert all(seen.shape == upright.shape and far(seen, upright) < 8 for seen in read(file))
    assert (info(file).height, info(file).width) == upright.shape[:2]


@pytest.mark.parametrize(
    ("ending", "codec", "pixels", "options"),
    [
        ("mp4", "libx264", "yuv420p10le", {}),
        ("mp4", "libx264", "yuv444p", {}),
        ("mp4", "libx265", "yuv420p10le", {"x265-params": "log-level=none"}),
        ("mov", "prores_ks", "yuv422p10le", {}),
        ("mkv", "ffv1", "gray16le", {}),
        ("mkv", "ffv1", "gray", {}),
        ("mkv", "ffv1", "gbrp16le", {}),
        ("avi", "mpeg4", "yuv420p", {}),
    ],
)
def test_films_of_any_depth_keep_their_greys(
    tmp_path: Path, ending: str, codec: str, pixels: str, options: dict[str, str]
) -> None:
    file = film(tmp_path / f"a.{ending}", flats(GREYS), codec=codec, pixels=pixels, options=options)
    for seen, level in zip(read(file), GREYS, strict=True):
        assert abs(seen.astype(int) - level).max() <= 3


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "I;16", "1", "P", "LA", "RGBA"])
def test_pictures_of_any_kind_keep_their_greys(tmp_path: Path, mode: str) -> None:
    for level in (0, 255) if mode == "1" else GREYS:
        plain = Image.new("L", (8, 8), level)
        sixteen = Image.fromarray(np.full((8, 8), level * 257, np.uint16))
        picture = sixteen if mode == "I;16" else (plain if mode == "P" else plain.convert("RGB")).convert(mode)
        file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
        picture.save(file)
        (seen,) = read(file)
        assert seen.shape == (8, 8, 3) and abs(seen.astype(int) - level).max() <= 1


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.png", "", ""), ("a.webp", "", ""), ("a.mov", "prores_ks", "yuva444p10le"), ("b.mov", "qtrle", "argb")],
)
def test_what_is_not_there_is_black(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    """Whatever colour hides under it."""
    picture = np.full((16, 32, 4), (200, 100, 100, 255), np.uint8)
    picture[:, 16:, 3] = 0
    if codec:
        film(tmp_path / name, [picture] * 2, codec=codec, pixels=pixels)
    else:
        Image.fromarray(picture).save(tmp_path / name, lossless=True, exact=True)
    seen = next(read(tmp_path / name))
    assert not seen[:, 18:].any() and far(seen[:, :14], picture[:, :14, :3]) < 6


TIMES = [0, 100, 150, 300, 310, 320, 700, 900, 950, 1000]  # ms


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9")])
def test_frames_of_an_uneven_film_stand_at_their_own_moments(tmp_path: Path, name: str, codec: str) -> None:
    file = film(tmp_path / name, flats([25 * i for i in range(10)]), codec=codec, times=TIMES)
    found = info(file)
    assert (found.frames, round(found.seconds, 2)) == (10, 1.1)
    asked = [0.0, 0.12, 0.25, 0.5, 0.69, 0.7, 0.94, 5.0]
    assert [round(seen.mean() / 25) for seen in read_at(file, asked)] == [0, 1, 2, 5, 5, 6, 7, 9]


@pytest.mark.parametrize("ending", ["webp", "png", "avif"])
def test_frames_of_an_animated_picture_stand_as_long_as_it_says(tmp_path: Path, ending: str) -> None:
    first, *rest = (Image.fromarray(frame) for frame in flats([0, 80, 160, 240]))
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=rest, duration=[100, 300, 50, 50])
    found = info(tmp_path / f"a.{ending}")
    assert (found.frames, found.fps, found.seconds) == (4, 8.0, 0.5)
    seen = read_at(tmp_path / f"a.{ending}", [0, 0.09, 0.1, 0.39, 0.4, 0.45, 9])
    assert [round(frame.mean() / 80) for frame in seen] == [0, 0, 1, 1, 2, 3, 3]


@pytest.mark.parametrize("ending", [".mp4", ".webm", ".gif"])
def test_a_film_read_at_its_own_rate_gives_every_frame_once(tmp_path: Path, ending: str) -> None:
    write(noise(24), tmp_path / f"a{ending}", fps=24)
    whole = list(read(tmp_path / f"a{ending}"))
    seen = read_at(tmp_path / f"a{ending}", [i / 24 for i in range(24)])
    assert all(np.array_equal(one, other) for one, other in zip(seen, whole, strict=True))


@pytest.mark.parametrize(
    ("ending", "codec", "options"),
    [
        ("mp4", "libx264", {"x264-params": "keyint=24:open-gop=1:bframes=3:b-pyramid=normal"}),
        ("mkv", "libx264", {"x264-params": "keyint=24:open-gop=1:bframes=3"}),
        ("mkv", "libx264", {"x264-params": "keyint=24:intra-refresh=1"}),
        ("mp4", "libx264", {"x264-params": "keyint=1000:scenecut=0"}),
        ("mp4", "libx265", {"x265-params": "keyint=24:open-gop=1:bframes=4:log-level=none"}),
        ("webm", "libvpx-vp9", {"g": "24", "cpu-used": "8", "deadline": "realtime"}),
        ("mov", "mpeg4", {"g": "24", "bf": "2"}),
        ("avi", "mpeg4", {"g": "24", "bf": "2"}),
        ("gif", "gif", {}),
    ],
)
def test_a_part_of_a_film_is_that_of_the_whole(
    tmp_path: Path, ending: str, codec: str, options: dict[str, str]
) -> None:
    pixels = "rgb8" if codec == "gif" else "yuv420p"
    file = film(tmp_path / f"a.{ending}", noise(144), codec=codec, pixels=pixels, rate=24, options=options)
    whole = [(second, frame()) for second, frame in moments(file)]
    assert len(whole) == info(file).frames == 144
    for start in (0, 0.3, 1.01, 1.5, 2.04, 3.9, 4.0, 5.5, 5.99, 30):
        asked = [start + i / 8 for i in range(4)]
        for seen, at in zip(read_at(file, asked), asked, strict=True):
            stands = [frame for second, frame in whole if second <= at + 1e-6][-1]
            assert np.array_equal(seen, stands), f"at {at} s"


def test_a_part_of_a_long_film_costs_no_more_than_the_part(tmp_path: Path) -> None:
    write(flats([i % 200 for i in range(6000)]), tmp_path / "a.mp4", fps=24)  # a key frame every two seconds
    first, *_ = next(iter(moments(tmp_path / "a.mp4", start=200.0)))
    assert 197 < first <= 200


def test_only_frames_that_are_looked_at_are_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(noise(24), tmp_path / "a.mp4", fps=24)
    turned = []
    turn = decode._upright
    monkeypatch.setattr(decode, "_upright", lambda rgb, frame: turned.append(1) or turn(rgb, frame))
    assert len(list(read_at(tmp_path / "a.mp4", [0.0, 0.5]))) == len(turned) == 2


def test_a_film_that_was_trimmed_is_as_long_as_it_shows(tmp_path: Path) -> None:
    """A phone trims by a list of edits and keeps the frames: here from 0.3 s, for 0.5 s."""
    file = film(tmp_path / "a.mp4", flats([25 * i for i in range(10)]), options={"bf": "0"})
    data = bytearray(file.read_bytes())
    at = data.index(b"elst") + 12
    length, _ = struct.unpack_from(">Ii", data, at)
    struct.pack_into(">Ii", data, at, length // 2, 3 * 1024)
    file.write_bytes(data)
    assert (info(file).frames, info(file).seconds) == (5, 0.5)
    assert [round(frame.mean() / 25) for frame in read(file)] == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif"])
def test_one_frame_is_a_picture_whatever_it_came_in(tmp_path: Path, name: str) -> None:
    write(flats([128]), tmp_path / name, fps=8)
    asset = take(Store.at(tmp_path / "store"), tmp_path / name)
    assert (asset.frames, asset.seconds) == (1, None)


def test_a_phone_s_photo_is_one_picture_though_a_second_hides_in_it(tmp_path: Path) -> None:
    one, two = (Image.fromarray(frame) for frame in flats([200, 10]))
    one.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[two])
    (seen,) = read(tmp_path / "a.jpg")
    assert info(tmp_path / "a.jpg").frames == 1 and round(seen.mean()) == 200


@pytest.mark.parametrize(("ending", "codec", "pixels"), [("webm", "libvpx-vp9", "yuv420p"), ("gif", "gif", "rgb8")])
def test_a_film_without_an_index_is_as_long_as_what_is_left_of_it(
    tmp_path: Path, ending: str, codec: str, pixels: str
) -> None:
    file = film(tmp_path / f"a.{ending}", noise(48), codec=codec, pixels=pixels)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert 5 < info(file).frames == len(list(read(file))) < 45


def _song(file: Path) -> None:
    with av.open(str(file), "w", format="mp4") as out:
        stream: Any = out.add_stream("aac", rate=44100)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.pts = 44100, 0
        out.mux(stream.encode(sound))
        out.mux(stream.encode(None))


def _cut(file: Path) -> None:
    write(noise(48), file, fps=24)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def _text_bomb(file: Path) -> None:
    png = io.BytesIO()
    Image.new("RGB", (8, 8)).save(png, "PNG")
    data, body = png.getvalue(), b"zTXtk\0\0" + zlib.compress(bytes(100 << 20), 9)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    file.write_bytes(data[:33] + chunk + data[33:])


def _claims(file: Path, width: int, height: int, frames: int = 2) -> None:
    """An animated PNG of 8x8 px whose header claims another size, and another number of frames."""
    Image.new("L", (8, 8)).save(file, save_all=True, append_images=[Image.new("L", (8, 8), 9)])
    data = bytearray(file.read_bytes())
    for name, *values in ((b"IHDR", width, height), (b"acTL", frames)):
        at = data.index(name)
        (length,) = struct.unpack_from(">I", data, at - 4)
        struct.pack_into(f">{len(values)}I", data, at + 4, *values)
        struct.pack_into(">I", data, at + 4 + length, zlib.crc32(data[at : at + 4 + length]))
    file.write_bytes(data)


HOSTILE: dict[str, tuple[Any, str]] = {
    "song.m4a": (_song, "song.m4a holds sound and no video"),
    "cut.mp4": (_cut, r"cut short: \d\d% of its frames are there"),
    "long.mp4": (lambda f: film(f, flats([9]) * 1080, times=range(0, 10_800_000, 10_000)), "10790 s long"),
    "huge.jpg": (lambda f: Image.new("L", (12_000, 9_000)).save(f), "has 12000x9000 px. At most 50 million"),
    "bomb.png": (lambda f: _claims(f, 30_000, 30_000), "has too many pixels. At most 50 million"),
    "text.png": (_text_bomb, "cannot be read"),
    "many.png": (lambda f: _claims(f, 6000, 6000, frames=200), "an animated picture of 200 frames"),
    "list.mp4": (lambda f: f.write_bytes(b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n"), "cannot be read"),
    "concat.mp4": (lambda f: f.write_bytes(b"ffconcat version 1.0\nfile cut.mp4\n"), "cannot be read"),
    "call.mp4": (lambda f: f.write_bytes(b"v=0\nm=video 5004 RTP/AVP 96\n"), "cannot be read"),
    "photo.heic": (lambda f: f.write_bytes(b"\0\0\0\x18ftypheic" + bytes(80)), "Save it as JPEG or PNG"),
    "drawing.png": (lambda f: f.write_bytes(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "cannot be read"),
    "none.mp4": (lambda f: f.write_bytes(b""), "cannot be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_picture_or_film_or_too_much_of_one_is_one_line_and_leaves_nothing(
    tmp_path: Path, name: str
) -> None:
    make, said = HOSTILE[name]
    make(tmp_path / name)
    with warnings.catch_warnings(), pytest.raises(BadMedia, match=said) as refused:
        warnings.simplefilter("error")
        take(Store.at(tmp_path / "store"), tmp_path / name)
    assert str(tmp_path) not in str(refused.value) and len(str(refused.value)) < 250
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_frames_larger_than_the_header_says_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = film(tmp_path / "a.mkv", flats([9] * 3, size=(256, 256)), codec="ffv1", pixels="gray")
    monkeypatch.setattr(decode, "MOST_PIXELS", 100 * 100)
    with pytest.raises(BadMedia, match="has 256x256 px"):
        info(file)


def test_bytes_that_were_changed_are_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    still = Image.fromarray(corner())
    for name in ("a.png", "a.jpg", "a.webp", "a.avif"):
        still.save(tmp_path / name)
    still.save(tmp_path / "b.webp", save_all=True, append_images=[Image.new("RGB", (32, 16))])
    film(tmp_path / "a.mp4", noise(6))
    film(tmp_path / "a.mkv", noise(6), codec="libvpx-vp9")
    film(tmp_path / "a.gif", noise(6), codec="gif", pixels="rgb8")
    rng = np.random.default_rng(3)
    for file, _ in itertools.product(sorted(tmp_path.iterdir()), range(40)):
        data = bytearray(file.read_bytes())
        for at in (rng.random(rng.choice([1, 4, 20])) ** 2 * len(data)).astype(int):
            data[at] = rng.integers(256)
        hurt = tmp_path.parent / f"{tmp_path.name}{file.suffix}"
        hurt.write_bytes(data)
        for verb in (info, lambda path: list(read_at(path, [0.0, 0.3]))):
            try:
                verb(hurt)
            except BadMedia as refused:
                assert "0x" not in str(refused)
        hurt.unlink()
