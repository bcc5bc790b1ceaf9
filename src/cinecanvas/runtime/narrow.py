"""Weights in fewer bits: matrices as rows of int8 or float8, or as int4 groups, and wide again for every product.

Libraries that quantize bring kernels for some GPUs and a long import; weights alone need neither, and are what fills
the memory.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cinecanvas.runtime.placement import Precision

_GROUP = 64  # weights that share a scale in int4
_LEAST = 4096  # elements: what is smaller weighs nothing


class Narrow(nn.Module):
    """A linear layer whose matrix is kept narrow, with a float32 scale for each row, or for each group of a row."""

    packed: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, precision: Precision) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self._grouped, self._dtype = precision == "int4", linear.weight.dtype
        packed, scale = _PACK[precision](linear.weight.detach().float())
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        if self._grouped:
            return nn.functional.linear(x, self._wide().to(x.dtype), self.bias)
        y = nn.functional.linear(x, self.packed.to(x.dtype)) * self.scale.to(x.dtype)
        return y if self.bias is None else y + self.bias

    @property
    def weight(self) -> Tensor:
        """Nothing, in the type that the layer takes: for code that asks a layer's weight what to bring it."""
        return self.scale.new_empty(0, dtype=self._dtype)

    def _wide(self) -> Tensor:
        pairs = torch.stack([self.packed & 15, self.packed >> 4], 2).flatten(1).to(torch.int8) - 8
        groups = pairs.unflatten(1, (-1, _GROUP)) * self.scale[..., None].to(self._dtype)
        return groups.flatten(1)[:, : self.in_features]


def narrowed(network: nn.Module, precision: Precision) -> nn.Module:
    """The network with its large linear layers in that precision, in place.

    Embeddings, norms, convolutions, and what the network keeps in float32 for a reason stay as they are.
    """
    if precision not in _PACK:
        return network
    for name, child in list(network.named_children()):
        if type(child) is nn.Linear and child.weight.numel() >= _LEAST and child.weight.dtype != torch.float32:
            setattr(network, name, Narrow(child, precision))
        else:
            narrowed(child, precision)
    return network


def _rows(weight: Tensor, most: float) -> tuple[Tensor, Tensor]:
    scale = weight.abs().amax(1).clamp(min=1e-12) / most
    return weight / scale[:, None], scale


def _int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    rows, scale = _rows(weight, 127)
    return rows.round().to(torch.int8), scale


def _float8(weight: Tensor) -> tuple[Tensor, Tensor]:
    rows, scale = _rows(weight, 448)  # the largest of e4m3
    return rows.to(torch.float8_e4m3fn), scale


def _int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Two weights a byte, from -7 to 7."""
    groups = nn.functional.pad(weight, (0, -weight.shape[1] % _GROUP)).unflatten(1, (-1, _GROUP))
    scale = groups.abs().amax(2).clamp(min=1e-12) / 7
    whole = ((groups / scale[..., None]).round().flatten(1) + 8).to(torch.uint8)
    return whole[:, ::2] | whole[:, 1::2] << 4, scale


_PACK = {"int8": _int8, "float8": _float8, "int4": _int4}
