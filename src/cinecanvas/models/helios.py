"""Helios (Yuan et al. 2026): Wan grown to go on for ever, 33 frames at once after a history at three scales."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinecanvas.errors import BadWeights
from cinecanvas.model import Card, Family, Frames, Recipe
from cinecanvas.models.published import CANVAS, EXACT, REPLACED, all_by, family, published
from cinecanvas.ramp import Line

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors, Track
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared

CHUNK = 9  # cells-in-time that are made at once
HISTORY = (16, 2, 1)  # cells before them, the oldest first, of which a token holds 4x8x8, 2x4x4 and 1x2x2
NOISE = 0.123  # on what was laid and comes as history: the middle of 0.111 to 0.135, from which the authors draw
FIRST = 0.999  # where the authors' levels begin


class Helios:
    """The last chunk of a window is made; what is before it in the window, which is known, comes as history."""

    def __init__(self, card: Card, parts: Parts) -> None:
        self.card, self._parts = card, parts
        self._ramp = ramp_of(parts.config("scheduler"))
        self._span = 1 + (CHUNK - 1) * card.strides[0]  # frames of a chunk

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """Pixel canvas (B videos, RGB in [-1, 1]) and B prompts: latents, text states, and what begins the history.

        A first frame that is laid stands before all history; where its chunk is still to be made, the film before it
        is that frame standing still. If it is all that is laid there, its cell is the network's to make. A window in
        mid-film is told of the beginning by a reference: that frame as pixels ("content"), or the cell as it was made.
        """
        import torch

        from cinecanvas.models.latents import Prepared
        from cinecanvas.models.wanparts import read

        with torch.inference_mode():
            told = read(self._parts, text)
            self._parts.drop("text_encoder")
            shown = self._beginning(canvas)
            latent = self._latent(self._without_a_picture(canvas) if "before" in shown else canvas)
            track = latent.tracks["video"]
            laid = track.keep >= 1
            if bool(laid.any()):
                shown |= {"laid": laid, "noised": noised(track.x, start=track.start)}
            return Prepared.of(latent, told, shown)

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video track (B, C, T', H', W'), float32: of the last chunk; the cells before it as they are."""
        import torch

        from cinecanvas.models.latents import lifted, noisiest

        x, s = z["video"], sigma["video"]
        past = (x.shape[2] - 1) // CHUNK * CHUNK
        known = not bool((s[:, :, :past] > 0).any()) or self._parts.placement.rehearsed
        assert known, "a history that is still to be made: plan() cuts a film into windows that grow by a chunk"
        level = noisiest(s[:, :, past:])
        with torch.inference_mode():
            here = lifted(x[:, :, past:], s[:, :, past:], level)
            x0 = here - level * self._velocity(here, level, x[:, :, :past], cond)
            return {"video": torch.cat([x[:, :, :past], x0], 2)}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (t, H, W, 3), a cell-in-time after the other; every chunk begins anew, with one frame alone.

        The memory is how many cells there were, and what the convolutions hold of them.
        """
        from cinecanvas.models.wanparts import decoded

        vae, latents = self._parts.network("vae"), z["video"][:1]
        shown, cache = (0, None) if memory is None else memory
        while latents.shape[2]:
            place = shown % CHUNK
            part, latents = latents[:, :, : CHUNK - place], latents[:, :, CHUNK - place :]
            cache = yield from decoded(vae, part, cache if place else None)
            shown += part.shape[2]
        return shown, cache

    def _latent(self, canvas: Canvas) -> Canvas:
        """The canvas in latents, chunk by chunk: each is encoded as a film of its own."""
        from dataclasses import replace

        import torch

        from cinecanvas.models.latents import latent_canvas

        old = canvas.tracks["video"]
        grid = old.grid.model_copy(update={"strides": self.card.strides, "causal": True, "chunk": CHUNK})
        tracks: list[Track] = []
        for first in range(0, old.x.shape[2], grid.span):
            part = canvas.window("video", first, first + grid.span)
            alone = replace(part, tracks={"video": replace(part.tracks["video"], start=0)})
            tracks.append(latent_canvas(alone, self.card, self._encode, device=self._parts.device).tracks["video"])
        x, keep = (torch.cat(rows, 2) for rows in ([t.x for t in tracks], [t.keep for t in tracks]))
        return replace(
            canvas, tracks={"video": replace(tracks[0], x=x, keep=keep, grid=grid, start=grid.cell_of(old.start))}
        )

    def _beginning(self, canvas: Canvas) -> dict[str, Tensor]:
        """`prefix`: the cell before all history (B, C, 1, H', W'); `before`: the one before a film, if any was laid."""
        track = canvas.tracks["video"]
        if track.start:
            references = {reference.role: reference.x.to(self._parts.device) for reference in canvas.references}
            if "reference" in references:
                return {"prefix": references["reference"].float()}
            frame = references.get("content")
        else:
            frame = track.x[:, :, :1] if bool((track.keep[:, :, :1] >= 1).all()) else None
        if frame is None:
            return {}
        found = {"prefix": noised(self._encode(frame.to(self._parts.device)), start=-2)}
        if not track.start and not bool((track.keep[:, :, : self._span] >= 1).all()):
            still = self._encode(frame.to(self._parts.device).expand(-1, -1, self._span, -1, -1))
            found["before"] = noised(still[:, :, -1:], start=-1)
        return found

    def _without_a_picture(self, canvas: Canvas) -> Canvas:
        """The canvas without its first frame, if no other is laid in its chunk: it is shown as history alone."""
        track = canvas.tracks["video"]
        others = slice(1, self._span)
        if bool((track.x[:, :, others] != 0).any()) or bool((track.keep[:, :, others] > 0).any()):
            return canvas
        return canvas.place("video", track.x[:, :, :1] * 0, keep=0.0)

    def _velocity(self, x: Tensor, level: Tensor, past: Tensor, cond: Prepared) -> Tensor:
        """What the network answers (B, C, t, H', W'), float32, of cells x after the past, at a level of each video."""
        import torch

        from cinecanvas.models.latents import told

        given = dict(cond.given)
        if "laid" in given:
            laid, noise = (given.pop(name)[:, :, : past.shape[2]] for name in ("laid", "noised"))
            past = torch.where(laid, noise, past)
        before, prefix = given.pop("before", past[:, :, :0]), given.pop("prefix", past[:, :, :1])
        none = torch.zeros_like(x[:, :, :1])
        held = torch.cat([none.repeat(1, 1, sum(HISTORY), 1, 1), before, past], 2)[:, :, -sum(HISTORY) :]
        long, mid, last = held.split(HISTORY, 2)
        short = torch.cat([prefix if prefix.shape[2] else none, last], 2)
        places = torch.arange(1 + sum(HISTORY) + x.shape[2], device=x.device)[None]
        first, *rest = places.split((1, *HISTORY, x.shape[2]), 1)
        dtype, words = self._parts.dtype, given["encoder_hidden_states"]
        return self._parts.network("transformer")(
            x.to(dtype),
            told(self._ramp, level).to(x.device)[:, 0, 0, 0, 0],
            words.to(dtype),
            indices_hidden_states=rest[3],
            indices_latents_history_short=torch.cat([first, rest[2]], 1),
            indices_latents_history_mid=rest[1],
            indices_latents_history_long=rest[0],
            latents_history_short=short.to(dtype),
            latents_history_mid=mid.to(dtype),
            latents_history_long=long.to(dtype),
            return_dict=False,
        )[0].float()

    def _encode(self, rgb: Tensor) -> Tensor:
        from cinecanvas.models.wanparts import encoded

        return encoded(self._parts.network("vae"), rgb)


def noised(x: Tensor, *, start: int) -> Tensor:
    """Latents (B, C, T', H', W') with the noise of a history that was laid: of every cell-in-time always the same."""
    import torch

    cells = [
        torch.randn(x.shape[1], *x.shape[3:], generator=torch.Generator().manual_seed(start + place + 2))
        for place in range(x.shape[2])
    ]
    return (1 - NOISE) * x + NOISE * torch.stack(cells, 1).to(x)


def register() -> Family:
    """The published checkpoint, and whatever has its networks."""
    return family([CARD], Helios, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder whose transformer is Helios', fitted to its own sizes and its scheduler."""
    network, vae, index = layout.get("transformer", {}), layout.get("vae", {}), layout["model_index"]
    if network.get("_class_name") != "HeliosTransformer3DModel":
        return None
    if vae.get("_class_name") != "AutoencoderKLWan":
        raise BadWeights("A Helios transformer stands beside another autoencoder", do="Add a whole checkpoint")
    if index.get("_class_name") == "HeliosPyramidPipeline" or layout["scheduler"].get("stages", 3) != 1:
        raise BadWeights(
            "This Helios makes every chunk at three sizes, one after the other",
            "Those that make it at one size are known here, as Helios-Base does",
            f"Fetch {CARD.name}",
        )
    y, ramp = vae.get("scale_factor_spatial", 8), ramp_of(layout["scheduler"])
    return CARD.model_copy(
        update={
            "channels": vae.get("z_dim", 16),
            "strides": (vae.get("scale_factor_temporal", 4), y, y),
            "sides": y * network.get("patch_size", (1, 2, 2))[1],
            "recipes": {quality: one.model_copy(update={"ramp": ramp}) for quality, one in CARD.recipes.items()},
        }
    )


def ramp_of(scheduler: Mapping[str, Any]) -> Line:
    """The levels of a folder's scheduler; a shift, where it has one, grows with a chunk's tokens of 4 cells each."""
    if not scheduler.get("use_dynamic_shifting"):
        return Line(first=FIRST)
    few, many = scheduler.get("base_image_seq_len", 256), scheduler.get("max_image_seq_len", 4096)
    low, high = scheduler.get("base_shift", 0.5), scheduler.get("max_shift", 1.15)
    plain = scheduler.get("time_shift_type") == "linear"
    return Line(first=FIRST, growing=((4 * few, low), (4 * many, high)), plain=plain)


CARD = published(
    "helios-base",
    "Helios Base, 14B, long films from words and pictures",
    "BestWishYsh/Helios-Base",
    tasks={
        "text_to_video": EXACT,
        "image_to_video": ("exact", "the picture, or whole chunks of a film, as history; parts by latent replacement"),
        **all_by(REPLACED, *(task for task in CANVAS if task != "loop")),
    },
    recipe=Recipe(steps=50, guidance=5.0, guided_from=0.0, shift=1.0, solver="unipc", ramp=Line(first=FIRST)),
    channels=16,
    strides=(4, 8, 8),
    sides=16,
    sizes=((640, 384),),
    fps=24.0,
    seconds=132 / 24,
    max_seconds=60.0,
    chunk=CHUNK,
    window=4 * CHUNK,
    overlap=3 * CHUNK,  # whole chunks that hold all 19 cells of its history
    limits="Made in chunks of 33 frames, each of which knows only what comes before it.",
    notes="Its levels are those of its pipeline under a scheduler without a shift; a folder that is added says its "
    "own. Helios-Mid and Helios-Distilled make every chunk at three sizes, which is not done here.",
)
