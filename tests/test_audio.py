"""Sound in, out and through every task: a click that stood at a second of a clip stands where that second went."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cinecanvas import request as tasks
from cinecanvas.errors import BadMedia, BadRequest, Unsupported
from cinecanvas.generate import Done, generate, request_of
from cinecanvas.layout import task
from cinecanvas.media import audio
from cinecanvas.media.assets import Asset, Store
from cinecanvas.media.audio import RATE, Piece, Sound, Tape, Voice, amid, mixed
from cinecanvas.media.intake import describe, take
from cinecanvas.media.video import VideoInfo, info, read, write
from cinecanvas.models.toy import CARD
from cinecanvas.plan import plan
from cinecanvas.request import Clip, Request
from cinecanvas.settings import settings

TOY: dict[str, Any] = {"model": "toy", "quality": "draft", "seed": 4, "fps": 8.0}
MS = RATE // 1000
AAC = 1024  # samples of a frame


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.at(tmp_path / "store")


def clicks(seconds: float, *at: float) -> Sound:
    """Silence with short bursts at those seconds."""
    sound = np.zeros((round(seconds * RATE), 2), np.float32)
    for second in at:
        first = round(second * RATE)
        sound[first : first + MS] = 0.8
    return sound


def hum(seconds: float) -> Sound:
    """A tone of 220 Hz that begins at its loudest."""
    tone = 0.5 * np.cos(2 * np.pi * 220 * np.arange(round(seconds * RATE)) / RATE)
    return np.stack([tone, -tone], 1).astype(np.float32)


def heard(path: Path) -> Sound:
    """All of a file's sound (n, 2)."""
    return np.concatenate([np.zeros((0, 2), np.float32), *audio.read(path)])


def seconds_of(sound: Sound) -> list[float]:
    """Where clicks stand, to the middle of their millisecond; those nearer than 30 ms are one."""
    loud = np.flatnonzero(np.abs(sound).max(1) > 0.25)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > 30 * MS) + 1) if len(loud) else []
    return [float(group.mean() - MS / 2) / RATE for group in groups]


def near(got: Sequence[float], want: Sequence[float], *, by: float = 0.003) -> bool:
    return len(got) == len(want) and all(abs(a - b) <= by for a, b in zip(got, want, strict=True))


def greys(frames: int = 8) -> list[np.ndarray]:
    return [np.full((16, 16, 3), 20 * (i % 10) + 10, np.uint8) for i in range(frames)]


def film(store: Store, name: str, *at: float, seconds: float = 1.0, length: float | None = None) -> Asset:
    """A film at 8 frames a second with clicks in a sound of another length, if one is given."""
    file = (store.root or Path()).parent / name
    write(greys(round(8 * seconds)), file, fps=8, sound=[clicks(length or seconds, *at)])
    return take(store, file)


def silent(store: Store, name: str) -> Asset:
    file = (store.root or Path()).parent / name
    write(greys(), file, fps=8)
    return take(store, file)


def encoded(
    path: Path,
    samples: np.ndarray,
    *,
    codec: str,
    rate: int,
    layout: str,
    frames: int = 8,
    begins: tuple[int, int] = (0, 0),
) -> None:
    """A film whose sound (channels, n) float32 is as somebody else's; begins: the picture and the sound, in frames."""
    import av

    with av.open(str(path), "w") as container:
        picture: Any = container.add_stream("libx264", rate=8)
        picture.width, picture.height, picture.pix_fmt = 16, 16, "yuv420p"
        sound: Any = container.add_stream(codec, rate=rate)
        sound.codec_context.layout = layout
        for number, frame in enumerate(greys(frames), begins[0]):
            grey = av.VideoFrame.from_ndarray(frame, format="rgb24")
            grey.pts, grey.time_base = number, Fraction(1, 8)
            container.mux(picture.encode(grey))
        container.mux(picture.encode(None))
        block = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        block.sample_rate, block.pts, block.time_base = rate, begins[1] * rate // 8, Fraction(1, rate)
        container.mux(sound.encode(block))
        container.mux(sound.encode(None))


def scratched(path: Path, *, all_of_it: bool) -> None:
    """The packets of a file's sound overwritten: every one, or the fifteenth."""
    import av

    with av.open(str(path)) as container:
        found = [(p.pos, p.size) for p in container.demux(container.streams.audio[0]) if p.size]
    whole = bytearray(path.read_bytes())
    for pos, size in found if all_of_it else found[14:15]:
        whole[pos : pos + size] = b"\xff" * size
    path.write_bytes(whole)


def made(request: Request, store: Store, out: Path) -> VideoInfo:
    where = settings({"CINECANVAS_HOME": str(out.parent / "home")})
    *_, done = generate(request, out=out, store=store, where=where)
    assert isinstance(done, Done)
    return done.videos[0]


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
@pytest.mark.parametrize("fps", [8, Fraction(24000, 1001)])
def test_a_click_is_read_back_where_it_was_written(tmp_path: Path, name: str, fps: Any) -> None:
    """And the sound is as long as the film, whether it came longer or shorter."""
    length = float(16 / fps)
    for given in (length + 3, length, length / 2):
        at = [0.05, 0.21, 0.333]
        found = write(greys(16), tmp_path / name, fps=fps, sound=[clicks(given, *at)])
        back = heard(tmp_path / name)
        assert near(seconds_of(back), at)
        assert abs(len(back) - length * RATE) <= AAC
        assert found.sound == info(tmp_path / name).sound == {"a.mp4": "aac", "a.webm": "opus"}[name]
        assert found.frames == 16 and len(list(read(tmp_path / name))) == 16


@pytest.mark.parametrize("name", ["a.mp4", "a.webm"])
def test_the_same_frames_and_sound_give_the_same_bytes_however_the_sound_is_cut(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2)).astype(np.float32)
    digests = set()
    for size in (RATE, RATE, 1000, 7777):
        write(greys(), tmp_path / name, fps=8, sound=(noise[i : i + size] for i in range(0, RATE, size)))
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png"])
def test_no_sound_is_no_track(tmp_path: Path, name: str) -> None:
    write(greys(1 if name == "a.png" else 8), tmp_path / name, fps=8)
    plain = (tmp_path / name).read_bytes()
    found = write(greys(1 if name == "a.png" else 8), tmp_path / name, fps=8, sound=iter(()))
    assert (tmp_path / name).read_bytes() == plain and not found.sound and not found.notes


@pytest.mark.parametrize("name", ["a.gif", "a.png"])
def test_a_file_that_can_hold_no_sound_says_so(tmp_path: Path, name: str) -> None:
    found = write(greys(1), tmp_path / name, fps=8, sound=[clicks(1)])
    assert found.notes == (f"the sound was left out: {name[1:]} holds none",) and not found.sound


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros((9, 2)),
        np.zeros((9, 1), np.float32),
        np.zeros(9, np.float32),
        np.full((9, 2), np.nan, np.float32),
        b"no",
    ],
)
def test_sound_that_is_none_is_refused_and_leaves_nothing(tmp_path: Path, sound: Any) -> None:
    with pytest.raises(BadRequest, match="Sound came"):
        write(greys(), tmp_path / "a.mp4", fps=8, sound=[clicks(0.1), sound])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("codec", "rate", "layout", "ending"),
    [
        ("aac", 44100, "mono", ".mp4"),
        ("aac", 48000, "5.1", ".mp4"),
        ("libmp3lame", 22050, "stereo", ".mov"),
        ("libopus", 48000, "mono", ".mkv"),
        ("pcm_s16le", 8000, "stereo", ".mov"),
    ],
)
def test_anybodys_sound_becomes_stereo_at_one_rate(
    tmp_path: Path, codec: str, rate: int, layout: str, ending: str
) -> None:
    import av

    samples = np.zeros((av.AudioLayout(layout).nb_channels, 3 * rate), np.float32)
    for at in (0.5, 2.2):
        samples[:, round(at * rate) : round((at + 0.001) * rate)] = 0.8
    encoded(tmp_path / f"a{ending}", samples, codec=codec, rate=rate, layout=layout, frames=24)
    back = heard(tmp_path / f"a{ending}")
    assert back.dtype == np.float32 and back.shape[1] == 2
    assert near(seconds_of(back / np.abs(back).max()), [0.5, 2.2], by=0.004)
    assert near(
        seconds_of(np.concatenate(list(audio.read(tmp_path / f"a{ending}", start=2.0))) / np.abs(back).max()),
        [0.2],
        by=0.004,
    )


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
@pytest.mark.parametrize(("begins", "want"), [((2, 0), 0.25), ((0, 2), 0.75), ((2, 2), 0.5)])
def test_seconds_count_from_the_first_picture(
    tmp_path: Path, ending: str, begins: tuple[int, int], want: float
) -> None:
    file = tmp_path / f"a{ending}"
    encoded(file, clicks(2, 0.5, 1.5).T.copy(), codec="aac", rate=RATE, layout="stereo", frames=16, begins=begins)
    assert near(seconds_of(heard(file)), [want, want + 1])
    assert near(seconds_of(np.concatenate(list(audio.read(file, start=1.0)))), [want])


def test_a_second_that_is_sought_is_the_same_as_one_that_is_reached(tmp_path: Path) -> None:
    write(greys(48), tmp_path / "a.mp4", fps=8, sound=[hum(6)])
    sought = np.concatenate(list(audio.read(tmp_path / "a.mp4", start=4.25)))
    reached = heard(tmp_path / "a.mp4")[round(4.25 * RATE) :]
    assert len(sought) == len(reached) and np.abs(sought - reached).max() < 1e-3  # AAC fills up with noise of its own
    write(greys(48), tmp_path / "a.webm", fps=8, sound=[clicks(6, 4.5)])  # Matroska counts in thousandths of a second
    assert near(seconds_of(np.concatenate(list(audio.read(tmp_path / "a.webm", start=4.25)))), [0.25], by=0.0015)


def test_a_scratch_is_a_moment_of_silence_and_no_more(tmp_path: Path) -> None:
    at = [0.1, 0.8, 1.5]
    write(greys(16), tmp_path / "a.mp4", fps=8, sound=[clicks(2, *at)])
    scratched(tmp_path / "a.mp4", all_of_it=False)
    assert near(seconds_of(heard(tmp_path / "a.mp4")), at)


def test_a_sound_that_is_broken_throughout_never_enters_the_store(store: Store, tmp_path: Path) -> None:
    write(greys(), tmp_path / "a.mp4", fps=8, sound=[clicks(1, 0.5)])
    scratched(tmp_path / "a.mp4", all_of_it=True)
    with pytest.raises(BadMedia, match=r"The sound of a.mp4 cannot be read\. Convert") as refused:
        take(store, tmp_path / "a.mp4")
    assert str(tmp_path) not in str(refused.value)
    assert store.root is not None and not [p for p in store.root.rglob("*") if p.is_file()]


def test_the_shortest_film_has_a_sound_that_can_be_read(store: Store, tmp_path: Path) -> None:
    for name in ("a.mp4", "a.webm"):
        write(greys(1), tmp_path / name, fps=240, sound=[hum(1)])
        assert take(store, tmp_path / name).sound and len(heard(tmp_path / name)) <= AAC


def test_an_asset_says_whether_it_has_sound(store: Store) -> None:
    with_sound, without = film(store, "a.mp4", 0.5), silent(store, "b.mp4")
    assert with_sound.sound and not without.sound
    assert describe(store, with_sound.digest).sound and not describe(store, without.digest).sound


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize(("at", "begin", "seconds"), [(0.0, 0.0, 1.0), (0.5, 0.25, 0.5), (0.25, 0.0, 0.5)])
def test_a_piece_fades_where_it_is_cut(tmp_path: Path, at: float, begin: float, seconds: float, closed: bool) -> None:
    write(greys(), tmp_path / "a.mp4", fps=8, sound=[hum(1)])
    piece = Piece(media="a", at=at, begin=begin, seconds=seconds)
    sound = np.concatenate(list(mixed([piece], lambda _: tmp_path / "a.mp4", seconds=1.0, closed=closed)))
    true = heard(tmp_path / "a.mp4")[round(begin * RATE) :]
    first, last = round(at * RATE), round((at + seconds) * RATE)
    assert len(sound) == RATE and not sound[:first].any() and not sound[last:].any()
    assert np.array_equal(sound[first + 5 * MS : last - 5 * MS], true[5 * MS : last - first - 5 * MS])
    same = [
        np.array_equal(sound[first : first + MS], true[:MS]),
        np.array_equal(sound[:last][-MS:], true[: last - first][-MS:]),
    ]
    assert same == [at == 0 and not closed, at + seconds == 1 and not closed]
    assert all(
        level < 0.01 for level, plain in zip(np.abs(sound[[first, last - 1], 0]), same, strict=True) if not plain
    )


def test_sound_that_is_made_is_heard_where_no_piece_is(tmp_path: Path) -> None:
    file, made = tmp_path / "a.mp4", clicks(3.0, 0.5, 1.5, 2.5)
    write(greys(), file, fps=8, sound=[clicks(1.0, 0.7)])
    piece = Piece(media="", at=1.0, begin=0.0, seconds=1.0)
    sound = np.concatenate([*amid([made], [piece], lambda _: file, seconds=3.0)])
    assert len(sound) == 3 * RATE and near(seconds_of(sound), [0.5, 1.7, 2.5])
    assert np.array_equal(sound[:RATE], made[:RATE]) and np.array_equal(sound[2 * RATE :], made[2 * RATE :])


def test_made_sound_that_comes_late_keeps_its_place() -> None:
    """At another rate, in one channel."""
    voice = Voice(RATE // 2)
    tape = Tape(voice)
    voice.add(clicks(0.5, 0.2)[::2, :1])
    early = tape.take(RATE)
    voice.add(clicks(2.0, 0.2, 1.0)[::2, :1], last=True)
    sound = np.concatenate([early, tape.take(RATE)])
    assert near(seconds_of(sound), [0.2, 1.5])


def test_sounds_at_one_moment_are_heard_together_and_never_too_loud(tmp_path: Path) -> None:
    write(greys(), tmp_path / "a.mp4", fps=8, sound=[clicks(1, 0.25)])
    write(greys(), tmp_path / "b.mp4", fps=8, sound=[clicks(1, 0.25, 0.75)])
    pieces = [Piece(media=name, at=0.0, begin=0.0, seconds=1.0) for name in ("a.mp4", "b.mp4")]
    sound = np.concatenate(list(mixed(pieces, lambda name: tmp_path / name, seconds=1.0)))
    assert near(seconds_of(sound), [0.25, 0.75]) and np.abs(sound).max() == 1.0


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
@pytest.mark.parametrize("backward", [False, True])
def test_an_extended_film_sounds_as_it_did_and_then_is_silent(
    store: Store, tmp_path: Path, ending: str, backward: bool
) -> None:
    clip = film(store, f"clip{ending}", 0.1, 0.9)
    request = tasks.extend(clip, "red", seconds=1.0, backward=backward, **TOY)
    out = tmp_path / f"a{ending}"
    assert made(request, store, out).seconds == 2.0
    assert near(seconds_of(heard(out)), [1.1, 1.9] if backward else [0.1, 0.9])
    assert abs(len(heard(out)) - 2 * RATE) <= AAC
    assert plan(request, CARD, media={clip.digest: clip}).notes[-1] == "1 s are silent: no clip is heard there"


def test_a_retake_keeps_all_of_the_sound(store: Store, tmp_path: Path) -> None:
    clip = film(store, "clip.mp4", 0.1, 0.4, 0.7)
    request = tasks.retake(clip, "red", start=0.25, end=0.5, **TOY)
    made(request, store, tmp_path / "a.mp4")
    assert near(seconds_of(heard(tmp_path / "a.mp4")), [0.1, 0.4, 0.7])
    planned = plan(request, CARD, media={clip.digest: clip})
    assert [(piece.at, piece.seconds) for piece in planned.sound] == [(0.0, 1.0)]
    assert all(one.clip.seen for step in planned.passes for one in step.clips)


def test_a_retake_of_a_silent_film_is_what_it_was_and_silent(store: Store, tmp_path: Path) -> None:
    request = tasks.retake(silent(store, "clip.mp4"), "red", start=0.25, end=0.5, **TOY)
    assert all(clip.seen for clip in request.clips) and not made(request, store, tmp_path / "a.mp4").sound


def test_a_loop_sounds_where_its_film_lies_and_its_seam_does_not_click(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "hum.mp4"
    write(greys(), file, fps=8, sound=[np.concatenate([hum(0.9), clicks(0.1, 0.05)])])
    found = made(tasks.loop("red", of=take(store, file), seconds=1.0, **TOY), store, tmp_path / "a.mp4")
    sound = heard(tmp_path / "a.mp4")
    assert found.seconds == 2.0 and abs(len(sound) - 2 * RATE) <= AAC
    assert near(seconds_of(sound[round(0.92 * RATE) :]), [0.03])
    assert np.abs(sound[:10]).max() < 0.05 and np.abs(sound[round(1.5 * RATE) :]).max() < 0.01


def test_a_reframed_film_sounds_as_it_did(store: Store, tmp_path: Path) -> None:
    request = tasks.outpaint(film(store, "clip.mp4", 0.1, 0.9), "red", to="3:2", **TOY)
    made(request, store, tmp_path / "a.mp4")
    assert near(seconds_of(heard(tmp_path / "a.mp4")), [0.1, 0.9])


def test_joined_films_sound_one_after_the_other(store: Store, tmp_path: Path) -> None:
    one, two = film(store, "one.mp4", 0.2), film(store, "two.webm", 0.1, 0.3, seconds=0.5)
    made(tasks.join(one, two, "red", seconds=0.5, **TOY), store, tmp_path / "a.mp4")
    assert near(seconds_of(heard(tmp_path / "a.mp4")), [0.2, 1.6, 1.8])
    made(tasks.join(silent(store, "three.mp4"), two, "red", seconds=0.5, **TOY), store, tmp_path / "b.mp4")
    assert near(seconds_of(heard(tmp_path / "b.mp4")), [1.6, 1.8])


@pytest.mark.parametrize("length", [0.3, 3.0])
def test_sound_that_is_shorter_or_longer_than_its_picture_stays_with_it(
    store: Store, tmp_path: Path, length: float
) -> None:
    file = tmp_path / "clip.mov"
    sound = clicks(length, *(at for at in (0.2, 1.4) if at < length)).T.copy()
    encoded(file, sound, codec="aac", rate=RATE, layout="stereo")
    clip = take(store, file)
    made(tasks.extend(clip, "red", seconds=1.0, **TOY), store, tmp_path / "a.mp4")
    assert near(seconds_of(heard(tmp_path / "a.mp4")), [0.2])


def test_what_is_laid_as_sound_is_heard_alone_and_not_seen(store: Store, tmp_path: Path) -> None:
    shown, said = film(store, "shown.mp4", 0.2), film(store, "said.mp4", 0.6)
    clips = (Clip(media=shown.digest), Clip(media=said.digest, role="sound", start=0.25, trim=(0.5, 1.0)))
    request = Request(prompt="red", seconds=1.0, clips=clips, **TOY)
    made(request, store, tmp_path / "a.mp4")
    assert near(seconds_of(heard(tmp_path / "a.mp4")), [0.35])
    assert task(request) == "image_to_video"
    words_alone = request.model_copy(update={"clips": clips[1:]})
    assert task(words_alone) == "text_to_video" and made(words_alone, store, tmp_path / "b.mp4").sound == "aac"
    mute = Clip(media=silent(store, "mute.mp4").digest, role="sound")
    with pytest.raises(BadRequest, match="without sound was laid as sound"):
        made(request.model_copy(update={"clips": (mute,)}), store, tmp_path / "c.mp4")


def test_the_passes_of_a_film_do_not_depend_on_its_sound(store: Store) -> None:
    clip = film(store, "clip.mp4", 0.2)
    laid = (Clip(media=clip.digest), Clip(media=clip.digest, role="sound"))
    keys = {
        plan(Request(prompt="red", seconds=2.0, clips=clips, **TOY), CARD, media={clip.digest: clip}).passes[0].key
        for clips in (laid, laid[:1])
    }
    assert len(keys) == 1


def test_a_replay_sounds_the_same(store: Store, tmp_path: Path) -> None:
    request = tasks.extend(film(store, "clip.mp4", 0.1, 0.9), "red", seconds=0.5, **TOY)
    made(request, store, tmp_path / "a.mp4")
    made(request_of(tmp_path / "a.mp4"), store, tmp_path / "b.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_gif_of_a_film_with_sound_says_that_it_is_left_out(store: Store, tmp_path: Path) -> None:
    request = tasks.extend(film(store, "clip.mp4", 0.1), "red", seconds=0.5, **TOY)
    assert "the sound was left out: .gif holds none" in made(request, store, tmp_path / "a.gif").notes


def test_sound_that_a_model_would_have_to_make_is_refused_by_name() -> None:
    for card, said in (
        (CARD, "Sound that a model makes is not written"),
        (CARD.model_copy(update={"tracks": ("video",)}), "pictures only"),
    ):
        with pytest.raises(Unsupported, match=f"{said}.* that of clips is kept all the same"):
            plan(Request(prompt="red", sound=True, **TOY), card)


_LONG = """
import sys, resource, numpy as np
from cinecanvas.media import audio, video
def blocks(seconds):
    for _ in range(seconds): yield np.zeros((48000, 2), np.float32)
def peak(seconds):
    path = sys.argv[1]
    frame = np.zeros((1, 16, 16, 3), np.uint8)
    video.write((frame for _ in range(seconds)), path, fps=1, sound=blocks(seconds))
    piece = audio.Piece(media="", at=0.0, begin=0.0, seconds=float(seconds))
    from pathlib import Path
    assert sum(map(len, audio.mixed([piece], lambda _: Path(path), seconds=seconds))) == seconds * 48000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
short = peak(40)
print(peak(200) - short)
"""


def test_memory_does_not_grow_with_the_length_of_the_sound(tmp_path: Path) -> None:
    """160 seconds more are 61 MB of samples."""
    done = subprocess.run([sys.executable, "-c", _LONG, str(tmp_path / "a.mp4")], capture_output=True, text=True)
    assert int(done.stdout) < 20_000, done.stdout + done.stderr  # kB


def test_a_failing_source_of_sound_is_not_ours_to_rename(tmp_path: Path) -> None:
    def broken() -> Iterator[Sound]:
        yield clicks(0.2)
        raise OSError(28, "the source's own")

    with pytest.raises(OSError, match="the source's own"):
        write(greys(), tmp_path / "a.mp4", fps=8, sound=broken())
    assert not list(tmp_path.iterdir())
