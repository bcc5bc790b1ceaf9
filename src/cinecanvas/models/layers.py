"""The parts our networks are made of: positions, attention that also reads text, and the gated block.

Shape suffixes: B batch, L cells, M text tokens, D width, H heads, E width of a head, R rank of the modulation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Attention over cells and words, then SwiGLU, both scaled and gated per cell by its noise level."""

    def __init__(self, width: int, heads: int, rank: int, text_width: int) -> None:
        super().__init__()
        self.heads = heads
        hidden = round(width * 8 / 3 / 64) * 64
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.text_kv = nn.Linear(text_width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        # the eight neighbours of a cell in its own picture: where cells agree, 16-px squares have no seams
        self.near = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.gain = nn.Parameter(torch.full((heads, 1, 1), math.sqrt(width // heads)))
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        # rank -> (scale, gate) x 2: a low rank keeps per-cell modulation at a few per cent of the block's cost
        self.modulate = nn.Linear(rank, 4 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        nn.init.ones_(self.modulate.bias.view(4, width)[1::2])
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.near.weight)

    def forward(
        self,
        x_BLD: Tensor,
        mod_BLR: Tensor,
        text_kv: Tensor,
        bias: Tensor,
        cos: Tensor,
        sin: Tensor,
        size: tuple[int, int],
    ) -> Tensor:
        """text_kv (2, B, H, M, E) from `keys_of`; bias (B, 1, 1, L+M) additive; cos, sin (L, E); size (H, W) in cells.

        Beside attention a depthwise 3 x 3 convolution reads the values of the neighbours (CSWin, Dong et al. 2022).
        """
        scale_a, gate_a, scale_m, gate_m = self.modulate(mod_BLR).chunk(4, dim=-1)
        qkv = self.qkv(norm(x_BLD) * (1 + scale_a))
        q, k, v = heads_of(qkv, 3, self.heads)
        q, k = rotate(norm(q) * self.gain, cos, sin), rotate(norm(k), cos, sin)
        k, v = torch.cat([k, text_kv[0]], dim=2), torch.cat([v, text_kv[1]], dim=2)
        mixed = attention(q, k, v, bias).transpose(1, 2).flatten(2) + self._beside(qkv.chunk(3, dim=-1)[2], size)
        x_BLD = x_BLD + gate_a * self.out(mixed)
        a, b = self.up(norm(x_BLD) * (1 + scale_m)).chunk(2, dim=-1)
        return x_BLD + gate_m * self.down(F.silu(a) * b)

    def _beside(self, v_BLD: Tensor, size: tuple[int, int]) -> Tensor:
        """The convolution over the picture of every moment (B, L, D): channels last, as the cells lie in memory."""
        pictures = v_BLD.reshape(-1, *size, v_BLD.shape[-1]).permute(0, 3, 1, 2)
        return self.near(pictures).permute(0, 2, 3, 1).reshape(v_BLD.shape)

    def keys_of(self, text_BMD: Tensor) -> Tensor:
        """Keys and values of the words (2, B, H, M, E): they do not change while a canvas is filled."""
        k, v = heads_of(self.text_kv(text_BMD), 2, self.heads)
        return torch.stack([norm(k), v])


def norm(x: Tensor) -> Tensor:
    """LayerNorm without affine: one fused kernel on a CPU, where rms_norm is several."""
    return F.layer_norm(x, x.shape[-1:])


def heads_of(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(B, L, parts * D) to `parts` tensors (B, H, L, E)."""
    b, length, _ = x.shape
    return x.view(b, length, parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Softmax attention (B, H, L, E); written out on CPUs, where the fused backward took 30 % of a training step."""
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
    logits = torch.matmul(q, k.transpose(-1, -2)) * (1 / math.sqrt(q.shape[-1])) + bias.to(q.dtype)
    return torch.matmul(logits.softmax(dim=-1), v)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021): pairs (x1, x2) of the two halves turned by the cell's angles."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def rope(positions: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """cos, sin (L, width / 2) for positions (L, 3) in cells: a quarter of the pairs turns with t, the rest with y, x.

    Wavelengths run from 2 to 64 cells; positions are true coordinates, so size, shape and length stay free.
    """
    pairs = width // 2
    share = (pairs - 2 * (3 * pairs // 8), 3 * pairs // 8, 3 * pairs // 8)
    angles = [
        positions[:, axis, None] * (2 * math.pi / torch.logspace(1, 6, n, base=2.0)) for axis, n in enumerate(share)
    ]
    angle = torch.cat(angles, dim=1)
    return angle.cos(), angle.sin()


def fourier(x: Tensor, octaves: int, *, base: float) -> Tensor:
    """Fourier features (..., 2 * octaves) of a number whose lowest frequency is base / 2 pi."""
    angle = x[..., None] * (base * 2.0 ** torch.arange(octaves, device=x.device))
    return torch.cat([angle.sin(), angle.cos()], dim=-1)
