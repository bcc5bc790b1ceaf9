"""Tiny checkpoints of Stability AI's picture families: SD3 with and without T5, SDXL and SDXL-Turbo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import words

KINDS = ("sd3", "sd3-without-t5", "sdxl", "sdxl-turbo")


def save(folder: Path, kind: str) -> Path:
    """Write one of KINDS and return its folder."""
    torch.manual_seed(0)
    (sd3 if kind.startswith("sd3") else sdxl)(kind).save_pretrained(folder)
    return folder


def sd3(kind: str) -> Any:
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )
    from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel

    transformer = SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_projection_dim=32,
        joint_attention_dim=64,
        pooled_projection_dim=64,
        out_channels=4,
    )
    long = kind == "sd3"
    config = T5Config(vocab_size=128, d_model=64, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return StableDiffusion3Pipeline(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=autoencoder(shift_factor=0.0609, scaling_factor=1.5305).eval(),
        text_encoder=CLIPTextModelWithProjection(clip()).eval(),
        tokenizer=words.clip(),
        text_encoder_2=CLIPTextModelWithProjection(clip()).eval(),
        tokenizer_2=words.clip(),
        text_encoder_3=T5EncoderModel(config).eval() if long else None,
        tokenizer_3=words.t5() if long else None,
    )


def sdxl(kind: str) -> Any:
    from diffusers import (
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    unet = UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=6 * 8 + 32,
        cross_attention_dim=64,
    )
    betas: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    turbo = kind == "sdxl-turbo"
    return StableDiffusionXLPipeline(
        unet=unet.eval(),
        scheduler=EulerAncestralDiscreteScheduler(**betas, timestep_spacing="trailing")
        if turbo
        else EulerDiscreteScheduler(**betas, timestep_spacing="leading", steps_offset=1),
        vae=autoencoder(scaling_factor=0.13025).eval(),
        text_encoder=CLIPTextModel(clip()).eval(),
        tokenizer=words.clip(),
        text_encoder_2=CLIPTextModelWithProjection(clip()).eval(),
        tokenizer_2=words.clip(),
        force_zeros_for_empty_prompt=True,
    )


def autoencoder(**facts: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        **facts,
    )


def clip() -> Any:
    from transformers import CLIPTextConfig

    pooled = words.clip()
    return CLIPTextConfig(
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        vocab_size=len(pooled),
        projection_dim=32,
        eos_token_id=pooled.eos_token_id,
        bos_token_id=pooled.bos_token_id,
        pad_token_id=pooled.pad_token_id,
    )
