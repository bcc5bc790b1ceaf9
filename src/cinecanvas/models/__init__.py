"""All cards by name, and what each model understands of a sentence; a model is loaded only when it is asked for."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from cinecanvas.errors import CinecanvasError, Unsupported
from cinecanvas.model import Card, Family, Model
from cinecanvas.runtime.placement import Placement
from cinecanvas.world.captions import Reading, read

_NOUNS = ("shape", "colour", "floor")  # the slots that say what can be shown
GROUP = "cinecanvas.models"
OURS = {name: f"cinecanvas.models.{name}:register" for name in ("diorama", "toy", "wan")}


class PublicFamily(NamedTuple):
    """An open-domain family with public weights: the name its adapter has or will have here, and how people call it."""

    name: str
    title: str


PUBLIC = (
    PublicFamily("wan", "Wan 2.2"),
    PublicFamily("ltx", "LTX-Video"),
)


@dataclass(frozen=True)
class Entry:
    """A Card that a family registered, and that family; or the trouble that keeps it from serving."""

    name: str
    card: Card | None
    family: Family | None
    trouble: str = ""


def load(name: str, placement: Placement = Placement(), *, folder: Path | None = None) -> Model:
    """The model of that name, with its weights; the last one is kept, for loading costs seconds."""
    card(name)
    return _loaded(name, placement, folder)


def card(name: str) -> Card:
    """The Card of that name."""
    found = entries().get(name)
    known = ", ".join(sorted(cards()))
    if found is None:
        shown = name if len(name) <= 40 else f"{name[:32]}..."
        raise Unsupported(f"There is no model {shown!r}", f"Known models: {known}", "See `cine models`")
    if found.card is None:
        raise Unsupported(f"The model {name!r} cannot be used: {found.trouble}", f"Models that work: {known}")
    return found.card


def cards() -> dict[str, Card]:
    """All Cards that work, by name."""
    return {name: entry.card for name, entry in entries().items() if entry.card is not None}


@functools.cache
def entries() -> Mapping[str, Entry]:
    """Everything that registered itself, ours first; a broken one is kept with its trouble and harms nobody else."""
    found: dict[str, Entry] = {}
    for name, where in OURS.items():
        found |= _register(name, functools.partial(_imported, where))
    for point in entry_points(group=GROUP):
        if point.name not in OURS:
            found = _register(point.name, point.load) | found
    return found


def recognised(layout: Mapping[str, Any]) -> tuple[Card, Family] | None:
    """The Card that a folder's configurations come to, and the family that knows them; None: nobody does."""
    families = {id(entry.family): entry.family for entry in entries().values() if entry.family is not None}
    asked = ((family.recognise(layout), family) for family in families.values())
    return next(((card, family) for card, family in asked if card is not None), None)


def understood(card: Card, prompt: str) -> Reading | None:
    """What a model of a small world understands of a prompt, and which words it ignores; None: its domain is open."""
    if not card.words:
        return None
    said = read(prompt)
    learnt = {slot: value for slot, value in said.values.items() if value in card.words.get(slot, ())}
    lost = tuple(word for slot, words in said.words.items() if slot not in learnt for word in words.split())
    return Reading(values=learnt, words={slot: said.words[slot] for slot in learnt}, ignored=said.ignored + lost)


def advice(card: Card, reading: Reading | None) -> str:
    """One line that names what would serve, if the subject or most of the words were not understood; else ""."""
    if reading is None:
        return ""
    lost = "shape" in card.words and "shape" not in reading.values and reading.ignored
    if not lost and len(reading.values) > len(reading.ignored):
        return ""
    known = "; ".join(f"{slot}: {', '.join(card.words[slot])}" for slot in _NOUNS if slot in card.words)
    world = f" ({known})" if known else ""
    share = f"only: {', '.join(reading.words.values())}" if reading.values else "nothing"
    return f"{card.name} knows only its miniature world{world}; of this prompt it understood {share}. {elsewhere()}"


def elsewhere() -> str:
    """Which public families would show any subject, and whether they can be asked here."""
    here = [public for public in PUBLIC if public.name in cards()]
    if here:
        return f"For any other subject: {' or '.join(f'--model {public.name}' for public in here)}."
    titles = " or ".join(public.title for public in PUBLIC)
    return f"A public model such as {titles} would show any subject, but its adapter is not in this version yet."


@functools.lru_cache(maxsize=1)
def _loaded(name: str, placement: Placement, folder: Path | None) -> Model:
    entry = entries()[name]
    assert entry.family is not None and entry.card is not None, name
    return entry.family.load(entry.card, folder, placement)


def _register(name: str, find: Callable[[], Any]) -> dict[str, Entry]:
    """Ask a family for its Cards and loader; whatever goes wrong inside it stays inside it."""
    try:
        family = find()()
        if isinstance(family, Family) and family.cards and all(isinstance(card, Card) for card in family.cards):
            return {card.name: Entry(card.name, card, family) for card in family.cards}
        trouble = "its register() did not give a Family with a Card"
    except CinecanvasError as error:
        trouble = str(error)
    except Exception as error:  # somebody else's code, at import: anything can come out of it
        trouble = f"its plugin is broken ({type(error).__name__})"
    return {name: Entry(name, None, None, trouble)}


def _imported(where: str) -> Any:
    """The object at "module:name": works from a source tree that was never installed."""
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)
