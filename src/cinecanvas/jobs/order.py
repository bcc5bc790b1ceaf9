"""An Order is a task on its way to a Request: the verb, its words and numbers, and where its media are to be found.

There is one for each verb of `request`, with the verb's own parameters: what the verb says of itself is the schema that
every server speaks. `canvas` beside them takes a whole Request, laid by hand.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cinecanvas import request as tasks
from cinecanvas.errors import BadRequest, Unsupported
from cinecanvas.request import Clip, Media, Options, Request

VERBS: Mapping[str, Callable[..., Request]] = {
    verb.__name__: verb
    for verb in (
        *(tasks.text_to_video, tasks.text_to_image, tasks.animate, tasks.interpolate, tasks.keyframes, tasks.extend),
        *(tasks.loop, tasks.retake, tasks.inpaint, tasks.outpaint, tasks.remix, tasks.upscale, tasks.join),
    )
}
ID = r"^[0-9A-Za-z_-]{1,64}$"  # of a job or file
_DIGEST = r"^sha256:[0-9a-f]{64}$"


def _whole(value: Any) -> Any:
    """2.0 is a whole number in JSON; "2" and true are none."""
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


Real = Annotated[float, Strict()]  # what is sent as text is not a number
WHOLE = BeforeValidator(_whole)
_PLACES = ("asset", "file", "job", "url")


def _given(name: str) -> dict[str, Any]:
    """That a field is there and not null, as JSON Schema says it."""
    return {"required": [name], "properties": {name: {"type": "string"}}}


class Source(BaseModel):
    """Where a picture or film is: exactly one of a stored asset, a file that was uploaded, a finished job, or a URL."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"oneOf": [_given(n) for n in _PLACES]})

    asset: str | None = Field(default=None, pattern=_DIGEST, description="The digest of an asset of yours.")
    file: str | None = Field(default=None, pattern=ID, description="The id of a file that you uploaded.")
    job: str | None = Field(default=None, pattern=ID, description="The id of a finished job of yours.")
    output: Annotated[int, Field(ge=0, le=999), WHOLE] = Field(
        default=0, description="Which of the job's videos, from 0."
    )
    url: str | None = Field(default=None, max_length=4000, description="A public http(s) URL; fetched by the worker.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in _PLACES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("exactly one of asset, file, job and url is given")
        return self


class Pinned(BaseModel):
    """A picture at its second."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    picture: Source
    at: float = Field(ge=0, le=tasks.MOST_SECONDS, strict=True, description="The second that it stands at.")


class Order(BaseModel):
    """A task as it is asked: `task` names it, the rest is what it takes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    verb: ClassVar[Callable[..., Request]]

    def sources(self) -> tuple[Source, ...]:
        """Everything that is to be found before there is a Request, in the order of its fields."""
        return tuple(_sources(getattr(self, name) for name in type(self).model_fields))

    def located(self, places: Mapping[Source, Source]) -> Self:
        """The same order with some sources in place of others."""
        return self.model_copy(update={n: _replaced(getattr(self, n), places) for n in self.model_fields_set})

    def request(self, found: Mapping[Source, Media]) -> Request:
        """The Request that it comes to, once everything is found."""
        given = {name: getattr(self, name) for name in self.model_fields_set if name != "task"}
        return type(self).verb(**{name: _media(value, found) for name, value in given.items()})


def order(task: str, **given: Any) -> Order:
    """The Order of a task; what it does not take is refused in one line."""
    kind = ORDERS.get(task)
    if kind is None:
        raise Unsupported(f"The task {task[:40]!r} was asked", f"Tasks are {', '.join(ORDERS)}")
    try:
        return kind.model_validate({**given, "task": task})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"]) or task
        raise BadRequest(f"{name[:80]} is not usable: {first['msg']}", _possible(name)) from error


def _possible(name: str) -> str:
    """What a number may be, from end to end: pydantic names only the end that was passed."""
    bounds = _BOUNDS.get(name, {})
    if "le" not in bounds:
        return ""
    least = bounds["ge"] if "ge" in bounds else f"More than {bounds['gt']}"
    return f"{least} to {bounds['le']} {_UNITS.get(name, '')}".rstrip() + " is possible"


def order_of(facts: Mapping[str, Any]) -> Order:
    """An Order from what a database keeps of it."""
    return order(str(facts.get("task")), **{name: value for name, value in facts.items() if name != "task"})


def kept(asked: Order) -> dict[str, Any]:
    """What a database keeps of an Order: only what was given, so that a seed that was left out is not a null."""
    return asked.model_dump(mode="json", exclude_unset=True)


class Laid(Clip):
    """A Clip whose media, and mask, are still to be found."""

    media: Source  # type: ignore[assignment]
    mask: Source | None = None  # type: ignore[assignment]
    start: Real = Field(default=0.0, ge=0, le=tasks.MOST_SECONDS)
    box: tuple[Real, Real, Real, Real] = (0.0, 0.0, 1.0, 1.0)
    keep: Real = Field(default=1.0, ge=0, le=1)
    trim: tuple[Real, Real] | None = None


def canvas(**asked: Any) -> Request:
    """A Request laid by hand, clip by clip: what no verb is there for."""
    return Request.model_validate(asked)


def _orders() -> dict[str, type[Order]]:
    """One kind of Order for each verb, from the verb's own signature; and the canvas."""
    return {**{name: _kind(name, verb) for name, verb in VERBS.items()}, "canvas": _canvas_kind()}


def _canvas_kind() -> type[Order]:
    fields: dict[str, Any] = {name: _option(name) for name in Request.model_fields}
    laid = Field((), max_length=256, description=Request.model_fields["clips"].description)
    fields |= {"task": (Literal["canvas"], ...), "clips": (tuple[Laid, ...], laid)}
    return _made("canvas", canvas, fields)


def _kind(name: str, verb: Callable[..., Request]) -> type[Order]:
    hints = get_type_hints(verb)
    fields: dict[str, Any] = {"task": (Literal[name], ...)}
    for parameter in inspect.signature(verb).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        said = Field(default, description=_words(parameter.name))
        fields[parameter.name] = (_wired(parameter.name, hints[parameter.name]), said)
    for option in Options.__annotations__:
        fields.setdefault(option, _option(option))
    return _made(name, verb, fields)


def _option(name: str) -> tuple[Any, Any]:
    """A field of a Request; a seed that was left out is drawn when the job is accepted, and then kept."""
    field = Request.model_fields[name]
    if name == "seed":
        return _wired(name, int | None), Field(None, description=field.description)
    return _wired(name, field.annotation), Field(field.default, description=field.description)


def _made(name: str, verb: Callable[..., Request], fields: Mapping[str, Any]) -> type[Order]:
    title = "".join(word.capitalize() for word in name.split("_"))
    made = create_model(title, __base__=Order, __doc__=inspect.getdoc(verb), **fields)
    made.verb = staticmethod(verb)
    return made


def _wired(name: str, annotation: Any) -> Any:
    """What stands for media in a message: where to find it."""
    wired = {
        Media: Source,
        Media | None: Source | None,
        tasks.Sequence[tuple[Media, float]]: Annotated[tuple[Pinned, ...], Field(min_length=1, max_length=64)],
    }
    return wired.get(annotation) or _strictly(annotation, _BOUNDS.get(name, {}))


def _strictly(annotation: Any, bounds: Mapping[str, Any]) -> Any:
    """The same within bounds, where numbers and truth values are sent as such: neither "5" nor true is a number."""
    parts = get_args(annotation)
    if get_origin(annotation) is UnionType:
        return Union[tuple(_strictly(part, {} if part is NoneType else bounds) for part in parts)]  # noqa: UP007
    if get_origin(annotation) is tuple and Ellipsis not in parts:
        return tuple[tuple(_strictly(part, bounds) for part in parts)]  # type: ignore[misc]
    bounded = Annotated[annotation, Field(**bounds)] if bounds else annotation
    if annotation in (int, float, bool):
        return Annotated[bounded, WHOLE if annotation is int else Strict()]
    return bounded


def _words(name: str) -> str | None:
    """The help of a parameter that is a field of a Request too."""
    field = Request.model_fields.get(name)
    return field.description if field is not None else _OWN.get(name)


_SIDE = {"ge": tasks.SIDES[0], "le": tasks.SIDES[1]}  # px
_BOUNDS: Mapping[str, Mapping[str, Any]] = {  # what a Request refuses whatever the model, said by the schema too
    "prompt": {"min_length": 1, "max_length": tasks.MOST_PROMPT},
    "negative": {"max_length": tasks.MOST_PROMPT},
    "seconds": {"gt": 0, "le": tasks.MOST_SECONDS},
    "width": _SIDE,
    "height": _SIDE,
    "fps": {"gt": tasks.LEAST_FPS, "le": tasks.MOST_FPS},
    "seed": {"ge": 0, "le": tasks.MOST_SEED},
    "count": {"ge": 1, "le": tasks.MOST_COUNT},
    "steps": {"ge": 1, "le": tasks.MOST_STEPS},
    "guidance": {"ge": 0, "le": tasks.MOST_GUIDANCE},
    "guided": {"ge": 0, "le": 1},
    "rescale": {"ge": 0, "le": 1},
    "step_cache": {"ge": 1, "le": tasks.MOST_EVERY},
    "loras": {"max_length": tasks.MOST_LORAS},
    "enhanced": {"max_length": 257},
    "cues": {"max_length": 256},
    "shape": {"max_length": 40},
    "start": {"ge": 0, "le": tasks.MOST_SECONDS},
    "end": {"gt": 0, "le": tasks.MOST_SECONDS},
    "to": {"max_length": 40},
    "keep": {"ge": 0, "le": 1},
    "place": {"ge": 0, "le": 1},
    "box": {"ge": 0, "le": 1},
}
_UNITS = {"width": "px", "height": "px", "seconds": "s", "start": "s", "end": "s", "fps": "frames per second"}
_OWN = {  # what the verbs take beside the fields of a Request
    "picture": "The picture.",
    "first": "What it begins with.",
    "second": "What it ends with.",
    "pictures": "Pictures, each at its second.",
    "clip": "The film.",
    "of": "A picture or film to close into a loop.",
    "mask": "Of the same size: white is kept, black is new.",
    "last": "The picture is where it ends, not where it begins.",
    "fit": "How media of another shape fill the frame.",
    "backward": "Before the beginning, not after the end.",
    "start": "Where the part begins (s).",
    "end": "Where the part ends (s).",
    "to": "The new shape or size, such as 16:9 or 640x480.",
    "place": "Where the film sits in the free space: (0, 0) left and top, (1, 1) right and bottom.",
    "box": "x, y, w and h of the film in fractions of the new frame, in place of `place`.",
    "keep": "How much stays, from 0 (nothing) to 1 (all).",
    "times": "How many times its size.",
}


def _sources(values: Any) -> Iterator[Source]:
    for value in values:
        if isinstance(value, Source):
            yield value
        elif isinstance(value, BaseModel):
            yield from _sources(getattr(value, name) for name in type(value).model_fields)
        elif isinstance(value, tuple | list):
            yield from _sources(value)


def _replaced(value: Any, places: Mapping[Source, Source]) -> Any:
    if isinstance(value, Source):
        return places.get(value, value)
    if isinstance(value, BaseModel):
        inside = {name: _replaced(getattr(value, name), places) for name in value.model_fields_set}
        return value.model_copy(update=inside)
    if isinstance(value, tuple | list):
        return tuple(_replaced(one, places) for one in value)
    return value


def _media(value: Any, found: Mapping[Source, Media]) -> Any:
    """What a verb takes for what a message holds."""
    if isinstance(value, Source):
        return found[value]
    if isinstance(value, Pinned):
        return found[value.picture], value.at
    if isinstance(value, Laid):
        laid = {name: getattr(value, name) for name in value.model_fields_set}
        masked = {"mask": found[value.mask].digest} if value.mask else {"mask": ""}
        return Clip.model_validate({**laid, "media": found[value.media].digest, **masked})
    if isinstance(value, tuple) and value and isinstance(value[0], Pinned | Laid):
        return tuple(_media(one, found) for one in value)
    return value


ORDERS: Mapping[str, type[Order]] = _orders()
AnyOrder: Any = Annotated[Union[tuple(ORDERS.values())], Field(discriminator="task")]  # noqa: UP007
