"""`edgeward-agent status`."""

from __future__ import annotations

from pathlib import Path

import click

from edgeward_agent.cli.options import json_option, state_dir_option
from edgeward_agent.state_dir import StateDir
from edgeward_agent.status import read_status
from edgeward_agent.status_text import status_text


@click.command()
@state_dir_option
@json_option
def status(state_dir: Path, as_json: bool) -> None:
    """Show what this device serves, how updates stand and what waits for the fleet.

    Works while the agent is stopped too: then it reads the disk, and says so.
    """
    found = read_status(StateDir(state_dir.absolute()))
    click.echo(found.json() if as_json else status_text(found))
