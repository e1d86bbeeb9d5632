"""Reading leaves without SQLite gives what SQLite gives."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgeward_agent.outbox.pages import PAGE_BYTES, Pages, Value, index_entries, row_range, table_rows


def _written(path: Path) -> list[tuple[Value, ...]]:
    """Rows of every kind of column, with sizes around each border of the format; some rows gone again."""
    chosen = random.Random(1)
    borders = [0, 1, 100, 480, 489, 1000, 4040, 4061, 4062, 4090, 4100, 8200, 50_000]
    rows: list[tuple[Value, ...]] = [
        (
            number - 50,
            chosen.choice([0, 1, -1, 127, -129, 40_000, 1 << 23, 1 << 31, 1 << 47, -(1 << 62)]),
            chosen.choice([None, 1.5, -0.25]),
            "é" * chosen.randrange(40),
            chosen.randbytes(chosen.choice(borders) + chosen.randrange(3)),
        )
        for number in range(400)
    ]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("CREATE TABLE t (row INTEGER PRIMARY KEY, n INTEGER, r REAL, s TEXT, b BLOB)")
        connection.execute("CREATE INDEX by_s ON t (s, n)")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?)", rows)
        connection.execute("DELETE FROM t WHERE row BETWEEN 100 AND 200")
        connection.execute("COMMIT")
    return [row for row in rows if not 100 <= int(str(row[0])) <= 200]


def _pages(content: bytes) -> Pages:
    return lambda number: content[(number - 1) * PAGE_BYTES : number * PAGE_BYTES] if number > 0 else b""


def test_leaves_give_every_row_that_sqlite_has(tmp_path: Path) -> None:
    expected = _written(tmp_path / "x.db")
    content = (tmp_path / "x.db").read_bytes()
    pages = _pages(content)
    numbers = range(1, len(content) // PAGE_BYTES + 1)
    leaves = sorted((*span, number) for number in numbers if (span := row_range(pages(number), number)))
    found = [
        (row, *columns[1:]) for _, _, number in leaves for row, columns in table_rows(pages(number), number, pages)
    ]
    assert [each for each in found if len(each) == 5 and isinstance(each[4], bytes)] == expected
    entries = [entry for number in numbers for entry in index_entries(pages(number), number, pages)]
    known = {(row[3], row[1], row[0]) for row in expected}
    assert set(entries) <= known
    assert len(entries) > 0.9 * len(known), "the rest is on pages above the leaves"


@pytest.mark.parametrize("seed", range(20))
def test_nonsense_is_passed_over(tmp_path: Path, seed: int) -> None:
    _written(tmp_path / "x.db")
    content = bytearray((tmp_path / "x.db").read_bytes())
    chosen = random.Random(seed)
    for _ in range(200):
        content[chosen.randrange(len(content))] = chosen.randrange(256)
    pages = _pages(bytes(content))
    read = 0
    for number in range(1, len(content) // PAGE_BYTES + 1):
        page = pages(number)
        row_range(page, number)
        read += len(list(table_rows(page, number, pages))) + len(list(index_entries(page, number, pages)))
    assert read > 100
