"""`edgeward-agent outbox`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO, Final

import click

from edgeward_agent.agent_socket import ask
from edgeward_agent.cli.options import json_option, state_dir_option
from edgeward_agent.errors import OutboxError, ReadOnlyFolder
from edgeward_agent.outbox.offline import is_evidence, offline_lines
from edgeward_agent.process import StateFolderLock, agent_is_running
from edgeward_agent.state_dir import StateDir
from edgeward_contract.schema import Fields, parse_json

_MAX_LINE_BYTES: Final = 1 << 20


@click.group()
def outbox() -> None:
    """Look at the results that wait for the fleet. Reads a running agent, or the disk of a stopped one."""


@outbox.command("list")
@state_dir_option
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Show so many, oldest first.")
def list_records(state_dir: Path, limit: int) -> None:
    """Show what waits: number, class, kind, time. `export` has the contents."""
    shown = 0
    for line in islice(_lines(StateDir(state_dir.absolute()), quarantined=False), limit):
        click.echo(_row(parse_json(line.encode(), limit_bytes=_MAX_LINE_BYTES)))
        shown += 1
    if not shown:
        click.echo("nothing waits for the fleet")


@outbox.command()
@state_dir_option
@click.option(
    "--to",
    "target",
    type=click.File("w", encoding="utf-8", lazy=True),
    default="-",
    show_default="standard output",
    help="File to write.",
)
@click.option("--quarantined", is_flag=True, help="What was put aside instead of what waits.")
def export(state_dir: Path, target: IO[str], quarantined: bool) -> None:
    """Write every record out, opened, one JSON object a line. They stay in the outbox; mind who reads them.

    A new file is yours alone. STATE/quarantine/outbox-N as --state-dir reads a store that was put aside.
    """
    os.umask(0o077)  # the file is opened with the first record
    for line in _lines(StateDir(state_dir.absolute()), quarantined=quarantined):
        target.write(line + "\n")


@outbox.command()
@state_dir_option
@json_option
@click.option("--requeue", "rows", multiple=True, type=int, metavar="ROW", help="Send this row again; may be repeated.")
def quarantine(state_dir: Path, as_json: bool, rows: tuple[int, ...]) -> None:
    """Show the records that the fleet refused or that no longer open, with the reason; nothing is deleted."""
    state = StateDir(state_dir.absolute())
    if rows:
        (answer,) = ask(state.agent_socket, {"ask": "requeue", "rows": list(rows)})
        click.echo(f"{json.loads(answer)['requeued']} of {len(rows)} will be sent again")
        return
    found = list(_lines(state, quarantined=True))
    if as_json:
        click.echo(json.dumps([json.loads(line) for line in found]))
        return
    for line in found:
        record = parse_json(line.encode(), limit_bytes=_MAX_LINE_BYTES)
        click.echo(f"{_row(record)}  {record.text('reason', default='')}")
    if not found:
        click.echo("the quarantine is empty")


def _lines(state: StateDir, *, quarantined: bool) -> Iterator[str]:
    if agent_is_running(state.agent_pid):
        return ask(state.agent_socket, {"ask": "quarantine" if quarantined else "outbox"})
    return _lines_on_disk(state, quarantined=quarantined)


def _lines_on_disk(state: StateDir, *, quarantined: bool) -> Iterator[str]:
    """With the folder locked, so that no agent starts while its database is read."""
    if not state.outbox.exists():
        raise OutboxError(f"expected an outbox in {state.root}, found none")
    with ExitStack() as stack:
        if not is_evidence(state.root):
            with suppress(ReadOnlyFolder):  # where no agent can start
                stack.enter_context(closing(StateFolderLock(state.agent_pid)))
        yield from offline_lines(state.root, quarantined=quarantined)


def _row(record: Fields) -> str:
    row = record.integer("row")
    if not record.has("sequence"):
        return f"{row:>8}  unreadable"
    when = datetime.fromtimestamp(record.integer("wall_us") / 1e6, UTC).isoformat(timespec="seconds")
    number = f"{record.text('epoch')[:8]}/{record.integer('sequence')}"
    return f"{row:>8}  {number:<16}  {record.text('class'):<9}  {record.text('kind'):<10}  {when}"
