"""Wan 2.1 and 2.2 (Wan Team 2025): text and pictures to video; the 5B model knows the noise of every cell."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinecanvas.errors import BadWeights
from cinecanvas.model import Card, Family, Frames, Recipe
from cinecanvas.models.published import CANVAS, EXACT, REPLACED, Way, all_by, family, published
from cinecanvas.ramp import TRAINED, Line

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared

RAMP = Line(most=1 - 1e-6, least=0.001, whole=True)  # UniPC's, with which they are published


class Wan:
    """One class for all of them: what a checkpoint can be told follows from its configurations."""

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts
        index, network = parts.layout["model_index"], parts.config("transformer")
        self._per_token = bool(index.get("expand_timesteps"))
        self._boundary = index.get("boundary_ratio") if "transformer_2" in parts else None
        self._patch = tuple(network.get("patch_size", (1, 2, 2)))
        self._concat = network["in_channels"] > card.channels
        self._sees = network.get("image_dim") is not None
        self._both = network.get("pos_embed_seq_len") is not None  # trained on a first and a last picture

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B videos, RGB in [-1, 1]) and B prompts: latents, text states, and pictures as channels."""
        import torch

        from cinecanvas.models.latents import Prepared, begun, but_its_picture, its_own, latent_canvas
        from cinecanvas.models.wanparts import read

        with torch.inference_mode():
            told = read(self._parts, text)
            shown = {"pictures": self._seen(canvas)} if self._sees else {}
            self._parts.drop("text_encoder", "image_encoder")
            picture = self._concat and begun(canvas)
            rest = but_its_picture(canvas) if picture else canvas
            latent = latent_canvas(rest, self.card, self._encode, device=self._parts.device)
            if self._concat:
                shown["channels"] = self._channels(canvas, latent)
            if picture:
                latent = its_own(latent, shown["channels"][:, self.card.strides[0] :, :1])
            return Prepared.of(latent, told, shown)

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video track (B, C, T', H', W'), float32."""
        import torch

        from cinecanvas.models.latents import lifted, noisiest, rolled

        x, s = z["video"], sigma["video"]
        turn = rolled(x, s) if cond.canvas.closed else 0
        x, s = x.roll(-turn, 2), s.roll(-turn, 2)
        level = self._token_levels(s) if self._per_token else noisiest(s)
        with torch.inference_mode():
            x = lifted(x, s, level)
            x0 = x - level * self._velocity(x, level, cond, turn=turn)
        return {"video": x0.roll(turn, 2)}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (t, H, W, 3), a cell-in-time after the other; the memory is what its convolutions hold."""
        from cinecanvas.models.wanparts import decoded

        return decoded(self._parts.network("vae"), z["video"][:1], memory)

    def _velocity(self, x: Tensor, level: Tensor, cond: Prepared, *, turn: int) -> Tensor:
        """What the network answers (B, C, T', H', W'), float32, at levels that broadcast over x."""
        import torch

        from cinecanvas.models.latents import told

        network = self._expert(float(level.max()))
        given = dict(cond.given)
        rows = [x]
        if self._sees:
            given["encoder_hidden_states_image"] = given.pop("pictures").flatten(0, 1)
        if self._concat:
            rows.append(given.pop("channels").roll(-turn, 2))
        time = told(RAMP, level).to(x.device)
        if bool((level == level[:, :, :1, :1, :1]).all()):
            time = time[:, 0, 0, 0, 0]
        else:
            _, down, across = self._patch
            time = time.expand_as(x[:, :1])[:, 0, :, ::down, ::across].flatten(1)
        dtype = self._parts.dtype
        beside = {name: rows.to(dtype) for name, rows in given.items()}
        return network(torch.cat(rows, 1).to(dtype), time, **beside, return_dict=False)[0].float()

    def _token_levels(self, sigma: Tensor) -> Tensor:
        """The highest level within each token (B, 1, T', H', W'): a network knows no finer."""
        import torch

        t, down, across = self._patch
        pooled = torch.nn.functional.max_pool3d(sigma, (t, down, across))
        return pooled.repeat_interleave(down, 3).repeat_interleave(across, 4)

    def _expert(self, level: float) -> Any:
        """The network for a level: of two, one made for much noise and one for little."""
        if self._boundary is None:
            return self._parts.network("transformer")
        names = ("transformer", "transformer_2")
        wanted, other = names if RAMP.timestep(level) >= self._boundary * TRAINED else names[::-1]
        self._parts.drop(other)
        return self._parts.network(wanted)

    def _seen(self, canvas: Canvas) -> Tensor:
        """What the picture encoder says of the first frame, and of the last where both are asked (B, n, 257, C)."""
        import torch

        from cinecanvas.models.latents import neighbourly

        track = canvas.tracks["video"]
        ends = [
            (track.x[:, :, t][:, :, None], track.keep[:, :, t][:, :, None]) for t in ((0, -1) if self._both else (0,))
        ]
        frames = [neighbourly(x, keep, [0])[:, :, 0] for x, keep in ends]
        pictures = torch.stack(frames, 1).flatten(0, 1)  # video by video, its pictures in order
        reader, encoder = self._parts.reader("image_processor"), self._parts.network("image_encoder")
        pixels = [((p.movedim(0, -1) + 1) * 127.5).round().to(torch.uint8).numpy() for p in pictures.cpu()]
        seen = reader(images=pixels, return_tensors="pt")["pixel_values"]
        states = encoder(seen.to(encoder.device, encoder.dtype), output_hidden_states=True).hidden_states[-2]
        return states.unflatten(0, (-1, len(frames)))

    def _encode(self, rgb: Tensor) -> Tensor:
        from cinecanvas.models.wanparts import encoded

        return encoded(self._parts.network("vae"), rgb)

    def _channels(self, canvas: Canvas, latent: Canvas) -> Tensor:
        """What the network sees beside the noise: what is known of frames, 4 a cell, and the code of it on grey."""
        import torch

        from cinecanvas.canvas import frame_keep

        track = canvas.tracks["video"]
        known = (track.keep >= 1).float()
        shown = (track.x * known).to(self._parts.device)
        frame = frame_keep(known, latent.tracks["video"].grid).to(shown.device)
        lead = 0 if track.start else 1
        first = frame[:, :, :lead].repeat_interleave(self.card.strides[0], 2)
        cells = torch.cat([first, frame[:, :, lead:]], 2).unflatten(2, (-1, self.card.strides[0]))
        lent = shown[:, :, : 1 - lead]
        code = self._encode(torch.cat([lent, shown], 2))[:, :, 1 - lead :]
        return torch.cat([cells[:, 0].transpose(1, 2), code], 1)


def register() -> Family:
    """The published checkpoints, and whatever has their networks."""
    return family(CARDS.values(), Wan, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder whose transformer is Wan's, fitted to its own sizes."""
    network, vae, index = layout.get("transformer", {}), layout.get("vae", {}), layout["model_index"]
    if network.get("_class_name") != "WanTransformer3DModel":
        return None
    if vae.get("_class_name") != "AutoencoderKLWan":
        raise BadWeights("A Wan transformer stands beside another family's autoencoder", do="Add a whole checkpoint")
    channels, y = vae.get("z_dim", 16), vae.get("scale_factor_spatial", 8)
    shown = network.get("in_channels", 16) > channels
    if index.get("expand_timesteps"):
        name = "wan2.2-ti2v-5b"
    elif "transformer_2" in layout:
        name = "wan2.2-i2v-a14b" if shown else "wan2.2-t2v-a14b"
    elif network.get("pos_embed_seq_len"):
        name = "wan2.1-flf2v-14b-720p"
    else:
        name = "wan2.1-i2v-14b-480p" if shown else "wan2.1-t2v-1.3b"
    return CARDS[name].model_copy(
        update={
            "channels": channels,
            "strides": (vae.get("scale_factor_temporal", 4), y, y),
            "sides": y * network.get("patch_size", (1, 2, 2))[1],
        }
    )


_SIZES = {
    "480p": ((832, 480), (480, 832), (624, 624)),
    "720p": ((1280, 720), (720, 1280), (960, 960)),
    "704p": ((1280, 704), (704, 1280), (960, 960)),
}
_WORDS = {"text_to_video": EXACT, "text_to_image": EXACT}
_BY_TOKEN = all_by(("exact", "noise per token"), "image_to_video", *CANVAS) | {
    "loop": ("approximate", "noise per token, the ring turned from step to step")
}
_BY_REPLACEMENT = all_by(REPLACED, "image_to_video", *CANVAS)
_BY_CHANNELS = all_by(("approximate", "channels and latent replacement"), *CANVAS) | {
    "image_to_video": ("exact", "the picture as channels")
}
_BOTH_ENDS: dict[str, Way] = {"keyframes": ("exact", "first and last as channels, others by latent replacement")}


def _card(
    name: str,
    title: str,
    size: str,
    tasks: Mapping[str, Way],
    *,
    shift: float,
    guidance: float,
    below: tuple[float, float] | None = None,
    experts: float = 0.0,
    **facts: Any,
) -> Card:
    """One of the published; what is not said is as in most of them."""
    repository = f"Wan-AI/{facts.pop('repository')}-Diffusers"
    leaning = Recipe(steps=30, guidance=guidance, below=below, experts=experts, guided_from=0.0, shift=shift)
    recipe = leaning.model_copy(update={"solver": "unipc", "ramp": RAMP})
    most = {"channels": 16, "strides": (4, 8, 8), "sides": 16, "fps": 16.0, "seconds": 81 / 16}
    length = {"window": 21, "overlap": 5, "max_seconds": 60.0, "sizes": _SIZES[size]}
    return published(name, title, repository, tasks=tasks, recipe=recipe, **{**most, **length, **facts})


_FINER: dict[str, Any] = {"channels": 48, "strides": (4, 16, 16), "sides": 32, "fps": 24.0, "seconds": 121 / 24}
CARDS = {
    card.name: card
    for card in (
        _card(
            "wan2.1-t2v-1.3b",
            "Wan 2.1, 1.3B, from words",
            "480p",
            _WORDS | _BY_REPLACEMENT,
            shift=3.0,
            guidance=5.0,
            repository="Wan2.1-T2V-1.3B",
        ),
        _card(
            "wan2.1-t2v-14b",
            "Wan 2.1, 14B, from words",
            "720p",
            _WORDS | _BY_REPLACEMENT,
            shift=5.0,
            guidance=5.0,
            repository="Wan2.1-T2V-14B",
        ),
        _card(
            "wan2.1-i2v-14b-480p",
            "Wan 2.1, 14B, from a picture",
            "480p",
            _BY_CHANNELS,
            shift=3.0,
            guidance=5.0,
            repository="Wan2.1-I2V-14B-480P",
        ),
        _card(
            "wan2.1-i2v-14b-720p",
            "Wan 2.1, 14B, from a picture, 720p",
            "720p",
            _BY_CHANNELS,
            shift=5.0,
            guidance=5.0,
            repository="Wan2.1-I2V-14B-720P",
        ),
        _card(
            "wan2.1-flf2v-14b-720p",
            "Wan 2.1, 14B, from a first and a last picture",
            "720p",
            _BY_CHANNELS | _BOTH_ENDS,
            shift=16.0,
            guidance=5.5,
            repository="Wan2.1-FLF2V-14B-720P",
        ),
        _card(
            "wan2.2-t2v-a14b",
            "Wan 2.2, two experts of 14B, from words",
            "720p",
            _WORDS | _BY_REPLACEMENT,
            shift=3.0,
            guidance=4.0,
            below=(0.875, 3.0),
            experts=0.875,
            repository="Wan2.2-T2V-A14B",
        ),
        _card(
            "wan2.2-i2v-a14b",
            "Wan 2.2, two experts of 14B, from a picture",
            "720p",
            _BY_CHANNELS,
            shift=3.0,
            guidance=3.5,
            experts=0.9,
            repository="Wan2.2-I2V-A14B",
        ),
        _card(
            "wan2.2-ti2v-5b",
            "Wan 2.2, 5B, from words and pictures",
            "704p",
            _WORDS | _BY_TOKEN,
            shift=5.0,
            guidance=5.0,
            repository="Wan2.2-TI2V-5B",
            window=31,
            overlap=6,
            **_FINER,
        ),
    )
}
