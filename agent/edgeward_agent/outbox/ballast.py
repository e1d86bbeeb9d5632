"""Room that is kept so that a full disk can be emptied.

SQLite needs room to delete: the log grows before the database shrinks. When the disk is full, the ballast is given
back to it, and nothing new is taken until it could be laid down again: otherwise new records would eat the room
that letting go of old ones needs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edgeward_agent.errors import OutboxError

_FILE: Final = "outbox.ballast"


class Ballast:
    """A file of `size_bytes` beside the store. A size of 0 means that none is wanted."""

    def __init__(self, directory: Path, size_bytes: int) -> None:
        self._path = directory / _FILE
        self._size_bytes = size_bytes
        self._here = self._measure()

    @property
    def here(self) -> bool:
        return self._here

    def release(self) -> bool:
        """Give the room back; False when there was none to give."""
        was_here = self._path.exists()
        self._path.unlink(missing_ok=True)
        self._here = self._size_bytes == 0
        return was_here

    def restore(self) -> bool:
        """Lay it down again if the disk has room for it and as much again. Raises OutboxError: not writable at all."""
        try:
            if not self._here and self._room():
                self._here = self._write()
        except OSError as error:
            raise OutboxError(f"expected to write in {self._path.parent}, got: {error}") from error
        return self._here

    def lack(self) -> str:
        """Why it could not be laid down, in words."""
        wanted = f"{2 * self._size_bytes} bytes free on the disk, twice outbox.ballast_bytes"
        return f"expected {wanted}, found {self._free()}"

    def _measure(self) -> bool:
        if self._size_bytes == 0:
            self._path.unlink(missing_ok=True)
            return True
        return self._path.exists() and self._path.stat().st_size == self._size_bytes

    def _room(self) -> bool:
        self._path.unlink(missing_ok=True)  # of another size, from an older configuration
        return self._free() >= 2 * self._size_bytes

    def _free(self) -> int:
        disk = os.statvfs(self._path.parent)
        return disk.f_bavail * disk.f_frsize

    def _write(self) -> bool:
        partial = self._path.with_suffix(".new")
        try:
            with partial.open("wb") as file:
                # Random, because a file system that compresses stores zeros in no room at all.
                file.write(os.urandom(self._size_bytes))
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        except OSError:  # a quota, which statvfs does not show
            partial.unlink(missing_ok=True)
            return False
        return True
