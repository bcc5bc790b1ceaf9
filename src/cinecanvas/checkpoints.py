"""`cine models`: which models there are, where their weights are, and how public weights come and go."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from cinecanvas.console import print_card, print_cards, size_of, watched_weights
from cinecanvas.errors import BadRequest, BadWeights, Cancelled

if TYPE_CHECKING:  # the help needs none of it
    from cinecanvas.model import Card
    from cinecanvas.models.shelf import Receipt
    from cinecanvas.settings import Settings


class _Models(TyperGroup):
    """`cine models NAME` is `cine models show NAME`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """A lone word that is no verb is a name."""
        words = [word for word in args if not word.startswith("-")]
        if len(words) == 1 and words[0] not in self.commands and "--help" not in args:
            args = ["show", *args]
        return super().parse_args(ctx, args)


models = typer.Typer(name="models", cls=_Models, invoke_without_command=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors, and what a licence leaves out.")]
Name = Annotated[str, typer.Argument(help="A model, as `cine models` lists it.", show_default=False)]
Mirror = Annotated[
    str, typer.Option(metavar="URL|FOLDER", help="Another endpoint that speaks as the hub does, or a folder with them.")
]


@models.callback()
def list_models(ctx: typer.Context, as_json: Json = False) -> None:
    """List the models and where their weights are; fetch, check and remove public weights."""
    if ctx.invoked_subcommand is None:
        _list(as_json)


@models.command("list")
def list_again(as_json: Json = False) -> None:
    """List the models and where their weights are, as `cine models` alone does."""
    _list(as_json)


def _list(as_json: bool) -> None:
    from cinecanvas.models import cards, elsewhere, entries, shelf

    here = _settings()
    held, known = shelf.receipts(here), cards(where=here)
    broken = {entry.name: entry.trouble for entry in entries().values() if entry.card is None}
    lone = {name: receipt for name, receipt in held.items() if name not in known and name not in broken}
    if as_json:
        rows = [{**c.model_dump(mode="json"), "weights": _weights(c, held)} for c in known.values()]
        added = [receipt.model_dump(mode="json") for receipt in lone.values()]
        print(json.dumps({"models": rows, "added": added, "broken": broken}, ensure_ascii=False))
        return
    print_cards(list(known.values()), {name: _said(_weights(card, held)) for name, card in known.items()})
    for name, receipt in lone.items():
        other = f"for the network of {receipt.base}" if receipt.base else "no family here knows its networks"
        what = f"a LoRA: --lora {name}:1" if receipt.lora else other
        print(f"{name}: {receipt.path}, {what}")
    for family, trouble in broken.items():
        print(f"{family}: {trouble}", file=sys.stderr)
    print(elsewhere())


@models.command("show")
def show_model(name: Name, as_json: Json = False) -> None:
    """Show one model's Card: tasks, licence, where its weights are, its measured scores."""
    from cinecanvas.models import card, shelf

    here = _settings()
    one = card(name, where=here)
    weights = _weights(one, shelf.receipts(here))
    if as_json:
        print(json.dumps({**one.model_dump(mode="json"), "weights": weights}, ensure_ascii=False))
    else:
        print_card(one, _said(weights))


@models.command("pull")
def pull_model(
    name: Name,
    mirror: Mirror = "",
    accept: Annotated[bool, typer.Option("--accept", help="The licence's terms are read and accepted.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=32, help="Files at a time.")] = 4,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch a model's public weights; stopped at any moment, the same command goes on from there."""
    from cinecanvas.models import card

    here = _settings()
    one = card(name, where=here)
    _say_limits(one, as_json)
    agreed = accept or (not as_json and _asked_for(one, here))
    ended = _pulled(one, here, mirror, accepted=agreed, workers=workers, silent=as_json or quiet)
    receipt = ended.receipt
    if as_json:
        facts = {"fetched": ended.fetched, "terms": one.terms.model_dump(), "licence": one.licence}
        print(json.dumps({"receipt": receipt.model_dump(mode="json"), **facts}, ensure_ascii=False))
    elif not quiet:
        print(f"{name}: {size_of(receipt.bytes)} are here, {size_of(ended.fetched)} came now, every file is checked")
        print(f"  {receipt.folder}")


def at_hand(name: str) -> None:
    """Before a model is asked for anything: if its weights are not here, a terminal may fetch them now."""
    from cinecanvas.models import card, shelf

    here = _settings()
    one = card(name, where=here)
    if one.source is None or not one.source.repository or shelf.folder_of(name, here) is not None:
        return
    if here.offline or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return  # loading says in one line what to do
    if typer.confirm(f"The weights of {name} are not here. Fetch them from {one.source.repository}?", err=True):
        _say_limits(one, False)
        _pulled(one, here, "", accepted=_asked_for(one, here), workers=4, silent=False)


@models.command("add")
def add_model(
    name: Annotated[str, typer.Argument(help="A name of your own.", show_default=False)],
    path: Annotated[
        Path,
        typer.Argument(help="A checkpoint's folder, or one .safetensors or .gguf file.", show_default=False),
    ],
    base: Annotated[str, typer.Option(metavar="MODEL", help="Whose network the file replaces; it must be here.")] = "",
    second: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of a base with two experts the file for low noise.", show_default=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Know a checkpoint of yours by a name; nothing is copied or changed."""
    from cinecanvas.models import add

    receipt = add(name, path, base=base, second=second, where=_settings())
    if as_json:
        print(receipt.model_dump_json())
    elif not quiet:
        print(f"{name}: {receipt.path}, {size_of(receipt.bytes)}")


@models.command("remove")
def remove_model(name: Name, as_json: Json = False, quiet: Quiet = False) -> None:
    """Remove weights that were fetched; of a folder or file that was added only the name is forgotten."""
    from cinecanvas.models import cards, shelf

    here = _settings()
    ours = shelf.pulled(shelf.receipt_of(name, here), here)
    receipt = shelf.remove(name, here)
    freed = receipt.bytes if ours else 0
    one = cards(where=here).get(name)
    for under in one.source.beside if one is not None and one.source is not None else ():
        if (other := shelf.beside(name, under)) in shelf.receipts(here):
            freed += shelf.remove(other, here).bytes
    if as_json:
        print(json.dumps({"name": name, "freed": freed}))
    elif not quiet:
        print(f"{name}: {size_of(freed)} are free again" if ours else f"{name}: forgotten; {receipt.path} stays")


@models.command("verify")
def verify_model(
    name: Name,
    repair: Annotated[bool, typer.Option("--repair", help="Fetch again what is missing or damaged, and only that.")] = (
        False
    ),
    mirror: Mirror = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read every byte of a model's weights and name the files that are not what came; the exit code is 1 if any is."""
    from cinecanvas.models import card, shelf

    here, silent = _settings(), as_json or quiet
    found = watched_weights(shelf.verify(name, here), silent=silent)
    receipt, faults = found.receipt, found.faults
    if not silent:
        for fault in faults:
            print(f"{name}/{fault.file} is {fault.what}")
    if repair and (faults or not receipt.whole):
        if not receipt.repository:
            raise BadWeights(f"{name} was added and has no origin to be fetched from", do="Mend it where it lies")
        shelf.drop(receipt, faults, here)
        receipt = _pulled(card(name, where=here), here, mirror, accepted=False, workers=4, silent=silent).receipt
    mended = bool(repair)
    whole = receipt.whole and (mended or not faults)
    if as_json:
        facts = [{"file": fault.file, "what": fault.what} for fault in faults]
        print(json.dumps({"name": name, "whole": whole, "faults": facts, "repaired": mended and bool(faults)}))
    elif not quiet:
        what = f"all {len(receipt.files)} files are whole" if whole else "some files are still to come"
        if not faults or mended:
            print(f"{name}: {what}, {size_of(receipt.bytes)}")
        elif receipt.repository:
            print(f"`cine models verify {name} --repair` fetches what is wrong again")
    if not whole:
        raise typer.Exit(1)


def _pulled(card: Card, here: Settings, mirror: str, *, accepted: bool, workers: int, silent: bool) -> Any:
    """The pull of a model, watched; whoever stops it is told what is here."""
    from cinecanvas.models.pull import pull
    from cinecanvas.models.shelf import Moving

    last: list[Moving] = []

    def noted() -> Iterator[Any]:
        token = os.environ.get("CINECANVAS_MIRROR_TOKEN", "") if "://" in mirror else ""
        for event in pull(card, where=here, mirror=mirror, accepted=accepted, token=token, workers=workers):
            last[:] = [event] if isinstance(event, Moving) else last
            yield event

    try:
        return watched_weights(noted(), silent=silent)
    except BaseException as stop:
        if isinstance(stop, Exception):
            raise
        have = f"{size_of(last[0].done)} of {size_of(last[0].of)} are here" if last else "What had come is kept"
        stopped = Cancelled("Stopped", have, f"`cine models pull {card.name}` goes on from there")
        stopped.exit_code = getattr(stop, "code", 130)
        raise stopped from None


def _say_limits(card: Card, as_json: bool) -> None:
    """What a licence does not grant is always told, on stderr; in JSON it is part of the object."""
    terms = card.terms
    told = "; ".join(filter(None, (terms.territory, terms.revenue, terms.use)))
    if told and not as_json:
        print(f"{card.name}: {card.licence}; {told}", file=sys.stderr)


def _asked_for(card: Card, here: Settings) -> bool:
    """Whether somebody at a terminal says yes to a licence that has to be accepted; nobody is asked twice."""
    from cinecanvas.models import shelf

    if not card.terms.accept or shelf.accepted(card, here) is not None:
        return True
    held = shelf.receipts(here).get(card.name)
    if (held is not None and held.whole) or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    print(f"{card.name} comes under {card.licence}: {card.terms.url}", file=sys.stderr)
    if not typer.confirm("Have you read it, and do you accept it?", default=False, err=True):
        raise BadRequest(f"The licence of {card.name} was not accepted", "Nothing was fetched")
    return True


def _weights(card: Card, held: dict[str, Receipt]) -> dict[str, Any]:
    """Where the weights of a Card are, and the bytes that are here and of all."""
    from cinecanvas.models import shelf

    facts = shelf.state(card, held)
    trouble = shelf.sound(held[card.name]) if facts["state"] == "here" and card.name in held else ""
    return {**facts, "state": "damaged", "trouble": trouble} if trouble else facts


def _said(weights: dict[str, Any]) -> str:
    """The same for people."""
    all_of = f", {size_of(weights['of'])} to fetch" if weights["of"] else ""
    return {
        "ships": "ships inside" if weights["of"] else "needs none",
        "here": f"here, {size_of(weights['bytes'])}",
        "part": f"{size_of(weights['bytes'])} here, the rest to fetch",
        "absent": f"not here{all_of}",
        "damaged": f"damaged: {weights.get('trouble', '')}",
    }[weights["state"]]


def _settings() -> Settings:
    from cinecanvas.settings import settings

    return settings()
