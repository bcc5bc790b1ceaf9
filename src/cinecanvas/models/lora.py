"""LoRA files (Hu et al. 2021): what they add to the weights of a model, in the layouts that people have them in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cinecanvas.errors import BadWeights, Unsupported

Changes = Mapping[str, Mapping[str, "Change"]]  # by the part of a checkpoint and the layer in it

_OTHERS = {  # what the names of tensors say that a file is instead
    "dora_scale": "DoRA",
    "lora_magnitude": "DoRA",
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "lora_mid": "LoCon with a middle",
}
_NETWORKS = ("transformer", "unet")
_EXPERTS = {"high": "transformer", "low": "transformer_2"}  # by the noise that they are for


@dataclass(frozen=True)
class Change:
    """Of one layer: weight + up @ down, with the share that its alpha gives; and what its bias gets."""

    down: Tensor
    up: Tensor
    bias: Tensor | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that it fits."""
        return (self.up.shape[0], *self.down.shape[1:])


def read(file: Path, layout: Mapping[str, Any], *, named: str) -> Changes:
    """What a file changes in a checkpoint of that layout; names are brought to its own by diffusers."""
    try:
        with safe_open(file, "pt") as opened:
            facts = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (it is no dict)
    except (OSError, SafetensorError) as error:
        raise BadWeights(f"The LoRA {named} cannot be read", do="Verify it, or fetch it again") from error
    kind = next((kind for mark, kind in _OTHERS.items() if any(mark in name for name in tensors)), "")
    if kind:
        raise Unsupported(f"{named} is a {kind} file", "LoRA files with two matrices for a layer are possible")
    try:
        converted = _by_part(_converted(tensors, layout), layout)
        adapter = json.loads(facts.get("lora_adapter_metadata", "{}"))
        return {part: _changes(part, its, adapter) for part, its in converted.items()}
    except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise _foreign(named, layout, "its layers have other names") from error


def parts_of(part: str, expert: str, layout: Mapping[str, Any], *, named: str) -> tuple[str, ...]:
    """Which networks a change of one goes to: where two experts share the noise, to both or to one of them."""
    if not expert:
        return (part, "transformer_2") if part == "transformer" and "transformer_2" in layout else (part,)
    if "transformer_2" not in layout:
        raise Unsupported(
            f"{named} was asked for the expert of {expert} noise", "The model has one network for all noise"
        )
    return (_EXPERTS[expert],) if part in _EXPERTS.values() else (part,)


def check(changes: Mapping[str, Change], network: nn.Module, layout: Mapping[str, Any], *, named: str) -> None:
    """Refuse a file that is for other networks: every layer must be there, and have its shape."""
    for layer, change in changes.items():
        module = _layer(network, layer)
        weight = getattr(module, "weight", None)
        if weight is None:
            raise _foreign(named, layout, f"there is no layer {layer[:80]}")
        if tuple(weight.shape) != change.shape:
            raise _foreign(named, layout, f"{layer[:80]} is {_by(weight.shape)} and not {_by(change.shape)}")
        if change.bias is not None and getattr(module, "bias", None) is None:
            raise _foreign(named, layout, f"{layer[:80]} has no bias")


def merge(changes: Mapping[str, Change], network: nn.Module, *, weight: float) -> None:
    """Add a file's changes to a network, by so much; computed in float32 and rounded once."""
    for layer, change in changes.items():
        module: Any = _layer(network, layer)
        up, down = change.up.float().flatten(1), change.down.float().flatten(1)
        kept = module.weight.data
        kept.copy_(torch.addmm(kept.float().flatten(1), up, down, alpha=weight).view_as(kept))
        if change.bias is not None:
            bias = module.bias.data
            bias.copy_(bias.float() + weight * change.bias.float())


def _converted(tensors: dict[str, Tensor], layout: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors by names that begin with a part of the checkpoint, with the alphas that kohya's files have."""
    import diffusers
    from diffusers.utils import logging

    logging.set_verbosity_error()
    bare = {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}
    kind = getattr(diffusers, layout["model_index"]["_class_name"])
    if not hasattr(kind, "lora_state_dict"):
        return bare
    blocks = {"unet_config": SimpleNamespace(**layout["unet"])} if "unet" in layout else {}
    found = kind.lora_state_dict(bare, **blocks)
    named, alphas = found if isinstance(found, tuple) else (found, None)
    for name in named if alphas else ():
        alpha = alphas.get(f"{name}.alpha", alphas.get(f"{name.partition('.lora.')[0]}.alpha"))
        if alpha is not None and ".down." in name:
            named[name] = named[name] * (alpha / len(named[name]))
    return dict(named)


def _by_part(tensors: Mapping[str, Tensor], layout: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Tensors by their part, each with `lora_A` and `lora_B` in its name; those without a part are the network's."""
    from diffusers.utils.state_dict_utils import (
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
    )

    own = next((part for part in _NETWORKS if part in layout), "")
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, layer = name.partition(".")
        if part in layout:
            found.setdefault(part, {})[layer] = tensor
        elif not own or part in _NETWORKS or part.startswith("text_encoder"):
            raise ValueError(part)  # of a checkpoint that has other parts
        else:
            found.setdefault(own, {})[name] = tensor
    for part, its in found.items():
        if not any("lora_A" in name for name in its):
            text = part.startswith("text_encoder")
            if text:
                its = convert_state_dict_to_diffusers(its)
            found[part] = convert_state_dict_to_peft(its) if text else convert_unet_state_dict_to_peft(its)
    return found


def _changes(part: str, tensors: Mapping[str, Tensor], adapter: Mapping[str, Any]) -> dict[str, Change]:
    """The layers of one part; `adapter` is what the file says of how all of them were trained."""
    own = {key.removeprefix(f"{part}."): value for key, value in adapter.items() if key.startswith(f"{part}.")}
    found = {}
    for name, down in tensors.items():
        layer, mark, _ = name.partition(".lora_A.")
        if not mark:
            continue
        up, bias = tensors[f"{layer}.lora_B.weight"], tensors.get(f"{layer}.lora_B.bias")
        if up.shape[1] != down.shape[0]:
            raise ValueError(layer)
        found[layer] = Change(down * _share(layer, len(down), own), up, bias)
    left = sum("lora_" in name for name in tensors) - sum(2 + (one.bias is not None) for one in found.values())
    if left or not found:
        raise ValueError(part)
    return found


def _share(layer: str, rank: int, adapter: Mapping[str, Any]) -> float:
    """alpha / rank as PEFT trained it; 1 where the file does not say."""
    if "lora_alpha" not in adapter:
        return 1.0
    ending = next((one for one in adapter.get("alpha_pattern", {}) if f".{layer}".endswith(f".{one}")), None)
    alpha = adapter["alpha_pattern"][ending] if ending else adapter["lora_alpha"]
    return float(alpha / rank**0.5 if adapter.get("use_rslora") else alpha / rank)


def _layer(network: nn.Module, name: str) -> nn.Module | None:
    """A layer by its name; text encoders of CLIP have `text_model` before it in some versions of their library."""
    for one in (name, name.removeprefix("text_model."), f"text_model.{name}"):
        with suppress(AttributeError):
            return network.get_submodule(one)
    return None


def _foreign(named: str, layout: Mapping[str, Any], why: str) -> BadWeights:
    kind = str(layout["model_index"].get("_class_name", "model")).removesuffix("Pipeline")
    return BadWeights(f"The LoRA {named} is not for this {kind}: {why}", do="Choose a LoRA that was made for the model")


def _by(shape: tuple[int, ...] | torch.Size) -> str:
    return "x".join(map(str, shape))
