"""LTX-Video 0.9 (HaCohen et al. 2024): text and anything known to video, fast, for every token knows its own noise."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Family, Frames, Recipe, Terms
from cinecanvas.models.published import CANVAS, EXACT, all_by, family, published
from cinecanvas.ramp import Line, Listed, Ramp

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared

TOKENS = 128  # of a prompt
_WORN = 0.05, 0.025  # what a decoder that cleans up is told of the noise, and how much it is given
_LONGEST = 24  # cells-in-time that are decoded at once


class LTX:
    """All of 0.9: every task of the canvas, for a token that is known is told so."""

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts
        self._ramp: Ramp = card.recipes["standard"].ramp

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B videos, RGB in [-1, 1]) and B prompts: latents and text states."""
        import torch

        from cinecanvas.models.latents import Prepared, latent_canvas
        from cinecanvas.models.prompts import remembered

        with torch.inference_mode():
            told = remembered(self._parts, text, self._read, by=("tokenizer", "text_encoder"))
            self._parts.drop("text_encoder")
            latent = latent_canvas(canvas, self.card, self._encode, device=self._parts.device)
            return Prepared.of(latent, told, {})

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video track (B, C, T', H', W'), float32."""
        import torch

        from cinecanvas.models.latents import rolled, told

        x, s = z["video"], sigma["video"]
        turn = rolled(x, s) if cond.canvas.closed else 0
        x, s = x.roll(-turn, 2), s.roll(-turn, 2)
        b, _, *cells = x.shape
        level = s if bool((s != s[:, :, :1, :1, :1]).any()) else s[:, :, :1, :1, :1]
        dtype, stride = self._parts.dtype, self.card.strides
        fps = cond.canvas.tracks["video"].grid.fps
        with torch.inference_mode():
            velocity = self._parts.network("transformer")(
                hidden_states=x.flatten(2).transpose(1, 2).to(dtype),
                encoder_hidden_states=cond.given["encoder_hidden_states"].to(dtype),
                timestep=told(self._ramp, level).view(b, -1).to(x.device),
                encoder_attention_mask=cond.given["encoder_attention_mask"],
                num_frames=cells[0],
                height=cells[1],
                width=cells[2],
                rope_interpolation_scale=(stride[0] / fps, *stride[1:]),
                return_dict=False,
            )[0].float()  # fmt: skip
            x0 = x - s * velocity.transpose(1, 2).unflatten(2, cells)
        return {"video": x0.roll(turn, 2)}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (t, H, W, 3), whole or in parts: its decoder looks both ways in time."""
        from cinecanvas.models.latents import in_parts

        latents = z["video"][:1]
        return in_parts(latents, self._decoded, stride=self.card.strides[0], longest=_LONGEST, memory=memory)

    def _decoded(self, latents: Tensor) -> Tensor:
        """A part of a film (3, t, H, W) in [-1, 1]."""
        import torch

        vae = self._parts.network("vae")
        x = latents.to(vae.device) * _row(vae.latents_std) / vae.config.scaling_factor + _row(vae.latents_mean)
        time = None
        if vae.config.timestep_conditioning:
            told, share = _WORN
            eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
            x, time = (1 - share) * x + share * eps, torch.tensor([told], device=x.device, dtype=vae.dtype)
        with torch.random.fork_rng(devices=[]):  # some of its blocks draw noise of their own
            torch.manual_seed(0)
            return vae.decode(x.to(vae.dtype), time, return_dict=False)[0][0].float().clamp(-1, 1)

    def _read(self, text: Sequence[str]) -> dict[str, Tensor]:
        """Text states (B, 128, width) and which of them are words (B, 128)."""
        words = self._parts.reader("tokenizer")(
            list(text), padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt"
        )
        states = self._parts.network("text_encoder")(words["input_ids"].to(self._parts.device))[0]
        mask = words["attention_mask"].bool().to(self._parts.device)
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def _encode(self, rgb: Tensor) -> Tensor:
        vae = self._parts.network("vae")
        code = vae.encode(rgb.to(vae.dtype)).latent_dist.mode().float()
        return (code - _row(vae.latents_mean)) * vae.config.scaling_factor / _row(vae.latents_std)


def _row(values: Tensor) -> Tensor:
    return values.float().view(1, -1, 1, 1, 1)


def register() -> Family:
    """The published checkpoints, and whatever has their networks."""
    return family(CARDS.values(), LTX, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder whose transformer is LTX-Video's, fitted to its own sizes and its scheduler."""
    network, vae = layout.get("transformer", {}), layout.get("vae", {})
    if network.get("_class_name") != "LTXVideoTransformer3DModel":
        return None
    card = CARDS["ltx-video-0.9.7" if network.get("num_layers", 28) > 28 else "ltx-video-0.9.5"]
    patch, halvings = vae.get("patch_size", 4), sum(map(bool, vae.get("spatio_temporal_scaling", (1, 1, 1, 0))))
    side = patch * 2**halvings
    ramp = ramp_of(layout["scheduler"])
    return card.model_copy(
        update={
            "channels": network.get("in_channels", 128),
            "strides": (2**halvings * vae.get("patch_size_t", 1), side, side),
            "sides": side,
            "recipes": {quality: one.model_copy(update={"ramp": ramp}) for quality, one in card.recipes.items()},
        }
    )


def ramp_of(scheduler: Mapping[str, Any]) -> Line:
    """The levels of a folder's scheduler."""
    if not scheduler.get("use_dynamic_shifting"):
        return Line(terminal=scheduler.get("shift_terminal") or 0.0)
    few, many = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
    low, high = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
    return Line(growing=((few, low), (many, high)), terminal=scheduler.get("shift_terminal") or 0.0)


_RAMP = Line(growing=((1024, 0.95), (4096, 2.05)), terminal=0.1)
_DISTILLED = Listed(at=(1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219))
_TASKS = {"text_to_video": EXACT, "text_to_image": EXACT} | all_by(
    ("exact", "noise per token"), "image_to_video", *CANVAS
)
_TASKS |= {"loop": ("approximate", "noise per token, the ring turned from step to step")}


def _card(name: str, title: str, repository: str, *, distilled: bool = False, **facts: Any) -> Card:
    recipe = Recipe(steps=30, guidance=3.0, guided_from=0.0, shift=1.0, solver="euler", ramp=_RAMP)
    steps: dict[Any, int] = {"draft": 15, "standard": 30, "best": 50}
    if distilled:
        recipe = recipe.model_copy(update={"guidance": 1.0, "ramp": _DISTILLED})
        steps = dict.fromkeys(steps, len(_DISTILLED.at))
    return published(
        name,
        title,
        repository,
        tasks=_TASKS,
        recipe=recipe,
        steps=steps,
        channels=128,
        strides=(8, 32, 32),
        sides=32,
        sizes=((704, 480), (480, 704), (768, 512), (512, 512)),
        fps=24.0,
        seconds=121 / 24,
        max_seconds=60.0,
        window=21,
        overlap=4,
        **facts,
    )


_LICENCE: dict[str, Any] = {
    "licence": "LTX-Video Open Weights",
    "terms": Terms(
        url="https://huggingface.co/Lightricks/LTX-Video/blob/main/LTX-Video-Open-Weights-License-0.X.txt",
        accept=True,
        revenue="companies with 10 million US dollars a year or more need a licence from Lightricks",
    ),
}
CARDS = {
    card.name: card
    for card in (
        _card("ltx-video-0.9.5", "LTX-Video 0.9.5, 2B", "Lightricks/LTX-Video-0.9.5", **_LICENCE),
        _card("ltx-video-0.9.7", "LTX-Video 0.9.7, 13B", "Lightricks/LTX-Video-0.9.7-dev", **_LICENCE),
        _card(
            "ltx-video-0.9.7-distilled",
            "LTX-Video 0.9.7, 13B, in eight steps",
            "Lightricks/LTX-Video-0.9.7-distilled",
            distilled=True,
            **_LICENCE,
        ),
    )
}
