"""Stable Diffusion XL and SDXL-Turbo (Podell et al. 2023, Sauer et al. 2023): text to pictures, by a U-Net."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Family, Frames, Model, Recipe, Terms
from cinecanvas.models.published import EXACT, REPLACED, all_by, published
from cinecanvas.ramp import Table
from cinecanvas.runtime.placement import Placement

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared


class SDXL:
    """A canvas of one frame; what is known of it is held by latent replacement."""

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts
        self._ramp = ramp_of(parts.config("scheduler"))

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B pictures, RGB in [-1, 1]) and B prompts: latents, text states, a pooled one, and sizes."""
        import torch

        from cinecanvas.models.latents import Prepared, latent_canvas
        from cinecanvas.models.prompts import remembered

        with torch.inference_mode():
            encoders = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
            told = remembered(self._parts, text, self._read, by=encoders)
            self._parts.drop("text_encoder", "text_encoder_2")
            grid = canvas.tracks["video"].grid
            size = (grid.height, grid.width)
            told["time_ids"] = torch.tensor([[*size, 0, 0, *size]] * len(text), device=self._parts.device)
            latent = latent_canvas(canvas, self.card, self._encode, device=self._parts.device)
            return Prepared.of(latent, told, {})

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video track (B, C, 1, H', W'), float32."""
        import torch

        from cinecanvas.models.latents import lifted, noisiest, preserved, told

        level = noisiest(sigma["video"])
        x, a, b = preserved(lifted(z["video"], sigma["video"], level), level)
        dtype = self._parts.dtype
        given = {name: rows.to(dtype) for name, rows in cond.given.items()}
        states = given.pop("encoder_hidden_states")
        with torch.inference_mode():
            noise = self._parts.network("unet")(
                x[:, :, 0].to(dtype),
                told(self._ramp, level[:, 0, 0, 0, 0]).to(x.device),
                encoder_hidden_states=states,
                added_cond_kwargs=given,
                return_dict=False,
            )[0].float()  # fmt: skip
            return {"video": (x - b * noise[:, :, None]) / a}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (1, H, W, 3)."""
        import torch

        from cinecanvas.models.latents import frames_of

        vae = self._vae()
        with torch.inference_mode():
            x = z["video"][:1, :, 0].to(vae.device, vae.dtype) / vae.config.scaling_factor
            frames = frames_of(vae.decode(x).sample[0, :, None].clamp(-1, 1))
        yield frames
        return None

    def _encode(self, rgb: Tensor) -> Tensor:
        vae = self._vae()
        code = vae.encode(rgb[:, :, 0].to(vae.dtype)).latent_dist.mode().float()
        return (code * vae.config.scaling_factor)[:, :, None]

    def _vae(self) -> Any:
        """Its autoencoder overflows in half precision, and says so."""
        import torch

        upcast = self._parts.config("vae").get("force_upcast", True)
        return self._parts.network("vae", torch.float32 if upcast else None)

    def _read(self, text: Sequence[str]) -> dict[str, Tensor]:
        """Text states (B, 77, width), both CLIPs side by side; nothing said is zeros, where it was trained so."""
        import torch

        from cinecanvas.models import clip

        first, second = (clip.read(self._parts, text, number=number) for number in ("", "_2"))
        states = torch.cat([first.states, second.states], -1)
        said = states.new_ones(len(text))
        if self._parts.layout["model_index"].get("force_zeros_for_empty_prompt", True):
            said = states.new_tensor([float(bool(prompt)) for prompt in text])
        return {"encoder_hidden_states": states * said[:, None, None], "text_embeds": second.pooled * said[:, None]}


def ramp_of(scheduler: Mapping[str, Any]) -> Table:
    """The levels of a folder's scheduler."""
    return Table(
        first=scheduler.get("beta_start", 0.00085),
        last=scheduler.get("beta_end", 0.012),
        spacing=scheduler.get("timestep_spacing", "leading"),
        offset=scheduler.get("steps_offset", 0),
    )


def register() -> Family:
    """The published checkpoints, and whatever has their networks."""
    return Family(tuple(CARDS.values()), load, recognise)


def load(card: Card, folder: Path | None, placement: Placement) -> Model:
    """The model of a folder; its networks are read when they are needed."""
    from cinecanvas.models.checkpoint import Parts

    assert folder is not None, card.name
    return SDXL(card, Parts.of(folder, placement))


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder whose U-Net is SDXL's, fitted to its own sizes and its scheduler."""
    network, vae = layout.get("unet", {}), layout.get("vae", {})
    if network.get("_class_name") != "UNet2DConditionModel" or network.get("addition_embed_type") != "text_time":
        return None
    ramp = ramp_of(layout["scheduler"])
    card = CARDS["sdxl-turbo" if ramp.spacing == "trailing" else "sdxl"]
    stride = 2 ** (len(vae.get("block_out_channels", range(4))) - 1)
    halvings = 2 ** (len(network.get("block_out_channels", range(3))) - 1)
    return card.model_copy(
        update={
            "channels": network.get("in_channels", 4),
            "strides": (1, stride, stride),
            "sides": stride * halvings,
            "recipes": {quality: one.model_copy(update={"ramp": ramp}) for quality, one in card.recipes.items()},
        }
    )


_TASKS = {"text_to_image": EXACT} | all_by(REPLACED, "inpaint", "outpaint", "remix", "upscale")
_PICTURE: dict[str, Any] = {
    "tasks": _TASKS,
    "channels": 4,
    "strides": (1, 8, 8),
    "sides": 32,
    "fps": 1.0,
    "seconds": 1.0,
    "max_seconds": 1.0,
}
_BASE = Recipe(steps=30, guidance=5.0, guided_from=0.0, shift=1.0, solver="euler", ramp=Table(offset=1))
_TURBO = Recipe(steps=1, guidance=1.0, shift=1.0, solver="euler", ramp=Table(spacing="trailing"))
CARDS = {
    card.name: card
    for card in (
        published(
            "sdxl",
            "Stable Diffusion XL, pictures",
            "stabilityai/stable-diffusion-xl-base-1.0",
            recipe=_BASE,
            licence="CreativeML Open RAIL++-M",
            terms=Terms(
                url="https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md",
                use="not for the uses that its attachment A lists",
            ),
            sizes=((1024, 1024), (1344, 768), (768, 1344), (1152, 896), (896, 1152)),
            **_PICTURE,
        ),
        published(
            "sdxl-turbo",
            "SDXL-Turbo, pictures in one step to four",
            "stabilityai/sdxl-turbo",
            recipe=_TURBO,
            steps={"draft": 1, "standard": 2, "best": 4},
            licence="Stability AI Community",
            terms=Terms(
                url="https://stability.ai/community-license-agreement",
                accept=True,
                revenue="companies with a million US dollars a year or more need a licence from Stability AI",
            ),
            sizes=((512, 512),),
            **_PICTURE,
        ),
    )
}
