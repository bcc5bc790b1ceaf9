"""JSON that every program reads alike passes the guard byte for byte; what is not strict is refused, and cheaply."""

from __future__ import annotations

import json
import time

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from guarded import GUARDED, JSON, KEY, Seen, application, ask, code, guarded, raw
from hypothesis import given, settings
from hypothesis import strategies as st

from cinecanvas.server.guard import Limits
from cinecanvas.server.strict import NotStrict, strict


def test_what_is_json_reaches_the_route_byte_for_byte() -> None:
    seen, body = Seen(), ' {"prompt": "ein Würfel 🎲 \\ud83c\\udfb2", "n": [1, -2.5e3, null, true, {}]}\n'.encode()
    ask("POST", "/v1/films/a", guard=guarded(application(seen)), headers=JSON, content=body)
    assert seen.bodies == [body]


def test_an_empty_body_of_json_stays_empty() -> None:
    assert ask("POST", "/v1/films/a", headers=JSON).status_code == 200


NOT_STRICT = {
    "NaN": b'{"a": NaN}',
    "infinity": b"[-Infinity]",
    "1e400": b'{"a": 1e400}',
    "a whole number beyond all floats": b"1" * 390,
    "a number without end": b"1." + b"0" * 500,
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice, spelt differently": b'{"a": 1, "\\u0061": 2}',
    "half a character": b'["\\ud800"]',
    "half a character in a key": b'{"\\uDC00": 1}',
    "halves in the wrong order": b'["\\udc00\\ud800"]',
    "NUL": b'["\\u0000"]',
    "deep": b"[" * 33 + b"]" * 33,
    "deep objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "crowded": b"[" + b"1," * 400 + b"1]",
    "crowded with strings": b"[" + b'"",' * 300 + b'""]',
    "latin-1": b'"\xfc"',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "words": b"hello",
    "two values": b"{} {}",
    "nothing but a blank": b" ",
    "an unfinished string": b'{"a": "',
    "an unfinished escape": b'"\\',
    "closed before opened": b"]]]][[[[",
    "a comma too many": b"[1,]",
}


@pytest.mark.parametrize("body", NOT_STRICT.values(), ids=NOT_STRICT)
def test_json_that_is_not_strict_is_refused(body: bytes) -> None:
    limits = Limits(items=300)
    answer = ask("POST", "/v1/films/a", guard=guarded(limits=limits), headers=JSON, content=body)
    assert (answer.status_code, code(answer)) == (400, "invalid_json")


@pytest.mark.parametrize("kind", ["application/JSON", "application/json; charset=utf-8", "application/problem+json"])
def test_json_is_strict_by_whatever_name(kind: str) -> None:
    assert ask("POST", "/v1/films/a", headers={**KEY, "content-type": kind}, content=b"NaN").status_code == 400


def test_brackets_in_strings_are_no_depth() -> None:
    strict(json.dumps(["[" * 500 + '\\"' * 50 + "\\" + "{" * 500]).encode(), depth=1)


def test_a_container_at_the_limit_passes() -> None:
    strict(b"[" * 32 + b"]" * 32, depth=32)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (8 << 20),
        b'{"a":' * 200_000,
        b'"' * (8 << 20),
        b'"' + rb"\"" * (4 << 20),
        b"]" * (8 << 20),
        b"," * (8 << 20),
    ],
)
def test_a_monstrous_text_costs_little(body: bytes) -> None:
    began = time.perf_counter()
    with pytest.raises(NotStrict):
        strict(body)
    assert time.perf_counter() - began < 5


def test_two_hundred_thousand_deep_is_refused_without_recursion() -> None:
    with pytest.raises(NotStrict, match="nested"):
        strict(b"[" * 200_000 + b"]" * 200_000, items=10**6)


def test_what_closes_without_end_is_refused_by_a_count() -> None:
    with pytest.raises(NotStrict, match="never opened"):
        strict(b"]" * 100_000)


TEXTS = st.one_of(
    st.binary(max_size=60),
    st.text(alphabet='[]{},:"\\ueE+-.01 nNaI\ud7ff', max_size=40).map(lambda text: text.encode("utf-8", "replace")),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode()),
    st.lists(
        st.sampled_from([b'"a":', b'"', b"\\", b"\\ud83d", b"\\udc00", b"{", b"}", b"[", b"]", b",", b"1e400", b"1"]),
        max_size=12,
    ).map(b"".join),
)


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_what_passes_is_what_every_parser_reads(body: bytes) -> None:
    try:
        value = strict(body)
    except NotStrict:
        return
    assert json.dumps(value) == json.dumps(json.loads(body))


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_no_body_makes_the_server_fail(body: bytes) -> None:
    assert ask("POST", "/v1/films/a", guard=GUARDED, headers=JSON, content=body).status_code in (200, 400, 413)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                [
                    b"host",
                    b"origin",
                    b"content-type",
                    b"content-length",
                    b"x-request-id",
                    b"transfer-encoding",
                    b"sec-fetch-site",
                ]
            ),
            st.binary(max_size=20),
        ),
        max_size=4,
    ),
    st.text(max_size=20),
    st.text(max_size=8),
)
def test_no_head_makes_the_server_fail(headers: list[tuple[bytes, bytes]], path: str, method: str) -> None:
    known = [(b"host", b"localhost"), (b"authorization", b"Bearer good")]
    assert raw(GUARDED, method=method, path=f"/v1/films/{path}", headers=[*known, *headers]) < 500
