"""What Wan's checkpoints share with those that grew from them: how a prompt is read, and the code of a film."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from cinecanvas.model import Frames
from cinecanvas.models.checkpoint import Parts
from cinecanvas.models.latents import frames_of
from cinecanvas.models.prompts import remembered

TOKENS = 512  # of a prompt; shorter ones are followed by zeros, to which the network attends


def read(parts: Parts, text: Sequence[str]) -> dict[str, Tensor]:
    """UMT5's states (B, 512, width) of B prompts, as they were kept or read now; what is beyond their end is zero."""
    return remembered(parts, text, functools.partial(_states, parts), by=("tokenizer", "text_encoder"))


def _states(parts: Parts, text: Sequence[str]) -> dict[str, Tensor]:
    words = parts.reader("tokenizer")(
        [cleaned(prompt) for prompt in text],
        padding="max_length",
        max_length=TOKENS,
        truncation=True,
        return_tensors="pt",
    )
    encoder = parts.network("text_encoder")
    ids, mask = (words[name].to(parts.device) for name in ("input_ids", "attention_mask"))
    states = encoder(ids, mask).last_hidden_state
    return {"encoder_hidden_states": torch.where(mask[..., None] > 0, states, 0)}


def cleaned(prompt: str) -> str:
    """A prompt as the authors clean it: mended where it was decoded wrongly, no entities, single spaces."""
    import ftfy

    return re.sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(prompt))).strip()).strip()


def encoded(vae: Any, rgb: Tensor) -> Tensor:
    """Pixels (B, 3, T, H, W) in [-1, 1] to latents (B, C, T', H', W') of unit variance, float32."""
    mean, std = _scales(vae)
    return (vae.encode(rgb.to(vae.dtype)).latent_dist.mode().float() - mean) / std


def decoded(vae: Any, latents: Tensor, memory: list[Any] | None) -> Generator[Frames, None, list[Any]]:
    """RGB uint8 (t, H, W, 3) of latents (1, C, T', H', W'), a cell-in-time after the other.

    The memory is what the convolutions hold; without any the first cell is a frame alone.
    """
    mean, std = _scales(vae)
    cache = [None] * vae._cached_conv_counts["decoder"] if memory is None else list(memory)
    for cell in range(latents.shape[2]):
        with torch.inference_mode():
            x = latents[:, :, cell : cell + 1].to(mean.device) * std + mean
            first = {"first_chunk": True} if memory is None and cell == 0 else {}
            rgb = vae.decoder(vae.post_quant_conv(x.to(vae.dtype)), feat_cache=cache, feat_idx=[0], **first)
            frames = frames_of(_unpatchified(rgb, vae.config.patch_size)[0].clamp(-1, 1))
        yield frames
    return cache


def _scales(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the code (1, C, 1, 1, 1), float32."""
    mean, std = (torch.tensor(row).view(1, -1, 1, 1, 1) for row in (vae.config.latents_mean, vae.config.latents_std))
    return mean.to(vae.device), std.to(vae.device)


def _unpatchified(rgb: Tensor, patch: int | None) -> Tensor:
    """(B, 3 p p, T, H, W) to (B, 3, T, p H, p W); the second factor of the channels runs down, the first across."""
    if patch is None:
        return rgb
    b, c, t, h, w = rgb.shape
    split = rgb.view(b, c // patch**2, patch, patch, t, h, w).permute(0, 1, 4, 5, 3, 6, 2)
    return split.reshape(b, c // patch**2, t, h * patch, w * patch)
