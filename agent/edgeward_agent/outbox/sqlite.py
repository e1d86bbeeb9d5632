"""One place that knows SQLite: how the file is opened, and what its errors mean to us."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgeward_agent.errors import AgentRunning, OutboxError, OutboxFull, OutboxUnwritable
from edgeward_agent.outbox.model import StoreDamaged
from edgeward_agent.outbox.pages import PAGE_BYTES
from edgeward_agent.sqlite_trouble import Trouble, trouble_of

RESERVE_PAGES: Final = 64  # for tombstones and bookkeeping when the store is full
_AUTO_CHECKPOINT_PAGES: Final = 256  # a short log is quick to scan, and needs little room on a full disk

# Said of an old file they would be written again, for which a full disk has no room. The second: after a long outage
# the room goes back to the disk.
_OF_A_NEW_FILE: Final = (f"page_size={PAGE_BYTES}", "auto_vacuum=INCREMENTAL")

# `period_keys_copy` holds every column, on a page of its own: one damaged page must not take all records of a day.
SCHEMA: Final = """
CREATE TABLE state (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    device TEXT NOT NULL,
    epoch TEXT NOT NULL,
    next_row INTEGER NOT NULL,
    dropped INTEGER NOT NULL
) STRICT;
CREATE TABLE period_keys (
    key_id TEXT PRIMARY KEY,
    day INTEGER NOT NULL,
    wrapped BLOB NOT NULL
) STRICT;
CREATE INDEX period_keys_copy ON period_keys (key_id, day, wrapped);
CREATE TABLE records (
    row INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    kind TEXT NOT NULL,
    wall_us INTEGER NOT NULL,
    wire_bytes INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    UNIQUE (epoch, sequence)
) STRICT;
CREATE INDEX records_by_rank ON records (rank, row);
CREATE INDEX records_by_key ON records (key_id);
CREATE TABLE quarantine (
    row INTEGER PRIMARY KEY,
    epoch TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    kind TEXT NOT NULL,
    wall_us INTEGER NOT NULL,
    wire_bytes INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    sealed BLOB NOT NULL,
    reason TEXT NOT NULL,
    UNIQUE (epoch, sequence)
) STRICT;
"""


def connect(path: Path, max_bytes: int) -> sqlite3.Connection:
    """Open for the one owner; a new file gets the schema in the same commit as its first row of state (by the caller).

    Raises:
        AgentRunning: another process has it.
        StoreDamaged, OutboxFull, OutboxError: see `translated`.
    """
    path.touch(mode=0o600)  # SQLite gives the log the rights of the database
    with translated():
        connection = sqlite3.connect(path, isolation_level=None, timeout=0.2, cached_statements=64)
        try:
            _configure(connection, max_bytes, new=path.stat().st_size == 0)
        except BaseException:
            connection.close()
            raise
    return connection


def _configure(connection: sqlite3.Connection, max_bytes: int, *, new: bool) -> None:
    # Exclusive keeps the index of the log in memory: no second process can open the file by accident (SQLite before
    # 3.51.3 can lose commits with two connections), and a full disk cannot kill us through a mapped file.
    for pragma in (
        "locking_mode=EXCLUSIVE",  # first: any other statement would make the shared index, and that needs room
        *(_OF_A_NEW_FILE if new else ()),
        "journal_mode=WAL",
        "synchronous=FULL",
        "secure_delete=ON",
        f"wal_autocheckpoint={_AUTO_CHECKPOINT_PAGES}",
        f"max_page_count={max_bytes // PAGE_BYTES + RESERVE_PAGES}",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    connection.execute("BEGIN IMMEDIATE")  # takes the lock now: "another agent" is an error at start, not later
    connection.execute("ROLLBACK")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and on disk when it returns. Raises as `translated` does."""
    with translated():
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after most errors of the disk.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def translated() -> Iterator[None]:
    """Turn SQLite's errors into ours.

    Raises:
        OutboxFull: no room in the file or on the disk.
        OutboxUnwritable: the disk takes nothing, for whatever reason; `disk.refusal` finds words for it.
        StoreDamaged: the content is not a database, or not a sound one.
        AgentRunning: locked by another process.
        OutboxError: the disk failed in another way.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise _meaning(error) from error


def _meaning(error: sqlite3.Error) -> Exception:
    match trouble_of(error):
        case Trouble.NO_ROOM:
            return OutboxFull(f"expected room on the disk for the outbox, found none ({error})")
        case Trouble.UNWRITABLE | Trouble.READ_ONLY:
            return OutboxUnwritable(str(error))
        case Trouble.DAMAGED:
            return StoreDamaged(f"expected a sound database, got: {error}")
        case Trouble.TAKEN:
            return AgentRunning("expected to be alone with outbox.db, but another process has it open")
    return OutboxError(f"expected the disk to work, got: {error}")
