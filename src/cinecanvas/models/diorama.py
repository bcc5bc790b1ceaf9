"""Our own family: linear-skip autoencoder, word table and diffusion transformer; it knows a miniature world."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from cinecanvas.errors import BadWeights
from cinecanvas.model import Card, Family, Frames

if TYPE_CHECKING:  # the Card is read on machines without torch
    import torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.autoencoder import Autoencoder, Memory, Partial
    from cinecanvas.models.dit import DiT, Words
    from cinecanvas.models.text import TextEncoder


SHIPPED = Path(str(files("cinecanvas.models") / "shipped" / "diorama"))


def register() -> Family:
    """The Card of the shipped weights, and how to load them."""
    return Family((read_card(SHIPPED),), lambda card, weights, placement: load(SHIPPED))


@dataclass(frozen=True)
class DioramaConditioning:
    """The latent canvas and the words as every block reads them."""

    canvas: Canvas
    words: Words
    partial: Partial  # cells of which only some pixels are known

    def videos(self, start: int, stop: int) -> DioramaConditioning:
        """The same of the videos [start, stop) alone."""
        canvas, words = self.canvas.videos(start, stop), self.words.videos(start, stop)
        return DioramaConditioning(canvas, words, self.partial.videos(start, stop))


class Diorama:
    """The family as a Model; the networks may be in training or in service, in float32 or bfloat16."""

    def __init__(self, card: Card, autoencoder: Autoencoder, text: TextEncoder, dit: DiT) -> None:
        self.card, self.autoencoder, self.text, self.dit = card, autoencoder, text, dit

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> DioramaConditioning:
        """Pixel canvas (B videos, RGB in [-1, 1]) and B prompts to latents.

        One unknown pixel makes its cell a hole, but what is known of it is joined to every guess of the network.
        """
        import torch

        canvas = canvas.repeat(len(text) // canvas.batch)
        track = canvas.tracks["video"]
        # a window in mid-film begins with a whole group: a first frame is lent to the code, and its cell taken away
        lent = min(track.start, 1)
        rgb, keep = (torch.cat([t[:, :, :lent], t], dim=2).to(self.device) for t in (track.x, track.keep))
        with torch.inference_mode():
            partial = self.autoencoder.partial(rgb, keep, self.dit.variance).after(lent)
            return DioramaConditioning(self._latents(canvas, rgb, keep, lent=lent), self.read(text), partial)

    def read(self, text: Sequence[str]) -> Words:
        """B sentences as the transformer reads them."""
        ids, pieces = self.text.tokens(text)
        return self.dit.read(*self.text(ids.to(self.device), pieces.to(self.device)))

    @property
    def device(self) -> torch.device:
        """Where the networks are; canvases are brought there, frames are brought back."""
        return self.dit.variance.device

    def denoise(self, z: Tensors, sigma: Tensors, cond: DioramaConditioning, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video track (B, C, T', H', W'), float32."""
        import torch

        start = cond.canvas.tracks["video"].start
        moments = z["video"].shape[2]
        # a ring is unrolled by half a turn on both sides, so that every cell has its true neighbours
        turn = range(-(moments // 2), moments + moments // 2) if cond.canvas.closed else range(moments)
        ring, level = (t["video"][:, :, [i % moments for i in turn]] for t in (z, sigma))
        with torch.inference_mode():
            x0 = self.dit(ring, level, cond.words, start=start)[:, :, -turn.start :][:, :, :moments]
            return {"video": cond.partial.join(x0)}

    def decode(self, z: Tensors, *, memory: Memory | None = None) -> Generator[Frames, None, Memory | None]:
        """RGB uint8 (t, H, W, 3), group by group: one frame at the beginning of a film, then four at a time."""
        import torch

        way = self.autoencoder.stream(z["video"][:1].to(self.device), memory)
        while True:
            with torch.inference_mode():  # not around a yield: it would hold for whoever asked too
                try:
                    rgb = next(way)
                except StopIteration as end:
                    return end.value
            yield Frames(to_uint8(rgb[0]).movedim(0, -1).contiguous().cpu().numpy())

    def _latents(self, canvas: Canvas, rgb: Tensor, keep: Tensor, *, lent: int) -> Canvas:
        from dataclasses import replace

        from cinecanvas.canvas import Track, latent_keep

        old = canvas.tracks["video"]
        grid = old.grid.model_copy(update={"strides": self.card.strides, "causal": self.card.causal})
        known = latent_keep(keep, grid)
        x = rgb.new_zeros(len(known), self.autoencoder.shape.channels, *known.shape[2:])
        if bool((known > 0).any()):
            x = self.autoencoder.encode(rgb)
        start = 1 + (old.start - 1) // self.card.strides[0] if old.start else 0
        return replace(canvas, tracks={"video": Track(x[:, :, lent:], known[:, :, lent:], grid, start)})


def to_uint8(rgb: Tensor) -> Tensor:
    """[-1, 1] to 0..255."""
    import torch

    return ((rgb.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def read_card(folder: Path) -> Card:
    """The Card beside the weights."""
    try:
        return Card.model_validate_json((folder / "card.json").read_bytes())
    except (OSError, ValueError) as error:
        raise BadWeights("The Card of diorama cannot be read", do="Install cinecanvas again") from error


def write_card(folder: Path, card: Card) -> None:
    """The Card beside the weights, in place of what was there."""
    (folder / "card.json").write_text(json.dumps(card.model_dump(mode="json"), indent=1) + "\n")


def load(folder: Path) -> Diorama:
    """The networks of a folder of shards, verified against its Card, in float32 codes and bfloat16 transformer."""
    import torch

    from cinecanvas.models import weights

    card = read_card(folder)
    paths = [folder / name for name in sorted(card.digests)]
    tensors, facts = weights.load(paths, digests=card.digests)
    model = build(card, facts)
    try:
        for name, part in parts(model).items():
            part.load_state_dict(
                {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")}
            )
    except RuntimeError as error:
        raise BadWeights(
            "The weights of diorama do not fit their own description", do="Install cinecanvas again"
        ) from error
    model.dit.to(torch.bfloat16)
    model.dit.variance = tensors["dit.variance"]
    model.text.to(torch.bfloat16)
    return model


def build(card: Card, facts: dict[str, object]) -> Diorama:
    """Fresh networks of the sizes that the facts give: `code`, `dit`, `vocabulary`."""
    from cinecanvas.models.autoencoder import Autoencoder, CodeShape
    from cinecanvas.models.dit import DiT, DiTShape
    from cinecanvas.models.text import TextEncoder

    code, shape = CodeShape.model_validate(facts["code"]), DiTShape.model_validate(facts["dit"])
    words = facts["vocabulary"]
    assert isinstance(words, list)
    return Diorama(card, Autoencoder(code), TextEncoder(words, shape.text_width), DiT(shape))


def save(folder: Path, model: Diorama, card: Card) -> Card:
    """Export shards and Card into the folder; returns the Card with digests, bytes and parameters filled in."""
    from cinecanvas.models import weights

    facts = {
        "code": model.autoencoder.shape.model_dump(),
        "dit": model.dit.shape.model_dump(),
        "vocabulary": list(model.text.vocabulary),
    }
    tensors = {f"{name}.{k}": v for name, part in parts(model).items() for k, v in part.state_dict().items()}
    paths = weights.save(folder, "diorama", tensors, facts=facts)
    full = card.model_copy(
        update={
            "digests": {path.name: weights.digest_of(path) for path in paths},
            "bytes": sum(path.stat().st_size for path in paths),
            "parameters": sum(p.numel() for part in parts(model).values() for p in part.parameters()),
        }
    )
    write_card(folder, full)
    return full


def parts(model: Diorama) -> dict[str, Autoencoder | TextEncoder | DiT]:
    """The networks by the prefix of their tensors."""
    return {"autoencoder": model.autoencoder, "text": model.text, "dit": model.dit}
