"""One way to use the database: `work(session)` runs in one transaction, off the event loop.

SQLite has one owner thread and one connection for the whole process: two connections to one WAL file can lose commits
in every SQLite before 3.51.3 (the WAL-reset bug; Debian 12 ships 3.40.1). PostgreSQL has a pool of each.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from edgeward_fleet.db.sharing import OWN_FAULT, Job, Queue, transact
from edgeward_fleet.errors import DAMAGED_HINT, DatabaseError, DatabaseUrlError, FleetError, Invalid

T = TypeVar("T")
_SERVER_THREADS: Final = 8
_BUSY_TIMEOUT_MS: Final = 5000
_DISK_HINT: Final = (
    "Look at the disk of the data folder: its room, its rights, the kernel's log. The database may be sound."
)
_SQLITE_SIGNS: Final = (
    ("malformed", "a sound database", DAMAGED_HINT),
    ("not a database", "a sound database", DAMAGED_HINT),
    ("full", "room for the database", "Free some space on its disk."),
    ("readonly", "a disk that can be written", _DISK_HINT),
    ("disk I/O error", "a disk that can be read and written", _DISK_HINT),
    ("unable to open", "a database file that can be opened", _DISK_HINT),
    ("locked", "a database that nobody else uses", "End the other program that has it open, such as sqlite3."),
)
_SERVER_HINT: Final = "Check that the database server runs, and the host, name and user in --database-url."


class Database:
    """The database and the threads that may touch it.

    Everything that `work` returns must be plain values: rows are detached when the transaction ends.
    """

    def __init__(self, url: str) -> None:
        """Raises DatabaseError: the URL cannot be understood, or its file cannot be made."""
        self.url: Final = _parsed(url)
        self.is_sqlite: Final = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            _make_private(self.url)
        self._engine = _sqlite_engine(self.url) if self.is_sqlite else _server_engine(self.url)
        self._waiting: Final = Queue()
        self._threads = ThreadPoolExecutor(1 if self.is_sqlite else _SERVER_THREADS, thread_name_prefix="database")

    async def run(self, work: Callable[[Session], T], *, urgent: bool = True) -> T:
        """Run `work` in one transaction: committed when it returns, rolled back when it raises. It may run twice.

        What is not `urgent`, the messages of devices, lets people go first. A caller that is cancelled stops waiting:
        work that has begun still ends as it would have, work that has not is dropped.

        Raises:
            DatabaseError: the database is damaged, full, locked or gone.
            Invalid: a value is none that the database can hold, such as text with a NUL in PostgreSQL.
        """
        if not self.is_sqlite:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._transact, work)
        job = Job(work)
        self._waiting.put(job, urgent=urgent)
        self._threads.submit(transact, self._engine, self._waiting, self._translated)
        return await job.answer()

    def run_sync(self, work: Callable[[Session], T]) -> T:
        """`run` for commands and tests, which have no event loop."""
        return self._threads.submit(self._transact, work).result()

    def with_connection(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a connection in one transaction: for migrations."""
        return self._threads.submit(self._on_connection, work).result()

    def copy_to(self, target: str) -> None:
        """Write a consistent copy of an SQLite database to the file `target`, which must not exist.

        Raises:
            DatabaseError: there is no room, or the file exists.
        """
        self._threads.submit(self._vacuum_into, target).result()

    def close(self) -> None:
        """Wait for what runs, then close. SQLite folds its WAL back into the file here."""
        self._threads.shutdown(wait=True)
        self._engine.dispose()

    def _transact(self, work: Callable[[Session], T]) -> T:
        try:
            return self._attempt(work)
        except exc.DBAPIError as error:
            if not _lost_a_race(error):
                raise self._outward(error) from error
        try:
            return self._attempt(work)  # now it sees what the other one did
        except exc.DBAPIError as error:
            raise self._outward(error) from error

    def _attempt(self, work: Callable[[Session], T]) -> T:
        with Session(self._engine, expire_on_commit=False) as session, session.begin():
            return work(session)

    def _on_connection(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._engine.begin() as connection:
                return work(connection)
        except exc.DBAPIError as error:
            raise self._outward(error) from error

    def _outward(self, error: exc.DBAPIError) -> Exception:
        return error if isinstance(error, OWN_FAULT) else self._translated(error)

    def _translated(self, error: exc.DBAPIError) -> FleetError:
        words = str(error.orig)
        if isinstance(error, exc.DataError):
            return Invalid(f"expected values that the database can hold, got: {words}")
        if not self.is_sqlite:
            return DatabaseError(f"expected an answer of the database, got: {words}", hint=_SERVER_HINT)
        for sign, expected, hint in _SQLITE_SIGNS:
            if sign in words:
                return DatabaseError(f"expected {expected}, got: {words}", hint=hint)
        return DatabaseError(f"expected an answer of the database, got: {words}")

    def _vacuum_into(self, target: str) -> None:
        pooled = self._engine.raw_connection()
        is_new = not Path(target).exists()
        try:
            pooled.cursor().execute("VACUUM INTO ?", (target,))  # refuses to run inside a transaction
        except sqlite3.Error as error:
            if is_new:
                Path(target).unlink(missing_ok=True)  # a part of a copy, or nothing of it, would pass for one
            raise DatabaseError(f"expected to write a copy of the database to {target}, got: {error}") from error
        finally:
            pooled.close()


def _lost_a_race(error: exc.DBAPIError) -> bool:
    """Another transaction made the same row, or wanted the same rows in another order (SQLSTATE class 40)."""
    return isinstance(error, exc.IntegrityError) or str(getattr(error.orig, "sqlstate", "")).startswith("40")


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except exc.ArgumentError:
        raise DatabaseUrlError(
            f"--database-url: expected one such as postgresql+psycopg://user@host/fleet, got {url[:80]!r}"
        ) from None


# Both hide the parameters of a statement that failed: they may be a patient's, and the error goes into the log.
def _server_engine(url: URL) -> Engine:
    try:
        return create_engine(url, pool_size=_SERVER_THREADS, pool_pre_ping=True, hide_parameters=True)
    except (exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise DatabaseUrlError(
            f"--database-url: expected an installed driver for {url.drivername[:40]!r}, got: {error}"
        ) from None


def _sqlite_engine(url: URL) -> Engine:
    connect_args = {"check_same_thread": False}
    engine = create_engine(url, poolclass=StaticPool, connect_args=connect_args, hide_parameters=True)
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _make_private(url: URL) -> None:
    """The file, its log and its index are for this user alone, whatever the folder and the umask allow."""
    path = Path(url.database or ":memory:")
    if path.name.startswith((":", "file:")):
        return
    try:
        path.touch(mode=0o600)  # before SQLite does: it gives the log the rights of the database
        for each in (path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm"))):
            if each.exists():
                each.chmod(0o600)
    except OSError as error:
        raise DatabaseError(
            f"{path}: expected a database file that can be written, got: {error.strerror}",
            hint="Choose a folder that you may write with --data-dir.",
        ) from None


def _prepare(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None  # the driver's own BEGIN is late and leaves DDL outside; `_begin` does it
    connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # NORMAL loses acknowledged rows when the power fails
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
