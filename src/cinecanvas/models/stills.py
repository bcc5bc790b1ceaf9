"""What families of single pictures have alike: a canvas of one frame, and the code of a picture."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Frames, Source
from cinecanvas.models.published import EXACT, REPLACED, Way, all_by, published
from cinecanvas.request import STILL

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

TASKS: dict[str, Way] = {
    "text_to_image": EXACT,
    **all_by(REPLACED, "inpaint", "outpaint"),
    "remix": ("exact", "noise up to the strength"),
    "upscale": ("approximate", "noise up to the strength, at a size beyond the trained ones"),
}
MEGAPIXEL = (
    (1024, 1024), (1152, 896), (896, 1152), (1216, 832), (832, 1216), (1344, 768), (768, 1344), (1536, 640), (640, 1536)
)  # fmt: skip


def still(
    name: str,
    title: str,
    repository: str,
    *,
    tasks: Mapping[str, Way] = TASKS,
    gated: bool = False,
    beside: Mapping[str, str] = MappingProxyType({}),
    **facts: Any,
) -> Card:
    """The Card of a model that makes single pictures; facts as `published` takes them, gated and beside as Source."""
    card = published(name, title, repository, tasks=tasks, seconds=STILL, max_seconds=STILL, **facts)
    return card.model_copy(update={"source": Source(repository=repository, gated=gated, beside=dict(beside))})


def encode(vae: Any, rgb: Tensor) -> Tensor:
    """Pixels (B, 3, T, H, W) in [-1, 1] to latents (B, C, T, H', W'), each frame by itself, its likeliest code."""
    mean, std = _scales(vae)
    frames = rgb.transpose(1, 2).flatten(0, 1)
    code = vae.encode(frames.to(vae.dtype)).latent_dist.mode().float()
    return ((code - mean) / std).unflatten(0, (len(rgb), -1)).transpose(1, 2)


def decode(vae: Any, latents: Tensor, *, tile: int = 0) -> Generator[Frames, None, None]:
    """Latents (1, C, T, H', W') to RGB uint8, frame by frame; tile: the side (px) of the squares that it is done in."""
    import torch

    from cinecanvas.models.latents import frames_of

    mean, std = _scales(vae)
    if tile:
        vae.enable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // stride_of(vae.config)
    for z in latents[0].unbind(1):
        with torch.inference_mode():
            rgb = vae.decode((z[None].to(vae.device) * std + mean).to(vae.dtype), return_dict=False)[0]
            frames = frames_of(rgb[0, :, None].clamp(-1, 1))
        yield frames


def stride_of(config: Mapping[str, Any]) -> int:
    """How many pixels across a cell of an image autoencoder holds."""
    return int(2 ** (len(config.get("block_out_channels", (64,))) - 1))


def _scales(vae: Any) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the code, as (1, C or 1, 1, 1), float32."""
    import torch

    config = vae.config
    mean = config.get("latents_mean") or [config.get("shift_factor") or 0.0]
    std = config.get("latents_std") or [1.0]
    middle, spread = (torch.tensor(list(row), device=vae.device).view(1, -1, 1, 1) for row in (mean, std))
    return middle, spread / config.scaling_factor
