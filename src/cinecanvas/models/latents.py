"""What all public families do alike with pixels, cells and noise: the canvas in latents, and networks of one level."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from cinecanvas.canvas import Canvas, Track, latent_keep
from cinecanvas.grid import Grid
from cinecanvas.model import Card, Frames, SoundCode
from cinecanvas.ramp import Ramp

SHARED = 4  # cells-in-time that two parts of a film share when they are decoded apart
Encode = Callable[[Tensor], Tensor]  # pixels (B, 3, T, H, W) in [-1, 1] to latents (B, C, T', H', W') of unit variance


@dataclass(frozen=True)
class Prepared:
    """The latent canvas, and what the network is given beside it: tensors of B rows, by the names of its arguments."""

    canvas: Canvas
    given: Mapping[str, Tensor]

    @classmethod
    def of(cls, canvas: Canvas, told: Mapping[str, Tensor], shown: Mapping[str, Tensor]) -> Prepared:
        """Of a canvas of B videos, what is told of k times B prompts, and what is shown of the B videos (k B rows)."""
        times = max(len(next(iter(told.values()))) // canvas.batch, 1)
        laid = {name: torch.cat([rows] * times) for name, rows in shown.items()}
        return cls(canvas.repeat(times), {**told, **laid})

    def videos(self, start: int, stop: int) -> Prepared:
        """The same of the videos [start, stop) alone."""
        return Prepared(self.canvas.videos(start, stop), {name: rows[start:stop] for name, rows in self.given.items()})


def latent_canvas(canvas: Canvas, card: Card, encode: Encode, *, device: str) -> Canvas:
    """A pixel canvas in the cells of a family; a cell is known if all its pixels are.

    What is unknown is painted with its nearest neighbours before it is encoded, for an autoencoder sees beyond a cell.
    A window in mid-film begins with a whole group: a first frame is lent to the code, and its cell taken away.
    """
    old = canvas.tracks["video"]
    lent = min(old.start, 1) if card.causal else 0
    rgb, keep = (torch.cat([t[:, :, :lent], t], dim=2).to(device) for t in (old.x, old.keep))
    grid = old.grid.model_copy(update={"strides": card.strides, "causal": card.causal})
    known = latent_keep(keep, grid)
    x = known.new_zeros(len(known), card.channels, *known.shape[2:])
    if bool((known > 0).any()) or bool((rgb != 0).any()):
        x = encode(neighbourly(rgb, keep)).float()
    stride = card.strides[0]
    start = (1 + (old.start - 1) // stride if card.causal else old.start // stride) if old.start else 0
    return replace(canvas, tracks={"video": Track(x[:, :, lent:], known[:, :, lent:], grid, start)})


def sound_track(video: Track, code: SoundCode, *, device: str) -> Track:
    """The sound of the moments of a track of pixels (B, C, T, H, W), all of it to be made."""
    start, stop = (code.before(n, video.grid.fps) for n in (video.start, video.start + video.x.shape[2]))
    t, y = code.strides
    grid = Grid(frames=1 + (stop - 1) * t, height=code.bins, width=1, fps=code.moments, strides=(t, y, 1))
    keep = torch.zeros(len(video.x), 1, stop - start, *grid.cells[1:], device=device)
    return Track(keep.repeat(1, code.channels, 1, 1, 1), keep, grid, start)


def neighbourly(rgb: Tensor, keep: Tensor) -> Tensor:
    """Pixels (B, 3, T, H, W) where nothing is laid as the nearest that is: across the frame, then in time.

    All videos have the same laid on them: what lies on the first says where.
    """
    laid = (keep[0, 0] > 0) | (rgb[0] != 0).any(0)  # (T, H, W); no byte is 0 in [-1, 1]
    frames = [t for t in range(len(laid)) if bool(laid[t].any())]
    if bool(laid.all()) or not frames:
        return rgb
    full = rgb.clone()
    for t in frames:
        rows, columns = (laid[t].any(axis).nonzero().flatten() for axis in (1, 0))
        down = torch.arange(laid.shape[1], device=rgb.device).clamp(int(rows[0]), int(rows[-1]))
        across = torch.arange(laid.shape[2], device=rgb.device).clamp(int(columns[0]), int(columns[-1]))
        full[:, :, t] = rgb[:, :, t][:, :, down][..., across]
    nearest = [min(frames, key=lambda frame: abs(frame - t)) for t in range(len(laid))]
    return full[:, :, nearest]


def noisiest(sigma: Tensor) -> Tensor:
    """The highest level of each video (B, 1, 1, 1, 1) of sigma (B, 1, T, H, W)."""
    return sigma.amax(dim=(1, 2, 3, 4), keepdim=True)


def lifted(z: Tensor, sigma: Tensor, level: Tensor) -> Tensor:
    """Cells at `sigma` brought up to `level` (both broadcast over z), for networks that know one level at a time.

    z' = k z + sqrt(level^2 - (k sigma)^2) eps with k = (1 - level) / (1 - sigma) is distributed as the flow at `level`
    (RePaint's way back, Lugmayr et al. 2022, on straight lines); eps is always the same: a known cell moves straight.
    """
    below = sigma < level
    if not bool(below.any()):
        return z
    eps = torch.randn(z.shape[1:], generator=torch.Generator().manual_seed(0)).to(z)
    k = (1 - level) / (1 - sigma.where(below, 0.0))
    return torch.where(below, k * z + (level**2 - (k * sigma) ** 2).clamp(min=0).sqrt() * eps, z)


def told(ramp: Ramp, level: Tensor) -> Tensor:
    """Which number a network is told at each level, like level; there are few levels, however many cells."""
    levels, which = level.cpu().unique(return_inverse=True)
    return torch.tensor([float(ramp.timestep(float(one))) for one in levels])[which].to(level.device)


def rolled(z: Tensor, sigma: Tensor) -> int:
    """By how many cells a ring is turned at this level, so that its seam is never long in one place.

    After the latent shift of Mobius (Bi et al. 2025); the level stands for the step.
    """
    return int(float(sigma.max()) * 9973) % z.shape[2]


def preserved(z: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x, a, b): z on the straight line as x = a x0 + b eps with a^2 + b^2 = 1, for diffusions of even variance."""
    size = ((1 - level) ** 2 + level**2).sqrt()
    return z / size, (1 - level) / size, level / size


def in_parts(
    latents: Tensor, decoded: Callable[[Tensor], Tensor], *, stride: int, longest: int, memory: Tensor | None
) -> Generator[Frames, None, Tensor]:
    """The frames of latents (1, C, T', H', W') of a causal code whose decoder holds no memory.

    Whole, if they are at most `longest` cells, else in parts that share some cells, and fade from one to the other.

    `decoded` gives pixels (3, t, H, W) in [-1, 1] of a part, which begins with one frame: the last of its first cell.
    The memory is the last cells of what was decoded before; frames that were given then are not given again.
    """
    skip, start, tail = 0, 0, None
    if memory is not None:
        latents, skip = torch.cat([memory, latents], 2), 1 + stride * (memory.shape[2] - 1)
    stop = 0
    while stop < latents.shape[2]:
        stop = min(start + longest, latents.shape[2])
        with torch.inference_mode():
            rgb = decoded(latents[:, :, start:stop])
            if tail is not None:
                share = torch.linspace(0, 1, tail.shape[1] + 2, device=rgb.device)[1:-1].view(1, -1, 1, 1)
                rgb[:, : tail.shape[1]] = tail * (1 - share) + rgb[:, : tail.shape[1]] * share
            kept = 0 if stop == latents.shape[2] else 1 + stride * (SHARED - 1)
            tail = rgb[:, rgb.shape[1] - kept :] if kept else None
            frames = frames_of(rgb[:, skip : rgb.shape[1] - kept])
        yield frames
        start, skip = stop - SHARED, 0
    return latents[:, :, -SHARED:]


def frames_of(rgb: Tensor) -> Frames:
    """Pixels (3, t, H, W) in [-1, 1] as what decode yields."""
    pixels = ((rgb.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    if isinstance(pixels, FakeTensor):  # a rehearsal has shapes only
        return Frames(np.broadcast_to(np.uint8(0), (*rgb.shape[1:], 3)))
    return Frames(np.ascontiguousarray(pixels.movedim(0, -1).cpu().numpy()))


def samples_of(wave: Tensor) -> np.ndarray[Any, Any]:
    """Sound (channels, s) in [-1, 1] as what decode yields: float32 (s, channels)."""
    if isinstance(wave, FakeTensor):  # a rehearsal has shapes only
        return np.broadcast_to(np.float32(0), wave.T.shape)
    return np.ascontiguousarray(wave.float().clamp(-1, 1).T.cpu().numpy())
