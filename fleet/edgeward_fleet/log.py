"""One line for each thing that happens, on standard error. Request lines are not logged: they may hold secrets."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal

from edgeward_contract.visible import visible

_PACKAGE: Final = "edgeward_fleet."


def set_up(level: str = "info", style: Literal["text", "json"] = "text") -> None:
    """Send every log line of this process to standard error, in one form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # its comings and goings are announced by us
    logging.getLogger("alembic").setLevel(logging.WARNING)


class TextLines(logging.Formatter):
    """`2026-11-23T09:00:00.000Z info serve: ready`, then the trace when there is one.

    A device's own words may stand in it: they do not look like a line of ours, nor move a terminal's cursor.
    """

    def format(self, record: logging.LogRecord) -> str:
        head = f"{_time(record)} {record.levelname.lower()} {_source(record)}: {visible(record.getMessage())}"
        return f"{head}\n{self.formatException(record.exc_info)}" if record.exc_info else head


class JsonLines(logging.Formatter):
    """The same as one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "source": _source(record),
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _source(record: logging.LogRecord) -> str:
    return record.name.removeprefix(_PACKAGE)
