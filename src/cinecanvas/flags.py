"""The fields of a Request as flags of the command: their names, kinds and help stand in the Request alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

import typer

from cinecanvas.errors import BadRequest
from cinecanvas.request import Cue, Lora, Request, parse_size

SHARED = (
    *("seconds", "size", "fps", "seed", "quality", "order", "model", "negative", "count", "at", "sound"),
    *("steps", "guidance", "guided", "rescale", "step_cache", "lora", "enhance"),
)
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_SIZE = Annotated[
    str | None, typer.Option(metavar="WxH|16:9", help="Pixels such as 640x480, or a shape: 16:9, 9:16, square.")
]
_CUES = Annotated[
    list[str] | None,
    typer.Option("--at", metavar="SECOND:WORDS", help="Other words from a second on; may be repeated."),
]
_GUIDED = Annotated[
    str | None, typer.Option(metavar="LOW,HIGH", help=Request.model_fields["guided"].description, show_default=False)
]
_LORAS = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="NAME[:WEIGHT[:high|low]]",
        help="A LoRA file that changes the model, as far as WEIGHT says (1 if left out); may be repeated.",
    ),
]
_SOUND = Annotated[bool | None, typer.Option("--sound", help=Request.model_fields["sound"].description)]
_ENHANCE = Annotated[bool | None, typer.Option("--enhance", help=Request.model_fields["enhance"].description)]
# flags whose values have a form of their own
_WRITTEN = {"size": _SIZE, "at": _CUES, "guided": _GUIDED, "sound": _SOUND, "lora": _LORAS, "enhance": _ENHANCE}


def with_options(
    *left_out: str, then: Callable[..., None] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., None]]:
    """A verb that takes `options` (a mapping to fields of Request) gets a flag for each, but for those left out.

    What the verb returns goes to `then`, whose own parameters become flags of the verb too.
    """

    def decorate(verb: Callable[..., Any]) -> Callable[..., None]:
        own, after = _parameters(verb), _parameters(then)[1:] if then else []
        names = [name for name in SHARED if name not in (*left_out, *(p.name for p in own))]
        shared = [inspect.Parameter(name, _KEYWORD, default=None, annotation=_flag(name)) for name in names]

        def run(**given: Any) -> None:
            options = _read({name: given[name] for name in names})
            made = verb(**{p.name: given[p.name] for p in own}, options=options)
            if then:
                then(made, **{p.name: given[p.name] for p in after})

        run.__signature__ = inspect.Signature([*own, *after, *shared])  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in (*own, *after, *shared)}
        run.__name__, run.__doc__ = verb.__name__, verb.__doc__
        return run

    return decorate


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """What a function takes beside the options, by keyword, its annotations resolved."""
    kinds = get_type_hints(function, include_extras=True)
    every = inspect.signature(function).parameters.values()
    return [p.replace(kind=_KEYWORD, annotation=kinds[p.name]) for p in every if p.name != "options"]


def _flag(name: str) -> Any:
    """One field as an option that may be left out."""
    if name in _WRITTEN:
        return _WRITTEN[name]
    field = Request.model_fields[name]
    values = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    if get_origin(field.annotation) is Literal:
        option = typer.Option(metavar="|".join(values), help=field.description, show_default=str(field.default))
        return Annotated[str | None, option]
    kind: Any = values[0] if values else field.annotation
    default = str(field.default) if isinstance(field.default, int | str) and field.default else False
    return Annotated[kind | None, typer.Option(help=field.description, show_default=default)]


def _read(given: Mapping[str, Any]) -> dict[str, Any]:
    """Flags that were given, as fields of a Request."""
    asked = {name: value for name, value in given.items() if value is not None}
    size, cues = asked.pop("size", ""), [_cue(text) for text in asked.pop("at", ())]
    if "guided" in asked:
        asked["guided"] = _interval(asked["guided"])
    if loras := asked.pop("lora", ()):
        asked["loras"] = tuple(map(_lora, loras))
    return {**asked, **(parse_size(size)._asdict() if size else {}), **({"cues": tuple(cues)} if cues else {})}


def _interval(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise BadRequest(f"{text[:40]!r} was given for --guided", "It is LOW,HIGH, as in 0.1,0.9") from None
    return low, high


def _lora(text: str) -> Lora:
    name, weight, expert = (*text.split(":"), "", "")[:3]
    try:
        if text.count(":") > 2 or Path(name).suffix == ".safetensors" or "/" in name:
            raise ValueError
        return Lora(name=name, weight=float(weight or 1), expert=cast(Any, expert))
    except ValueError:
        raise BadRequest(
            f"{text[:40]!r} was given for --lora",
            "It is NAME, NAME:WEIGHT or NAME:WEIGHT:high, as in film-look:0.8",
            "`cine models add NAME FILE.safetensors` gives a file its name",
        ) from None


def _cue(text: str) -> Cue:
    second, _, words = text.partition(":")
    try:
        return Cue(at=float(second), prompt=words)
    except ValueError:
        raise BadRequest(f"{text[:40]!r} was given for --at", "It is SECOND:WORDS, as in 8:'the sun sets'") from None
