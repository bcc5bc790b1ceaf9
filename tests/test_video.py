"""Frames in and out: whole files or none, true colours, bounded memory, clear refusals."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from cinecanvas.errors import BadMedia, BadRequest, CannotWrite, CinecanvasError, Unsupported
from cinecanvas.media import video
from cinecanvas.media.sheet import sheet

_ENDINGS = (".mp4", ".webm", ".gif", ".png", ".webp", ".jpg")


def drift(frames: int = 6, *, width: int = 64, height: int = 48) -> np.ndarray:
    """A smooth picture that changes its blue with time, (T, H, W, 3) uint8."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = x * 255 // width, y * 255 // height
    return np.stack([np.stack([red, green, 0 * x + 8 * t], -1) for t in range(frames)]).astype(np.uint8)


def error(got: np.ndarray, want: np.ndarray) -> int:
    """The largest difference, in 1/255."""
    return int(np.abs(got.astype(int) - want.astype(int)).max())


def hidden(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("ending", _ENDINGS)
def test_every_ending_comes_back(tmp_path: Path, ending: str) -> None:
    clip = drift(6)
    made = video.write(iter([clip[:4], clip[4:]]), tmp_path / f"clip{ending}", fps=12)
    back = np.stack(list(video.read(tmp_path / made.name)))
    assert back.shape == clip.shape == (made.frames, made.height, made.width, 3)
    assert np.abs(back.astype(int) - clip).mean() < 6  # 256 colours of a GIF are the worst
    assert (made.fps, made.seconds) == (12, 0.5)
    found = video.info(tmp_path / made.name)
    assert (found.frames, found.bytes, found.codec) == (made.frames, made.bytes, made.codec)
    assert not hidden(tmp_path)


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_flat_colours_survive_within_3(tmp_path: Path, ending: str) -> None:
    colours = [(r, g, b) for r in (0, 90, 255) for g in (0, 128, 255) for b in (0, 200, 255)]
    flat = np.stack([np.full((48, 64, 3), colour, np.uint8) for colour in colours for _ in range(2)])
    video.write(flat, tmp_path / f"flat{ending}", fps=24)
    assert error(np.stack(list(video.read(tmp_path / f"flat{ending}"))), flat) <= 3


def test_mp4_is_tagged_bt709_and_starts_fast(tmp_path: Path) -> None:
    import av

    video.write(drift(), tmp_path / "a.mp4", fps=24)
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        tags = context.color_range, context.color_primaries, context.color_trc, context.colorspace
    assert tags == (1, 1, 1, 1)
    whole = (tmp_path / "a.mp4").read_bytes()
    assert whole.index(b"moov") < whole.index(b"mdat")


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.png"])
def test_metadata_comes_back(tmp_path: Path, name: str) -> None:
    told = {"title": "Füchse 狐 \U0001f98a", "comment": '{"seed": 7, "prompt": "' + "x" * 3000 + '"}'}
    video.write(drift(1), tmp_path / name, fps=24, metadata=told)
    assert video.info(tmp_path / name).metadata == told


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png"])
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    digests = set()
    for _ in range(4):  # 64x48 is a size at which x264 is not steady when left alone
        video.write(drift(6)[: 1 if name == "a.png" else 6], tmp_path / name, fps=24)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (63, 65), (1, 70)])
def test_odd_sizes_are_kept_or_said(tmp_path: Path, shape: tuple[int, int]) -> None:
    height, width = shape
    for ending in _ENDINGS:
        made = video.write(drift(1, width=width, height=height), tmp_path / f"odd{ending}", fps=24)
        kept = (made.width, made.height) == (width, height)
        assert kept == (not made.notes)
        assert kept or (ending == ".mp4" and (made.width, made.height) == (width + width % 2, height + height % 2))


def test_resizing_leaves_no_edge(tmp_path: Path) -> None:
    flat = np.full((1, 20, 30, 3), (200, 40, 90), np.uint8)
    for size in ((97, 61), (7, 5)):
        made = video.write(flat, tmp_path / "flat.png", fps=1, size=size)
        assert (made.width, made.height) == size
        (back,) = video.read(tmp_path / "flat.png")
        assert error(back, flat[0, 0, 0]) == 0


def test_fractional_rates_are_exact(tmp_path: Path) -> None:
    made = video.write(drift(5), tmp_path / "a.mp4", fps=Fraction(24000, 1001))
    assert made.fps == video.info(tmp_path / "a.mp4").fps == 24000 / 1001


def test_pictures_are_numbered_as_asked(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    cases = {"a.png": "a-0001.png", f"{tmp_path}/new/": "new/0001.png", "made/f%02d.png": "made/f01.png"}
    for asked, first in cases.items():
        made = video.write(drift(3), os.path.join(tmp_path, asked), fps=24)
        assert made.frames == 3 and (tmp_path / first).is_file()
        pattern = asked if asked.endswith("/") else str((tmp_path / first).parent / made.name)
        assert error(np.stack(list(video.read(pattern))), drift(3)) == 0
    again = video.write(drift(2), f"{tmp_path}/new/", fps=24)
    assert "0003.png" in again.notes[0]


def test_a_part_can_be_read(tmp_path: Path) -> None:
    video.write(drift(10), tmp_path / "a-%04d.png", fps=24)
    part = np.stack(list(video.read(tmp_path / "a-%04d.png", start=4, stop=7)))
    assert error(part, drift(10)[4:7]) == 0


@pytest.mark.parametrize(
    ("frames", "options"),
    [
        ([], {}),
        ([np.zeros((0, 4, 4, 3), np.uint8)], {}),
        ([np.zeros((1, 0, 4, 3), np.uint8)], {}),
        ([drift(1), drift(1, width=66)], {}),
        ([drift(1).astype(np.float32)], {}),
        ([drift(1)[..., :2]], {}),
        ([None], {}),
        *(([drift(1)], {"fps": fps}) for fps in (0, -1, float("nan"), float("inf"), 1e9)),
        *(([drift(1)], {"size": size}) for size in ((0, 4), (4, -1), (1 << 20, 4))),
        ([drift(1)], {"quality": 0}),
        ([drift(1)], {"metadata": {"Title": "shouted"}}),
    ],
)
def test_nonsense_is_refused_and_leaves_nothing(tmp_path: Path, frames: list, options: dict) -> None:
    with pytest.raises(BadRequest):
        video.write(frames, tmp_path / "a.mp4", **{"fps": 24, **options})
    assert not list(tmp_path.iterdir())


def test_bad_destinations_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # as /dev/null would be: root could replace it
    (tmp_path / "pipe.mp4").symlink_to("pipe")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "plain").write_text("")
    refused: dict[str, type[CinecanvasError]] = {
        "a.avi": Unsupported,
        "a": Unsupported,
        "no/a.mp4": CannotWrite,
        "plain/a.mp4": CannotWrite,
        "plain/": CannotWrite,
        ".": CannotWrite,
        "a\0.mp4": CannotWrite,
        "x" * 300 + ".mp4": CannotWrite,
        "x" * 251 + ".png": CannotWrite,  # fits, but its numbers do not
        "y/" * 2500 + "a.mp4": CannotWrite,
        "pipe.mp4": CannotWrite,
        "loop.mp4": CannotWrite,
    }
    for name, kind in refused.items():
        with pytest.raises(kind) as caught:
            video.check_destination(f"{tmp_path}/{name}")
        assert str(tmp_path) not in str(caught.value) and len(str(caught.value)) < 250, name
        with pytest.raises(kind):
            video.write(drift(), f"{tmp_path}/{name}", fps=24)
    with pytest.raises(Unsupported, match=r"\.mp4.*\.webm.*\.gif.*\.png"):
        video.check_destination("a.avi")
    video.check_destination(f"{tmp_path}/good.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop.mp4", "pipe", "pipe.mp4", "plain"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_or_file_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "kept.mp4").write_text("somebody's")
    for parent in tmp_path.parents:  # pytest keeps its folders to itself
        if parent.stat().st_mode & 0o700 == parent.stat().st_mode & 0o777 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    os.seteuid(65534)
    try:
        for name in ("a.mp4", "open/kept.mp4"):
            with pytest.raises(CannotWrite, match="no permission"):
                video.check_destination(tmp_path / name)
        video.check_destination(tmp_path / "open" / "a.mp4")
    finally:
        os.seteuid(0)


def test_a_link_is_followed_and_kept(tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to("real.mp4")
    video.write(drift(), tmp_path / "link.mp4", fps=24)
    assert (tmp_path / "link.mp4").is_symlink() and video.info(tmp_path / "real.mp4").frames == 6


def broken(kind: BaseException) -> Iterator[np.ndarray]:
    yield drift(3)
    raise kind


@pytest.mark.parametrize("ending", _ENDINGS)
@pytest.mark.parametrize("kind", [KeyboardInterrupt(), GeneratorExit(), OSError(errno.ENOSPC, "the source's own")])
def test_an_interrupted_writer_leaves_nothing_and_keeps_what_was(
    tmp_path: Path, ending: str, kind: BaseException
) -> None:
    (tmp_path / f"a{ending}").write_text("yesterday's")
    with pytest.raises(type(kind)) as caught:
        video.write(broken(kind), tmp_path / f"a{ending}", fps=24)
    assert caught.value is kind  # the source's failures are not ours to rename
    assert [path.read_text() for path in tmp_path.iterdir()] == ["yesterday's"]


_ENDLESS = """
import sys, itertools, numpy as np
from cinecanvas.media import video
rng = np.random.default_rng(0)
def noise():
    for number in itertools.count():
        if number == 60: print("going", flush=True)
        yield rng.integers(0, 256, (1, 128, 128, 3), dtype=np.uint8)
video.write(noise(), sys.argv[1], fps=24)
"""


def test_what_a_killed_writer_leaves_is_swept_and_what_a_living_one_holds_is_not(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", _ENDLESS, str(tmp_path / "a.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None and writer.stdout.readline() == "going\n"
        assert hidden(tmp_path)  # it was really at work
        video.write(drift(3), tmp_path / "b.mp4", fps=24)
        assert len(hidden(tmp_path)) == 1
        writer.send_signal(signal.SIGKILL)
    assert len(hidden(tmp_path)) == 1 and not (tmp_path / "a.mp4").exists()
    video.write(drift(3), tmp_path / "c.mp4", fps=24)
    assert not hidden(tmp_path)


_SMALL_DISK = """
import os, resource, sys, numpy as np
from pathlib import Path
from cinecanvas.errors import CannotWrite
from cinecanvas.media import video
folder, clip = Path(sys.argv[1]), np.random.default_rng(0).integers(0, 256, (8, 96, 96, 3), dtype=np.uint8)
for ending in (".mp4", ".webm", ".gif", ".png", ".webp", ".jpg"):
    whole = video.write(clip[: 1 if ending in (".png", ".webp", ".jpg") else 8], folder / f"whole{ending}", fps=24)
    for part in (0, 0.01, 0.5, 0.9, 0.999):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(whole.bytes * part), resource.RLIM_INFINITY))
        try:
            video.write(clip[: whole.frames], folder / f"part{ending}", fps=24)
            line = "no refusal"
        except CannotWrite as error:
            line = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(ending, part, line)
print(sorted(name for name in os.listdir(folder) if not name.startswith("whole")))
"""


def test_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    """A limit on the file's size makes write() fail as a full disk does, at any byte one likes."""
    done = subprocess.run([sys.executable, "-c", _SMALL_DISK, str(tmp_path)], capture_output=True, text=True)
    *lines, left = done.stdout.splitlines()
    assert not done.stderr and left == "[]"
    assert len(lines) == 30
    for line in lines:
        assert "Cannot write part" in line and "larger than is allowed" in line, line


def test_a_full_disk_is_named() -> None:
    from cinecanvas.media.destination import cannot_write, told

    with pytest.raises(CannotWrite, match="the disk is full"), told("a.mp4"):
        Path("/dev/full").write_text("x" * 100_000)
    assert "disk is full" in str(cannot_write("a.mp4", errno.ENOSPC))


_LONG = """
import sys, resource, numpy as np
from cinecanvas.media import video
def peak(frames, path):
    clip = np.indices((256, 256)).sum(0).astype(np.uint8)[None, ..., None].repeat(3, -1)
    video.write((np.roll(clip, number, 2) for number in range(frames)), path, fps=24)
    count = sum(1 for _ in video.read(path))
    assert count == frames
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
short = peak(40, sys.argv[1])
print(peak(240, sys.argv[1]) - short)
"""


@pytest.mark.parametrize("name", ["a.mp4", "a.gif"])
def test_memory_does_not_grow_with_length(tmp_path: Path, name: str) -> None:
    """200 frames more are 39 MB of pixels."""
    done = subprocess.run([sys.executable, "-c", _LONG, str(tmp_path / name)], capture_output=True, text=True)
    assert int(done.stdout) < 20_000, done.stdout + done.stderr  # kB


def test_two_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    clips = [drift(20), 255 - drift(20)]
    writers = [threading.Thread(target=video.write, args=(c, tmp_path / "a.mp4"), kwargs={"fps": 24}) for c in clips]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
    back = np.stack(list(video.read(tmp_path / "a.mp4")))
    assert min(np.abs(back.astype(int) - clip).mean() for clip in clips) < 3


def test_what_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    video.write(drift(30), tmp_path / "a.mp4", fps=24)
    video.write(drift(1), tmp_path / "a.png", fps=24)
    whole = (tmp_path / "a.mp4").read_bytes()
    bad = {"empty.mp4": b"", "text.mp4": b"#EXTM3U\nhttp://127.0.0.1/x", "cut.mp4": whole[:600]}
    bad["cut.png"] = (tmp_path / "a.png").read_bytes()[:80]
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        for verb in (video.info, lambda path: list(video.read(path))):
            with pytest.raises(BadMedia) as caught:
                verb(tmp_path / name)
            assert str(tmp_path) not in str(caught.value) and "0x" not in str(caught.value)
    with pytest.raises(BadMedia, match="no file missing"):
        video.info(tmp_path / "missing.mp4")


def test_a_gif_of_a_sky_has_no_bands(tmp_path: Path) -> None:
    """Near enough to see the whole and not the dots, the dithered sky is the sky."""
    y, x = np.mgrid[0:90, 0:160] / 90
    sky = np.stack([60 + 170 * y**1.5 + 11 * x, 120 + 100 * y - 6 * x, 245 - 90 * y], -1).astype(np.uint8)
    video.write([sky], tmp_path / "sky.gif", fps=10)
    (back,) = video.read(tmp_path / "sky.gif")
    seen, true = (
        np.mean([picture[i : i + 82, j : j + 152].astype(float) for i in range(8) for j in range(8)], axis=0)
        for picture in (back, sky)
    )
    assert np.abs(seen - true).max() < 3


def test_a_sheet_has_a_row_for_each_clip() -> None:
    page = sheet([drift(9), drift(2)], labels=["a fox in snow", "a very long label " * 20], columns=4, scale=2)
    assert page.size == (4 * 128 + 5 * 4, 2 * (96 + 18 + 4) + 4)
    with pytest.raises(BadRequest):
        sheet([])
