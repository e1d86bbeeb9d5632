"""Options that many commands share, so that they are spelled once."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import click

from edgeward_contract.schema import JsonValue
from edgeward_fleet.cli.client import Client
from edgeward_fleet.cli.errors import BadUsage
from edgeward_fleet.cli.output import Output
from edgeward_fleet.cli.profile import effective

C = TypeVar("C", bound=Callable[..., None])

ROLES: Final = ("viewer", "operator", "approver", "admin")
FOLDER: Final = click.Path(path_type=Path, file_okay=False)
FILE: Final = click.Path(path_type=Path, dir_okay=False)


def answering(command: C) -> C:
    """Add --json, and hand the command its `Output` as `out`."""

    def begin(_: click.Context, __: click.Parameter, value: bool) -> Output:
        return Output(as_json=value)

    option = click.option(
        "--json", "out", is_flag=True, callback=begin, help="Answer with one JSON document on standard output."
    )
    return option(command)


def password(command: C) -> C:
    """Add --password-file; the command takes `password_file` and gives it to `read_password`."""
    option = click.option(
        "--password-file", type=click.Path(path_type=Path, allow_dash=True), help="Read the password here; - is stdin."
    )
    return option(command)


def read_password(file: Path | None, *, new: bool) -> str:
    """From the file, standard input or the keyboard, never from the command line, which others can see.

    Raises:
        BadUsage: no file named and nobody at the keyboard, or the file cannot be read or is empty.
    """
    if file is None:
        if not sys.stdin.isatty():
            raise BadUsage(
                "expected --password-file, for nobody is at the keyboard", hint="--password-file - is stdin."
            )
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=new, err=True))
    try:
        text = sys.stdin.readline() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadUsage(f"--password-file {file}: expected a readable file, found: {error}") from None
    found = text.rstrip("\r\n")
    if not found:
        raise BadUsage(f"--password-file {file}: expected a password, found nothing")
    return found


def connect() -> Client:
    """The fleet that the profile and the environment name. Raises NotAllowed when they name none."""
    return Client(effective())


def given(**members: JsonValue) -> dict[str, JsonValue]:
    """The members that were given: an option left out is not sent, so that the fleet's own default holds."""
    return {key: value for key, value in members.items() if value is not None}
