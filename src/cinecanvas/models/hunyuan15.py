"""HunyuanVideo 1.5 (Tencent 2025): text, and a picture as channels, to video; quotations are read by letters."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Family, Frames, Recipe, Terms
from cinecanvas.models.published import CANVAS, EXACT, REPLACED, STEPS, all_by, family, published
from cinecanvas.ramp import STRAIGHT
from cinecanvas.request import Quality

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
_TRAINED = 31  # cells-in-time of five seconds, as its authors make them


class Hunyuan15:
    """From words, or from a first picture; both networks read channels of what is known beside the noise."""

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts
        self._network = parts.config("transformer")
        self._meanflow = bool(self._network.get("use_meanflow"))
        self._sees = "image_encoder" in parts

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B videos, RGB in [-1, 1]) and B prompts: latents, two kinds of text states, the picture's."""
        import torch

        from cinecanvas.models.latents import Prepared, begun, but_its_picture, its_own, latent_canvas
        from cinecanvas.models.prompts import remembered

        picture = self._sees and begun(canvas)
        with torch.inference_mode():
            encoders = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
            told = remembered(self._parts, text, lambda text: self._read(text) | self._spelt(text), by=encoders)
            shown = {"image_embeds": self._seen(canvas, picture)}
            self._parts.drop("text_encoder", "text_encoder_2", "image_encoder")
            rest = but_its_picture(canvas) if picture else canvas
            latent = latent_canvas(rest, self.card, self._encode, device=self._parts.device)
            track = latent.tracks["video"]
            channels = shown["channels"] = torch.zeros_like(torch.cat([track.x, track.keep], 1))
            if picture:
                code = self._encode(canvas.tracks["video"].x[:, :, :1].to(self._parts.device))
                first = torch.cat([code, torch.ones_like(code[:, :1])], 1)
                shown["channels"] = torch.cat([first, channels[:, :, 1:]], 2)
                latent = its_own(latent, code)
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
        """RGB uint8 (t, H, W, 3), a cell-in-time after the other; the memory is what its layers hold."""
        import torch

        from cinecanvas.models.latents import frames_of

        vae = self._parts.network("vae")
        for cell in range(z["video"].shape[2]):
            with torch.inference_mode():
                x = z["video"][:1, :, cell : cell + 1].to(vae.device, vae.dtype) / vae.config.scaling_factor
                way = _Causal(memory or ())
                frames = frames_of(way.pixels(vae.decoder, x)[0].clamp(-1, 1))
                memory = tuple(way.holds)
            yield frames
        return memory

    def _encode(self, rgb: Tensor) -> Tensor:
        import torch

        vae, stride, codes = self._parts.network("vae"), self.card.strides[0], []
        held: tuple[Tensor, ...] = ()
        for frames in rgb.to(vae.dtype).split([1, *[stride] * (rgb.shape[2] // stride)], 2):
            way = _Causal(held)
            codes.append(way.code(vae.encoder, frames).chunk(2, 1)[0].float())  # the mean of its two halves
            held = tuple(way.holds)
        return torch.cat(codes, 2) * vae.config.scaling_factor

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

    def _seen(self, canvas: Canvas, picture: bool) -> Tensor:
        """What the picture encoder says of the first frame (B, 729, width); zeros where that is not a picture."""
        import torch

        track = canvas.tracks["video"]
        if not picture:
            width = self._network.get("image_embed_dim", 1152)
            return torch.zeros(canvas.batch, _SEEN, width, device=self._parts.device)
        reader, encoder = self._parts.reader("feature_extractor"), self._parts.network("image_encoder")
        pixels = [((p.movedim(0, -1) + 1) * 127.5).round().to(torch.uint8).numpy() for p in track.x[:, :, 0].cpu()]
        seen = reader.preprocess(images=pixels, do_resize=True, return_tensors="pt")["pixel_values"]
        return encoder(pixel_values=seen.to(encoder.device, encoder.dtype)).last_hidden_state


class _Causal:
    """One cell through an encoder or a decoder, which look back only, and so need not be given the whole at once.

    A convolution holds the last frames that it was given, the attention the keys and values of the cells before; in
    the order in which layers are met. Nothing is held before the first cell. Given the whole, the attention would make
    a mask of all its cells squared: 49290^2 numbers for five seconds of 848x480 px.
    """

    def __init__(self, held: Sequence[Tensor]) -> None:
        self._held = held
        self.holds: list[Tensor] = []

    def pixels(self, decoder: Any, x: Tensor) -> Tensor:
        """One cell (B, C, 1, h, w) as frames (B, 3, t, H, W): one of the first, else four."""
        x = self._convolved(decoder.conv_in, x) + x.repeat_interleave(decoder.repeat, 1)
        x = self._middle(decoder.mid_block, x)
        for block in decoder.up_blocks:
            for resnet in block.resnets:
                x = self._resnet(resnet, x)
            for layer in block.upsamplers or ():
                x = self._enlarged(layer, x)
        return self._convolved(decoder.conv_out, decoder.conv_act(decoder.norm_out(x)))

    def code(self, encoder: Any, x: Tensor) -> Tensor:
        """One frame (B, 3, 1, H, W) if it is the first, else four, as the moments of one cell (B, 2 C, 1, h, w)."""
        x = self._convolved(encoder.conv_in, x)
        for block in encoder.down_blocks:
            for resnet in block.resnets:
                x = self._resnet(resnet, x)
            for layer in block.downsamplers or ():
                x = self._shrunk(layer, x)
        x = self._middle(encoder.mid_block, x)
        mean = x.unflatten(1, (-1, encoder.group_size)).mean(2)
        return self._convolved(encoder.conv_out, encoder.conv_act(encoder.norm_out(x))) + mean

    def _middle(self, block: Any, x: Tensor) -> Tensor:
        first, *others = block.resnets
        x = self._resnet(first, x)
        for attention, resnet in zip(block.attentions, others, strict=True):
            x = self._resnet(resnet, x if attention is None else self._attended(attention, x))
        return x

    def _past(self) -> Tensor | None:
        """What the layer that is met now holds."""
        return self._held[len(self.holds)] if self._held else None

    def _convolved(self, layer: Any, x: Tensor) -> Tensor:
        import torch

        *sides, before, _ = layer.time_causal_padding
        past = self._past()
        x = torch.cat([x[:, :, :1].expand(-1, -1, before, -1, -1) if past is None else past, x], 2)
        self.holds.append(x[:, :, x.shape[2] - before :].clone())
        return layer.conv(torch.nn.functional.pad(x, (*sides, 0, 0), mode=layer.pad_mode))

    def _resnet(self, layer: Any, x: Tensor) -> Tensor:
        h = self._convolved(layer.conv1, layer.nonlinearity(layer.norm1(x)))
        h = self._convolved(layer.conv2, layer.nonlinearity(layer.norm2(h)))
        return h + (x if layer.conv_shortcut is None else layer.conv_shortcut(x))

    def _attended(self, layer: Any, x: Tensor) -> Tensor:
        """To as many cells-in-time as its authors give it, and no more."""
        import torch

        q, k, v = (part(layer.norm(x)).flatten(2).transpose(1, 2) for part in (layer.to_q, layer.to_k, layer.to_v))
        new, past = torch.stack([k, v]), self._past()  # (2, 1, n, C)
        seen = new if past is None else torch.cat([past[:, :, -(_TRAINED - 1) * k.shape[1] :], new], 2)
        self.holds.append(seen)
        found = torch.nn.functional.scaled_dot_product_attention(q[:, None], seen[0][:, None], seen[1][:, None])[:, 0]
        return x + layer.proj_out(found.transpose(1, 2).unflatten(2, x.shape[2:]))

    def _enlarged(self, layer: Any, x: Tensor) -> Tensor:
        """Twice as wide and high; twice as many frames too, but for the first one of a film."""
        first = self._past() is None
        h = self._convolved(layer.conv, x)
        if layer.add_temporal_upsample and first:
            h = layer._dcae_upsample_rearrange(h, r1=1, r2=2, r3=2)
            x = layer._dcae_upsample_rearrange(x, r1=1, r2=2, r3=2)
            return h[:, : h.shape[1] // 2] + x.repeat_interleave(layer.repeats // 2, 1)
        times = 2 if layer.add_temporal_upsample else 1
        h = layer._dcae_upsample_rearrange(h, r1=times, r2=2, r3=2)
        if times == 1:
            return h + layer._dcae_upsample_rearrange(x.repeat_interleave(layer.repeats, 1), r1=1, r2=2, r3=2)
        return h + layer._dcae_upsample_rearrange(x, r1=2, r2=2, r3=2).repeat_interleave(layer.repeats, 1)

    def _shrunk(self, layer: Any, x: Tensor) -> Tensor:
        """Half as wide and high; half as many frames too, but for the first one of a film, which counts twice."""
        first = self._past() is None
        h = self._convolved(layer.conv, x)
        times = 2 if layer.add_temporal_downsample and not first else 1
        h, x = (layer._dcae_downsample_rearrange(part, r1=times, r2=2, r3=2) for part in (h, x))
        if layer.add_temporal_downsample and first:
            h = h.repeat(1, 2, 1, 1, 1)
        return h + x.unflatten(1, (h.shape[1], -1)).mean(2)


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
    scale = float(layout.get("guider", {}).get("guidance_scale", 6.0))
    distilled = "-step-distilled" if network.get("use_meanflow") else "-distilled" if scale == 1 else ""
    kind = f"{size}-{'i2v' if 'image_encoder' in layout else 't2v'}"
    card = CARDS.get(f"hunyuanvideo-1.5-{kind}{distilled}", CARDS[f"hunyuanvideo-1.5-{kind}"])
    stride = vae.get("spatial_compression_ratio", 16)
    shift = float(layout["scheduler"].get("shift", 7.0))
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
_MUST: dict[Quality, int] = {"draft": 50, "standard": 50, "best": 50}  # fewer do not serve, its authors say
_FEW: dict[Quality, int] = {"draft": 4, "standard": 8, "best": 12}


def _card(size: str, kind: str, shift: float, *, distilled: str = "") -> Card:
    """One of the published; those that are distilled do not lean."""
    what = {"": "", "distilled": ", without guidance", "step_distilled": ", in few steps"}[distilled]
    name = "_".join(word for word in (size, kind, distilled) if word)
    return published(
        f"hunyuanvideo-1.5-{name.replace('_', '-')}",
        f"HunyuanVideo 1.5, 8.3B, from {'a picture' if kind == 'i2v' else 'words'}, {size}{what}",
        f"hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-{name}",
        tasks=_PICTURE if kind == "i2v" else _WORDS,
        recipe=Recipe(steps=50, guidance=1.0 if distilled else 6.0, guided_from=0.0, shift=shift, solver="euler"),
        steps={"": STEPS, "distilled": _MUST, "step_distilled": _FEW}[distilled],
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
        _card("480p", "t2v", 5.0, distilled="distilled"),
        _card("480p", "i2v", 5.0, distilled="distilled"),
        _card("720p", "i2v", 7.0, distilled="distilled"),
        _card("480p", "i2v", 7.0, distilled="step_distilled"),
    )
}
