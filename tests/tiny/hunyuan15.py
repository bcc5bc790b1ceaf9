"""Tiny HunyuanVideo 1.5 checkpoints: from words and from a picture, and one that was distilled to mean velocities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import words

KINDS = ("t2v", "i2v", "i2v-meanflow")


def save(folder: Path, kind: str) -> Path:
    """Write one of KINDS and return its folder."""
    torch.manual_seed(0)
    pipeline(kind).save_pretrained(folder)
    return folder


def pipeline(kind: str) -> Any:
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        ClassifierFreeGuidance,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15ImageToVideoPipeline,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )
    from transformers import (
        ByT5Tokenizer,
        Qwen2_5_VLTextConfig,
        Qwen2_5_VLTextModel,
        SiglipImageProcessor,
        SiglipVisionConfig,
        SiglipVisionModel,
        T5Config,
        T5EncoderModel,
    )

    shown = kind.startswith("i2v")
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=16,
        text_embed_2_dim=32,
        image_embed_dim=12,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="i2v" if shown else "t2v",
        use_meanflow=kind.endswith("meanflow"),
    )
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=4,
        downsample_match_channel=False,
        upsample_match_channel=False,
        scaling_factor=1.03682,
    )
    read = Qwen2_5_VLTextConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        num_key_value_heads=2,
        rope_scaling={"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        rope_theta=1_000_000.0,
        vocab_size=512,
        max_position_embeddings=4096,
    )
    spelt = T5Config(
        d_model=32, d_ff=37, d_kv=8, num_layers=2, num_heads=4, vocab_size=384, relative_attention_num_buckets=8
    )
    parts: dict[str, Any] = {
        "text_encoder": Qwen2_5_VLTextModel(read).eval(),
        "tokenizer": words.qwen(),
        "text_encoder_2": T5EncoderModel(spelt).eval(),
        "tokenizer_2": ByT5Tokenizer(),
        "transformer": transformer.eval(),
        "vae": vae.eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
        "guider": ClassifierFreeGuidance(guidance_scale=3.0),
    }
    if not shown:
        return HunyuanVideo15Pipeline(**parts)
    seen = SiglipVisionConfig(
        hidden_size=12, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=54, patch_size=2
    )
    size = {"height": 54, "width": 54}
    parts |= {"image_encoder": SiglipVisionModel(seen).eval(), "feature_extractor": SiglipImageProcessor(size=size)}
    return HunyuanVideo15ImageToVideoPipeline(**parts)
