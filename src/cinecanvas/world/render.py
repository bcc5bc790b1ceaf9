"""Scenes to pixels and exact truth: one analytic ray per sample, the same code on every device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cinecanvas.errors import BadRequest
from cinecanvas.world import light, motion, rays
from cinecanvas.world.light import COLOURS, FLOORS, SKIES, Ground, Heaven, Stage, Textures
from cinecanvas.world.rays import Body, Kind, Vector
from cinecanvas.world.scene import Scene

RAYS_AT_ONCE = {"cpu": 160_000, "cuda": 8_000_000}  # a temporary is 0.6 MB on CPU: it stays in the cache
Vector2 = tuple[Tensor, Tensor]
FAR = 1e4  # world units, the depth of the sky


@dataclass(frozen=True)
class Truth:
    """What the pixels show, exactly; pixel coordinates have the centre of the first pixel at (0.5, 0.5)."""

    segmentation: Tensor  # (B, T, H, W) uint8: 0 sky, 1 floor, 2 + k object k
    depth: Tensor  # (B, T, H, W) float32, world units along the ray
    flow: Tensor  # (B, T, H, W, 2) float32, px to the next frame; the last frame has none
    extrinsics: Tensor  # (B, T, 3, 4) float32, world (x right, y up, z to us) to camera (x right, y down, z ahead)
    intrinsics: Tensor  # (B, T, 3, 3) float32, px
    tracks: Tensor  # (B, T, K, 3) float32: projected centre x, y in px, visible fraction of the object
    events: tuple[tuple[tuple[float, str], ...], ...]  # per clip: (seconds since its start, name)


@dataclass(frozen=True)
class Rendered:
    """Clips as RGB (B, T, H, W, 3) uint8, and what they show if it was asked for."""

    rgb: Tensor
    truth: Truth | None


class Variant(NamedTuple):
    """What a chunk of clips has in common, so that nothing else need be computed for it."""

    kind: Kind
    ground: Ground
    heaven: Heaven


class Lens(NamedTuple):
    """The camera of every frame as columns (N, 1): yaw and pitch in rad, focal length in halves of the shorter side."""

    yaw: Tensor
    pitch: Tensor
    focal: Tensor


def render(
    scenes: Sequence[Scene],
    *,
    frames: int,
    height: int,
    width: int,
    fps: float,
    start: float | Sequence[float] = 0.0,
    truth: bool = False,
    samples: float = 1.5,
    compiled: bool = False,
    device: str | torch.device = "cpu",
) -> Rendered:
    """`frames` pictures of each scene from `start` (s, one for all or one each); `samples` rays a pixel each way."""
    starts = [float(start)] * len(scenes) if isinstance(start, (int, float)) else [float(s) for s in start]
    if len(starts) != len(scenes) or not scenes or min(frames, height, width) < 1 or fps <= 0 or samples <= 0:
        raise BadRequest(
            f"render {len(scenes)} scenes from {len(starts)} starts at {frames} x {height} x {width}, {fps} fps",
            "at least one scene, one start for all or one each, and positive sizes",
            "check the arguments",
        )
    where = torch.device(device)
    rgb = torch.empty(len(scenes), frames, height, width, 3, dtype=torch.uint8, device=where)
    tall, wide = max(1, round(height * samples)), max(1, round(width * samples))
    shrink = _filter(tall, height, where), _filter(wide, width, where)
    tiles = light.textures(str(where))
    for variant, members in _chunks(scenes, frames * tall * wide, where):
        # The last chunk of a kind is filled up with repeats, so that compiled shapes stay few.
        for part, step in _parts(members, frames, tall * wide, where):
            seconds = [starts[i] + np.arange(step.start, step.stop) / fps for i in part]
            lens, stage, body = pack([scenes[i] for i in part], seconds, min(tall, wide), where)
            seen = picture(lens, stage, body, tiles, variant, tall, wide, compiled)
            small = shrink[0] @ seen.unflatten(2, (tall, wide)) @ shrink[1].T
            done = small.mul(255.0).add_(0.5).clamp_(0, 255).to(torch.uint8).movedim(1, 3)
            index = torch.tensor(part, device=where)
            rgb[index, step.start : step.stop] = done.unflatten(0, (len(part), -1))
    if not truth:
        return Rendered(rgb, None)
    every = [
        survey(scene, first, frames=frames, height=height, width=width, fps=fps, device=where)
        for scene, first in zip(scenes, starts, strict=True)
    ]
    tensors = {name: torch.stack([getattr(one, name) for one in every]) for name in _TENSORS}
    return Rendered(rgb, Truth(**tensors, events=tuple(one.events[0] for one in every)))


def picture(
    lens: Lens, stage: Stage, body: Body, tiles: Textures, variant: Variant, tall: int, wide: int, compiled: bool
) -> Tensor:
    """Display values (N, 3, tall * wide) in 0..1 of N frames."""
    step: Callable[[Callable[..., Any]], Callable[..., Any]] = _compiled if compiled else _eager
    x, y, sway = staggered(tall, wide, stage.pixel.device)
    direction = step(aim)(lens, x + stage.flip * sway, y)
    span, distance, point, up = step(meet)(stage, body, direction, variant.kind)
    above = step(light.sky)(stage, tiles, up, variant.heaven)
    if variant.ground == "water":
        below = step(water)(stage, body, tiles, direction, point, distance, variant.kind, variant.heaven)
    else:
        plain = step(light.floor)(stage, tiles, point, distance, variant.ground)
        below = step(light.shade)(stage, point, distance, plain, body, variant.kind)
    front = step(light.face)(stage, stage.eye, direction, body, variant.kind, span.near, span.side)
    return step(joined)(direction, span, distance, above, below, front)


def aim(lens: Lens, x: Tensor, y: Tensor) -> Vector:
    """Unit directions (N, P) of the rays through the points (P,) of the picture plane."""
    right, up = x / lens.focal, y / lens.focal
    c, s = torch.cos(lens.pitch), torch.sin(lens.pitch)
    rise, ahead = up * c - s, -up * s - c
    c, s = torch.cos(lens.yaw), torch.sin(lens.yaw)
    return rays.unit((right * c + ahead * s, rise, ahead * c - right * s))


def meet(stage: Stage, body: Body, direction: Vector, kind: Kind) -> tuple[rays.Interval, Tensor, Vector, Vector]:
    """Where rays from the eye meet the body and the floor: interval, distance to the floor, point there, direction."""
    span = rays.crossed(body, rays.to_body(body, stage.eye), rays.local(body, direction), kind)
    distance = (stage.eye[1] / (-direction[1]).clamp_min(1e-3)).clamp_max(400.0)
    x, _, z = rays.at(stage.eye, direction, distance)
    return span, distance, (x, torch.zeros_like(x), z), direction


def water(
    stage: Stage,
    body: Body,
    tiles: Textures,
    direction: Vector,
    point: Vector,
    distance: Tensor,
    kind: Kind,
    heaven: Heaven,
) -> Vector:
    """A wavy mirror over a deep colour: sky and body are seen again, more so at flat angles."""
    slope_x, slope_z = light.waves(stage, tiles, point, distance)
    n = rays.unit((-slope_x, torch.ones_like(slope_x), -slope_z))
    facing = rays.dot(direction, n)
    back = tuple(d - 2.0 * facing * m for d, m in zip(direction, n, strict=True))
    bounced = rays.unit((back[0], back[1].clamp_min(0.01), back[2]))
    fresnel = 0.16 + 0.74 * (1.0 + facing.clamp(-1.0, 0.0)) ** 3
    deep = light.shade(stage, point, distance, rays.mix(stage.first, stage.second, 0.5 + 12.0 * slope_z), body, kind)
    span = rays.crossed(body, rays.to_body(body, point), rays.local(body, bounced), kind)
    seen = light.face(stage, point, bounced, body, kind, span.near, span.side)
    hit = ((span.far > span.near) & (span.near > 0.0)).to(fresnel.dtype)
    above = rays.mix(light.sky(stage, tiles, bounced, heaven), seen, hit)
    return rays.mix(deep, above, fresnel)


def joined(
    direction: Vector, span: rays.Interval, distance: Tensor, above: Vector, below: Vector, front: Vector
) -> Tensor:
    """What is nearest along each ray, developed to display values."""
    down = direction[1] < 0.0
    hit = (span.far > span.near) & (span.near > 0.0)
    hit = hit & ~(down & (distance < span.near))
    r, g, b = (torch.where(hit, f, torch.where(down, low, up)) for f, low, up in zip(front, below, above, strict=True))
    return light.developed((r, g, b))


@functools.lru_cache(maxsize=64)
def grid(tall: int, wide: int, device: torch.device) -> Vector2:
    """Picture-plane coordinates (P,) of a raster, in halves of its shorter side: x to the right, y up."""
    half = min(tall, wide) / 2
    y, x = torch.meshgrid(
        (tall / 2 - 0.5 - torch.arange(tall, device=device)) / half,
        (torch.arange(wide, device=device) + 0.5 - wide / 2) / half,
        indexing="ij",
    )
    return x.reshape(-1).contiguous(), y.reshape(-1).contiguous()


@functools.lru_cache(maxsize=64)
def staggered(tall: int, wide: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The raster with every other row and column moved by half a step: free antialiasing of upright and level edges.

    The third tensor is the move of the rows, to be mirrored with the scene; that of the columns is symmetric.
    """
    x, y = grid(tall, wide, device)
    quarter = 0.5 / min(tall, wide)
    row = 1.0 - 2.0 * (torch.arange(tall, device=device) % 2)
    column = 1.0 - 2.0 * ((torch.arange(wide, device=device) - (wide - 1) / 2).abs().floor() % 2)
    return x, y + quarter * column.repeat(tall), quarter * row.repeat_interleave(wide)


def pack(
    scenes: Sequence[Scene], seconds: Sequence[motion.Array], side: int, device: torch.device
) -> tuple[Lens, Stage, Body]:
    """Scenes at their times as per-frame columns; `side` is the shorter side of the raster in samples."""
    rows = np.concatenate([_row(scene, at, side) for scene, at in zip(scenes, seconds, strict=True)])
    columns = torch.from_numpy(rows.astype(np.float32)).to(device).T.contiguous().unsqueeze(2)
    left = iter(columns.unbind(0))

    def three() -> Vector:
        return next(left), next(left), next(left)

    lens = Lens(next(left), next(left), next(left))
    body = Body(three(), (three(), three(), three()), three(), three(), three(), three(), next(left))
    stage = Stage(
        three(), next(left), next(left), next(left), (next(left), next(left)), three(), three(), three(), three(),
        next(left), three(), three(), three(), three(), three(), three(), three(), next(left),
    )  # fmt: skip
    return lens, stage, body


def survey(
    scene: Scene, start: float, *, frames: int, height: int, width: int, fps: float, device: torch.device
) -> Truth:
    """The truth of one clip through the centres of its pixels, without the batch axis (events keep theirs)."""
    seconds = start + np.arange(frames) / fps
    lens, stage, body = pack([scene], [seconds], min(height, width), device)
    kind = _kind(scene)
    x, y = grid(height, width, device)
    direction = aim(lens, x, y)
    span, ground, _, _ = meet(stage, body, direction, kind)
    hit = (span.far > span.near) & (span.near > 0.0)
    down = direction[1] < 0.0
    thing = hit & ~(down & (ground < span.near))
    depth = torch.where(thing, span.near, torch.where(down, ground, torch.full_like(ground, FAR)))
    label = torch.where(thing, 2, torch.where(down, 1, 0)).to(torch.uint8)

    # A point of the body moves rigidly with it; floor and sky stand still, and only the camera moves them.
    inside = rays.at(rays.to_body(body, stage.eye), rays.local(body, direction), span.near)
    carried = _world(_shift(body, 1), inside)
    still = rays.at(stage.eye, direction, depth)
    later = tuple(torch.where(thing[:-1], a[:-1], b[:-1]) for a, b in zip(carried, still, strict=True))
    next_lens = Lens(*(column[1:] for column in lens))
    px, py = _project(next_lens, tuple(column[1:] for column in stage.eye), later, height, width)  # type: ignore[arg-type]
    here_x, here_y = _pixels(x, y, height, width)
    flow = torch.zeros(frames, height * width, 2, device=device)
    flow[:-1] = torch.stack([px - here_x, py - here_y], dim=-1)

    centre_x, centre_y = _project(lens, stage.eye, body.centre, height, width)
    tracks = torch.cat([centre_x, centre_y, _visible(lens, stage, body, kind, height, width)], dim=1).unsqueeze(1)
    heard = tuple((round(at - start, 6), name) for at, name in motion.events(scene, start, start + (frames - 1) / fps))
    shape = (frames, height, width)
    extrinsics, intrinsics = _camera(lens, stage, height, width)
    return Truth(label.view(shape), depth.view(shape), flow.view(*shape, 2), extrinsics, intrinsics, tracks, (heard,))


def _visible(lens: Lens, stage: Stage, body: Body, kind: Kind, height: int, width: int) -> Tensor:
    """The part (N, 1) of the body's picture that lies inside the frame, on a raster of twice its width and height."""
    tall, wide = 2 * height, 2 * width
    x, y = grid(tall, wide, lens.yaw.device)
    scale = min(tall, wide) / min(height, width)
    x, y = x * scale, y * scale
    direction = aim(lens, x, y)
    span, _, _, _ = meet(stage, body, direction, kind)
    hit = (span.far > span.near) & (span.near > 0.0)
    half = min(height, width)
    within = hit & (x.abs() < width / half) & (y.abs() < height / half)
    return within.sum(1, keepdim=True) / hit.sum(1, keepdim=True).clamp_min(1)


def _world(body: Body, inside: Vector) -> Vector:
    """World points of points given in the body's own axes."""
    p = tuple(a * h for a, h in zip(inside, body.half, strict=True))
    return tuple(rays.dot(row, p) + c for row, c in zip(body.rotation, body.centre, strict=True))  # type: ignore


def _shift(body: Body, by: int) -> Body:
    """The body of the following frames; the last frame stays."""

    def later(column: Tensor) -> Tensor:
        return torch.cat([column[by:], column[-1:].expand(by, -1)])

    return Body(*(_mapped(later, part) for part in body))


def _mapped(change: Callable[[Tensor], Tensor], part: Any) -> Any:
    return change(part) if isinstance(part, Tensor) else tuple(_mapped(change, one) for one in part)


def _project(lens: Lens, eye: Vector, point: Vector, height: int, width: int) -> Vector2:
    """Pixel coordinates of world points."""
    x, y, z = (p - e for p, e in zip(point, eye, strict=True))
    c, s = torch.cos(lens.yaw), torch.sin(lens.yaw)
    right, ahead = x * c - z * s, x * s + z * c
    c, s = torch.cos(lens.pitch), torch.sin(lens.pitch)
    up, depth = y * c - ahead * s, (-y * s - ahead * c).clamp_min(1e-3)
    return _pixels(lens.focal * right / depth, lens.focal * up / depth, height, width)


def _pixels(x: Tensor, y: Tensor, height: int, width: int) -> Vector2:
    half = min(height, width) / 2
    return x * half + width / 2, height / 2 - y * half


def _camera(lens: Lens, stage: Stage, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Extrinsics (T, 3, 4) and intrinsics (T, 3, 3) in the usual convention: x right, y down, z ahead."""
    yaw, pitch = lens.yaw[:, 0], lens.pitch[:, 0]
    cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    nil, one = torch.zeros_like(yaw), torch.ones_like(yaw)
    rotation = torch.stack(
        [cy, nil, -sy, sp * sy, -cp, sp * cy, -cp * sy, -sp, -cp * cy], dim=1
    ).view(-1, 3, 3)  # fmt: skip
    eye = torch.cat(stage.eye, dim=1).unsqueeze(2)
    half = lens.focal[:, 0] * min(height, width) / 2
    intrinsics = torch.stack([half, nil, one * width / 2, nil, half, one * height / 2, nil, nil, one], dim=1).view(
        -1, 3, 3
    )
    return torch.cat([rotation, -rotation @ eye], dim=2), intrinsics


def _row(scene: Scene, seconds: motion.Array, side: int) -> motion.Array:
    """Every number of a scene's frames (T, columns), in the order that `pack` reads them."""
    thing = scene.things[0]
    pose, view = motion.pose(thing, seconds), motion.view(scene, seconds)
    floor, sky = FLOORS[scene.floor], SKIES[scene.sky]
    high, around = scene.light_elevation, scene.light_azimuth
    sun = (np.cos(high) * np.sin(around), np.sin(high), np.cos(high) * np.cos(around))
    # The sun of an evening stands in the picture, on the side that the light comes from.
    beside = np.sign(around) * 0.3
    disc = (np.cos(0.1) * np.sin(beside), np.sin(0.1), -np.cos(0.1) * np.cos(beside))
    flip = -1.0 if scene.flipped else 1.0
    still = (
        *motion.half_size(thing), *rays.QUADRICS[thing.shape], *light.linear(COLOURS[thing.colour]),
        0.64 * flip, 0.64, 0.42, float(thing.shape == "ball"),
        0.0, scene.eye_height, motion.DISTANCE,
    )  # fmt: skip
    rest = (
        flip, float(scene.texture % light.TILE), float(scene.texture // light.TILE % light.TILE), *sun, *disc,
        *light.linear(floor.first), *light.linear(floor.second), floor.grain,
        *light.linear(sky.zenith), *light.linear(sky.horizon), *light.linear(sky.glow),
        *sky.key, *sky.ambient, *sky.key_on_things, *sky.ambient_on_things, sky.shadow,
    )  # fmt: skip
    count = len(seconds)
    columns = (
        view.yaw[:, None], np.full((count, 1), motion.PITCH), view.focal[:, None],
        pose.centre, pose.rotation.reshape(count, 9), np.tile(still, (count, 1)),
        (2.0 / (side * view.focal))[:, None], seconds[:, None], np.tile(rest, (count, 1)),
    )  # fmt: skip
    return np.concatenate(columns, axis=1)


def _kind(scene: Scene) -> Kind:
    return "cube" if scene.things[0].shape == "cube" else "quadric"


def _chunks(scenes: Sequence[Scene], rays_each: int, device: torch.device) -> Iterator[tuple[Variant, list[int]]]:
    """Scenes by what they have in common, in bunches of bounded size."""
    groups: dict[Variant, list[int]] = {}
    for i, scene in enumerate(scenes):
        variant = Variant(_kind(scene), FLOORS[scene.floor].ground, SKIES[scene.sky].heaven)
        groups.setdefault(variant, []).append(i)
    many = max(1, RAYS_AT_ONCE.get(device.type, RAYS_AT_ONCE["cpu"]) // rays_each)
    for variant, members in groups.items():
        for first in range(0, len(members), many):
            part = members[first : first + many]
            yield variant, part + [part[-1]] * (many - len(part) if len(members) > many else 0)


def _parts(
    members: list[int], frames: int, rays_a_frame: int, device: torch.device
) -> Iterator[tuple[list[int], range]]:
    """Long clips in stretches of frames, so that memory stays bounded."""
    most = max(1, RAYS_AT_ONCE.get(device.type, RAYS_AT_ONCE["cpu"]) // rays_a_frame)
    for first in range(0, frames, most):
        yield members, range(first, min(frames, first + most))


@functools.lru_cache(maxsize=64)
def _filter(fine: int, coarse: int, device: torch.device) -> Tensor:
    """Weights (coarse, fine) that shrink one axis: a tent of one pixel's reach, which aliases less than a box."""
    place = (torch.arange(fine, dtype=torch.float64) + 0.5) * coarse / fine
    away = (place[None, :] - (torch.arange(coarse, dtype=torch.float64) + 0.5)[:, None]).abs()
    weight = (max(1.0, coarse / fine) - away).clamp_min(0.0)
    return (weight / weight.sum(1, keepdim=True)).float().to(device)


def _eager(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one fused kernel per shape and variant, or as it is where no compiler is at hand."""
    torch._dynamo.config.recompile_limit = 128  # one per variant and raster, by design
    fused = torch.compile(function, dynamic=False)
    broken = False

    def run(*arguments: Any) -> Any:
        nonlocal broken
        if not broken:
            try:
                return fused(*arguments)
            except Exception:  # whatever a missing or odd compiler raises: the picture matters more than the speed
                broken = True
        return function(*arguments)

    return run


_TENSORS = ("segmentation", "depth", "flow", "extrinsics", "intrinsics", "tracks")
