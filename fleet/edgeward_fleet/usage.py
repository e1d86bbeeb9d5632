"""What is wrong with a command line, in the form of every other error: what is wrong, then where to look."""

from __future__ import annotations

import click


def usage_error(error: click.ClickException, program: str) -> tuple[str, str]:
    """The message and the hint."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    return error.format_message(), f"`{context.command_path if context else program} --help` shows what it takes."
