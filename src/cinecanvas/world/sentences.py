"""Sentences about one plain thing: the builders behind captions of the first level."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from cinecanvas.world.grammar import FILLERS, FORMS, HELD_OUT, THINGS, TRAILERS

Facts = Mapping[str, str]  # value by slot
Told = tuple[str, tuple[str, ...]]  # a sentence and the slots that it says
Pick = Callable[[random.Random, str, str], str]
SLOTS = ("floor", "sky", "colour", "shape", "motion", "camera")


def told(facts: Facts, rng: random.Random, style: str, held_out: bool) -> Told:
    """A sentence in a style; `held_out` uses unseen words."""
    if style == "plain":
        return full(facts, rng, said=SLOTS, pick=first, article="a")
    pick = unseen if held_out else any_form
    chance = rng.random()
    if style == "short" or (style == "mixed" and chance < 0.2):
        return short(facts, rng, pick)
    text, said = full(facts, rng, said=kept(facts, rng), pick=pick, article=rng.choice(("a", "a", "the", "")))
    return (ornate(text, rng) if style == "verbose" or chance > 0.9 else text), said


def ornate(text: str, rng: random.Random) -> str:
    """A sentence with the flourishes that prompts have."""
    text = f"{rng.choice(FILLERS)} {text}"
    if rng.random() < 0.7:
        text += ", " + ", ".join(rng.sample(TRAILERS, rng.randint(1, 2)))
    return text


def full(facts: Facts, rng: random.Random, *, said: tuple[str, ...], pick: Pick, article: str) -> Told:
    """Object and motion, then floor, sky and camera; their order is shuffled unless the article says plain."""
    colour = pick(rng, "colour", facts["colour"]) if "colour" in said else ""
    shape = pick(rng, "shape", facts["shape"]) if "shape" in said else rng.choice(THINGS)
    action = pick(rng, "motion", facts["motion"]) if "motion" in said else ""
    noun = f"{colour} {shape}".strip()
    before = action and " " not in action and action.endswith("ing") and rng.random() < 0.5
    noun = f"{action} {noun}" if before else noun
    subject = f"{article_of(article, noun)} {noun}".strip()
    if action and not before:
        is_doing = action.split()[0].endswith("ing") and pick is not first and rng.random() < 0.3
        subject += f" is {action}" if is_doing else f" {action}"
    tail = [pick(rng, slot, facts[slot]) for slot in ("floor", "sky", "camera") if slot in said]
    if pick is not first:
        rng.shuffle(tail)
    glue = ", " if pick is not first and rng.random() < 0.4 else " "
    text = subject
    for part in tail:
        loose = not part.startswith(("on ", "in ", "at ", "over ", "under ", "by "))
        text += (", " if loose else glue) + part
    return text, tuple(slot for slot in SLOTS if slot in said)


def short(facts: Facts, rng: random.Random, pick: Pick) -> Told:
    """Two or three words, as people type them."""
    choices: list[tuple[str, ...]] = [("colour", "shape"), ("colour", "shape"), ("shape",), ("sky",), ("floor",)]
    choices += [("shape", "floor"), ("shape", "sky")]
    if facts["motion"] != "rest":
        choices += [("shape", "motion"), ("shape", "motion"), ("colour", "shape", "motion")]
    said = rng.choice(choices)
    text = " ".join(pick(rng, slot, facts[slot]) for slot in said)
    if said[0] not in ("sky", "floor") and rng.random() < 0.3:
        text = f"{article_of('a', text)} {text}"
    return text, tuple(slot for slot in SLOTS if slot in said)


def kept(facts: Facts, rng: random.Random) -> tuple[str, ...]:
    """The slots that are said: most of them mostly, stillness rarely."""
    drop = {
        "colour": 0.1, "shape": 0.1, "floor": 0.18, "sky": 0.18,
        "motion": 0.6 if facts["motion"] == "rest" else 0.12,
        "camera": 0.75 if facts["camera"] == "static" else 0.2,
    }  # fmt: skip
    return tuple(slot for slot in SLOTS if rng.random() >= drop[slot])


def article_of(article: str, noun: str) -> str:
    return "an" if article == "a" and noun[0] in "aeiou" else article


def first(rng: random.Random, slot: str, value: str) -> str:
    return FORMS[slot][value][0]


def any_form(rng: random.Random, slot: str, value: str) -> str:
    """The plain form in a third of the cases, otherwise any."""
    forms = FORMS[slot][value]
    return forms[0] if rng.random() < 0.33 else rng.choice(forms)


def unseen(rng: random.Random, slot: str, value: str) -> str:
    """A form that training never shows, where there is one."""
    forms = HELD_OUT[slot].get(value, ())
    return rng.choice(forms) if forms else any_form(rng, slot, value)
