"""Where everything is at a given second: the laws of motion of the miniature world."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cinecanvas.world.scene import Scene, Thing, rolls

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
SPIN = 2.6  # rad/s about the vertical
CIRCLE = 2.4  # rad/s along an orbit
MEETING = 1.5  # world units/s of each of two things that collide
TILT = 0.12  # rad/s
DOLLY = 0.22  # 1/s
ORBIT = 0.34  # rad/s of the camera about the stage
UPRIGHT: Array = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # the axis of a thing points at us


class Pose(NamedTuple):
    """Where a thing is: centre (T, 3) in world units and rotation (T, 3, 3), local to world."""

    centre: Array
    rotation: Array


class View(NamedTuple):
    """How the camera stands: yaw (T,) in rad, positive to the left; focal (T,) in halves of the shorter side.

    Pitch (T,) in rad, downwards; eye (T, 3) in world units.
    """

    yaw: Array
    focal: Array
    pitch: Array
    eye: Array


def half_size(thing: Thing) -> tuple[float, float, float]:
    """Half of the width, height and depth of a thing, in world units; all shapes look equally big."""
    r = thing.radius
    return {
        "ball": (r, r, r),
        "cube": (0.76 * r, 0.76 * r, 0.76 * r),
        "cone": (0.98 * r, 1.08 * r, 0.98 * r),
        "cylinder": (0.76 * r, 0.95 * r, 0.76 * r),
        "egg": (0.82 * r, 1.08 * r, 0.82 * r),
        "brick": (1.1 * r, 0.5 * r, 0.6 * r),
        "disc": (1.0 * r, 0.24 * r, 1.0 * r),
        "pillar": (0.42 * r, 1.25 * r, 0.42 * r),
        "torus": (0.98 * r, 0.98 * r, 0.98 * r),
    }[thing.shape]


def pose(thing: Thing, seconds: Array) -> Pose:
    """The pose of a thing at each of the times (T,)."""
    across, up, towards = travelled(thing, seconds)
    half = half_size(thing)
    on_edge = rolls(thing) and thing.shape != "ball"
    rest = half[0] if on_edge else half[1]
    centre = np.stack([thing.x + across, rest + up, thing.z + towards], axis=1)
    rotation = np.broadcast_to(about_y(thing.heading), (len(seconds), 3, 3))
    if thing.motion in ("spin", "orbit"):
        rotation = turned(
            thing.heading + sense(thing) * (SPIN if thing.motion == "spin" else CIRCLE) * turning(seconds)
        )
    if on_edge:  # a wheel faces us
        rotation = rolled(across / half[0], np.zeros_like(across)) @ UPRIGHT
    elif rolls(thing) and thing.motion != "orbit":
        rotation = rolled(across / half[0], towards / half[0]) @ rotation
    elif thing.shape == "torus":
        rotation = rotation @ UPRIGHT
    return Pose(centre, rotation)


def travelled(thing: Thing, seconds: Array) -> tuple[Array, Array, Array]:
    """How far a thing is from its place: to the right, up and towards the camera, each (T,) in world units."""
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
    elif thing.motion == "jump":
        part = np.clip((seconds - MIDDLE) / thing.period + 0.5, 0.0, 1.0)
        up = 1.7 * thing.vigour * 4.0 * part * (1.0 - part)
    elif thing.motion == "hide":
        across = sense(thing) * 2.0 * STRIDE * along
    elif thing.motion == "collide":  # after the hit both go back, with two thirds of their speed
        across = math.copysign(MEETING, thing.x) * np.where(along < 0, -along, 0.65 * along)
    elif thing.motion == "orbit":
        angle = sense(thing) * (2.0 * math.pi * thing.phase + CIRCLE * turning(seconds))
        across, towards = thing.reach * np.sin(angle), thing.reach * np.cos(angle)
    return across, up, towards


def sense(thing: Thing) -> float:
    """Which way a thing turns, circles or hides: 1 is to the right where it is nearest to us."""
    return math.copysign(1.0, thing.heading)


def view(scene: Scene, seconds: Array) -> View:
    """How the camera stands at each of the times (T,)."""
    along = (eased(seconds) - MIDDLE) * scene.sweep
    yaw = {"pan_left": PAN, "pan_right": -PAN, "orbit_left": -ORBIT, "orbit_right": ORBIT}.get(
        scene.camera, 0.0
    ) * along
    zoom = {"zoom_in": ZOOM, "zoom_out": -ZOOM}.get(scene.camera, 0.0) * along
    pitch = PITCH + {"tilt_up": -TILT, "tilt_down": TILT}.get(scene.camera, 0.0) * along
    distance = DISTANCE * np.exp({"dolly_in": -DOLLY, "dolly_out": DOLLY}.get(scene.camera, 0.0) * along)
    round_it = yaw if scene.camera.startswith("orbit") else np.zeros_like(yaw)
    height = np.full_like(yaw, scene.eye_height)
    return View(
        yaw,
        FOCAL * np.exp(zoom),
        pitch,
        np.stack([distance * np.sin(round_it), height, distance * np.cos(round_it)], 1),
    )


def events(scene: Scene, first: float, last: float) -> list[tuple[float, str]]:
    """What is heard between two times, as (seconds, name), in order."""
    heard: set[tuple[float, str]] = set()  # both parties to a collision hear the same hit
    for thing in scene.things:
        if thing.motion == "bounce":
            turns = (at / thing.period + thing.phase for at in (first, last))
            whole = range(math.ceil(next(turns)), math.floor(next(turns)) + 1)
            heard |= {((n - thing.phase) * thing.period, "bounce") for n in whole}
        landing = 1.15 * thing.period
        sounds = {
            "fall": ((landing, "land"), (1.7 * landing, "bounce")),
            "jump": ((MIDDLE - 0.5 * thing.period, "jump"), (MIDDLE + 0.5 * thing.period, "land")),
            "collide": ((MIDDLE, "hit"),),
        }.get(thing.motion, ())
        heard |= {(at, name) for at, name in sounds if first <= at <= last}
    return sorted(heard)


def eased(seconds: Array) -> Array:
    """A clock that runs true for one clip and then slows down smoothly, so that long clips stay near the stage."""
    late = np.maximum(seconds - CLIP, 0.0)
    return np.minimum(seconds, CLIP) + 1.0 - np.exp(-late)


def turning(seconds: Array) -> Array:
    """Seconds since mid-clip: what turns need not slow down, for it stays where it is."""
    return seconds - MIDDLE


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


def turned(angle: Array) -> Array:
    """Rotations (T, 3, 3) about the vertical."""
    return np.stack([about_y(one) for one in angle])


def rolled(across: Array, towards: Array) -> Array:
    """Rotation (T, 3, 3) of a ball that rolled so many radians to the right or towards the camera."""
    c, s = np.cos(across), np.sin(-across)
    ct, st = np.cos(towards), np.sin(towards)
    one, nil = np.ones_like(c), np.zeros_like(c)
    about_z = np.stack([c, -s, nil, s, c, nil, nil, nil, one], axis=1).reshape(-1, 3, 3)
    about_x = np.stack([one, nil, nil, nil, ct, -st, nil, st, ct], axis=1).reshape(-1, 3, 3)
    return about_z @ about_x
