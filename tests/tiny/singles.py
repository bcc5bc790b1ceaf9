"""One file in place of a network, as people publish them: by other names, and in GGUF's blocks."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
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


_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}


def sdxl_names(name: str, *, layers: int, seeing: Container[int]) -> str:
    """A weight of SDXL's UNet by its published name; layers: of a block; seeing: the blocks upwards with attention."""
    for theirs, published in _RESNET.items():
        name = name.replace(f".{theirs}.", f".{published}.") if ".resnets." in name else name
    for theirs, published in _ENDS.items():
        name = name.replace(theirs, published) if name.startswith(f"{theirs}.") else name
    way, *parts = name.split(".")
    if way == "down_blocks":
        block, kind, layer, *rest = parts
        at = 1 + int(block) * (layers + 1) + int(layer)
        if kind == "downsamplers":
            name = ".".join(("input_blocks", str(at + layers), "0.op", *rest[1:]))
        else:
            name = ".".join(("input_blocks", str(at), "1" if kind == "attentions" else "0", *rest))
    elif way == "up_blocks":
        block, kind, layer, *rest = parts
        at = int(block) * (layers + 1) + int(layer)
        if kind == "upsamplers":
            name = ".".join(("output_blocks", str(at + layers), "2" if int(block) in seeing else "1", *rest))
        else:
            name = ".".join(("output_blocks", str(at), "1" if kind == "attentions" else "0", *rest))
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
