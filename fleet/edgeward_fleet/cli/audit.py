"""The audit log: who did what, when."""

from __future__ import annotations

from collections import deque
from typing import Final

import click

from edgeward_fleet.cli.options import answering, connect
from edgeward_fleet.cli.output import Column, Output, text, when

_COLUMNS: Final[tuple[Column, ...]] = (
    ("#", text("sequence")),
    ("AT", when("at")),
    ("WHO", text("actor")),
    ("DID", text("action")),
    ("TO", text("subject")),
    ("DETAIL", text("detail")),
)


@click.group()
def audit() -> None:
    """The audit log: who did what, when."""


@audit.command("list")
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The last so many entries.")
@click.option("--after", type=click.IntRange(min=0), default=0, help="Only entries after this number.")
@answering
def list_entries(limit: int, after: int, out: Output) -> None:
    """List the last entries of the audit log, oldest first."""
    with connect() as fleet:
        found = deque(fleet.pages("/audit", {"after": str(after)}), maxlen=limit)
    out.table(list(found), _COLUMNS, empty="Nothing yet.")
