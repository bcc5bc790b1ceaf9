"""LoRA files of random numbers in the layouts that people have them in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

RANK = 4
SIZE = 0.3  # of the numbers: large, so that its effect cannot be missed


def diffusers_layout(
    file: Path, networks: Mapping[str, nn.Module], *, seed: int = 0, alpha: float | None = None
) -> Path:
    """As diffusers saves what PEFT trained: part, layer, lora_A and lora_B; alpha in what the file says of itself."""
    from peft import LoraConfig

    tensors, facts = dict[str, Tensor](), dict[str, Any]()
    for part, network in networks.items():
        pairs = list(_pairs(network, seed))
        for layer, down, up in pairs:
            tensors |= {f"{part}.{layer}.lora_A.weight": down, f"{part}.{layer}.lora_B.weight": up}
        config = LoraConfig(
            r=RANK, lora_alpha=cast(int, alpha), target_modules=[layer for layer, *_ in pairs]
        ).to_dict()
        facts |= {f"{part}.{key}": sorted(v) if isinstance(v, set) else v for key, v in config.items()}
    save_file(tensors, file, {"lora_adapter_metadata": json.dumps(facts)} if alpha is not None else None)
    return file


def kohya_layout(
    file: Path, network: nn.Module, *, alpha: float, prefix: str = "lora_unet", named: Callable[[str], str] = str
) -> Path:
    """As kohya's scripts save it: names with underscores, down, up, and an alpha for each layer."""
    save_file(kohya(network, alpha=alpha, prefix=prefix, named=named), file)
    return file


def kohya(
    network: nn.Module, *, alpha: float, prefix: str, named: Callable[[str], str] = str, seed: int = 0
) -> dict[str, Tensor]:
    tensors = {}
    for layer, down, up in _pairs(network, seed):
        name = f"{prefix}_{named(layer).replace('.', '_')}"
        tensors |= {
            f"{name}.lora_down.weight": down,
            f"{name}.lora_up.weight": up,
            f"{name}.alpha": torch.tensor(alpha),
        }
    return tensors


def published_layout(file: Path, network: nn.Module, named: Callable[[str], str]) -> Path:
    """By the names of the code that a model was published with, after `diffusion_model`; biases are changed too."""
    tensors = {}
    for layer, down, up in _pairs(network, 0):
        name = f"diffusion_model.{named(layer)}"
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors |= {f"{name}.diff_b": up[:, 0].clone()}
    save_file(tensors, file)
    return file


def wan_names(layer: str) -> str:
    """A layer of Wan's by its published name."""
    changed = {
        "attn1": "self_attn", "attn2": "cross_attn", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "o",
        "ffn.net.0.proj": "ffn.0", "ffn.net.2": "ffn.2",
    }  # fmt: skip
    for ours, theirs in changed.items():
        layer = layer.replace(ours, theirs)
    return layer


def _pairs(network: Any, seed: int) -> Iterable[tuple[str, Tensor, Tensor]]:
    """A pair of matrices for each linear layer of its attention and the two after it."""
    draw = torch.Generator().manual_seed(seed)
    for layer, module in network.named_modules():
        inside = any(mark in layer for mark in ("attn", "ffn", "ff.net")) and "blocks" in layer
        text = "self_attn." in layer and layer.endswith("_proj")
        if isinstance(module, nn.Linear) and (inside or text):
            out, into = module.weight.shape
            down, up = (torch.randn(*shape, generator=draw) * SIZE for shape in ((RANK, into), (out, RANK)))
            yield layer, down, up
