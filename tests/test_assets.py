"""A store keeps bytes under their digest: once, whole, and nowhere else."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cinecanvas.errors import BadRequest, CannotWrite, CinecanvasError
from cinecanvas.media.assets import Asset, Holding, Store

_BIG = bytes(range(256)) * (10 << 12)  # 10 MiB: more than is sent in one part


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """The same store in a folder and, as a bucket would be, behind obstore alone."""
    return Store.at(tmp_path / "made" / "here" if request.param == "folder" else "memory:///")


def test_the_same_bytes_are_one_asset_however_they_come(store: Store, tmp_path: Path) -> None:
    (tmp_path / "fox.txt").write_bytes(b"fox")
    ways = [b"fox", iter([b"f", b"", b"ox"]), io.BytesIO(b"fox"), tmp_path / "fox.txt"]
    assets = {store.put(way, "text/plain") for way in ways}
    assert len(assets) == 1
    assert assets.pop().digest == "sha256:" + hashlib.sha256(b"fox").hexdigest()


@pytest.mark.parametrize("data", [b"", b"fox", _BIG])
def test_bytes_come_back_from_any_place_in_them(store: Store, data: bytes) -> None:
    asset = store.put(io.BytesIO(data), "application/octet-stream")
    assert asset.bytes == len(data)
    with store.open(asset.digest) as stream:
        assert stream.read() == data
        middle = stream.seek(len(data) // 2)
        assert stream.read(10) == data[middle : middle + 10]


def test_deleting_is_for_good_and_twice_is_no_harm(store: Store) -> None:
    asset = store.put(b"fox", "text/plain")
    assert store.has(asset.digest)
    store.delete(asset.digest)
    store.delete(asset.digest)
    assert not store.has(asset.digest)
    with pytest.raises(BadRequest, match="no asset"):
        store.open(asset.digest)


def test_old_records_go_and_of_too_many_the_oldest(store: Store) -> None:
    for number in range(4):
        store.put_named(f"{number:064}", bytes(100))
        time.sleep(0.02)
    store.tidy(most=250)
    assert [store.get_named(f"{number:064}") is not None for number in range(4)] == [False, False, True, True]
    store.put(b"fox", "text/plain")
    assert store.holds() == Holding(assets=1, bytes=3, records=2, record_bytes=200)
    store.tidy(days=0)
    assert store.holds() == Holding(assets=1, bytes=3, records=0, record_bytes=0)
    store.clear()
    assert store.holds() == Holding(assets=0, bytes=0, records=0, record_bytes=0)


def test_what_was_on_its_way_in_an_hour_ago_is_forgotten(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    kept = store.put(b"film", "video/mp4")
    old, new, other = (tmp_path / name for name in (".upload-old", ".upload-new", ".other-old"))
    for file in (old, new, other):
        file.write_bytes(b"half of it")
    (folder := tmp_path / ".fetch-old").mkdir()
    (folder / "half").write_bytes(b"of it")
    for path in (old, other, folder):
        os.utime(path, (0, 0))
    store.clear_aside()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == [
        ".other-old",
        ".upload-new",
    ]
    assert store.has(kept.digest)


def test_identity_is_the_digest_alone() -> None:
    digest = "sha256:" + "a" * 64
    plain, known = Asset(digest=digest, media_type="", bytes=1), Asset(digest=digest, media_type="x", bytes=1, width=2)
    assert plain == known and hash(plain) == hash(known)
    assert Asset.model_validate_json(known.model_dump_json()).width == 2


def test_a_digest_is_a_path_in_a_folder_and_none_in_a_bucket(tmp_path: Path) -> None:
    local, bucket = Store.at(tmp_path), Store.at("memory:///")
    digest = local.put(b"fox", "text/plain").digest
    bare = digest.removeprefix("sha256:")
    assert local.path(digest) == tmp_path / "sha256" / bare[:2] / bare[2:4] / bare
    assert local.path(digest).read_bytes() == b"fox"
    with pytest.raises(BadRequest, match="no paths"):
        bucket.path(bucket.put(b"fox", "text/plain").digest)


_NOT_HEX = ("", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "../../" + "a" * 58, "a" * 63 + "\0", "٣" * 64)


@pytest.mark.parametrize(
    "bad", ["", "a", "a" * 64, "sha256:sha256:" + "a" * 64, *("sha256:" + tail for tail in _NOT_HEX)]
)
def test_a_bad_digest_is_refused_before_the_disk_is_touched(bad: str) -> None:
    nowhere = Store(objects=None, root=Path("/nowhere"))  # type: ignore[arg-type]
    for verb in (nowhere.has, nowhere.open, nowhere.path, nowhere.delete, nowhere.get_named, nowhere.drop_named):
        if bad == "a" * 64 and "named" in verb.__name__:
            continue  # a key has no "sha256:"
        with pytest.raises(BadRequest):
            verb(bad)
    with pytest.raises(ValueError):
        Asset(digest=bad, media_type="", bytes=0)


def test_a_named_record_is_replaced_and_dropped(store: Store) -> None:
    key = "0f" * 32
    assert store.get_named(key) is None
    store.put_named(key, b"first, and longer")
    store.put_named(key, b"second")
    assert store.get_named(key) == b"second"
    store.drop_named(key)
    store.drop_named(key)
    assert store.get_named(key) is None


def test_an_asset_and_a_record_of_one_name_are_two_things(store: Store) -> None:
    digest = store.put(b"fox", "text/plain").digest
    store.put_named(digest.removeprefix("sha256:"), b"notes on the fox")
    store.drop_named(digest.removeprefix("sha256:"))
    assert store.has(digest)


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def source() -> Iterator[bytes]:
        yield _BIG
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Store.at(tmp_path).put(source(), "video/mp4")
    assert not list(tmp_path.iterdir())


def test_many_writers_of_the_same_bytes_agree(store: Store) -> None:
    got: list[Asset] = []
    writers = [
        threading.Thread(target=lambda: got.extend(store.put(data, "x") for data in (b"fox", _BIG))) for _ in range(6)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(got) == 12 and len(set(got)) == 2
    for asset in set(got):
        with store.open(asset.digest) as stream:
            assert "sha256:" + hashlib.sha256(stream.read()).hexdigest() == asset.digest


_WRITING = """
import itertools, sys
from cinecanvas.media.assets import Store
store = Store.at(sys.argv[1])
for number in itertools.count():
    data = number.to_bytes(8, "big") * (3 << 18)  # 6 MiB
    store.put(data, "x")
    store.put(data + data, "x")
    store.put_named("ab" * 32, data)
    print("one", flush=True)
"""


def test_a_killed_writer_leaves_only_whole_things(tmp_path: Path) -> None:
    store = Store.at(tmp_path)
    for rounds in (1, 2, 3):
        command = [sys.executable, "-c", _WRITING, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            for _ in range(rounds):
                assert writer.stdout is not None and writer.stdout.readline() == "one\n"
            writer.send_signal(signal.SIGKILL)
        names = [path for path in tmp_path.rglob("*") if path.is_file() and len(path.name) == 64]
        for path in names:
            whole = hashlib.sha256(path.read_bytes()).hexdigest() == path.name
            assert whole or (path.parts[-4] == "keyed" and path.stat().st_size == 6 << 20)
        record = store.get_named("ab" * 32)
        assert record is not None and len({record[i : i + 8] for i in range(0, len(record), 8)}) == 1


_SMALL_DISK = """
import resource, sys
from cinecanvas.errors import CannotWrite
from cinecanvas.media.assets import Store
store = Store.at(sys.argv[1])
store.put_named("ab" * 32, b"before")
for data in (b"x" * 5000, b"x" * (12 << 20)):
    for verb in (lambda: store.put(data, "x"), lambda: store.put_named("ab" * 32, data)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            line = f"no refusal {verb()}"
        except CannotWrite as error:
            line = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(line)
print(store.get_named("ab" * 32))
"""


def test_full_disk_is_one_clear_line_and_the_record_before_stays(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _SMALL_DISK, str(tmp_path)], capture_output=True, text=True)
    *lines, kept = done.stdout.splitlines()
    assert not done.stderr and kept == "b'before'"
    assert len(lines) == 4
    for line in lines:
        assert line.startswith("Cannot write into the store: the file would be larger"), line
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["ab" * 32]


def test_a_store_that_cannot_be_is_refused_without_its_secrets(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="not a folder"):
        Store.at(tmp_path / "file" / "store")
    with pytest.raises(BadRequest) as caught:
        Store.at("bogus://user:hunter2@host/x")
    assert "hunter2" not in str(caught.value) and isinstance(caught.value, CinecanvasError)


def test_the_store_imports_no_torch_and_no_codec() -> None:
    code = (
        "import sys, cinecanvas.media.assets; print([m for m in ('torch', 'av', 'PIL', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "[]", done.stderr
