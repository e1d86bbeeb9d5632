"""Rows straight from the pages of an SQLite file, for one that SQLite itself can no longer read. Pure.

One destroyed page near the root hides every row from SQLite, while all the leaves are there. Leaves say what they
are, so they need no root: https://sqlite.org/fileformat2.html#b_tree_pages. Nothing read here is to be trusted before
its seal has been checked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final

PAGE_BYTES: Final = 4096
_TABLE_LEAF: Final = 0x0D
_INDEX_LEAF: Final = 0x0A
_FILE_HEADER_BYTES: Final = 100
_LEAF_HEADER_BYTES: Final = 8
_MAX_CELL_BYTES: Final = 16 << 20
_LARGEST_LOCAL: Final = {_TABLE_LEAF: PAGE_BYTES - 35, _INDEX_LEAF: (PAGE_BYTES - 12) * 64 // 255 - 23}
_SMALLEST_LOCAL: Final = (PAGE_BYTES - 12) * 32 // 255 - 23
_INT_BYTES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}

Value = None | int | float | str | bytes
Pages = Callable[[int], bytes]
"""The page of a number, from 1 on; empty when there is none."""


class NotACell(ValueError):
    """The bytes do not have the form of a row."""


def table_rows(page: bytes, number: int, pages: Pages) -> Iterator[tuple[int, tuple[Value, ...]]]:
    """(rowid, columns) of a leaf of a table, in order; nothing for any other page. Damaged cells are passed over."""
    for start in _cells(page, number, _TABLE_LEAF):
        try:
            size, position = _varint(page, start)
            row, position = _varint(page, position)
            yield _signed(row), _columns(_payload(page, position, size, _TABLE_LEAF, pages))
        except NotACell:
            continue


def index_entries(page: bytes, number: int, pages: Pages) -> Iterator[tuple[Value, ...]]:
    """The columns of each entry of a leaf of an index, the rowid last."""
    for start in _cells(page, number, _INDEX_LEAF):
        try:
            size, position = _varint(page, start)
            yield _columns(_payload(page, position, size, _INDEX_LEAF, pages))
        except NotACell:
            continue


def row_range(page: bytes, number: int) -> tuple[int, int] | None:
    """The lowest and highest rowid of a leaf of a table."""
    rows: list[int] = []
    for start in _cells(page, number, _TABLE_LEAF):
        try:
            _, position = _varint(page, start)
            rows.append(_signed(_varint(page, position)[0]))
        except NotACell:
            continue
    return (min(rows), max(rows)) if rows else None


def _cells(page: bytes, number: int, kind: int) -> Iterator[int]:
    """Where the cells of a leaf of this kind begin."""
    header = _FILE_HEADER_BYTES if number == 1 else 0
    if len(page) != PAGE_BYTES or page[header] != kind:
        return
    count = int.from_bytes(page[header + 3 : header + 5], "big")
    first = header + _LEAF_HEADER_BYTES
    for offset in range(first, min(first + 2 * count, PAGE_BYTES - 1), 2):
        yield int.from_bytes(page[offset : offset + 2], "big")


def _payload(page: bytes, position: int, size: int, kind: int, pages: Pages) -> bytes:
    """The cell's bytes, the part on overflow pages included."""
    if size > _MAX_CELL_BYTES:
        raise NotACell("size")
    local = _local_bytes(size, kind)
    parts = [page[position : position + local]]
    missing = size - local
    following = int.from_bytes(page[position + local : position + local + 4], "big") if missing else 0
    while missing > 0:
        overflow = pages(following)
        if len(overflow) != PAGE_BYTES:
            raise NotACell("overflow")
        parts.append(overflow[4 : 4 + missing])
        missing -= PAGE_BYTES - 4
        following = int.from_bytes(overflow[:4], "big")
    return b"".join(parts)


def _local_bytes(size: int, kind: int) -> int:
    largest = _LARGEST_LOCAL[kind]
    if size <= largest:
        return size
    wanted = _SMALLEST_LOCAL + (size - _SMALLEST_LOCAL) % (PAGE_BYTES - 4)
    return wanted if wanted <= largest else _SMALLEST_LOCAL


def _columns(payload: bytes) -> tuple[Value, ...]:
    end, position = _varint(payload, 0)
    if end > len(payload):
        raise NotACell("header")
    kinds: list[int] = []
    while position < end:
        kind, position = _varint(payload, position)
        kinds.append(kind)
    values: list[Value] = []
    for kind in kinds:
        value, position = _value(payload, position, kind)
        values.append(value)
    return tuple(values)


def _value(payload: bytes, position: int, kind: int) -> tuple[Value, int]:
    end = position + _width(kind)
    if end > len(payload):
        raise NotACell("column")
    data = payload[position:end]
    if kind == 0:
        return None, end
    if kind == 7:
        return float(struct.unpack(">d", data)[0]), end
    if kind in (8, 9):
        return kind - 8, end
    if kind in _INT_BYTES:
        return int.from_bytes(data, "big", signed=True), end
    return (_text(data) if kind % 2 else data), end


def _width(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    if kind in (10, 11):
        raise NotACell("reserved type")
    return 8 if kind == 7 else _INT_BYTES.get(kind, 0)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise NotACell("text") from None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(data[position : position + 9]):
        if count == 8:
            return value << 8 | byte, position + 9
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, position + count + 1
    raise NotACell("number")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value
