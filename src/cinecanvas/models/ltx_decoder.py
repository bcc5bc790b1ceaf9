"""LTX-Video's decoder, a few cells at a time: the frames that it makes of a whole film, whichever way it looks in time.

Its published checkpoints look both ways: a frame depends on the 20 cells and more around it. Instead of decoding those
again for every part, each convolution holds the last frames that it was given, and answers as far as it can see. So a
film comes out some cells late, at no cost but that; where it ends, one layer after the other is told so.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

AT_ONCE = 4  # cells-in-time that are decoded together

Held = tuple[Tensor | None, ...]  # what layers hold between two rounds, in the order in which they are met


@dataclass(frozen=True)
class Memory:
    """Where a film goes on: what layers hold, the cells that they were given, and the frames given before their time.

    Those at the end of what was there were decoded without the cells after them; they are not given again.
    """

    held: Held = ()
    cells: int = 0
    early: int = 0


def decoded(
    decoder: Any, parts: Iterable[Tensor], time: Tensor | None, memory: Memory
) -> Generator[tuple[Tensor, Memory | None], None, Memory]:
    """Pixels (B, 3, t, H, W) of latents (B, C, T', H', W') that come in parts, all of them once the parts are over.

    time: what a decoder that cleans up is told of the noise. With pixels before their time comes the memory of a film
    in which they were not given yet. Returns what the continuation of all that was given needs.
    """
    held, skip, cells, none = memory.held, memory.early, memory.cells, None
    for x in parts:
        rgb, held = _round(decoder, x, time, held, ends=range(0))
        cells, none = cells + x.shape[2], x[:, :, :0]
        if rgb.shape[2] > skip:
            yield rgb[:, :, skip:], None
        skip = max(0, skip - rgb.shape[2])
    early, rest, settled = 0, held, Memory(held, cells, skip)
    if none is not None and not decoder.conv_in.is_causal:
        for first in range(0, _convolutions(decoder), AT_ONCE):  # a few layers at a time, or all would end at once
            rgb, rest = _round(decoder, none, time, rest, ends=range(first, first + AT_ONCE))
            early += rgb.shape[2]
            if rgb.shape[2] > skip:
                yield rgb[:, :, skip:], settled
            skip = max(0, skip - rgb.shape[2])
    return Memory(held, cells, early)


def _convolutions(decoder: Any) -> int:
    kind = type(decoder.conv_in)
    return sum(isinstance(module, kind) for module in decoder.modules())


def _round(decoder: Any, x: Tensor, time: Tensor | None, held: Held, *, ends: range) -> tuple[Tensor, Held]:
    """One part through all layers; for the convolutions of those numbers it is the last that they are given."""
    way = _Way(held, ends)
    with torch.random.fork_rng(devices=[]):  # some layers draw noise of their own, the same for all frames
        torch.manual_seed(0)
        rgb = way.pixels(decoder, x, time)
    return rgb, tuple(way.holds)


class _Way:
    """One round through the decoder, layer by layer as theirs goes, for as many frames as each layer can answer."""

    def __init__(self, held: Sequence[Tensor | None], ends: range) -> None:
        self._held, self._ends = held, ends
        self.holds: list[Tensor | None] = []
        self._met = 0  # convolutions

    def pixels(self, decoder: Any, x: Tensor, time: Tensor | None) -> Tensor:
        """Latents (B, C, t', H', W') of a part as those pixels (B, 3, t, H, W) that can be known by now."""
        x = self._convolved(decoder.conv_in, x)
        if time is not None and decoder.timestep_scale_multiplier is not None:
            time = time * decoder.timestep_scale_multiplier
        for block in (decoder.mid_block, *decoder.up_blocks):
            if getattr(block, "conv_in", None) is not None:
                x = self._resnet(block.conv_in, x, time)
            told = _embedded(block, time, x)
            for layer in getattr(block, "upsamplers", None) or ():
                x = self._enlarged(layer, x)
            for layer in block.resnets:
                x = self._resnet(layer, x, told)
        x = _by_channel(decoder.norm_out, x)
        if decoder.time_embedder is not None:
            shift, scale = _shifts(decoder.scale_shift_table, _embedded(decoder, time, x))
            x = x * (1 + scale) + shift
        x = self._convolved(decoder.conv_out, decoder.conv_act(x))
        x = x.unflatten(1, (-1, decoder.patch_size_t, decoder.patch_size, decoder.patch_size))
        return x.permute(0, 1, 5, 2, 6, 4, 7, 3).flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def _past(self) -> Tensor | None:
        """What the layer that is met now holds."""
        return self._held[len(self.holds)] if self._held else None

    def _convolved(self, layer: Any, x: Tensor) -> Tensor:
        """The answers to all frames of which it has seen what lies around them; beyond a film its ends stand still."""
        around = layer.kernel_size[0] - 1
        after = 0 if layer.is_causal else around // 2
        last, past = self._met in self._ends, self._past()
        self._met += 1
        if past is None:
            past = x[:, :, :1].repeat(1, 1, around - after, 1, 1)
        x = torch.cat([past, x], 2)
        if last:
            x = torch.cat([x, x[:, :, -1:].repeat(1, 1, after, 1, 1)], 2)
        answers = max(0, x.shape[2] - around)
        self.holds.append(x[:, :, answers:].clone() if x.shape[2] else None)
        return layer.conv(x) if answers else x.new_zeros(x.shape[0], layer.out_channels, 0, *x.shape[3:])

    def _late(self, x: Tensor, frames: int) -> Tensor:
        """What goes past layers has to wait for what comes out of them: the first `frames` of it."""
        past = self._past()
        x = x if past is None else torch.cat([past, x], 2)
        self.holds.append(x[:, :, frames:].clone())
        return x[:, :, :frames]

    def _resnet(self, layer: Any, x: Tensor, told: Tensor | None) -> Tensor:
        h = _by_channel(layer.norm1, x)
        shifts = () if layer.scale_shift_table is None else _shifts(layer.scale_shift_table, told)
        if shifts:
            h = h * (1 + shifts[1]) + shifts[0]
        h = self._convolved(layer.conv1, layer.nonlinearity(h))
        h = _by_channel(layer.norm2, _strewn(h, layer.per_channel_scale1))
        if shifts:
            h = h * (1 + shifts[3]) + shifts[2]
        h = self._convolved(layer.conv2, layer.nonlinearity(h))
        h = _strewn(h, layer.per_channel_scale2)
        x = self._late(x, h.shape[2])
        x = x if layer.norm3 is None else _by_channel(layer.norm3, x)
        return h + (x if layer.conv_shortcut is None else self._convolved(layer.conv_shortcut, x))

    def _enlarged(self, layer: Any, x: Tensor) -> Tensor:
        """Each frame as several, wider and higher; of the first of a film only the last."""
        h = self._convolved(layer.conv, x)
        answers = h.shape[2]
        past = self._late(x, answers) if layer.residual else None
        lead = layer.stride[0] - 1 if self._past() is None else 0
        self.holds.append(None if lead and not answers else x[:, :, :0])
        h = _spread(h, layer.stride)[:, :, lead:]
        if past is None:
            return h
        times = layer.stride[0] * layer.stride[1] * layer.stride[2] // layer.upscale_factor
        return h + _spread(past, layer.stride)[:, :, lead:].repeat(1, times, 1, 1, 1)


def _by_channel(norm: Any, x: Tensor) -> Tensor:
    return norm(x.movedim(1, -1)).movedim(-1, 1)


def _embedded(block: Any, time: Tensor | None, x: Tensor) -> Tensor | None:
    """What a block makes of what it is told (B, n, 1, 1, 1)."""
    if time is None or block.time_embedder is None:
        return time
    many = x.shape[0]
    found: Tensor = block.time_embedder(
        timestep=time.flatten(), resolution=None, aspect_ratio=None, batch_size=many, hidden_dtype=x.dtype
    )
    return found.view(many, -1, 1, 1, 1)


def _shifts(table: Tensor, told: Tensor | None) -> tuple[Tensor, ...]:
    """By how much features are moved and stretched, in turn, as a table and what is told say."""
    assert told is not None, "a decoder that cleans up is told of no noise"
    return (told.unflatten(1, (len(table), -1)) + table[None, ..., None, None, None]).unbind(1)


def _strewn(x: Tensor, scale: Tensor | None) -> Tensor:
    """With noise (H, W) of the layer's own on all frames and channels."""
    if scale is None:
        return x
    noise = torch.randn(x.shape[-2:], device=x.device, dtype=x.dtype)[None]
    return x + (noise * scale)[None, :, None]


def _spread(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Channels (B, n C, t, h, w) into time and space (B, C, s0 t, s1 h, s2 w)."""
    return x.unflatten(1, (-1, *stride)).permute(0, 1, 5, 2, 6, 3, 7, 4).flatten(6, 7).flatten(4, 5).flatten(2, 3)
