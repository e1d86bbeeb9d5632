"""Reading what can still be read of a damaged store, without changing it: the evidence stays as it was found.

Pages of the log are laid over those of the database in memory, also those behind a broken checksum. Rows are read
from the leaves, whatever has become of the pages above them. Each row then proves itself by its seal, so nothing wrong
can come back.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeGuard

from edgeward_agent.outbox.outgoing import Salvaged
from edgeward_agent.outbox.pages import PAGE_BYTES, Value, index_entries, row_range, table_rows
from edgeward_agent.outbox.recovery import DATABASE, quarantined_stores, store_files
from edgeward_agent.outbox.rows import Row, resized
from edgeward_agent.outbox.sealing import Cipher, SealBroken, unwrap
from edgeward_agent.outbox.wal import likely_frames
from edgeward_contract.artifact import DeviceId

_DONE: Final = "salvaged.txt"
_RECORD_TYPES: Final = (str, int, int, str, int, int, str, bytes)  # the first column is the row's number, stored apart
_MAX_PAGES: Final = 1 << 24  # a damaged page number must not make us look through the void


Columns = tuple[Value, ...]
RecordColumns = tuple[None, str, int, int, str, int, int, str, bytes]


@dataclass(slots=True, kw_only=True)
class Tally:
    """What came of a salvage, filled while the rows are read.

    `missing` counts the numbers between the first and the last that are known of an epoch, of which nothing was found:
    rows on destroyed pages, and such as the fleet had taken already.
    """

    salvaged: int = 0
    unreadable: int = 0
    missing: int = 0


def unfinished(directory: Path) -> tuple[Path, ...]:
    """Damaged stores that have not been read to the end."""
    return tuple(
        path for path in quarantined_stores(directory) if any(store_files(path)) and not (path / _DONE).exists()
    )


def finish(folder: Path, tally: Tally) -> None:
    """Remember that `folder` was read, so that the next start does not send its records again."""
    words = f"salvaged {tally.salvaged}, unreadable {tally.unreadable}, missing {tally.missing}\n"
    (folder / _DONE).write_text(words)


def read_rows(
    folder: Path, *, master: Cipher, device: DeviceId, below: int, tally: Tally
) -> Generator[Salvaged, None, None]:
    """Rows whose seal holds, oldest first, with numbers in the same order and all below `below`. Raises OSError."""
    with ExitStack() as stack:
        database = folder / DATABASE
        file = stack.enter_context(database.open("rb")) if database.exists() else None
        pages = _Pages(file, folder / f"{DATABASE}-wal")
        yield from _Reader(pages, master, device, tally).rows(below)


class _Pages:
    """The newest form of every page."""

    def __init__(self, file: BinaryIO | None, wal: Path) -> None:
        self._file = file
        log = wal.read_bytes() if wal.exists() else b""
        self._newer = {
            frame.page_number: frame.page
            for frame in likely_frames(log, PAGE_BYTES)
            if 0 < frame.page_number < _MAX_PAGES
        }
        size = file.seek(0, 2) // PAGE_BYTES if file else 0
        self.count = max([size, *self._newer])

    def __call__(self, number: int) -> bytes:
        if number in self._newer:
            return self._newer[number]
        if self._file is None or not 0 < number <= self.count:
            return b""
        self._file.seek((number - 1) * PAGE_BYTES)
        return self._file.read(PAGE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    day: int
    wrapped: bytes
    cipher: Cipher


@dataclass(slots=True)
class _Numbers:
    """The numbers of one epoch, as far as there is a trace of them."""

    first: int = 0
    last: int = 0
    count: int = 0

    def add(self, number: int) -> None:
        self.first = min(self.first or number, number)
        self.last = max(self.last, number)
        self.count += 1

    @property
    def missing(self) -> int:
        return max(0, self.last - self.first + 1 - self.count) if self.count else 0


class _Reader:
    def __init__(self, pages: _Pages, master: Cipher, device: DeviceId, tally: Tally) -> None:
        self._pages = pages
        self._master = master
        self._device = device
        self._tally = tally
        self._numbers: dict[str, _Numbers] = {}

    def rows(self, below: int) -> Iterator[Salvaged]:
        keys = dict(self._keys())
        leaves = sorted(self._leaves())  # they part the rows among them: in order of leaves is in order of rows
        shift = max((highest for _, highest, _ in leaves), default=0) - below + 1
        for _, _, number in leaves:
            for row, columns in table_rows(self._pages(number), number, self._pages):
                if _is_record(columns):
                    salvaged = self._open(row - shift, columns, keys)
                    if salvaged is not None:
                        yield salvaged
                elif _is_state(columns):
                    self._seen(columns[2]).last = max(self._seen(columns[2]).last, columns[3] - 1)
        self._tally.missing = sum(each.missing for each in self._numbers.values())

    def _seen(self, epoch: str) -> _Numbers:
        return self._numbers.setdefault(epoch, _Numbers())

    def _leaves(self) -> Iterator[tuple[int, int, int]]:
        for number in range(1, self._pages.count + 1):
            found = row_range(self._pages(number), number)
            if found is not None:
                yield (*found, number)

    def _keys(self) -> Iterator[tuple[str, _Key]]:
        for number in range(1, self._pages.count + 1):
            page = self._pages(number)
            rows = [columns for _, columns in table_rows(page, number, self._pages)]
            for columns in (*rows, *index_entries(page, number, self._pages)):
                yield from self._key(columns)

    def _key(self, columns: Columns) -> Iterator[tuple[str, _Key]]:
        """A row of `period_keys`, or of its index, which has the row's number at the end."""
        if len(columns) not in (3, 4):
            return
        key_id, day, wrapped = columns[:3]
        if isinstance(key_id, str) and isinstance(day, int) and isinstance(wrapped, bytes):
            with suppress(SealBroken):
                yield key_id, _Key(day=day, wrapped=wrapped, cipher=unwrap(self._master, wrapped, key_id))

    def _open(self, number: int, columns: RecordColumns, keys: dict[str, _Key]) -> Salvaged | None:
        row = Row.of((number, *columns[1:9]))
        self._seen(row.epoch).add(row.sequence)
        key = keys.get(row.key_id)
        try:
            if key is None:
                raise SealBroken(f"expected the data key {row.key_id}, found none")
            sound = resized(row, key.cipher, self._device)
        except SealBroken:
            self._tally.unreadable += 1
            return None
        self._tally.salvaged += 1
        return Salvaged(row=sound, day=key.day, wrapped=key.wrapped, reason=_reason(columns))


def _is_state(columns: Columns) -> TypeGuard[tuple[None, str, str, int, int]]:
    """The row of `state`: it knows the last number, whatever has become of its record."""
    return tuple(type(column) for column in columns) == (type(None), str, str, int, int)


def _is_record(columns: Columns) -> TypeGuard[RecordColumns]:
    """A row of `records`, or of `quarantine`, which has one column more."""
    found = tuple(type(column) for column in columns)
    return found[1:9] == _RECORD_TYPES and len(found) in (9, 10)


def _reason(columns: Columns) -> str | None:
    return str(columns[9]) if len(columns) == 10 else None
