"""JSON that every program reads alike: what two parsers could take in two ways, or one could choke on, is refused.

The shape is looked at before anything is parsed, at a few passes over the bytes in C: 16 MB of brackets cost
milliseconds and no stack, for the parser never sees them.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any

_LONGEST_NUMBER = 400  # characters; the largest float has 309 digits
_OTHER = bytes(set(range(256)) - set(b"[]{},"))
_STEP = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # up, and down as a signed byte
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class NotStrict(ValueError):
    """What is wrong with a JSON text, in words that repeat nothing of it."""


def strict(body: bytes, *, depth: int = 32, items: int = 10_000) -> Any:
    """The value of a JSON text; at most `depth` containers in one another, and `items` values in all."""
    _shape(body, depth, items)
    try:
        value = _DECODER.decode(body.decode("utf-8"))
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise NotStrict("The body is not UTF-8") from None
    except UnicodeEncodeError:
        raise NotStrict("A string holds half of a character: a surrogate without the other") from None
    except json.JSONDecodeError as error:
        raise NotStrict(f"The body is not JSON: {error.msg} (character {error.pos})") from None
    return value


def _shape(body: bytes, depth: int, items: int) -> None:
    """That a text is neither deep nor crowded, up to the first place where it is no JSON, which stops the parser."""
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")  # now each quote opens or closes a string
    if rb"\u0000" in bare:  # no database keeps it, and C ends there
        raise NotStrict("A string holds the character NUL")
    if bare.count(b'"') > 4 * items:  # a key and a value have two each; splitting there is what costs memory
        raise NotStrict(f"The body holds more than {items} values")
    marks = b"".join(bare.split(b'"')[::2]).translate(None, _OTHER)
    if marks.count(b",") + marks.count(b"[") + marks.count(b"{") >= items:
        raise NotStrict(f"The body holds more than {items} values")
    brackets = marks.translate(_STEP, b",")
    if len(brackets) > 2 * items:
        raise NotStrict("The body is not JSON: it closes what it never opened")
    if max(accumulate(memoryview(brackets).cast("b")), default=0) > depth:
        raise NotStrict(f"The body is nested more than {depth} deep")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):  # the first to one reader, the last to another
        raise NotStrict("An object has the same key twice")
    return members


def _real(text: str) -> float:
    value = float(text) if len(text) <= _LONGEST_NUMBER else math.inf
    if not math.isfinite(value):
        raise NotStrict("A number is too large, or too long")
    return value


def _whole(text: str) -> int:
    _real(text)
    return int(text)


def _constant(text: str) -> float:
    raise NotStrict(f"{text} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_float=_real, parse_int=_whole, parse_constant=_constant)
