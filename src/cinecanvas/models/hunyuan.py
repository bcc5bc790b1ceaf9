"""HunyuanVideo (Tencent 2024): text to video; distilled to lean towards its prompt by a scale that it is told."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Family, Frames, Recipe, Terms
from cinecanvas.models.published import CANVAS, EXACT, REPLACED, all_by, family, published
from cinecanvas.ramp import STRAIGHT

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared

# The question that its text encoder was asked in training; its states begin after it.
_ASKED = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
_ASKED_TOKENS = 95
_TOKENS, _POOLED_TOKENS = 256, 77
_BEFORE_LAST = -3  # of the encoder's layers
_LONGEST = 16  # cells-in-time that are decoded at once


class Hunyuan:
    """From words; what else is known of a canvas is held by latent replacement."""

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B videos, RGB in [-1, 1]) and B prompts: latents, text states, and a pooled one."""
        import torch

        from cinecanvas.models.latents import Prepared, latent_canvas
        from cinecanvas.models.prompts import remembered

        with torch.inference_mode():
            encoders = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
            told = remembered(self._parts, text, self._read, by=encoders)
            self._parts.drop("text_encoder", "text_encoder_2")
            latent = latent_canvas(canvas, self.card, self._encode, device=self._parts.device)
            return Prepared.of(latent, told, {})

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video track (B, C, T', H', W'), float32."""
        import torch

        from cinecanvas.models.latents import lifted, noisiest, rolled, told

        x, s = z["video"], sigma["video"]
        turn = rolled(x, s) if cond.canvas.closed else 0
        x, s = x.roll(-turn, 2), s.roll(-turn, 2)
        level = noisiest(s)
        x, dtype = lifted(x, s, level), self._parts.dtype
        beside = {name: rows.to(dtype) for name, rows in cond.given.items()}
        if self.card.embedded:
            untold = x.new_full((len(x),), self.card.recipes["standard"].guidance)
            beside["guidance"] = beside.get("guidance", untold).to(dtype) * 1000
        with torch.inference_mode():
            velocity = self._parts.network("transformer")(
                hidden_states=x.to(dtype),
                timestep=told(STRAIGHT, level[:, 0, 0, 0, 0]).to(x.device),
                return_dict=False,
                **beside,
            )[0].float()  # fmt: skip
            return {"video": (x - level * velocity).roll(turn, 2)}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (t, H, W, 3), whole or in parts: its decoder norms over all frames and attends to them."""
        from cinecanvas.models.latents import in_parts

        latents = z["video"][:1]
        return in_parts(latents, self._decoded, stride=self.card.strides[0], longest=_LONGEST, memory=memory)

    def _decoded(self, latents: Tensor) -> Tensor:
        vae = self._parts.network("vae")
        x = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
        return vae.decode(x, return_dict=False)[0][0].float().clamp(-1, 1)

    def _encode(self, rgb: Tensor) -> Tensor:
        vae = self._parts.network("vae")
        return vae.encode(rgb.to(vae.dtype)).latent_dist.mode().float() * vae.config.scaling_factor

    def _read(self, text: Sequence[str]) -> dict[str, Tensor]:
        """What the language model makes of the prompts (B, 256, width), which of it is words, and CLIP's one vector."""
        device = self._parts.device
        words = self._parts.reader("tokenizer")(
            [_ASKED.format(prompt) for prompt in text],
            max_length=_TOKENS + _ASKED_TOKENS,
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        )
        ids, mask = (words[name].to(device) for name in ("input_ids", "attention_mask"))
        encoder = self._parts.network("text_encoder")
        states = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[_BEFORE_LAST]
        pooled = self._parts.reader("tokenizer_2")(
            list(text), padding="max_length", max_length=_POOLED_TOKENS, truncation=True, return_tensors="pt"
        )
        return {
            "encoder_hidden_states": states[:, _ASKED_TOKENS:],
            "encoder_attention_mask": mask[:, _ASKED_TOKENS:],
            "pooled_projections": self._parts.network("text_encoder_2")(pooled["input_ids"].to(device)).pooler_output,
        }


def register() -> Family:
    """The published checkpoint, and whatever has its networks."""
    return family((CARD,), Hunyuan, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder whose transformer is HunyuanVideo's and reads words only, fitted to its own sizes."""
    network, vae = layout.get("transformer", {}), layout.get("vae", {})
    if network.get("_class_name") != "HunyuanVideoTransformer3DModel" or network.get("image_condition_type"):
        return None
    stride = vae.get("spatial_compression_ratio", 8)
    shift = float(layout["scheduler"].get("shift", 7.0))
    embedded = bool(network.get("guidance_embeds", True))
    recipes = {
        quality: one.model_copy(update={"shift": shift, **({} if embedded else {"guidance": 1.0})})
        for quality, one in CARD.recipes.items()
    }
    return CARD.model_copy(
        update={
            "channels": vae.get("latent_channels", 16),
            "strides": (vae.get("temporal_compression_ratio", 4), stride, stride),
            "sides": stride * network.get("patch_size", 2),
            "embedded": embedded,
            "recipes": recipes,
        }
    )


CARD = published(
    "hunyuanvideo",
    "HunyuanVideo, 13B, from words",
    "hunyuanvideo-community/HunyuanVideo",
    tasks={"text_to_video": EXACT, "text_to_image": EXACT} | all_by(REPLACED, "image_to_video", *CANVAS),
    recipe=Recipe(steps=30, guidance=6.0, guided_from=0.0, shift=7.0, solver="euler"),
    licence="Tencent Hunyuan Community",
    terms=Terms(
        url="https://huggingface.co/tencent/HunyuanVideo/blob/main/LICENSE",
        accept=True,
        territory="nothing is granted in the European Union, the United Kingdom and South Korea",
        revenue="above 100 million monthly users a licence from Tencent is needed",
    ),
    embedded=True,
    channels=16,
    strides=(4, 8, 8),
    sides=16,
    sizes=((1280, 720), (720, 1280), (960, 960), (960, 544), (544, 960)),
    fps=24.0,
    seconds=129 / 24,
    max_seconds=60.0,
    window=33,
    overlap=5,
)
