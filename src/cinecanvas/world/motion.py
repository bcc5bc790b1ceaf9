"""Where everything is at a given second: the laws of motion of the miniature world."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinecanvas.world.scene import Scene, Thing

Array = NDArray[np.float64]

CLIP = 2.0  # s from the first to the last frame of the usual clip (17 frames at 8 per second)
MIDDLE = CLIP / 2  # s, when a thing is at its (x, z) and the camera looks straight ahead
DISTANCE = 5.6  # world units from the camera to the middle of the stage
FOCAL = 1.85  # in halves of the shorter side of the frame
PITCH = 0.15  # rad, downwards: the horizon lies at 36 % of the height
PAN = 0.135  # rad/s: the far background moves by a quarter of the width in a clip
ZOOM = math.log(1.37) / CLIP  # 1/s
STRIDE = 1.18  # world units/s sideways
APPROACH = 1.55  # world units/s towards or away from the camera


class Pose(NamedTuple):
    """Where a thing is: centre (T, 3) in world units and rotation (T, 3, 3), local to world."""

    centre: Array
    rotation: Array


class View(NamedTuple):
    """How the camera stands: yaw (T,) in rad, positive to the left; focal (T,) in halves of the shorter side."""

    yaw: Array
    focal: Array


def half_size(thing: Thing) -> tuple[float, float, float]:
    """Half of the width, height and depth of a thing, in world units; all shapes look equally big."""
    r = thing.radius
    return {
        "ball": (r, r, r),
        "cube": (0.76 * r, 0.76 * r, 0.76 * r),
        "cone": (0.98 * r, 1.08 * r, 0.98 * r),
        "cylinder": (0.76 * r, 0.95 * r, 0.76 * r),
    }[thing.shape]


def pose(thing: Thing, seconds: Array) -> Pose:
    """The pose of a thing at each of the times (T,)."""
    along = eased(seconds) - MIDDLE
    across = {"left": -STRIDE, "right": STRIDE}.get(thing.motion, 0.0) * thing.vigour * along
    towards = {"near": APPROACH, "away": -APPROACH}.get(thing.motion, 0.0) * thing.vigour * along
    up = np.zeros_like(seconds)
    if thing.motion == "bounce":
        up = 1.3 * thing.vigour * parabola(seconds / thing.period + thing.phase)
    elif thing.motion == "fall":
        up = fallen(seconds, height=2.5 * thing.vigour, landing=1.15 * thing.period)
    elif thing.motion == "rise":
        clock = eased(seconds)
        up = 1.12 * thing.vigour * clock**2 / (clock + 0.5)
    half = half_size(thing)
    centre = np.stack([thing.x + across, half[1] + up, thing.z + towards], axis=1)
    rotation = np.broadcast_to(about_y(thing.heading), (len(seconds), 3, 3))
    if thing.shape == "ball":  # only a ball rolls; the others slide
        rotation = rolled(across / half[0], towards / half[0]) @ rotation
    return Pose(centre, rotation)


def view(scene: Scene, seconds: Array) -> View:
    """How the camera stands at each of the times (T,)."""
    along = (eased(seconds) - MIDDLE) * scene.sweep
    yaw = {"pan_left": PAN, "pan_right": -PAN}.get(scene.camera, 0.0) * along
    zoom = {"zoom_in": ZOOM, "zoom_out": -ZOOM}.get(scene.camera, 0.0) * along
    return View(yaw, FOCAL * np.exp(zoom))


def events(scene: Scene, first: float, last: float) -> list[tuple[float, str]]:
    """What is heard between two times, as (seconds, name), in order."""
    heard: list[tuple[float, str]] = []
    for thing in scene.things:
        if thing.motion == "bounce":
            turns = (at / thing.period + thing.phase for at in (first, last))
            whole = range(math.ceil(next(turns)), math.floor(next(turns)) + 1)
            heard += [((n - thing.phase) * thing.period, "bounce") for n in whole]
        if thing.motion == "fall":
            landing = 1.15 * thing.period
            heard += [(at, name) for at, name in ((landing, "land"), (1.7 * landing, "bounce")) if first <= at <= last]
    return sorted(heard)


def eased(seconds: Array) -> Array:
    """A clock that runs true for one clip and then slows down smoothly, so that long clips stay near the stage."""
    late = np.maximum(seconds - CLIP, 0.0)
    return np.minimum(seconds, CLIP) + 1.0 - np.exp(-late)


def parabola(turns: Array) -> Array:
    """Height 0..1 of a thing that leaves the floor at every whole turn."""
    part = turns - np.floor(turns)
    return 4.0 * part * (1.0 - part)


def fallen(seconds: Array, *, height: float, landing: float) -> Array:
    """Height of a thing dropped at 0 s that lands at `landing` and hops once, with 0.35 of its speed."""
    hop = 0.7 * landing  # s in the air: twice 0.35 of the time of the fall
    down = height * (1.0 - (seconds / landing) ** 2)
    again = np.clip((seconds - landing) / hop, 0.0, 1.0)
    return np.where(seconds < landing, down, 0.1225 * height * 4.0 * again * (1.0 - again))


def about_y(angle: float) -> Array:
    """Rotation (3, 3) about the vertical."""
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]])


def rolled(across: Array, towards: Array) -> Array:
    """Rotation (T, 3, 3) of a ball that rolled so many radians to the right or towards the camera."""
    c, s = np.cos(across), np.sin(-across)
    ct, st = np.cos(towards), np.sin(towards)
    one, nil = np.ones_like(c), np.zeros_like(c)
    about_z = np.stack([c, -s, nil, s, c, nil, nil, nil, one], axis=1).reshape(-1, 3, 3)
    about_x = np.stack([one, nil, nil, nil, ct, -st, nil, st, ct], axis=1).reshape(-1, 3, 3)
    return about_z @ about_x
