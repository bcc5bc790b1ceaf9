"""Tiny Wan checkpoints: from words, from pictures, two experts, and the one that knows the noise of every token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import words


def save(folder: Path, kind: str, **sizes: int) -> Path:
    """Write one of "t2v", "i2v", "flf2v", "t2v-a14b", "i2v-a14b", "ti2v" and return its folder."""
    torch.manual_seed(0)
    made = pipeline(kind)
    if sizes:
        made.register_modules(transformer=transformer(kind, **sizes))
    made.save_pretrained(folder)
    return folder


def middling(
    folder: Path, dtype: torch.dtype = torch.bfloat16, *, kind: str = "t2v", proportions: bool = False
) -> Path:
    """A Wan "t2v" or "ti2v" of 120 M parameters: heavy enough that its memory and seconds are the networks'.

    proportions: the encoder of words is four times as heavy as the network, as it is beside the published 1.3B.
    """
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    made = pipeline(kind)
    heavy = {"d_model": 1024, "d_ff": 2560, "num_layers": 15, "num_heads": 16}
    light = {"d_model": 512, "d_ff": 1024, "num_layers": 12, "num_heads": 8}
    sizes = heavy if proportions else light
    config = UMT5Config(vocab_size=32_000, d_kv=64, **sizes)
    network = transformer(kind, layers=12, heads=8, width=64, text=sizes["d_model"], inner=2048)
    code = vae(spatial=16 if kind == "ti2v" else 8, width=32)
    parts = {"text_encoder": UMT5EncoderModel(config), "transformer": network, "vae": code}
    made.register_modules(**{name: part.to(dtype).eval() for name, part in parts.items()})
    made.save_pretrained(folder)
    return folder


def pipeline(kind: str) -> Any:
    """The pipeline of diffusers that would be published."""
    from diffusers import UniPCMultistepScheduler, WanImageToVideoPipeline, WanPipeline

    pictures = kind.startswith(("i2v", "flf2v"))
    parts: dict[str, Any] = {
        "tokenizer": words.t5(),
        "text_encoder": text_encoder(),
        "vae": vae(spatial=16 if kind == "ti2v" else 8),
        "transformer": transformer(kind),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
        ),
    }
    if kind.endswith("a14b"):
        parts |= {"transformer_2": transformer(kind), "boundary_ratio": 0.9 if pictures else 0.875}
    if kind == "ti2v":
        parts["expand_timesteps"] = True
    if pictures:
        seen = not kind.endswith("a14b")
        parts |= {"image_encoder": image_encoder() if seen else None}
        parts |= {"image_processor": image_processor() if seen else None}
        return WanImageToVideoPipeline(**parts)
    return WanPipeline(**parts)


def transformer(kind: str, *, layers: int = 2, heads: int = 2, width: int = 12, text: int = 32, inner: int = 32) -> Any:
    """48 channels for the 5B model, 36 where a picture comes as channels, 16 else."""
    from diffusers import WanTransformer3DModel

    pictures = kind.startswith(("i2v", "flf2v"))
    seen = {"image_dim": 32, "added_kv_proj_dim": heads * width} if pictures and not kind.endswith("a14b") else {}
    both = {"pos_embed_seq_len": 2 * 257} if kind == "flf2v" else {}
    return WanTransformer3DModel(
        num_attention_heads=heads,
        attention_head_dim=width,
        in_channels=48 if kind == "ti2v" else 36 if pictures else 16,
        out_channels=48 if kind == "ti2v" else 16,
        text_dim=text,
        freq_dim=32,
        ffn_dim=inner,
        num_layers=layers,
        rope_max_seq_len=64,
        **seen,
        **both,
    ).eval()


def vae(*, spatial: int = 8, width: int = 8) -> Any:
    """The causal autoencoder, with the means and deviations that a code has."""
    from diffusers import AutoencoderKLWan

    finer = {"decoder_base_dim": width, "is_residual": True, "in_channels": 12, "out_channels": 12, "patch_size": 2}
    channels = 48 if spatial == 16 else 16
    return AutoencoderKLWan(
        base_dim=width,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1] if width == 8 else [1, 2, 4, 4],
        num_res_blocks=1 if width == 8 else 2,
        scale_factor_spatial=spatial,
        latents_mean=[0.01 * i for i in range(channels)],
        latents_std=[1 + 0.02 * i for i in range(channels)],
        **(finer if spatial == 16 else {}),
    ).eval()


def text_encoder() -> Any:
    """UMT5, as narrow as it goes."""
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(vocab_size=128, d_model=32, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
    return UMT5EncoderModel(config).eval()


def image_encoder() -> Any:
    """CLIP's vision tower on the true 224 px, for the network counts its 257 tokens."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=37, num_hidden_layers=3, num_attention_heads=4, image_size=224, patch_size=14
    )
    return CLIPVisionModel(config).eval()


def image_processor() -> Any:
    from transformers import CLIPImageProcessor

    return CLIPImageProcessor()
