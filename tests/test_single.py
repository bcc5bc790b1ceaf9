"""One file in place of a network makes the films of the folder that it was taken from, or is refused in one line."""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import FLOAT32, grid_of, ours, psnr
from safetensors.torch import save_file
from tiny import cogvideox, loras, ltx, sd3, sdxl, singles, wan

from cinecanvas import cli, models
from cinecanvas.canvas import Canvas
from cinecanvas.errors import BadRequest, BadWeights, CinecanvasError, Unsupported
from cinecanvas.generate import generate
from cinecanvas.model import Model, Weights
from cinecanvas.models import shelf
from cinecanvas.models.checkpoint import Parts
from cinecanvas.models.single import Packed
from cinecanvas.plan import plan
from cinecanvas.request import Lora, text_to_video
from cinecanvas.runtime.memory import Meter
from cinecanvas.runtime.placement import Placement
from cinecanvas.settings import Settings, settings

WIDE = {"heads": 2, "width": 32, "inner": 64, "text": 32}  # rows that GGUF's blocks of 32 divide
MADE: dict[str, Callable[[Path], Path]] = {
    "wan": lambda folder: wan.save(folder, "t2v", **WIDE),
    "experts": lambda folder: wan.save(folder, "t2v-a14b"),
    "ltx": lambda folder: ltx.save(folder, "plain"),
    "sdxl": lambda folder: sdxl.save(folder, next(iter(sdxl.KINDS))),
    "sd3": lambda folder: sd3.save(folder, next(iter(sd3.KINDS))),
    "cogvideox": lambda folder: cogvideox.save(folder, "5b"),
}
NAMES = {"wan": singles.wan_names, "ltx": singles.ltx_names}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("single")
    return {name: save(place / name) for name, save in MADE.items()}


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]) -> Settings:
    monkeypatch.setenv("CINECANVAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CINECANVAS_PRECISION", "float32")
    for name, folder in folders.items():
        shelf.add(f"my-{name}", folder, settings())
    return settings()


def network(folder: Path, part: str = "transformer", placement: Placement = FLOAT32, **weights: Any) -> Any:
    return Parts.of(Weights(folder, **weights), placement).network(part)


def standing(folder: Path, file: Path, placement: Placement = FLOAT32, *, part: str = "transformer") -> Any:
    return network(folder, part, placement, networks=((part, file),))


def frames(model: Model, *, prompt: str = "a red fox") -> np.ndarray:
    grid = grid_of(model.card, frames=5 if model.card.strides[0] == 4 else 9, width=64, height=32)
    return ours(model, Canvas.blank(grid), [1.0, 0.7, 0.4, 0.0], guidance=2.0, prompt=prompt)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, its = one.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(
        mine[name].dtype == value.dtype and torch.equal(mine[name], value) for name, value in its.items()
    )


def kept(where: Settings) -> set[str]:
    return {path.stem for path in where.models.glob("*.json")} - {f"my-{name}" for name in MADE}


@pytest.mark.parametrize("layout", ["published", "diffusers"])
@pytest.mark.parametrize("name", ["wan", "ltx"])
def test_the_frames_of_a_file_are_those_of_the_folder_to_the_bit(
    where: Settings, folders: dict[str, Path], tmp_path: Path, name: str, layout: str
) -> None:
    net = network(folders[name])
    file = singles.whole(tmp_path / "a.safetensors", net, NAMES[name] if layout == "published" else str)
    models.add("mine", file, base=f"my-{name}", where=where)
    assert same(standing(folders[name], file), net)
    half = Placement(residency="resident")  # unrounded weights stay where they lie in a file, which moves sums by a bit
    made = frames(models.load("mine", half, where=where))
    assert np.array_equal(made, frames(models.load(f"my-{name}", half, where=where)))
    other = {NAMES[name](key): value + 0.05 for key, value in net.state_dict().items()}  # the file is what counts
    save_file(other, tmp_path / "b.safetensors")
    models.add("other", tmp_path / "b.safetensors", base=f"my-{name}", where=where)
    assert not np.array_equal(made, frames(models.load("other", half, where=where)))


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4", "float8"])
def test_a_file_is_rounded_and_narrowed_as_a_folder_is(
    folders: dict[str, Path], tmp_path: Path, precision: Any
) -> None:
    file = singles.whole(tmp_path / "a.safetensors", network(folders["wan"]), singles.wan_names)
    placement = Placement(precision=precision, residency="resident")
    made = standing(folders["wan"], file, placement)
    assert same(made, network(folders["wan"], placement=placement))
    assert any(type(module).__name__ == "Narrow" for module in made.modules()) == (precision != "bfloat16")


@pytest.mark.parametrize(("name", "part"), [("sdxl", "unet"), ("sd3", "transformer"), ("cogvideox", "transformer")])
def test_every_family_reads_diffusers_names(folders: dict[str, Path], tmp_path: Path, name: str, part: str) -> None:
    file = singles.whole(tmp_path / "a.safetensors", network(folders[name], part))
    assert same(standing(folders[name], file, part=part), network(folders[name], part))


def test_of_a_whole_published_sdxl_its_unet_is_taken(folders: dict[str, Path], tmp_path: Path) -> None:
    net = network(folders["sdxl"], "unet")
    seeing = {number for number, block in enumerate(net.up_blocks) if hasattr(block, "attentions")}
    named = functools.partial(singles.sdxl_names, layers=net.config.layers_per_block, seeing=seeing)
    beside = {"first_stage_model.decoder.conv_in.weight": torch.ones(1), "conditioner.a": torch.ones(1)}
    file = singles.whole(tmp_path / "a.safetensors", net, named, **beside)
    assert same(standing(folders["sdxl"], file, part="unet"), net)
    bare = singles.whole(tmp_path / "b.safetensors", net, lambda name: named(name).split(".", 2)[2])
    assert same(standing(folders["sdxl"], bare, part="unet"), net)


def test_ggufs_blocks_stay_blocks_and_make_the_frames_of_their_numbers(
    where: Settings, folders: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    net = network(folders["wan"])
    file = singles.blocks(tmp_path / "a-Q8_0.gguf", net, singles.quantised(net), singles.wan_names)
    numbers = singles.opened(file, {singles.wan_names(name): name for name in net.state_dict()})
    shutil.copytree(folders["wan"], tmp_path / "wide")
    (weights,) = (tmp_path / "wide" / "transformer").glob("*.safetensors")
    save_file(numbers, weights, {"format": "pt"})
    models.add("small", file, base="my-wan", where=where)
    shelf.add("wide", tmp_path / "wide", where)
    made = frames(models.load("small", FLOAT32, where=where))
    assert np.array_equal(made, frames(models.load("wide", FLOAT32, where=where)))
    assert psnr(made, frames(models.load("my-wan", FLOAT32, where=where))) > 40
    for precision in ("bfloat16", "int8"):  # it is narrow already: other precisions say what it computes in
        small = standing(folders["wan"], file, Placement(precision=precision, residency="resident"))
        packed = [module for module in small.modules() if isinstance(module, Packed)]
        assert len(packed) == sum(type(one) is torch.nn.Linear for one in net.modules()) - 2  # time is told in float32
        assert not any(type(module).__name__ == "Narrow" for module in small.modules())
        assert small.blocks[0].attn1.to_q.bias.dtype == torch.bfloat16


def test_every_type_of_block_is_as_wide_as_gguf_itself_makes_it() -> None:
    gguf = pytest.importorskip("gguf")
    from diffusers.quantizers.gguf.utils import dequantize_functions

    assert len(dequantize_functions) > 10
    for kind in dequantize_functions:
        count, length = gguf.GGML_QUANT_SIZES[kind]
        blocks = np.random.default_rng(0).integers(0, 64, (8, 2 * length), np.uint8)  # no scale is infinite so
        layer = Packed(torch.nn.Linear(2 * count, 8, bias=False), torch.tensor(blocks), int(kind), torch.float32)
        its = torch.tensor(gguf.quants.dequantize(blocks, kind))
        assert torch.equal(layer(torch.eye(2 * count)), its.T), kind.name


def test_a_rehearsal_foretells_the_bytes_of_a_file(folders: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    net = network(folders["wan"])
    files = {
        "whole": singles.whole(tmp_path / "a.safetensors", net),
        "blocks": singles.blocks(tmp_path / "a.gguf", net, singles.quantised(net)),
    }
    found = {}
    for name, file in files.items():
        placement = FLOAT32.model_copy(update={"rehearsed": True})
        parts = Parts.of(Weights(folders["wan"], networks=(("transformer", file),)), placement)
        with Meter() as meter:
            parts.network("transformer")
        found[name] = meter.peak
        real = standing(folders["wan"], file)
        weighs = sum(one.numel() * one.element_size() for one in (*real.parameters(), *real.buffers()))
        assert found[name] == pytest.approx(weighs, rel=0.02)
    assert found["blocks"] < found["whole"] / 2


def test_a_lora_changes_a_file_as_it_changes_the_folder_and_never_blocks(
    where: Settings, folders: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    net = network(folders["wan"])
    lora = loras.diffusers_layout(tmp_path / "look.safetensors", {"transformer": net})
    asked = Lora(name="look", weight=0.7)
    file = singles.whole(tmp_path / "a.safetensors", net, singles.wan_names)
    blocks = singles.blocks(tmp_path / "b.gguf", net, singles.quantised(net))
    changed = network(folders["wan"], loras=((asked, lora),))
    assert same(network(folders["wan"], loras=((asked, lora),), networks=(("transformer", file),)), changed)
    assert not same(net, changed)
    shelf.add("look", lora, where)
    models.add("small", blocks, base="my-wan", where=where)
    for refused in (
        lambda: models.pinned(text_to_video("a", model="small", loras=(asked,)), where=where),
        lambda: models.load("small", FLOAT32, loras=(asked,), where=where),
    ):
        with pytest.raises(Unsupported, match=r"b.gguf has its weights in GGUF's blocks, to which nothing is added"):
            refused()


def test_of_two_experts_each_has_a_file_of_its_own(where: Settings, folders: dict[str, Path], tmp_path: Path) -> None:
    high, low = tmp_path / "high" / "a.safetensors", tmp_path / "low" / "a.safetensors"
    for file, part in ((high, "transformer"), (low, "transformer_2")):
        file.parent.mkdir()
        singles.whole(file, network(folders["experts"], part), singles.wan_names)
    with pytest.raises(BadRequest, match=r"two networks.*cine models add NAME HIGH --base my-experts --second LOW"):
        models.add("pair", high, base="my-experts", where=where)
    with pytest.raises(BadRequest, match="has one network, and two files"):
        models.add("pair", high, base="my-wan", second=low, where=where)
    with pytest.raises(BadRequest, match="without a base"):
        models.add("pair", high, second=low, where=where)
    assert not kept(where)
    models.add("pair", high, base="my-experts", second=low, where=where)
    models.add("riap", low, base="my-experts", second=high, where=where)
    made = frames(models.load("pair", FLOAT32, where=where))
    assert np.array_equal(made, frames(models.load("my-experts", FLOAT32, where=where)))
    assert not np.array_equal(made, frames(models.load("riap", FLOAT32, where=where)))


def _cut(file: Path, net: Any) -> None:
    data = singles.whole(file, net).read_bytes()
    file.write_bytes(data[:-100])


HARMS: dict[str, tuple[Callable[[Path, Any], object], str]] = {
    "larger": (
        lambda file, _: singles.whole(file, wan.transformer("t2v", heads=4), singles.wan_names),
        "48 and not ",
    ),
    "deeper": (lambda file, _: singles.whole(file, wan.transformer("t2v", layers=3, **WIDE)), "it has blocks.2"),
    "shallower": (lambda file, _: singles.whole(file, wan.transformer("t2v", layers=1, **WIDE)), "it has no blocks.1"),
    "other family": (lambda file, _: singles.whole(file, ltx.pipeline("plain").transformer), "is not for the trans"),
    "cut": (_cut, "is cut off"),
    "scaled": (
        lambda file, net: singles.whole(file, net, **{"blocks.0.ffn.0.scale_weight": torch.ones(1)}),
        "float8 with scales of their own",
    ),
    "nothing": (lambda file, _: save_file({}, file), "is not a safetensors file|it has no "),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_file_that_does_not_fit_is_one_line_and_nothing_is_kept(
    where: Settings, folders: dict[str, Path], tmp_path: Path, harm: str
) -> None:
    (make, said), file = HARMS[harm], tmp_path / "a.safetensors"
    make(file, network(folders["wan"]))
    with pytest.raises(BadWeights, match=said) as refusal:
        models.add("mine", file, base="my-wan", where=where)
    assert "\n" not in str(refusal.value) and str(tmp_path) not in str(refusal.value)
    assert not kept(where)
    with pytest.raises(BadWeights, match=said):  # who comes by another way is told before weights are read
        Parts.of(Weights(folders["wan"], networks=(("transformer", file),)), FLOAT32)


def test_pickles_names_that_nobody_reads_and_missing_packages_are_refused(
    where: Settings, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"\x80\x04")
    with pytest.raises(BadWeights, match="could run code"):
        models.add("mine", tmp_path / "a.ckpt", base="my-wan", where=where)
    file = singles.whole(tmp_path / "a.safetensors", network(folders["cogvideox"]), lambda name: f"their.{name}")
    with pytest.raises(BadWeights, match="Of this family only diffusers' own names are read"):
        models.add("mine", file, base="my-cogvideox", where=where)
    with pytest.raises(BadRequest, match="is the name of a model that is known"):
        models.add("wan2.1-t2v-1.3b", file, base="my-wan", where=where)
    if "gguf" in sys.modules or pytest.importorskip("gguf"):
        net = network(folders["wan"])
        blocks = singles.blocks(tmp_path / "b.gguf", net, singles.quantised(net))
        monkeypatch.setitem(sys.modules, "gguf", None)
        with pytest.raises(BadWeights, match=r"need the package gguf.*pip install 'cinecanvas\[checkpoints\]'"):
            models.add("mine", blocks, base="my-wan", where=where)
    assert not kept(where)


def test_a_file_is_listed_shown_and_made_with_and_asks_for_its_base(
    where: Settings, folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = singles.whole(tmp_path / "a.safetensors", network(folders["wan"]), singles.wan_names)
    assert cli.main(["models", "add", "mine", str(file), "--base", "my-wan"]) == 0
    assert cli.main(["models", "show", "mine"]) == 0
    assert "mine: a.safetensors for the network of my-wan: a folder of yours" in capsys.readouterr().out
    out = tmp_path / "film.mp4"
    request = text_to_video("a fox", model="mine", steps=2, width=64, height=32, seconds=0.5)
    (*_, _) = generate(request, out=str(out), where=where)
    assert out.stat().st_size
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(BadWeights, match=r"The file a.safetensors of mine is cut off"):
        models.load("mine", FLOAT32, where=where)
    shelf.remove("my-wan", where)
    assert "mine" not in models.ready(where=where)
    with pytest.raises(CinecanvasError, match="it needs my-wan, and it is no longer here"):
        models.load("mine", FLOAT32, where=where)


def test_a_published_base_that_is_not_here_is_to_be_pulled(where: Settings, tmp_path: Path) -> None:
    held = {"a.safetensors": shelf.Held(bytes=1, sha256="0" * 64)}
    shelf.keep(shelf.Receipt(name="mine", folder=tmp_path, files=held, base="wan2.1-t2v-1.3b"), where)
    with pytest.raises(BadWeights, match=r"weights of wan2.1-t2v-1.3b are not here. cine models pull wan2.1-t2v-1.3b"):
        models.load("mine", FLOAT32, where=where)
    assert "mine" not in models.ready(where=where)


def test_another_file_under_the_same_name_is_another_model_and_key(
    where: Settings, folders: dict[str, Path], tmp_path: Path
) -> None:
    net, keys, loaded = network(folders["wan"]), set(), []
    for number in range(2):
        changed = {name: value + number for name, value in net.state_dict().items()}
        save_file(changed, tmp_path / "a.safetensors")
        receipt = models.add("mine", tmp_path / "a.safetensors", base="my-wan", where=where)
        request = text_to_video("a fox", model="mine", width=64, height=32, seconds=0.5)
        keys |= {step.key for step in plan(request, models.card("mine", where=where)).passes}
        assert receipt.files["a.safetensors"].sha256
        loaded.append(models.load("mine", FLOAT32, where=where))
    assert len(keys) == 2 and loaded[0] is not loaded[1]
