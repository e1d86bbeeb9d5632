"""What SQLite's errors mean to whoever owns a file. Each owner has errors of its own for it."""

from __future__ import annotations

import sqlite3
from enum import Enum, auto
from typing import Final


class Trouble(Enum):
    """What went wrong, as far as the owner must tell it apart."""

    NO_ROOM = auto()
    UNWRITABLE = auto()  # a quota, a limit of sizes, or a disk that is broken
    READ_ONLY = auto()
    DAMAGED = auto()
    TAKEN = auto()
    OTHER = auto()  # the disk fails, or the file may not be opened


# A quota or a file-size limit answers with IOERR_WRITE where a full disk answers with FULL; so does a broken one.
_EXACTLY: Final = {
    sqlite3.SQLITE_IOERR_WRITE: Trouble.UNWRITABLE,
    sqlite3.SQLITE_IOERR_TRUNCATE: Trouble.UNWRITABLE,
    sqlite3.SQLITE_IOERR_FSYNC: Trouble.UNWRITABLE,
}
_IN_GENERAL: Final = {
    sqlite3.SQLITE_FULL: Trouble.NO_ROOM,
    sqlite3.SQLITE_READONLY: Trouble.READ_ONLY,
    sqlite3.SQLITE_CORRUPT: Trouble.DAMAGED,
    sqlite3.SQLITE_NOTADB: Trouble.DAMAGED,
    sqlite3.SQLITE_FORMAT: Trouble.DAMAGED,
    sqlite3.SQLITE_BUSY: Trouble.TAKEN,
    sqlite3.SQLITE_LOCKED: Trouble.TAKEN,
}


def trouble_of(error: sqlite3.Error) -> Trouble:
    """By the code; the words of an error are SQLite's own business."""
    code = getattr(error, "sqlite_errorcode", 0)
    return _EXACTLY.get(code) or _IN_GENERAL.get(code & 0xFF, Trouble.OTHER)
