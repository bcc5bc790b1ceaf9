"""What the pixels of a clip show, exactly: which thing, how far, where it goes, and what is heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cinecanvas.world import motion, rays
from cinecanvas.world.camera import Lens, Vector2, aim, grid, matrices, pixels, project
from cinecanvas.world.pack import pack, variant
from cinecanvas.world.rays import Body, Interval, Things, Vector
from cinecanvas.world.scene import Scene
from cinecanvas.world.stage import Stage

FAR = 1e4  # world units, the depth of the sky
_TENSORS = ("segmentation", "depth", "flow", "extrinsics", "intrinsics")


@dataclass(frozen=True)
class Truth:
    """What the pixels show, exactly; pixel coordinates have the centre of the first pixel at (0.5, 0.5)."""

    segmentation: Tensor  # (B, T, H, W) uint8: 0 sky, 1 floor, 2 + k object k
    depth: Tensor  # (B, T, H, W) float32, world units along the ray
    flow: Tensor  # (B, T, H, W, 2) float32, px to the next frame; the last frame has none
    extrinsics: Tensor  # (B, T, 3, 4) float32, world (x right, y up, z to us) to camera (x right, y down, z ahead)
    intrinsics: Tensor  # (B, T, 3, 3) float32, px
    tracks: Tensor  # (B, T, K, 3) float32: projected centre x, y in px, visible part of the object; absent: 0
    events: tuple[tuple[tuple[float, str], ...], ...]  # per clip: (seconds since its start, name)


def meet(stage: Stage, things: Things, direction: Vector) -> tuple[list[Interval], Tensor]:
    """Where rays from the eye meet every body, and how far the floor is."""
    spans = [
        rays.crossed(body, rays.to_body(body, stage.eye), rays.local(body, direction), look.kind)
        for body, look in things
    ]
    return spans, (stage.eye[1] / (-direction[1]).clamp_min(1e-3)).clamp_max(400.0)


def survey(
    scene: Scene, start: float, *, frames: int, height: int, width: int, fps: float, device: torch.device
) -> Truth:
    """The truth of one clip through the centres of its pixels, without the batch axis (events keep theirs).

    Rain, snow and fog are in front of it all and do not count; nor do reflections, nor what glass lets through.
    """
    seconds = start + np.arange(frames) / fps
    lens, stage, bodies = pack([scene], [seconds], min(height, width), device)
    things = tuple(zip(bodies, variant(scene).looks, strict=True))
    x, y = grid(height, width, device)
    direction = aim(lens, x, y)
    spans, ground = meet(stage, things, direction)
    down = direction[1] < 0.0
    depth = torch.where(down, ground, torch.full_like(ground, FAR))
    label = torch.where(down, 1, 0).to(torch.uint8)
    for number, span in enumerate(spans):
        nearer = _touched(span) & ~(depth < span.near)
        depth = torch.where(nearer, span.near, depth)
        label = torch.where(nearer, number + 2, label)
    # A point of a body moves rigidly with it; floor and sky stand still, and only the camera moves them.
    place = rays.at(stage.eye, direction, depth)
    for number, (body, span) in enumerate(zip(bodies, spans, strict=True)):
        inside = rays.at(rays.to_body(body, stage.eye), rays.local(body, direction), span.near)
        moved = _world(Body(*_moved(_later, body)), inside)
        place = tuple(torch.where(label == number + 2, a, b) for a, b in zip(moved, place, strict=True))  # type: ignore
    px, py = _next(lens, stage, place, height, width)
    here_x, here_y = pixels(x, y, height, width)
    flow = torch.zeros(frames, height * width, 2, device=device)
    flow[:-1] = torch.stack([px - here_x, py - here_y], dim=-1)

    heard = tuple((round(at - start, 6), name) for at, name in motion.events(scene, start, start + (frames - 1) / fps))
    shape = (frames, height, width)
    extrinsics, intrinsics = matrices(lens, stage, height, width)
    tracks = _tracks(lens, stage, things, height, width)
    return Truth(label.view(shape), depth.view(shape), flow.view(*shape, 2), extrinsics, intrinsics, tracks, (heard,))


def together(surveys: Sequence[Truth]) -> Truth:
    """The truths of single clips as one of a batch; tracks of absent things are 0."""
    most = max(one.tracks.shape[1] for one in surveys)
    tensors = {name: torch.stack([getattr(one, name) for one in surveys]) for name in _TENSORS}
    pad = torch.nn.functional.pad
    tracks = torch.stack([pad(one.tracks, (0, 0, 0, most - one.tracks.shape[1])) for one in surveys])
    return Truth(**tensors, tracks=tracks, events=tuple(one.events[0] for one in surveys))


def _next(lens: Lens, stage: Stage, place: Vector, height: int, width: int) -> Vector2:
    """Where the next frame shows the points of every frame but the last."""
    eye = tuple(_later(column)[:-1] for column in stage.eye)
    ahead = Lens(*(_later(column)[:-1] for column in lens))
    return project(ahead, eye, tuple(one[:-1] for one in place), height, width)  # type: ignore[arg-type]


def _tracks(lens: Lens, stage: Stage, things: Things, height: int, width: int) -> Tensor:
    """Projected centres in px and visible parts (N, K, 3), on a raster of twice the frame's width and height.

    The visible part of a body's picture lies inside the frame and behind no other body.
    """
    tall, wide = 2 * height, 2 * width
    x, y = grid(tall, wide, lens.yaw.device)
    scale = min(tall, wide) / min(height, width)
    x, y = x * scale, y * scale
    spans, _ = meet(stage, things, aim(lens, x, y))
    half = min(height, width)
    inside = (x.abs() < width / half) & (y.abs() < height / half)
    rows = []
    for (body, _), span in zip(things, spans, strict=True):
        hit = _touched(span)
        seen = hit & inside
        for other in spans:
            if other is not span:
                seen = seen & ~(_touched(other) & (other.near < span.near))
        visible = seen.sum(1, keepdim=True) / hit.sum(1, keepdim=True).clamp_min(1)
        rows.append(torch.cat([*project(lens, stage.eye, body.centre, height, width), visible], dim=1))
    return torch.stack(rows, dim=1)


def _touched(span: Interval) -> Tensor:
    return (span.far > span.near) & (span.near > 0.0)


def _world(body: Body, inside: Vector) -> Vector:
    """World points of points given in the body's own axes."""
    p = tuple(a * h for a, h in zip(inside, body.half, strict=True))
    return tuple(rays.dot(row, p) + c for row, c in zip(body.rotation, body.centre, strict=True))  # type: ignore


def _later(column: Tensor) -> Tensor:
    """A column of the following frames; the last frame stays."""
    return torch.cat([column[1:], column[-1:]])


def _moved(change: Callable[[Tensor], Tensor], part: Any) -> Any:
    return change(part) if isinstance(part, Tensor) else tuple(_moved(change, one) for one in part)
