"""`edgeward-agent doctor`."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec

from edgeward_agent.checks import Level
from edgeward_agent.cli.exits import FAILED
from edgeward_agent.cli.options import json_option, state_dir_option
from edgeward_agent.doctor import examine
from edgeward_agent.state_dir import StateDir

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


@click.command()
@state_dir_option
@json_option
def doctor(state_dir: Path, as_json: bool) -> None:
    """Look for the usual causes of trouble: state folder, identity, certificate, clock, fleet, serving, disk.

    Changes nothing, but for a file that it writes to the state folder and removes again. Ends with 1 when a check
    fails; a warning alone is no failure.
    """
    checks = []
    for check in examine(StateDir(state_dir.absolute())):
        checks.append(check)
        if not as_json:
            click.echo(f"{click.style(f'{check.level:<4}', fg=_COLOURS[check.level])}  {check.name:<14} {check.detail}")
            if check.hint:
                click.echo(f"      {'':<14} {check.hint}")
    if as_json:
        click.echo(msgspec.json.encode(checks).decode())
    sys.exit(FAILED if any(check.level is Level.FAIL for check in checks) else 0)
