"""What `bench` shows in the end: text or the document, and the page."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final, TextIO, cast

import click

from edgeward_agent.bench.document import document
from edgeward_agent.bench.page import page
from edgeward_agent.bench.report import Report
from edgeward_agent.bench.terminal import render
from edgeward_agent.bench.words import Screen
from edgeward_agent.cli.app import complain, os_words

_NARROWEST, _WIDEST = 40, 100
_NOT_WRITTEN: Final = "The result above holds, and so does the exit code; make room, or give another path next time."
_NOT_SHOWN: Final = "The exit code holds, and so does the page of --html; make room, and run it again for the rest."


def show(report: Report, *, as_json: bool, html: Path | None) -> None:
    """The page comes last. A disk that is full by now costs what was to lie there, and nothing else."""
    _print(document(report) if as_json else render(report, screen_of(sys.stdout)))
    if html is None:
        return
    try:
        html.write_text(page(report), encoding="utf-8")
    except OSError as error:
        complain(f"--html {html}: the page was not written: {(error.strerror or str(error)).lower()}", _NOT_WRITTEN)
        return
    if not as_json:
        _print(f"\n  The page: {html}\n")


def _print(result: str | bytes) -> None:
    try:
        click.echo(result, nl=False)
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # then the reader went away, as `| head` does
            complain(f"standard output: the result was not written: {os_words(error)}", _NOT_SHOWN)
        sys.stdout = cast(TextIO, None)  # or the interpreter tries again at its end, and makes the exit code 120


def screen_of(stream: TextIO | None) -> Screen:
    """What can be shown there. A stream that was closed before we began is None."""
    live = stream is not None and stream.isatty()
    encoding = (stream.encoding if stream is not None else "") or "ascii"
    width = shutil.get_terminal_size().columns if live else 80
    return Screen(
        width=min(_WIDEST, max(_NARROWEST, width)),
        unicode=live and "utf" in encoding.lower(),
        encoding=encoding,
        colour=live and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb",
    )
