"""Tiny Stable Diffusion 3 checkpoints: medium, both of 3.5, and one whose folder has no T5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import clips, words

KINDS = ("medium", "3.5-medium", "3.5-large", "without-t5")


def save(folder: Path, kind: str) -> Path:
    """Write one of KINDS and return its folder."""
    torch.manual_seed(0)
    pipeline(kind).save_pretrained(folder)
    return folder


def pipeline(kind: str) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import T5Config, T5EncoderModel

    newer: dict[str, Any] = {"qk_norm": "rms_norm"} if kind.startswith("3.5") else {}
    newer |= {"dual_attention_layers": (0,)} if kind == "3.5-medium" else {}
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=24,
        pos_embed_max_size=32,
        **newer,
    )
    config = T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    longer = kind != "without-t5"
    reader = words.clip()
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=clips.vae(16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        tokenizer=reader,
        text_encoder=clips.tower(reader, width=8),
        tokenizer_2=words.clip(),
        text_encoder_2=clips.tower(reader, width=16),
        tokenizer_3=words.t5() if longer else None,
        text_encoder_3=T5EncoderModel(config).eval() if longer else None,
    )
