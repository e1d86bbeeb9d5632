"""The reference page of the command, made from the command itself: `python -m edgeward_fleet.cli.reference`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from edgeward_fleet.cli.app import edgeward

_WIDTH: Final = 100
_HEAD: Final = """# `edgeward`: every command

Made from the command by `python -m edgeward_fleet.cli.reference > docs/edgeward.md`; a test holds it to the command.
Every command takes `--json` and then prints one JSON document on standard output. Lists are `{"items": […]}`; an item
and every other object has the members that the REST API gives it (`/api/v1/openapi.json` on the fleet). An error is
`{"error", "hint", "exit_code"}` on standard error.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([_HEAD, *_sections(edgeward, "edgeward", None)])


def _sections(command: click.Command, name: str, parent: click.Context | None) -> Iterator[str]:
    context = command.make_context(
        name, [], parent=parent, resilient_parsing=True, terminal_width=_WIDTH, max_content_width=_WIDTH
    )
    yield f"## {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            if found is not None:
                yield from _sections(found, child, context)


if __name__ == "__main__":
    print(page(), end="")
