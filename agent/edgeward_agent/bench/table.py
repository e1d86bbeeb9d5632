"""Lays out tables and sentences for the width that there is. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from edgeward_agent.bench.words import Screen


def blocks(rows: Sequence[Sequence[str]], width: int) -> Iterator[list[str]]:
    """Lines of the rows, whose cells bring their own space: as many columns as fit, and the others below.

    Each block begins with the first column, which names the rows. The first row is the heads.
    """
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    begin = 1
    while begin < len(sizes):
        end = begin + 1
        while end < len(sizes) and sizes[0] + sum(sizes[begin : end + 1]) <= width:
            end += 1
        yield ["".join((row[0], *row[begin:end])).rstrip() for row in rows]
        begin = end


def wrapped(text: str, screen: Screen, *, indent: str = "  ", first: str | None = None) -> list[str]:
    """Lines of the text, all indented alike; the first as `first` says, where it is given."""
    return textwrap.wrap(
        text,
        width=screen.width,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
