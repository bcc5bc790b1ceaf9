"""Where clips lie on a grid: which frames, which pixels, and whether they fit there at all."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from cinecanvas.errors import BadRequest
from cinecanvas.grid import Grid
from cinecanvas.request import STILL, Clip, Media, Request

Edges = tuple[int, int, int, int]  # top, left, bottom, right (px)


class Placed(BaseModel):
    """A clip on the frames and pixels of a grid; margin: pixels beyond the cut of the frame that repeat its edge."""

    model_config = ConfigDict(frozen=True)

    clip: Clip
    first: int
    frames: int
    box: Edges
    margin: Edges = (0, 0, 0, 0)

    @property
    def covers(self) -> range:
        """The frames that it is laid on."""
        return range(self.first, self.first + self.frames)


def lay(
    request: Request, media: Mapping[str, Media], grid: Grid, *, crop: tuple[int, int], visible: int
) -> tuple[Placed, ...]:
    """Every clip of a request on a grid of which the first `visible` frames and the middle `crop` (px) are seen."""
    placed = tuple(_placed(clip, media, grid, crop=crop, visible=visible) for clip in request.clips)
    for one, other in itertools.combinations(placed, 2):
        if one.clip.seen and other.clip.seen and one.clip.keep and other.clip.keep and _meet(one, other):
            second = max(one.first, other.first) / grid.fps
            raise BadRequest(
                f"Two clips were laid on one place at {second:.3g} s",
                "Every moment of a place holds one clip",
                "Move or trim one of them",
            )
    return placed


def task(request: Request) -> str:
    """The name of what is asked, as Cards have it: it follows from what is known, and nothing else looks at it."""
    still = request.seconds is not None and request.seconds <= STILL
    clips = [clip for clip in request.clips if clip.seen and clip.keep]
    if not clips:
        return "text_to_image" if still else "text_to_video"
    if request.finer:
        return "upscale"
    if any(clip.keep < 1 for clip in clips):
        return "remix"
    if any(clip.mask for clip in clips):
        return "inpaint"
    if any(clip.box != (0.0, 0.0, 1.0, 1.0) for clip in clips):
        return "outpaint"
    return "keyframes" if len(clips) > 1 else "image_to_video"


def untouched(clips: Iterable[Placed], grid: Grid) -> frozenset[int]:
    """The frames of cells that are known and stand in a film that lies whole under all of it; none if none does."""
    whole = [one for one in clips if one.clip.seen and one.clip.box == (0.0, 0.0, 1.0, 1.0)]
    under = {frame for one in whole if one.clip.keep == 0 for frame in one.covers}
    known = {frame for one in whole if one.clip.keep == 1 and not one.clip.mask for frame in one.covers} & under
    cells = map(grid.frames_of, range(grid.cells[0]))
    return frozenset(frame for cell in cells if known.issuperset(cell) for frame in cell)


def part(clip: Clip, facts: Media) -> tuple[float, float]:
    """The seconds of a clip from and to which it is laid; a picture has none."""
    length = facts.seconds or 0.0
    if clip.trim is None:
        return 0.0, length
    if clip.trim[0] >= length:
        asked = f"The part from {clip.trim[0]:.4g} s of a clip of {length:.4g} s was asked"
        raise BadRequest(asked, "A part begins before the clip ends")
    return clip.trim[0], min(clip.trim[1], length)


def of(digest: str, media: Mapping[str, Media]) -> Media:
    """What is known of a clip, or the refusal of one that nobody knows."""
    if digest not in media:
        raise BadRequest(f"The clip {digest[:40]!r} is not in the store", do="Store it first")
    return media[digest]


def _placed(clip: Clip, media: Mapping[str, Media], grid: Grid, *, crop: tuple[int, int], visible: int) -> Placed:
    facts = of(clip.media, media)
    if clip.mask:
        _check_mask(facts, of(clip.mask, media))
    if not clip.seen and not facts.sound:
        raise BadRequest("A clip without sound was laid as sound", "A film with sound is possible")
    begin, end = part(clip, facts)
    frames = max(1, int((end - begin) * grid.fps + 1e-6))
    offset = round(clip.start * grid.fps)
    first = visible - frames - offset if clip.anchor == "end" else offset
    over = first + frames - visible
    if first < 0 or over > 1 or first >= visible:
        what = "picture" if frames == 1 else f"clip of {frames / grid.fps:.3g} s"
        raise BadRequest(
            f"A {what} at {first / grid.fps:.3g} s does not fit a video of {visible / grid.fps:.3g} s",
            "Everything that is laid on a video lies within it",
            "Ask for more seconds, or trim the clip",
        )
    box, margin = _box(clip, facts, grid, crop=crop)
    return Placed(clip=clip, first=first, frames=frames - max(0, over), box=box, margin=margin)


def _box(clip: Clip, facts: Media, grid: Grid, *, crop: tuple[int, int]) -> tuple[Edges, Edges]:
    """Pixels of the grid, and how far the edges of the picture are repeated beyond the part that is seen."""
    left, top = (grid.width - crop[0]) // 2, (grid.height - crop[1]) // 2
    x, y, w, h = clip.box
    if clip.fit == "pad" and facts.width and facts.height:
        wide = facts.width / facts.height / (w * crop[0] / (h * crop[1]))
        x, w = x + w * (1 - min(1.0, wide)) / 2, w * min(1.0, wide)
        y, h = y + h * (1 - min(1.0, 1 / wide)) / 2, h * min(1.0, 1 / wide)
    edges = [top + round(y * crop[1]), left + round(x * crop[0])]
    edges += [max(edges[0] + 1, top + round((y + h) * crop[1])), max(edges[1] + 1, left + round((x + w) * crop[0]))]
    seen = (top, left, top + crop[1], left + crop[0])
    beyond = (top, left, grid.height - seen[2], grid.width - seen[3])
    margin = [far if edge == end else 0 for edge, end, far in zip(edges, seen, beyond, strict=True)]
    return (edges[0], edges[1], edges[2], edges[3]), (margin[0], margin[1], margin[2], margin[3])


def _check_mask(clip: Media, mask: Media) -> None:
    if (clip.width, clip.height) != (mask.width, mask.height):
        raise BadRequest(
            f"A mask of {mask.width}x{mask.height} px was given for a clip of {clip.width}x{clip.height}",
            "A mask has the size of its clip",
            "Resize the mask",
        )


def _meet(one: Placed, other: Placed) -> bool:
    """Whether they share a frame and a pixel."""
    a, b = one.covers, other.covers
    times = max(a.start, b.start) < min(a.stop, b.stop)
    return times and all(max(one.box[i], other.box[i]) < min(one.box[i + 2], other.box[i + 2]) for i in (0, 1))
