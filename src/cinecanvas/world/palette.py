"""The paints of the miniature world: colours of things, looks of floors, light of the times of day."""

from __future__ import annotations

from typing import Literal, NamedTuple

Ground = Literal["noise", "planks", "checker", "water", "tiles", "slabs", "ice"]
Heaven = Literal["clouds", "glow", "stars", "plain"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 30, 30),
    "orange": (248, 122, 8),
    "yellow": (250, 216, 16),
    "green": (16, 160, 62),
    "blue": (26, 74, 222),
    "purple": (122, 40, 186),
    "pink": (250, 128, 184),
    "white": (244, 244, 242),
    "black": (24, 24, 28),
    "grey": (128, 130, 134),
    "brown": (112, 62, 28),
    "cyan": (20, 206, 220),
}
PALE = ("yellow", "pink", "white", "cyan")  # their patterns are drawn in dark, those of all others in white


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
    "tiles": FloorLook("tiles", (38, 128, 142), (86, 178, 184), 0.0),
    "stone": FloorLook("slabs", (92, 90, 88), (150, 147, 142), 1.0),
    "ice": FloorLook("ice", (150, 196, 222), (206, 232, 244), 1.0),
}
GLOSS: dict[str, float] = {"tiles": 0.5, "ice": 0.6}  # how much of a perfect mirror a ground is, at a flat angle
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
    "dawn": SkyLook(
        "glow",
        (112, 142, 198),
        (250, 190, 204),
        (255, 240, 236),
        (0.74, 0.62, 0.62),
        (0.40, 0.40, 0.48),
        (0.86, 0.80, 0.80),
        (0.38, 0.37, 0.42),
        0.75,
    ),
}


def linear(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    """sRGB bytes as linear light; gamma 2 is close enough and costs one square root on the way back."""
    return (colour[0] / 255) ** 2, (colour[1] / 255) ** 2, (colour[2] / 255) ** 2
