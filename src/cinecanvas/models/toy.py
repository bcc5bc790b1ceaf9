"""The toy: videos and sounds are one Gaussian process, so every task has a known answer and the denoiser is exact.

Also the tutorial for a new family: a Card, three verbs and `register`, in one file.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cinecanvas.model import Card, Family, Frames, Recipe

if TYPE_CHECKING:  # Cards are read on machines without torch; the verbs import it
    from torch import Tensor

    from cinecanvas.canvas import Canvas, Tensors

COLOURS = {  # RGB in [-1, 1]
    "red": (0.6, -0.6, -0.6),
    "green": (-0.6, 0.6, -0.6),
    "blue": (-0.6, -0.6, 0.6),
    "white": (0.6, 0.6, 0.6),
    "black": (-0.6, -0.6, -0.6),
}
TASKS = (
    "text_to_video text_to_image image_to_video first_last keyframes extend extend_backward retake loop "
    "inpaint outpaint remix upscale soundtrack dub join"
)
CARD = Card(
    name="toy",
    title="Toy: a Gaussian process, exact and instant",
    licence="Apache-2.0",
    limits="Pictures of nothing: coloured noise that flows. For tests, tutorials and dry runs.",
    tracks=("video", "sound"),
    sizes=((16, 16), (24, 16), (16, 24)),
    max_seconds=30.0,
    tasks=dict.fromkeys(TASKS.split(), "exact"),
    orders=("full", "causal", "pyramid"),
    recipes={
        "draft": Recipe(steps=6, guidance=1.0, shift=2.0),
        "standard": Recipe(steps=16, guidance=1.0, shift=2.0),
        "best": Recipe(steps=32, guidance=1.0, shift=2.0),
    },
    words={"colour": tuple(COLOURS)},
)


def register() -> Family:
    """The entry point of a family: its Card, and how to load it."""
    return Family((CARD,), lambda card, weights, placement: Toy(card=card))


@dataclass(frozen=True)
class Prepared:
    """The canvas as it came, for its latents are pixels, and the colour of each video (B, 3)."""

    canvas: Canvas
    colour: Tensor

    def videos(self, start: int, stop: int) -> Prepared:
        """The same of the videos [start, stop) alone."""
        return Prepared(self.canvas.videos(start, stop), self.colour[start:stop])


@dataclass(frozen=True)
class Toy:
    """Every pixel, channel and sound sample is mean + std (sqrt(share) g(t) + sqrt(1 - share) own(t)).

    g and own are unit Gaussian processes in time (`kernel`); g is one for the whole video and its sound. The mean of a
    picture is the colour of its prompt, that of a sound is 0.
    """

    std: float = 0.25
    share: float = 0.5  # of the variance, in [0, 1)
    span: float = 0.5  # s over which a cell forgets itself
    card: Card = CARD

    def prepare(self, canvas: Canvas, text: Sequence[str]) -> Prepared:
        """The canvas itself, and the colours of the B prompts."""
        x = next(iter(canvas.tracks.values())).x
        return Prepared(
            canvas.repeat(len(text) // canvas.batch), x.new_tensor([colour(prompt) for prompt in text]).double()
        )

    def denoise(self, z: Tensors, sigma: Tensors, cond: Prepared, *, to: Tensors | None = None) -> Tensors:
        """E[x0 | z], float64 inside; exact at sigma 0 (a known cell), at 1 (nothing seen) and in between."""
        import torch

        tracks = cond.canvas.tracks
        times = torch.tensor([second for name in z for second in tracks[name].times()]).to(cond.colour)
        loop = max(t.x.shape[2] / t.grid.fps for t in tracks.values()) if cond.canvas.closed else 0.0
        k = self.std**2 * kernel(times, span=self.span, loop=loop)

        # A column is one cell of one channel over the moments of all tracks; those of other tracks are never seen.
        counts = [x[0, :, 0].numel() for x in z.values()]
        seen = times.new_zeros(cond.canvas.batch, sum(counts), len(times))
        noise, mean, places, row, moment = torch.ones_like(seen), torch.zeros_like(seen[..., :1]), {}, 0, 0
        for (name, x), count in zip(z.items(), counts, strict=True):
            place = places[name] = (slice(None), slice(row, row + count), slice(moment, moment + x.shape[2]))
            seen[place] = x.double().movedim(2, -1).flatten(1, 3)
            noise[place] = sigma[name].double().expand_as(x).movedim(2, -1).flatten(1, 3)
            if name == "video":
                mean[place[:2]] = cond.colour.repeat_interleave(count // x.shape[1], dim=1)[..., None]
            row, moment = row + count, moment + x.shape[2]
        x0 = _posterior(seen, noise, mean, own=(1 - self.share) * k, shared=self.share * k)
        return {k: x0[place].reshape(z[k].movedim(2, -1).shape).movedim(-1, 2).float() for k, place in places.items()}

    def decode(self, z: Tensors, *, memory: None = None) -> Generator[Frames, None, None]:
        """Frame by frame, each with its part of the sound: T x H samples of C channels. No frame needs another."""
        video = ((z["video"][0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 3, 0).cpu().numpy()
        sound = z["sound"][0, ..., 0].float().flatten(1).T.cpu().numpy() if "sound" in z else video[:0, 0, 0]
        for t in range(len(video)):
            part = slice(len(sound) * t // len(video), len(sound) * (t + 1) // len(video))
            yield Frames(video[t : t + 1], sound[part] if "sound" in z else None)


def colour(prompt: str) -> tuple[float, ...]:
    """The mean of the colours that the prompt names; other words give a pale tint of their own, no words grey."""
    words = re.findall("[a-z]+", prompt.lower())
    named = [COLOURS[word] for word in words if word in COLOURS]
    if named or not words:
        return tuple(sum(channel) / len(named) for channel in zip(*named, strict=True)) or (0.0, 0.0, 0.0)
    return tuple((byte - 128) / 512 for byte in hashlib.sha256(prompt.encode()).digest()[:3])


def kernel(times: Tensor, *, span: float, loop: float = 0.0) -> Tensor:
    """Covariance (n, n) of a unit process at times (n,) in s: Matern 3/2 (Rasmussen & Williams 2006, eq. 4.17).

    loop > 0 closes time into a circle of that many s: the sum over all windings, a valid kernel again.
    """
    windings = int(20 * span / loop) + 1 if loop else 0
    laps = loop * times.new_tensor(range(-windings, windings + 1))
    far = (times[:, None, None] - times[None, :, None] + laps).abs() * 3**0.5 / span
    k = ((1 + far) * (-far).exp()).sum(-1)
    return k / k[:1, :1]


def _posterior(z: Tensor, s: Tensor, mean: Tensor, *, own: Tensor, shared: Tensor) -> Tensor:
    """E[x0 | z = a x0 + s eps], a = 1 - s, of columns (B, N, n) around mean (B, N, 1), covariances own and shared.

    Given g, columns are independent: with C = a own a + s^2, each adds a C^-1 a to the precision of g, and
    a C^-1 (z - a mean) to what is known of it (Rasmussen & Williams 2006, section 2.2). Columns of like noise share C.
    """
    import torch

    noises, kind = s.flatten(0, 1).unique(dim=0, return_inverse=True)
    kind, a = kind.view(z.shape[:2]), 1 - noises
    weight = a[..., None] * (a[..., None] * own * a[:, None] + (noises**2).diag_embed()).inverse()  # a C^-1 (P, n, n)

    def weighed(columns: Tensor) -> Tensor:
        out = torch.empty_like(columns)
        for i, matrix in enumerate(weight):
            out[kind == i] = columns[kind == i] @ matrix.T
        return out

    count = torch.nn.functional.one_hot(kind, len(a)).sum(1).to(z)
    precision = torch.einsum("bp,pij->bij", count, weight * a[:, None])
    evidence = weighed(z - (1 - s) * mean)
    # K (1 + P K)^-1, not (K^-1 + P)^-1: K is singular where sound and video share a moment
    g = torch.linalg.solve(torch.eye(len(own)).to(z) + precision @ shared, evidence.sum(1)[..., None]).mT @ shared
    return mean + g + (evidence - weighed((1 - s) * g)) @ own
