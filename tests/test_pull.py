"""Weights come whole or not at all: resumed to the byte, checked by digest, refused in one line when they cannot be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub import COMMIT, Repository, hub
from safetensors.torch import save_file

from cinecanvas import cli
from cinecanvas.errors import BadRequest, BadWeights, CannotWrite, CinecanvasError
from cinecanvas.model import Card, Source
from cinecanvas.models import shelf
from cinecanvas.models.pull import Hub, pull
from cinecanvas.settings import Settings, settings

BIG = "transformer/diffusion_pytorch_model.safetensors"
NEEDED = {"model_index.json", "scheduler/scheduler_config.json", "transformer/config.json", BIG}


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return settings({"CINECANVAS_HOME": str(tmp_path / "home")})


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Repository]:
    folder = tmp_path / "there"
    index = {
        "_class_name": "P",
        "transformer": ["diffusers", "T"],
        "scheduler": ["diffusers", "S"],
        "none": [None, None],
    }
    written(folder / "model_index.json", json.dumps(index))
    written(folder / "scheduler" / "scheduler_config.json", "{}")
    written(folder / "transformer" / "config.json", '{"_class_name": "T"}')
    save_file({"w": torch.arange(3_000_000, dtype=torch.float32)}, folder / BIG)
    written(folder / "transformer" / "diffusion_pytorch_model.bin", "a pickle")
    written(folder / "transformer" / "diffusion_pytorch_model.fp16.safetensors", "another variant")
    written(folder / "unused" / "weights.safetensors", "not asked for")
    with hub(Repository(folder)) as repository:
        yield repository


def written(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def card(name: str = "tiny", **source: str) -> Card:
    return Card(name=name, title="tiny", licence="MIT", source=Source(repository="someone/tiny", **source))


def pulled(there: Repository, here: Settings, one: Card | None = None, *, token: str = "") -> list[int]:
    return [event.done for event in pull(one or card(), here, hub=Hub(there.url, token))]


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_model_of_two_repositories_comes_whole(there: Repository, here: Settings, mirrored: bool) -> None:
    both = Card(
        name="tiny",
        title="tiny",
        licence="MIT",
        source=Source(repository="someone/tiny", beside={"prior": "someone/tiny"}),
    )
    once = sum(path.stat().st_size for path in (there.folder / name for name in NEEDED))
    if mirrored:
        shutil.copytree(there.folder, there.folder / "prior")
    *_, last = pull(both, here, hub=Hub(there.url), mirror=there.folder if mirrored else None)
    assert last.done == last.of == 2 * once
    folder = shelf.folder_of("tiny", here)
    assert folder is not None and (folder / "prior" / BIG).read_bytes() == (there.folder / BIG).read_bytes()
    assert set(shelf.receipts(here)["tiny"].files) == NEEDED | {f"prior/{name}" for name in NEEDED}
    assert not [one for one in shelf.verify("tiny", here) if one.trouble]


def test_what_a_model_needs_comes_and_nothing_else(there: Repository, here: Settings) -> None:
    done = pulled(there, here)
    folder = shelf.folder_of("tiny", here)
    assert folder is not None and done == sorted(done)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == NEEDED
    assert (folder / BIG).read_bytes() == (there.folder / BIG).read_bytes()
    assert shelf.receipts(here)["tiny"].revision == COMMIT
    assert not [one for one in shelf.verify("tiny", here) if one.trouble]
    served = there.served
    pulled(there, here)
    assert there.served - served < 1000  # the index alone is read again


def test_a_connection_that_breaks_is_taken_up_where_it_was(there: Repository, here: Settings) -> None:
    there.cut[BIG] = [7_000_000, 100_000]
    assert pulled(there, here)[-1] == sum(held.bytes for held in shelf.receipts(here)["tiny"].files.values())
    assert there.served < 12_100_000  # no byte of it came twice


def test_a_hub_without_ranges_is_begun_again(there: Repository, here: Settings) -> None:
    there.ranges, there.cut[BIG] = False, [7_000_000]
    pulled(there, here)
    assert not [one for one in shelf.verify("tiny", here) if one.trouble]


def test_a_network_that_is_gone_keeps_what_has_come(there: Repository, here: Settings) -> None:
    there.cut[BIG] = [7_000_000, 0, 0, 0, 0, 0, 0]
    with pytest.raises(BadWeights, match=r"broke off.*Run the same command again"):
        pulled(there, here)
    assert shelf.folder_of("tiny", here) is None and not shelf.receipts(here)["tiny"].whole
    before = there.served
    there.cut.clear()
    pulled(there, here)
    assert there.served - before < 5_100_000 and shelf.folder_of("tiny", here) is not None


def test_other_bytes_than_were_promised_are_refused(there: Repository, here: Settings) -> None:
    there.wrong.add(BIG)
    with pytest.raises(BadWeights, match="came damaged"):
        pulled(there, here)
    assert shelf.folder_of("tiny", here) is None


@pytest.mark.parametrize("path", ["../../outside.json", "/etc/outside.json", "transformer/..\\outside.json"])
def test_a_file_that_would_leave_its_folder_is_refused(there: Repository, here: Settings, path: str) -> None:
    there.extra.append({"rfilename": path, "size": 3, "blobId": "0"})
    with pytest.raises(BadWeights, match="cannot be"):
        pulled(there, here)


def test_every_refusal_of_a_hub_is_one_line(there: Repository, here: Settings) -> None:
    with pytest.raises(BadWeights, match="has no someone/tiny at nowhere"):
        pulled(there, here, card(revision="nowhere"))
    there.token = "secret"
    with pytest.raises(BadWeights, match="Set HF_TOKEN"):
        pulled(there, here)
    pulled(there, here, token="secret")
    there.page = True
    with pytest.raises(BadWeights, match="not JSON"):
        pulled(there, here, card("other"))


def test_a_part_that_is_a_pickle_alone_is_refused_by_name(there: Repository, here: Settings) -> None:
    for path in there.folder.glob("transformer/*.safetensors"):
        path.unlink()
    with pytest.raises(BadWeights, match="transformer is published as a pickle"):
        pulled(there, here)


def test_two_pulls_of_one_model_do_not_meet(there: Repository, here: Settings) -> None:
    first = pull(card(), here, hub=Hub(there.url))
    next(first)
    with pytest.raises(BadRequest, match="fetched already"):
        pulled(there, here)
    first.close()
    pulled(there, here)


def test_a_disk_that_is_too_small_is_told_before_anything_comes(
    there: Repository, here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(CannotWrite, match=r"needs 12 MB more.*1 MB are free"):
        pulled(there, here)
    assert there.served < 1000


def test_a_folder_is_a_mirror(there: Repository, here: Settings) -> None:
    last = list(pull(card(), here, hub=Hub(), mirror=there.folder))[-1]
    assert last.done == last.of and shelf.folder_of("tiny", here) == here.models / "tiny"


def test_a_pull_that_is_killed_goes_on(there: Repository, here: Settings) -> None:
    there.cut[BIG] = [7_000_000] + [0] * 50
    code = f"""
from cinecanvas.models.pull import Hub, pull
from cinecanvas.settings import settings
from test_pull import card
for event in pull(card(), settings({{"CINECANVAS_HOME": {str(here.data.parent)!r}}}), hub=Hub({there.url!r})):
    pass
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.DEVNULL)
    parts = here.models / "tiny" / ".parts"
    while sum(part.stat().st_size for part in parts.glob("*")) < 6_000_000:
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    there.cut.clear()
    before = there.served
    pulled(there, here)
    assert there.served - before < 6_100_000
    assert not [one for one in shelf.verify("tiny", here) if one.trouble]


def test_what_was_fetched_is_deleted_and_what_was_added_stays(there: Repository, here: Settings) -> None:
    pulled(there, here)
    assert shelf.remove("tiny", here) > 12_000_000 and not (here.models / "tiny").exists()
    shelf.add("mine", there.folder, here)
    assert shelf.remove("mine", here) == 0 and (there.folder / BIG).is_file()


def broken(folder: Path, how: str) -> None:
    """Damage of each kind that a folder may have."""
    big = folder / BIG
    if how == "cut off":
        big.write_bytes(big.read_bytes()[:-100])
    elif how == "no safetensors":
        big.write_bytes(b"PK\x03\x04 a zip, as pickles are" * 10)
    elif how == "missing":
        big.rename(big.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
        index = {"weight_map": {"w": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
        written(folder / f"{BIG}.index.json", json.dumps(index))
    elif how == "pickle":
        for path in folder.glob("transformer/*.safetensors"):
            path.unlink()
    elif how == "config.json":
        (folder / "transformer" / "config.json").unlink()
    elif how == "model_index.json":
        (folder / "model_index.json").unlink()
    else:
        (folder / "model_index.json").write_text("not JSON")


@pytest.mark.parametrize(
    "how", ["cut off", "no safetensors", "missing", "pickle", "config.json", "model_index.json", "not JSON"]
)
def test_a_folder_that_is_no_model_is_told_in_one_line(there: Repository, here: Settings, how: str) -> None:
    broken(there.folder, how)
    with pytest.raises(BadWeights) as refused:
        shelf.add("mine", there.folder, here)
    assert "\n" not in str(refused.value) and str(there.folder) not in str(refused.value)
    assert how.replace("no safetensors", "damaged") in str(refused.value) and not shelf.receipts(here)


@pytest.mark.parametrize("name", ["../x", "X", "", "a/b", "-x", "x" * 80])
def test_names_are_file_names_everywhere(there: Repository, here: Settings, name: str) -> None:
    with pytest.raises(BadRequest):
        shelf.add(name, there.folder, here)


def test_a_licence_that_binds_is_accepted_once(
    here: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("CINECANVAS_HOME", str(here.data.parent))
    assert cli.main(["models", "pull", "hunyuanvideo", "--from", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "European Union" in told.out and "must be accepted once" in told.err
    assert cli.main(["models", "pull", "hunyuanvideo", "--from", str(tmp_path), "--accept"]) == 2
    assert "is not a checkpoint" in capsys.readouterr().err
    assert cli.main(["models", "pull", "hunyuanvideo", "--from", str(tmp_path)]) == 2
    assert "is not a checkpoint" in capsys.readouterr().err


def test_offline_is_a_state_like_any_other(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CINECANVAS_HOME", str(here.data.parent))
    monkeypatch.setenv("CINECANVAS_OFFLINE", "1")
    assert cli.main(["models", "pull", "wan2.1-t2v-1.3b"]) == 2
    assert cli.main(["models"]) == 0


def test_weights_that_are_not_here_are_asked_for_by_name(here: Settings) -> None:
    from cinecanvas.models import load

    with pytest.raises(CinecanvasError, match=r"cine models pull wan2\.2-ti2v-5b"):
        load("wan2.2-ti2v-5b", where=here)
