"""What shiny, metal and glass things show of the world around them."""

from __future__ import annotations

import torch
from torch import Tensor

from cinecanvas.world import floors, light
from cinecanvas.world.palette import Ground, Heaven
from cinecanvas.world.patterns import painted
from cinecanvas.world.rays import (
    Interval,
    Things,
    Vector,
    at,
    crossed,
    dot,
    local,
    mix,
    normal,
    scaled,
    to_body,
    unit,
)
from cinecanvas.world.stage import Stage, Textures


def surface(
    stage: Stage,
    tiles: Textures,
    things: Things,
    index: int,
    direction: Vector,
    span: Interval,
    ground: Ground,
    heaven: Heaven,
) -> Vector:
    """The light of a body of any material where rays from the eye meet it; anything where they do not."""
    body, look = things[index]
    others = things[:index] + things[index + 1 :]
    paint = light.face(stage, stage.eye, direction, body, look, span, others=others)
    if look.material == "matte":
        return paint
    point = at(stage.eye, direction, span.near)
    inside = at(to_body(body, stage.eye), local(body, direction), span.near)
    n = normal(body, inside, span.side, look.kind)
    facing = dot(direction, n).clamp(-1.0, 0.0)
    fresnel = (1.0 + facing) ** 3
    back = unit(
        (direction[0] - 2.0 * facing * n[0], direction[1] - 2.0 * facing * n[1], direction[2] - 2.0 * facing * n[2])
    )
    around = seen(stage, tiles, point, back, others, ground, heaven)
    gleam = _gleam(stage, direction, n)
    if look.material == "shiny":
        return _lit(stage, mix(paint, around, 0.07 + 0.5 * fresnel), 0.75 * gleam)
    colour = painted(stage, body, look, inside)
    if look.material == "metal":
        tint = mix(scaled(colour, torch.full_like(fresnel, 1.15)), around, 0.6 * fresnel)
        r, g, b = (tint[i] * (0.12 + 1.0 * around[i]) + 0.18 * paint[i] for i in range(3))
        return _lit(stage, (r, g, b), gleam)
    # Glass bends what is behind it, as a full body does: the more, the nearer to its edge.
    ahead = unit((direction[0] - 0.55 * n[0], direction[1] - 0.55 * n[1], direction[2] - 0.55 * n[2]))
    behind = seen(stage, tiles, point, (ahead[0], ahead[1], ahead[2]), others, ground, heaven)
    r, g, b = (behind[i] * (0.25 + 0.75 * colour[i]) + 0.22 * paint[i] for i in range(3))
    return _lit(stage, mix((r, g, b), around, 0.06 + 0.6 * fresnel), gleam)


def seen(
    stage: Stage, tiles: Textures, origin: Vector, direction: Vector, things: Things, ground: Ground, heaven: Heaven
) -> Vector:
    """What a ray from anywhere sees: sky, floor without shadows, bodies as if they were matte."""
    down = direction[1] < -1e-3
    distance = (origin[1].clamp_min(0.0) / (-direction[1]).clamp_min(1e-3)).clamp_max(60.0)
    x, y, z = at(origin, direction, distance)
    if ground == "water":
        plain = mix(stage.first, stage.second, torch.full_like(distance, 0.5))
    else:
        # The footprint of a ray that was bent is wide: four samples of the picture.
        plain = floors.floor(stage, tiles, (x, y, z), 4.0 * distance, ground)
    fog = 1.0 - torch.exp(-((distance / 25.0) ** 2))
    r, g, b = (plain[i] * (0.72 * stage.key[i] + stage.ambient[i]) for i in range(3))
    below = mix((r, g, b), stage.horizon, fog)
    above = light.sky(stage, tiles, direction, heaven)
    r, g, b = (torch.where(down, low, up) for low, up in zip(below, above, strict=True))
    return reflected(stage, origin, direction, (r, g, b), things)


def reflected(stage: Stage, origin: Vector, direction: Vector, behind: Vector, things: Things) -> Vector:
    """What a ray sees of the bodies before `behind`."""
    nearest: Tensor | None = None
    for body, look in things:
        span = crossed(body, to_body(body, origin), local(body, direction), look.kind)
        face = light.face(stage, origin, direction, body, look, span)
        hit = (span.far > span.near) & (span.near > 0.0)
        if nearest is not None:
            hit = hit & (span.near < nearest)
            nearest = torch.where(hit, span.near, nearest)
        else:
            nearest = torch.where(hit, span.near, 1e9)
        behind = mix(behind, face, hit.to(span.near.dtype))
    return behind


def _gleam(stage: Stage, direction: Vector, n: Vector) -> Tensor:
    """The mirror image of the sun, as small as a sample can show."""
    half = unit((stage.sun[0] - direction[0], stage.sun[1] - direction[1], stage.sun[2] - direction[2]))
    return dot(n, half).clamp_min(0.0) ** 110


def _lit(stage: Stage, colour: Vector, gleam: Tensor) -> Vector:
    r, g, b = (colour[i] + gleam * stage.key_on_things[i] for i in range(3))
    return r, g, b
