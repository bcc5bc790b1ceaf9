"""LTX-Video 0.9 (HaCohen et al. 2024): text and anything known to video, fast, for every token knows its own noise."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Family, Frames, Recipe, Terms
from cinecanvas.models.published import CANVAS, EXACT, all_by, family, published
from cinecanvas.ramp import Line, LinearQuadratic, Listed, Ramp

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared

_TOKENS = {"LTXConditionPipeline": 256}  # of a prompt, by the pipeline that a folder is published for; 128 of others
_WORN = 0.05, 0.025  # what a decoder that cleans up is told of the noise, and how much it is given


class LTX:
    """All of 0.9: every task of the canvas, for a token that is known is told so.

    From 0.9.5 on (published for the pipeline of conditions) a token stands at its first frame, and pictures and clips
    at any frame may be shown beside the lattice, as tokens of their own; before, it stands at its last.
    """

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts
        self._ramp: Ramp = card.recipes["standard"].ramp
        self._pipeline: str = parts.layout["model_index"].get("_class_name", "")
        self._conditions = self._pipeline == "LTXConditionPipeline"

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B videos, RGB in [-1, 1]) and B prompts: latents, text states, keyframes beside the lattice."""
        import torch

        from cinecanvas.models.latents import Prepared, latent_canvas
        from cinecanvas.models.prompts import remembered

        with torch.inference_mode():
            encoders = ("tokenizer", "text_encoder")
            told = remembered(self._parts, text, self._read, by=encoders, way="masked" if self._conditions else "")
            self._parts.drop("text_encoder")
            latent = latent_canvas(canvas, self.card, self._encode, device=self._parts.device)
            return Prepared.of(latent, told, self._keyframes(canvas))

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video track (B, C, T', H', W'), float32."""
        import torch

        from cinecanvas.models.latents import rolled, told

        x, s = z["video"], sigma["video"]
        turn = rolled(x, s) if cond.canvas.closed else 0
        x, s = x.roll(-turn, 2), s.roll(-turn, 2)
        b, _, *cells = x.shape
        level = s if bool((s != s[:, :, :1, :1, :1]).any()) else s[:, :, :1, :1, :1]
        tokens, times = x.flatten(2), told(self._ramp, level).view(b, -1).to(x.device)
        beside = cond.given.get("keyframes")
        if beside is not None:  # at no noise
            tokens = torch.cat([tokens, beside.flatten(2)], 2)
            times = times.expand(-1, x.flatten(2).shape[2])
            times = torch.cat([times, times.new_zeros(b, beside.flatten(2).shape[2])], 1)
        with torch.inference_mode():
            velocity = self._parts.network("transformer")(
                hidden_states=tokens.transpose(1, 2).to(self._parts.dtype),
                encoder_hidden_states=cond.given["encoder_hidden_states"].to(self._parts.dtype),
                timestep=times,
                encoder_attention_mask=cond.given["encoder_attention_mask"],
                video_coords=self._places(x, cond, turn=turn),
                return_dict=False,
            )[0].float()  # fmt: skip
            own = velocity[:, : x.flatten(2).shape[2]]
            x0 = x - s * own.transpose(1, 2).unflatten(2, cells)
        return {"video": x0.roll(turn, 2)}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (t, H, W, 3), a few cells-in-time after the other; the memory is what its layers hold.

        Its decoder looks ahead: frames at the end of what is there say how a film that goes on gets them whole.
        """
        import torch

        from cinecanvas.models.latents import frames_of
        from cinecanvas.models.ltx_decoder import Memory, decoded

        vae, past = self._parts.network("vae"), memory or Memory()
        time = None
        if vae.config.timestep_conditioning:
            time = torch.tensor([_WORN[0]], device=vae.device, dtype=vae.dtype)
        way = decoded(vae.decoder, self._worn(z["video"][:1], past.cells), time, past)
        while True:
            try:
                with torch.inference_mode():
                    rgb, resume = next(way)
                    frames = frames_of(rgb[0].float().clamp(-1, 1))
            except StopIteration as end:
                return end.value
            yield frames._replace(resume=resume)

    def _worn(self, latents: Tensor, first: int) -> Iterator[Tensor]:
        """Latents (1, C, T', H', W') from a film's cell `first` on as its decoder wants them, a few cells at a time."""

        from cinecanvas.models.ltx_decoder import AT_ONCE

        vae = self._parts.network("vae")
        for x in latents.split(AT_ONCE, 2):
            x = x.to(vae.device) * _row(vae.latents_std) / vae.config.scaling_factor + _row(vae.latents_mean)
            if vae.config.timestep_conditioning:
                x = (1 - _WORN[1]) * x + _WORN[1] * strewn(x.shape, first).to(x)
            first += x.shape[2]
            yield x.to(vae.dtype)

    def _keyframes(self, canvas: Canvas) -> dict[str, Tensor]:
        """Frames that are known but cannot be pinned: their codes (B, C, n, H', W') and where they stand (B, n).

        n codes of one cell-in-time each; places in frames of the window, the frame before a later window being 0.
        """
        import torch

        from cinecanvas.models.keyframes import apart

        track, stride = canvas.tracks["video"], self.card.strides[0]
        lent = min(track.start, 1)  # a later window has no cell of one frame, but counts as if one lay before it
        known = (track.keep >= 1).flatten(3).all(3)[0, 0].tolist()  # all videos have the same laid on them
        starts = range(1 - lent, len(known), stride)
        cells = (*(range(1) for _ in range(1 - lent)), *(range(at, at + stride) for at in starts))
        codes, places = [], []
        for frames in apart(known, cells, clip=1 + stride):
            codes.append(self._encode(track.x[:, :, frames.start : frames.stop].to(self._parts.device)))
            places += [lent + frames.start + max(0, cell * stride - stride + 1) for cell in range(codes[-1].shape[2])]
        if not codes:
            return {}
        at = torch.tensor([places], dtype=torch.float32, device=self._parts.device)
        return {"keyframes": torch.cat(codes, 2), "keyframes_at": at.expand(canvas.batch, -1)}

    def _places(self, x: Tensor, cond: Prepared, *, turn: int) -> Tensor:
        """Where tokens stand (B, 3, tokens): at which second, and at which pixel down and across."""
        import torch

        stride, down, across = self.card.strides
        track = cond.canvas.tracks["video"]
        b, _, moments, height, width = x.shape
        lent = min(track.start, 1)
        frames = ((torch.arange(moments, device=x.device) + lent) * stride - (stride - 1)).clamp(min=0).expand(b, -1)
        if "keyframes_at" in cond.given:
            at = cond.given["keyframes_at"]
            if cond.canvas.closed:
                at = (at - lent - turn * stride) % (moments * stride) + lent
            frames = torch.cat([frames, at], 1)
        if not self._conditions:
            frames = frames + (stride - 1) * (frames > 0)
        lattice = (
            (frames / track.grid.fps)[:, :, None, None],
            (torch.arange(height, device=x.device) * down)[None, None, :, None],
            (torch.arange(width, device=x.device) * across)[None, None, None],
        )
        shape = (b, frames.shape[1], height, width)
        return torch.stack([axis.float().expand(shape).flatten(1) for axis in lattice], 1)

    def _read(self, text: Sequence[str]) -> dict[str, Tensor]:
        """Text states (B, words, width) and which of them are words (B, words)."""
        words = self._parts.reader("tokenizer")(
            list(text),
            padding="max_length",
            max_length=_TOKENS.get(self._pipeline, 128),
            truncation=True,
            return_tensors="pt",
        ).to(self._parts.device)
        mask = words["attention_mask"].bool()
        # the pipelines before that of conditions let their encoder read the padding
        masked = {"attention_mask": mask} if self._conditions else {}
        states = self._parts.network("text_encoder")(words["input_ids"], **masked)[0]
        return {"encoder_hidden_states": states, "encoder_attention_mask": mask}

    def _encode(self, rgb: Tensor) -> Tensor:
        vae = self._parts.network("vae")
        code = vae.encode(rgb.to(vae.dtype)).latent_dist.mode().float()
        return (code - _row(vae.latents_mean)) * vae.config.scaling_factor / _row(vae.latents_std)


def strewn(shape: Sequence[int], first: int = 0) -> Tensor:
    """Noise (B, C, T', H', W') of the cells-in-time from `first` on, always the same for each."""
    import torch

    cells = (torch.Generator().manual_seed(first + cell) for cell in range(shape[2]))
    return torch.stack([torch.randn((*shape[:2], *shape[3:]), generator=cell) for cell in cells], 2)


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
    conditions = layout.get("model_index", {}).get("_class_name") == "LTXConditionPipeline"
    ramp = LinearQuadratic() if conditions else ramp_of(layout["scheduler"])  # as that pipeline tells its scheduler
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


_DISTILLED = Listed(at=(1.0, 0.9937, 0.9875, 0.9812, 0.975, 0.9094, 0.725, 0.4219))
_TASKS = {"text_to_video": EXACT, "text_to_image": EXACT} | all_by(
    ("exact", "noise per token"), "image_to_video", *CANVAS
)
_TASKS |= {"keyframes": ("exact", "noise per token, frames within a cell as tokens beside the others")}
_TASKS |= {"loop": ("approximate", "noise per token, the ring turned from step to step")}


def _card(name: str, title: str, repository: str, *, distilled: bool = False, **facts: Any) -> Card:
    recipe = Recipe(steps=30, guidance=3.0, guided_from=0.0, shift=1.0, solver="euler", ramp=LinearQuadratic())
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
