"""A tiny Helios: Wan's text encoder and autoencoder, and a network with patches for a history at three scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import wan, words


def save(folder: Path, **scheduler: Any) -> Path:
    """Write one, its scheduler as said, and return its folder."""
    torch.manual_seed(0)
    pipeline(**scheduler).save_pretrained(folder)
    return folder


def pipeline(**scheduler: Any) -> Any:
    """The pipeline of diffusers that would be published."""
    from diffusers import HeliosPipeline, HeliosScheduler

    return HeliosPipeline(
        tokenizer=words.t5(),
        text_encoder=wan.text_encoder(),
        vae=wan.vae(),
        scheduler=HeliosScheduler(**{"stages": 1, "stage_range": [0, 1], **scheduler}),
        transformer=transformer(),
    )


def transformer() -> Any:
    """What other cells and words say weighs many times, so that both are seen in what it makes."""
    from diffusers import HeliosTransformer3DModel

    network = HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=32,
        freq_dim=32,
        ffn_dim=32,
        num_layers=2,
        rope_dim=(4, 4, 4),
    )
    with torch.no_grad():
        for block in network.blocks:
            block.attn1.to_v.weight.mul_(10)
            block.attn2.to_v.weight.mul_(10)
            block.attn2.to_out[0].weight.mul_(3)
    return network.eval()
