"""What is painted on things, in their own axes: so rolling and spinning are seen."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cinecanvas.world.rays import RING, TUBE, Body, Look, Vector, dot, mix, scaled
from cinecanvas.world.stage import Stage

_GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0
_LONG = math.hypot(1.0, _GOLDEN)
# The six axes of an icosahedron: twelve dots, spread evenly over anything convex.
_AXES = tuple(
    (sign * a / _LONG, b / _LONG, c / _LONG)
    for sign in (1.0, -1.0)
    for a, b, c in ((0.0, 1.0, sign * _GOLDEN), (1.0, _GOLDEN, 0.0), (_GOLDEN, 0.0, 1.0))
)


def painted(stage: Stage, body: Body, look: Look, inside: Vector) -> Vector:
    """The colour of a body at a point given in its own axes."""
    if look.pattern != "plain":
        point = (inside[0] * stage.flip, inside[1], inside[2])
        return mix(body.colour, body.accent, _covered(point, look))
    if look.kind != "quadric":
        return body.colour
    # Only plain balls roll unpatterned, and one band is enough to see it.
    band = (1.0 - (dot(inside, body.stripe).abs() - 0.2).mul(14.0).clamp(0.0, 1.0)) * body.stripes
    return scaled(body.colour, 1.0 - 0.45 * band)


def _covered(point: Vector, look: Look) -> Tensor:
    """How much of the second colour is at a point, 0..1."""
    x, y, z = point
    if look.pattern == "two_tone":
        return (0.5 + 12.0 * (0.5 * x + 0.75 * y + 0.35 * z - 0.3)).clamp(0.0, 1.0)
    if look.pattern == "stripes":
        wave = torch.sin((3.4 * x + 5.2 * y + 2.6 * z) + 0.6)
        return (0.4 + 3.0 * (wave - 0.1)).clamp(0.0, 1.0)
    if look.pattern == "checks":
        waves = torch.sin(4.7 * x + 0.8) * torch.sin(4.7 * y + 0.8) * torch.sin(4.7 * z + 0.8)
        return (0.5 + 8.0 * waves).clamp(0.0, 1.0)
    if look.kind == "ring":  # ten dots on either face of the ring
        turn = torch.atan2(x, z) * (10.0 / (2.0 * math.pi))
        along = (turn - turn.round()) * (2.0 * math.pi * RING / 10.0)
        across = (x * x + z * z).sqrt() - RING
        return (1.0 + 12.0 * (0.17 - ((along * along + across * across).sqrt()))).clamp(0.0, 1.0) * (
            y.abs() > 0.5 * TUBE
        )
    size = torch.rsqrt(dot(point, point).clamp_min(1e-6))
    nearest = torch.stack([(a * x + b * y + c * z).abs() for a, b, c in _AXES]).amax(0) * size
    return (0.5 + 22.0 * (nearest - 0.925)).clamp(0.0, 1.0)
