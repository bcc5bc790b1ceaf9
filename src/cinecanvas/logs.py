"""Logs: one line per event, for people or as JSON for programs; what names a job or request stands in its own field."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from typing import Literal

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class _Line(logging.Formatter):
    """A line for people: nobody's words can begin another one."""

    def format(self, record: logging.LogRecord) -> str:
        text = f"{self.formatTime(record)} {record.levelname.lower():7} {record.name} {_plain(record.getMessage())}"
        return text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


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
    """What a message names: ids, seconds, counts. LOG.info("job %(job)s ends", {"job": id}) names a job."""
    return dict(record.args) if isinstance(record.args, Mapping) else {}


def _plain(text: str) -> str:
    return _CONTROL.sub(" ", text)
