"""CogVideoX (Yang et al. 2024): text and a picture to video; a diffusion on a zero-SNR table that predicts velocity."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Family, Frames, Recipe, Terms
from cinecanvas.models.published import CANVAS, EXACT, REPLACED, all_by, family, published
from cinecanvas.ramp import Table

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared

_OFS = 2.0  # what 1.5 from a picture is told beside the time; its authors always tell it this


class CogVideoX:
    """2B, 5B and 1.5, from words or from a picture whose code comes as channels.

    1.5 reads cells-in-time by pairs: a cell before the first, on a track of its own, makes their number even.
    """

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts
        self._network = parts.config("transformer")
        self._ramp = ramp_of(parts.config("scheduler"))
        self._shown = self._network.get("in_channels", 16) > card.channels
        self._pairs = self._network.get("patch_size_t") is not None

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B videos, RGB in [-1, 1]) and B prompts: latents, text states, the picture as channels."""
        from dataclasses import replace

        import torch

        from cinecanvas.canvas import Track
        from cinecanvas.models.latents import Prepared, begun, but_its_picture, its_own, latent_canvas
        from cinecanvas.models.prompts import remembered

        with torch.inference_mode():
            told, shown = remembered(self._parts, text, self._read, by=("tokenizer", "text_encoder")), {}
            self._parts.drop("text_encoder")
            picture = self._shown and begun(canvas)
            rest = but_its_picture(canvas) if picture else canvas
            latent = latent_canvas(rest, self.card, self._encode, device=self._parts.device, reach=self._reach)
            if self._shown:
                shown["channels"] = torch.zeros_like(latent.tracks["video"].x)
            if picture:
                code = self._encode(canvas.tracks["video"].x[:, :, :1].to(self._parts.device))
                shown["channels"] = torch.cat([code * self._wrong, shown["channels"][:, :, 1:]], 2)
                latent = its_own(latent, code)
            track = latent.tracks["video"]
            tracks = {"video": track}
            if self._pairs and track.x.shape[2] % 2:
                tracks["lead"] = Track(
                    torch.zeros_like(track.x[:, :, :1]), torch.zeros_like(track.keep[:, :, :1]), track.grid
                )
            return Prepared.of(replace(latent, tracks=tracks), told, shown)

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the tracks (B, C, T', H', W'), float32."""
        import torch

        from cinecanvas.models.latents import lifted, noisiest, preserved

        lead = z["lead"].shape[2] if "lead" in z else 0
        names = [name for name in ("lead", "video") if name in z]
        x, s = (torch.cat([tensors[name] for name in names], 2) for tensors in (z, sigma))
        level = noisiest(s)
        with torch.inference_mode():
            x, a, b = preserved(lifted(x, s, level), level)
            x0 = a * x - b * self._velocity(x, level, cond)
        parts = {"lead": x0[:, :, :lead], "video": x0[:, :, lead:]}
        return {name: parts[name] for name in z}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (t, H, W, 3), two cells-in-time after the other; the memory is what its convolutions hold."""
        import torch

        from cinecanvas.models.latents import frames_of

        vae = self._parts.network("vae")
        latents = z["video"][:1]
        cells = latents.shape[2]
        size = vae.num_latent_frames_batch_size
        starts = [0, *range(size + cells % size, cells, size)]
        for start, stop in zip(starts, [*starts[1:], cells], strict=True):
            with torch.inference_mode():
                x = latents[:, :, start:stop].to(vae.device, vae.dtype) / vae.config.scaling_factor
                x = x if vae.post_quant_conv is None else vae.post_quant_conv(x)
                rgb, memory = vae.decoder(x, conv_cache=memory)
                frames = frames_of(rgb[0].clamp(-1, 1))
            yield frames
        return memory

    def _velocity(self, x: Tensor, level: Tensor, cond: Prepared) -> Tensor:
        """What the network answers (B, C, T', H', W'), float32."""
        import torch

        from cinecanvas.models.latents import told

        dtype = self._parts.dtype
        rows = [x]
        if self._shown:
            shown = cond.given["channels"]
            more = x.shape[2] - shown.shape[2]  # 1.5 is shown the picture at the cell before the first
            rows.append(torch.cat([shown, shown.new_zeros(*shown.shape[:2], more, *shown.shape[3:])], 2))
        network = self._parts.network("transformer")
        beside: dict[str, Any] = {}
        if self._network.get("ofs_embed_dim") is not None:
            beside["ofs"] = x.new_full((1,), _OFS).to(dtype)
        return network(
            torch.cat(rows, 1).to(dtype).transpose(1, 2),
            cond.given["encoder_hidden_states"].to(dtype),
            told(self._ramp, level[:, 0, 0, 0, 0]).to(x.device, torch.int64),
            image_rotary_emb=self._positions(x),
            return_dict=False,
            **beside,
        )[0].transpose(1, 2).float()  # fmt: skip

    def _positions(self, x: Tensor) -> Any:
        """Rotary positions of a lattice like x: 1.0 stretches those it was trained on over it, 1.5 cuts them out."""
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        config = self._network
        if not config.get("use_rotary_positional_embeddings"):
            return None
        patch = config.get("patch_size", 2)
        cells, down, across = x.shape[2], x.shape[3] // patch, x.shape[4] // patch
        trained = config["sample_height"] // patch, config["sample_width"] // patch
        pairs = config.get("patch_size_t")
        if pairs is None:
            where: dict[str, Any] = {"crops_coords": _fitted((down, across), trained), "temporal_size": cells}
        else:
            where = {"crops_coords": None, "grid_type": "slice", "max_size": trained}
            where["temporal_size"] = -(-cells // pairs)
        size = config["attention_head_dim"]
        return get_3d_rotary_pos_embed(embed_dim=size, grid_size=(down, across), device=x.device, **where)

    def _read(self, text: Sequence[str]) -> dict[str, Tensor]:
        """Text states (B, 226, width), padding among them: the encoder is given no mask."""
        longest = self._network.get("max_text_seq_length", 226)
        words = self._parts.reader("tokenizer")(
            list(text), padding="max_length", max_length=longest, truncation=True, return_tensors="pt"
        )
        states = self._parts.network("text_encoder")(words["input_ids"].to(self._parts.device))[0]
        return {"encoder_hidden_states": states}

    def _encode(self, rgb: Tensor) -> Tensor:
        vae = self._parts.network("vae")
        return vae.encode(rgb.to(vae.dtype)).latent_dist.mode().float() * vae.config.scaling_factor

    def _reach(self, cells: Sequence[int], whole: int) -> range:
        """It looks back group by group of eight frames, the odd ones with the first: to the end of the last group."""
        stride, size = self.card.strides[0], self._parts.network("vae").num_sample_frames_batch_size
        frames, wanted = 1 + (whole - 1) * stride, 1 + max(cells) * stride
        odd = frames % size
        return range(min(whole, 1 + (odd + size * max(1, -(-(wanted - odd) // size)) - 1) // stride))

    @property
    def _wrong(self) -> float:
        """The authors of 1.5 divided a picture's code by the factor where they should have multiplied."""
        config = self._parts.network("vae").config
        return float(config.scaling_factor**-2) if config.get("invert_scale_latents") else 1.0


def ramp_of(scheduler: Mapping[str, Any]) -> Table:
    """The levels of a folder's scheduler."""
    return Table(
        first=scheduler.get("beta_start", 0.00085),
        last=scheduler.get("beta_end", 0.012),
        zero_snr=scheduler.get("rescale_betas_zero_snr", False),
        snr_shift=scheduler.get("snr_shift_scale", 3.0),
        spacing=scheduler.get("timestep_spacing", "leading"),
    )


def _fitted(grid: tuple[int, int], trained: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Corners of the largest box of the grid's shape in the middle of the lattice it was trained on."""
    down, across = grid
    tall, wide = trained
    size = (tall, round(tall / down * across)) if down / across > tall / wide else (round(wide / across * down), wide)
    top, left = round((tall - size[0]) / 2.0), round((wide - size[1]) / 2.0)
    return (top, left), (top + size[0], left + size[1])


def register() -> Family:
    """The published checkpoints, and whatever has their networks."""
    return family(CARDS.values(), CogVideoX, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder whose transformer is CogVideoX's, fitted to its own sizes."""
    network, vae = layout.get("transformer", {}), layout.get("vae", {})
    if network.get("_class_name") != "CogVideoXTransformer3DModel":
        return None
    shown = network.get("in_channels", 16) > vae.get("latent_channels", 16)
    if network.get("patch_size_t") is not None:
        name = "cogvideox1.5-5b-i2v" if shown else "cogvideox1.5-5b"
    elif shown:
        name = "cogvideox-5b-i2v"
    else:
        name = "cogvideox-5b" if network.get("use_rotary_positional_embeddings") else "cogvideox-2b"
    card = CARDS[name]
    stride = 2 ** (len(vae.get("block_out_channels", range(4))) - 1)
    own: dict[str, Any] = {"ramp": ramp_of(layout["scheduler"])}
    if layout["scheduler"].get("_class_name") == "CogVideoXDPMScheduler":
        own["solver"] = "sde"
    size: dict[str, Any] = {"sides": stride * network.get("patch_size", 2)}
    if network.get("use_learned_positional_embeddings"):  # it was trained on one size, and knows no other
        size = {"sides": 0, "sizes": ((network["sample_width"] * stride, network["sample_height"] * stride),)}
    return card.model_copy(
        update={
            **size,
            "channels": vae.get("latent_channels", 16),
            "strides": (int(vae.get("temporal_compression_ratio", 4)), stride, stride),
            "recipes": {quality: one.model_copy(update=own) for quality, one in card.recipes.items()},
        }
    )


_LICENCE = Terms(
    url="https://huggingface.co/THUDM/CogVideoX-5b/blob/main/LICENSE",
    accept=True,
    use="commercial use needs a registration with the authors, and is free up to a million visits a month",
)
_CANVAS = tuple(task for task in CANVAS if task != "loop")
_WORDS = {"text_to_video": EXACT, "text_to_image": EXACT} | all_by(REPLACED, "image_to_video", *_CANVAS)
_WORDS |= {"remix": ("exact", "noise up to the strength")}
_PICTURE = all_by(("approximate", "the first frame as channels, others by latent replacement"), *_CANVAS) | {
    "image_to_video": ("exact", "the picture as channels")
}


def _card(name: str, title: str, repository: str, *, snr_shift: float, **facts: Any) -> Card:
    ramp = Table(zero_snr=True, snr_shift=snr_shift, spacing="trailing")
    recipe = Recipe(steps=50, guidance=6.0, guided_from=0.0, shift=1.0, solver="dpm", ramp=ramp)
    first = {"sizes": ((720, 480),), "fps": 8.0, "seconds": 49 / 8, "max_seconds": 49 / 8, "groups": 2}
    second = {
        "sizes": ((1360, 768), (768, 1360)),
        "fps": 16.0,
        "seconds": 81 / 16,
        "max_seconds": 161 / 16,
        "groups": 4,
    }
    known = second if "1.5" in name else first
    return published(
        name,
        title,
        repository,
        recipe=recipe,
        steps={"draft": 20, "standard": 50, "best": 100},
        **{"channels": 16, "strides": (4, 8, 8), "sides": 16, **known, **facts},
    )


_TERMS = {"licence": "CogVideoX licence", "terms": _LICENCE}
CARDS = {
    card.name: card
    for card in (
        _card("cogvideox-2b", "CogVideoX, 2B, from words", "zai-org/CogVideoX-2b", snr_shift=3.0, tasks=_WORDS),
        _card(
            "cogvideox-5b", "CogVideoX, 5B, from words", "zai-org/CogVideoX-5b", snr_shift=1.0, tasks=_WORDS, **_TERMS
        ),
        _card(
            "cogvideox-5b-i2v",
            "CogVideoX, 5B, from a picture",
            "zai-org/CogVideoX-5b-I2V",
            snr_shift=1.0,
            tasks=_PICTURE,
            sides=0,
            **_TERMS,
        ),
        _card(
            "cogvideox1.5-5b",
            "CogVideoX 1.5, 5B, from words",
            "zai-org/CogVideoX1.5-5B",
            snr_shift=1.0,
            tasks=_WORDS,
            **_TERMS,
        ),
        _card(
            "cogvideox1.5-5b-i2v",
            "CogVideoX 1.5, 5B, from a picture",
            "zai-org/CogVideoX1.5-5B-I2V",
            snr_shift=1.0,
            tasks=_PICTURE,
            **_TERMS,
        ),
    )
}
