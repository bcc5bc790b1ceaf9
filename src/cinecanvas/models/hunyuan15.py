"""HunyuanVideo 1.5 (Tencent 2025): text, and a picture as channels, to video; quotations are read by letters."""

from __future__ import annotations

import re
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

# The question that its text encoder was asked in training, spaces and all; its states begin after it.
_ASKED = (
    "You are a helpful assistant. Describe the video by detailing the following aspects:         "
    "1. The main content and theme of the video.         "
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.         "
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.         "
    "4. background environment, light, style and atmosphere.         "
    "5. camera angles, movements, and transitions used in the video."
)
_ASKED_TOKENS = 108
_TOKENS, _LETTERS = 1000, 256
_SEEN = 729  # tokens of a picture
_BEFORE_LAST = -3  # of the encoder's layers
_LONGEST = 32  # cells-in-time that are decoded at once


class Hunyuan15:
    """From words, or from a first picture; both networks read channels of what is known beside the noise."""

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts
        self._network = parts.config("transformer")
        self._meanflow = bool(self._network.get("use_meanflow"))
        self._sees = "image_encoder" in parts

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B videos, RGB in [-1, 1]) and B prompts: latents, two kinds of text states, the picture's."""
        from dataclasses import replace

        import torch

        from cinecanvas.models.latents import Prepared, latent_canvas
        from cinecanvas.models.prompts import remembered

        with torch.inference_mode():
            encoders = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
            told = remembered(self._parts, text, lambda text: self._read(text) | self._spelt(text), by=encoders)
            shown = {"image_embeds": self._seen(canvas)}
            self._parts.drop("text_encoder", "text_encoder_2", "image_encoder")
            latent = latent_canvas(canvas, self.card, self._encode, device=self._parts.device)
            track = latent.tracks["video"]
            channels = shown["channels"] = torch.zeros_like(torch.cat([track.x, track.keep], 1))
            if self._sees and track.start == 0:
                first = canvas.tracks["video"].x[:, :, :1].to(self._parts.device)
                channels[:, :-1, :1], channels[:, -1:, :1] = self._encode(first), 1
                keep = track.keep.clone()
                keep[:, :, 0] = 0  # it is shown the first, and makes it
                latent = replace(latent, tracks={"video": replace(track, keep=keep)})
            return Prepared.of(latent, told, shown)

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
        channels = beside.pop("channels").roll(-turn, 2)
        if self._meanflow:
            end = noisiest(to["video"]) if to is not None else torch.zeros_like(level)
            beside["timestep_r"] = told(STRAIGHT, end[:, 0, 0, 0, 0]).to(x.device, dtype)
        with torch.inference_mode():
            velocity = self._parts.network("transformer")(
                hidden_states=torch.cat([x.to(dtype), channels], 1),
                timestep=told(STRAIGHT, level[:, 0, 0, 0, 0]).to(x.device, dtype),
                return_dict=False,
                **beside,
            )[0].float()  # fmt: skip
            return {"video": (x - level * velocity).roll(turn, 2)}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (t, H, W, 3), whole or in parts: its decoder attends to all cells before one."""
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
        """What the language model makes of the prompts (B, 1000, width), and which of it is words."""
        talks = [[{"role": "system", "content": _ASKED}, {"role": "user", "content": prompt or " "}] for prompt in text]
        words = self._parts.reader("tokenizer").apply_chat_template(
            talks,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            padding="max_length",
            max_length=_TOKENS + _ASKED_TOKENS,
            truncation=True,
            return_tensors="pt",
        )
        ids, mask = (words[name].to(self._parts.device) for name in ("input_ids", "attention_mask"))
        encoder = self._parts.network("text_encoder")
        states = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[_BEFORE_LAST]
        return {
            "encoder_hidden_states": states[:, _ASKED_TOKENS:],
            "encoder_attention_mask": mask[:, _ASKED_TOKENS:],
        }

    def _spelt(self, text: Sequence[str]) -> dict[str, Tensor]:
        """The letters of what stands in quotation marks (B, 256, width); nothing where nothing does."""
        import torch

        reader, encoder = self._parts.reader("tokenizer_2"), self._parts.network("text_encoder_2")
        rows, masks = [], []
        for prompt in text:
            quoted = quotations(prompt)
            if not quoted:
                rows.append(torch.zeros(1, _LETTERS, encoder.config.d_model, device=self._parts.device))
                masks.append(torch.zeros(1, _LETTERS, device=self._parts.device, dtype=torch.int64))
                continue
            letters = reader(
                quoted, padding="max_length", max_length=_LETTERS, truncation=True, return_tensors="pt"
            ).to(self._parts.device)
            states = encoder(input_ids=letters.input_ids, attention_mask=letters.attention_mask.float())[0]
            rows.append(states.float())
            masks.append(letters.attention_mask)
        return {"encoder_hidden_states_2": torch.cat(rows), "encoder_attention_mask_2": torch.cat(masks)}

    def _seen(self, canvas: Canvas) -> Tensor:
        """What the picture encoder says of the first frame (B, 729, width); zeros where there is none."""
        import torch

        track = canvas.tracks["video"]
        if not self._sees or track.start:
            width = self._network.get("image_embed_dim", 1152)
            return torch.zeros(canvas.batch, _SEEN, width, device=self._parts.device)
        reader, encoder = self._parts.reader("feature_extractor"), self._parts.network("image_encoder")
        pixels = [((p.movedim(0, -1) + 1) * 127.5).round().to(torch.uint8).numpy() for p in track.x[:, :, 0].cpu()]
        seen = reader.preprocess(images=pixels, do_resize=True, return_tensors="pt")["pixel_values"]
        return encoder(pixel_values=seen.to(encoder.device, encoder.dtype)).last_hidden_state


def quotations(prompt: str) -> str:
    """What stands in quotation marks, each once, as the letter encoder was taught to read it."""
    found = [one or other for one, other in re.findall(r"\"(.*?)\"|“(.*?)”", prompt)]
    return ". ".join(f'Text "{words}"' for words in dict.fromkeys(found)) + ". " if found else ""


def register() -> Family:
    """The published checkpoints, and whatever has their networks."""
    return family(CARDS.values(), Hunyuan15, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder whose transformer is HunyuanVideo 1.5's, fitted to its own sizes."""
    network, vae = layout.get("transformer", {}), layout.get("vae", {})
    if network.get("_class_name") != "HunyuanVideo15Transformer3DModel":
        return None
    size = "720p" if network.get("target_size", 640) > 640 else "480p"
    card = CARDS[f"hunyuanvideo-1.5-{size}-{'i2v' if 'image_encoder' in layout else 't2v'}"]
    stride = vae.get("spatial_compression_ratio", 16)
    shift = float(layout["scheduler"].get("shift", 7.0))
    scale = float(layout.get("guider", {}).get("guidance_scale", 6.0))
    recipes = {
        quality: one.model_copy(update={"shift": shift, "guidance": scale}) for quality, one in card.recipes.items()
    }
    return card.model_copy(
        update={
            "channels": vae.get("latent_channels", 32),
            "strides": (vae.get("temporal_compression_ratio", 4), stride, stride),
            "sides": stride * network.get("patch_size", 1),
            "recipes": recipes,
        }
    )


TERMS = Terms(
    url="https://huggingface.co/tencent/HunyuanVideo-1.5/blob/main/LICENSE",
    accept=True,
    territory="nothing is granted in the European Union, the United Kingdom and South Korea",
    revenue="above 100 million monthly users a licence from Tencent is needed",
)
_SIZES = {"480p": ((848, 480), (480, 848), (640, 640)), "720p": ((1280, 720), (720, 1280), (960, 960))}
_WORDS = {"text_to_video": EXACT, "text_to_image": EXACT} | all_by(REPLACED, "image_to_video", *CANVAS)
_PICTURE = all_by(("approximate", "the first frame as channels, others by latent replacement"), *CANVAS) | {
    "image_to_video": ("exact", "the picture as channels")
}


def _card(size: str, kind: str, shift: float) -> Card:
    return published(
        f"hunyuanvideo-1.5-{size}-{kind}",
        f"HunyuanVideo 1.5, 8.3B, from {'a picture' if kind == 'i2v' else 'words'}, {size}",
        f"hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-{size}_{kind}",
        tasks=_PICTURE if kind == "i2v" else _WORDS,
        recipe=Recipe(steps=50, guidance=6.0, guided_from=0.0, shift=shift, solver="euler"),
        licence="Tencent Hunyuan Community",
        terms=TERMS,
        channels=32,
        strides=(4, 16, 16),
        sides=16,
        sizes=_SIZES[size],
        fps=24.0,
        seconds=121 / 24,
        max_seconds=60.0,
        window=31,
        overlap=4,
    )


CARDS = {
    card.name: card
    for card in (
        _card("480p", "t2v", 5.0),
        _card("480p", "i2v", 5.0),
        _card("720p", "t2v", 9.0),
        _card("720p", "i2v", 7.0),
    )
}
