"""`cine models`: which models there are, and the weights of the public ones: fetched, added, verified, removed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cinecanvas.console import print_card, print_cards, watched_bytes
from cinecanvas.errors import BadRequest, BadWeights

if TYPE_CHECKING:
    from cinecanvas.model import Card
    from cinecanvas.models.shelf import Receipt
    from cinecanvas.settings import Settings

models = typer.Typer(name="models", help="List models; fetch, add, verify and remove weights.")

Name = Annotated[str, typer.Argument(help="A model of `cine models`.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
_OFFLINE = ("HF_HUB_OFFLINE", "CINECANVAS_OFFLINE")


@models.callback(invoke_without_command=True)
def _all(context: typer.Context, as_json: Json = False) -> None:
    """List models; fetch, add, verify and remove weights."""
    if context.invoked_subcommand is None:
        listed(as_json=as_json)


@models.command("list")
def listed(as_json: Json = False) -> None:
    """List the models, what they do, and whether their weights are here."""
    from cinecanvas.models import cards, elsewhere, shelf, troubles
    from cinecanvas.settings import settings

    here = settings()
    known, broken = cards(where=here), troubles(where=here)
    states = {name: _state(card, here) for name, card in known.items()}
    if as_json:
        rows = [{**card.model_dump(mode="json"), "weights": states[name]} for name, card in known.items()]
        print(json.dumps({"models": rows, "broken": broken}))
        return
    print_cards(list(known.values()), states)
    for name, trouble in broken.items():
        print(f"{name}: {trouble}", file=sys.stderr)
    parts = [name for name, receipt in shelf.receipts(here).items() if not receipt.whole]
    for name in parts:
        print(f"{name} is here in part: `cine models pull {name}` goes on with it")
    print(elsewhere())


@models.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show one model's Card: what it does and how, its licence with its limits, its measured scores."""
    from cinecanvas.models import card
    from cinecanvas.settings import settings

    one = card(name)
    state = _state(one, settings())
    if as_json:
        print(json.dumps({**one.model_dump(mode="json"), "weights": state}))
    else:
        print_card(one, state)


@models.command()
def pull(
    name: Name,
    source: Annotated[
        str, typer.Option("--from", metavar="URL|FOLDER", help="A mirror that speaks the hub's wire, or a folder.")
    ] = "",
    accept: Annotated[bool, typer.Option("--accept", help="Accept the licence, where one must be accepted.")] = False,
    workers: Annotated[int, typer.Option(help="Files at a time.")] = 4,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch the weights of a model; what was begun is gone on with."""
    from cinecanvas.models import card
    from cinecanvas.settings import settings

    _pulled(card(name), settings(), source, accept=accept, workers=workers, silent=as_json or quiet)
    held = shelved(name)
    size = sum(one.bytes for one in held.files.values())
    if as_json:
        print(json.dumps({"name": name, "bytes": size, "files": len(held.files)}))
    elif not quiet:
        print(f"{name} is here: {size / 1e9:.3g} GB in {len(held.files)} files")


def at_hand(name: str) -> None:
    """See that the weights of a model are here before it is asked for anything; a terminal may fetch them now."""
    from cinecanvas.models import card, shelf
    from cinecanvas.settings import settings

    one, here = card(name), settings()
    if one.source is None or shelf.folder_of(name, here) is not None:
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty() and one.source.repository):
        return  # loading says in one line what to do
    if typer.confirm(f"The weights of {name} are not here. Fetch them from {one.source.repository}?", default=True):
        _pulled(one, here, "", accept=False, workers=4, silent=False)


def _pulled(one: Card, here: Settings, source: str, *, accept: bool, workers: int, silent: bool) -> None:
    """Fetch, with the licence shown before and the bytes shown meanwhile."""
    from cinecanvas.models.pull import Hub
    from cinecanvas.models.pull import pull as pulled

    folder = Path(source).expanduser() if source and "://" not in source else None
    if folder is None and any(os.environ.get(name, "") not in ("", "0") for name in _OFFLINE):
        raise BadRequest(
            "This machine was told to stay offline",
            "Weights come from a folder then",
            f"cine models pull {one.name} --from FOLDER, or unset {' and '.join(_OFFLINE)}",
        )
    agreed(one, here, accept=accept, silent=silent)
    hub = Hub() if folder is not None else Hub.of(os.environ, mirror=source)
    events = pulled(one, here, hub=hub, mirror=folder, workers=workers)
    watched_bytes(cast(Iterator[Any], events), silent=silent)


@models.command()
def add(
    name: Annotated[str, typer.Argument(help="What it is to be called.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="A checkpoint in the layout of diffusers.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Know a folder of weights as a model; nothing is copied."""
    from cinecanvas.models import entries, recognised, shelf
    from cinecanvas.models.checkpoint import layout
    from cinecanvas.settings import settings

    shelf.check_name(name)
    shelf.check(folder.expanduser())
    found = recognised(layout(folder.expanduser()))
    if found is None:
        index = layout(folder.expanduser())["model_index"]
        raise BadWeights(
            f"No family here knows a {str(index.get('_class_name', 'checkpoint'))[:60]}",
            "`cine models` lists what is known",
        )
    like = found[0]
    if name in entries() and name != like.name:
        raise BadRequest(f"{name} is the name of another model", do="Choose another name")
    receipt = shelf.add(name, folder, settings())
    size = sum(held.bytes for held in receipt.files.values())
    if as_json:
        print(json.dumps({"name": name, "like": like.name, "bytes": size, "files": len(receipt.files)}))
    else:
        print(f"{name}: {size / 1e9:.3g} GB in {len(receipt.files)} files, like {like.name}")


@models.command()
def remove(name: Name, as_json: Json = False) -> None:
    """Delete the weights of a model that were fetched; of a folder that was added only the name is forgotten."""
    from cinecanvas.models import shelf
    from cinecanvas.settings import settings

    freed = shelf.remove(name, settings())
    print(json.dumps({"name": name, "bytes": freed})) if as_json else print(f"{name}: {freed / 1e9:.3g} GB freed")


@models.command()
def verify(name: Name, as_json: Json = False, quiet: Quiet = False) -> None:
    """Read all weights of a model again, and name every file that is missing or damaged."""
    from cinecanvas.models import shelf
    from cinecanvas.settings import settings

    broken: dict[str, str] = {}

    def noted() -> Iterator[Any]:
        for one in shelf.verify(name, settings()):
            if one.trouble:
                broken[one.path] = one.trouble
            yield one

    last = watched_bytes(noted(), silent=as_json or quiet)
    if as_json:
        files = len(shelved(name).files)
        print(json.dumps({"name": name, "files": files, "bytes": last.of, "broken": broken}))
    else:
        for path, trouble in broken.items():
            print(f"{path} {trouble}")
    if broken:
        raise BadWeights(
            f"{len(broken)} of the files of {name} are not as they should be",
            do=f"cine models remove {name}, then cine models pull {name}",
        )
    if not (as_json or quiet):
        print(f"{name}: all {len(shelved(name).files)} files are whole")


def agreed(card: Card, where: Settings, *, accept: bool, silent: bool) -> None:
    """Show what a licence asks, and see that it was accepted once where it must be."""
    kept = where.models / "accepted.json"
    accepted = json.loads(kept.read_bytes()) if kept.is_file() else {}
    if not silent:
        print(f"{card.title}: {card.licence}  {card.terms.url}")
        for limit in (card.terms.territory, card.terms.revenue, card.terms.use):
            if limit:
                print(f"  {limit}")
    if not card.terms.accept or accepted.get(card.name, {}).get("url") == card.terms.url:
        return
    if not accept and not silent and sys.stdin.isatty() and sys.stdout.isatty():
        accept = typer.confirm("Do you accept this licence?", default=False)
    if not accept:
        raise BadRequest(
            f"The licence of {card.name} ({card.licence}) must be accepted once",
            f"Read it at {card.terms.url}",
            "Add --accept to accept it",
        )
    from datetime import date

    where.models.mkdir(parents=True, exist_ok=True)
    accepted[card.name] = {"licence": card.licence, "url": card.terms.url, "date": date.today().isoformat()}
    aside = kept.with_suffix(".partial")
    aside.write_text(json.dumps(accepted, indent=1) + "\n")
    aside.replace(kept)


def _state(card: Card, where: Settings) -> str:
    """Where the weights of a model are, in words."""
    from cinecanvas.models import shelf

    if card.source is None:
        return "part of the package"
    receipt = shelf.receipts(where).get(card.name)
    if receipt is None:
        return "to be fetched"
    size = f"{sum(held.bytes for held in receipt.files.values()) / 1e9:.3g} GB"
    return f"here, {size}" if receipt.whole else f"in part, of {size}"


def shelved(name: str) -> Receipt:
    """The receipt of weights that are here."""
    from cinecanvas.models import shelf
    from cinecanvas.settings import settings

    return shelf.receipts(settings())[name]
