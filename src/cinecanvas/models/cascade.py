"""Stable Cascade (Pernias et al. 2023): words to a very small code, which a second diffusion makes into a picture."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cinecanvas.errors import Unsupported
from cinecanvas.model import Card, Family, Frames, Recipe, Terms, Weights
from cinecanvas.models.published import EXACT, family
from cinecanvas.models.stills import still
from cinecanvas.ramp import Cosine

if TYPE_CHECKING:  # Cards are read on machines without torch
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors
    from cinecanvas.models.checkpoint import Parts
    from cinecanvas.models.latents import Prepared

GROUP = 3  # cells of stage C across that are one of ours, for only so many are a whole number of pixels
FINE = 32  # cells of stage B across them
STEPS = 10  # of stage B
RAMP = Cosine()


class Cascade:
    """Stage C is denoised in our fill; decoding is stage B, whose noise is the same for all pictures, and the VQGAN.

    Stage B is told the words too, so they go beside the picture: a track of one known cell.
    """

    def __init__(self, card: Card, parts: Parts) -> None:
        from cinecanvas.models.checkpoint import Parts

        self.card, self._parts = card, parts
        together = "prior_prior" in parts
        inside, beside = parts.folder / "prior", parts.folder.with_name(f"{parts.folder.name}.prior")
        apart = inside if inside.is_dir() else beside
        self._prior = parts if together else Parts.of(Weights(apart), parts.placement)
        self._prefix = "prior_" if together else ""

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """A canvas of B pictures on which nothing is known, and B prompts or a multiple: text states."""
        from dataclasses import replace

        import torch

        from cinecanvas.canvas import Track
        from cinecanvas.models.latents import Prepared, latent_canvas
        from cinecanvas.models.prompts import remembered

        with torch.inference_mode():
            readers = (f"{self._prefix}tokenizer", f"{self._prefix}text_encoder")
            told = remembered(self._prior, text, self._read, by=readers)
            self._prior.drop(f"{self._prefix}text_encoder")
            latent = latent_canvas(canvas, self.card, _refused, device=self._parts.device)
        word = told["clip_text_pooled"][: canvas.batch, 0, :, None, None, None].float()
        words = Track(word, torch.ones_like(word[:, :1]), latent.tracks["video"].grid)
        latent = replace(latent, tracks={**latent.tracks, "words": words})
        width = self._prior.config(f"{self._prefix}prior")["clip_image_in_channels"]
        told["clip_img"] = word.new_zeros(len(text), 1, width)
        return Prepared.of(latent, told, {})

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """x0 of the video track (B, 9 C, 1, H', W'), float32; the words are as they are."""
        import torch

        from cinecanvas.models.latents import lifted, noisiest, preserved, told

        level = noisiest(sigma["video"]).clamp(max=_NOISIEST)  # it knows of no picture that is all noise
        x, a, b = preserved(lifted(z["video"], sigma["video"], level), level)
        dtype = self._parts.dtype
        with torch.inference_mode():
            noise = self._prior.network(f"{self._prefix}prior")(
                sample=_spread(x[:, :, 0]).to(dtype),
                timestep_ratio=told(RAMP, level[:, 0, 0, 0, 0]).to(x.device, dtype),
                return_dict=False,
                **{name: rows.to(dtype) for name, rows in cond.given.items()},
            )[0]
            return {**z, "video": (x - b * _gathered(noise)[:, :, None].float()) / a}

    def decode(self, z: Tensors, *, memory: Any = None) -> Generator[Frames, None, Any]:
        """RGB uint8 (1, H, W, 3); there is nothing to remember."""
        import torch

        from cinecanvas.models.latents import frames_of

        self._prior.drop(f"{self._prefix}prior")
        for cells in z["video"][:1].unbind(2):
            with torch.inference_mode():
                fine = self._refined(_spread(cells), z["words"][:1, :, 0, 0, 0])
                self._parts.drop("decoder")
                vqgan = self._parts.network("vqgan")
                rgb = vqgan.decode(vqgan.config.scale_factor * fine.to(vqgan.dtype)).sample
                frames = frames_of(rgb[0, :, None].clamp(0, 1) * 2 - 1)
            yield frames

    def _refined(self, cells: Tensor, word: Tensor) -> Tensor:
        """Stage B: cells of stage C (1, C, h, w) and the words (1, width) to the VQGAN's code, by ancestral steps."""
        import torch

        network, dtype = self._parts.network("decoder"), self._parts.dtype
        source = torch.Generator().manual_seed(0)
        height, width = (side // GROUP * FINE for side in cells.shape[2:])
        shape = (1, network.config.in_channels, height, width)
        x = torch.randn(shape, generator=source).to(cells.device)
        beside = {"clip_text_pooled": word[:, None].to(dtype), "effnet": cells.to(dtype)}
        for step in range(STEPS):
            time = 1 - step / STEPS
            told = x.new_full((1,), time).to(dtype)
            noise = network(sample=x.to(dtype), timestep_ratio=told, return_dict=False, **beside)[0].float()
            here, there = RAMP.share(time), RAMP.share(time - 1 / STEPS)
            kept = here / there
            mean = (x - (1 - kept) / (1 - here) ** 0.5 * noise) / kept**0.5
            spread = ((1 - kept) * (1 - there) / (1 - here)) ** 0.5 if step < STEPS - 1 else 0.0
            x = mean + spread * torch.randn(shape, generator=source).to(x)
        return x

    def _read(self, text: Sequence[str]) -> dict[str, Tensor]:
        """States (B, 77, width) of the last layer, and one vector for each prompt (B, 1, width)."""
        reader = self._prior.reader(f"{self._prefix}tokenizer")
        encoder = self._prior.network(f"{self._prefix}text_encoder")
        words = reader(
            list(text), padding="max_length", max_length=reader.model_max_length, truncation=True, return_tensors="pt"
        ).to(self._parts.device)
        said = encoder(words.input_ids, attention_mask=words.attention_mask, output_hidden_states=True)
        return {"clip_text": said.hidden_states[-1], "clip_text_pooled": said.text_embeds[:, None]}


_NOISIEST = RAMP.levels(1, shift=1.0, cells=0)[0]


def _spread(cells: Tensor) -> Tensor:
    """Cells of ours (B, 9 C, h, w) as those of stage C (B, C, 3 h, 3 w)."""
    import torch

    return torch.nn.functional.pixel_shuffle(cells, GROUP)


def _gathered(cells: Tensor) -> Tensor:
    """And back."""
    import torch

    return torch.nn.functional.pixel_unshuffle(cells, GROUP)


def _refused(rgb: Tensor) -> Tensor:
    raise Unsupported(
        "A picture was laid on the canvas of Stable Cascade",
        "What would encode it is not among its parts",
        "Choose another model, such as sdxl or sd3.5-large",
    )


def register() -> Family:
    """The published checkpoint, and whatever has its networks."""
    return family((CARD,), Cascade, recognise)


def recognise(layout: Mapping[str, Any]) -> Card | None:
    """The Card of a folder that has stage B and the VQGAN; stage C is in it too, or in its folder `prior`."""
    decoder, vqgan = layout.get("decoder", {}), layout.get("vqgan", {})
    if (decoder.get("_class_name"), vqgan.get("_class_name")) != ("StableCascadeUNet", "PaellaVQModel"):
        return None
    side = FINE * vqgan.get("up_down_scale_factor", 2) * 2 ** (vqgan.get("levels", 2) - 1)
    channels = decoder.get("effnet_in_channels") or 16
    return CARD.model_copy(update={"channels": channels * GROUP**2, "strides": (1, side, side), "sides": side})


CARD = still(
    "stable-cascade",
    "Stable Cascade",
    "stabilityai/stable-cascade",
    beside={"prior": "stabilityai/stable-cascade-prior"},
    tasks={"text_to_image": EXACT},
    recipe=Recipe(steps=20, guidance=4.0, guided_from=0.0, shift=1.0, solver="euler", ramp=RAMP),
    steps={"draft": 12, "standard": 20, "best": 40},
    licence="Stability AI non-commercial research community licence",
    terms=Terms(
        url="https://huggingface.co/stabilityai/stable-cascade/blob/main/LICENSE",
        accept=True,
        use="not for commercial use",
    ),
    limits="pictures from words only: what would encode a picture is not among its parts",
    channels=16 * GROUP**2,
    strides=(1, 128, 128),
    sides=128,
    sizes=((1024, 1024), (1152, 896), (896, 1152), (1280, 768), (768, 1280)),
)
