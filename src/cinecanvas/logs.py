"""Logs: one line per event, for people or as JSON for programs; what names a job or request stands in its own field."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Literal

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _Line(logging.Formatter):
    """A line for people: nobody's words can begin another one."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{self.formatTime(record)} {record.levelname.lower():7} {record.name} {_plain(record.getMessage())}"
        facts = "".join(f" {name}={_plain(str(value))}" for name, value in _facts(record).items())
        return text + facts + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class _Json(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"at": round(record.created, 3), "level": record.levelname.lower(), "logger": record.name}
        line |= {"message": record.getMessage(), **_facts(record)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr(style: Literal["text", "json"] = "text", *, level: int = logging.INFO) -> None:
    """Send this process's logs to stderr, once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Line())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("cinecanvas").setLevel(level)


def _facts(record: logging.LogRecord) -> dict[str, object]:
    """What was given as `extra`: ids, seconds, counts."""
    return {name: value for name, value in record.__dict__.items() if name not in _OWN}


def _plain(text: str) -> str:
    return _CONTROL.sub(" ", text)
