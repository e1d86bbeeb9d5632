"""Opening the outbox whatever its files look like: sound, cut short by power loss, damaged or gone.

A damaged store is moved as it is to `quarantine/outbox-N/` with the reason beside it, and a new one begins with a new
epoch. Nothing is deleted: `salvage` reads what it can from there, and a person decides about the folder.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgeward_agent.errors import OutboxError
from edgeward_agent.outbox.ledger import Ledger
from edgeward_agent.outbox.model import StoreDamaged
from edgeward_agent.outbox.pages import PAGE_BYTES
from edgeward_agent.outbox.sealing import Cipher, SealBroken, create_master, load_master
from edgeward_agent.outbox.sqlite import translated
from edgeward_agent.outbox.wal import find_damage
from edgeward_contract.artifact import DeviceId

DATABASE: Final = "outbox.db"
KEY: Final = "outbox.key"
QUARANTINE: Final = "quarantine"
CHECK_S: Final = 4.0  # a damaged store begins anew within 10 s
_INTENT: Final = "outbox.quarantining"
_BEGUN: Final = "outbox.begun"
"""Beside a store that has been made: without its database it is no new one. The key alone does not say so: it is made
first, and stays when a damaged store goes."""
_SUFFIXES: Final = ("", "-wal", "-shm", "-journal")
_MAGIC: Final = b"SQLite format 3\0"

log = logging.getLogger(__name__)


def open_ledger(directory: Path, *, device: DeviceId, max_bytes: int) -> tuple[Ledger, Cipher]:
    """Open the store in `directory`, or begin a new one when it cannot be used.

    Raises:
        AgentRunning: another process has it.
        OutboxFull, OutboxError: the disk has no room, or does not work.
    """
    try:
        _finish_quarantine(directory)
        master = _master(directory)
        problem = _look(directory)
        if problem:
            quarantine(directory, problem)
        ledger = _open_sound(directory, device, master, max_bytes)
        _remember_begun(directory)
        return ledger, master
    except OSError as error:
        raise OutboxError(f"expected to read and write in {directory}, got: {error}") from error


def _open_sound(directory: Path, device: DeviceId, master: Cipher, max_bytes: int) -> Ledger:
    path = directory / DATABASE
    try:
        return _open_checked(path, device, master, max_bytes)
    except StoreDamaged as error:
        quarantine(directory, str(error))
    return Ledger.open(path, device=device, master=master, max_bytes=max_bytes)


def _open_checked(path: Path, device: DeviceId, master: Cipher, max_bytes: int) -> Ledger:
    ledger = Ledger.open(path, device=device, master=master, max_bytes=max_bytes)
    try:
        _check(ledger.connection)
    except BaseException:
        abandon(ledger)
        raise
    return ledger


def _check(connection: sqlite3.Connection) -> None:
    """Raises StoreDamaged. A large store on a slow disk is checked for a while only: damage is also noticed in use."""
    too_long = threading.Event()

    def stop() -> None:
        too_long.set()
        connection.interrupt()

    timer = threading.Timer(CHECK_S, stop)
    timer.start()
    try:
        with translated():
            (verdict,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except OutboxError:
        if not too_long.is_set():
            raise
    else:
        if verdict != "ok" and not too_long.is_set():
            raise StoreDamaged(f"expected a sound database, got: {verdict}")
    finally:
        timer.cancel()
        timer.join()


def abandon(ledger: Ledger) -> None:
    """Close a damaged store; it may complain, and has nothing left to say."""
    try:
        ledger.close()
    except OutboxError as error:
        log.debug("closing the damaged outbox: %s", error)


def quarantine(directory: Path, reason: str) -> Path:
    """Move the store's files aside. Repeated after a power cut half-way: the intent is on disk first."""
    folder = _new_folder(directory / QUARANTINE)
    (folder / "reason.txt").write_text(reason + "\n")
    intent = directory / _INTENT
    intent.write_text(folder.name)
    sync(intent)
    sync(directory)
    _finish_quarantine(directory)
    log.error("the outbox was damaged and begins anew; the old one is in %s/%s: %s", QUARANTINE, folder.name, reason)
    return folder


def quarantined_stores(directory: Path) -> tuple[Path, ...]:
    """The folders of damaged stores, oldest first."""
    return tuple(sorted((directory / QUARANTINE).glob("outbox-[0-9]*")))


def sync(path: Path) -> None:
    """Force a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def store_files(directory: Path) -> Iterator[Path]:
    """The files of a store that are there."""
    paths = (directory / f"{DATABASE}{suffix}" for suffix in _SUFFIXES)
    return (path for path in paths if path.exists())


def _finish_quarantine(directory: Path) -> None:
    intent = directory / _INTENT
    if not intent.exists():
        return
    name = intent.read_text().strip()
    if name:  # else the power went before the name was on disk, and nothing has been moved
        folder = directory / QUARANTINE / name
        for path in store_files(directory):
            path.replace(folder / path.name)
        sync(folder)
        (directory / _BEGUN).unlink(missing_ok=True)
    intent.unlink()
    sync(directory)


def _remember_begun(directory: Path) -> None:
    """Best effort: a full disk may have no room for a name."""
    marker = directory / _BEGUN
    if not marker.exists():
        with suppress(OSError):
            marker.touch(mode=0o600)
            sync(directory)


def _new_folder(parent: Path) -> Path:
    parent.mkdir(mode=0o700, exist_ok=True)
    number = 1 + max((int(path.name.split("-")[1]) for path in parent.glob("outbox-[0-9]*")), default=0)
    folder = parent / f"outbox-{number:04}"
    folder.mkdir(mode=0o700)
    sync(parent)
    return folder


def _master(directory: Path) -> Cipher:
    """The key-encryption key, or a new one when it is gone or damaged: the store is then found to be under another."""
    path = directory / KEY
    try:
        return load_master(path)
    except FileNotFoundError:
        pass
    except SealBroken as error:
        log.error("%s", error)
        folder = _new_folder(directory / QUARANTINE)
        (folder / "reason.txt").write_text(f"{error}\n")
        path.replace(folder / KEY)
    master = create_master(path)
    sync(directory)
    return master


def _look(directory: Path) -> str | None:
    """What is wrong with the files, before SQLite touches them: it deletes a log that has no database."""
    database, wal = directory / DATABASE, directory / f"{DATABASE}-wal"
    size = database.stat().st_size if database.exists() else 0
    frames = wal.read_bytes() if wal.exists() else b""
    if size == 0:
        return _why_empty(directory, log_alone=bool(frames.strip(b"\0")))
    with database.open("rb") as file:
        header = file.read(100)
    if header[:16] != _MAGIC or int.from_bytes(header[16:18], "big") != PAGE_BYTES:
        return "expected the header of an SQLite database, got a damaged one"
    damage = find_damage(frames, PAGE_BYTES)
    return f"write-ahead log, byte {damage.offset}: {damage.problem}" if damage else None


def _why_empty(directory: Path, *, log_alone: bool) -> str | None:
    if log_alone:
        return "expected the database of a write-ahead log, found the log alone"
    if not (directory / _BEGUN).exists():
        return None
    return f"expected the database of an outbox that was begun, found {_what(directory / DATABASE)}"


def _what(path: Path) -> str:
    return "it empty" if path.exists() else "none"
