"""What an order would come to before it is a job; if it cannot be, which one change would make it possible."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cinecanvas.errors import BadRequest, Unsupported
from cinecanvas.jobs.job import Foretold, foretold
from cinecanvas.jobs.keys import Caller
from cinecanvas.jobs.order import Order
from cinecanvas.model import Card
from cinecanvas.models import advice, card, understood
from cinecanvas.plan import Plan
from cinecanvas.server.desk import Desk

_MOST_REMEDIES = 4


class Word(BaseModel):
    """Words of the prompt that a model of a small world understood."""

    model_config = ConfigDict(frozen=True)

    slot: str = Field(description="What they say: shape, colour, motion ...")
    value: str = Field(description="What is understood.")
    words: str = Field(description="The words as they were written.")


class Window(BaseModel):
    """A stretch of the film that is made at one time."""

    model_config = ConfigDict(frozen=True)

    start: float = Field(description="Its first second.")
    end: float = Field(description="The second at which it ends.")
    prompt: str = Field(description="The words that hold there.")
    steps: int
    calls: int = Field(description="How many of its steps ask the network.")


class Remedy(BaseModel):
    """A change after which the order is possible: tried, not guessed."""

    model_config = ConfigDict(frozen=True)

    says: str = Field(description="What it does, as the label of a button.")
    change: dict[str, Any] = Field(description="Fields of the order and what they become; null is to be left out.")


class Outlook(BaseModel):
    """What an order would come to."""

    model_config = ConfigDict(frozen=True)

    possible: bool
    refusal: str = Field(default="", description="Why it is not, what is, and what to do.")
    remedies: tuple[Remedy, ...] = ()
    foretold: Foretold | None = Field(default=None, description="null while media at URLs are still to be fetched.")
    credits: int = Field(default=0, description="What it will cost.")
    windows: tuple[Window, ...] = ()
    notes: tuple[str, ...] = Field(default=(), description="What the film will not be, for people.")
    understood: tuple[Word, ...] = Field(default=(), description="Of the prompt, where a model knows a small world.")
    ignored: tuple[str, ...] = Field(default=(), description="Words that it does not know.")
    open_domain: bool = Field(default=True, description="Whether any subject may be asked.")
    advice: str = Field(default="", description="What would serve better, if the subject is unknown.")


def outlook(desk: Desk, caller: Caller, asked: Order) -> Outlook:
    """The plan of an order, for people; one that the model cannot fill is no error here, one that makes no sense is."""
    chosen = card(desk.served(getattr(asked, "model", "")))
    try:
        made = desk.planned(caller, asked)
    except Unsupported as refusal:
        return Outlook(
            possible=False,
            refusal=str(refusal),
            remedies=tuple(itertools.islice(_remedies(desk, caller, asked, chosen), _MOST_REMEDIES)),
            **_read(chosen, asked),
        )
    if made is None:
        return Outlook(possible=True, **_read(chosen, asked))
    told = foretold(made)
    return Outlook(
        possible=True,
        foretold=told,
        credits=desk.tariff.credits(told.work),
        windows=tuple(_windows(made)),
        notes=made.notes,
        **_read(chosen, asked),
    )


def _windows(made: Plan) -> Iterator[Window]:
    """Of the first film, in the order in which they are made."""
    for step in made.films[0]:
        calls = step.cache.calls(step.steps)
        frames, fps = step.frames, step.grid.fps
        yield Window(start=frames.start / fps, end=frames.stop / fps, prompt=step.prompt, steps=step.steps, calls=calls)


def _remedies(desk: Desk, caller: Caller, asked: Order, chosen: Card) -> Iterator[Remedy]:
    """Each change by itself that makes the order possible, the smallest first."""
    for says, change in _changes(desk, asked, chosen):
        fields = {name: value for name, value in asked.model_dump(exclude_unset=True).items() if name not in change}
        try:
            changed = type(asked).model_validate({**fields, **{k: v for k, v in change.items() if v is not None}})
            desk.planned(caller, changed)
        except (BadRequest, Unsupported, ValueError):
            continue
        yield Remedy(says=says, change=change)


def _changes(desk: Desk, asked: Order, chosen: Card) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is worth trying."""
    given = asked.model_fields_set
    if "seconds" in given:
        yield f"make it {chosen.max_seconds:g} s long", {"seconds": chosen.max_seconds}
        yield f"make it {chosen.seconds:g} s long", {"seconds": chosen.seconds}
    yield from (
        (says, dict.fromkeys(names))
        for says, names in (
            ("without sound", ("sound",)),
            ("without other words later on", ("cues",)),
            ("all moments together", ("order",)),
            ("in the model's own size", ("width", "height", "shape")),
            ("at the model's own quality", ("quality", "steps")),
            ("without closing the loop", ("loop",)),
            ("without LoRA files", ("loras",)),
        )
        if given.intersection(names)
    )
    yield from ((f"with {name}", {"model": name}) for name in desk.models if name not in (chosen.name, "toy"))


def _read(chosen: Card, asked: Order) -> dict[str, Any]:
    """What a model understands of the prompt."""
    reading = understood(chosen, getattr(asked, "prompt", ""))
    if reading is None:
        return {}
    words = tuple(Word(slot=slot, value=reading.values[slot], words=said) for slot, said in reading.words.items())
    return {
        "understood": words,
        "ignored": reading.ignored,
        "open_domain": False,
        "advice": advice(chosen, reading),
    }
