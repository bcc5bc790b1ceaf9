"""Frames that are known though their latent cell is not: which of them a network is shown beside its lattice.

A cell of a video code holds several frames. A picture that is pinned to one of them leaves the cell unknown, and so do
the ends of a clip that begins or stops within one. Families that read a token at any place are given these apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def apart(known: Sequence[bool], cells: Iterable[range], *, clip: int) -> tuple[range, ...]:
    """What is encoded apart of the frames that are known as a whole, in time order: single frames, or clips of `clip`.

    cells: the frames of each cell-in-time. A clip may reach into cells that are known; where fewer frames than `clip`
    are known in a row, each is a picture of its own.
    """
    whole = {frame for cell in cells if all(known[frame] for frame in cell) for frame in cell}
    found: list[range] = []
    for run in _runs(known):
        lone = [frame in run and frame not in whole for frame in range(run.stop)]
        for part in _runs(lone):
            found.extend(_covering(part, run, clip=clip))
    return tuple(found)


def _covering(part: range, run: range, *, clip: int) -> Iterator[range]:
    """A part of a run as pictures, or as clips that lie within the run."""
    at = part.start
    while at < part.stop:
        picture = part.stop - at == 1 or len(run) < clip
        start = at if picture else min(at, run.stop - clip)
        at = start + (1 if picture else clip)
        yield range(start, at)


def _runs(flags: Sequence[bool]) -> Iterator[range]:
    """The longest stretches without a gap."""
    start = None
    for at, flag in enumerate((*flags, False)):
        if flag and start is None:
            start = at
        if not flag and start is not None:
            yield range(start, at)
            start = None
