"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): words to a picture, by a flow that three text encoders speak to."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Family, Frames, Recipe, Terms
from cinecanvas.models.published import family
from cinecanvas.models.stills import MEGAPIXEL, still, stride_of
from cinecanvas.ramp import TRAINED, Line

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared

TOKENS = 256  # of a prompt, for T5; both CLIPs read what their tokenizers hold
_READERS = tuple(f"{part}{number}" for part in ("tokenizer", "text_encoder") for number in ("", "_2", "_3"))
RAMP = Line(least=1 / TRAINED, closed=True, twice=True)


class StableDiffusion3:
    """One class for all of them; T5, by far the largest part, may be left out of the folder."""

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B pictures, RGB in [-1, 1]) and B prompts or a multiple: latents and text states."""
        import torch

        from cinecanvas.models.latents import Prepared, latent_canvas
        from cinecanvas.models.prompts import remembered

        with torch.inference_mode():
            told = remembered(self._parts, text, self._read, by=_READERS)
            self._parts.drop("text_encoder", "text_encoder_2", "text_encoder_3")
            latent = latent_canvas(canvas, self.card, self._encode, device=self._parts.device)
        return Prepared.of(latent, told, {})

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video track (B, C, 1, H', W'), float32."""
        import torch

        from cinecanvas.models.latents import lifted, noisiest, told

        level = noisiest(sigma["video"])
        x = lifted(z["video"], sigma["video"], level)
        dtype = self._parts.dtype
        with torch.inference_mode():
            velocity = self._parts.network("transformer")(
                hidden_states=x[:, :, 0].to(dtype),
                timestep=told(RAMP, level[:, 0, 0, 0, 0]).to(x.device),
                return_dict=False,
                **{name: rows.to(dtype) for name, rows in cond.given.items()},
            )[0]
            return {"video": x - level * velocity[:, :, None].float()}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (1, H, W, 3); there is nothing to remember."""
        from cinecanvas.models import stills

        return stills.decode(self._parts.network("vae"), z["video"], tile=self._parts.placement.tile)

    def _encode(self, rgb: Tensor) -> Tensor:
        from cinecanvas.models import stills

        return stills.encode(self._parts.network("vae"), rgb)

    def _read(self, text: Sequence[str]) -> dict[str, Tensor]:
        """Text states (B, 77 + 256, width), those of both CLIPs side by side before T5's; and a vector (B, width)."""
        import torch

        from cinecanvas.models import clip

        said = [clip.read(self._parts, text, number=number) for number in ("", "_2")]
        states, pooled = (torch.cat(rows, -1) for rows in zip(*said, strict=True))
        more = self._read_longer(text).to(states)
        states = torch.nn.functional.pad(states, (0, more.shape[-1] - states.shape[-1]))
        return {"encoder_hidden_states": torch.cat([states, more], 1), "pooled_projections": pooled}

    def _read_longer(self, text: Sequence[str]) -> Tensor:
        """T5's states (B, 256, width), padding among them; zeros where the folder has no T5."""
        import torch

        if "text_encoder_3" not in self._parts:
            width = self._parts.config("transformer").get("joint_attention_dim", 4096)
            return torch.zeros(len(text), TOKENS, width)
        words = self._parts.reader("tokenizer_3")(
            list(text), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        )
        return self._parts.network("text_encoder_3")(words.input_ids.to(self._parts.device))[0]


def register() -> Family:
    """The published checkpoints, and whatever has their networks."""
    return family(CARDS.values(), StableDiffusion3, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder whose transformer is Stable Diffusion 3's, fitted to its own sizes.

    The turbo has the very configurations of the large one and is taken for it: give it by its name.
    """
    network, vae = layout.get("transformer", {}), layout.get("vae", {})
    if network.get("_class_name") != "SD3Transformer2DModel" or vae.get("_class_name") != "AutoencoderKL":
        return None
    if network.get("in_channels", 16) != vae.get("latent_channels", 4):
        return None  # made for inpainting, or for something else that is shown to it
    if network.get("qk_norm") is None:
        card = CARDS["sd3-medium"]
    else:
        card = CARDS["sd3.5-medium" if network.get("dual_attention_layers") else "sd3.5-large"]
    stride = stride_of(vae)
    shift = layout.get("scheduler", {}).get("shift", 1.0)
    return card.model_copy(
        update={
            "channels": vae.get("latent_channels", 4),
            "strides": (1, stride, stride),
            "sides": stride * network.get("patch_size", 2),
            "recipes": {quality: one.model_copy(update={"shift": shift}) for quality, one in card.recipes.items()},
        }
    )


_ENCODERS = {"text_encoder": 123_650_304, "text_encoder_2": 694_659_840, "text_encoder_3": 4_762_310_656}


def _card(name: str, title: str, repository: str, *, network: int, guidance: float, steps: int, **facts: Any) -> Card:
    distilled = steps < 10
    return still(
        name,
        title,
        f"stabilityai/{repository}",
        gated=True,
        recipe=Recipe(steps=steps, guidance=guidance, guided_from=0.0, shift=3.0, solver="euler", ramp=RAMP),
        steps=dict.fromkeys(("draft", "standard", "best"), steps)
        if distilled
        else {"draft": steps // 2, "standard": steps, "best": 50},
        licence="Stability AI Community License",
        terms=Terms(
            url="https://stability.ai/community-license-agreement",
            accept=True,
            revenue="organisations or persons with 1 million US dollars a year or more need another licence",
        ),
        channels=16,
        strides=(1, 8, 8),
        sides=16,
        sizes=MEGAPIXEL,
        parts={"transformer": network, "vae": 83_819_683, **_ENCODERS},
        **facts,
    )


CARDS = {
    card.name: card
    for card in (
        _card(
            "sd3-medium",
            "Stable Diffusion 3, medium",
            "stable-diffusion-3-medium-diffusers",
            network=2_028_328_000,
            guidance=7.0,
            steps=28,
        ),
        _card(
            "sd3.5-medium",
            "Stable Diffusion 3.5, medium",
            "stable-diffusion-3.5-medium",
            network=2_243_171_520,
            guidance=4.5,
            steps=40,
        ),
        _card(
            "sd3.5-large",
            "Stable Diffusion 3.5, large",
            "stable-diffusion-3.5-large",
            network=8_056_627_520,
            guidance=3.5,
            steps=28,
        ),
        _card(
            "sd3.5-large-turbo",
            "Stable Diffusion 3.5, large, in four steps",
            "stable-diffusion-3.5-large-turbo",
            network=8_056_627_520,
            guidance=1.0,
            steps=4,
        ),
    )
}
