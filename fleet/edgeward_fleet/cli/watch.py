"""`edgeward rollout watch`: what happens, as it happens, until it is decided."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from edgeward_contract.schema import Fields
from edgeward_contract.visible import visible
from edgeward_fleet.cli.client import Client
from edgeward_fleet.cli.errors import CommandFailed, Undecided
from edgeward_fleet.cli.options import answering, connect
from edgeward_fleet.cli.output import Column, Output, table, text
from edgeward_fleet.cli.values import duration, known_id

GOOD: Final = frozenset({"SUCCEEDED"})
BAD: Final = frozenset({"ROLLED_BACK", "ABORTED", "SUPERSEDED", "EXPIRED"})
POLL_S: Final = 1.0
why: Final = text("reason", default="")
"""Why a rollout stands where it stands, however long the sentence is."""
GRACE_S: Final = 30  # a fleet that restarts in the middle is waited for, not reported

DEVICES: Final[tuple[Column, ...]] = (
    ("DEVICE", text("device")),
    ("SITE", text("site")),
    ("PHASE", text("phase_name")),
    ("STANDING", text("standing")),
    ("BACK", text("back")),
    ("REASON", text("reason")),
)


@click.command()
@click.argument("rollout_id", type=known_id)
@click.option(
    "--timeout", type=duration, metavar="DURATION", help="Give up after so long, with exit code 3; never if left out."
)
@answering
def watch(rollout_id: str, timeout: int | None, out: Output) -> None:
    """Follow ROLLOUT_ID until it is decided.

    Exit code 0: it succeeded. 1: it was rolled back, aborted or ended in another way. 3: not decided in time.
    """
    with connect() as fleet:
        final = follow(fleet, rollout_id, timeout / 1e6 if timeout is not None else None, out)
    state, reason = final.text("state"), why(final)
    out.show(final.members())
    if state in BAD:
        raise CommandFailed(f"{rollout_id}: {state}. {reason}".rstrip(), hint=f"edgeward rollout show {rollout_id}")
    if state not in GOOD:
        raise Undecided(
            f"{rollout_id}: expected a decision in time, it is {state}. {reason}".rstrip(),
            hint="Watch again; pause, resume, abort or rollback decide it.",
        )


def follow(fleet: Client, rollout_id: str, timeout_s: float | None, out: Output) -> Fields:
    """The rollout once it is decided, or as it stands after `timeout_s`; says each change on the way."""
    deadline = time.monotonic() + timeout_s if timeout_s is not None else None
    seen: dict[str, str] = {}
    with _view(out) as live:
        while True:
            found = _patiently(fleet, f"/rollouts/{rollout_id}")
            if live is not None:
                live.update(_picture(found))
            else:
                out.say(*_changes(seen, found))
            over = deadline is not None and time.monotonic() >= deadline
            if found.text("state") in GOOD | BAD or over:
                return found
            time.sleep(POLL_S)


@contextmanager
def _view(out: Output) -> Iterator[Live | None]:
    """A picture that changes in place on a terminal; nothing elsewhere, where lines are better."""
    if not out.live:
        yield None
        return
    with Live(console=out.console, auto_refresh=False) as live:
        yield live


def _patiently(fleet: Client, path: str) -> Fields:
    deadline = time.monotonic() + GRACE_S
    while True:
        try:
            return fleet.get(path)
        except Undecided:
            if time.monotonic() >= deadline:
                raise
            time.sleep(POLL_S)


def _changes(seen: dict[str, str], found: Fields) -> list[str]:
    """A line for each thing that is other than before; remembers it in `seen`."""
    now = facts(found)
    lines = [f"{time.strftime('%H:%M:%S')}  {key}: {value}" for key, value in now.items() if seen.get(key) != value]
    seen.clear()
    seen.update(now)
    return lines


def facts(found: Fields) -> Mapping[str, str]:
    """What a watcher wants to hear of, by whom it is about, each in a few words."""
    told = {found.text("id"): _standing(found)}
    for each in found.objects("devices"):
        words = [each.text("standing"), each.text("back", default="NONE"), each.text("reason", default="")]
        told[each.text("device")] = " ".join(word for word in words if word and word != "NONE")
    return {key: value for key, value in told.items() if value != "WAITING"}


def _standing(found: Fields) -> str:
    parts = [found.text("state")]
    if parts == ["PROGRESSING"]:
        parts.append(f"{found.text('phase_name')} {found.text('step', default='')}".rstrip())
    parts.append(why(found))
    return ", ".join(part for part in parts if part)


def _picture(found: Fields) -> Group:
    return Group(
        Text(visible(f"{found.text('id')}  {found.text('release')}  {_standing(found)}"), style="bold"),
        table(found.objects("devices"), DEVICES),
    )
