"""Stable Diffusion XL and its Turbo (Podell et al. 2023, Sauer et al. 2023): words to a picture, by a U-Net."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Family, Frames, Recipe, Terms
from cinecanvas.models.published import family
from cinecanvas.models.stills import MEGAPIXEL, TASKS, still, stride_of
from cinecanvas.ramp import Table

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared


class StableDiffusionXL:
    """The base and the Turbo: a diffusion that predicts noise, and is told the size of the picture."""

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts
        scheduler = parts.config("scheduler")
        self._ramp = ramp_of(scheduler)
        self._noisiest = self._ramp.model_copy(update={"spacing": "trailing"}).levels(1, shift=1.0, cells=0)[0]
        self._speaks_velocity = scheduler.get("prediction_type") == "v_prediction"

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B pictures, RGB in [-1, 1]) and B prompts or a multiple: latents, text states, its size."""
        import torch

        from cinecanvas.models.latents import Prepared, latent_canvas
        from cinecanvas.models.prompts import remembered

        with torch.inference_mode():
            encoders = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
            told = remembered(self._parts, text, self._read, by=encoders)
            self._parts.drop("text_encoder", "text_encoder_2")
            latent = latent_canvas(canvas, self.card, self._encode, device=self._parts.device)
        if self._parts.layout["model_index"].get("force_zeros_for_empty_prompt", True):
            told = {
                name: torch.stack([row * bool(prompt) for row, prompt in zip(rows, text, strict=True)])
                for name, rows in told.items()
            }
        grid = canvas.tracks["video"].grid
        size = (grid.height, grid.width)  # as large as it was, and not cut
        told["time_ids"] = torch.tensor([[*size, 0, 0, *size]] * len(text), device=self._parts.device)
        return Prepared.of(latent, told, {})

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video track (B, C, 1, H', W'), float32."""
        import torch

        from cinecanvas.models.latents import lifted, noisiest, preserved, told

        # it knows of no picture that is all noise: there its answer at the noisiest level that it knows is taken
        level = noisiest(sigma["video"]).clamp(max=self._noisiest)
        x, a, b = preserved(lifted(z["video"], sigma["video"], level), level)
        dtype = self._parts.dtype
        given = {name: rows.to(dtype) for name, rows in cond.given.items()}
        with torch.inference_mode():
            answer = self._parts.network("unet")(
                x[:, :, 0].to(dtype),
                told(self._ramp, level[:, 0, 0, 0, 0]).to(x.device),
                encoder_hidden_states=given.pop("encoder_hidden_states"),
                added_cond_kwargs=given,
                return_dict=False,
            )[0][:, :, None].float()
            return {"video": a * x - b * answer if self._speaks_velocity else (x - b * answer) / a}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (1, H, W, 3); there is nothing to remember."""
        from cinecanvas.models import stills

        return stills.decode(self._vae(), z["video"], tile=self._parts.placement.tile)

    def _encode(self, rgb: Tensor) -> Tensor:
        from cinecanvas.models import stills

        return stills.encode(self._vae(), rgb)

    def _vae(self) -> Any:
        """Its autoencoder overflows in half precision, and says so."""
        import torch

        upcast = self._parts.config("vae").get("force_upcast", True)
        return self._parts.network("vae", torch.float32 if upcast else None)

    def _read(self, text: Sequence[str]) -> dict[str, Tensor]:
        """States of both CLIPs side by side (B, 77, width), and the second one's vector (B, width)."""
        import torch

        from cinecanvas.models import clip

        first, second = (clip.read(self._parts, text, number=number) for number in ("", "_2"))
        return {"encoder_hidden_states": torch.cat([first.states, second.states], -1), "text_embeds": second.pooled}


def ramp_of(scheduler: Mapping[str, Any]) -> Table:
    """The levels of a folder's scheduler."""
    return Table(
        first=scheduler.get("beta_start", 0.00085),
        last=scheduler.get("beta_end", 0.012),
        zero_snr=scheduler.get("rescale_betas_zero_snr", False),
        spacing=scheduler.get("timestep_spacing", "linspace"),
        offset=scheduler.get("steps_offset", 0),
    )


def register() -> Family:
    """The published checkpoints, and whatever has their networks."""
    return family(CARDS.values(), StableDiffusionXL, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder that has XL's U-Net and both CLIPs, fitted to its own sizes."""
    network, vae, scheduler = (layout.get(part, {}) for part in ("unet", "vae", "scheduler"))
    kinds = (network.get("_class_name"), vae.get("_class_name"))
    if kinds != ("UNet2DConditionModel", "AutoencoderKL") or network.get("addition_embed_type") != "text_time":
        return None
    if network.get("in_channels", 4) != vae.get("latent_channels", 4) or "text_encoder" not in layout:
        return None  # the one made for inpainting, or the refiner
    if scheduler.get("beta_schedule") != "scaled_linear":
        return None
    ancestral = scheduler.get("_class_name") == "EulerAncestralDiscreteScheduler"
    card = CARDS["sdxl-turbo" if ancestral and scheduler.get("timestep_spacing") == "trailing" else "sdxl"]
    stride = stride_of(vae)
    own = {"ramp": ramp_of(scheduler), "solver": "ancestral" if ancestral else "euler"}
    return card.model_copy(
        update={
            "channels": vae.get("latent_channels", 4),
            "strides": (1, stride, stride),
            "sides": stride * stride_of(network),
            "recipes": {quality: one.model_copy(update=own) for quality, one in card.recipes.items()},
        }
    )


_ALIKE: dict[str, Any] = {
    "channels": 4,
    "strides": (1, 8, 8),
    "sides": 32,
    "parts": {
        "unet": 2_567_463_684,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
        "vae": 83_653_863,
    },
}
_BASE = still(
    "sdxl",
    "Stable Diffusion XL 1.0",
    "stabilityai/stable-diffusion-xl-base-1.0",
    recipe=Recipe(steps=30, guidance=5.0, guided_from=0.0, shift=1.0, solver="euler", ramp=Table(offset=1)),
    steps={"draft": 20, "standard": 30, "best": 50},
    licence="CreativeML Open RAIL++-M",
    terms=Terms(
        url="https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/blob/main/LICENSE.md",
        use="not for the uses that its Attachment A lists",
    ),
    sizes=MEGAPIXEL,
    **_ALIKE,
)
_TURBO = still(
    "sdxl-turbo",
    "SDXL-Turbo, in one step",
    "stabilityai/sdxl-turbo",
    recipe=Recipe(steps=1, guidance=1.0, shift=1.0, solver="ancestral", ramp=Table(spacing="trailing")),
    steps={"draft": 1, "standard": 1, "best": 1},
    tasks=TASKS,
    licence="sai-nc-community",
    terms=Terms(
        url="https://huggingface.co/stabilityai/sdxl-turbo/blob/main/LICENSE.md",
        accept=True,
        use="its hub calls it non-commercial, and for commercial use points to https://stability.ai/license",
    ),
    sizes=((512, 512),),
    **_ALIKE,
)
CARDS = {card.name: card for card in (_BASE, _TURBO)}
