"""How people say what is in a clip, and what their words mean: one grammar, read in both directions."""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import BaseModel

from cinecanvas.errors import BadRequest
from cinecanvas.world.scene import Scene, held_out_triple

__all__ = ["Caption", "Reading", "Spec", "caption", "held_out_triple", "read", "spec", "vocabulary"]

Style = Literal["mixed", "plain", "short", "verbose"]
Forms = Mapping[str, tuple[str, ...]]
Pick = Callable[[random.Random, str, str], str]
SLOTS = ("floor", "sky", "colour", "shape", "motion", "camera")


class Spec(BaseModel, frozen=True):
    """The typed atoms of a scene that a caption may mention and a judge can check."""

    floor: str
    sky: str
    colour: str
    shape: str
    motion: str
    camera: str


class Caption(BaseModel, frozen=True):
    """A sentence about a scene, the whole truth about it, and the slots that the sentence really says."""

    text: str
    spec: Spec
    mentioned: tuple[str, ...]


class Reading(BaseModel, frozen=True):
    """What a free sentence says: value by slot, the words that said it, and the words nobody understood."""

    values: dict[str, str]
    words: dict[str, str]
    ignored: tuple[str, ...]


def _verbs(stems: str, *ends: str) -> tuple[str, ...]:
    """Every "slides/sliding" of `stems` before every end: the finite form, then the -ing form."""
    pairs = (pair.split("/") for pair in stems.split())
    return tuple(" ".join(f"{verb} {end}".split()) for pair in pairs for verb in pair for end in ends)


# The first form of each value is the plain one; HELD_OUT forms are true synonyms that training never shows.
COLOURS: Forms = {
    "red": ("red", "crimson", "scarlet", "ruby", "bright red"),
    "orange": ("orange", "tangerine", "amber", "bright orange"),
    "yellow": ("yellow", "golden", "lemon", "bright yellow"),
    "green": ("green", "emerald", "bright green", "leaf green"),
    "blue": ("blue", "azure", "royal blue", "navy", "bright blue"),
    "purple": ("purple", "violet", "lilac", "plum"),
    "pink": ("pink", "rosy", "rose", "hot pink", "bright pink"),
    "white": ("white", "pure white", "snow white", "milky"),
}
SHAPES: Forms = {
    "ball": ("ball", "sphere", "orb", "globe", "marble"),
    "cube": ("cube", "box", "block", "crate"),
    "cone": ("cone", "party hat", "pointed cone", "spike"),
    "cylinder": ("cylinder", "can", "barrel", "tube", "pillar"),
}
FLOORS: Forms = {
    "grass": ("on grass", "on the grass", "on a lawn", "on a meadow", "in a meadow", "on a green field", "over grass"),
    "sand": ("on sand", "on the sand", "on a beach", "in the desert", "in a sandy desert", "over sand", "at the beach"),
    "snow": ("on snow", "in the snow", "on a snowy field", "on snowy ground", "over snow", "in a winter landscape"),
    "water": ("on water", "on the water", "over water", "on a lake", "over a lake", "on the sea", "over the sea"),
    "wood": (
        "on a wooden floor", "on wood", "on wooden boards", "on wooden planks", "over a wood floor", "on a plank floor",
    ),
    "checker": (
        "on a checkered floor", "on a checkerboard", "on a chessboard", "on checkered tiles", "over a tiled floor",
        "on black and white tiles",
    ),
}  # fmt: skip
SKIES: Forms = {
    "day": (
        "by day", "on a sunny day", "under a blue sky", "in daylight", "at noon", "in the sunshine", "on a clear day",
        "mid-day",
    ),
    "sunset": ("at sunset", "at dusk", "in the evening", "at dawn", "at sunrise", "under an orange sky", "sunset"),
    "night": ("at night", "under the stars", "by night", "under a starry sky", "in the dark", "in moonlight", "night"),
    "overcast": (
        "under an overcast sky", "under a grey sky", "on a cloudy day", "on a grey day", "under grey clouds",
        "overcast", "in cloudy weather",
    ),
}  # fmt: skip
_MOVES = "moves/moving slides/sliding glides/gliding travels/travelling drifts/drifting goes/going rolls/rolling"
MOTIONS: Forms = {
    "rest": (
        *_verbs("rests/resting sits/sitting stands/standing stays/staying", "", "still"),
        "standing there", "not moving", "at rest",
    ),
    "left": _verbs(_MOVES, "to the left", "left", "leftwards", "from right to left"),
    "right": _verbs(_MOVES, "to the right", "right", "rightwards", "from left to right"),
    "bounce": _verbs("bounces/bouncing hops/hopping leaps/leaping jumps/jumping", "", "up and down"),
    "fall": (*_verbs("falls/falling drops/dropping", "", "down", "from the sky", "from above"), "lands", "landing"),
    "rise": (
        *_verbs("rises/rising floats/floating flies/flying lifts/lifting", "up", "into the air", "upwards"),
        "rises", "rising",
    ),
    "near": (
        *_verbs("comes/coming moves/moving slides/sliding rolls/rolling", "closer", "towards us", "towards the camera"),
        "approaches", "approaching",
    ),
    "away": (
        *_verbs("moves/moving goes/going slides/sliding rolls/rolling", "away", "into the distance", "away from us"),
        "leaves", "leaving",
    ),
}  # fmt: skip
CAMERAS: Forms = {
    "static": ("static camera", "the camera is still", "fixed camera", "static shot", "locked camera", "tripod shot"),
    "pan_left": (
        "camera pans left", "pan left", "the camera pans to the left", "the camera turns left", "camera panning left",
        "panning to the left",
    ),
    "pan_right": (
        "camera pans right", "pan right", "the camera pans to the right", "the camera turns right",
        "camera panning right", "panning to the right",
    ),
    "zoom_in": ("camera zooms in", "zoom in", "the camera zooms in", "zooming in", "slow zoom in", "zoom in on it"),
    "zoom_out": ("camera zooms out", "zoom out", "the camera zooms out", "zooming out", "slow zoom out"),
}  # fmt: skip
FORMS: Mapping[str, Forms] = {
    "floor": FLOORS, "sky": SKIES, "colour": COLOURS, "shape": SHAPES, "motion": MOTIONS, "camera": CAMERAS,
}  # fmt: skip
HELD_OUT: Mapping[str, Forms] = {
    "colour": {
        "red": ("vermilion", "cherry"), "orange": ("pumpkin", "apricot"), "yellow": ("canary", "saffron"),
        "green": ("jade", "malachite"), "blue": ("cobalt", "sapphire"), "purple": ("amethyst", "aubergine"),
        "pink": ("fuchsia", "flamingo"), "white": ("ivory", "chalky"),
    },
    "shape": {
        "ball": ("spheroid", "bowling ball"), "cube": ("die", "hexahedron"), "cone": ("funnel",),
        "cylinder": ("drum", "canister"),
    },
    "floor": {
        "grass": ("on turf",), "sand": ("on the dunes",), "snow": ("on a glacier",),
        "water": ("on the ocean", "on a pond"), "wood": ("on parquet", "on timber"), "checker": ("on a draughtboard",),
    },
    "sky": {
        "day": ("in the afternoon",), "sunset": ("at twilight", "in the golden hour"), "night": ("at midnight",),
        "overcast": ("in gloomy weather", "under a leaden sky"),
    },
    "motion": {
        "left": ("heads west", "gliding leftward"), "right": ("heads east", "gliding rightward"),
        "bounce": ("springs",), "fall": ("plummets", "plunges"), "rise": ("ascends", "levitates"),
        "near": ("advances",), "away": ("retreats", "recedes"),
    },
    "camera": {
        "zoom_in": ("push in",), "zoom_out": ("pull back",), "pan_left": ("swivel left",),
        "pan_right": ("swivel right",),
    },
}  # fmt: skip
FILLERS = (
    "a cinematic shot of", "a video of", "a high quality video of", "a short clip of", "a beautiful scene with",
    "footage of", "a realistic render of", "a close view of", "an animation of",
)  # fmt: skip
TRAILERS = ("highly detailed", "soft light", "high quality", "cinematic", "beautiful colours", "4k", "smooth motion")
THINGS = ("object", "thing", "shape")
_SILENT = """a an the of is are there and with it its that this in on at to one single some while as then which by
    for from please show shows showing me us make movie film picture image camera sky floor"""
# Said alone, these words still mean something; `read` falls back on them where no whole form is found.
_ALONE: Mapping[str, tuple[str, str]] = {
    "left": ("motion", "left"), "leftwards": ("motion", "left"), "right": ("motion", "right"),
    "rightwards": ("motion", "right"), "closer": ("motion", "near"), "away": ("motion", "away"),
    "upwards": ("motion", "rise"), "rolling left": ("motion", "left"),
    "grass": ("floor", "grass"), "grassy": ("floor", "grass"), "lawn": ("floor", "grass"), "meadow": ("floor", "grass"),
    "sand": ("floor", "sand"), "sandy": ("floor", "sand"), "beach": ("floor", "sand"), "desert": ("floor", "sand"),
    "snow": ("floor", "snow"), "snowy": ("floor", "snow"), "winter": ("floor", "snow"), "water": ("floor", "water"),
    "lake": ("floor", "water"), "sea": ("floor", "water"), "wood": ("floor", "wood"), "wooden": ("floor", "wood"),
    "planks": ("floor", "wood"), "checkered": ("floor", "checker"), "checkerboard": ("floor", "checker"),
    "chessboard": ("floor", "checker"), "tiles": ("floor", "checker"), "tiled": ("floor", "checker"),
    "day": ("sky", "day"), "daylight": ("sky", "day"), "sunny": ("sky", "day"), "noon": ("sky", "day"),
    "sunshine": ("sky", "day"), "blue sky": ("sky", "day"), "dusk": ("sky", "sunset"), "dawn": ("sky", "sunset"),
    "evening": ("sky", "sunset"), "sunrise": ("sky", "sunset"), "stars": ("sky", "night"), "starry": ("sky", "night"),
    "moonlight": ("sky", "night"), "dark": ("sky", "night"), "cloudy": ("sky", "overcast"), "grey": ("sky", "overcast"),
    "grey sky": ("sky", "overcast"), "orange sky": ("sky", "sunset"), "clouds": ("sky", "overcast"),
    "grey clouds": ("sky", "overcast"), "starry sky": ("sky", "night"), "overcast sky": ("sky", "overcast"),
    "green field": ("floor", "grass"), "black and white tiles": ("floor", "checker"),
}  # fmt: skip


def spec(scene: Scene) -> Spec:
    """The complete truth about a scene."""
    thing = scene.things[0]
    return Spec(
        floor=scene.floor,
        sky=scene.sky,
        colour=thing.colour,
        shape=thing.shape,
        motion=thing.motion,
        camera=scene.camera,
    )


def caption(scene: Scene, seed: int, *, style: Style = "mixed", held_out: bool = False) -> Caption:
    """A sentence about a scene; `plain` says every slot in its first form, `held_out` uses unseen words."""
    truth = spec(scene)
    rng = random.Random(f"caption:{seed}")
    if style == "plain":
        return _full(truth, rng, said=SLOTS, pick=_first, article="a")
    if style not in ("mixed", "short", "verbose"):
        raise BadRequest(f"a caption in the style {style!r}", "mixed, plain, short, verbose", "name one of them")
    pick = _held_out if held_out else _any
    chance = rng.random()
    if style == "short" or (style == "mixed" and chance < 0.2):
        return _short(truth, rng, pick)
    one = _full(truth, rng, said=_kept(truth, rng), pick=pick, article=rng.choice(("a", "a", "the", "")))
    if style == "verbose" or chance > 0.9:
        text = f"{rng.choice(FILLERS)} {one.text}"
        if rng.random() < 0.7:
            text += ", " + ", ".join(rng.sample(TRAILERS, rng.randint(1, 2)))
        return one.model_copy(update={"text": text})
    return one


@functools.cache
def vocabulary() -> frozenset[str]:
    """Every word that the grammar can say, without the held-out forms."""
    forms = itertools.chain.from_iterable(f for values in FORMS.values() for f in values.values())
    texts = itertools.chain(forms, FILLERS, TRAILERS, THINGS, ("a", "an", "the", "is"))
    return frozenset(word for text in texts for word in words(text))


def words(text: str) -> list[str]:
    """The words of a text, lower case, without punctuation."""
    return re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower())


def read(text: str) -> Reading:
    """What a free sentence says, the longest forms first; the first mention of a slot wins."""
    tokens = words(text)
    lexicon = _lexicon()
    longest = max(len(form) for form in lexicon)
    values: dict[str, str] = {}
    said: dict[str, str] = {}
    ignored: list[str] = []
    place = 0
    while place < len(tokens):
        for length in range(min(longest, len(tokens) - place), 0, -1):
            meaning = lexicon.get(tuple(tokens[place : place + length]))
            if meaning:
                slot, value = meaning
                if values.setdefault(slot, value) == value:
                    said.setdefault(slot, " ".join(tokens[place : place + length]))
                else:
                    ignored.extend(tokens[place : place + length])
                place += length
                break
        else:
            if tokens[place] not in _silent():
                ignored.append(tokens[place])
            place += 1
    return Reading(values=values, words=said, ignored=tuple(ignored))


@functools.cache
def _lexicon() -> dict[tuple[str, ...], tuple[str, str]]:
    """Meaning by form, as words."""
    known = {tuple(words(form)): meaning for form, meaning in _ALONE.items()}
    for slot, values in FORMS.items():
        for value, forms in values.items():
            for form in forms:
                known[tuple(words(form))] = slot, value
                if slot == "shape":
                    known[tuple(words(form + "s"))] = slot, value
    return known


@functools.cache
def _silent() -> frozenset[str]:
    """Words that carry no slot and need no remark."""
    return frozenset(word for text in (_SILENT, *FILLERS, *TRAILERS, *THINGS) for word in words(text))


def _full(truth: Spec, rng: random.Random, *, said: tuple[str, ...], pick: Pick, article: str) -> Caption:
    """Object and motion, then floor, sky and camera; their order is shuffled unless the article says plain."""
    colour = pick(rng, "colour", truth.colour) if "colour" in said else ""
    shape = pick(rng, "shape", truth.shape) if "shape" in said else rng.choice(THINGS)
    action = pick(rng, "motion", truth.motion) if "motion" in said else ""
    noun = f"{colour} {shape}".strip()
    before = action and " " not in action and action.endswith("ing") and rng.random() < 0.5
    noun = f"{action} {noun}" if before else noun
    subject = f"{_article(article, noun)} {noun}".strip()
    if action and not before:
        is_doing = action.split()[0].endswith("ing") and pick is not _first and rng.random() < 0.3
        subject += f" is {action}" if is_doing else f" {action}"
    tail = [pick(rng, slot, getattr(truth, slot)) for slot in ("floor", "sky", "camera") if slot in said]
    if pick is not _first:
        rng.shuffle(tail)
    glue = ", " if pick is not _first and rng.random() < 0.4 else " "
    text = subject
    for part in tail:
        loose = not part.startswith(("on ", "in ", "at ", "over ", "under ", "by "))
        text += (", " if loose else glue) + part
    return Caption(text=text, spec=truth, mentioned=tuple(slot for slot in SLOTS if slot in said))


def _short(truth: Spec, rng: random.Random, pick: Pick) -> Caption:
    """Two or three words, as people type them."""
    choices: list[tuple[str, ...]] = [("colour", "shape"), ("colour", "shape"), ("shape",), ("sky",), ("floor",)]
    choices += [("shape", "floor"), ("shape", "sky")]
    if truth.motion != "rest":
        choices += [("shape", "motion"), ("shape", "motion"), ("colour", "shape", "motion")]
    said = rng.choice(choices)
    text = " ".join(pick(rng, slot, getattr(truth, slot)) for slot in said)
    if said[0] not in ("sky", "floor") and rng.random() < 0.3:
        text = f"{_article('a', text)} {text}"
    return Caption(text=text, spec=truth, mentioned=tuple(slot for slot in SLOTS if slot in said))


def _kept(truth: Spec, rng: random.Random) -> tuple[str, ...]:
    """The slots that are said: most of them mostly, stillness rarely."""
    drop = {
        "colour": 0.1, "shape": 0.1, "floor": 0.18, "sky": 0.18,
        "motion": 0.6 if truth.motion == "rest" else 0.12,
        "camera": 0.75 if truth.camera == "static" else 0.2,
    }  # fmt: skip
    return tuple(slot for slot in SLOTS if rng.random() >= drop[slot])


def _article(article: str, noun: str) -> str:
    return "an" if article == "a" and noun[0] in "aeiou" else article


def _first(rng: random.Random, slot: str, value: str) -> str:
    return FORMS[slot][value][0]


def _any(rng: random.Random, slot: str, value: str) -> str:
    """The plain form in a third of the cases, otherwise any."""
    forms = FORMS[slot][value]
    return forms[0] if rng.random() < 0.33 else rng.choice(forms)


def _held_out(rng: random.Random, slot: str, value: str) -> str:
    """A form that training never shows, where there is one."""
    forms = HELD_OUT[slot].get(value, ())
    return rng.choice(forms) if forms else _any(rng, slot, value)
