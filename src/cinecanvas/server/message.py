"""What a request carries: JSON or a form, and who sent it; the same to every dialect."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from cinecanvas.errors import BadRequest
from cinecanvas.jobs.keys import LOCAL, Caller, Scope
from cinecanvas.jobs.order import ORDERS
from cinecanvas.media.destination import told
from cinecanvas.server.desk import MOST_DATA_URI, Desk
from cinecanvas.server.dialect import Fault, Refused
from cinecanvas.server.strict import NotStrict, strict

Body = TypeVar("Body", bound=BaseModel)
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_MOST_FIELDS = 200
_MOST_TEXT = MOST_DATA_URI + (1 << 20)  # bytes of all text fields of a form together: they are held in memory
_KIND, _FILE = re.compile(r"a valid dictionary or instance of \w+"), "an instance of UploadFile"
_PIECE = 1 << 20  # bytes
_CODES = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}  # by pydantic's types


class Fields(BaseModel):
    """What a body may hold; anything else is refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Message(BaseModel):
    """A body as it is sent: text fields are strings, objects and lists nest, files are uploads."""

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    fields: dict[str, Any]
    digest: str  # of what was sent and where to, for the clients that send it twice

    def read(self, kind: type[Body]) -> Body:
        """The body as a dialect's own value, or one line about the first field that is wrong."""
        try:
            return kind.model_validate(self.fields)
        except ValidationError as error:
            raise Refused(first_fault(error.errors(include_url=False, include_context=False))) from None


def first_fault(errors: Any) -> Fault:
    """The first thing that pydantic found, as one line; of a field that may be a file or more, what is more."""
    first = next((error for error in errors if error["type"] != "is_instance_of"), errors[0])
    code = _CODES.get(first["type"], "invalid_request")
    unknown = code == "unknown_parameter"
    *within, last = first["loc"] or ("",)
    if within[:1] == ["body"] and within[1:2] and within[1] in ORDERS:  # which of the tasks it is, is no field
        del within[1]
    place = [part for part in within if not _is_kind(part)] + ([last] if unknown or not _is_kind(last) else [])
    name = ".".join(str(part) for part in place if part not in ("body", "query", "path", "header"))[:80]
    said = _KIND.sub("an object", first["msg"].removeprefix("Value error, ")).replace(_FILE, "a file")
    text = f"The field {name} is not known here." if unknown else f"{name or 'The body'}: {said}."
    return Fault(400, code, text, name)


def _is_kind(part: str | int) -> bool:
    """Whether a part of a place is the name of a type, as pydantic puts there for a field of several."""
    return isinstance(part, str) and (part[:1].isupper() or "[" in part)


async def message(request: Request) -> Message:
    """The body of a request, whichever way it is encoded."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        form = await (_form(request) if kind.startswith("multipart") else request.form())
        digest = _digest(request, b"")
        for name, value in form.multi_items():
            if "\0" in name or (isinstance(value, str) and "\0" in value):  # no database keeps it
                raise BadRequest("A field of the form holds the character NUL", "Text is possible")
            digest.update(name.encode() + b"\0")
            if isinstance(value, str):
                digest.update(value.encode("utf-8", "surrogatepass") + b"\0")
            else:
                digest.update(f"{value.filename} {value.size}\0".encode("utf-8", "surrogatepass"))
                await run_in_threadpool(_add, digest, value)
        return Message(fields=_nested(form.multi_items()), digest=digest.hexdigest())
    raw = await request.body()
    if not raw.strip():
        return Message(fields={}, digest=_digest(request, raw).hexdigest())
    try:  # as strictly as the guard does, which reads nothing but what calls itself JSON
        value = strict(raw)
    except NotStrict as error:
        raise Refused(Fault(400, "invalid_json", f"{error}. A body is one JSON object, or a form.")) from None
    if not isinstance(value, dict):
        raise BadRequest("The body is not an object", "It is one JSON object, or a form")
    return Message(fields=value, digest=_digest(request, raw).hexdigest())


async def _form(request: Request) -> FormData:
    try:
        most = {"max_files": 80, "max_fields": _MOST_FIELDS, "max_part_size": _MOST_TEXT}
        with told("to the disk of the server"):
            return await _Form(request.headers, request.stream(), **most).parse()
    except MultiPartException as error:
        raise BadRequest("The form cannot be read", error.message.rstrip(".")) from None


class _Form(MultiPartParser):
    """A form whose text is bounded as a whole: one field may be a picture as a data URL, as Node sends it."""

    text = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self.text += end - start
            if self.text > _MOST_TEXT:
                raise MultiPartException(f"Its text is longer than {_MOST_TEXT >> 20} MB.")
        super().on_part_data(data, start, end)


def _add(digest: Any, upload: UploadFile) -> None:
    """The bytes of a file: two pictures of one size are two."""
    while piece := upload.file.read(_PIECE):
        digest.update(piece)
    upload.file.seek(0)


def _digest(request: Request, raw: bytes) -> Any:
    """The path counts: the same body to another video asks for something else."""
    return hashlib.sha256(request.url.path.encode("utf-8", "surrogatepass") + b"\0" + raw)


def _nested(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """a[b][c]=1 and d[]=2 as objects and lists; what comes twice under one name is a list."""
    whole: dict[str, Any] = {}
    for name, value in pairs:
        match = _NAME.fullmatch(name)
        keys = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])] if match else [name]
        if len(keys) > 8:
            raise BadRequest("A field of the form nests too deeply")
        _put(whole, keys, value)
    return whole


def _put(where: dict[str, Any], keys: list[str], value: Any) -> None:
    key, *rest = keys
    if not rest:
        before = where.get(key)
        where[key] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
    elif rest == [""]:
        before = where.get(key, [])
        where[key] = [*(before if isinstance(before, list) else [before]), value]
    else:
        inside = where.setdefault(key, {})
        if not isinstance(inside, dict):
            raise BadRequest(f"The field {key[:40]} of the form is two things at once")
        _put(inside, rest, value)


# What a route depends on is async although it awaits nothing: FastAPI would send each of them to a thread and back.


async def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


async def _reader(request: Request) -> Caller:
    return _allowed(request, "read")


async def _creator(request: Request) -> Caller:
    return _allowed(request, "create")


async def _admin(request: Request) -> Caller:
    return _allowed(request, "admin")


def _allowed(request: Request, scope: Scope) -> Caller:
    caller: Caller = getattr(request.state, "caller", LOCAL)
    caller.need(scope)
    return caller


async def base(request: Request) -> str:
    """The address that users know, or that this request came to, as far as its host was let in."""
    return request.app.state.desk.public or str(request.base_url).rstrip("/")


At = Annotated[Desk, Depends(_desk)]
Reader = Annotated[Caller, Depends(_reader)]
Admin = Annotated[Caller, Depends(_admin)]
Creator = Annotated[Caller, Depends(_creator)]
Sent = Annotated[Message, Depends(message)]
Base = Annotated[str, Depends(base)]
Upload = UploadFile
