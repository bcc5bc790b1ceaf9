"""Public weights on disk: pulled from a hub that goes wrong in every way, added, verified, repaired and removed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub as hubs
import pytest
from hub import COMMIT, NEEDED, REPOSITORY, Hub, checkpoint, laid, serving, weights

from cinecanvas import cli
from cinecanvas.errors import BadRequest, BadWeights, CannotWrite, CinecanvasError, Unsupported
from cinecanvas.model import Card, Source, Terms
from cinecanvas.models import hub as wire
from cinecanvas.models import shelf
from cinecanvas.models.pull import Begun, Ended, Moving, pull
from cinecanvas.settings import Settings, settings

pytest.importorskip("huggingface_hub")
CARD = Card(name="some", title="Some", licence="Some licence", source=Source(repository=REPOSITORY))
WAN = "wan2.1-t2v-1.3b"  # a registered one, for the command


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wire, "WAITS", (0.01, 0.01))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "CINECANVAS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CINECANVAS_HOME", str(tmp_path / "home"))


@pytest.fixture
def where(tmp_path: Path) -> Settings:
    return settings({"CINECANVAS_HOME": str(tmp_path / "home")})


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(Hub(checkpoint())) as running:
        yield running


def pulled(hub: Hub, where: Settings, card: Card = CARD, **options: Any) -> Ended:
    *_, last = pull(card, where=where, mirror=hub.url, **options)
    assert isinstance(last, Ended)
    return last


def refused(hub: Hub, where: Settings, card: Card = CARD, **options: Any) -> CinecanvasError:
    with pytest.raises(CinecanvasError) as refusal:
        pulled(hub, where, card, **options)
    line = str(refusal.value)
    assert "\n" not in line and str(where.models) not in line and hub.url not in line
    return refusal.value


def on_disk(where: Settings, name: str = "some") -> dict[str, bytes]:
    folder = where.models / name
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_only_what_is_needed_comes_and_all_of_it_is_checked(hub: Hub, where: Settings) -> None:
    begun, *moves, ended = pull(CARD, where=where, mirror=hub.url)
    assert isinstance(begun, Begun) and isinstance(ended, Ended)
    assert on_disk(where) == {path: data for path, data in checkpoint().items() if path in NEEDED}
    receipt = shelf.receipts(where)["some"]
    assert receipt == ended.receipt and receipt.whole and receipt.revision == COMMIT and set(receipt.files) == NEEDED
    assert all(len(held.sha256) == 64 for held in receipt.files.values())
    assert begun.bytes == receipt.bytes == sum(hub.served.values()) and begun.files == len(NEEDED)
    assert all(isinstance(move, Moving) and 0 <= move.done <= move.of == begun.bytes for move in moves)
    assert shelf.folder_of("some", where) == where.models / "some" and shelf.check(where.models / "some")


def test_nothing_is_told_about_this_machine_and_nothing_is_written_elsewhere(
    hub: Hub, where: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")  # the user's own is the hub's alone, and no mirror's
    pulled(hub, where)
    said = [value for _, _, headers in hub.asked for value in headers.values()]
    assert not any("torch" in value or "hf_secret" in value for value in said)
    assert [path.name for path in tmp_path.rglob("*") if path.is_dir() and path.name.startswith("models--")] == []
    assert not list((where.models / "some").glob(".*"))


def test_what_is_whole_is_not_asked_for_again(hub: Hub, where: Settings) -> None:
    pulled(hub, where)
    hub.asked.clear()
    assert pulled(hub, where).fetched == 0 and hub.asked == []


def test_a_line_that_is_cut_is_taken_up_where_it_was(hub: Hub, where: Settings) -> None:
    hub.cut, hub.cuts = {hub.large: 1_200_000}, 1
    ended = pulled(hub, where)
    assert hub.total == ended.receipt.bytes == ended.fetched


def test_the_network_gone_at_sixty_percent_says_what_is_here_and_the_same_call_goes_on(
    hub: Hub, where: Settings
) -> None:
    hub.cut = {hub.large: 1_200_000, "text_encoder/model.safetensors": 600_000}
    told = str(refused(hub, where, workers=1))
    assert "network is gone" in told and "1.2 MB of 5.0 MB" in told and "goes on from there" in told
    before, hub.cut = hub.total, {}
    assert not shelf.receipts(where)["some"].whole and shelf.folder_of("some", where) is None
    ended = pulled(hub, where)
    assert hub.total == ended.receipt.bytes and hub.total - before == ended.fetched < ended.receipt.bytes


def test_a_server_without_ranges_sends_it_all_again_and_the_bytes_are_right(hub: Hub, where: Settings) -> None:
    hub.cut, hub.cuts, hub.ranges = {hub.large: 1_200_000}, 1, False
    pulled(hub, where)
    assert on_disk(where)[hub.large] == hub.files[hub.large]


def test_wrong_bytes_of_the_right_size_are_refused_by_name_and_not_kept(hub: Hub, where: Settings) -> None:
    for path in (hub.large, "tokenizer/tokenizer.json"):  # by the sha256 of LFS, and by git's sha1
        hub.body = {path: bytes(len(hub.files[path]))}
        assert f"{path} of some came damaged" in str(refused(hub, where))
        assert path not in on_disk(where)
    hub.body = {}
    assert pulled(hub, where).receipt.whole


def test_a_part_that_was_harmed_on_the_disk_is_fetched_anew(hub: Hub, where: Settings) -> None:
    hub.cut = {hub.large: 1_200_000}
    refused(hub, where)
    (part,) = (path for path in (where.models / "some" / ".incoming").iterdir() if path.stat().st_size)
    part.write_bytes(bytes(part.stat().st_size))
    hub.cut = {}
    assert pulled(hub, where).receipt.whole and on_disk(where)[hub.large] == hub.files[hub.large]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"refusal": (404, "RepoNotFound")}, "There is no repository somebody/some-model"),
        ({"refusal": (401, "")}, "There is no repository somebody/some-model"),
        ({"refusal": (403, "GatedRepo")}, "only to accounts that have accepted its terms"),
        ({"token": "hf_right"}, "A token of such an account is needed"),
        ({"refusal": (500, "")}, "answers 500"),
        ({"refusal": (400, "")}, "answers 400"),
        ({"pages": True}, "a proxy or a login page"),
        ({"page": True}, "a proxy or a login page"),
        ({"body": {"tokenizer/tokenizer.json": b"{}"}}, "2 bytes instead of 13"),
        ({"files": {}}, "does not say what"),
        ({"files": {"all.safetensors": weights(10, 1)}}, "it has no model_index.json"),
    ],
)
def test_what_the_other_side_does_wrong_is_one_clear_line(
    hub: Hub, where: Settings, fault: dict[str, Any], said: str
) -> None:
    for name, value in fault.items():
        setattr(hub, name, value)
    assert said in str(refused(hub, where))


def test_a_wrong_revision_is_named(hub: Hub, where: Settings) -> None:
    card = CARD.model_copy(update={"source": Source(repository=REPOSITORY, revision="v9")})
    assert "has no revision v9" in str(refused(hub, where, card))


def test_a_gated_repository_opens_to_a_token(hub: Hub, where: Settings) -> None:
    hub.token = "hf_right"
    assert "the token that was sent" in str(refused(hub, where, token="hf_wrong"))
    assert pulled(hub, where, token="hf_right").receipt.whole
    assert "holds characters" in str(refused(hub, where, token="hf\nX-Evil: 1", card=_other(CARD)))


def _other(card: Card) -> Card:
    return card.model_copy(update={"name": "other"})


def test_nobody_there_is_said_so(hub: Hub, where: Settings) -> None:
    hub.url = "http://127.0.0.1:9"
    assert "cannot be reached" in str(refused(hub, where))


def test_pickles_alone_are_refused_by_name(hub: Hub, where: Settings) -> None:
    del hub.files["text_encoder/model.safetensors"], hub.files["text_encoder/model.fp16.safetensors"]
    assert "text_encoder only as a pickle (text_encoder/pytorch_model.bin)" in str(refused(hub, where))
    assert set(hub.served) == {"model_index.json"}


def test_patterns_override_the_index_and_never_reach_a_pickle(hub: Hub, where: Settings) -> None:
    def card(*patterns: str) -> Card:
        return CARD.model_copy(update={"source": Source(repository=REPOSITORY, files=patterns)})

    del hub.files["model_index.json"]
    assert "pickle" in str(refused(hub, where, card("text_encoder/*.bin")))
    pulled(hub, where, card("all-in-*", "tokenizer/*"))
    assert set(on_disk(where)) == {
        "all-in-one.safetensors",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    }


@pytest.mark.parametrize("path", ["../../evil.json", "/etc/evil.json", "tokenizer/../../evil.json", "a\\..\\evil.json"])
def test_a_mirror_cannot_name_a_file_outside(hub: Hub, where: Settings, tmp_path: Path, path: str) -> None:
    hub.files[path] = b"{}"
    assert "outside its folder" in str(refused(hub, where))
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("size", [-1, 1 << 60, "many", None])
def test_absurd_sizes_are_refused(hub: Hub, where: Settings, size: Any) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row.pop("lfs", None)
            row["size"] = size

    hub.listed = change
    assert isinstance(refused(hub, where), BadWeights)


def test_more_than_the_disk_holds_is_refused_before_it_begins(hub: Hub, where: Settings) -> None:
    def change(rows: list[dict[str, Any]]) -> None:
        next(row for row in rows if row["rfilename"] == hub.large)["lfs"]["size"] = 1 << 41

    hub.listed = change
    assert "needs 2199.0 GB more" in str(refused(hub, where)) and hub.large not in hub.served


def test_a_list_without_digests_is_refused(hub: Hub, where: Settings) -> None:
    hub.listed = lambda rows: [row.pop("blobId") for row in rows] and None
    assert "gives no digest of" in str(refused(hub, where))


def test_a_disk_that_is_full_on_the_way_says_what_is_still_to_come(hub: Hub, where: Settings) -> None:
    place = where.models / "some"
    place.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        import cinecanvas.models.pull as pulling

        with pytest.MonkeyPatch.context() as patch:  # somebody else fills the disk after it was asked
            patch.setattr(pulling._Pull, "_check_room", lambda self, needed: None)
            told = refused(hub, where)
        assert isinstance(told, CannotWrite) and "the disk is full" in str(told) and "still to come" in str(told)
        assert "MB more and its disk has" in str(refused(hub, where))
        subprocess.run(["mount", "-o", "remount,size=9m", place], check=True)
        ended = pulled(hub, where)
        assert ended.receipt.whole and ended.fetched < 2_500_000
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_file_larger_than_is_allowed_is_one_line(hub: Hub, where: Settings) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    try:
        assert "the file would be larger than is allowed here" in str(refused(hub, where))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert pulled(hub, where).receipt.whole


def test_offline_pull_says_what_to_do_and_a_folder_still_serves(hub: Hub, where: Settings, tmp_path: Path) -> None:
    away = where.model_copy(update={"offline": True})
    assert "Unset it, or cine models pull some --mirror FOLDER" in str(refused(hub, away)) and hub.asked == []
    laid(tmp_path / "disk" / "somebody" / "some-model", checkpoint())
    *_, ended = pull(CARD, where=away, mirror=str(tmp_path / "disk"))
    assert set(on_disk(where)) == NEEDED and ended.receipt.whole
    *_, again = pull(CARD, where=away)
    assert again.fetched == 0
    assert settings({"HF_HUB_OFFLINE": "1"}).offline and not settings({"CINECANVAS_OFFLINE": "0"}).offline


def test_the_hub_s_own_cache_is_a_mirror_whose_names_are_checked(where: Settings, tmp_path: Path) -> None:
    cache, files = tmp_path / "hub" / "models--somebody--some-model", checkpoint()
    for row in hubs.rows(files):
        blob = cache / "blobs" / (row.get("lfs", {}).get("sha256") or row["blobId"])
        link = cache / "snapshots" / COMMIT / row["rfilename"]
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(files[row["rfilename"]])
        link.symlink_to(os.path.relpath(blob, link.parent))
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(COMMIT)
    *_, ended = pull(CARD, where=where, mirror=str(tmp_path / "hub"))
    assert ended.receipt.revision == COMMIT and set(on_disk(where)) == NEEDED
    large = where.models / "some" / Hub({}).large
    assert not large.is_symlink() and large.stat().st_nlink == 2  # the same bytes, not a copy
    shelf.remove("some", where)
    (cache / "snapshots" / COMMIT / Hub({}).large).resolve().write_bytes(bytes(large_size := 2_000_000 + 72))
    assert large_size
    with pytest.raises(BadWeights, match="came damaged"):
        list(pull(CARD, where=where, mirror=str(tmp_path / "hub")))


def test_a_licence_is_accepted_once_and_again_when_it_changes(hub: Hub, where: Settings) -> None:
    terms = Terms(url="https://example.org/licence", accept=True, territory="the EU")
    card = CARD.model_copy(update={"terms": terms})
    assert "https://example.org/licence" in str(refused(hub, where, card)) and hub.asked == []
    pulled(hub, where, card, accepted=True)
    assert shelf.accepted(card, where) and shelf.accepted(card.model_copy(update={"licence": "2"}), where) is None
    shelf.remove("some", where)
    assert pulled(hub, where, card).receipt.whole


def test_a_second_repository_comes_beside(hub: Hub, where: Settings) -> None:
    assert CARD.source is not None
    both = CARD.model_copy(
        update={"source": CARD.source.model_copy(update={"beside": {"prior": CARD.source.repository}})}
    )
    pulled(hub, where, both)
    held = shelf.receipts(where)
    assert held["some.prior"].whole and held["some"].whole and held["some"].files == held["some.prior"].files


def test_two_pulls_of_one_model_do_not_meet(hub: Hub, where: Settings) -> None:
    hub.hold = {hub.large: 1_000_000}
    first = threading.Thread(target=lambda: list(pull(CARD, where=where, mirror=hub.url)))
    first.start()
    assert hub.held.wait(20)
    hub.hold = {}
    assert "being fetched or changed by another process" in str(refused(hub, where))
    with pytest.raises(Unsupported, match="another process"):
        shelf.remove("some", where)
    hub.ended.set()
    first.join(30)
    assert shelf.receipts(where)["some"].whole and hub.total == shelf.receipts(where)["some"].bytes


def test_verify_names_what_is_wrong_and_repair_fetches_just_that(hub: Hub, where: Settings) -> None:
    pulled(hub, where)
    folder = where.models / "some"
    (folder / "tokenizer" / "tokenizer.json").unlink()
    (folder / "text_encoder" / "model.safetensors").write_bytes(b"short")
    data = bytearray((folder / hub.large).read_bytes())
    data[-1] ^= 1
    (folder / hub.large).write_bytes(data)
    *moves, verified = shelf.verify("some", where)
    assert isinstance(verified, shelf.Verified) and moves
    assert {fault.file: fault.what for fault in verified.faults} == {
        "tokenizer/tokenizer.json": "missing",
        "text_encoder/model.safetensors": "cut off",
        hub.large: "damaged",
    }
    hub.served.clear()
    shelf.drop(verified.receipt, verified.faults, where)
    pulled(hub, where)
    assert set(hub.served) == {fault.file for fault in verified.faults} and set(on_disk(where)) == NEEDED
    *_, again = shelf.verify("some", where)
    assert again.faults == ()


def test_a_pull_finds_out_itself_that_a_whole_model_has_lost_a_file(hub: Hub, where: Settings) -> None:
    pulled(hub, where)
    (where.models / "some" / "tokenizer" / "tokenizer.json").unlink()
    hub.served.clear()
    assert pulled(hub, where).receipt.whole and "tokenizer/tokenizer.json" in hub.served
    assert hub.large not in hub.served


def test_an_added_folder_stays_where_it_is(where: Settings, tmp_path: Path) -> None:
    folder = laid(tmp_path / "mine", {path: data for path, data in checkpoint().items() if path in NEEDED})
    receipt = shelf.add("mine", folder, where)
    assert shelf.folder_of("mine", where) == folder and set(receipt.files) == NEEDED
    *_, first = shelf.verify("mine", where)
    assert first.faults == () and all(held.sha256 for held in shelf.receipts(where)["mine"].files.values())
    (folder / "LICENSE").write_bytes(b"DO as you like.")
    *_, second = shelf.verify("mine", where)
    assert second.faults == (shelf.Fault("LICENSE", "damaged"),)
    shelf.remove("mine", where)
    assert (folder / "LICENSE").exists() and "mine" not in shelf.receipts(where)
    with pytest.raises(BadRequest, match="No weights of 'mine' are here"):
        shelf.remove("mine", where)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda f: (f / "model_index.json").unlink(), "it has no model_index.json"),
        (lambda f: (f / "model_index.json").write_text("[]"), "is not JSON"),
        (lambda f: (f / "transformer" / "config.json").unlink(), "transformer/config.json is missing"),
        (lambda f: (f / Hub({}).large).unlink(), "00001-of-00002.safetensors is missing"),
        (lambda f: os.truncate(f / Hub({}).large, 1000), "is cut off: 1,000 of 2,000,"),
        (lambda f: (f / Hub({}).large).write_bytes(struct.pack("<Q", 1 << 62)), "is not a safetensors file"),
        (lambda f: (f / "tokenizer" / "tokenizer.json").unlink(), "holds no tokenizer"),
        (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer is missing"),
        (lambda f: [p.unlink() for p in (f / "text_encoder").glob("*.safetensors")], "as a pickle (pytorch_model.bin)"),
    ],
)
def test_the_quick_look_names_what_is_wrong(where: Settings, tmp_path: Path, harm: Any, said: str) -> None:
    folder = laid(tmp_path / "mine", checkpoint())
    shelf.check(folder)
    harm(folder)
    with pytest.raises(BadWeights) as refusal:
        shelf.add("mine", folder, where)
    assert said in str(refusal.value) and str(tmp_path) not in str(refusal.value)


def test_one_file_is_known_as_another_transformer_of_a_model_that_is_here(where: Settings, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    import numpy as np

    file = tmp_path / "small-Q8_0.gguf"
    writer = gguf.GGUFWriter(str(file), "some")
    writer.add_array("some.names", ["a", "b"])
    writer.add_array("some.sizes", [1, 2, 3])
    writer.add_bool("some.yes", True)
    writer.add_tensor("a", np.zeros((4, 34 * 8), np.uint8), raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("b", np.ones((3, 5), np.float32))
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    with pytest.raises(BadRequest, match="No weights of 'mine' are here"):
        shelf.add("small", file, where, base="mine")
    shelf.add("mine", laid(tmp_path / "mine", checkpoint()), where)
    with pytest.raises(BadRequest, match="--base MODEL"):
        shelf.add("small", file, where)
    receipt = shelf.add("small", file, where, base="mine")
    assert (receipt.base, receipt.folder, set(receipt.files)) == ("mine", tmp_path, {file.name})
    assert shelf.folder_of("small", where) is None  # nobody may take the folder beside it for the model
    data = file.read_bytes()
    harmed = {
        data[:200]: "cut off|not a gguf",
        data[:-40]: "cut off",
        b"GGML" + data[4:]: "not a gguf",
        data[:4] + struct.pack("<I", 9) + data[8:]: "not a gguf",
        data[:8] + struct.pack("<QQ", 1 << 60, 1 << 60): "not a gguf",
    }
    for bad, said in harmed.items():
        file.write_bytes(bad)
        with pytest.raises(BadWeights, match=said):
            shelf.add("small", file, where, base="mine")
    (tmp_path / "small.pt").write_bytes(b"\x80\x04")
    with pytest.raises(BadWeights, match="could run code"):
        shelf.add("small", tmp_path / "small.pt", where, base="mine")
    (tmp_path / "t.safetensors").write_bytes(weights(100, 1))
    assert shelf.add("plain", tmp_path / "t.safetensors", where, base="mine").base == "mine"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".x", "X", "x" * 65, "a b", "-x", "\x1b[31m"])
def test_names_that_lead_elsewhere_are_refused(where: Settings, tmp_path: Path, name: str) -> None:
    folder = laid(tmp_path / "mine", checkpoint())
    with pytest.raises(BadRequest):
        shelf.add(name, folder, where)
    with pytest.raises(BadRequest):
        shelf.remove(name, where)


def test_broken_and_forged_receipts_harm_nobody(where: Settings, tmp_path: Path) -> None:
    folder = laid(tmp_path / "mine", checkpoint())
    shelf.add("mine", folder, where)
    (where.models / "torn.json").write_text('{"name": "to')
    (where.models / "other.json").write_text((where.models / "mine.json").read_text())
    forged = {"name": "forged", "folder": str(folder), "repository": "a/b", "files": {"../../x": {"bytes": 1}}}
    (where.models / "forged.json").write_text(json.dumps(forged))
    (where.models / ".some.accepted.json").write_text("[1")
    assert list(shelf.receipts(where)) == ["mine"]
    forged = {"name": "forged", "folder": str(folder), "repository": "a/b"}
    (where.models / "forged.json").write_text(json.dumps(forged))
    shelf.remove("forged", where)  # it says that the folder was fetched, but it is not ours to remove
    assert folder.is_dir() and shelf.accepted(CARD, where) is None


def test_what_was_fetched_moves_with_the_folder_of_models(hub: Hub, where: Settings, tmp_path: Path) -> None:
    pulled(hub, where)
    where.models.rename(tmp_path / "elsewhere")
    there = where.model_copy(update={"models": tmp_path / "elsewhere"})
    assert shelf.folder_of("some", there) == tmp_path / "elsewhere" / "some"
    shelf.remove("some", there)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir() if path.name[0] != "."] == []


# The command, as its users meet it.


def cine(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CINE, *args], capture_output=True, text=True, timeout=60)


CINE = [sys.executable, "-m", "cinecanvas.cli", "models"]
TRUE = {WAN: "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"}


def called(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.main(["models", *args])
    return code, *capsys.readouterr()


def test_a_pull_that_is_killed_goes_on_where_it_was(hub: Hub, where: Settings) -> None:
    hub.repository = TRUE[WAN]
    hub.hold = {hub.large: 1_200_000}
    running = subprocess.Popen([*CINE, "pull", WAN, "--mirror", hub.url], stderr=subprocess.PIPE, text=True)
    assert hub.held.wait(30)
    while sum(p.stat().st_size for p in (where.models / WAN).rglob("*") if p.is_file()) < 4_000_000:
        assert running.poll() is None
    running.kill()
    running.communicate()
    first, hub.hold = hub.total, {}
    hub.served.clear()
    done = cine("pull", WAN, "--mirror", hub.url)
    assert done.returncode == 0, done.stderr
    assert set(on_disk(where, WAN)) == NEEDED and 0 < hub.total < first
    assert on_disk(where, WAN)[hub.large] == hub.files[hub.large] and "of them are here" in done.stderr


def test_a_pull_that_is_stopped_says_that_it_goes_on(hub: Hub, where: Settings) -> None:
    hub.repository, hub.hold = TRUE[WAN], {hub.large: 1_200_000}
    running = subprocess.Popen(
        [*CINE, "pull", WAN, "--mirror", hub.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert hub.held.wait(30)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=20)
    last = err.splitlines()[-1]
    assert running.returncode == 130 and out == "" and "Traceback" not in err
    assert last.startswith("cine: Stopped.") and f"`cine models pull {WAN}` goes on from there" in last


def test_the_verbs_say_what_they_did(hub: Hub, where: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repository = TRUE[WAN]
    code, out, err = called(capsys, "pull", WAN, "--mirror", hub.url)
    assert code == 0 and "5.0 MB are here, 5.0 MB came now" in out and f"{TRUE[WAN]} at {COMMIT[:12]}" in err
    rows = {row["name"]: row["weights"] for row in json.loads(called(capsys, "--json")[1])["models"]}
    assert (
        rows[WAN]["state"] == "here"
        and rows["toy"]["state"] == "ships"
        and rows["wan2.1-t2v-14b"]["state"] == ("absent")
    )
    assert "here, 5.0 MB" in called(capsys, "show", WAN)[1]
    assert called(capsys, "verify", WAN)[:2] == (0, f"{WAN}: all 11 files are whole, 5.0 MB\n")
    (where.models / WAN / hub.large).unlink()
    assert "damaged" in called(capsys, WAN)[1]
    code, out, _ = called(capsys, "verify", WAN)
    assert code == 1 and f"{hub.large} is missing" in out and "--repair" in out
    code, out, _ = called(capsys, "verify", WAN, "--repair", "--mirror", hub.url, "--json")
    assert code == 0 and json.loads(out)["faults"] == [{"file": hub.large, "what": "missing"}]
    assert json.loads(out)["whole"] and json.loads(out)["repaired"]
    assert called(capsys, "pull", WAN, "--quiet") == (0, "", "")
    assert "free again" in called(capsys, "remove", WAN)[1] and not (where.models / WAN).exists()


def test_a_licence_that_must_be_accepted_is_asked_for_and_its_limits_are_always_told(
    hub: Hub, where: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repository = "hunyuanvideo-community/HunyuanVideo"
    code, out, err = called(capsys, "pull", "hunyuanvideo", "--quiet", "--mirror", hub.url)
    assert code == 2 and out == "" and hub.asked == []
    assert "nothing is granted in the European Union" in err and "--accept" in err
    code, out, _ = called(capsys, "pull", "hunyuanvideo", "--json", "--accept", "--mirror", hub.url)
    assert code == 0 and json.loads(out)["terms"]["territory"] and json.loads(out)["receipt"]["whole"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["pull", "nothing"], "no model 'nothing'"),
        (["pull", "toy"], "part of this package"),
        (["pull", WAN, "--mirror", "ftp://a"], "neither a folder nor a URL"),
        (["pull", WAN, "--mirror", "https://"], "not a URL that can be asked"),
        (["pull", WAN, "--mirror", "/nowhere"], "does not hold"),
        (["remove", "../x"], "No weights of"),
        (["verify", "nothing"], "No weights of 'nothing' are here"),
        (["add", "mine", "/nowhere"], "There is no folder nowhere"),
        (["add", "../x", "/tmp"], "The name '../x'"),
        (["frobnicate", "x"], "frobnicate"),
    ],
)
def test_a_verb_refuses_in_one_line(args: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = called(capsys, *args)
    assert code == 2 and out == "" and said in err and err.count("\n") == 1
