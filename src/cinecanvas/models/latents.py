"""What all public families do alike with pixels, cells and noise: the canvas in latents, and networks of one level."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
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
# Which cells-in-time go through the code so that those named come out as of all: a stretch; the second is how many.
Reach = Callable[[Sequence[int], int], Sequence[int]]


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


def latent_canvas(canvas: Canvas, card: Card, encode: Encode, *, device: str, reach: Reach | None = None) -> Canvas:
    """A pixel canvas in the cells of a family; a cell is known if all its pixels are.

    Only as much is encoded as decides the cells on which something is laid; of a code that looks back, or at single
    frames, that follows from the Card, of others `reach` says it. What is unknown there is painted with its nearest
    neighbours, for an autoencoder sees beyond a cell.
    A window in mid-film begins with a whole group: a first frame is lent to the code, and its cell taken away.
    """
    old, stride = canvas.tracks["video"], card.strides[0]
    lent = min(old.start, 1) if card.causal else 0
    grid = old.grid.model_copy(update={"strides": card.strides, "causal": card.causal})
    known = latent_keep(torch.cat([old.keep[:, :, :lent], old.keep], 2) if lent else old.keep, grid).to(device)
    shape, whole = (len(known), card.channels, *known.shape[2:]), known.shape[2]
    laid = sorted(
        {-(-(frame + lent) // stride) if card.causal else frame // stride for frame in _laid(old.x, old.keep)}
    )
    cells = list((reach or (looking_back if card.causal else each_alone))(laid, whole)) if laid else []
    x = known.new_zeros(shape)
    if cells:
        frames = _frames(cells, stride, causal=card.causal)
        rgb = neighbourly(old.x, old.keep, [max(0, frame - lent) for frame in frames])
        code = encode(rgb.to(device)).float()
        place = {cell: at for at, cell in enumerate(cells)}
        x = torch.cat([code, torch.zeros_like(code[:, :, :1])], 2)
        x = x[:, :, [place.get(cell, len(cells)) for cell in range(whole)]]
    start = (1 + (old.start - 1) // stride if card.causal else old.start // stride) if old.start else 0
    return replace(canvas, tracks={"video": Track(x[:, :, lent:], known[:, :, lent:], grid, start)})


def looking_back(cells: Sequence[int], whole: int) -> range:
    """Of a code that looks back only and cell by cell: all to the last, and nothing after it."""
    return range(max(cells) + 1)


def each_alone(cells: Sequence[int], whole: int) -> Sequence[int]:
    """Of a code of single pictures: those on which something is laid."""
    return cells


def _frames(cells: Sequence[int], stride: int, *, causal: bool) -> list[int]:
    """The frames of some cells; of the first of a causal code its last one alone."""
    if not causal:
        return [frame for cell in cells for frame in range(cell * stride, (cell + 1) * stride)]
    return list(range(cells[0] * stride, cells[-1] * stride + 1))


def begun(canvas: Canvas) -> bool:
    """Whether it says how a film begins: its first frame is there, and is known as a whole.

    Only such a frame is shown to a network that was trained to make the film of a picture, and is then its own to
    make. What is known in part, or softly, is neither: it stays where it is laid, by its keep.
    """
    track = canvas.tracks["video"]
    return track.start == 0 and bool((track.keep[:, :, 0] >= 1).all())


def but_its_picture(canvas: Canvas) -> Canvas:
    """A canvas that is begun without its first frame, whose code is had elsewhere; as it is, if more is laid on it."""
    track = canvas.tracks["video"]
    if _laid(track.x[:, :, 1:], track.keep[:, :, 1:]):
        return canvas
    x, keep = (tensor.new_zeros(()).expand_as(tensor) for tensor in (track.x, track.keep))
    return replace(canvas, tracks={**canvas.tracks, "video": replace(track, x=x, keep=keep)})


def its_own(latent: Canvas, picture: Tensor) -> Canvas:
    """A latent canvas whose first cell, of that code (B, C, 1, H', W'), the network makes itself: it is shown it."""
    track = latent.tracks["video"]
    x, keep = (
        torch.cat([first, rest[:, :, 1:]], 2)
        for first, rest in ((picture, track.x), (torch.zeros_like(track.keep[:, :, :1]), track.keep))
    )
    return replace(latent, tracks={**latent.tracks, "video": replace(track, x=x, keep=keep)})


def sound_track(video: Track, code: SoundCode, *, device: str) -> Track:
    """The sound of the moments of a track of pixels (B, C, T, H, W), all of it to be made."""
    start, stop = (code.before(n, video.grid.fps) for n in (video.start, video.start + video.x.shape[2]))
    t, y = code.strides
    grid = Grid(frames=1 + (stop - 1) * t, height=code.bins, width=1, fps=code.moments, strides=(t, y, 1))
    keep = torch.zeros(len(video.x), 1, stop - start, *grid.cells[1:], device=device)
    return Track(keep.repeat(1, code.channels, 1, 1, 1), keep, grid, start)


def neighbourly(rgb: Tensor, keep: Tensor, frames: Sequence[int]) -> Tensor:
    """Those frames of pixels (B, 3, T, H, W), where nothing is laid as the nearest that is: across, then in time."""
    laid = _laid(rgb, keep)
    if not laid:
        return rgb[:, :, list(frames)]
    nearest = [min(laid, key=lambda frame: abs(frame - t)) for t in frames]
    full = {t: _spread(rgb[:, :, t], laid[t]) for t in set(nearest)}
    return torch.stack([full[t] for t in nearest], 2)


def _laid(rgb: Tensor, keep: Tensor) -> dict[int, Tensor]:
    """Where something is laid (H, W), of the frames on which anything is.

    All videos have the same laid on them: what lies on the first says where.
    """
    found = ((keep[0, 0, t] > 0) | (rgb[0, :, t] != 0).any(0) for t in range(rgb.shape[2]))  # no byte is 0 in [-1, 1]
    return {t: place for t, place in enumerate(found) if bool(place.any())}


def _spread(frame: Tensor, laid: Tensor) -> Tensor:
    """A frame (B, 3, H, W) with its outermost laid pixels repeated to its edges."""
    rows, columns = (laid.any(axis).nonzero().flatten() for axis in (1, 0))
    down = torch.arange(laid.shape[0], device=frame.device).clamp(int(rows[0]), int(rows[-1]))
    across = torch.arange(laid.shape[1], device=frame.device).clamp(int(columns[0]), int(columns[-1]))
    return frame[:, :, down][..., across]


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
