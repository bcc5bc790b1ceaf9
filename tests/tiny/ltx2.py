"""Tiny LTX-2 checkpoints, which make film and sound together: as 2.0 has its networks, and as 2.3 has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tiny import words

KINDS = ("2.0", "2.3")


def save(folder: Path, kind: str) -> Path:
    """Write one of KINDS and return its folder."""
    torch.manual_seed(0)
    pipeline(kind).save_pretrained(folder)
    return folder


def pipeline(kind: str) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, LTX2Pipeline

    return LTX2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.95,
            max_shift=2.05,
            base_image_seq_len=1024,
            max_image_seq_len=4096,
            shift_terminal=0.1,
        ),
        vae=_film_code().eval(),
        audio_vae=_sound_code().eval(),
        text_encoder=_reader().eval(),
        tokenizer=words.gemma(),
        connectors=_connectors(newer=kind == "2.3").eval(),
        transformer=_transformer(newer=kind == "2.3").eval(),
        vocoder=_voice(newer=kind == "2.3").eval(),
    )


def _transformer(*, newer: bool) -> Any:
    from diffusers import LTX2VideoTransformer3DModel

    later = {"gated_attn": True, "audio_gated_attn": True, "cross_attn_mod": True, "audio_cross_attn_mod": True}
    later |= {"use_prompt_embeddings": False, "perturbed_attn": True}
    network = LTX2VideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        audio_in_channels=16,
        audio_out_channels=16,
        audio_num_attention_heads=2,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=16,
        num_layers=2,
        caption_channels=32,
        rope_type="split",
        **(later if newer else {}),
    )
    for block in network.transformer_blocks:  # so that words move it
        for attention in (block.attn2, block.audio_attn2):
            attention.to_out[0].weight.data.mul_(8)
    return network


def _connectors(*, newer: bool) -> Any:
    from diffusers.pipelines.ltx2 import LTX2TextConnectors

    later = {"per_modality_projections": True, "video_hidden_dim": 32, "audio_hidden_dim": 16, "proj_bias": True}
    later |= {"video_gated_attn": True, "audio_gated_attn": True}
    return LTX2TextConnectors(
        caption_channels=32,
        text_proj_in_factor=3,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=16,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=128,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8 if newer else 16,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=128,
        rope_type="split",
        **(later if newer else {}),
    )


def _reader() -> Any:
    """Gemma 3 with its eyes, which nobody uses here."""
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = {
        "vocab_size": 512,
        "hidden_size": 32,
        "intermediate_size": 37,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "query_pre_attn_scalar": 8,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    eyes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    eyes |= {"image_size": 16, "patch_size": 8}
    marks = {"boi_token_index": 509, "eoi_token_index": 510, "image_token_index": 511}
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=eyes, mm_tokens_per_image=4, **marks)
    )


def _film_code() -> Any:
    from diffusers import AutoencoderKLLTX2Video

    vae = AutoencoderKLLTX2Video(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        decoder_causal=False,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    vae.latents_mean.copy_(torch.linspace(-0.1, 0.1, 8))
    vae.latents_std.copy_(torch.linspace(0.8, 1.2, 8))
    return vae


def _sound_code() -> Any:
    from diffusers import AutoencoderKLLTX2Audio

    vae = AutoencoderKLLTX2Audio(base_channels=16, latent_channels=8, mel_bins=8)
    vae.latents_mean.copy_(torch.linspace(-0.1, 0.1, 16))
    vae.latents_std.copy_(torch.linspace(0.8, 1.2, 16))
    vae.decoder.conv_out.conv.weight.data.mul_(30)  # so that other latents sound otherwise
    return vae


def _voice(*, newer: bool) -> Any:
    """Spectra to samples, as far in each direction as the real ones look; 2.3's makes a wider band of them."""
    from diffusers.pipelines.ltx2 import LTX2Vocoder, LTX2VocoderWithBWE

    if not newer:
        voice = LTX2Vocoder(in_channels=16, hidden_channels=32)
        for layer in voice.upsamplers:
            layer.weight.data.mul_(2.5)
        return voice
    voice = LTX2VocoderWithBWE(
        in_channels=16, hidden_channels=64, bwe_in_channels=16, bwe_hidden_channels=32, num_mel_channels=8
    )
    basis = voice.mel_stft.stft_fn.forward_basis
    turns = torch.outer(torch.arange(basis.shape[0] // 2), torch.arange(basis.shape[2])) * (2 * torch.pi / 512)
    basis.copy_(torch.cat([turns.cos(), -turns.sin()])[:, None] * torch.hann_window(512))
    voice.mel_stft.mel_basis.uniform_(0, 0.02)
    return voice
