"""A stranger's file can cost a child, and never the server: the next file is looked at as if nothing had happened."""

from __future__ import annotations

import io
import itertools
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from test_decode import HOSTILE, corner, film, flats, noise

from cinecanvas.errors import BadMedia, BadRequest, Cancelled, CinecanvasError
from cinecanvas.media import decode, fetch, intake, warden
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.video import info, read, write
from cinecanvas.media.warden import Busy, Limits, Warden

ADDRESS = re.compile(r"\b0x[0-9a-f]")
linux = pytest.mark.skipif(sys.platform != "linux", reason="what /proc says")


@pytest.fixture(scope="module")
def keeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warden]:
    """One warden for all tests that do not hurt its child."""
    with Warden(Store.at(tmp_path_factory.mktemp("store"))) as kept:
        yield kept


def child(kept: Warden) -> int:
    """The process number of the one child."""
    (one,) = kept._alive
    return one._process.pid


def fox(folder: Path, *, seconds: int = 1) -> Path:
    write(noise(24 * seconds), folder / "fox.mp4", fps=24)
    return folder / "fox.mp4"


def until(true: Callable[[], bool], *, seconds: float = 15) -> bool:
    ends = time.monotonic() + seconds
    while not true() and time.monotonic() < ends:
        time.sleep(0.02)
    return true()


def runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png", "a.jpg", "a.webp"])
def test_a_file_becomes_the_asset_it_would_be_without_a_warden(keeper: Warden, tmp_path: Path, name: str) -> None:
    moving = name.endswith(("4", "m", "f"))
    write(noise(12 if moving else 1), tmp_path / name, fps=12)
    made = keeper.take(tmp_path / name)
    assert made.model_dump() == intake.take(Store.at(tmp_path / "other"), tmp_path / name).model_dump()
    assert made.model_dump() == keeper.describe(made.digest).model_dump()
    assert keeper._store.path(made.digest).read_bytes() == (tmp_path / name).read_bytes()


def test_a_film_keeps_its_sound(keeper: Warden, tmp_path: Path) -> None:
    sound = [np.zeros((48_000, 2), np.float32)]
    write(noise(24), tmp_path / "a.mp4", fps=24, sound=sound)
    assert keeper.take(tmp_path / "a.mp4").sound


def test_the_server_loads_no_decoder(tmp_path: Path) -> None:
    fox(tmp_path)
    probe = f"""
import sys
from cinecanvas.media.assets import Store
from cinecanvas.media.warden import Warden
with Warden(Store.at({str(tmp_path / "store")!r})) as kept:
    made = kept.take({str(tmp_path / "fox.mp4")!r})
    assert kept.describe(made.digest).frames == 24
    assert kept.thumbnail(made.digest) and kept.spritesheet(made.digest) and kept.frame(made.digest, last=True)
print([m for m in ("torch", "av", "PIL") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


def test_what_a_url_brings_can_be_kept_by_a_warden(
    keeper: Warden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = fox(tmp_path).read_bytes()
    monkeypatch.setattr(fetch, "_body", lambda place, web: (piece for piece in [data]))
    monkeypatch.setattr(fetch, "take", lambda *_: pytest.fail("it was looked at here"))
    made = fetch.fetch(keeper._store, "https://example.org/fox.mp4", keep=lambda _, file: keeper.take(file))
    assert made == keeper.take(tmp_path / "fox.mp4")
    data = b"no film"
    with pytest.raises(BadMedia, match=r"^The answer of example.org cannot be read"):
        fetch.fetch(keeper._store, "https://example.org/fox.mp4", keep=lambda _, file: keeper.take(file))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_refusal_is_the_same_from_the_other_process(keeper: Warden, tmp_path: Path, name: str) -> None:
    make, said = HOSTILE[name]
    make(tmp_path / name)
    before = files(keeper._store.root or tmp_path)
    with pytest.raises(BadMedia, match=said) as refused:
        keeper.take(tmp_path / name)
    with pytest.raises(BadMedia) as here:
        intake.look(tmp_path / name)
    assert str(refused.value) == str(here.value) and not ADDRESS.search(str(refused.value))
    assert files(keeper._store.root or tmp_path) == before


def test_a_refusal_names_the_file_as_its_owner_does(keeper: Warden, tmp_path: Path) -> None:
    (tmp_path / "upload-17").write_bytes(b"no film")
    with pytest.raises(BadMedia, match=r"^My holiday\?.mp4 cannot be read as") as refused:
        keeper.take(tmp_path / "upload-17", name="/home/ann/My holiday\n.mp4")
    assert "upload" not in str(refused.value) and "home" not in str(refused.value)
    with pytest.raises(BadMedia, match=r"There is no file fox.mp4"):
        keeper.take(tmp_path / "nowhere", name="fox.mp4")
    with pytest.raises(BadRequest, match="There is no asset"):
        keeper.describe(f"sha256:{'0' * 64}")


def _png(file: Path, side: int, *, depth: int) -> None:
    """A grey PNG of so many pixels, most of them nothing: 30 000 x 30 000 are 110 kB."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    pixels = zlib.compressobj(1)
    row = bytes(1 + side * depth // 8)
    body = b"".join(pixels.compress(row * 100) for _ in range(side // 100)) + pixels.flush()
    head = struct.pack(">IIBBBBB", side, side, depth, 0, 0, 0, 0)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("side", "said"), [(30_000, "has too many pixels"), (12_000, "has 12000x12000 px")])
def test_a_picture_larger_than_memory_is_refused_by_its_header(
    keeper: Warden, tmp_path: Path, side: int, said: str
) -> None:
    _png(tmp_path / "bomb.png", side, depth=1)
    before = child(keeper)
    with pytest.raises(BadMedia, match=said):
        keeper.take(tmp_path / "bomb.png")
    assert child(keeper) == before


def _strip(file: Path, frames: int, *, size: tuple[int, int] = (8, 8)) -> None:
    """A GIF of frames that are all alike."""
    delay = b"\x21\xf9\x04\x00\x01\x00\x00\x00"
    frame = delay + b"\x2c" + struct.pack("<HHHHB", 0, 0, 8, 8, 0) + b"\x02\x07\x84\x8f\xa9\xcb\xed\x0f\x63\x00"
    head = b"GIF89a" + struct.pack("<HHBBB", *size, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    file.write_bytes(head + frame * frames + b"\x3b")


def test_a_film_of_a_hundred_thousand_frames_is_counted_or_refused(keeper: Warden, tmp_path: Path) -> None:
    _strip(tmp_path / "a.gif", 100_000)
    with pytest.raises(BadMedia, match=r"cannot be read|takes too long|has \d+ frames|s long") as refused:
        raise BadMedia(f"has {keeper.take(tmp_path / 'a.gif').frames} frames")
    assert "100000 frames" in str(refused.value)


def test_more_frames_than_an_hour_holds_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_FRAMES", 10)
    with pytest.raises(BadMedia, match=r"has 24 frames. At most 10"):
        intake.look(fox(tmp_path))


def test_a_side_that_no_encoder_knows_is_refused(keeper: Warden, tmp_path: Path) -> None:
    Image.new("L", (40_000, 4)).save(tmp_path / "wide.png")
    with pytest.raises(BadMedia, match=r"wide.png has 40000x4 px. At most 32767"):
        keeper.take(tmp_path / "wide.png")


@pytest.mark.parametrize("size", [(0, 0), (0, 9), (65_535, 65_535), (16_000, 16_000)])
def test_a_film_that_claims_a_size_is_read_in_its_own_or_refused(
    keeper: Warden, tmp_path: Path, size: tuple[int, int]
) -> None:
    data = bytearray(fox(tmp_path).read_bytes())
    struct.pack_into(">HH", data, data.index(b"avc1", data.index(b"stsd")) + 28, *size)
    (tmp_path / "fox.mp4").write_bytes(data)
    _strip(tmp_path / "a.gif", 3, size=size)
    for name in ("fox.mp4", "a.gif"):
        before = child(keeper)
        try:
            assert keeper.take(tmp_path / name).frames in (3, 24)
        except BadMedia as refused:
            assert not ADDRESS.search(str(refused))
        assert child(keeper) == before


@pytest.mark.parametrize("size", [(0, 0), (2**31 - 1, 2**31 - 1), (2**31, 1), (1, 2**31 - 1)])
def test_a_picture_that_claims_a_size_is_refused(keeper: Warden, tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    data = bytearray((tmp_path / "a.png").read_bytes())
    struct.pack_into(">II", data, 16, *size)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(BadMedia):
        keeper.take(tmp_path / "a.png")


@pytest.mark.parametrize(("ending", "codec"), [("mov", "jpeg2000"), ("avi", "msmpeg4v2"), ("avi", "huffyuv")])
def test_a_codec_that_nobody_misses_is_refused_before_it_is_opened(
    keeper: Warden, tmp_path: Path, ending: str, codec: str
) -> None:
    pixels = "yuv422p" if codec == "huffyuv" else "yuv420p"
    file = film(tmp_path / f"a.{ending}", noise(3), codec=codec, pixels=pixels)
    with pytest.raises(BadMedia, match=r"has a codec that is not read here. Convert it to MP4"):
        keeper.take(file)


@pytest.mark.parametrize(
    ("ending", "codec", "pixels"),
    [("mkv", "libsvtav1", "yuv420p"), ("mov", "mjpeg", "yuvj420p"), ("mov", "png", "rgb24")],
)
def test_codecs_with_two_names_are_read(keeper: Warden, tmp_path: Path, ending: str, codec: str, pixels: str) -> None:
    options = {"svtav1-params": "lp=1", "preset": "12"} if codec == "libsvtav1" else {}
    wide = [np.repeat(np.repeat(frame, 2, 0), 2, 1) for frame in noise(3)]
    file = film(tmp_path / f"a.{ending}", wide, codec=codec, pixels=pixels, options=options)
    assert keeper.take(file).frames == 3


def test_a_sound_of_a_rare_codec_is_refused(keeper: Warden, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        picture: Any = out.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        stream: Any = out.add_stream("pcm_f64le", rate=44100, layout="stereo")
        out.mux(picture.encode(av.VideoFrame.from_ndarray(noise(1)[0], format="rgb24").reformat(format="yuv420p")))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float64), format="dbl", layout="stereo")
        sound.sample_rate, sound.pts = 44100, 0
        out.mux([*stream.encode(sound), *stream.encode(None), *picture.encode(None)])
    with pytest.raises(BadMedia, match=r"The sound of a.mkv cannot be read"):
        keeper.take(tmp_path / "a.mkv")


def test_a_playlist_in_disguise_calls_nobody(keeper: Warden, tmp_path: Path) -> None:
    fox(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as line:
        url = f"http://127.0.0.1:{line.getsockname()[1]}/a.ts"
        for text in (
            f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
            f"#EXTM3U\n#EXTINF:1,\n{tmp_path}/fox.mp4\n#EXT-X-ENDLIST\n",
            f"ffconcat version 1.0\nfile '{tmp_path}/fox.mp4'\n",
            f"ffconcat version 1.0\nfile '{url}'\n",
        ):
            for name in ("a.mp4", "a.m3u8", "a.ffconcat", "a"):
                (tmp_path / name).write_text(text)
                with pytest.raises(BadMedia, match="cannot be read"):
                    keeper.take(tmp_path / name)
        assert not select.select([line], [], [], 0.2)[0]


def test_bytes_that_were_changed_are_an_asset_or_a_refusal(keeper: Warden, tmp_path: Path) -> None:
    fox(tmp_path)
    Image.fromarray(corner()).save(tmp_path / "a.png")
    Image.fromarray(corner()).save(tmp_path / "a.webp")
    rng, outcomes = np.random.default_rng(5), set()
    for file, _ in itertools.product(sorted(tmp_path.iterdir()), range(60)):
        data = bytearray(file.read_bytes())
        for at in (rng.random(rng.choice([1, 4, 20])) ** 2 * len(data)).astype(int):
            data[at] = rng.integers(256)
        hurt = tmp_path.parent / f"{tmp_path.name}{file.suffix}"
        hurt.write_bytes(data)
        try:
            outcomes.add(type(keeper.take(hurt)))
        except CinecanvasError as refused:
            outcomes.add(type(refused))
            assert not ADDRESS.search(str(refused)) and str(tmp_path.parent) not in str(refused)
    assert outcomes == {Asset, BadMedia}


def test_damage_in_the_middle_of_a_film_is_found_by_the_server_though_not_by_the_library(
    keeper: Warden, tmp_path: Path
) -> None:
    file = film(tmp_path / "a.mov", noise(48), codec="png", pixels="rgb24")
    data = file.read_bytes()
    at = data.index(b"IDAT", len(data) // 2)
    file.write_bytes(data[: at - 4] + bytes(64) + data[at + 60 :])
    assert intake.look(file).frames == 48
    with pytest.raises(BadMedia, match="cannot be read"):
        keeper.take(file)


def test_of_a_film_that_takes_too_long_the_beginning_and_the_end_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(flats([9] * 480), tmp_path / "a.mp4", fps=24)  # a key frame every two seconds
    seconds: list[float] = []

    def watched(file: Path, *, start: float = 0.0) -> Iterator[decode.Moment]:
        for moment in decode.moments(file, start=start):
            seconds.append(moment[0])
            yield moment

    monkeypatch.setattr(intake, "moments", watched)
    ticks = itertools.count()
    intake.look_through(tmp_path / "a.mp4", info(tmp_path / "a.mp4"), seconds=24, clock=lambda: next(ticks))
    beginning, end = [at for at in seconds if at < 10], [at for at in seconds if at >= 10]
    assert len(beginning) == 25 and len(end) >= 120 and max(seconds) > 19.9


def test_a_picture_that_needs_more_memory_than_the_child_has_is_refused(tmp_path: Path) -> None:
    _png(tmp_path / "grey.png", 7000, depth=16)
    with Warden(Store.at(tmp_path / "store"), limits=Limits(memory=600 << 20)) as kept:
        with pytest.raises(BadMedia, match=r"grey.png needs more memory than there is. Shrink it first"):
            kept.take(tmp_path / "grey.png")
        assert kept.take(fox(tmp_path)).frames == 24


@linux
def test_a_child_that_hangs_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warden, "_SLACK", 1.0)
    fox(tmp_path)
    with Warden(Store.at(tmp_path / "store"), limits=Limits(seconds=0.5)) as kept:
        made = kept.take(tmp_path / "fox.mp4")
        hung = child(kept)
        os.kill(hung, signal.SIGSTOP)
        begins = time.monotonic()
        with pytest.raises(BadMedia, match=r"fox.mp4 takes too long to read"):
            kept.take(tmp_path / "fox.mp4")
        assert time.monotonic() - begins < 10 and not runs(hung)
        monkeypatch.setattr(warden, "_SLACK", 30.0)
        assert kept.describe(made.digest) == made and child(kept) != hung


@linux
def test_a_child_that_dies_at_work_costs_one_refusal(tmp_path: Path) -> None:
    fox(tmp_path)
    with Warden(Store.at(tmp_path / "store")) as kept:
        made = kept.take(tmp_path / "fox.mp4")
        dying = child(kept)
        os.kill(dying, signal.SIGSTOP)  # so that it is surely at work when it is killed
        threading.Timer(0.3, os.kill, (dying, signal.SIGKILL)).start()
        with pytest.raises(BadMedia, match=r"^fox.mp4 cannot be read. It may be damaged") as refused:
            kept.take(tmp_path / "fox.mp4")
        assert "\n" not in str(refused.value)
        assert kept.take(tmp_path / "fox.mp4") == made and child(kept) != dying


@linux
def test_a_child_that_dies_at_rest_costs_nothing(tmp_path: Path) -> None:
    fox(tmp_path)
    with Warden(Store.at(tmp_path / "store")) as kept:
        made = kept.take(tmp_path / "fox.mp4")
        (one,) = kept._alive
        os.kill(child(kept), signal.SIGKILL)
        assert until(lambda: not one.alive())
        assert kept.take(tmp_path / "fox.mp4") == made


@linux
def test_a_child_is_replaced_after_so_many_jobs(tmp_path: Path) -> None:
    Image.fromarray(corner()).save(tmp_path / "a.png")
    with Warden(Store.at(tmp_path / "store"), limits=Limits(jobs=1)) as kept:
        seen = set()
        for _ in range(3):
            seen.add(child(kept))
            kept.take(tmp_path / "a.png")
        assert len(seen) == 3 and len(kept._alive) == 1


@linux
def test_a_child_that_has_grown_is_replaced(tmp_path: Path) -> None:
    _png(tmp_path / "grey.png", 6000, depth=16)
    with Warden(Store.at(tmp_path / "store")) as kept:
        before = child(kept)
        assert kept.take(tmp_path / "grey.png").width == 6000
        assert child(kept) != before


@linux
def test_a_child_goes_when_its_parent_is_killed(tmp_path: Path) -> None:
    fox(tmp_path)
    probe = f"""
import time
from cinecanvas.media.assets import Store
from cinecanvas.media.warden import Warden
kept = Warden(Store.at({str(tmp_path / "store")!r}))
kept.take({str(tmp_path / "fox.mp4")!r})
print(*[one._process.pid for one in kept._alive], flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", probe], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        assert runs(orphan)
        parent.kill()
    assert until(lambda: not runs(orphan))


@linux
def test_a_child_of_a_large_process_is_not_taken_for_a_large_one(tmp_path: Path) -> None:
    ballast = np.ones(600 << 20, np.uint8)  # Linux counts what a process held before it became another program
    with Warden(Store.at(tmp_path / "store")) as kept:
        kept.take(fox(tmp_path))
        held = child(kept)
        kept.take(fox(tmp_path))
        assert child(kept) == held
    assert ballast.nbytes


@linux
def test_a_child_has_no_keys_and_little_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeper: Warden) -> None:
    monkeypatch.setenv("CINECANVAS_SECRET", "hush")
    with Warden(Store.at(tmp_path / "store")) as kept:
        kept.take(fox(tmp_path))
        place = Path(f"/proc/{child(kept)}")
        assert b"hush" not in (place / "environ").read_bytes()
        bounds = {line[:25].strip(): line[25:].split()[:2] for line in (place / "limits").read_text().splitlines()}
        assert bounds["Max address space"] == [str(3 << 30)] * 2 and bounds["Max file size"] == ["0", "0"]
        assert bounds["Max core file size"] == ["0", "0"] and bounds["Max open files"] == ["64", "64"]
        assert bounds["Max cpu time"][0].isdecimal()
        if os.uname().machine in ("x86_64", "aarch64"):
            assert all("Seccomp:\t2" in status.read_text() for status in place.glob("task/*/status"))


@linux
@pytest.mark.skipif(os.name != "posix" or os.uname().machine not in ("x86_64", "aarch64"), reason="no fence there")
def test_behind_the_fence_there_is_no_network_no_program_and_no_file_to_write(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("kept")
    probe = f"""
import os, socket, subprocess, threading
from cinecanvas.media.fence import fence
assert fence()
place = {str(tmp_path)!r}
deeds = (
    socket.socket, lambda: os.execv("/bin/sh", ["sh"]),
    lambda: open(place + "/b", "w"), lambda: open(place + "/a", "a"),
    lambda: os.unlink(place + "/a"), lambda: os.rename(place + "/a", place + "/c"), lambda: os.mkdir(place + "/d"),
    lambda: os.truncate(place + "/a", 0), lambda: os.kill(os.getppid(), 0), lambda: os.chmod(place + "/a", 0),
    lambda: os.symlink("a", place + "/e"),
)
def denied(deed):
    try:
        deed()
    except PermissionError:
        return
    print("done:", deeds.index(deed))
for deed in deeds:
    denied(deed)
thread = threading.Thread(target=denied, args=(socket.socket,))
thread.start()
thread.join()
print(open(place + "/a").read())
"""
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert done.stdout == "kept\n", done.stdout + done.stderr
    assert files(tmp_path) == [tmp_path / "a"]


@pytest.mark.parametrize("children", [1, 2])
def test_threads_ask_at_once(tmp_path: Path, children: int) -> None:
    for number in range(6):
        Image.new("RGB", (16 + number, 8)).save(tmp_path / f"{number}.png")
    found: dict[int, int | None] = {}
    with Warden(Store.at(tmp_path / "store"), children=children) as kept:
        assert len(kept._alive) == children

        def ask(number: int) -> None:
            found[number] = kept.take(tmp_path / f"{number}.png").width

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(kept._alive) == children
    assert found == {number: 16 + number for number in range(6)}


@linux
def test_who_waits_too_long_for_a_child_is_told_so_and_closing_ends_all_work(tmp_path: Path) -> None:
    fox(tmp_path)
    said: list[CinecanvasError] = []
    with Warden(Store.at(tmp_path / "store"), limits=Limits(wait=0.3)) as kept:
        kept.take(tmp_path / "fox.mp4")
        held = child(kept)
        os.kill(held, signal.SIGSTOP)

        def ask() -> None:
            try:
                kept.take(tmp_path / "fox.mp4")
            except CinecanvasError as error:
                said.append(error)

        first = threading.Thread(target=ask)
        first.start()
        assert until(lambda: kept._free.empty())
        with pytest.raises(Busy, match=r"Too many files are being looked at. Try again"):
            kept.take(tmp_path / "fox.mp4")
    first.join(10)
    assert [type(error) for error in said] == [Cancelled] and not runs(held)
    with pytest.raises(Cancelled):
        kept.take(tmp_path / "fox.mp4")
    assert not kept._alive


def test_a_process_that_cannot_start_is_not_the_file_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fox(tmp_path)
    monkeypatch.setattr(warden, "_bare", lambda: {"PYTHONPATH": ""})
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Warden(Store.at(tmp_path / "store")) as kept, pytest.raises(CinecanvasError, match="does not start") as told:
        kept.take(tmp_path / "fox.mp4")
    assert not isinstance(told.value, BadMedia)


def _opened(picture: bytes) -> tuple[str | None, np.ndarray]:
    with Image.open(io.BytesIO(picture)) as image:
        return image.format, np.asarray(image.convert("RGB")).astype(int)


def test_a_thumbnail_is_a_small_picture_of_its_moment(keeper: Warden, tmp_path: Path) -> None:
    write(flats([0, 80, 160, 240], size=(96, 160)), tmp_path / "a.mp4", fps=4)
    digest = keeper.take(tmp_path / "a.mp4").digest
    for kind, second, level in (("webp", 0.0, 0), ("jpeg", 0.3, 80), ("png", 0.5, 160), ("webp", 99.0, 240)):
        form, seen = _opened(keeper.thumbnail(digest, kind=kind, side=80, second=second))  # type: ignore[arg-type]
        assert form == kind.upper() and seen.shape == (48, 80, 3) and abs(seen - level).max() <= 4
    assert _opened(keeper.thumbnail(digest, side=4000))[1].shape == (96, 160, 3)
    assert _opened(keeper.thumbnail(digest, second=float("nan")))[1].mean() < 4


def test_a_sheet_of_sprites_runs_through_the_film_row_by_row(keeper: Warden, tmp_path: Path) -> None:
    write(flats([20 * i for i in range(12)], size=(32, 64)), tmp_path / "a.mp4", fps=12)
    digest = keeper.take(tmp_path / "a.mp4").digest
    form, page = _opened(keeper.spritesheet(digest, columns=3, rows=2, side=32))
    assert form == "JPEG" and page.shape == (32, 96, 3)
    sprites = [page[y : y + 16, x : x + 32].mean() for y in (0, 16) for x in (0, 32, 64)]
    assert np.abs(np.subtract(sprites, [20 + 40 * n for n in range(6)])).max() < 4
    with pytest.raises(BadRequest, match="A sheet of 0x5 frames"):
        keeper.spritesheet(digest, columns=0)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif"])
def test_the_first_and_last_frame_come_as_they_are(keeper: Warden, tmp_path: Path, name: str) -> None:
    write(noise(9), tmp_path / name, fps=8)
    digest = keeper.take(tmp_path / name).digest
    frames = list(read(tmp_path / name))
    for last in (False, True):
        form, seen = _opened(keeper.frame(digest, last=last))
        assert form == "PNG" and np.array_equal(seen, frames[-1 if last else 0])


def test_a_store_in_a_bucket_is_served_too(keeper: Warden, tmp_path: Path) -> None:
    from obstore.store import MemoryStore

    with Warden(Store(MemoryStore(), None)) as kept:
        made = kept.take(fox(tmp_path))
        assert kept.describe(made.digest).model_dump() == made.model_dump()
        assert np.array_equal(_opened(kept.frame(made.digest))[1], next(read(tmp_path / "fox.mp4")))
