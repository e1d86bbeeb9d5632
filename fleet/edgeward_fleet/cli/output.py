"""How a command answers: lines and tables for people, one JSON document for scripts. Errors go to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeward_contract.schema import Fields, JsonValue
from edgeward_contract.visible import visible

Column = tuple[str, Callable[[Fields], str]]
PLAIN_WIDTH: Final = 200  # a pipe has no width; wide enough that no cell is cut


class Output:
    """Standard output of one command. With `as_json`, `show` prints the document and nothing else is printed."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.live = sys.stdout.isatty() and not as_json
        self.console = Console(highlight=False, width=None if self.live else PLAIN_WIDTH)

    def show(self, document: Mapping[str, JsonValue], *lines: str) -> None:
        """The result: `document` for scripts, `lines` for people."""
        if self.as_json:
            print(json.dumps(document, indent=2), flush=True)  # escaped: not every pipe is UTF-8
        else:
            self.say(*lines)

    def say(self, *lines: str) -> None:
        """Something for people on the way; silent with --json. Devices have a say in much of it: see `visible`."""
        if not self.as_json:
            for line in lines:
                print(visible(line), flush=True)

    def table(self, items: Sequence[Fields], columns: Sequence[Column], *, empty: str) -> None:
        """A list: `{"items": […]}` for scripts, a table for people."""
        if self.as_json:
            self.show({"items": [item.members() for item in items]})
        elif not items:
            self.say(empty)
        else:
            self.console.print(table(items, columns))


def table(items: Sequence[Fields], columns: Sequence[Column]) -> Table:
    """Text only: what a fleet or a device says is never taken as markup, nor obeyed by a terminal."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title, _ in columns:
        made.add_column(title, overflow="fold")
    for item in items:
        made.add_row(*(Text(visible(value(item))) for _, value in columns))
    return made


def text(key: str, *, default: str = "-") -> Callable[[Fields], str]:
    """A column that shows the member `key`, whatever its type."""
    return lambda item: plain(item.raw(key), default)


def ago(key: str) -> Callable[[Fields], str]:
    """A column that shows how long ago the time in `key` was."""

    def show(item: Fields) -> str:
        value = item.raw(key)
        return f"{age(value)} ago" if isinstance(value, str) and value else "never"

    return show


def when(key: str) -> Callable[[Fields], str]:
    """A column that shows the time in `key` to the second, in UTC as the fleet tells it."""
    return lambda item: plain(item.raw(key)).partition(".")[0].rstrip("Z").replace("T", " ")


def age(moment: str, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 time was: `12 s`, `5 min`, `3 h`, `9 d`; the text itself when it is no time."""
    try:
        then = datetime.fromisoformat(moment)
    except ValueError:
        return moment
    if then.tzinfo is None:
        return moment
    seconds = max(0, int(((now or datetime.now(UTC)) - then).total_seconds()))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def plain(value: JsonValue, default: str = "-") -> str:
    """A JSON value on one line, as people read it."""
    if value is None or value in ("", [], {}):
        return default
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    return str(value)


def described(item: Fields) -> list[str]:
    """An object as indented lines, for `show` commands."""
    return _lines(item.members(), "")


def _lines(members: Mapping[str, JsonValue], indent: str) -> list[str]:
    width = max((len(key) for key in members), default=0)
    lines: list[str] = []
    for key, value in members.items():
        title = f"{indent}{key.replace('_', ' '):<{width}}"
        if isinstance(value, dict) and value:
            lines += [title.rstrip(), *_lines(value, indent + "  ")]
        elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
            lines += [title.rstrip(), *(f"{indent}  {plain(each)}" for each in value)]
        else:
            lines.append(f"{title}  {plain(value)}")
    return lines
