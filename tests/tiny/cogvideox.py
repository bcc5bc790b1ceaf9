"""Tiny CogVideoX checkpoints: 2B without rotary positions, 5B with, 1.5 that reads pairs; from words or a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import words

KINDS = ("2b", "5b", "5b-i2v", "1.5", "1.5-i2v")


def save(folder: Path, kind: str) -> Path:
    """Write one of KINDS and return its folder."""
    torch.manual_seed(0)
    pipeline(kind).save_pretrained(folder)
    return folder


def pipeline(kind: str) -> Any:
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXImageToVideoPipeline,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    shown, pairs = kind.endswith("i2v"), kind.startswith("1.5")
    newer = {"patch_size_t": 2, "patch_bias": False} if pairs else {}
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8 if shown else 4,
        out_channels=4,
        time_embed_dim=8,
        ofs_embed_dim=8 if pairs and shown else None,
        text_embed_dim=32,
        num_layers=2,
        sample_width=8,
        sample_height=4,
        sample_frames=9,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=kind != "2b",
        use_learned_positional_embeddings=kind == "5b-i2v",
        **newer,
    )
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
        invert_scale_latents=pairs and shown,
    )
    config = T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    made = CogVideoXImageToVideoPipeline if shown else CogVideoXPipeline
    return made(
        tokenizer=words.t5(),
        text_encoder=T5EncoderModel(config).eval(),
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=CogVideoXDDIMScheduler(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=3.0 if kind == "2b" else 1.0,
            timestep_spacing="trailing",
        ),
    )
