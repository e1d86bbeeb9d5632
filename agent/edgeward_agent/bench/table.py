"""Lays out a table for the width that there is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


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
