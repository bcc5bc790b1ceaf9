"""How the Card of a published checkpoint is written: what all have alike stands here, the rest at its family."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cinecanvas.model import Card, Family, Fidelity, Model, Recipe, Source, Terms, Weights
from cinecanvas.request import Quality
from cinecanvas.runtime.placement import Placement

if TYPE_CHECKING:  # Cards are read on machines without torch
    from cinecanvas.models.checkpoint import Parts

Way = tuple[Fidelity, str]  # how well a task is done, and how

EXACT: Way = ("exact", "")
REPLACED: Way = ("approximate", "latent replacement")
CANVAS = (
    "keyframes",
    "inpaint",
    "outpaint",
    "remix",
    "upscale",
    "loop",
)  # what may be asked beside a beginning
STEPS: dict[Quality, int] = {"draft": 12, "standard": 30, "best": 50}
APACHE = Terms(url="https://www.apache.org/licenses/LICENSE-2.0")


def published(
    name: str,
    title: str,
    repository: str,
    *,
    tasks: Mapping[str, Way],
    recipe: Recipe,
    steps: Mapping[Quality, int] = STEPS,
    licence: str = "Apache-2.0",
    terms: Terms = APACHE,
    **facts: Any,
) -> Card:
    """The Card of a repository in the layout of diffusers; `recipe` at every quality, with its own number of steps."""
    return Card(
        name=name,
        title=title,
        licence=licence,
        terms=terms,
        source=Source(repository=repository),
        tasks={task: how for task, (how, _) in tasks.items()},
        ways={task: way for task, (_, way) in tasks.items() if way},
        recipes={quality: recipe.model_copy(update={"steps": many}) for quality, many in steps.items()},
        # a film keeps a device busy by itself, and two at once need twice the memory
        **{"max_cells": 1 << 20, "batched": not {"text_to_video", "image_to_video"} & set(tasks), **facts},
    )


def all_by(way: Way, *tasks: str) -> dict[str, Way]:
    """Those tasks, all done in one way."""
    return dict.fromkeys(tasks, way)


def family(
    cards: Iterable[Card],
    kind: Callable[[Card, Parts], Model],
    recognise: Callable[[Mapping[str, Any]], Card | None],
) -> Family:
    """A family whose models are made of a Card and the parts of a folder, which are read when they are needed."""

    def load(card: Card, weights: Weights | None, placement: Placement) -> Model:
        from cinecanvas.models.checkpoint import Parts

        assert weights is not None, card.name
        return kind(card, Parts.of(weights, placement))

    return Family(tuple(cards), load, recognise)
