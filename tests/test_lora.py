"""LoRA files change a public model as they change the pipeline that they were made for, whatever their layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import FLOAT32, NEGATIVE, PROMPT, grid_of, ours, psnr, starting
from safetensors.torch import load_file, save_file
from tiny import cogvideox, hunyuan, ltx, sd3, sdxl, wan
from tiny import loras as files

from cinecanvas import cli, models
from cinecanvas.canvas import Canvas
from cinecanvas.errors import BadRequest, BadWeights, CinecanvasError, Unsupported
from cinecanvas.generate import generate
from cinecanvas.model import Model, Weights
from cinecanvas.models import recognised, shelf
from cinecanvas.models.checkpoint import Parts, layout
from cinecanvas.request import Lora, text_to_video
from cinecanvas.runtime.placement import Placement
from cinecanvas.settings import Settings, settings
from cinecanvas.solvers import unipc

WEIGHT = 0.7
MADE: dict[str, Callable[[Path], Path]] = {
    "wan": lambda folder: wan.save(folder, "t2v"),
    "ltx": lambda folder: ltx.save(folder, "plain"),
    "cogvideox": lambda folder: cogvideox.save(folder, "5b"),
    "hunyuan": hunyuan.save,
    "sd3": lambda folder: sd3.save(folder, next(iter(sd3.KINDS))),
    "sdxl": lambda folder: sdxl.save(folder, next(iter(sdxl.KINDS))),
    "experts": lambda folder: wan.save(folder, "t2v-a14b"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("lora")
    return {name: save(place / name) for name, save in MADE.items()}


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("CINECANVAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CINECANVAS_PRECISION", "float32")
    return settings()


def theirs(folder: Path, *loaded: tuple[Path, float], **asked: Any) -> Any:
    """The pipeline of diffusers with those files, each by its weight."""
    import diffusers

    kind = getattr(diffusers, layout(folder)["model_index"]["_class_name"])
    pipe = kind.from_pretrained(folder, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    for number, (file, _) in enumerate(loaded):
        pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=f"a{number}", **asked)
    pipe.set_adapters([f"a{number}" for number in range(len(loaded))], [weight for _, weight in loaded])
    return pipe


def changed(folder: Path, *loaded: tuple[Path, float], expert: Any = "", placement: Placement = FLOAT32) -> Parts:
    loras = tuple((Lora(name=file.stem, weight=weight, expert=expert), file) for file, weight in loaded)
    return Parts.of(Weights(folder, loras), placement)


def network(folder: Path, part: str) -> Any:
    return Parts.of(Weights(folder), FLOAT32).network(part)


def same(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    mine = ours.state_dict()
    return all(torch.allclose(mine[name], value, atol=1e-5) for name, value in theirs.state_dict().items())


@pytest.mark.parametrize("made", ["diffusers", "kohya", "published"])
def test_two_files_make_the_frames_that_the_pipeline_makes(folders: dict[str, Path], tmp_path: Path, made: str) -> None:
    folder = folders["wan"]
    net = network(folder, "transformer")
    first = {
        "diffusers": lambda file: files.diffusers_layout(file, {"transformer": net}, alpha=2.0),
        "kohya": lambda file: files.kohya_layout(file, net, alpha=2.0, named=files.wan_names),
        "published": lambda file: files.published_layout(file, net, files.wan_names),
    }[made](tmp_path / "first.safetensors")
    second = files.diffusers_layout(tmp_path / "second.safetensors", {"transformer": net}, seed=1)
    both = (first, WEIGHT), (second, -0.3)
    found = recognised(layout(folder))
    assert found is not None

    def model(*loaded: tuple[Path, float]) -> Model:
        loras = tuple((Lora(name=file.stem, weight=weight, digest=file.stem), file) for file, weight in loaded)
        return found[1].load(found[0], Weights(folder, loras), FLOAT32)

    grid = grid_of(found[0], frames=5, width=64, height=32)
    pipe = theirs(folder, *both)
    frames = pipe(
        prompt=PROMPT, negative_prompt=NEGATIVE, num_inference_steps=3, output_type="np", width=64, height=32,
        num_frames=5, guidance_scale=3.0, latents=starting(model(), grid),
    ).frames[0]  # fmt: skip
    levels = pipe.scheduler.sigmas.tolist()

    def made_by(*loaded: tuple[Path, float]) -> np.ndarray:
        return ours(model(*loaded), Canvas.blank(grid), levels, guidance=3.0, solver=unipc)

    assert psnr(made_by(*both), frames) > 60
    assert psnr(made_by(both[0]), frames) < 50


@pytest.mark.parametrize("name", [name for name in MADE if name != "experts"])
def test_every_family_is_changed_as_its_pipeline_is(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    folder = folders[name]
    part = "unet" if name == "sdxl" else "transformer"
    file = files.diffusers_layout(tmp_path / "a.safetensors", {part: network(folder, part)}, alpha=3.0)
    pipe = theirs(folder, (file, WEIGHT))
    pipe.fuse_lora(components=[part])
    pipe.unload_lora_weights()
    made = changed(folder, (file, WEIGHT)).network(part)
    assert same(made, getattr(pipe, part))
    assert not same(network(folder, part), made)


def test_kohyas_files_for_sdxl_change_both_text_encoders_too(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders["sdxl"]
    parts = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
    tensors: dict[str, torch.Tensor] = {}
    for part, prefix in parts.items():
        tensors |= files.kohya(network(folder, part), alpha=1.0, prefix=prefix)
    file = tmp_path / "k.safetensors"
    save_file(tensors, file)
    pipe = theirs(folder, (file, WEIGHT))
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    made = changed(folder, (file, WEIGHT))
    for part in parts:
        assert same(made.network(part), getattr(pipe, part)), part
    older = {  # as the files that people have name it
        name.replace("lora_te1_encoder", "lora_te1_text_model_encoder"): tensor for name, tensor in tensors.items()
    }
    assert older.keys() != tensors.keys()
    save_file(older, tmp_path / "older.safetensors")
    again = changed(folder, (tmp_path / "older.safetensors", WEIGHT))
    assert same(again.network("text_encoder"), made.network("text_encoder"))


def test_of_two_experts_a_file_changes_both_or_the_one_that_was_asked(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = folders["experts"]
    parts = ("transformer", "transformer_2")
    file = files.diffusers_layout(tmp_path / "a.safetensors", {"transformer": network(folder, "transformer")})
    plain = [network(folder, part) for part in parts]
    for expert, touched in (("", (True, True)), ("high", (True, False)), ("low", (False, True))):
        made = changed(folder, (file, 1.0), expert=expert)
        assert tuple(not same(made.network(p), before) for p, before in zip(parts, plain, strict=True)) == touched
    with pytest.raises(Unsupported, match="one network for all noise"):
        changed(folders["wan"], (file, 1.0), expert="low")


@pytest.mark.parametrize("name", ["ltx", "cogvideox", "hunyuan", "sd3", "sdxl"])
def test_a_file_for_another_family_is_refused_before_weights_are_read(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    made_for = network(folders["wan"], "transformer")
    for file in (
        files.diffusers_layout(tmp_path / "a.safetensors", {"transformer": made_for}),
        files.published_layout(tmp_path / "b.safetensors", made_for, files.wan_names),
        files.kohya_layout(tmp_path / "c.safetensors", made_for, alpha=1.0, named=files.wan_names),
    ):
        part = "unet" if name == "sdxl" else "transformer"
        with pytest.raises(BadWeights, match=r"^The LoRA . is not for this "):
            changed(folders[name], (file, 1.0), placement=FLOAT32.model_copy(update={"rehearsed": True})).network(part)


def test_a_file_for_a_larger_model_of_the_family_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    larger = wan.transformer("t2v", heads=4)
    file = files.diffusers_layout(tmp_path / "large.safetensors", {"transformer": larger})
    with pytest.raises(BadWeights, match=r"blocks.0.attn1.to_\w is 24x24 and not 48x48"):
        changed(folders["wan"], (file, 1.0)).network("transformer")


def test_weights_in_few_bits_are_changed_before_they_are_narrowed(folders: dict[str, Path], tmp_path: Path) -> None:
    file = files.diffusers_layout(tmp_path / "a.safetensors", {"transformer": network(folders["wan"], "transformer")})
    narrow = Placement(precision="int8", residency="resident")
    x = {"hidden_states": torch.ones(1, 16, 1, 4, 4), "timestep": torch.ones(1), "return_dict": False}
    x["encoder_hidden_states"] = torch.ones(1, 4, 32)

    def answer(parts: Parts) -> torch.Tensor:
        cast = {key: value.to(parts.dtype) if isinstance(value, torch.Tensor) else value for key, value in x.items()}
        with torch.inference_mode():
            return parts.network("transformer")(**cast)[0].float()

    wide = answer(changed(folders["wan"], (file, 1.0)))
    plain = answer(Parts.of(Weights(folders["wan"]), FLOAT32))
    few = answer(changed(folders["wan"], (file, 1.0), placement=narrow))
    assert (few - wide).norm() < 0.3 * (plain - wide).norm()


@pytest.mark.parametrize(
    ("mark", "kind"), [("dora_scale", "DoRA"), ("lokr_w1", "LoKr"), ("hada_w1_a", "LoHa"), ("lora_mid.weight", "LoCon")]
)
def test_what_is_no_lora_is_named_and_not_half_loaded(
    folders: dict[str, Path], tmp_path: Path, mark: str, kind: str
) -> None:
    file = files.kohya_layout(
        tmp_path / "a.safetensors", network(folders["wan"], "transformer"), alpha=1.0, named=files.wan_names
    )
    save_file({**load_file(file), f"lora_unet_blocks_0_self_attn_q.{mark}": torch.ones(1)}, file)
    with pytest.raises(Unsupported, match=rf"a is a {kind}"):
        changed(folders["wan"], (file, 1.0))


def test_a_file_that_lacks_a_matrix_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    file = files.diffusers_layout(tmp_path / "a.safetensors", {"transformer": network(folders["wan"], "transformer")})
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, file)
    with pytest.raises(BadWeights, match="not for this Wan"):
        changed(folders["wan"], (file, 1.0))


def test_the_command_knows_a_file_by_its_name_and_the_film_says_which_it_was(
    folders: dict[str, Path], tmp_path: Path, where: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    net = network(folders["wan"], "transformer")
    file = files.diffusers_layout(tmp_path / "look.safetensors", {"transformer": net})
    assert not cli.main(["models", "add", "tiny-wan", str(folders["wan"])])
    assert not cli.main(["models", "add", "look", str(file)])
    assert not cli.main(["models"])
    assert "a LoRA: --lora look:1" in capsys.readouterr().out
    asked = ["generate", "a fox", "--model", "tiny-wan", "--size", "64x64", "--seconds", "0.3", "--steps", "2"]

    def frames(name: str, *flags: str) -> bytes:
        out = tmp_path / name
        assert not cli.main([*asked, "--seed", "3", "--guidance", "1", *flags, "-o", f"{out}/", "-q"])
        return b"".join(path.read_bytes() for path in sorted(out.glob("*.png")))

    plain, one, half = frames("a"), frames("b", "--lora", "look"), frames("c", "--lora", "look:0.5")
    assert len({plain, one, half}) == 3
    assert frames("d") == plain  # nothing of it stays behind
    film = tmp_path / "film.mp4"
    assert not cli.main([*asked, "--lora", "look:0.5", "-o", str(film), "-q"])
    capsys.readouterr()
    save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file)
    assert not cli.main(["models", "remove", "look", "-q"])
    assert not cli.main(["models", "add", "look", str(file), "-q"])
    assert cli.main(["replay", str(film), "-o", str(tmp_path / "again.mp4")]) == BadWeights.exit_code
    assert "another file than the one that was used" in capsys.readouterr().err
    shelf.remove("look", where)
    assert file.is_file()


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ("gone", "There is no LoRA 'gone'. None is here"),
        ("look:much", "It is NAME, NAME:WEIGHT or NAME:WEIGHT:high"),
        ("look:nan", "was to count by nan"),
        ("look:9", "From -4 to 4 is possible"),
        ("look:1:middle", "expert"),
        ("film.safetensors", "cine models add NAME FILE.safetensors"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    where: Settings, capsys: pytest.CaptureFixture[str], folders: dict[str, Path], lora: str, said: str
) -> None:
    shelf.add("tiny-wan", folders["wan"], where)
    assert cli.main(["plan", "a fox", "--model", "tiny-wan", "--lora", lora]) in (2, 3, 4)
    assert said in capsys.readouterr().err


def test_our_own_models_take_none(where: Settings) -> None:
    with pytest.raises(Unsupported, match="Public models can be changed so"):
        models.pinned(text_to_video("red", model="toy", loras=(Lora(name="look"),)), where=where)


def test_a_file_that_is_cut_off_or_gone_is_refused(folders: dict[str, Path], tmp_path: Path, where: Settings) -> None:
    file = files.diffusers_layout(
        tmp_path / "look.safetensors", {"transformer": network(folders["wan"], "transformer")}
    )
    whole = shutil.copy(file, tmp_path / "whole")
    shelf.add("look", file, where)
    request = text_to_video("a", model="wan2.1-t2v-1.3b", loras=(Lora(name="look"),))
    assert models.pinned(request, where=where).loras[0].digest
    file.write_bytes(Path(whole).read_bytes()[:-8])
    with pytest.raises(CinecanvasError, match="look is cut off"):
        models.pinned(request, where=where)
    with pytest.raises(BadRequest, match="a LoRA, which replaces nothing"):
        shelf.add("other", Path(shutil.copy(whole, tmp_path / "o.safetensors")), where, base="tiny-wan")
    assert json.loads((where.models / "look.json").read_text())["lora"]


def test_a_model_that_is_loaded_elsewhere_is_not_left_unchanged_in_silence(
    folders: dict[str, Path], tmp_path: Path, where: Settings
) -> None:
    net = network(folders["wan"], "transformer")
    shelf.add("tiny-wan", folders["wan"], where)
    shelf.add("look", files.diffusers_layout(tmp_path / "look.safetensors", {"transformer": net}), where)
    request = text_to_video("a fox", model="tiny-wan", width=64, height=64, loras=(Lora(name="look"),))
    with pytest.raises(Unsupported, match="loaded elsewhere"):
        list(generate(request, out=tmp_path / "a.mp4", where=where, models=models.load))


@pytest.mark.parametrize("header", ["[1]", "5", "null", "{"])
def test_a_header_that_is_no_header_is_refused_in_one_line(
    folders: dict[str, Path], tmp_path: Path, where: Settings, header: str
) -> None:
    shelf.add("tiny-wan", folders["wan"], where)
    file = tmp_path / "a.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(BadWeights, match="is not a safetensors file, or it is damaged"):
        shelf.add("odd", file, where, base="tiny-wan")
