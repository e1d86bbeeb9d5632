"""What `edgeward-fleet` offers and what its page says are the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from edgeward_fleet.commands import main


def commands(group: click.Group, path: tuple[str, ...] = ("edgeward-fleet",)) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_the_page_names_every_command_and_every_option(checkout: Path) -> None:
    page = " ".join((checkout / "docs/edgeward-fleet.md").read_text().split())
    for name, command in commands(main):
        assert f"`{name}" in page, name
        for option in command.params:
            if isinstance(option, click.Option):
                assert f"`{option.opts[0]}`" in page, f"{name} {option.opts[0]}"


def test_every_command_says_what_it_does() -> None:
    for name, command in commands(main):
        assert (command.help or "").strip().endswith("."), name
