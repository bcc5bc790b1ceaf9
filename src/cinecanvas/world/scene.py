"""What is in a clip of the miniature world, as plain typed values."""

from __future__ import annotations

import functools
import hashlib
import itertools
import random
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from cinecanvas.errors import BadRequest

Shape = Literal["ball", "cube", "cone", "cylinder"]
Colour = Literal["red", "orange", "yellow", "green", "blue", "purple", "pink", "white"]
Floor = Literal["grass", "sand", "snow", "water", "wood", "checker"]
Sky = Literal["day", "sunset", "night", "overcast"]
Motion = Literal["rest", "left", "right", "bounce", "fall", "rise", "near", "away"]
Camera = Literal["static", "pan_left", "pan_right", "zoom_in", "zoom_out"]

SWAPPED: Mapping[str, str] = {"left": "right", "right": "left", "pan_left": "pan_right", "pan_right": "pan_left"}
THING_ATOMS = ("shape", "colour", "motion")
SCENE_ATOMS = ("floor", "sky", "camera")


class Thing(BaseModel, frozen=True):
    """One object: what it is, where it is at mid-clip, and how it moves."""

    shape: Shape
    colour: Colour
    motion: Motion
    radius: float = Field(1.1, gt=0)  # world units; the camera stands 5.6 of them away
    x: float = 0.0  # world units, to the right of the middle
    z: float = 0.0  # world units, towards the camera
    heading: float = 0.0  # rad about the vertical
    vigour: float = Field(1.0, gt=0)  # multiplies the reach of every motion
    period: float = Field(0.9, gt=0)  # s: of one bounce, or of the fall
    phase: float = 0.0  # of the bounce, in periods


class Scene(BaseModel, frozen=True):
    """A whole clip; what happens is a function of the time in seconds alone."""

    things: tuple[Thing, ...]
    floor: Floor
    sky: Sky
    camera: Camera = "static"
    sweep: float = Field(1.0, gt=0)  # multiplies the reach of every camera move
    eye_height: float = Field(2.15, gt=0)  # world units
    light_azimuth: float = -0.8  # rad; 0 is from behind the camera, positive from the right
    light_elevation: float = 0.75  # rad
    texture: int = 0  # which part of the endless noise lies under this clip
    flipped: bool = False  # the noise is mirrored left to right


class Level(BaseModel, frozen=True):
    """The part of every vocabulary that a model is asked to learn."""

    shapes: tuple[Shape, ...]
    colours: tuple[Colour, ...]
    floors: tuple[Floor, ...]
    skies: tuple[Sky, ...]
    motions: tuple[Motion, ...]
    cameras: tuple[Camera, ...]


FIRST = Level(
    shapes=("ball", "cube", "cone", "cylinder"),
    colours=("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    floors=("grass", "sand", "snow", "water", "wood", "checker"),
    skies=("day", "sunset", "night", "overcast"),
    motions=("rest", "left", "right", "bounce", "fall", "rise", "near", "away"),
    cameras=("static", "pan_left", "pan_right", "zoom_in", "zoom_out"),
)
LEVELS: dict[str, Level] = {"first": FIRST, "full": FIRST}


def draw(seed: int, level: Level, *, still: bool = False, held_out: bool = False) -> Scene:
    """The scene of this seed; `still` leaves everything at rest, `held_out` draws only the triples kept apart."""
    rng = random.Random(f"scene:{seed}")
    thing = _thing(rng, _triples(level, still, held_out))
    return Scene(
        things=(thing,),
        floor=rng.choice(level.floors),
        sky=rng.choice(level.skies),
        # Half of the clips keep the camera still: a moving one is the harder half to learn, and rarer in prompts.
        camera="static" if still or rng.random() < 0.4 else rng.choice(level.cameras),
        sweep=rng.uniform(0.9, 1.15),
        eye_height=rng.uniform(2.0, 2.3),
        light_azimuth=rng.choice((-1.0, 1.0)) * rng.uniform(0.5, 1.0),
        light_elevation=rng.uniform(0.65, 0.9),
        texture=rng.randrange(1 << 20),
        flipped=rng.random() < 0.5,
    )


def change(scene: Scene, atom: str, value: Any) -> Scene:
    """The same scene with one atom (shape, colour, motion, floor, sky, camera, ...) given another value."""
    if atom in Scene.model_fields and atom != "things":
        return Scene.model_validate({**scene.model_dump(), atom: value})
    if atom in Thing.model_fields:
        first = {**scene.things[0].model_dump(), atom: value}
        return Scene.model_validate({**scene.model_dump(), "things": (first, *scene.things[1:])})
    possible = ", ".join((*THING_ATOMS, *SCENE_ATOMS))
    raise BadRequest(f"cannot change {atom!r} of a scene", f"its atoms are {possible}", "name one of them")


def mirror(scene: Scene) -> Scene:
    """The left-right mirrored scene: it renders to the flipped picture, texture included."""
    things = tuple(
        thing.model_copy(
            update={
                "x": -thing.x,
                "heading": -thing.heading,
                "motion": SWAPPED.get(thing.motion, thing.motion),
            }
        )
        for thing in scene.things
    )
    return scene.model_copy(
        update={
            "things": things,
            "camera": SWAPPED.get(scene.camera, scene.camera),
            "light_azimuth": -scene.light_azimuth,
            "flipped": not scene.flipped,
        }
    )


def held_out_triple(colour: str, shape: str, motion: str) -> bool:
    """Whether this combination is among the 5 % that training never sees; the same for a motion and its mirror."""
    # Mirroring is an augmentation, so left and right must be kept apart together.
    sideways = "sideways" if motion in ("left", "right") else motion
    return hashlib.sha256(f"0 {colour} {shape} {sideways}".encode()).digest()[0] < 13


@functools.cache
def _triples(level: Level, still: bool, held_out: bool) -> tuple[tuple[Colour, Shape, Motion], ...]:
    """What a thing of this level may be."""
    motions: tuple[Motion, ...] = ("rest",) if still else level.motions
    every = itertools.product(level.colours, level.shapes, motions)
    chosen = tuple(triple for triple in every if held_out_triple(*triple) == held_out)
    if not chosen:
        raise BadRequest("draw a scene that is held out", "none of this level's triples is", "ask for another level")
    return chosen


def _thing(rng: random.Random, triples: tuple[tuple[Colour, Shape, Motion], ...]) -> Thing:
    colour, shape, motion = rng.choice(triples)
    return Thing(
        shape=shape,
        colour=colour,
        motion=motion,
        radius=rng.uniform(0.95, 1.25),
        x=rng.uniform(-0.3, 0.3),
        z=rng.uniform(-0.2, 0.2),
        heading=rng.choice((-1.0, 1.0)) * rng.uniform(0.3, 0.75),  # a cube seen square on reads as a square
        vigour=rng.uniform(0.95, 1.1),
        period=rng.uniform(0.8, 1.05),
        phase=rng.random(),
    )
