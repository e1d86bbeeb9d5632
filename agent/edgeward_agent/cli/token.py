"""`edgeward-agent token`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgeward_agent.cli.options import state_dir_option
from edgeward_agent.config import load_config
from edgeward_agent.state_dir import StateDir
from edgeward_agent.token_file import NAME, write_token


@click.group()
def token() -> None:
    """The token that clients show when they ask over TCP."""


@token.command("new")
@state_dir_option
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    show_default=f"serving.token_file of the configuration, else {NAME} of the state folder",
    help="Where to write it.",
)
@click.option("--force", is_flag=True, help="Replace one that is there: its clients are refused from the next start.")
def new(state_dir: Path, file: Path | None, force: bool) -> None:
    """Make a token that nobody can guess, in a file for the agent's user alone.

    The agent reads it when it starts.
    """
    state = StateDir(state_dir.absolute())
    configured = load_config(state.root).serving.token_file
    path = file.absolute() if file else state.inside(configured or NAME)
    if file is None:
        state.root.mkdir(mode=0o711, parents=True, exist_ok=True)
    write_token(path, replace=force)
    click.echo(f"wrote {path}")
    if file is None and not configured:
        click.echo(f"  in {state.root / 'agent.toml'}, section [serving]:  token_file = {json.dumps(NAME)}")
    click.echo("  clients send what is in it: Client(…, token=Path(…).read_text().strip())")
