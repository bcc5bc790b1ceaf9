"""Tiny Stable Diffusion XL checkpoints: the base, the Turbo, and one that predicts velocity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import clips, words

KINDS = ("base", "turbo", "velocity")


def save(folder: Path, kind: str) -> Path:
    """Write one of KINDS and return its folder."""
    torch.manual_seed(0)
    pipeline(kind).save_pretrained(folder)
    return folder


def pipeline(kind: str) -> Any:
    from diffusers import (
        EulerAncestralDiscreteScheduler,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )

    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=24,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    if kind == "turbo":
        scheduler: Any = EulerAncestralDiscreteScheduler(timestep_spacing="trailing", **noise)
    else:
        predicts = "v_prediction" if kind == "velocity" else "epsilon"
        scheduler = EulerDiscreteScheduler(
            timestep_spacing="leading", steps_offset=1, prediction_type=predicts, **noise
        )
    reader = words.clip()
    return StableDiffusionXLPipeline(
        unet=unet.eval(),
        scheduler=scheduler,
        vae=clips.vae(4, scaling_factor=0.13025),
        tokenizer=reader,
        text_encoder=clips.tower(reader, width=8, projected=False),
        tokenizer_2=words.clip(),
        text_encoder_2=clips.tower(reader, width=16),
    )
