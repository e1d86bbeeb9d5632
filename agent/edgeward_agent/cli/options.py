"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import click

from edgeward_agent.addresses import host_and_port

F = TypeVar("F", bound=Callable[..., object])

_SYSTEM: Final = Path("/var/lib/edgeward")


def default_state_dir() -> Path:
    """The system's folder for root, else the user's (XDG Base Directory specification, XDG_STATE_HOME)."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return _SYSTEM
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state") / "edgeward"


def state_dir_option(command: F) -> F:
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=default_state_dir,
        show_default="/var/lib/edgeward for root, else ~/.local/state/edgeward",
        envvar="EDGEWARD_STATE_DIR",
        help="Folder of identity, releases and outbox.",
    )(command)


def listening_address(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """HOST:PORT as typed, checked here: what is wrong on the command line is not looked for in a file."""
    try:
        if value:
            host_and_port(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")(command)
