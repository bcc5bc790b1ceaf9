"""Rays against clipped quadrics, cubes and rings: every shape is the interval of a ray that lies inside it."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cinecanvas.world.scene import Material, Pattern

Kind = Literal["quadric", "cube", "ring"]
Vector = tuple[Tensor, Tensor, Tensor]

# x^2 + z^2 + a y^2 + b y + c = 0, cut by |y| <= 1, in units of the half size; a cube is three such cuts instead.
QUADRICS: dict[str, tuple[float, float, float]] = {
    "ball": (1.0, 0.0, -1.0),
    "cylinder": (0.0, 0.0, -1.0),
    "cone": (-0.25, 0.5, -0.25),
    "cube": (0.0, 0.0, 0.0),
    "egg": (1.0, 0.0, -1.0),
    "brick": (0.0, 0.0, 0.0),
    "disc": (0.0, 0.0, -1.0),
    "pillar": (0.0, 0.0, -1.0),
    "torus": (0.0, 0.0, 0.0),
}
RING, TUBE = 0.7, 0.3  # radii of a torus, in units of its half size
MARCH = 18  # steps to the surface of a torus; the rays that still graze it then are taken to miss


class Body(NamedTuple):
    """One object of every frame, as per-frame columns (N, 1); its colour is linear RGB."""

    centre: Vector
    rotation: tuple[Vector, Vector, Vector]  # rows: local to world
    half: Vector
    quadric: Vector
    colour: Vector
    stripe: Vector
    stripes: Tensor
    accent: Vector  # of its pattern


class Look(NamedTuple):
    """What decides which code a body needs."""

    kind: Kind
    pattern: Pattern
    material: Material


Things = tuple[tuple[Body, Look], ...]


class Interval(NamedTuple):
    """A ray's part inside a shape: from `near` to `far` (empty if far <= near); `side`: through top or base."""

    near: Tensor
    far: Tensor
    side: Tensor


def dot(a: Vector, b: Vector) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def at(origin: Vector, direction: Vector, t: Tensor) -> Vector:
    return origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2]


def mix(a: Vector, b: Vector, part: Tensor) -> Vector:
    return a[0] + part * (b[0] - a[0]), a[1] + part * (b[1] - a[1]), a[2] + part * (b[2] - a[2])


def scaled(a: Vector, by: Tensor) -> Vector:
    return a[0] * by, a[1] * by, a[2] * by


def unit(a: Vector) -> Vector:
    return scaled(a, torch.rsqrt(dot(a, a)))


def local(body: Body, direction: Vector) -> Vector:
    """A world direction in the body's own axes, in units of its half size."""
    rows = body.rotation
    return (
        (rows[0][0] * direction[0] + rows[1][0] * direction[1] + rows[2][0] * direction[2]) / body.half[0],
        (rows[0][1] * direction[0] + rows[1][1] * direction[1] + rows[2][1] * direction[2]) / body.half[1],
        (rows[0][2] * direction[0] + rows[1][2] * direction[1] + rows[2][2] * direction[2]) / body.half[2],
    )


def to_body(body: Body, origin: Vector) -> Vector:
    """A world point in the body's own axes, in units of its half size."""
    c = body.centre
    return local(body, (origin[0] - c[0], origin[1] - c[1], origin[2] - c[2]))


def crossed(body: Body, origin: Vector, direction: Vector, kind: Kind) -> Interval:
    """Where a ray, given in the body's own axes, is inside it."""
    if kind == "ring":
        return _ring(origin, direction)
    near, far = _cut(origin[1], direction[1])
    if kind == "cube":
        near_x, far_x = _cut(origin[0], direction[0])
        near_z, far_z = _cut(origin[2], direction[2])
        across = torch.maximum(near_x, near_z)
        return Interval(torch.maximum(near, across), torch.minimum(far, torch.minimum(far_x, far_z)), near > across)
    (ox, oy, oz), (dx, dy, dz), (qa, qb, qc) = origin, direction, body.quadric
    # A cone's quadratic turns over for rays steeper than its side; lights and cameras stay below that.
    a = (dx * dx + dz * dz + qa * dy * dy).clamp_min(1e-5)
    b = ox * dx + oz * dz + dy * (qa * oy + 0.5 * qb)
    c = ox * ox + oz * oz + oy * (qa * oy + qb) + qc
    discriminant = b * b - a * c
    root = discriminant.clamp_min(0.0).sqrt()
    over = 1.0 / a
    entry, leave = (-b - root) * over, (root - b) * over
    first, last = torch.maximum(near, entry), torch.minimum(far, leave)
    return Interval(first, torch.where(discriminant > 0, last, first), near > entry)


def normal(body: Body, point: Vector, side: Tensor, kind: Kind) -> Vector:
    """The outward unit normal in the world at a point given in the body's own axes."""
    x, y, z = point
    if kind == "cube":
        on_y = side
        on_x = (x.abs() > z.abs()) & ~on_y
        nx = torch.where(on_x, x.sign(), torch.zeros_like(x))
        ny = torch.where(on_y, y.sign(), torch.zeros_like(y))
        nz = torch.where(on_x | on_y, torch.zeros_like(z), z.sign())
    elif kind == "ring":
        inner = 1.0 - RING * torch.rsqrt((x * x + z * z).clamp_min(1e-6))
        nx, ny, nz = x * inner, y, z * inner
    else:
        a, b, _ = body.quadric
        nx = torch.where(side, torch.zeros_like(x), x / body.half[0])
        ny = torch.where(side, y.sign(), (a * y + 0.5 * b) / body.half[1])
        nz = torch.where(side, torch.zeros_like(z), z / body.half[2])
    rows = body.rotation
    return unit(
        (
            rows[0][0] * nx + rows[0][1] * ny + rows[0][2] * nz,
            rows[1][0] * nx + rows[1][1] * ny + rows[1][2] * nz,
            rows[2][0] * nx + rows[2][1] * ny + rows[2][2] * nz,
        )
    )


def _ring(origin: Vector, direction: Vector) -> Interval:
    """A torus about y, marched from both ends of the ray's part in a flat can about it."""
    near, far = _cut(origin[1] / TUBE, direction[1] / TUBE)
    (ox, oy, oz), (dx, dy, dz) = origin, direction
    a = (dx * dx + dz * dz).clamp_min(1e-5)
    b, c = ox * dx + oz * dz, ox * ox + oz * oz - 1.0
    discriminant = b * b - a * c
    root = discriminant.clamp_min(0.0).sqrt()
    over = 1.0 / a
    first, last = torch.maximum(near, (-b - root) * over), torch.minimum(far, (root - b) * over)
    missed = (discriminant <= 0) | (last <= first)
    pace = torch.rsqrt(a + dy * dy)

    def away(t: Tensor) -> Tensor:
        x, y, z = ox + t * dx, oy + t * dy, oz + t * dz
        across = (x * x + z * z).sqrt() - RING
        return (across * across + y * y).sqrt() - TUBE

    entry, leave = torch.where(missed, 0.0, first), torch.where(missed, 0.0, last)
    for _ in range(MARCH):
        entry = torch.minimum(entry + away(entry) * pace, last + 0.1 * pace)
    for _ in range(MARCH // 2):
        leave = leave - away(leave) * pace
    touched = ~missed & (entry < last) & (away(entry) < 0.01)
    return Interval(entry, torch.where(touched, torch.maximum(leave, entry + 1e-4), entry), touched)


def _cut(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Where a ray is between the planes -1 and 1 of one axis."""
    safe = torch.where(direction.abs() < 1e-6, torch.full_like(direction, 1e-6), direction)
    over = 1.0 / safe
    middle, reach = -origin * over, over.abs()
    return middle - reach, middle + reach
