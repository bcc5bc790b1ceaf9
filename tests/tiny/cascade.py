"""A tiny Stable Cascade as it is published: the prior in a repository of its own, here the folder `prior`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from tiny import clips, words


def save(folder: Path) -> Path:
    """Write it and return its folder; the VQGAN is named as in the published index, where it cannot be found."""
    torch.manual_seed(0)
    decoder, prior = pipelines()
    decoder.save_pretrained(folder)
    prior.save_pretrained(folder / "prior")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "vqgan": ["wuerstchen", "PaellaVQModel"]}))
    return folder


def pipelines() -> tuple[Any, Any]:
    """Decoder and prior."""
    from diffusers import (
        DDPMWuerstchenScheduler,
        StableCascadeDecoderPipeline,
        StableCascadePriorPipeline,
        StableCascadeUNet,
    )
    from diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model import PaellaVQModel

    reader = words.clip()
    tower = clips.tower(reader, width=16)
    both: dict[str, Any] = {
        "conditioning_dim": 16,
        "block_out_channels": (8, 16),
        "num_attention_heads": (-1, 4),
        "down_num_layers_per_block": (1, 1),
        "up_num_layers_per_block": (1, 1),
        "block_types_per_layer": (
            ("SDCascadeResBlock", "SDCascadeTimestepBlock"),
            ("SDCascadeResBlock", "SDCascadeTimestepBlock", "SDCascadeAttnBlock"),
        ),
        "clip_text_pooled_in_channels": 16,
        "dropout": 0.0,
        "self_attn": False,  # of so few layers, else the words would hardly be seen
        "timestep_ratio_embedding_dim": 8,
    }
    prior = StableCascadeUNet(
        in_channels=16,
        out_channels=16,
        clip_text_in_channels=16,
        clip_image_in_channels=12,
        switch_level=(False,),
        **both,
    )
    decoder = StableCascadeUNet(
        in_channels=4, out_channels=4, patch_size=2, effnet_in_channels=16, pixel_mapper_in_channels=3, **both
    )
    vqgan = PaellaVQModel(embed_dim=8, bottleneck_blocks=1, num_vq_embeddings=16)
    last = vqgan.out_block[0]
    with torch.no_grad():  # else all of it is black and white
        last.weight.mul_(0.02)
        last.bias.fill_(0.5)
    alike = {"text_encoder": tower, "tokenizer": reader}
    return (
        StableCascadeDecoderPipeline(
            decoder=decoder.eval(), scheduler=DDPMWuerstchenScheduler(), vqgan=vqgan.eval(), **alike
        ),
        StableCascadePriorPipeline(prior=prior.eval(), scheduler=DDPMWuerstchenScheduler(), **alike),
    )
