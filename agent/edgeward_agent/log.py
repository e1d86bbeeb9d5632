"""One line for each thing that happens, on standard error, for people and for machines.

Nothing about a patient is ever logged: no inputs, no outputs, no request bodies. A line holds names of models and
releases, counts, times and errors.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Final, Literal

_SIMPLE: Final = re.compile(r"[^\s\"=]+")


def fields(**values: object) -> dict[str, object]:
    """The `extra` of a log call: `log.info("link is back", extra=fields(generation=4))`."""
    return {"fields": values}


def set_up(level: str = "info", style: Literal["text", "json"] = "text") -> None:
    """Send every log line of this process to standard error, in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # it warns of every retry that we report ourselves


class TextLines(logging.Formatter):
    """`2026-11-23T09:00:00.000Z info link: fleet is back generation=4`."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in _fields(record).items())
        message = record.getMessage().replace("\n", "\\n")
        return f"{_time(record)} {record.levelname.lower()} {_source(record)}: {message}{pairs}"


class JsonLines(logging.Formatter):
    """The same as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        head = {"time": _time(record), "level": record.levelname.lower(), "source": _source(record)}
        return json.dumps({**head, "message": record.getMessage(), **_fields(record)}, default=str, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    given = getattr(record, "fields", None)
    found: dict[str, object] = dict(given) if isinstance(given, dict) else {}
    if record.exc_info:
        found["exception"] = logging.Formatter().formatException(record.exc_info)
    return found


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _source(record: logging.LogRecord) -> str:
    return record.name.removeprefix("edgeward_agent.")


def _quoted(value: object) -> str:
    text = str(value)
    return text if _SIMPLE.fullmatch(text) else json.dumps(text, ensure_ascii=False)
