"""What light does to the miniature world: sky, shadows and the faces of things, in linear colour."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from cinecanvas.world.palette import Heaven
from cinecanvas.world.patterns import painted
from cinecanvas.world.rays import (
    Body,
    Interval,
    Look,
    Things,
    Vector,
    at,
    crossed,
    dot,
    local,
    mix,
    normal,
    to_body,
    unit,
)
from cinecanvas.world.stage import TILE, Stage, Textures, texel


def sky(stage: Stage, tiles: Textures, direction: Vector, heaven: Heaven) -> Vector:
    """Light that comes from a direction above the horizon."""
    height = direction[1].clamp_min(0.0)
    colour = mix(stage.horizon, stage.zenith, 1.0 - torch.exp(-5.0 * height))
    if heaven == "plain":
        return colour
    if heaven == "glow":
        near = dot(direction, stage.disc)
        halo = 0.55 * torch.exp(-14.0 * (1.0 - near)) + ((near - 0.9965) * 700.0).clamp(0.0, 1.0)
        return mix(colour, stage.glow, halo.clamp_max(1.0))
    azimuth = torch.atan2(direction[0] * stage.flip, -direction[2])
    if heaven == "stars":
        per_radian = TILE / (2.0 * torch.pi)
        light = texel(tiles.stars, azimuth * per_radian + stage.offset[0], height * per_radian + stage.offset[1])
        return mix(colour, stage.glow, light * (height * 12.0).clamp_max(1.0))
    cover = texel(tiles.smooth, azimuth * 90.0 + stage.offset[0], height * 260.0 + stage.offset[1])
    return mix(colour, stage.glow, (0.42 * cover - 0.05).clamp(0.0, 0.8) * (height * 9.0).clamp_max(1.0))


def shade(stage: Stage, point: Vector, distance: Tensor, colour: Vector, things: Things) -> Vector:
    """The floor under its light: soft shadows of the bodies, and the dark of contact."""
    lit = functools.reduce(torch.mul, [passing(stage, point, body, look) for body, look in things])
    open_sky = functools.reduce(torch.mul, [_uncovered(point, body) for body, _ in things])
    fog = 1.0 - torch.exp(-((distance / 25.0) ** 2))
    lit = lit * 0.72
    r, g, b = (colour[i] * (stage.key[i] * lit + stage.ambient[i] * open_sky) for i in range(3))
    return mix((r, g, b), stage.horizon, fog)


def passing(stage: Stage, point: Vector, body: Body, look: Look) -> Tensor:
    """The part of the sun that reaches a point past a body, by how much of it the light must cross."""
    toward = local(body, stage.sun)
    span = crossed(body, to_body(body, point), toward, look.kind)
    through = (span.far - span.near.clamp_min(0.0)).clamp_min(0.0)
    # Absorption by thickness gives a penumbra from one ray; a thing high up casts a fainter shadow.
    height = (body.centre[1] - body.half[1]).clamp_min(0.0)
    lit = 1.0 - stage.shadow * (1.0 - torch.exp(-through * (4.0 / (1.0 + 0.8 * height)) / body.half[0]))
    return lit if look.material != "glass" else 0.6 + 0.4 * lit


def _uncovered(point: Vector, body: Body) -> Tensor:
    """The part of the sky that a body leaves open over a point of the floor."""
    gap = (body.centre[0] - point[0], body.centre[1] - point[1], body.centre[2] - point[2])
    far = dot(gap, gap)
    return 1.0 - (0.9 * body.half[0] * body.half[0] * body.centre[1] * torch.rsqrt(far) / far).clamp_max(0.8)


def face(
    stage: Stage, origin: Vector, direction: Vector, body: Body, look: Look, span: Interval, *, others: Things = ()
) -> Vector:
    """The light of a painted body where a ray meets it, in the shadow of others; anything where it does not."""
    inside = at(to_body(body, origin), local(body, direction), span.near)
    n = normal(body, inside, span.side, look.kind)
    colour = painted(stage, body, look, inside)
    # Half of wrapped light keeps the terminator soft and the far side readable.
    facing = (0.15 + 0.85 * dot(n, stage.sun)).clamp_min(0.0)
    for other, its_look in others:
        facing = facing * passing(stage, at(origin, direction, span.near), other, its_look)
    up = 0.5 + 0.5 * n[1]
    ground = 0.35 - 0.35 * up
    height = at(origin, direction, span.near)[1]
    contact = 0.6 + 0.4 * (height / body.half[1]).clamp(0.0, 1.0)
    half = unit((stage.sun[0] - direction[0], stage.sun[1] - direction[1], stage.sun[2] - direction[2]))
    shine = dot(n, half).clamp_min(0.0)
    for _ in range(5):
        shine = shine * shine
    shine = 0.22 * shine
    return tuple(  # type: ignore[return-value]
        colour[i]
        * (
            stage.key_on_things[i] * facing
            + (stage.ambient_on_things[i] * (0.4 + 0.6 * up) + ground * stage.second[i] * stage.key[i]) * contact
        )
        + shine * stage.key_on_things[i]
        for i in range(3)
    )


def developed(colour: Vector) -> Tensor:
    """Linear light as display values 0..1, (N, 3, P): a soft shoulder above 0.7, then gamma 2."""
    stacked = torch.stack(torch.broadcast_tensors(*colour), dim=1)
    over = (stacked - 0.7).clamp(0.0, 0.6)
    return (stacked.clamp(0.0, 1.3) - over * over / 1.2).sqrt()
