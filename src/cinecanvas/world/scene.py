"""What is in a clip of the miniature world, as plain typed values."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import random
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, model_serializer

from cinecanvas.errors import BadRequest

Shape = Literal["ball", "cube", "cone", "cylinder", "egg", "brick", "disc", "pillar", "torus"]
Colour = Literal[
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "grey", "brown", "cyan"
]  # fmt: skip
Floor = Literal["grass", "sand", "snow", "water", "wood", "checker", "tiles", "stone", "ice"]
Sky = Literal["day", "sunset", "night", "overcast", "dawn"]
Motion = Literal[
    "rest", "left", "right", "bounce", "fall", "rise", "near", "away", "spin", "jump", "orbit", "collide", "hide"
]  # fmt: skip
Camera = Literal[
    "static", "pan_left", "pan_right", "zoom_in", "zoom_out",
    "tilt_up", "tilt_down", "dolly_in", "dolly_out", "orbit_left", "orbit_right",
]  # fmt: skip
Size = Literal["medium", "small", "big"]
Pattern = Literal["plain", "stripes", "dots", "checks", "two_tone"]
Material = Literal["matte", "shiny", "metal", "glass"]
Manner = Literal["natural", "roll", "slide"]  # how a thing travels; naturally a ball rolls and all else slides
Weather = Literal["clear", "fog", "snowing", "raining"]
Relation = Literal["left", "right", "behind", "front"]

SWAPPED: Mapping[str, str] = {
    "left": "right", "right": "left", "pan_left": "pan_right", "pan_right": "pan_left",
    "orbit_left": "orbit_right", "orbit_right": "orbit_left",
}  # fmt: skip
THING_ATOMS = ("shape", "colour", "motion")
SCENE_ATOMS = ("floor", "sky", "camera")
# What came after the first level, and its plain value: a stored scene names only what departs from it.
LATER: Mapping[str, str | float] = {
    "size": "medium", "pattern": "plain", "material": "matte", "manner": "natural", "reach": 1.0, "weather": "clear",
}  # fmt: skip
ROLLING: tuple[Shape, ...] = ("ball", "egg", "cylinder", "disc", "pillar", "torus")


def _without_plain(dumped: dict[str, Any]) -> dict[str, Any]:
    """Only those later atoms that say something, so that scenes of the first level stay the same text."""
    return {name: value for name, value in dumped.items() if name not in LATER or value != LATER[name]}


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
    size: Size = "medium"  # the word; the radius is the fact
    pattern: Pattern = "plain"
    material: Material = "matte"
    manner: Manner = "natural"
    reach: float = Field(default=1.0, gt=0)  # world units: radius of an orbit about (x, z)

    @model_serializer(mode="wrap")
    def _lean(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_plain(dump(self))


class Scene(BaseModel, frozen=True):
    """A whole clip; what happens is a function of the time in seconds alone."""

    things: tuple[Thing, ...] = Field(min_length=1)
    floor: Floor
    sky: Sky
    camera: Camera = "static"
    sweep: float = Field(1.0, gt=0)  # multiplies the reach of every camera move
    eye_height: float = Field(2.15, gt=0)  # world units
    light_azimuth: float = -0.8  # rad; 0 is from behind the camera, positive from the right
    light_elevation: float = 0.75  # rad
    texture: int = 0  # which part of the endless noise lies under this clip
    flipped: bool = False  # the noise is mirrored left to right
    weather: Weather = "clear"

    @model_serializer(mode="wrap")
    def _lean(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without_plain(dump(self))


class Level(BaseModel, frozen=True):
    """The part of every vocabulary that a model is asked to learn."""

    shapes: tuple[Shape, ...]
    colours: tuple[Colour, ...]
    floors: tuple[Floor, ...]
    skies: tuple[Sky, ...]
    motions: tuple[Motion, ...]
    cameras: tuple[Camera, ...]
    # What follows is drawn from a stream of its own; where all of it is empty, a scene is one plain thing.
    weathers: tuple[Weather, ...] = ()
    sizes: tuple[Size, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    materials: tuple[Material, ...] = ()
    most_things: int = 1

    @property
    def words(self) -> dict[str, tuple[str, ...]]:
        """The values of the six slots that every scene has."""
        return {
            "floor": self.floors, "sky": self.skies, "colour": self.colours, "shape": self.shapes,
            "motion": self.motions, "camera": self.cameras,
        }  # fmt: skip


FIRST = Level(
    shapes=("ball", "cube", "cone", "cylinder"),
    colours=("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    floors=("grass", "sand", "snow", "water", "wood", "checker"),
    skies=("day", "sunset", "night", "overcast"),
    motions=("rest", "left", "right", "bounce", "fall", "rise", "near", "away"),
    cameras=("static", "pan_left", "pan_right", "zoom_in", "zoom_out"),
)
FULL = Level(
    shapes=get_args(Shape),
    colours=get_args(Colour),
    floors=get_args(Floor),
    skies=get_args(Sky),
    motions=get_args(Motion),
    cameras=get_args(Camera),
    weathers=get_args(Weather),
    sizes=get_args(Size),
    patterns=get_args(Pattern),
    materials=get_args(Material),
    most_things=3,
)
LEVELS: dict[str, Level] = {"first": FIRST, "full": FULL}


def draw(seed: int, level: Level, *, still: bool = False, held_out: bool = False) -> Scene:
    """The scene of this seed; `still` leaves everything at rest, `held_out` draws only the triples kept apart."""
    rng = random.Random(f"scene:{seed}")
    thing = _thing(rng, _triples(level, still, held_out))
    scene = Scene(
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
    return scene if level.most_things == 1 else _furnished(random.Random(f"more:{seed}"), scene, level, still=still)


def change(scene: Scene, atom: str, value: Any, *, thing: int = 0) -> Scene:
    """The same scene with one atom (shape, colour, motion, floor, sky, camera, ...) given another value."""
    if atom in Scene.model_fields and atom != "things":
        return Scene.model_validate({**scene.model_dump(), atom: value})
    if atom in Thing.model_fields:
        if not 0 <= thing < len(scene.things):
            raise BadRequest(f"change thing {thing} of a scene", f"it has {len(scene.things)}", "count from 0")
        things = [one.model_dump() for one in scene.things]
        things[thing][atom] = value
        return Scene.model_validate({**scene.model_dump(), "things": things})
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


def relation(scene: Scene) -> Relation | None:
    """How the first thing stands to the second at mid-clip, seen from the camera; None where it is alone."""
    if len(scene.things) < 2:
        return None
    across = scene.things[0].x - scene.things[1].x
    towards = scene.things[0].z - scene.things[1].z
    if abs(across) > abs(towards):
        return "left" if across < 0 else "right"
    return "behind" if towards < 0 else "front"


def rolls(thing: Thing) -> bool:
    """Whether it turns over the floor as it travels."""
    return thing.manner == "roll" or (thing.manner == "natural" and thing.shape == "ball")


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


_SIZES: Mapping[Size, float] = {"small": 0.52, "medium": 0.85, "big": 1.2}
_ALONGSIDE = ("left", "right", "hide")  # travels sideways, so a neighbour must stand behind it or before it
_SCREENS: tuple[Shape, ...] = ("ball", "cube", "cylinder")  # wide and high enough to hide a thing
_SPUN: tuple[Shape, ...] = ("cube", "brick", "torus")  # their spin is seen even without a pattern


def _furnished(rng: random.Random, scene: Scene, level: Level, *, still: bool) -> Scene:
    """A scene of the first kind with all that came later: weather, size, pattern, material, more things."""
    first = _dressed(rng, scene.things[0], level)
    weather = "clear" if rng.random() < 0.5 else rng.choice(level.weathers)
    scene = scene.model_copy(update={"weather": weather})
    while any(clashes(first.colour, place) for place in (scene.floor, scene.sky)):
        scene = scene.model_copy(update={"floor": rng.choice(level.floors), "sky": rng.choice(level.skies)})
    count = 2 if first.motion in ("collide", "hide") else rng.choice((1,) * 11 + (2,) * 7 + (3,) * 2)
    if count == 1:
        return scene.model_copy(update={"things": (first,)})
    others: list[Thing] = []
    while len(others) + 1 < count:
        one = _neighbour(rng, (first, *others), level, still=still)
        if not any(clashes(one.colour, place) for place in (scene.floor, scene.sky)):
            others.append(one)
    return scene.model_copy(update={"things": _placed(rng, (first, *others))})


def clashes(colour: str, place: str) -> bool:
    """Whether a thing of this colour would not be seen on that floor or under that sky."""
    return (colour, place) in {
        ("black", "night"), ("grey", "stone"), ("brown", "wood"), ("cyan", "ice"), ("cyan", "tiles"), ("white", "ice"),
        ("grey", "night"),
    }  # fmt: skip


def _dressed(rng: random.Random, thing: Thing, level: Level) -> Thing:
    """A plain thing with a size, a surface and a way to travel."""
    size = "medium" if rng.random() < 0.4 else rng.choice(level.sizes)
    material = "matte" if rng.random() < 0.4 else rng.choice(level.materials)
    pattern = "plain" if rng.random() < 0.3 or material in ("metal", "glass") else rng.choice(level.patterns)
    if thing.motion == "spin" and thing.shape not in _SPUN and pattern == "plain":
        pattern = rng.choice(tuple(p for p in level.patterns if p != "plain"))
        material = "matte" if material in ("metal", "glass") else material
    manner = "natural"
    if thing.motion in ("left", "right"):
        manner = "roll" if thing.shape in ROLLING and rng.random() < 0.5 else "slide"
    elif thing.motion in ("near", "away"):
        manner = "roll" if thing.shape == "ball" and rng.random() < 0.5 else "slide"
    return thing.model_copy(
        update={
            "size": size,
            "radius": thing.radius * _SIZES[size],
            "material": material,
            "pattern": pattern,
            "manner": manner,
            "vigour": thing.vigour * (0.75 if size == "big" else 1.0),  # near or high up it would leave the picture
            "reach": rng.uniform(1.0, 1.25),
        }
    )


def _neighbour(rng: random.Random, before: tuple[Thing, ...], level: Level, *, still: bool) -> Thing:
    """Another thing, of another colour and never of a combination that is kept apart."""
    leader = before[0].motion
    calm: tuple[Motion, ...] = ("rest",) * 5 + ("bounce", "spin", "jump", "rise", "fall")
    if leader == "collide":
        calm = ("collide",)
    elif still or leader in ("hide", "orbit"):
        calm = ("rest",)
    while True:
        shapes = tuple(one for one in level.shapes if leader != "hide" or one in _SCREENS) or level.shapes
        colour, shape, motion = rng.choice(level.colours), rng.choice(shapes), rng.choice(calm)
        if colour not in [one.colour for one in before] and not held_out_triple(colour, shape, motion):
            return _dressed(rng, _thing(rng, ((colour, shape, motion),)), level)


def _placed(rng: random.Random, things: tuple[Thing, ...]) -> tuple[Thing, ...]:
    """Two or three things where they do not run into one another, or, if that is their motion, do."""
    first, second, *rest = (one.model_copy(update={"radius": 0.82 * one.radius}) for one in things)
    side = rng.choice((-1.0, 1.0))
    if first.motion == "collide":
        heading = rng.choice((-1.0, 1.0)) * rng.uniform(0.15, 0.3)
        places = (side * _touching(first, second, heading), 0.0), (-side * _touching(second, first, heading), 0.0)
        first, second = (one.model_copy(update={"heading": heading}) for one in (first, second))
    elif first.motion == "hide":
        first = first.model_copy(update={"radius": min(first.radius, 0.62)})
        second = second.model_copy(update={"radius": max(second.radius, 0.95), "size": "big"})
        if first.size == "big":
            first = first.model_copy(update={"size": "medium"})
        places = (0.0, -1.3), (side * rng.uniform(0.0, 0.25), 0.55)
    elif first.motion == "orbit":
        places = (0.0, 0.0), (0.0, 0.0)
        first = first.model_copy(update={"radius": min(first.radius, 0.7), "reach": rng.uniform(1.65, 1.85)})
        second = second.model_copy(update={"radius": min(second.radius, 0.8)})
    elif first.motion in _ALONGSIDE or rng.random() < 0.4:
        deep = rng.choice((-1.0, 1.0))
        places = (0.45 * side, 0.8 * deep - 0.2), (-0.6 * side, -0.8 * deep - 0.2)
    else:
        places = (side * rng.uniform(1.15, 1.35), first.z), (-side * rng.uniform(1.15, 1.35), second.z)
    placed = [
        one.model_copy(update={"x": x, "z": z}) for one, (x, z) in zip((first, second), places, strict=True)
    ]  # fmt: skip
    for one in rest:
        placed.append(one.model_copy(update={"x": -1.7 * side, "z": -2.6}))
    return tuple(placed)


def _touching(one: Thing, other: Thing, heading: float) -> float:
    """Half of the distance between the middles of two things of the same heading that touch, world units."""
    width = {"ball": 1.0, "egg": 0.82, "brick": 1.1, "cube": 0.76, "cylinder": 0.76, "pillar": 0.42}
    a, b = (width.get(each.shape, 0.98) * each.radius for each in (one, other))
    if one.shape in ROLLING and other.shape in ROLLING:
        return (a * b) ** 0.5 if one.shape == other.shape == "ball" else 0.5 * (a + b)
    return 0.5 * (a + b) / math.cos(heading)
