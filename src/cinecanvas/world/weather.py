"""What is between the eye and the miniature world: fog, falling snow and rain, as functions of direction and time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cinecanvas.world.rays import Vector, mix
from cinecanvas.world.scene import Weather
from cinecanvas.world.stage import Stage, Textures, texel

HAZE: dict[Weather, float] = {"clear": 1e4, "fog": 9.5, "snowing": 15.0, "raining": 16.0}  # world units
GREYED: dict[Weather, float] = {"clear": 0.0, "fog": 0.5, "snowing": 0.6, "raining": 0.65}  # of the sky's colour
DIMMED: dict[Weather, float] = {"clear": 1.0, "fog": 0.85, "snowing": 0.9, "raining": 0.8}  # of the sun's light
# (cells per radian across, up; radius of a flake in cells; fall in rad/s), the nearest layer last
_SNOW = ((15.0, 15.0, 0.15, 0.32), (10.0, 10.0, 0.16, 0.5), (6.5, 6.5, 0.15, 0.75))
_RAIN = ((34.0, 7.0, 0.17, 1.9), (22.0, 4.5, 0.13, 2.6))


def veiled(stage: Stage, colour: Vector, distance: Tensor) -> Vector:
    """Things and floor behind the weather."""
    return mix(colour, stage.mist, 1.0 - torch.exp(-((distance / stage.haze) ** 2)))


def veiled_sky(stage: Stage, colour: Vector, direction: Vector, weather: Weather) -> Vector:
    """The sky behind the weather, which is thickest over the horizon."""
    least, most = (0.45, 0.55) if weather == "fog" else (0.15, 0.65)
    return mix(colour, stage.mist, least + most * torch.exp(-4.0 * direction[1].clamp_min(0.0)))


def fallen(stage: Stage, tiles: Textures, colour: Vector, direction: Vector, weather: Weather) -> Vector:
    """A picture with the flakes or streaks before it, which hang in the world: a turning camera passes them."""
    azimuth = torch.atan2(direction[0], -direction[2]) * stage.flip
    layers, strength, often = (_SNOW, 0.85, 0.45) if weather == "snowing" else (_RAIN, 0.45, 0.6)
    white = tuple(0.25 * m + 0.85 * (k + a) * 0.6 for m, k, a in zip(stage.mist, stage.key, stage.ambient, strict=True))
    for number, (wide, tall, radius, speed) in enumerate(layers):
        swing = 0.25 * torch.sin(1.7 * stage.seconds + number) if weather == "snowing" else 0.12 * direction[1] * wide
        u = azimuth * wide + swing + 40.0 * number
        v = (direction[1] + speed * stage.seconds) * tall
        column, row = u.floor(), v.floor()
        dice = texel(tiles.fine, column * 37.0 + stage.offset[0], row * 53.0 + stage.offset[1])
        place, other = torch.frac((dice * 7.31).abs()), torch.frac((dice * 19.7).abs())
        across = (u - column - 0.25 - 0.5 * place).abs()
        up = (v - row - 0.3 - 0.4 * other).abs()
        if weather == "snowing":
            cover = (1.6 - 1.3 * (across * across + up * up) / (radius * radius)).clamp(0.0, 1.0)
        else:
            cover = (1.0 - across / radius).clamp_min(0.0) * (1.4 - 4.0 * up).clamp(0.0, 1.0)
        colour = mix(colour, white, strength * cover * (other < often))  # type: ignore[arg-type]
    return colour


def mist(horizon: tuple[float, float, float], weather: Weather) -> tuple[float, float, float]:
    """The linear colour that hides what is far, from that of the horizon."""
    return greyed(horizon, 0.5 * (weather != "clear"))


def greyed(colour: tuple[float, float, float], part: float) -> tuple[float, float, float]:
    """A linear colour with that part of it replaced by grey of the same light."""
    grey = math.fsum(colour) / 3.0
    r, g, b = (c + part * (grey - c) for c in colour)
    return r, g, b
