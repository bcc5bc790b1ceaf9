"""A tiny HunyuanVideo checkpoint, which is told how far to lean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import words


def save(folder: Path) -> Path:
    """Write it and return its folder."""
    torch.manual_seed(0)
    pipeline().save_pretrained(folder)
    return folder


def pipeline() -> Any:
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

    transformer = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=True,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4,
        up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        spatial_compression_ratio=8,
        temporal_compression_ratio=4,
        mid_block_add_attention=True,
    )
    tokenizer = words.llama()
    read = LlamaConfig(
        hidden_size=16,
        intermediate_size=37,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=1024,
    )
    pooled = words.clip()
    seen = CLIPTextConfig(
        hidden_size=8,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=len(pooled),
        projection_dim=8,
        eos_token_id=pooled.eos_token_id,
    )
    return HunyuanVideoPipeline(
        text_encoder=LlamaModel(read).eval(),
        tokenizer=tokenizer,
        text_encoder_2=CLIPTextModel(seen).eval(),
        tokenizer_2=pooled,
        transformer=transformer.eval(),
        vae=vae.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )
