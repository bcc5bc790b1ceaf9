"""Tiny LTX-Video checkpoints: plain, with other decoders, and for the pipeline of conditions (from 0.9.5 on)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import words

KINDS = ("plain", "cleaning", "conditions", "causal")


def save(folder: Path, kind: str) -> Path:
    """Write one of KINDS and return its folder."""
    torch.manual_seed(0)
    pipeline(kind).save_pretrained(folder)
    return folder


def pipeline(kind: str) -> Any:
    from diffusers import (
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
    vae = autoencoder(cleaning=kind == "cleaning", causal=kind == "causal")
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


def autoencoder(*, cleaning: bool = False, causal: bool = False) -> Any:
    """One whose decoder looks both ways in time, as all that are published do, or back only.

    The one that cleans up is built as those from 0.9.1 on: fewer, wider stages with noise of their own.
    """
    from diffusers import AutoencoderKLLTXVideo

    torch.manual_seed(1)
    shape: dict[str, Any] = {
        "decoder_block_out_channels": (8, 8, 8, 16),
        "decoder_layers_per_block": (1, 1, 1, 1, 1),
        "decoder_spatio_temporal_scaling": (True, True, True, False),
        "decoder_inject_noise": (False,) * 5,
        "upsample_residual": (False,) * 4,
        "upsample_factor": (1,) * 4,
    }
    if cleaning:
        shape = {
            "decoder_block_out_channels": (8, 16, 32),
            "decoder_layers_per_block": (1, 1, 1, 1),
            "decoder_spatio_temporal_scaling": (True,) * 3,
            "decoder_inject_noise": (False, True, True, True),
            "upsample_residual": (True,) * 3,
            "upsample_factor": (2,) * 3,
        }
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, True, False),
        timestep_conditioning=cleaning,
        patch_size=4,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=causal,
        **shape,
    )
    for name, weight in vae.named_parameters():
        if "per_channel_scale" in name:  # they begin at 0, and would strew no noise
            weight.data.fill_(0.2)
    vae.latents_mean.copy_(torch.linspace(-0.1, 0.1, 8))
    vae.latents_std.copy_(torch.linspace(0.8, 1.2, 8))
    return vae.eval()
