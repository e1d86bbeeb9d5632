"""The outbox as a table of sealed rows: who is next, under which key, and how much room is taken.

Used by the owner thread alone. `row` is the order of the device, counted up for ever and stored, so that a number is
never given twice even after every row has gone. It is also the sequence of a new record; only rows that were salvaged
from a damaged store have another, because they keep the number under which the fleet may know them.
"""

from __future__ import annotations

import math
import secrets
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from edgeward_agent.outbox.model import Receipt, StoreDamaged
from edgeward_agent.outbox.pages import PAGE_BYTES
from edgeward_agent.outbox.retention import PeriodUse
from edgeward_agent.outbox.rows import COLUMNS, PARAMETERS, Prepared, Row, unseal
from edgeward_agent.outbox.sealing import Cipher, SealBroken, new_data_key, unwrap, wrap
from edgeward_agent.outbox.sqlite import SCHEMA, connect, transaction, translated
from edgeward_contract.artifact import DeviceId, sha256_of
from edgeward_contract.record import Record

_ROW_OVERHEAD_BYTES: Final = 256  # columns, three index entries, nonce and tag
_KEEP_FREE_PAGES: Final = 4096  # 16 MiB: what an ordinary day frees is used again without a move
_SHRINK_PAGES: Final = 256
_SHRINK_ROUNDS: Final = 32  # 32 MiB at a time; appends wait meanwhile
_INSERT: Final = f"INSERT INTO records ({COLUMNS}) VALUES ({PARAMETERS})"  # noqa: S608 - constants


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The one row of `state`: what must outlive every record."""

    device: DeviceId
    epoch: str
    next_row: int
    dropped: int


class Keyring:
    """The data keys of the periods, unwrapped when first used."""

    def __init__(self, connection: sqlite3.Connection, master: Cipher) -> None:
        self._connection = connection
        self._master = master
        self._ciphers: dict[str, Cipher] = {}
        self._current: dict[int, str] = {}

    def cipher(self, key_id: str) -> Cipher:
        """Raises SealBroken: destroyed, damaged, or wrapped by another `outbox.key`."""
        if key_id not in self._ciphers:
            found = self._connection.execute("SELECT wrapped FROM period_keys WHERE key_id = ?", (key_id,)).fetchone()
            if found is None:
                raise SealBroken(f"expected the data key {key_id}, found none")
            self._ciphers[key_id] = unwrap(self._master, found[0], key_id)
        return self._ciphers[key_id]

    def current(self, day: int) -> tuple[str, Cipher]:
        """The key of `day`; inside a transaction, because the first record of a day makes it."""
        if day not in self._current:
            query = "SELECT key_id FROM period_keys WHERE day = ? LIMIT 1"
            found = self._connection.execute(query, (day,)).fetchone()
            self._current[day] = found[0] if found else self._create(day)
        key_id = self._current[day]
        return key_id, self.cipher(key_id)

    def uses(self) -> tuple[PeriodUse, ...]:
        query = """SELECT key_id, day, EXISTS (SELECT 1 FROM records r WHERE r.key_id = k.key_id)
                   + EXISTS (SELECT 1 FROM quarantine q WHERE q.key_id = k.key_id) FROM period_keys k"""
        rows = self._connection.execute(query)
        return tuple(PeriodUse(key_id=key_id, day=day, rows=used) for key_id, day, used in rows)

    def destroy(self, key_ids: Iterable[str]) -> None:
        self._connection.executemany("DELETE FROM period_keys WHERE key_id = ?", [(each,) for each in key_ids])
        self.forget()

    def forget(self) -> None:
        """After a rollback: a key that was made in it exists nowhere else."""
        self._ciphers.clear()
        self._current.clear()

    def _create(self, day: int) -> str:
        key_id = secrets.token_hex(8)
        wrapped = wrap(self._master, new_data_key(), key_id)
        self._connection.execute("INSERT INTO period_keys VALUES (?, ?, ?)", (key_id, day, wrapped))
        return key_id


class Ledger:
    """An open database. Everything that changes it happens inside `change`."""

    def __init__(self, connection: sqlite3.Connection, keys: Keyring, state: State, limit_bytes: int) -> None:
        self.connection = connection
        self.keys = keys
        self.state = state
        self.limit_bytes = limit_bytes

    @classmethod
    def open(cls, path: Path, *, device: DeviceId, master: Cipher, max_bytes: int) -> Ledger:
        """Open or create.

        Raises:
            StoreDamaged: not sound, of another device, or sealed under another `outbox.key`.
            AgentRunning, OutboxFull, OutboxError: see `sqlite.translated`.
        """
        connection = connect(path, max_bytes)
        try:
            keys = Keyring(connection, master)
            state = _read_state(connection) or _create(connection, device)
            if state.device != device:
                raise StoreDamaged(f"expected the outbox of device {device}, got that of {state.device}")
            _check_keys(connection, keys)
            return cls(connection, keys, state, max_bytes)
        except BaseException:
            connection.close()
            raise

    @contextmanager
    def change(self) -> Iterator[None]:
        """One commit; after an error nothing has changed, here or on disk."""
        before = self.state
        try:
            with transaction(self.connection):
                yield
                if self.state != before:
                    self._save_state()
        except BaseException:
            self.state = before
            self.keys.forget()
            raise

    def insert(self, prepared: Prepared, day: int) -> Receipt:
        """Give the record its number and seal it. Inside `change`."""
        state = self.state
        key_id, cipher = self.keys.current(day)
        unsealed = Row(
            row=state.next_row,
            epoch=state.epoch,
            sequence=state.next_row,
            rank=prepared.rank,
            kind=prepared.kind,
            wall_us=prepared.wall_us,
            wire_bytes=prepared.wire_bytes,
            key_id=key_id,
            sealed=b"",
        )
        sealed = cipher.seal(prepared.plaintext, unsealed.place(state.device).associated_data())
        self.connection.execute(_INSERT, replace(unsealed, sealed=sealed).columns())
        return self.take_number()

    def take_number(self) -> Receipt:
        """Use up the next number. Inside `change`."""
        state = self.state
        self.state = replace(state, next_row=state.next_row + 1)
        return Receipt(epoch=state.epoch, sequence=state.next_row)

    def move(self, row: Row) -> None:
        """Give a record its number in the epoch that follows its own, with everything in it as it was.

        Inside `change`; raises SealBroken. New records follow, if they were still in that epoch.
        """
        state, moved = self.state, replace(row, epoch=epoch_after(row.epoch))
        cipher = self.keys.cipher(row.key_id)
        plaintext = cipher.open(row.sealed, row.place(state.device).associated_data())
        sealed = cipher.seal(plaintext, moved.place(state.device).associated_data())
        self.connection.execute(
            "UPDATE records SET epoch = ?, sealed = ? WHERE row = ?", (moved.epoch, sealed, row.row)
        )
        if row.epoch == state.epoch:
            self.state = replace(state, epoch=moved.epoch)

    def unseal(self, row: Row) -> Record:
        """Raises SealBroken."""
        return unseal(row, self.keys.cipher(row.key_id), self.state.device)

    def find(self, epoch: str, sequence: int) -> Row | None:
        query = f"SELECT {COLUMNS} FROM records WHERE epoch = ? AND sequence = ?"  # noqa: S608 - constants
        found = self.connection.execute(query, (epoch, sequence)).fetchone()
        return Row.of(found) if found else None

    def delete(self, rows: Iterable[int]) -> None:
        self.connection.executemany("DELETE FROM records WHERE row = ?", [(row,) for row in rows])

    def put_aside(self, row: Row, reason: str) -> None:
        """To quarantine; a person decides. Inside `change`."""
        self.delete([row.row])
        self.connection.execute(
            f"INSERT OR REPLACE INTO quarantine ({COLUMNS}, reason) VALUES ({PARAMETERS}, ?)",  # noqa: S608 - constants
            (*row.columns(), reason[:900]),
        )

    def used_bytes(self) -> int:
        """Pages in use; those on the free list are room."""
        (pages,) = self.connection.execute("PRAGMA page_count").fetchone()
        return (int(pages) - _free_pages(self.connection)) * PAGE_BYTES

    def close(self) -> None:
        """Also writes the log back into the database, when there is room."""
        with translated():
            self.connection.close()

    def _save_state(self) -> None:
        state = self.state
        self.connection.execute(
            "UPDATE state SET epoch = ?, next_row = ?, dropped = ?",
            (state.epoch, state.next_row, state.dropped),
        )


def need_bytes(records: Iterable[Prepared]) -> int:
    """Room that records will take, page waste of large ones included."""
    sizes = (len(record.plaintext) + _ROW_OVERHEAD_BYTES for record in records)
    return sum(size if size <= PAGE_BYTES // 4 else math.ceil(size / PAGE_BYTES) * PAGE_BYTES for size in sizes)


def shrink(ledger: Ledger, *, all_of_it: bool) -> None:
    """Empty the log, and give pages that nobody needs back to the disk, a few at a time so that the log stays short.

    Rows that are gone stay readable in the log until it is truncated. Raises as `sqlite.translated` does.
    """
    keep = 0 if all_of_it else _KEEP_FREE_PAGES
    with translated():
        ledger.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        for _ in range(_SHRINK_ROUNDS):
            if _free_pages(ledger.connection) <= keep:
                break
            # `execute` steps once, and this statement moves one page a step; a script is run to its end.
            ledger.connection.executescript(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})")
            ledger.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _free_pages(connection: sqlite3.Connection) -> int:
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(free)


def new_epoch() -> str:
    return f"e-{secrets.token_hex(8)}"


def epoch_after(epoch: str) -> str:
    """The epoch into which a device forks that was restored from an image.

    It follows from the old one, because an image may be restored twice: a record that was in it then gets the same
    new number both times, and the fleet sees a duplicate instead of two records. Another life of the device may have
    used it already; that is the next conflict, and leads to the next epoch.
    """
    return f"e-{sha256_of(b'fork of ' + epoch.encode())[:16]}"


def _read_state(connection: sqlite3.Connection) -> State | None:
    with translated():
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'state'").fetchone():
            return None
        found = connection.execute("SELECT device, epoch, next_row, dropped FROM state").fetchone()
    if found is None:
        raise StoreDamaged("expected one row of state, found none")
    device, epoch, next_row, dropped = found
    return State(device=DeviceId(device), epoch=epoch, next_row=next_row, dropped=dropped)


def _create(connection: sqlite3.Connection, device: DeviceId) -> State:
    """Tables and state in one commit: a power cut leaves an empty file or a whole store."""
    state = State(device=device, epoch=new_epoch(), next_row=1, dropped=0)
    with transaction(connection):
        for statement in SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute("INSERT INTO state VALUES (1, ?, ?, 1, 0)", (device, state.epoch))
    return state


def _check_keys(connection: sqlite3.Connection, keys: Keyring) -> None:
    with translated():
        key_ids = [key_id for (key_id,) in connection.execute("SELECT key_id FROM period_keys")]
        try:
            for key_id in key_ids:
                keys.cipher(key_id)
        except SealBroken as error:
            raise StoreDamaged(f"expected outbox.key to open the data keys: {error}") from None
