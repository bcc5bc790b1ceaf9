"""A pass is rehearsed before its weights are read: how much memory it will take, and which placement fits here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from cinecanvas.errors import Unsupported
from cinecanvas.runtime.machine import device_of, free, lean, used
from cinecanvas.runtime.placement import Placement, Precision, Residency

if TYPE_CHECKING:  # a refusal and a placement need no torch
    from cinecanvas.canvas import Canvas
    from cinecanvas.model import Model
    from cinecanvas.plan import Pass

Load = Callable[[Placement], "Model"]
_SPARE = 0.9  # of what is free: others want memory too
_TIGHT = 0.6  # above this share of it the allocator is told to give back what is freed
_KERNELS = 64 << 20  # bytes, measured: what torch's kernels for CPUs take once they are used, over eleven families
_TILES = (0, 512, 256)  # px
_NARROWER: tuple[Precision, ...] = ("bfloat16", "float8", "int8", "int4")


class Peaks(BaseModel):
    """The most bytes at one time in each of the three verbs, on the device."""

    model_config = ConfigDict(frozen=True)

    prepare: int
    denoise: int
    decode: int

    @property
    def most(self) -> int:
        """In all of them."""
        return max(self.prepare, self.denoise, self.decode)


def fit(step: Pass, load: Load, *, device: str = "auto", precision: str = "auto") -> tuple[Placement, Peaks]:
    """The fastest placement in which a pass fits what is free; without one it is refused, with remedies."""
    there = device_of(device)
    room = int(free(there) * _SPARE)
    asked: Precision = "bfloat16" if precision == "auto" else precision  # type: ignore[assignment]
    least: Peaks | None = None
    for placement in _placements(there, asked):
        peaks = rehearse(load(placement.model_copy(update={"rehearsed": True})), step, device=there)
        if peaks.most <= room:
            if there == "cpu" and peaks.most > _TIGHT * room:
                lean()
            return placement, peaks
        least = peaks if least is None or peaks.most < least.most else least
    assert least is not None
    raise _too_large(step, load, there, asked, least, room)


def leaning(model: Model, step: Pass) -> Model:
    """The model as a pass leans it towards its prompt."""
    from cinecanvas.guidance import guided

    return guided(
        model,
        step.guidance,
        negative=step.negative,
        interval=step.guided,
        rescale=step.rescale,
        rising=step.rising,
        below=step.below,
        sound=step.sound,
        hindered=step.hindered,
    )


def rehearse(model: Model, step: Pass, *, device: str = "cpu", laid: bool = False) -> Peaks:
    """What a pass of a rehearsed model takes on a device: bytes beside those that the process has already.

    laid: as if something lay on the canvas, though no clip does.
    """
    import torch

    from cinecanvas.runtime.memory import Meter

    before = used()
    asked = leaning(model, step)
    with Meter() as meter:
        with meter.phase() as preparing:
            prepared = asked.prepare(_stand_in(step, laid=laid), [step.prompt])
        tracks = prepared.canvas.tracks
        z = {name: track.x.float() for name, track in tracks.items()}
        sigma = {name: torch.ones_like(track.keep) for name, track in tracks.items()}
        with meter.phase() as denoising:
            x0 = asked.denoise(z, sigma, prepared)
        del prepared
        with meter.phase() as decoding:
            for _ in model.decode(x0):
                pass
    # what libraries took to rehearse they take to work, and then their kernels come
    own = used() - before + _KERNELS if device == "cpu" else 0
    pixels = 4 * 4 * len(step.frames) * step.grid.height * step.grid.width  # of the canvas, in float32
    return Peaks(prepare=preparing[0] + own + pixels, denoise=denoising[0] + own + pixels, decode=decoding[0] + own)


def _placements(device: str, precision: Precision) -> Iterator[Placement]:
    """From the fastest to the smallest."""
    residencies: tuple[Residency, ...] = ("staged",) if device == "cpu" else ("resident", "staged", "blocks")
    for residency in residencies:
        for tile in _TILES:
            yield Placement(device=device, precision=precision, residency=residency, tile=tile)


def _too_large(step: Pass, load: Load, device: str, precision: Precision, least: Peaks, room: int) -> Unsupported:
    """What would fit: a narrower precision, a smaller picture, a shorter film; each of them rehearsed."""
    remedies = []
    smallest = [*_placements(device, precision)][-1]

    def fits(other: Pass, placement: Placement) -> bool:
        return rehearse(load(placement.model_copy(update={"rehearsed": True})), other, device=device).most <= room

    for narrow in _NARROWER[_NARROWER.index(precision) + 1 :] if precision in _NARROWER else _NARROWER:
        if fits(step, smallest.model_copy(update={"precision": narrow})):
            remedies.append(f"--precision {narrow}")
            break
    for share in (0.75, 0.5, 0.25):
        smaller = _shrunk(step, share)
        if smaller is not None and fits(smaller, smallest):
            remedies.append(f"--size {smaller.grid.width}x{smaller.grid.height}")
            break
    grid = step.grid
    return Unsupported(
        f"{grid.width}x{grid.height} px and {len(step.frames)} frames of the model {step.model} need "
        f"{least.most / 1e9:.2g} GB",
        f"{room / 1e9:.2g} GB are free on {device}",
        f"{' or '.join(remedies)} fits" if remedies else "Choose a smaller model, or a machine with more memory",
    )


def _shrunk(step: Pass, share: float) -> Pass | None:
    """The pass with about that share of its pixels, in the same shape."""
    grid = step.grid
    _, y, x = grid.strides
    width, height = (
        max(2, round(side * math.sqrt(share) / (2 * stride))) * 2 * stride
        for side, stride in ((grid.width, x), (grid.height, y))
    )
    if width * height >= grid.width * grid.height:
        return None
    return step.model_copy(update={"grid": grid.model_copy(update={"width": width, "height": height})})


def heaviest(passes: Iterable[Pass]) -> Pass:
    """The pass that takes the most memory: of the most cells, and of the most frames that are laid on it."""
    return max(passes, key=lambda step: (step.cells, len(step.frames), max(_laid(step), default=-1)))


def _stand_in(step: Pass, *, laid: bool) -> Canvas:
    """A canvas of the pass's size that holds next to no memory, known where its clips lie; or everywhere, if laid.

    What lies on a part of the frames lies here on their upper half.
    """
    import torch

    from cinecanvas.canvas import Canvas, Track

    shape = (1, 3, len(step.frames), step.grid.height, step.grid.width)
    x = torch.zeros(1, 1, shape[2], 1, 1)
    keep = torch.full((1, 1, shape[2], shape[3], 1), float(laid))
    for frame, (level, whole) in _laid(step).items():
        x[:, :, frame] = 1
        keep[:, :, frame, : shape[3] if whole else shape[3] // 2] = level
    track = Track(x.expand(shape), keep.expand(1, 1, *shape[2:]), step.grid.pixels, step.frames.start)
    return Canvas({"video": track}, closed=step.closed)


def _laid(step: Pass) -> dict[int, tuple[float, bool]]:
    """How far each frame of the window is kept on which a clip lies, and whether as a whole."""
    found: dict[int, tuple[float, bool]] = {}
    for one in step.clips:
        whole = one.clip.box == (0.0, 0.0, 1.0, 1.0) and not one.clip.mask
        for frame in range(max(one.covers.start, step.frames.start), min(one.covers.stop, step.frames.stop)):
            at = frame - step.frames.start
            found[at] = max(found.get(at, (0.0, False)), (one.clip.keep, whole))
    return found
