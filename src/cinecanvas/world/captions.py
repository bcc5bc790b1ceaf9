"""How people say what is in a clip, and what their words mean: one grammar, read in both directions."""

from __future__ import annotations

import functools
import itertools
import random
from typing import Any, Literal

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from cinecanvas.errors import BadRequest
from cinecanvas.world import sentences, stories
from cinecanvas.world.grammar import COMPLETE, FILLERS, FORMS, HELD_OUT, THINGS, TRAILERS, grammar
from cinecanvas.world.reading import Reading, read, words
from cinecanvas.world.scene import FIRST, FULL, Level, Scene, held_out_triple, relation, rolls
from cinecanvas.world.sentences import SLOTS

__all__ = [
    "FORMS", "FULL_SLOTS", "HELD_OUT", "SLOTS", "Caption", "Reading", "Spec",
    "caption", "held_out_triple", "level_of", "read", "spec", "vocabulary", "words",
]  # fmt: skip

Style = Literal["mixed", "plain", "short", "verbose"]


class Spec(BaseModel, frozen=True):
    """The typed atoms of a scene that a caption may mention and a judge can check.

    What is absent is "" (the relation of a thing that is alone); dumps leave out later slots at their plain value.
    """

    floor: str
    sky: str
    colour: str
    shape: str
    motion: str
    camera: str
    weather: str = "clear"
    size: str = "medium"
    pattern: str = "plain"
    material: str = "matte"
    manner: str = "natural"
    count: str = "one"
    relation: str = ""
    other_colour: str = ""
    other_shape: str = ""
    other_motion: str = ""
    other_size: str = ""
    other_pattern: str = ""
    other_material: str = ""
    third_colour: str = ""
    third_shape: str = ""

    @model_serializer(mode="wrap")
    def _lean(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in dump(self).items() if k in SLOTS or v != type(self).model_fields[k].default}


FULL_SLOTS = tuple(Spec.model_fields)


class Caption(BaseModel, frozen=True):
    """A sentence about a scene, the whole truth about it, and the slots that the sentence really says."""

    text: str
    spec: Spec
    mentioned: tuple[str, ...]


def level_of(scene: Scene) -> Level:
    """The smallest level that can say everything about a scene."""
    thing = scene.things[0]
    plain = len(scene.things) == 1 and not (
        set(thing.model_dump()) | set(scene.model_dump())
    ) & {"size", "pattern", "material", "manner", "weather"}  # fmt: skip
    known = (
        thing.shape in FIRST.shapes and thing.colour in FIRST.colours and thing.motion in FIRST.motions
        and scene.floor in FIRST.floors and scene.sky in FIRST.skies and scene.camera in FIRST.cameras
    )  # fmt: skip
    return FIRST if plain and known else FULL


def spec(scene: Scene, level: Level | None = None) -> Spec:
    """The complete truth about a scene, in the slots of a level (the smallest that can say it)."""
    thing, *others = scene.things
    slots: dict[str, str] = {
        "floor": scene.floor, "sky": scene.sky, "colour": thing.colour, "shape": thing.shape, "motion": thing.motion,
        "camera": scene.camera,
    }  # fmt: skip
    if grammar(level or level_of(scene)) is not COMPLETE:
        return Spec(**slots)
    slots |= {
        "weather": scene.weather, "size": thing.size, "pattern": thing.pattern, "material": thing.material,
        "count": ("one", "two", "three")[len(others)], "relation": relation(scene) or "",
    }  # fmt: skip
    if thing.motion in ("left", "right", "near", "away"):
        slots["manner"] = "roll" if rolls(thing) else "slide"
    for prefix, one in zip(("other_", "third_"), others, strict=False):
        every = ("colour", "shape", "motion", "size", "pattern", "material")
        slots |= {prefix + name: getattr(one, name) for name in every if prefix + name in FULL_SLOTS}
    return Spec(**slots)


def caption(
    scene: Scene, seed: int, *, style: Style = "mixed", held_out: bool = False, level: Level | None = None
) -> Caption:
    """A sentence about a scene; `plain` says every slot in its first form, `held_out` uses unseen words.

    It speaks the language of a level: by itself that of the smallest one that can say everything about the scene.
    """
    if style not in ("mixed", "plain", "short", "verbose"):
        raise BadRequest(f"a caption in the style {style!r}", "mixed, plain, short, verbose", "name one of them")
    level = level or level_of(scene)
    truth = spec(scene, level)
    rng = random.Random(f"caption:{seed}")
    facts = {slot: str(getattr(truth, slot)) for slot in FULL_SLOTS}
    tell = stories.told if grammar(level) is COMPLETE else sentences.told
    text, said = tell(facts, rng, style, held_out)
    return Caption(text=text, spec=truth, mentioned=tuple(slot for slot in FULL_SLOTS if slot in said))


@functools.cache
def vocabulary(level: Level = FIRST) -> frozenset[str]:
    """Every word that the grammar of a level can say, without the held-out forms."""
    known = grammar(level)
    forms = itertools.chain.from_iterable(f for values in known.forms.values() for f in values.values())
    small = ("a", "an", "the", "is", *(("and", "that") if known is COMPLETE else ()))
    texts = itertools.chain(forms, FILLERS, TRAILERS, THINGS, small)
    return frozenset(word for text in texts for word in words(text))
