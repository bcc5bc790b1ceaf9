"""Stable Video Diffusion (Blattmann et al. 2023): a picture to video, without words; EDM noise, a U-Net over time."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Family, Frames, Recipe, Terms
from cinecanvas.models.published import all_by, family, published
from cinecanvas.ramp import Karras

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared

RAMP = Karras()
_MOTION, _BLUR = 127, 0.02  # how much is to move, and the noise on the picture, as its authors show it
_CHUNK = 8  # frames that are decoded together
_PICTURE = 224  # px of its picture encoder


class SVD:
    """A picture becomes a film: as channels of every frame, and as what CLIP sees in it."""

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B videos, RGB in [-1, 1]) to latents, and its first frame twice; prompts are not read.

        Those after the first B are guided away from: for this family that is no picture at all.
        """
        import torch

        from cinecanvas.models.latents import Prepared, begun, its_own, latent_canvas, neighbourly

        with torch.inference_mode():
            track = canvas.tracks["video"]
            first = neighbourly(track.x, track.keep, [0])[:, :, 0].to(self._parts.device)
            seen, code = self._seen(first), self._code(first)
            self._parts.drop("image_encoder")
            latent = latent_canvas(canvas, self.card, self._encode, device=self._parts.device)
            if begun(canvas):
                latent = its_own(latent, latent.tracks["video"].x[:, :, :1])
            times = len(text) // canvas.batch
            told = {
                "encoder_hidden_states": torch.cat([seen, *[torch.zeros_like(seen)] * (times - 1)]),
                "channels": torch.cat([code, *[torch.zeros_like(code)] * (times - 1)]),
            }
            return Prepared.of(latent, told, {})

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video track (B, C, T', H', W'), float32."""
        import torch

        from cinecanvas.models.latents import lifted, noisiest, preserved, told

        level = noisiest(sigma["video"])
        x, a, b = preserved(lifted(z["video"], sigma["video"], level), level)
        dtype, rows = self._parts.dtype, len(x)
        channels = cond.given["channels"][:, :, None].expand(-1, -1, x.shape[2], -1, -1)
        fps = cond.canvas.tracks["video"].grid.fps
        added = torch.tensor([[fps - 1, _MOTION, _BLUR]] * rows, device=x.device, dtype=dtype)
        with torch.inference_mode():
            velocity = self._parts.network("unet")(
                torch.cat([x, channels], 1).to(dtype).transpose(1, 2),
                told(RAMP, level[:, 0, 0, 0, 0]).to(x.device),
                encoder_hidden_states=cond.given["encoder_hidden_states"].to(dtype),
                added_time_ids=added,
                return_dict=False,
            )[0].transpose(1, 2).float()  # fmt: skip
            return {"video": a * x - b * velocity}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (t, H, W, 3), eight frames together, as its authors show it: its decoder looks across them."""
        import torch

        from cinecanvas.models.latents import frames_of

        vae = self._parts.network("vae")
        for part in z["video"][0].transpose(0, 1).split(_CHUNK):
            with torch.inference_mode():
                x = part.to(vae.device, vae.dtype) / vae.config.scaling_factor
                frames = frames_of(vae.decode(x, num_frames=len(x)).sample.transpose(0, 1).clamp(-1, 1))
            yield frames

    def _seen(self, first: Tensor) -> Tensor:
        """What CLIP sees in pictures (B, 3, H, W): one vector each (B, 1, width)."""
        from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as theirs

        small = theirs._resize_with_antialiasing(first.float(), (_PICTURE, _PICTURE))
        reader, encoder = self._parts.reader("feature_extractor"), self._parts.network("image_encoder")
        mean, std = (small.new_tensor(row).view(1, 3, 1, 1) for row in (reader.image_mean, reader.image_std))
        pixels = ((small + 1) / 2 - mean) / std
        return encoder(pixels.to(encoder.dtype)).image_embeds[:, None]

    def _code(self, first: Tensor) -> Tensor:
        """The code of pictures (B, C, H', W') with a little noise on them, at its own size."""
        import torch

        vae = self._parts.network("vae")
        noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0)).to(first)
        return vae.encode((first + _BLUR * noise).to(vae.dtype)).latent_dist.mode().float()

    def _encode(self, rgb: Tensor) -> Tensor:
        import torch

        vae = self._parts.network("vae")
        pictures = rgb.transpose(1, 2).flatten(0, 1).split(_CHUNK)
        code = [vae.encode(part.to(vae.dtype)).latent_dist.mode().float() for part in pictures]
        whole = torch.cat(code).unflatten(0, (len(rgb), -1)).transpose(1, 2)
        return whole * vae.config.scaling_factor


def register() -> Family:
    """The published checkpoints, and whatever has their networks."""
    return family(CARDS.values(), SVD, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder whose U-Net is Stable Video Diffusion's, fitted to its own sizes."""
    network, vae = layout.get("unet", {}), layout.get("vae", {})
    if network.get("_class_name") != "UNetSpatioTemporalConditionModel":
        return None
    stride = 2 ** (len(vae.get("block_out_channels", range(4))) - 1)
    halvings = 2 ** (len(network.get("block_out_channels", range(4))) - 1)
    frames = network.get("num_frames", 25)
    return CARDS["svd-xt" if frames > 14 else "svd"].model_copy(
        update={
            "channels": vae.get("latent_channels", 4),
            "strides": (1, stride, stride),
            "sides": stride * halvings,
        }
    )


def _card(name: str, title: str, frames: int) -> Card:
    return published(
        name,
        f"{title}, from a picture",
        f"stabilityai/stable-video-diffusion-img2vid{name.removeprefix('svd')}",
        tasks=all_by(("exact", "the picture as channels"), "image_to_video")
        | all_by(("approximate", "the first frame as channels, others by latent replacement"), "keyframes", "remix"),
        recipe=Recipe(steps=25, guidance=3.0, rising=1.0, guided_from=0.0, shift=1.0, solver="euler", ramp=RAMP),
        steps={"draft": 12, "standard": 25, "best": 50},
        licence="Stability AI Community",
        terms=Terms(
            url="https://stability.ai/community-license-agreement",
            accept=True,
            revenue="companies with a million US dollars a year or more need a licence from Stability AI",
        ),
        limits="It reads no words: the prompt has no effect.",
        channels=4,
        strides=(1, 8, 8),
        causal=False,
        sides=64,
        sizes=((1024, 576), (576, 1024)),
        fps=7.0,
        seconds=frames / 7,
        max_seconds=frames / 7,
    )


CARDS = {
    card.name: card
    for card in (_card("svd-xt", "Stable Video Diffusion XT", 25), _card("svd", "Stable Video Diffusion", 14))
}
