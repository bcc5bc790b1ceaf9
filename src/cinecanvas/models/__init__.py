"""All cards by name, and what each model understands of a sentence; a model is loaded only when it is asked for."""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from cinecanvas.errors import BadRequest, BadWeights, CinecanvasError, Unsupported
from cinecanvas.model import Card, Family, Model, Source, Terms, Weights
from cinecanvas.models import shelf
from cinecanvas.models.checkpoint import Parts, layout, no_lora
from cinecanvas.models.headers import blocked
from cinecanvas.request import Lora, Request
from cinecanvas.runtime.placement import Placement
from cinecanvas.settings import Settings, settings
from cinecanvas.world.captions import Reading, read

_NOUNS = ("shape", "colour", "floor")  # the slots that say what can be shown
GROUP = "cinecanvas.models"
_NAMES = (
    *("diorama", "toy", "wan", "helios", "cogvideox", "ltx", "ltx2", "hunyuan", "hunyuan15"),
    *("svd", "sd3", "sdxl", "cascade"),
)
OURS = {name: f"cinecanvas.models.{name}:register" for name in _NAMES}


# the model that was loaded last, by what it was loaded as
_LAST: dict[tuple[str, str, Weights | None, str], Model] = {}


@dataclass(frozen=True)
class Entry:
    """A Card that a family registered, and that family; or the trouble that keeps it from serving."""

    name: str
    card: Card | None
    family: Family | None
    trouble: str = ""


def load(
    name: str, placement: Placement = Placement(), *, loras: Sequence[Lora] = (), where: Settings | None = None
) -> Model:
    """The model of that name, with its weights; the last one is kept, for loading costs seconds."""
    here = where or settings()
    entry = _entry(name, here)
    if entry.card is None:
        card(name, where=here)  # which says why
    assert entry.family is not None and entry.card is not None, name
    weights = _weights(entry.card, loras, here)
    if placement.rehearsed:  # weighs nothing, and is not kept
        return entry.family.load(entry.card, weights, placement)
    key = (name, placement.model_dump_json(), weights, " ".join(entry.card.digests.values()))
    if key not in _LAST:
        _LAST.clear()
        _LAST[key] = entry.family.load(entry.card, weights, placement)
    return _LAST[key]


def _weights(one: Card, loras: Sequence[Lora], where: Settings) -> Weights | None:
    """The files of a public model and of what changes it, all of them here."""
    files = tuple((lora, shelf.lora_of(lora, where)) for lora in loras)
    if one.source is None:
        return None
    receipt = shelf.receipts(where).get(one.name)
    base = receipt.base if receipt is not None and receipt.base else one.name
    folder = shelf.folder_of(base, where)
    if folder is None:
        raise BadWeights(f"The weights of {base} are not here", do=f"cine models pull {base}")
    shelf.check(folder)
    return Weights(folder, files, _networks(receipt, folder) if receipt is not None and receipt.base else ())


def _networks(receipt: shelf.Receipt, folder: Path) -> tuple[tuple[str, Path], ...]:
    """The files of a receipt, by the parts of its base that they stand for."""
    from cinecanvas.models.single import placed

    return placed(shelf.networks_of(receipt), layout(folder), base=receipt.base)


def add(
    name: str, path: Path, *, base: str = "", second: Path | None = None, where: Settings | None = None
) -> shelf.Receipt:
    """Know weights by a name, as `shelf.add`; files for a base are seen to fit its networks, by their headers."""
    here = where or settings()
    if base and name in entries():
        raise BadRequest(f"{name} is the name of a model that is known", "A name of your own is possible")

    def fits(receipt: shelf.Receipt) -> None:
        folder = shelf.folder_of(receipt.base, here)
        assert folder is not None, receipt.base
        shelf.check(folder)
        Parts.of(Weights(folder, networks=_networks(receipt, folder)), Placement())

    return shelf.add(name, path, here, base=base, second=second, fits=fits)


def pinned(request: Request, *, where: Settings | None = None) -> Request:
    """The request with the digest of every LoRA that it names; one that is not here, or is another file, is refused."""
    here = where or settings()
    if request.loras and card(request.model, where=here).source is None:
        raise Unsupported(
            f"The model {request.model} was asked with a LoRA", "Public models can be changed so", "See `cine models`"
        )
    held = shelf.receipts(here).get(request.model) if request.loras else None
    blocks = next((Path(path) for path in held.files if blocked(path)), None) if held and held.base else None
    if blocks is not None:
        raise no_lora(blocks)
    loras = tuple(lora.model_copy(update={"digest": shelf.digest_of(lora, here)}) for lora in request.loras)
    return request.model_copy(update={"loras": loras})


def card(name: str, *, where: Settings | None = None) -> Card:
    """The Card of that name."""
    here = where or settings()
    entry = _entry(name, here)
    if entry.card is None:
        known = ", ".join(ready(where=here))
        raise Unsupported(f"The model {name!r} cannot be used: {entry.trouble}", f"Models that work: {known}")
    return entry.card


def cards(*, where: Settings | None = None) -> dict[str, Card]:
    """All Cards that work, by name; the weights of some are still to be fetched."""
    known = _known(where or settings())
    return {name: entry.card for name, entry in known.items() if entry.card is not None}


def troubles(*, where: Settings | None = None) -> dict[str, str]:
    """What keeps the others from serving, by their names."""
    known = _known(where or settings())
    return {name: entry.trouble for name, entry in known.items() if entry.card is None}


def ready(*, where: Settings | None = None) -> dict[str, Card]:
    """The Cards whose weights are here."""
    here = where or settings()
    held = shelf.receipts(here)
    return {
        name: card
        for name, card in cards(where=here).items()
        if card.source is None or (name in held and shelf.whole(held[name], held))
    }


def others(*, where: Settings | None = None) -> Iterator[Card]:
    """The Cards that a refusal may name, those whose weights are here first; nothing is looked up before the first."""
    here = where or settings()
    yield from (card for name, card in {**ready(where=here), **cards(where=here)}.items() if name != "toy")


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
    """Which models would show any subject, and whether they can be asked here."""
    open_ones = [name for name, card in cards().items() if not card.words and "text_to_video" in card.tasks]
    here = [name for name in open_ones if name in ready() and name != "toy"]
    if here:
        return f"For any other subject: {' or '.join(f'--model {name}' for name in here[:3])}."
    return "A public model would show any subject: `cine models` lists them, `cine models pull NAME` fetches one."


def _entry(name: str, where: Settings) -> Entry:
    """What is registered or was added under a name; else a refusal that names what comes near."""
    known = _known(where)
    if name in known:
        return known[name]
    shown = name if len(name) <= 40 else f"{name[:32]}..."
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5) or [
        other for other in known if other.startswith(name.lower()[:3])
    ]
    do = f"Perhaps {' or '.join(near)}; `cine models` lists all" if near and name else "See `cine models`"
    raise Unsupported(f"There is no model {shown!r}", f"Here are: {', '.join(ready(where=where))}", do)


def _known(where: Settings) -> dict[str, Entry]:
    """What registered itself, and the folders that were added under names of their own."""
    known = dict(entries())
    parts = {
        shelf.beside(name, under)
        for name, entry in known.items()
        if entry.card is not None and entry.card.source is not None
        for under in entry.card.source.beside
    }
    own = [one for name, one in shelf.receipts(where).items() if name not in known and name not in parts]
    for receipt in own:
        if not receipt.single:
            known[receipt.name] = _added(receipt)
    for receipt in own:
        if receipt.base:
            known[receipt.name] = _based(receipt, known.get(receipt.base))
    return known


def _based(receipt: shelf.Receipt, base: Entry | None) -> Entry:
    """One file in a model's place: all but the network is as the base has it."""
    if base is None or base.card is None:
        why = base.trouble if base is not None else "it is no longer here"
        return Entry(receipt.name, None, None, f"it needs {receipt.base}, and {why}")
    files = " and ".join(receipt.files)
    card = base.card.model_copy(
        update={
            "name": receipt.name,
            "title": f"{receipt.name}: {files} for the network of {base.card.title}",
            "licence": f"not known; {receipt.base} has {base.card.licence}",
            "source": Source(repository=""),
            "scores": (),
            "digests": {path: held.sha256 for path, held in receipt.files.items()},
        }
    )
    return Entry(receipt.name, card, base.family)


def _added(receipt: shelf.Receipt) -> Entry:
    """A folder as a model: its Card is that of the checkpoint it comes nearest to, fitted to what it says itself."""
    try:
        found = recognised(layout(receipt.folder))
    except CinecanvasError as error:
        return Entry(receipt.name, None, None, str(error))
    if found is None:
        return Entry(receipt.name, None, None, "no family here knows its networks")
    like, family = found
    card = like.model_copy(
        update={
            "name": receipt.name,
            "title": f"{receipt.name}: a folder of yours, like {like.title}",
            "licence": f"not known; {like.name} has {like.licence}",
            "source": Source(repository=""),
            "terms": Terms(),
            "scores": (),
        }
    )
    return Entry(receipt.name, card, family)


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
