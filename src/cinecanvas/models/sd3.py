"""Stable Diffusion 3 and 3.5 (Esser et al. 2024): text to pictures, by the flow that later families follow."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Family, Frames, Model, Recipe, Terms
from cinecanvas.models.published import EXACT, REPLACED, all_by, published
from cinecanvas.ramp import Line
from cinecanvas.runtime.placement import Placement

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared

RAMP = Line(least=0.001, twice=True, closed=True)
_TOKENS = 256  # of T5
_READERS = tuple(f"{part}{number}" for part in ("tokenizer", "text_encoder") for number in ("", "_2", "_3"))


class SD3:
    """A canvas of one frame; what is known of it is held by latent replacement."""

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B pictures, RGB in [-1, 1]) and B prompts: latents, text states, and a pooled one."""
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
        x, dtype = lifted(z["video"], sigma["video"], level), self._parts.dtype
        with torch.inference_mode():
            velocity = self._parts.network("transformer")(
                hidden_states=x[:, :, 0].to(dtype),
                timestep=told(RAMP, level[:, 0, 0, 0, 0]).to(x.device),
                return_dict=False,
                **{name: rows.to(dtype) for name, rows in cond.given.items()},
            )[0].float()  # fmt: skip
            return {"video": x - level * velocity[:, :, None]}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (1, H, W, 3)."""
        import torch

        from cinecanvas.models.latents import frames_of

        vae = self._parts.network("vae")
        with torch.inference_mode():
            x = z["video"][:1, :, 0].to(vae.device) / vae.config.scaling_factor + vae.config.shift_factor
            frames = frames_of(vae.decode(x.to(vae.dtype)).sample[0, :, None].clamp(-1, 1))
        yield frames
        return None

    def _encode(self, rgb: Tensor) -> Tensor:
        vae = self._parts.network("vae")
        code = vae.encode(rgb[:, :, 0].to(vae.dtype)).latent_dist.mode().float()
        return ((code - vae.config.shift_factor) * vae.config.scaling_factor)[:, :, None]

    def _read(self, text: Sequence[str]) -> dict[str, Tensor]:
        """Text states (B, 77 + 256, width): both CLIPs side by side, T5 after them, or zeros where it was left out."""
        import torch

        from cinecanvas.models import clip

        first, second = (clip.read(self._parts, text, number=number) for number in ("", "_2"))
        states = torch.cat([first.states, second.states], -1)
        width = self._parts.config("transformer")["joint_attention_dim"]
        states = torch.nn.functional.pad(states, (0, width - states.shape[-1]))
        longer = states.new_zeros(len(text), _TOKENS, width)
        if "text_encoder_3" in self._parts:
            words = self._parts.reader("tokenizer_3")(
                list(text), padding="max_length", max_length=_TOKENS, truncation=True, return_tensors="pt"
            )
            longer = self._parts.network("text_encoder_3")(words["input_ids"].to(self._parts.device))[0]
        return {
            "encoder_hidden_states": torch.cat([states, longer.to(states)], 1),
            "pooled_projections": torch.cat([first.pooled, second.pooled], -1),
        }


def register() -> Family:
    """The published checkpoints, and whatever has their networks."""
    return Family(tuple(CARDS.values()), load, recognise)


def load(card: Card, folder: Path | None, placement: Placement) -> Model:
    """The model of a folder; its networks are read when they are needed."""
    from cinecanvas.models.checkpoint import Parts

    assert folder is not None, card.name
    return SD3(card, Parts.of(folder, placement))


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder whose transformer is Stable Diffusion 3's, fitted to its own sizes."""
    network, vae = layout.get("transformer", {}), layout.get("vae", {})
    if network.get("_class_name") != "SD3Transformer2DModel":
        return None
    name = "sd3-medium"
    if network.get("qk_norm"):
        name = "sd3.5-medium" if network.get("num_layers", 24) <= 24 else "sd3.5-large"
    card = CARDS[name]
    stride = 2 ** (len(vae.get("block_out_channels", range(4))) - 1)
    shift = float(layout["scheduler"].get("shift", 3.0))
    return card.model_copy(
        update={
            "channels": network.get("in_channels", 16),
            "strides": (1, stride, stride),
            "sides": stride * network.get("patch_size", 2),
            "recipes": {quality: one.model_copy(update={"shift": shift}) for quality, one in card.recipes.items()},
        }
    )


TERMS = Terms(
    url="https://stability.ai/community-license-agreement",
    accept=True,
    revenue="companies with a million US dollars a year or more need a licence from Stability AI",
)


def _card(name: str, title: str, *, guidance: float, turbo: bool = False) -> Card:
    return published(
        name,
        title,
        f"stabilityai/stable-diffusion-{name.removeprefix('sd')}{'-diffusers' if name == 'sd3-medium' else ''}",
        tasks={"text_to_image": EXACT} | all_by(REPLACED, "inpaint", "outpaint", "remix", "upscale"),
        recipe=Recipe(steps=28, guidance=guidance, guided_from=0.0, shift=3.0, solver="euler", ramp=RAMP),
        steps={"draft": 4, "standard": 4, "best": 8} if turbo else {"draft": 14, "standard": 28, "best": 50},
        licence="Stability AI Community",
        terms=TERMS,
        channels=16,
        strides=(1, 8, 8),
        sides=16,
        sizes=((1024, 1024), (1344, 768), (768, 1344), (1152, 896), (896, 1152)),
        fps=1.0,
        seconds=1.0,
        max_seconds=1.0,
    )


CARDS = {
    card.name: card
    for card in (
        _card("sd3-medium", "Stable Diffusion 3 medium, pictures", guidance=7.0),
        _card("sd3.5-medium", "Stable Diffusion 3.5 medium, pictures", guidance=4.5),
        _card("sd3.5-large", "Stable Diffusion 3.5 large, pictures", guidance=3.5),
        _card("sd3.5-large-turbo", "Stable Diffusion 3.5 large, pictures in four steps", guidance=1.0, turbo=True),
    )
}
