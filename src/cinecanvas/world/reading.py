"""What free sentences mean: the grammar read backwards, the longest forms first."""

from __future__ import annotations

import functools
import re

from pydantic import BaseModel

from cinecanvas.world.grammar import (
    COMPLETE,
    FILLERS,
    ROLLS,
    SILENT,
    SIMPLE,
    SLIDES,
    THINGS,
    TRAILERS,
    Grammar,
    grammar,
)
from cinecanvas.world.scene import FIRST, Level

ORDER = ("", "other_", "third_")  # the things of a sentence, as prefixes of their slots
OF_A_THING = ("size", "material", "pattern", "colour", "shape", "motion", "manner")
_Meaning = tuple[tuple[str, str], ...]


class Reading(BaseModel, frozen=True):
    """What a free sentence says: value by slot, the words that said it, and the words nobody understood."""

    values: dict[str, str]
    words: dict[str, str]
    ignored: tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of a text, lower case, without punctuation."""
    return re.findall(r"[a-z0-9]+(?:['-][a-z0-9]+)*", text.lower())


def read(text: str, level: Level = FIRST) -> Reading:
    """What a free sentence says, the longest forms first; the first mention of a slot wins."""
    known = grammar(level)
    tokens = words(text)
    lexicon = _lexicon(known is COMPLETE)
    longest = max(len(form) for form in lexicon)
    values: dict[str, str] = {}
    said: dict[str, str] = {}
    ignored: list[str] = []
    listener = _Listener(known)
    place = 0
    while place < len(tokens):
        for length in range(min(longest, len(tokens) - place), 0, -1):
            form = tokens[place : place + length]
            meaning = lexicon.get(tuple(form))
            if meaning:
                slots = [(listener.about(slot), value) for slot, value in meaning]
                if all(values.setdefault(slot, value) == value for slot, value in slots):
                    for slot, _ in slots:
                        said.setdefault(slot, " ".join(form))
                else:
                    ignored.extend(form)
                listener.heard(meaning[0][0], form[-1])
                place += length
                break
        else:
            if tokens[place] not in _silent():
                ignored.append(tokens[place])
            listener.joint(*tokens[place : place + 2])
            place += 1
    return Reading(values=values, words=said, ignored=tuple(ignored))


class _Listener:
    """Which thing a sentence is about by now: relations and joints lead on to the next one."""

    def __init__(self, known: Grammar) -> None:
        self.known = known
        self.thing = 0
        self.joined = False  # "and" was heard, but not yet of what
        self.met = False  # something was said of this thing

    def about(self, slot: str) -> str:
        """The name of a slot where the sentence is now."""
        if slot not in OF_A_THING:
            return slot
        if self.joined and slot not in ("motion", "manner"):
            self._on()
        self.met = True
        return ORDER[self.thing] + slot

    def heard(self, slot: str, last: str) -> None:
        """After a form: a relation, or a motion that needs a partner, leads on."""
        if slot == "relation" or (slot == "motion" and last in self.known.towards):
            self._on()

    def joint(self, word: str, following: str = "") -> None:
        """After a word without a meaning of its own: "and a" leads on, "and it" does not."""
        if self.joined and word in ("a", "an", "another", "the") and following != "camera":
            self._on()
        self.joined = self.met and word in self.known.joints

    def _on(self) -> None:
        self.thing = min(self.thing + 1, len(ORDER) - 1)
        self.joined = self.met = False


@functools.cache
def _lexicon(complete: bool) -> dict[tuple[str, ...], _Meaning]:
    """Meaning by form, as words."""
    known = COMPLETE if complete else SIMPLE
    lexicon: dict[tuple[str, ...], _Meaning] = {tuple(words(form)): (meaning,) for form, meaning in known.alone.items()}
    for slot, values in known.forms.items():
        for value, forms in values.items():
            for form in forms:
                lexicon[tuple(words(form))] = ((slot, value), *(manner(form, value) if complete else ()))
                if slot == "shape":
                    lexicon[tuple(words(form + "s"))] = ((slot, value),)
    return lexicon


def manner(form: str, motion: str) -> _Meaning:
    """What a verb of travelling says of how it is done."""
    verb = form.split()[0]
    if motion not in ("left", "right", "near", "away") or verb not in (*ROLLS, *SLIDES):
        return ()
    return (("manner", "roll" if verb in ROLLS else "slide"),)


@functools.cache
def _silent() -> frozenset[str]:
    """Words that carry no slot and need no remark."""
    return frozenset(word for text in (SILENT, *FILLERS, *TRAILERS, *THINGS) for word in words(text))
