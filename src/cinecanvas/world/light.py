"""What light does to the miniature world: sky, floor, shadows and the faces of things, in linear colour."""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from cinecanvas.world.rays import Body, Kind, Vector, at, crossed, dot, local, mix, normal, scaled, to_body, unit

Ground = Literal["noise", "planks", "checker", "water"]
Heaven = Literal["clouds", "glow", "stars", "plain"]
TILE = 1024  # texels of the endless noise, in each direction
TEXEL = 0.03  # world units of floor per texel

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 30, 30),
    "orange": (248, 122, 8),
    "yellow": (250, 216, 16),
    "green": (16, 160, 62),
    "blue": (26, 74, 222),
    "purple": (122, 40, 186),
    "pink": (250, 128, 184),
    "white": (244, 244, 242),
}


class FloorLook(NamedTuple):
    """How a floor is drawn: two sRGB colours, how it is patterned, how grainy it is."""

    ground: Ground
    first: tuple[int, int, int]
    second: tuple[int, int, int]
    grain: float


class SkyLook(NamedTuple):
    """A time of day: sRGB sky, light on the floor, light on things (readable even at night), shadow depth."""

    heaven: Heaven
    zenith: tuple[int, int, int]
    horizon: tuple[int, int, int]
    glow: tuple[int, int, int]
    key: tuple[float, float, float]
    ambient: tuple[float, float, float]
    key_on_things: tuple[float, float, float]
    ambient_on_things: tuple[float, float, float]
    shadow: float


FLOORS: dict[str, FloorLook] = {
    "grass": FloorLook("noise", (78, 108, 46), (138, 160, 88), 1.5),
    "sand": FloorLook("noise", (192, 162, 112), (224, 200, 152), 0.9),
    "snow": FloorLook("noise", (200, 211, 228), (232, 237, 244), 0.6),
    "water": FloorLook("water", (34, 74, 100), (50, 98, 122), 1.0),
    "wood": FloorLook("planks", (112, 70, 42), (172, 122, 82), 0.6),
    "checker": FloorLook("checker", (62, 64, 72), (206, 204, 200), 0.0),
}
SKIES: dict[str, SkyLook] = {
    "day": SkyLook(
        "clouds",
        (78, 142, 220),
        (186, 214, 238),
        (255, 255, 255),
        (1.0, 0.96, 0.88),
        (0.36, 0.41, 0.50),
        (0.95, 0.93, 0.88),
        (0.36, 0.38, 0.42),
        0.85,
    ),
    "sunset": SkyLook(
        "glow",
        (122, 78, 138),
        (252, 158, 96),
        (255, 226, 150),
        (0.96, 0.66, 0.44),
        (0.36, 0.29, 0.34),
        (0.98, 0.84, 0.70),
        (0.36, 0.32, 0.33),
        0.85,
    ),
    "night": SkyLook(
        "stars",
        (7, 10, 34),
        (26, 36, 84),
        (235, 240, 255),
        (0.20, 0.23, 0.37),
        (0.08, 0.095, 0.17),
        (0.66, 0.68, 0.76),
        (0.20, 0.21, 0.26),
        0.8,
    ),
    "overcast": SkyLook(
        "plain",
        (150, 155, 162),
        (192, 195, 198),
        (255, 255, 255),
        (0.30, 0.30, 0.31),
        (0.54, 0.55, 0.57),
        (0.64, 0.64, 0.64),
        (0.40, 0.40, 0.41),
        0.75,
    ),
}


class Stage(NamedTuple):
    """All that a chunk of N frames needs beside its body, as per-frame columns (N, 1); colours are linear RGB."""

    eye: Vector
    pixel: Tensor  # rad per sample
    seconds: Tensor
    flip: Tensor  # -1 mirrors the noise
    offset: tuple[Tensor, Tensor]  # texels
    sun: Vector  # unit, towards the light
    disc: Vector  # unit, where the sun or moon stands in the sky
    first: Vector
    second: Vector
    grain: Tensor
    zenith: Vector
    horizon: Vector
    glow: Vector
    key: Vector
    ambient: Vector
    key_on_things: Vector
    ambient_on_things: Vector
    shadow: Tensor


class Textures(NamedTuple):
    """Endless tiles (TILE * TILE,): smooth noise and fine grain of mean 0, stars of 0..1."""

    smooth: Tensor
    fine: Tensor
    stars: Tensor


@functools.cache
def textures(device: str) -> Textures:
    """The tiles, the same on every machine."""
    rng = np.random.default_rng(20261122)
    along = np.fft.fftfreq(TILE) * TILE
    frequency = np.hypot(along[:, None], along[None, :])
    frequency[0, 0] = 1.0

    def band(low: float, high: float, slope: float) -> np.ndarray:
        weight = frequency**-slope * (frequency >= low) * np.exp(-((frequency / high) ** 2))
        tile = np.fft.ifft2(np.fft.fft2(rng.standard_normal((TILE, TILE))) * weight).real
        return tile / tile.std()

    stars = np.zeros((TILE, TILE))
    rows, columns = rng.integers(0, TILE, 1500), rng.integers(0, TILE, 1500)
    stars[rows, columns] = rng.uniform(0.25, 1.0, 1500)
    soft = np.fft.ifft2(np.fft.fft2(stars) * np.exp(-((frequency / 130.0) ** 2))).real
    soft = np.clip(soft / soft.max() * 1.6, 0.0, 1.0)
    tiles = (band(4, 60, 1.6), band(30, 220, 1.0), soft)
    return Textures(*(torch.from_numpy(tile.reshape(-1).astype(np.float32)).to(device) for tile in tiles))


def linear(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    """sRGB bytes as linear light; gamma 2 is close enough and costs one square root on the way back."""
    return (colour[0] / 255) ** 2, (colour[1] / 255) ** 2, (colour[2] / 255) ** 2


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
        light = _texel(tiles.stars, azimuth * per_radian + stage.offset[0], height * per_radian + stage.offset[1])
        return mix(colour, stage.glow, light * (height * 12.0).clamp_max(1.0))
    cover = _texel(tiles.smooth, azimuth * 90.0 + stage.offset[0], height * 260.0 + stage.offset[1])
    return mix(colour, stage.glow, (0.42 * cover - 0.05).clamp(0.0, 0.8) * (height * 9.0).clamp_max(1.0))


def floor(stage: Stage, tiles: Textures, point: Vector, distance: Tensor, ground: Ground) -> Vector:
    """The colour of the floor itself (not of water), fading to its mean where a sample covers more than its detail."""
    across = distance * stage.pixel
    along = distance * across / stage.eye[1]
    x, z = point[0] * stage.flip, point[2]
    u, v = x / TEXEL + stage.offset[0], z / TEXEL + stage.offset[1]
    if ground == "checker":
        shade = 0.5 + 0.5 * _square(x / 1.1, 0.55 / across) * _square(z / 1.1 + 0.5, 0.55 / along)
        return mix(stage.first, stage.second, shade)
    if ground == "planks":
        plank = torch.floor(x / 0.7)
        tone = torch.frac(torch.sin(plank * 12.9898 + stage.offset[0]).abs() * 43.758)
        streak = _texel(tiles.smooth, u * 2.0, v * 0.3 + plank * 97.0)
        edge = (x / 0.7 - plank - 0.5).abs()
        gap = ((edge - 0.46) * 25.0).clamp(0.0, 1.0) / (1.0 + (across / 0.09) ** 2)
        shade = 0.25 + 0.5 * tone + stage.grain * 0.22 * streak / (1.0 + (along / 0.3) ** 2)
        return scaled(mix(stage.first, stage.second, shade.clamp(0.0, 1.2)), 1.0 - 0.6 * gap)
    far = 1.0 / (1.0 + (along / 0.10) ** 2)
    broad = _texel(tiles.smooth, u * 0.6, v * 0.6) / (1.0 + (along / 0.6) ** 2)
    rough = 0.10 * _texel(tiles.fine, u, v) * far + 0.13 * broad
    return mix(stage.first, stage.second, 0.5 + stage.grain * 1.6 * rough)


def waves(stage: Stage, tiles: Textures, point: Vector, distance: Tensor) -> tuple[Tensor, Tensor]:
    """The slope of the water in x and z."""
    x, z = point[0] * stage.flip, point[2]
    calm = 0.028 / (1.0 + (distance / 9.0) ** 2)
    u, v = x / (3.0 * TEXEL) + stage.offset[0], z / TEXEL + stage.offset[1]
    drift = stage.seconds * 16.0
    slope_x = _texel(tiles.smooth, u, v + drift)
    slope_z = _texel(tiles.smooth, u + 311.0, v - 0.6 * drift)
    return 0.5 * slope_x * stage.flip * calm, slope_z * calm


def shade(stage: Stage, point: Vector, distance: Tensor, colour: Vector, body: Body, kind: Kind) -> Vector:
    """The floor under its light: soft shadow by how much of the body the light must cross, and the dark of contact."""
    toward = local(body, stage.sun)
    span = crossed(body, to_body(body, point), toward, kind)
    through = (span.far - span.near.clamp_min(0.0)).clamp_min(0.0)
    # Absorption by thickness gives a penumbra from one ray; a thing high up casts a fainter shadow.
    height = (body.centre[1] - body.half[1]).clamp_min(0.0)
    lit = 1.0 - stage.shadow * (1.0 - torch.exp(-through * (4.0 / (1.0 + 0.8 * height)) / body.half[0]))
    gap = (body.centre[0] - point[0], body.centre[1] - point[1], body.centre[2] - point[2])
    far = dot(gap, gap)
    open_sky = 1.0 - (0.9 * body.half[0] * body.half[0] * body.centre[1] * torch.rsqrt(far) / far).clamp_max(0.8)
    fog = 1.0 - torch.exp(-((distance / 25.0) ** 2))
    lit = lit * 0.72
    r, g, b = (colour[i] * (stage.key[i] * lit + stage.ambient[i] * open_sky) for i in range(3))
    return mix((r, g, b), stage.horizon, fog)


def face(stage: Stage, origin: Vector, direction: Vector, body: Body, kind: Kind, near: Tensor, side: Tensor) -> Vector:
    """The light of a body where a ray meets it; anything where it does not."""
    inside = at(to_body(body, origin), local(body, direction), near)
    n = normal(body, inside, side, kind)
    colour = body.colour
    if kind == "quadric":  # only balls roll, and one band is enough to see it
        band = (1.0 - (dot(inside, body.stripe).abs() - 0.2).mul(14.0).clamp(0.0, 1.0)) * body.stripes
        colour = scaled(colour, 1.0 - 0.45 * band)
    # Half of wrapped light keeps the terminator soft and the far side readable.
    facing = (0.15 + 0.85 * dot(n, stage.sun)).clamp_min(0.0)
    up = 0.5 + 0.5 * n[1]
    ground = 0.35 - 0.35 * up
    height = at(origin, direction, near)[1]
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


def _texel(tile: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """The nearest texel of an endless tile; the tiles are smooth at the scale of a sample, so no more is needed."""
    column = u.floor().to(torch.int32) & (TILE - 1)
    row = v.floor().to(torch.int32) & (TILE - 1)
    return tile[(row * TILE + column).long()]


def _square(x: Tensor, sharp: Tensor) -> Tensor:
    """A square wave of period 2 between -1 and 1 whose edges are as soft as a sample is wide."""
    wave = (torch.remainder(x, 2.0) - 1.0).abs() * 2.0 - 1.0
    return (wave * sharp).clamp(-1.0, 1.0)
