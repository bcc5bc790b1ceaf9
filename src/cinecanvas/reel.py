"""A film between its latents and its file: decoded as far as all that comes before is there, cut and retimed."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cinecanvas.canvas import Tensors
from cinecanvas.grid import Grid
from cinecanvas.media.audio import Voice
from cinecanvas.media.video import Film
from cinecanvas.model import Card, Frames, Model

_EARLY = 6  # cells of sound that are given before their frames: who mixes them reads ahead


@dataclass(frozen=True)
class Cut:
    """Frames at `source` (1/s) to `frames` at `fps`: the middle `crop` (width, height) px, without the first `lead`."""

    source: float
    fps: float
    frames: int
    crop: tuple[int, int]
    lead: int = 0


class Reel:
    """Takes latents in any order, and puts frames into a film in time order; `latents` are those it has, by track."""

    def __init__(
        self,
        model: Model,
        out: Film,
        cut: Cut,
        *,
        grid: Grid,
        timed: Callable[[str], AbstractContextManager[None]],
        untouched: frozenset[int] = frozenset(),
        voice: Voice | None = None,
    ) -> None:
        self.latents: Tensors = {}
        self._model, self._out, self._cut, self._timed, self._untouched = model, out, cut, timed, untouched
        self._grid, self._voice = grid, voice
        self._under: Tensors = {}
        self._ready = [False] * grid.cells[0]
        self._given = 0  # cells of sound that were decoded
        self._shown = self._frames = 0  # cells that are decoded, frames that came of them
        self._memories: list[Any] = [None, None]
        self._last: np.ndarray | None = None

    def lay(self, z: Tensors, *, start: int) -> None:
        """Latents of the film that lies under this one: its frames are shown where they are untouched.

        A decoder remembers the group before, so what is new would change the known groups that follow it too.
        """
        self._keep(self._under, seen(z), start, start + z["video"].shape[2])

    def add(self, z: Tensors, *, start: int, stop: int) -> Iterator[float]:
        """Latents (1, C, T, H, W) of the cells from `start` on, final before `stop`; yields `seconds` as they grow.

        Those of a ring come at once, from cell 1 on.
        """
        self._keep(self.latents, z, start, stop)
        first = 0 if self._cut.lead and stop > start else start
        self._ready[first:stop] = [True] * (stop - first)
        known = [*self._ready, False].index(False)
        if self._voice is not None:
            known = self._heard_out(known)
        if known > self._shown:
            yield from self._show(known)

    def finish(self) -> None:
        """The last frame stands until the end."""
        assert self._last is not None, "a model decoded nothing"
        while self._out.count < self._cut.frames:
            self._out.add(self._last)

    def _keep(self, into: Tensors, z: Tensors, start: int, stop: int) -> None:
        """Latents of a window where they stand in the film."""
        for name, x in z.items():
            whole, first, last = (
                begins(name, at, self._model.card, self._grid) for at in (len(self._ready), start, stop)
            )
            if name not in into:
                into[name] = x.new_zeros(*x.shape[:2], whole, *x.shape[3:])
            into[name][:, :, first:last] = x[:, :, : last - first]

    def _heard_out(self, known: int) -> int:
        """The first cell that must wait for more sound than that of the cells before `known`."""
        code = self._model.card.sound
        if code is None or known == len(self._ready):
            return known
        heard = begins("sound", known, self._model.card, self._grid) - code.after - _EARLY
        fit = (at for at in range(known, 0, -1) if begins("sound", at, self._model.card, self._grid) <= heard)
        return next(fit, 0)

    def _show(self, stop: int) -> Iterator[float]:
        """Decode the cells before `stop` that are not in the film yet, put their frames there, and yield its length."""
        films = [self.latents, self._under] if self._untouched else [self.latents]
        parts = [{name: z[:, :, self._shown : stop] for name, z in seen(film).items()} for film in films]
        if self._voice is not None:
            parts[0] |= self._sounds(stop)
        if self._cut.lead:
            parts = [{name: _led_in(z[:, :, 1:]) for name, z in part.items()} for part in parts]
        self._shown, goes_on = stop, stop < len(self._ready)
        ways = [self._model.decode(part, memory=memory) for part, memory in zip(parts, self._memories, strict=False)]
        while True:
            with self._timed("decode"):
                groups = [self._next(way, number, goes_on=goes_on) for number, way in enumerate(ways)]
            if groups[0] is None:
                return
            with self._timed("write"):
                if self._voice is not None and groups[0].sound is not None:
                    self._voice.add(groups[0].sound, last=stop == len(self._ready))
                for frames in zip(*(_cropped(group.rgb, self._cut.crop) for group in groups), strict=True):
                    self._put(frames[-1 if self._frames in self._untouched else 0])
            yield self._out.count / self._cut.fps

    def _sounds(self, stop: int) -> Tensors:
        """The sound that was not decoded yet, up to a while after the cells before `stop`, and what comes after it."""
        sound, card = self.latents["sound"], self._model.card
        known = begins("sound", [*self._ready, False].index(False), card, self._grid)
        first, self._given = self._given, min(known, begins("sound", stop, card, self._grid) + _EARLY)
        return {"sound": sound[:, :, first : self._given], "sound_after": sound[:, :, self._given : known]}

    def _next(self, way: Generator[Frames, None, Any], number: int, *, goes_on: bool) -> Any:
        """The next frames of a decoder; at its end None, and what it remembers is kept.

        Frames that want to see what follows wait for it, while the film goes on.
        """
        try:
            frames = next(way)
        except StopIteration as end:
            self._memories[number] = end.value
            return None
        if goes_on and frames.resume is not None:
            self._memories[number] = frames.resume
            way.close()
            return None
        return frames

    def _put(self, frame: np.ndarray) -> None:
        """A frame as often as the film shows it."""
        index = self._frames - self._cut.lead
        self._frames, self._last = self._frames + 1, frame
        for moment in shown_for(index, source=self._cut.source, fps=self._cut.fps) if index >= 0 else ():
            if moment < self._cut.frames:
                self._out.add(frame)


def seen(z: Tensors) -> Tensors:
    """All tracks but that of sound, which has cells of its own."""
    return {name: x for name, x in z.items() if name != "sound"}


def begins(name: str, cell: int, card: Card, grid: Grid) -> int:
    """The first cell of a track that belongs to a film from one of its cells on."""
    if name != "sound" or card.sound is None:
        return cell
    return card.sound.before(grid.frames_of(cell).start, grid.fps)


def shown_for(index: int, *, source: float, fps: float) -> range:
    """Which frames at `fps` show frame `index` of `source` (1/s): each moment shows the frame that stood then."""
    # 1e-6 forgives 3 * (8 / 24) = 0.9999999
    first, stop = (math.ceil((i - 1e-6) * fps / source) for i in (index, index + 1))
    return range(max(0, first), stop)


def _led_in(ring: Tensor) -> Tensor:
    """A ring after its own last two cells: so the decoder meets its first group in full swing."""
    return torch.cat([ring[:, :, [-2 % ring.shape[2], -1]], ring], dim=2)


def _cropped(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle (width, height) px of frames (t, H, W, 3)."""
    height, width = frames.shape[1:3]
    x, y = (width - size[0]) // 2, (height - size[1]) // 2
    return frames[:, y : y + size[1], x : x + size[0]]
