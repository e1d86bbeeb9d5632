"""Reading what can still be read of a damaged store.

Works on a copy: the evidence stays as it was found. Three things help. Frames of the log behind a broken checksum are
laid over the copy all the same; a destroyed first page is replaced by that of a new store, because our schema always
lies on the same pages; and every row proves itself by its seal, so nothing wrong can come back.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeward_agent.outbox.ledger import Ledger
from edgeward_agent.outbox.outgoing import Salvaged
from edgeward_agent.outbox.recovery import DATABASE, quarantined_stores, store_files
from edgeward_agent.outbox.rows import COLUMNS, Row, resized
from edgeward_agent.outbox.sealing import Cipher, SealBroken, unwrap
from edgeward_agent.outbox.sqlite import PAGE_BYTES
from edgeward_agent.outbox.wal import likely_frames
from edgeward_contract.artifact import DeviceId

_DONE: Final = "salvaged.txt"
_WORK: Final = "salvage.db"
_TEMPLATE: Final = "template.db"
_ROWS: Final = {
    # A damaged page stops a scan from one side; the other side and the indexes reach what lies behind it.
    "records": ("NOT INDEXED", "INDEXED BY records_by_key", "INDEXED BY records_by_rank"),
    "quarantine": ("NOT INDEXED",),
}

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of a salvage; filled while the rows are read."""

    salvaged: int = 0
    unreadable: int = 0


def unfinished(directory: Path) -> tuple[Path, ...]:
    """Damaged stores that have not been read to the end."""
    return tuple(
        path for path in quarantined_stores(directory) if any(store_files(path)) and not (path / _DONE).exists()
    )


def finish(folder: Path, tally: Tally) -> None:
    """Remember that `folder` was read, so that the next start does not send its records again."""
    (folder / _DONE).write_text(f"salvaged {tally.salvaged}, unreadable {tally.unreadable}\n")


def read_rows(
    folder: Path, *, master: Cipher, device: DeviceId, floor: int, tally: Tally
) -> Generator[Salvaged, None, None]:
    """Rows whose seal holds, oldest first, numbered from `floor` up.

    Raises:
        OSError: no room for the copy.
    """
    work = folder / _WORK
    try:
        _rebuild(folder, work)
        # Read chunk by chunk, each on whatever thread of the pool is free; never on two at once.
        with closing(sqlite3.connect(work, check_same_thread=False)) as connection:
            yield from _Reader(connection, master, device, tally).rows(floor)
    finally:
        for path in folder.glob(f"{_WORK}*"):
            path.unlink()


class _Reader:
    def __init__(self, connection: sqlite3.Connection, master: Cipher, device: DeviceId, tally: Tally) -> None:
        self._connection = connection
        self._device = device
        self._tally = tally
        self._keys = dict(self._read_keys(master))

    def rows(self, floor: int) -> Iterator[Salvaged]:
        found = sorted((row, table) for table in _ROWS for row in self._row_ids(table))
        for number, (row, table) in enumerate(found, start=floor):
            salvaged = self._read(table, row, number)
            if salvaged is None:
                self._tally.unreadable += 1
            else:
                self._tally.salvaged += 1
                yield salvaged

    def _read_keys(self, master: Cipher) -> Iterator[tuple[str, tuple[int, bytes, Cipher]]]:
        with suppress(sqlite3.Error):
            for key_id, day, wrapped in self._connection.execute("SELECT key_id, day, wrapped FROM period_keys"):
                with suppress(SealBroken):
                    yield key_id, (day, wrapped, unwrap(master, wrapped, key_id))

    def _row_ids(self, table: str) -> set[int]:
        found: set[int] = set()
        for how in _ROWS[table]:
            for order in ("ASC", "DESC"):
                query = f"SELECT row FROM {table} {how} ORDER BY row {order}"  # noqa: S608 - constants
                with suppress(sqlite3.Error):
                    found.update(row for (row,) in self._connection.execute(query))
        return found

    def _read(self, table: str, row: int, number: int) -> Salvaged | None:
        reason = "reason" if table == "quarantine" else "NULL"
        query = f"SELECT {COLUMNS}, {reason} FROM {table} WHERE row = ?"  # noqa: S608 - constants
        try:
            columns = self._connection.execute(query, (row,)).fetchone()
            if columns is None or columns[7] not in self._keys:
                return None
            day, wrapped, cipher = self._keys[columns[7]]
            sound = resized(Row.of((number, *columns[1:9])), cipher, self._device)
        except (sqlite3.Error, SealBroken):
            return None
        return Salvaged(row=sound, day=day, wrapped=wrapped, reason=columns[9])


def _rebuild(folder: Path, work: Path) -> None:
    """The newest form of every page, in one file without a log."""
    database = folder / DATABASE
    if database.exists():
        shutil.copyfile(database, work)
    else:
        work.touch()
    wal = folder / f"{DATABASE}-wal"
    with work.open("r+b") as file:
        for frame in likely_frames(wal.read_bytes() if wal.exists() else b"", PAGE_BYTES):
            if 0 < frame.page_number < 1 << 24:  # a damaged number would make a huge sparse file
                file.seek((frame.page_number - 1) * PAGE_BYTES)
                file.write(frame.page)
    if not _readable(work):
        _replace_first_page(folder, work)
    with work.open("r+b") as file:
        file.seek(18)
        file.write(b"\1\1")  # not in WAL mode: the log has been laid over it


def _readable(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(16) != b"SQLite format 3\0":
            return False
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
            return connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'records'").fetchone() is not None
    except sqlite3.Error:
        return False


def _replace_first_page(folder: Path, work: Path) -> None:
    template = folder / _TEMPLATE
    try:
        Ledger.open(template, device=DeviceId("template"), master=Cipher(bytes(32)), max_bytes=1 << 20).close()
        page = bytearray(template.read_bytes()[:PAGE_BYTES])
    finally:
        for path in folder.glob(f"{_TEMPLATE}*"):
            path.unlink()
    page[92:96] = b"\0\0\0\0"  # not "valid for" this change counter: SQLite then takes the size from the file
    page[32:40] = bytes(8)  # no free list: nothing is written here
    with work.open("r+b") as file:
        file.write(page)
