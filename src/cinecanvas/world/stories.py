"""Sentences about all that a scene may hold: two or three things, their surfaces and sizes, the weather."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from cinecanvas.world.grammar import COMPLETE, ROLLS, SLIDES, THINGS
from cinecanvas.world.reading import OF_A_THING, manner
from cinecanvas.world.sentences import Facts, Told, article_of, ornate

Choose = Callable[[random.Random, Sequence[str], Sequence[str]], str]  # of the forms, and of those kept apart
_PLACE = ("floor", "sky", "weather", "camera")
_LOOSE = ("on ", "in ", "at ", "over ", "under ", "by ", "while ", "with ", "without ")  # these need no comma
_DROPPED = {  # how often a slot is left out; what says nothing new is left out mostly
    "colour": 0.1, "shape": 0.1, "size": 0.12, "pattern": 0.12, "material": 0.15, "motion": 0.12, "floor": 0.2,
    "sky": 0.2, "weather": 0.12, "camera": 0.2, "relation": 0.15,
}  # fmt: skip
_DULL = {"rest": 0.65, "static": 0.78, "clear": 0.92, "matte": 0.9}


def told(facts: Facts, rng: random.Random, style: str, held_out: bool) -> Told:
    """A sentence in a style; `held_out` uses unseen words."""
    if style == "plain":
        return _story(facts, rng, _sayable(facts), _plain, article="a")
    choose = _unseen if held_out else _any
    chance = rng.random()
    if style == "short" or (style == "mixed" and chance < 0.2):
        return _short(facts, rng, choose)
    text, said = _story(facts, rng, _kept(facts, rng), choose, article=rng.choice(("a", "a", "the")))
    return (ornate(text, rng) if style == "verbose" or chance > 0.9 else text), said


def _story(facts: Facts, rng: random.Random, said: frozenset[str], choose: Choose, *, article: str) -> Told:
    """Who does what, next to whom; then floor, sky, weather and camera in any order."""
    subject, action, mentioned = _clause(facts, rng, said, choose, "", article)
    text = f"{subject} {action}".strip()
    partner = action.endswith(COMPLETE.towards)
    if partner or any(slot.startswith("other_") for slot in said):
        other, its_action, more = _clause(facts, rng, said, choose, "other_", "the" if article == "the" else "a")
        mentioned |= more
        if partner:
            text += f" {other}"
        elif "relation" in said:
            text += f" {_say(facts, rng, choose, 'relation')} {other}"
            mentioned |= {"relation"}
        else:
            text += f" and {other}"
        finite = its_action and not its_action.split()[0].endswith("ing")
        text += (" that " if finite and (partner or "relation" in said) else " " if its_action else "") + its_action
    if any(slot.startswith("third_") for slot in said):
        third, _, more = _clause(facts, rng, said, choose, "third_", "a")
        text, mentioned = f"{text} and {third}", mentioned | more
    tail = [slot for slot in _PLACE if slot in said]
    if choose is not _plain:
        rng.shuffle(tail)
    glue = ", " if choose is not _plain and rng.random() < 0.4 else " "
    for part in (_say(facts, rng, choose, slot) for slot in tail):
        text += (glue if part.startswith(_LOOSE) else ", ") + part
    return text, tuple(mentioned | set(tail))


def _clause(
    facts: Facts, rng: random.Random, said: frozenset[str], choose: Choose, prefix: str, article: str
) -> tuple[str, str, set[str]]:
    """A thing and its adjectives, what it does, and the slots that this says."""
    words = {slot: _say(facts, rng, choose, prefix + slot) for slot in OF_A_THING if prefix + slot in said}
    mentioned = {prefix + slot for slot in words}
    action = words.pop("motion", "")
    if action and not prefix:
        mentioned |= {slot for slot, _ in manner(action, facts["motion"])}
    shape = words.pop("shape", "") or rng.choice(THINGS)
    adjectives = list(words.values())
    if choose is not _plain and "colour" in words and rng.random() < 0.3:
        rng.shuffle(adjectives)
    single = action.endswith("ing") and " " not in action and not action.endswith(COMPLETE.towards)
    if choose is not _plain and single and rng.random() < 0.5:
        adjectives, action = [action, *adjectives], ""
    noun = " ".join((*adjectives, shape))
    if action and not prefix and choose is not _plain and action.split()[0].endswith("ing") and rng.random() < 0.3:
        action = f"is {action}"
    return f"{article_of(article, noun)} {noun}".strip(), action, mentioned


def _short(facts: Facts, rng: random.Random, choose: Choose) -> Told:
    """A few words, as people type them."""
    sayable = _sayable(facts)
    choices: list[tuple[str, ...]] = [("colour", "shape"), ("colour", "shape"), ("shape",), ("sky",), ("floor",)]
    choices += [("shape", "floor"), ("colour", "shape", "floor"), ("weather",), ("size", "shape"), ("pattern", "shape")]
    choices += [("size", "colour", "shape"), ("material", "colour", "shape"), ("material", "shape"), ("count",)]
    choices += [
        ("pattern", "colour", "shape"),
        ("shape", "weather"),
        ("shape", "motion"),
        ("colour", "shape", "motion"),
    ]
    choices += [("shape", "relation", "other_shape"), ("colour", "shape", "relation", "other_colour", "other_shape")]
    possible = [slots for slots in choices if sayable.issuperset(slots)]
    said = rng.choice([slots for slots in possible if "motion" not in slots or facts["motion"] not in _joint(facts)])
    words = [_say(facts, rng, choose, slot) for slot in said]
    text = " ".join(words)
    if "shape" in said and rng.random() < 0.3:
        text = f"{article_of('a', text)} {text}"
    more = manner(words[said.index("motion")], facts["motion"]) if "motion" in said else ()
    return text, (*said, *(slot for slot, _ in more))


def _say(facts: Facts, rng: random.Random, choose: Choose, slot: str) -> str:
    """A form for a slot's value; of a motion, only those that are true of how this thing moves."""
    kind, value = slot.split("_")[-1], facts[slot]
    forms = COMPLETE.forms[kind][value]
    kept_apart = COMPLETE.held_out[kind].get(value, ())
    if kind == "motion":
        needs_other = slot == "motion" and value in _joint(facts)
        forms = tuple(form for form in forms if form.endswith(COMPLETE.towards) == needs_other)
        untrue = SLIDES if facts["manner"] == "roll" else ROLLS
        if slot == "motion" and facts["manner"] != "natural":
            forms = tuple(form for form in forms if form.split()[0] not in untrue)
    return choose(rng, forms, kept_apart)


def _joint(facts: Facts) -> tuple[str, ...]:
    """The motions of this scene that are told together with the second thing."""
    return ("collide", "hide", "orbit") if facts["count"] == "two" else ()


def _sayable(facts: Facts) -> frozenset[str]:
    """The slots that have a word for their value, of those that the plain sentence would not say twice."""
    return frozenset(
        slot for slot, value in facts.items()
        if value in COMPLETE.forms.get(slot.split("_")[-1], {})
        and not (slot == "other_motion" and value == "collide")
        and not (slot == "motion" and value in ("collide", "hide") and facts["count"] != "two")
    )  # fmt: skip


def _kept(facts: Facts, rng: random.Random) -> frozenset[str]:
    """The slots that are said."""
    said = {
        slot for slot in sorted(_sayable(facts) - {"count"})
        if rng.random() >= _DULL.get(facts[slot], _DROPPED[slot.split("_")[-1]])
    }  # fmt: skip
    for prefix, often in (("other_", 0.12), ("third_", 0.3)):
        if rng.random() < often:
            said = {slot for slot in said if not slot.startswith(prefix)}
    if not any(slot.startswith("other_") for slot in said):
        said = {slot for slot in said if not slot.startswith(("relation", "third_"))}
    if facts["motion"] == "hide" and "motion" in said:
        said.discard("relation")
    return frozenset(said)


def _plain(rng: random.Random, forms: Sequence[str], kept_apart: Sequence[str]) -> str:
    return forms[0]


def _any(rng: random.Random, forms: Sequence[str], kept_apart: Sequence[str]) -> str:
    """The plain form in a third of the cases, otherwise any."""
    return forms[0] if rng.random() < 0.33 else rng.choice(forms)


def _unseen(rng: random.Random, forms: Sequence[str], kept_apart: Sequence[str]) -> str:
    """A form that training never shows, where there is one."""
    return rng.choice(kept_apart) if kept_apart else _any(rng, forms, kept_apart)
