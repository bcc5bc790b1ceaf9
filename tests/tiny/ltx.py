"""Tiny LTX-Video checkpoints: plain, with a decoder that cleans up, and for the pipeline of conditions (0.9.5 on)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import words

KINDS = ("plain", "cleaning", "conditions")


def save(folder: Path, kind: str) -> Path:
    """Write one of KINDS and return its folder."""
    torch.manual_seed(0)
    pipeline(kind).save_pretrained(folder)
    return folder


def pipeline(kind: str) -> Any:
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXConditionPipeline,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=4,
        attention_head_dim=8,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=32,
    )
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False),
        decoder_spatio_temporal_scaling=(True, True, True, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=kind == "cleaning",
        patch_size=4,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )
    vae.latents_mean.copy_(torch.linspace(-0.1, 0.1, 8))
    vae.latents_std.copy_(torch.linspace(0.8, 1.2, 8))
    config = T5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    growing = {
        "use_dynamic_shifting": True,
        "base_shift": 0.95,
        "max_shift": 2.05,
        "base_image_seq_len": 1024,
        "max_image_seq_len": 4096,
        "shift_terminal": 0.1,
    }
    return (LTXConditionPipeline if kind == "conditions" else LTXPipeline)(
        tokenizer=words.t5(),
        text_encoder=T5EncoderModel(config).eval(),
        vae=vae.eval(),
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(**({} if kind == "conditions" else growing)),
    )
