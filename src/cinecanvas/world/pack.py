"""Scenes as numbers: every fact that a ray needs, as per-frame columns, and the variant of the code that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from cinecanvas.world import motion, rays, weather
from cinecanvas.world.camera import Lens
from cinecanvas.world.palette import COLOURS, FLOORS, PALE, SKIES, Ground, Heaven, linear
from cinecanvas.world.rays import Body, Kind, Look, Vector
from cinecanvas.world.scene import Scene, Shape, Thing, Weather
from cinecanvas.world.stage import TILE, Stage

KINDS: dict[Shape, Kind] = {"cube": "cube", "brick": "cube", "torus": "ring"}


class Variant(NamedTuple):
    """What a chunk of clips has in common, so that nothing else need be computed for it."""

    looks: tuple[Look, ...]
    ground: Ground
    heaven: Heaven
    weather: Weather


def variant(scene: Scene) -> Variant:
    """What the pictures of a scene need."""
    looks = tuple(Look(KINDS.get(one.shape, "quadric"), one.pattern, one.material) for one in scene.things)
    return Variant(looks, FLOORS[scene.floor].ground, SKIES[scene.sky].heaven, scene.weather)


def pack(
    scenes: Sequence[Scene], seconds: Sequence[motion.Array], side: int, device: torch.device
) -> tuple[Lens, Stage, tuple[Body, ...]]:
    """Scenes of equally many things at their times as per-frame columns; `side`: the shorter one, in samples."""
    rows = np.concatenate([_row(scene, at, side) for scene, at in zip(scenes, seconds, strict=True)])
    columns = torch.from_numpy(rows.astype(np.float32)).to(device).T.contiguous().unsqueeze(2)
    left = iter(columns.unbind(0))

    def three() -> Vector:
        return next(left), next(left), next(left)

    lens = Lens(next(left), next(left), next(left))
    bodies = tuple(
        Body(three(), (three(), three(), three()), three(), three(), three(), three(), next(left), three())
        for _ in scenes[0].things
    )
    stage = Stage(
        three(), next(left), next(left), next(left), (next(left), next(left)), three(), three(), three(), three(),
        next(left), three(), three(), three(), three(), three(), three(), three(), next(left), next(left), three(),
    )  # fmt: skip
    return lens, stage, bodies


def _row(scene: Scene, seconds: motion.Array, side: int) -> motion.Array:
    """Every number of a scene's frames (T, columns), in the order that `pack` reads them."""
    view = motion.view(scene, seconds)
    floor, sky = FLOORS[scene.floor], SKIES[scene.sky]
    high, around = scene.light_elevation, scene.light_azimuth
    sun = (np.cos(high) * np.sin(around), np.sin(high), np.cos(high) * np.cos(around))
    # The sun of an evening stands in the picture, on the side that the light comes from.
    beside = np.sign(around) * 0.3
    disc = (np.cos(0.1) * np.sin(beside), np.sin(0.1), -np.cos(0.1) * np.cos(beside))
    flip = -1.0 if scene.flipped else 1.0
    part, dim = weather.GREYED[scene.weather], weather.DIMMED[scene.weather]
    horizon = linear(sky.horizon)
    rest = (
        flip, float(scene.texture % TILE), float(scene.texture // TILE % TILE), *sun, *disc,
        *linear(floor.first), *linear(floor.second), floor.grain,
        *weather.greyed(linear(sky.zenith), part), *weather.greyed(horizon, part), *linear(sky.glow),
        *(dim * k for k in sky.key), *sky.ambient, *(dim * k for k in sky.key_on_things), *sky.ambient_on_things,
        sky.shadow * dim**2, weather.HAZE[scene.weather], *weather.mist(horizon, scene.weather),
    )  # fmt: skip
    columns = (
        view.yaw[:, None], view.pitch[:, None], view.focal[:, None],
        *(_body(thing, seconds, flip) for thing in scene.things),
        view.eye, (2.0 / (side * view.focal))[:, None], seconds[:, None], np.tile(rest, (len(seconds), 1)),
    )  # fmt: skip
    return np.concatenate(columns, axis=1)


def _body(thing: Thing, seconds: motion.Array, flip: float) -> motion.Array:
    """The numbers of one thing (T, columns)."""
    pose = motion.pose(thing, seconds)
    still = (
        *motion.half_size(thing), *rays.QUADRICS[thing.shape], *linear(COLOURS[thing.colour]),
        0.64 * flip, 0.64, 0.42, float(thing.shape == "ball"),
        *linear((44, 46, 58) if thing.colour in PALE else (244, 244, 240)),
    )  # fmt: skip
    count = len(seconds)
    return np.concatenate([pose.centre, pose.rotation.reshape(count, 9), np.tile(still, (count, 1))], axis=1)
