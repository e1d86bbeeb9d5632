"""Reading the outbox of an agent that is stopped, without changing it: for a person who has only the disk.

Apart from the rest because sqlite-utils takes 0.15 s to import, and the running agent never needs it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlite_utils import Database

from edgeward_agent.errors import AgentRunning, OutboxError
from edgeward_agent.outbox.inspect import line
from edgeward_agent.outbox.model import HeldRecord
from edgeward_agent.outbox.recovery import DATABASE, KEY, QUARANTINE, store_files
from edgeward_agent.outbox.rows import Row, unseal
from edgeward_agent.outbox.sealing import Cipher, SealBroken, load_master, unwrap
from edgeward_contract.artifact import DeviceId


def offline_lines(directory: Path, *, quarantined: bool = False) -> Iterator[str]:
    """One JSON object per record, oldest first, opened; quarantine with the reason.

    Raises:
        AgentRunning: it does run.
        OutboxError: there is no outbox, or it cannot be read.
    """
    if not (directory / DATABASE).exists():
        raise OutboxError(f"expected an outbox in {directory}, found none")
    home = directory.parent.parent if is_evidence(directory) else directory
    try:
        master = load_master(home / KEY)
    except FileNotFoundError:
        raise OutboxError(f"expected {KEY} in {home}, found none: without it no record can be read") from None
    with _opened(directory) as database:
        yield from _read(database, master, "quarantine" if quarantined else "records")


@contextmanager
def _opened(directory: Path) -> Iterator[Database]:
    try:
        with (
            _readable(directory) as path,
            closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=0.2)) as connection,
        ):
            yield Database(connection)
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise AgentRunning("expected an agent that is stopped, but the outbox is in use") from None
        raise OutboxError(f"expected to read {directory / DATABASE}, got: {error}") from None


def waiting_of(directory: Path) -> tuple[str, int]:
    """The device whose outbox it is, and how many records wait in it; ("", 0) where there is none.

    Raises:
        AgentRunning, OutboxError: as `offline_lines`.
    """
    if not (directory / DATABASE).exists():
        return "", 0
    with _opened(directory) as database:
        return _device(database), database["records"].count


def is_evidence(directory: Path) -> bool:
    """Whether it is a store that was put aside. Its key stayed where it was, and the folder is left as it was found."""
    return directory.parent.name == QUARANTINE


@contextmanager
def _readable(directory: Path) -> Iterator[Path]:
    """The database; a copy, sealed as it is, where SQLite cannot or must not make the index of its log beside it."""
    if not (is_evidence(directory) or os.statvfs(directory).f_flag & os.ST_RDONLY):
        yield directory / DATABASE
        return
    with TemporaryDirectory() as elsewhere:
        for file in store_files(directory):
            shutil.copy(file, elsewhere)
        yield Path(elsewhere, DATABASE)


def _read(database: Database, master: Cipher, table: str) -> Iterator[str]:
    device = _device(database)
    wrapped = {row["key_id"]: row["wrapped"] for row in database.query("SELECT key_id, wrapped FROM period_keys")}
    for columns in database.query(f"SELECT * FROM {table} ORDER BY row"):  # noqa: S608 - one of two constants
        reason = columns.pop("reason", "")
        yield line(_held(Row(**columns), reason, wrapped, master, device))


def _device(database: Database) -> DeviceId:
    found = next(iter(database.query("SELECT device FROM state")), None)
    if found is None:
        raise OutboxError("expected one row of state in the outbox, found none")
    return DeviceId(found["device"])


def _held(row: Row, reason: str, wrapped: dict[str, bytes], master: Cipher, device: DeviceId) -> HeldRecord:
    try:
        cipher = unwrap(master, wrapped.get(row.key_id, b""), row.key_id)
        return HeldRecord(row=row.row, record=unseal(row, cipher, device), reason=reason)
    except SealBroken as error:
        return HeldRecord(row=row.row, record=None, reason=reason or f"unreadable: {error}")
