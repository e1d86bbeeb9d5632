"""Reading the outbox of an agent that is stopped, without changing it: for a person who has only the disk.

Apart from the rest because sqlite-utils takes 0.15 s to import, and the running agent never needs it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sqlite_utils import Database

from edgeward_agent.errors import AgentRunning, OutboxError
from edgeward_agent.outbox.inspect import line
from edgeward_agent.outbox.model import HeldRecord
from edgeward_agent.outbox.recovery import DATABASE, KEY
from edgeward_agent.outbox.rows import Row, unseal
from edgeward_agent.outbox.sealing import Cipher, SealBroken, load_master, unwrap
from edgeward_contract.artifact import DeviceId


def offline_lines(directory: Path, *, quarantined: bool = False) -> Iterator[str]:
    """One JSON object per record, oldest first, opened; quarantine with the reason.

    Raises:
        AgentRunning: it does run.
        OutboxError: there is no outbox, or it cannot be read.
    """
    path = directory / DATABASE
    if not path.exists():
        raise OutboxError(f"expected an outbox in {directory}, found none")
    try:
        master = load_master(directory / KEY)
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=0.2)) as connection:
            yield from _read(Database(connection), master, "quarantine" if quarantined else "records")
    except FileNotFoundError:
        raise OutboxError(f"expected {KEY} in {directory}, found none: without it no record can be read") from None
    except sqlite3.Error as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise AgentRunning("expected an agent that is stopped, but the outbox is in use") from None
        raise OutboxError(f"expected to read {path}, got: {error}") from None


def _read(database: Database, master: Cipher, table: str) -> Iterator[str]:
    device = DeviceId(next(database.query("SELECT device FROM state"))["device"])
    wrapped = {row["key_id"]: row["wrapped"] for row in database.query("SELECT key_id, wrapped FROM period_keys")}
    for columns in database.query(f"SELECT * FROM {table} ORDER BY row"):  # noqa: S608 - one of two constants
        reason = columns.pop("reason", "")
        yield line(_held(Row(**columns), reason, wrapped, master, device))


def _held(row: Row, reason: str, wrapped: dict[str, bytes], master: Cipher, device: DeviceId) -> HeldRecord:
    try:
        cipher = unwrap(master, wrapped.get(row.key_id, b""), row.key_id)
        return HeldRecord(row=row.row, record=unseal(row, cipher, device), reason=reason)
    except SealBroken as error:
        return HeldRecord(row=row.row, record=None, reason=reason or f"unreadable: {error}")
