"""Tiny HunyuanVideo checkpoints: from words, and from a picture in both ways that were published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import words

KINDS = ("t2v", "token_replace", "latent_concat")
PATCHES = 4  # of a picture, as the language model sees it


def save(folder: Path, kind: str = "t2v") -> Path:
    """Write one of KINDS and return its folder."""
    torch.manual_seed(0)
    pipeline(kind).save_pretrained(folder)
    return folder


def pipeline(kind: str) -> Any:
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoImageToVideoPipeline,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )
    from transformers import CLIPImageProcessor, CLIPTextConfig, CLIPTextModel, LlamaModel

    transformer = HunyuanVideoTransformer3DModel(
        in_channels=9 if kind == "latent_concat" else 4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        patch_size=1,
        patch_size_t=1,
        guidance_embeds=kind != "latent_concat",
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
        image_condition_type=None if kind == "t2v" else kind,
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
    tokenizer, pooled = words.llama(), words.clip()
    seen = CLIPTextConfig(
        hidden_size=8,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=len(pooled),
        projection_dim=8,
        eos_token_id=pooled.eos_token_id,
    )
    parts: dict[str, Any] = {
        "tokenizer": tokenizer,
        "text_encoder_2": CLIPTextModel(seen).eval(),
        "tokenizer_2": pooled,
        "transformer": transformer.eval(),
        "vae": vae.eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=7.0),
    }
    if kind == "t2v":
        return HunyuanVideoPipeline(text_encoder=LlamaModel(_llama(tokenizer)).eval(), **parts)
    size = {"height": 16, "width": 16}
    reader = CLIPImageProcessor(size=size, crop_size=size)
    return HunyuanVideoImageToVideoPipeline(text_encoder=_llava(tokenizer), image_processor=reader, **parts)


def _llama(tokenizer: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        hidden_size=16,
        intermediate_size=37,
        num_hidden_layers=4,
        num_attention_heads=4,
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        max_position_embeddings=1024,
    )


def _llava(tokenizer: Any) -> Any:
    """A language model that sees a picture in PATCHES tokens."""
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=8,
        intermediate_size=16,
        projection_dim=8,
        num_attention_heads=2,
        num_hidden_layers=3,
        image_size=16,
        patch_size=8,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=_llama(tokenizer),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=PATCHES,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlavaForConditionalGeneration(config).eval()
