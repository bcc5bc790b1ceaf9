"""CLIP's text towers, as narrow as they go, and the picture autoencoder that stands beside them."""

from __future__ import annotations

from typing import Any


def tower(tokenizer: Any, *, width: int, projected: bool = True) -> Any:
    """A text tower of two layers, with a projection of its own width or without any."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=37,
        projection_dim=width,
        num_hidden_layers=3,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def vae(channels: int, **facts: Any) -> Any:
    """An autoencoder of pictures whose cells are 8 x 8 px."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        sample_size=64,
        **facts,
    ).eval()
