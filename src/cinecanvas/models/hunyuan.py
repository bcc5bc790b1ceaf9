"""HunyuanVideo (Tencent 2024): words, and a picture, to video; most are told how far to lean towards the prompt."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cinecanvas.model import Card, Family, Frames, Recipe, Terms
from cinecanvas.models.published import CANVAS, EXACT, REPLACED, Way, all_by, family, published
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
# The same beside a picture, whose tokens come where it is named.
_SHOWN = (
    "<|start_header_id|>system<|end_header_id|>\n\n<image>\n"
    "Describe the video by detailing the following aspects according to the reference image: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>\n\n"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
_SHOWN_TOKENS = 103
_HEADER, _HEADERS, _ANSWER = "<|end_header_id|>", 3, 4  # the last header, of four tokens, is not read
_TOKENS, _POOLED_TOKENS = 256, 77
_BEFORE_LAST = -3  # of the encoder's layers
_EVERY = {"latent_concat": 2, "token_replace": 4}  # of the tokens of a picture one in so many is read
_HELD = 0.001  # of the picture lies in the noise that its film begins with


class Hunyuan:
    """From words or from a picture; what else is known of a canvas is held by latent replacement.

    A picture is the first cell, without noise (`token_replace`), or stands as channels beside a cell before the
    first, on a track of its own that is not shown (`latent_concat`). So do the first known cells of a later window.
    """

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts
        self._way = parts.config("transformer").get("image_condition_type")

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B videos, RGB in [-1, 1]) and B prompts: latents, text states, a pooled one, the picture."""
        import torch

        from cinecanvas.models.latents import Prepared, begun, but_its_picture, latent_canvas

        shown, pictured = {}, bool(self._way) and begun(canvas)
        rest = but_its_picture(canvas) if pictured else canvas
        with torch.inference_mode():
            told = self._told(canvas, text)
            self._parts.drop("text_encoder", "text_encoder_2")
            latent = latent_canvas(rest, self.card, self._encode, device=self._parts.device, reach=self._reach)
            if pictured:
                picture = self._encode(canvas.tracks["video"].x[:, :, :1].to(self._parts.device))
                latent = self._begun(latent, picture)
                shown = {"picture": picture} if self._way == "latent_concat" else {}
            return Prepared.of(latent, told, shown)

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the tracks (B, C, T', H', W'), float32."""
        import torch

        from cinecanvas.models.latents import lifted, noisiest, rolled

        names = [name for name in ("lead", "video") if name in z]
        x, s = (torch.cat([tensors[name] for name in names], 2) for tensors in (z, sigma))
        turn = rolled(x, s) if cond.canvas.closed else 0
        x, s = x.roll(-turn, 2), s.roll(-turn, 2)
        first = x[:, :, :1] if self._way and bool((s[:, :, :1] == 0).all()) else None
        clean = 1 if first is not None and self._way == "token_replace" else 0
        level = noisiest(s[:, :, clean:])
        then = noisiest(torch.cat([to[name] for name in names], 2)) if to is not None else torch.zeros_like(level)
        with torch.inference_mode():
            x = torch.cat([x[:, :, :clean], lifted(x, s, level)[:, :, clean:]], 2)
            # with a thousandth of the picture in it, it is told of noise alone, and goes as far as from there
            spoken = torch.where((level - (1 - _HELD)).abs() < 1e-6, 1.0, level) if self._way else level
            pace = torch.where(then < level, (spoken - then) / (level - then), 1.0)
            x0 = x - level * pace * self._velocity(x, first, spoken, cond)
        x0 = torch.cat([x[:, :, :clean], x0[:, :, clean:]], 2).roll(turn, 2)
        return dict(zip(names, x0.split([z[name].shape[2] for name in names], 2), strict=True))

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (t, H, W, 3), tile by tile: five cells, the last of which fades into the next tile.

        So does its pipeline with the whole. The memory is the tile that may yet be filled: what is asked for earlier
        is decoded without the cells that would follow it.
        """
        import torch

        from cinecanvas.models.latents import frames_of

        vae, stride = self._parts.network("vae"), self.card.strides[0]
        size, apart = vae.tile_sample_min_num_frames // stride, vae.tile_sample_stride_num_frames // stride
        past = memory if memory is not None else self._beginning(z)
        latents = torch.cat([past.latents, z["video"][:1]], 2)
        shown, tail, kept = past.shown, past.tail, None
        for at in range(0, latents.shape[2], apart):
            tile, cell = latents[:, :, at : at + size + 1], past.at + at
            if tile.shape[2] <= size and kept is None:
                kept = _Past(latents[:, :, at:], cell, tail=tail)
            if cell and tile.shape[2] == 1:
                break  # its one frame is there already
            own = 1 if cell else 0  # the frame of its first cell alone is the tile before's
            with torch.inference_mode():
                rgb = self._decoded(tile)[:, own:]
                rgb = rgb if tail is None else _faded(tail, rgb)
                tail = rgb[:, (apart - size) * stride :]
                rgb = rgb[:, : apart * stride + 1 - own]
                begins = cell * stride + own
                frames = frames_of(rgb[:, max(0, shown - begins) :])
            if len(frames.rgb):
                yield frames
            shown = max(shown, begins + rgb.shape[1])
        return kept._replace(shown=shown) if kept is not None else past

    def _begun(self, latent: Canvas, picture: Tensor) -> Canvas:
        """The canvas of a film that begins with a picture: a thousandth of it lies in all cells that are to be made."""
        from dataclasses import replace

        import torch

        from cinecanvas.canvas import Track

        track = latent.tracks["video"]
        x, keep = track.x, track.keep.clone()
        if self._way == "latent_concat":
            keep[:, :, 0] = 0  # it is shown the picture, and makes the first frame
        hole = keep == 0
        x, keep = torch.where(hole, picture, x), torch.where(hole, _HELD, keep)
        if self._way == "token_replace":
            x[:, :, :1], keep[:, :, :1] = picture, 1
            return replace(latent, tracks={"video": replace(track, x=x, keep=keep)})
        lead = Track(picture, torch.full_like(keep[:, :, :1], _HELD), track.grid)
        return replace(latent, tracks={"video": replace(track, x=x, keep=keep), "lead": lead})

    def _velocity(self, x: Tensor, first: Tensor | None, level: Tensor, cond: Prepared) -> Tensor:
        """What the network answers (B, C, T', H', W'), float32, at levels (B, 1, 1, 1, 1) and with the known first."""
        import torch

        from cinecanvas.models.latents import told

        dtype = self._parts.dtype
        beside = {name: rows.to(dtype) for name, rows in cond.given.items()}
        picture = beside.pop("picture", first)
        rows = [x.to(dtype)]
        if self._way == "latent_concat":
            code, mask = torch.zeros_like(rows[0]), torch.zeros_like(rows[0][:, :1])
            if picture is not None:
                code[:, :, :1], mask[:, :, :1] = picture, 1
            rows += [code, mask]
        if self.card.embedded:
            untold = x.new_full((len(x),), self.card.recipes["standard"].guidance)
            beside["guidance"] = beside.get("guidance", untold).to(dtype) * 1000
        return self._parts.network("transformer")(
            hidden_states=torch.cat(rows, 1),
            timestep=told(STRAIGHT, level[:, 0, 0, 0, 0]).to(x.device),
            return_dict=False,
            **beside,
        )[0].float()  # fmt: skip

    def _beginning(self, z: Tensors) -> _Past:
        """Nothing; or the cell before the first: nothing of it is shown, and of the cell after it the last frame."""
        if "lead" in z:
            return _Past(z["lead"][:1, :, :1], shown=self.card.strides[0])
        return _Past(z["video"][:1, :, :0])

    def _decoded(self, latents: Tensor) -> Tensor:
        vae = self._parts.network("vae")
        vae.use_framewise_decoding = False  # it would take a tile apart once more
        x = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
        return vae.decode(x, return_dict=False)[0][0].float()

    def _encode(self, rgb: Tensor) -> Tensor:
        vae = self._parts.network("vae")
        return vae.encode(rgb.to(vae.dtype)).latent_dist.mode().float() * vae.config.scaling_factor

    def _reach(self, cells: Sequence[int], whole: int) -> range:
        """It is encoded by tiles, as it is decoded: those of the cells, and the one before, which fades into them."""
        vae, stride = self._parts.network("vae"), self.card.strides[0]
        size, apart = vae.tile_sample_min_num_frames // stride, vae.tile_sample_stride_num_frames // stride
        if not vae.use_framewise_encoding or 1 + (whole - 1) * stride <= vae.tile_sample_min_num_frames:
            return range(whole)
        first, last = (max(0, cell - 1) // apart for cell in (min(cells), max(cells)))
        return range(max(0, first - 1) * apart, min(whole, last * apart + size + 1))

    def _told(self, canvas: Canvas, text: Sequence[str]) -> dict[str, Tensor]:
        """Text states (B, n, width), which of them are words, and CLIP's one vector."""
        from cinecanvas.models.prompts import remembered

        if self._way:
            return self._read_beside(canvas, text) | self._pooled(text)
        encoders = ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2")
        return remembered(self._parts, text, lambda text: self._read(text) | self._pooled(text), by=encoders)

    def _read(self, text: Sequence[str]) -> dict[str, Tensor]:
        """What the language model makes of the prompts (B, 256, width), and which of it is words."""
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
        return {
            "encoder_hidden_states": states[:, _ASKED_TOKENS:],
            "encoder_attention_mask": mask[:, _ASKED_TOKENS:],
        }

    def _read_beside(self, canvas: Canvas, text: Sequence[str]) -> dict[str, Tensor]:
        """The same beside the first frame; beside black for the prompts that are beyond those of the videos."""
        import torch

        reader, encoder = self._parts.reader("tokenizer"), self._parts.network("text_encoder")
        device, vision, longest = self._parts.device, encoder.config.vision_config, _SHOWN_TOKENS + _TOKENS
        padding = self._parts.config("text_encoder").get("pad_token_id", reader.pad_token_id)
        many = (vision.image_size // vision.patch_size) ** 2
        words = reader(
            [_SHOWN.format(prompt) for prompt in text], max_length=longest, padding="max_length", truncation=True
        )
        named, header = encoder.config.image_token_index, reader.convert_tokens_to_ids(_HEADER)
        rows = [_expanded(ids, named, many) for ids in words["input_ids"]]
        ids = torch.tensor(rows, device=device)
        mask = (ids != padding).long()
        pixels = self._pictures(canvas, len(text))
        states = encoder(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).masked_fill(mask == 0, 1),
            pixel_values=pixels.to(device, encoder.dtype),
            output_hidden_states=True,
            logits_to_keep=1,
        ).hidden_states[_BEFORE_LAST]
        found, which = [], []
        for row, tokens, real in zip(states, words["input_ids"], words["attention_mask"], strict=True):
            at, said = tokens.index(named), _said(tokens, header)
            found.append(torch.cat([row[at : at + many][:: _EVERY[str(self._way)]], row[[many - 1 + i for i in said]]]))
            which.append([1] * len(range(0, many, _EVERY[str(self._way)])) + [real[i] for i in said])
        return {
            "encoder_hidden_states": torch.stack(found),
            "encoder_attention_mask": torch.tensor(which, device=device),
        }

    def _pictures(self, canvas: Canvas, count: int) -> Tensor:
        """The first frames as the encoder reads pictures (count, 3, h, w), then black ones."""
        import torch

        first = canvas.tracks["video"].x[:, :, 0].cpu()
        frames = [first[i] if i < len(first) else torch.full_like(first[0], -1) for i in range(count)]
        pixels = [((p.movedim(0, -1) + 1) * 127.5).round().to(torch.uint8).numpy() for p in frames]
        return self._parts.reader("image_processor")(images=pixels, return_tensors="pt")["pixel_values"]

    def _pooled(self, text: Sequence[str]) -> dict[str, Tensor]:
        """CLIP's one vector (B, width)."""
        words = self._parts.reader("tokenizer_2")(
            list(text), padding="max_length", max_length=_POOLED_TOKENS, truncation=True, return_tensors="pt"
        )
        ids = words["input_ids"].to(self._parts.device)
        return {"pooled_projections": self._parts.network("text_encoder_2")(ids).pooler_output}


class _Past(NamedTuple):
    """Where decoding goes on: latents of the film from cell `at` on, frames shown, the end of the tile before."""

    latents: Tensor
    at: int = 0
    shown: int = 0
    tail: Tensor | None = None


def _faded(tail: Tensor, rgb: Tensor) -> Tensor:
    """Pixels (3, t, H, W) whose first frames come out of the last ones of the tile before."""
    import torch

    n = min(tail.shape[1], rgb.shape[1])
    share = (torch.arange(n, device=rgb.device) / tail.shape[1]).view(1, -1, 1, 1)
    return torch.cat([tail[:, :n] * (1 - share) + rgb[:, :n] * share, rgb[:, n:]], 1)


def _expanded(tokens: list[int], named: int, many: int) -> list[int]:
    """Tokens with as many for the picture as it has patches."""
    at = tokens.index(named)
    return [*tokens[:at], *[named] * many, *tokens[at + 1 :]]


def _said(tokens: list[int], header: int) -> list[int]:
    """Which tokens are read: from the prompt on, without the header of an answer, or the last ones where it is cut."""
    headers = [place for place, token in enumerate(tokens) if token == header]
    end = headers[-1] + 1 if len(headers) >= _HEADERS else len(tokens)
    return [*range(_SHOWN_TOKENS, end - _ANSWER), *range(end, len(tokens))]


def register() -> Family:
    """The published checkpoints, and whatever has their networks."""
    return family(CARDS.values(), Hunyuan, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder whose transformer is HunyuanVideo's, fitted to its own sizes."""
    network, vae = layout.get("transformer", {}), layout.get("vae", {})
    if network.get("_class_name") != "HunyuanVideoTransformer3DModel":
        return None
    card = next((card for card in CARDS.values() if _WAYS[card.name] == network.get("image_condition_type")), None)
    if card is None:
        return None
    stride = vae.get("spatial_compression_ratio", 8)
    shift = float(layout["scheduler"].get("shift", 7.0))
    embedded = bool(network.get("guidance_embeds", True))
    recipes = {
        quality: one.model_copy(update={"shift": shift, **({} if embedded else {"guidance": 1.0})})
        for quality, one in card.recipes.items()
    }
    return card.model_copy(
        update={
            "channels": vae.get("latent_channels", 16),
            "strides": (vae.get("temporal_compression_ratio", 4), stride, stride),
            "sides": stride * network.get("patch_size", 2),
            "embedded": embedded,
            "recipes": recipes,
        }
    )


_LICENCE = "https://huggingface.co/tencent/HunyuanVideo/blob/main/LICENSE"
_WORDS = {"text_to_video": EXACT, "text_to_image": EXACT} | all_by(REPLACED, "image_to_video", *CANVAS)
_PINNED: dict[str, Way] = {
    "image_to_video": ("exact", "the picture as first cell, without noise"),
    "keyframes": ("approximate", "the first as first cell, others by latent replacement"),
}
_CHANNELS: dict[str, Way] = {
    "image_to_video": ("exact", "the picture as channels"),
    "keyframes": ("approximate", "the first as channels, others by latent replacement"),
}


def _card(name: str, title: str, tasks: Mapping[str, Way], *, guidance: float = 6.0, **facts: Any) -> Card:
    """One of the published; the authors advise 50 steps, and 7 for the shift."""
    repository = {"": "HunyuanVideo", "-i2v": "HunyuanVideo-I2V", "-i2v-33ch": "HunyuanVideo-I2V-33ch"}[name]
    return published(
        f"hunyuanvideo{name}",
        title,
        f"hunyuanvideo-community/{repository}",
        tasks=tasks,
        recipe=Recipe(steps=30, guidance=guidance, guided_from=0.0, shift=7.0, solver="euler"),
        licence="Tencent Hunyuan Community",
        terms=Terms(
            url=_LICENCE if not name else "https://github.com/Tencent-Hunyuan/HunyuanVideo-I2V/blob/main/LICENSE.txt",
            accept=True,
            territory="nothing is granted in the European Union, the United Kingdom and South Korea",
            revenue="above 100 million monthly users a licence from Tencent is needed",
        ),
        channels=16,
        strides=(4, 8, 8),
        sides=16,
        sizes=((1280, 720), (720, 1280), (960, 960), (960, 544), (544, 960)),
        fps=24.0,
        seconds=129 / 24,
        max_seconds=60.0,
        window=33,
        overlap=5,
        **facts,
    )


CARDS = {
    card.name: card
    for card in (
        _card("", "HunyuanVideo, 13B, from words", _WORDS, embedded=True),
        _card("-i2v", "HunyuanVideo, 13B, from a picture", _PINNED, embedded=True),
        _card("-i2v-33ch", "HunyuanVideo, 13B, from a picture, its first version", _CHANNELS, guidance=1.0),
    )
}
_WAYS = dict(zip(CARDS, (None, "token_replace", "latent_concat"), strict=True))
