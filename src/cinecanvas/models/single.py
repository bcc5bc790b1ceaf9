"""One file in place of a network: by the names of its publisher or of diffusers, whole or in GGUF's blocks."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cinecanvas.errors import BadRequest, BadWeights
from cinecanvas.models.headers import blocked, check_weights

Tensors = dict[str, Tensor]

NETWORKS = ("transformer", "transformer_2", "unet")  # the parts that a file can stand for
_BEFORE = ("model.diffusion_model.", "diffusion_model.", "transformer.", "unet.")  # what some put before all names
_SCALED = ("scale_weight", "weight_scale", "scale_input", "input_scale", "scaled_fp8", "comfy_quant")
_OTHERS = (  # the parts that files of whole checkpoints hold besides
    *("vae.", "first_stage_model.", "audio_vae.", "vocoder.", "model_ema.", "denoiser."),
    *("conditioner.", "cond_stage_model.", "text_encoders.", "text_embedding_projection."),
)


@dataclass(frozen=True)
class Standing:
    """A file that fits the network it stands for; of its weights none is read yet.

    packed: the linear layers that stay in GGUF's blocks, each with its rows, the bytes of a row, and GGUF's type.
    """

    file: Path
    packed: Mapping[str, tuple[int, int, int]]


class Packed(nn.Module):
    """A linear layer whose matrix stays in GGUF's blocks, and is made wide for each product."""

    packed: Tensor

    def __init__(self, linear: nn.Linear, packed: Tensor, kind: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._kind, self._dtype = kind, dtype
        self.register_buffer("packed", packed)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, _wide(self.packed, self._kind).to(x.dtype), self.bias)

    @property
    def weight(self) -> Tensor:
        """Nothing, in the type that the layer takes: for code that asks a layer's weight what to bring it."""
        return self.packed.new_empty(0, dtype=self._dtype)


def placed(files: Sequence[Path], layout: Mapping[str, Any], *, base: str) -> tuple[tuple[str, Path], ...]:
    """Which part of a checkpoint of that layout each file stands for; of two experts the one of high noise is first."""
    parts = [part for part in NETWORKS if part in layout]
    if not parts:
        raise BadRequest(f"{base} has no transformer and no UNet that a file could replace", do="Add a whole folder")
    if len(files) < len(parts):
        raise BadRequest(
            f"{base} has two networks, for high noise and for low, and one file was named",
            do=f"cine models add NAME HIGH --base {base} --second LOW",
        )
    if len(files) > len(parts):
        raise BadRequest(f"{base} has one network, and two files were named", do="Leave out --second")
    return tuple(zip(parts, files, strict=True))


def fitted(kind: Any, config: Mapping[str, Any], file: Path, *, part: str) -> Standing:
    """A file by its header, if it has every weight of a network of that class and shape; else a refusal."""
    check_weights(file, named=file.name)
    found = file.stat()
    return _fitted(kind, json.dumps(config), file, part, (found.st_size, found.st_mtime_ns))


def load(kind: Any, config: Mapping[str, Any], standing: Standing, *, dtype: torch.dtype, part: str) -> nn.Module:
    """The network with the weights of the file, on the CPU; what its class keeps in float32 is so."""
    file, network = standing.file, _empty(kind, config)
    with _readable(file):
        tensors = _tensors(file, shapes=False)
    its = _renamed(kind, config, network, tensors, file=file, part=part)
    _check(network, its, file=file, part=part)
    for layer, (_, _, block) in standing.packed.items():
        matrix = its.pop(f"{layer}.weight").as_tensor()  # type: ignore[attr-defined]
        _set(network, layer, Packed(network.get_submodule(layer), matrix, block, dtype))  # type: ignore[arg-type]
    ready: Tensors = {}
    for name in [name for name in network.state_dict() if name in its]:
        tensor = _plain(its.pop(name))
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float32 if _kept_wide(kind, name) else dtype)
        ready[name] = tensor.contiguous()
    network.load_state_dict(ready, strict=False, assign=True)
    return network


def packed(network: nn.Module, standing: Standing, *, dtype: torch.dtype) -> nn.Module:
    """A network without numbers as it will be with the file's: its packed layers weigh what they weigh in the file."""
    for layer, (rows, width, block) in standing.packed.items():
        empty = torch.empty(rows, width, dtype=torch.uint8)
        _set(network, layer, Packed(network.get_submodule(layer), empty, block, dtype))  # type: ignore[arg-type]
    return network


@functools.lru_cache(maxsize=8)  # a placement is looked for by several rehearsals of the same file
def _fitted(kind: Any, config: str, file: Path, part: str, stamp: tuple[int, int]) -> Standing:
    known = json.loads(config)
    network = _empty(kind, known)
    with _readable(file):
        tensors = _tensors(file, shapes=True)
    its = _renamed(kind, known, network, tensors, file=file, part=part)
    _check(network, its, file=file, part=part)
    blocks = {}
    for layer, module in network.named_modules():
        weight: Any = its.get(f"{layer}.weight")
        if type(module) is nn.Linear and hasattr(weight, "quant_type") and not _kept_wide(kind, f"{layer}.weight"):
            blocks[layer] = (*weight.shape, int(weight.quant_type))
    return Standing(file, blocks)


def _empty(kind: Any, config: Mapping[str, Any]) -> nn.Module:
    """A network whose parameters have shapes alone; what it computes for itself has numbers."""
    from accelerate import init_empty_weights  # type: ignore[import-untyped]

    with init_empty_weights():
        network: nn.Module = kind.from_config(dict(config))
    return network


def _tensors(file: Path, *, shapes: bool) -> Tensors:
    """What a file holds, by its own names; shapes: without the numbers."""
    if blocked(file):
        return _of_gguf(file, shapes=shapes)
    with safe_open(file, "pt") as opened:
        names = list(opened.keys())
        if shapes:
            return {name: torch.empty(opened.get_slice(name).get_shape(), device="meta") for name in names}
        return {name: opened.get_tensor(name) for name in names}


def _of_gguf(file: Path, *, shapes: bool) -> Tensors:
    """The tensors of a GGUF file: quantised ones as diffusers wraps them, the others plain."""
    gguf = _gguf()
    from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_functions

    found: Tensors = {}
    reader = gguf.GGUFReader(file)
    for one in reader.tensors:
        block = one.tensor_type
        plain = block in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
        if not plain and block not in dequantize_functions:
            raise BadWeights(
                f"{file.name} has weights as {block.name}, which diffusers does not read",
                f"It reads {', '.join(known.name for known in dequantize_functions)}, F16 and F32",
            )
        data = torch.empty(one.data.shape, dtype=torch.uint8, device="meta") if shapes else torch.tensor(one.data)
        tensor: Any = data if plain else GGUFParameter(data, quant_type=block)
        original = reader.get_field(f"comfy.gguf.orig_shape.{one.name}")  # of what was flattened to fit into blocks
        if original is not None:
            sides = [int(original.parts[index][0]) for index in original.data]
            tensor = torch.empty(sides, device="meta") if shapes else _plain(tensor).view(sides)
        elif block == gguf.GGMLQuantizationType.BF16:
            tensor = torch.empty(tensor.quant_shape, device="meta") if shapes else _plain(tensor)
        found[one.name] = tensor
    return found


def _renamed(
    kind: Any, config: Mapping[str, Any], network: nn.Module, tensors: Tensors, *, file: Path, part: str
) -> Tensors:
    """The tensors by diffusers' names, as its own converters bring them there."""
    from diffusers.loaders import single_file_model

    scaled = next((name for name in tensors if name.endswith(_SCALED)), "")
    if scaled:
        raise BadWeights(
            f"{file.name} has its weights in float8 with scales of their own ({scaled[:80]}), which are not read",
            "Weights in float32, float16, bfloat16 or plain float8, and GGUF are possible",
        )
    known: Any = single_file_model.SINGLE_FILE_LOADABLE_CLASSES.get(kind.__name__)
    own = network.state_dict().keys()
    bare = next((before for before in _BEFORE if all(name.startswith(before) for name in tensors)), "")
    tensors = {name.removeprefix(bare): tensor for name, tensor in tensors.items()}
    if own <= tensors.keys():
        return tensors
    if known is None:
        missing = next(name for name in own if name not in tensors)
        raise _foreign(file, part, f"it has no {missing}", "Of this family only diffusers' own names are read")
    if part == "unet" and not any(name.startswith(_BEFORE[0]) for name in tensors):
        tensors = {f"{_BEFORE[0]}{name}": tensor for name, tensor in tensors.items()}
    try:
        found: Tensors = known["checkpoint_mapping_fn"](config=dict(config), checkpoint=dict(tensors))
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, RuntimeError):
        return tensors  # whose names will be missed
    return min(found, tensors, key=lambda one: len(own - one.keys()))


def _check(network: nn.Module, its: Tensors, *, file: Path, part: str) -> None:
    """Every weight of the network must be there and have its shape, and nothing else that would change it."""
    own = network.state_dict()
    for name, weight in own.items():
        if name not in its:
            raise _foreign(file, part, f"it has no {name}")
        shape = tuple(getattr(its[name], "quant_shape", its[name].shape))
        if shape != tuple(weight.shape):
            raise _foreign(file, part, f"{name} is {_by(shape)} and not {_by(weight.shape)}")
    more = next((name for name in its if name not in own and not name.startswith(_OTHERS)), "")
    if more:
        raise _foreign(file, part, f"it has {more[:80]}, which this network has not")


def _plain(tensor: Any) -> Tensor:
    """A tensor in numbers, whatever it was packed in."""
    return _wide(tensor.as_tensor(), int(tensor.quant_type)) if hasattr(tensor, "quant_type") else tensor


def _wide(packed: Tensor, block: int) -> Tensor:
    """GGUF's blocks (..., bytes) as numbers in float32, as its own functions make them."""
    from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, dequantize_functions

    kind = _gguf().GGMLQuantizationType(block)
    count, length = GGML_QUANT_SIZES[kind]
    blocks = packed.view(torch.uint8).reshape(-1, length)
    wide = dequantize_functions[kind](blocks, count, length, dtype=torch.float32)
    return wide.reshape(*packed.shape[:-1], packed.shape[-1] // length * count)


def _kept_wide(kind: Any, name: str) -> bool:
    """Whether a class keeps a weight in float32, as diffusers looks for it."""
    return any(module in name.split(".") for module in kind._keep_in_fp32_modules or ())


def _set(network: nn.Module, layer: str, module: nn.Module) -> None:
    above, _, name = layer.rpartition(".")
    setattr(network.get_submodule(above), name, module)


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise BadWeights(
            "GGUF files need the package gguf, which is not installed", do="pip install 'cinecanvas[checkpoints]'"
        ) from error
    return gguf


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """What a library finds wrong in a file, as one line."""
    try:
        yield
    except (OSError, SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
        raise BadWeights(f"{file.name} cannot be read, or it is damaged", do="Fetch it again") from error


def _foreign(file: Path, part: str, why: str, possible: str = "") -> BadWeights:
    return BadWeights(
        f"{file.name} is not for the {part} of this model: {why}", possible, "Choose the base that it was made from"
    )


def _by(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
