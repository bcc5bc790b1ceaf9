"""One file in place of a network, as people publish them: by other names, and in GGUF's blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

_WAN = {  # diffusers' names to the published ones, in this order
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "norm2": "norm_x",
    "norm3": "norm2",
    "norm_x": "norm3",
    "attn1": "self_attn",
    "attn2": "cross_attn",
    "to_out.0": "o",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "proj_out": "head.head",
}
_LTX = {"proj_in": "patchify_proj", "time_embed": "adaln_single", "norm_q": "q_norm", "norm_k": "k_norm"}


def wan_names(name: str) -> str:
    """A weight of Wan's by its published name."""
    for theirs, published in _WAN.items():
        name = name.replace(theirs, published)
    name = "head.modulation" if name == "scale_shift_table" else name
    return name.replace("scale_shift_table", "modulation")


def ltx_names(name: str) -> str:
    """A weight of LTX-Video's as its files for one program have it."""
    for theirs, published in _LTX.items():
        name = name.replace(theirs, published)
    return f"model.diffusion_model.{name}"


def whole(file: Path, network: nn.Module, named: Callable[[str], str] = str, **more: Tensor) -> Path:
    """All weights of a network in one file, and `more` beside them."""
    save_file({named(name): one.clone().contiguous() for name, one in network.state_dict().items()} | more, file)
    return file


def quantised(network: nn.Module) -> dict[str, Any]:
    """Each weight as GGUF's type for it: the matrices of linear layers Q8_0, their biases F32, all else F16."""
    import gguf

    linear = {f"{name}.weight" for name, module in network.named_modules() if type(module) is nn.Linear}
    kinds = gguf.GGMLQuantizationType
    return {
        name: kinds.Q8_0 if name in linear else kinds.F32 if name.endswith(".bias") else kinds.F16
        for name in network.state_dict()
    }


def blocks(file: Path, network: nn.Module, kinds: Mapping[str, Any], named: Callable[[str], str] = str) -> Path:
    """The weights of a network in a GGUF file, each as that type."""
    import gguf

    writer = gguf.GGUFWriter(str(file), "tiny")
    for name, one in network.state_dict().items():
        packed = gguf.quants.quantize(one.float().numpy(), kinds[name])
        writer.add_tensor(named(name), packed, raw_dtype=kinds[name])
    for step in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{step}_to_file")()
    writer.close()
    return file


def opened(file: Path, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights of a GGUF file in float32 as gguf's own functions make them; names: ours by those of the file."""
    import gguf

    return {
        names[one.name]: torch.tensor(np.array(gguf.quants.dequantize(one.data, one.tensor_type), np.float32))
        for one in gguf.GGUFReader(file).tensors
    }
