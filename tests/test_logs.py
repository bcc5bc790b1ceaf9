"""What stands in a log: one line per event, its ids in fields of their own."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from cinecanvas.logs import log_to_stderr

LOG = logging.getLogger("cinecanvas.test")


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before, level


def test_json_has_what_a_message_names_in_its_own_fields(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("json")
    LOG.info("job %(job)s %(state)s", {"job": "a1", "state": "succeeded"})
    line = json.loads(capsys.readouterr().err)
    assert (line["message"], line["job"], line["state"]) == ("job a1 succeeded", "a1", "succeeded")


def test_nobodys_words_begin_a_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("text")
    LOG.warning("a name: %s", "x\n2026 forged\u2028again")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "\u2028" not in said


def test_a_failure_keeps_its_traceback_and_its_job(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("json")
    try:
        raise ValueError("inside")
    except ValueError:
        LOG.exception("job %(job)s failed", {"job": "a1"})
    line = json.loads(capsys.readouterr().err)
    assert line["job"] == "a1" and "ValueError: inside" in line["traceback"]
