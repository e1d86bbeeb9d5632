"""agent.db: what the update machine must not forget. One connection, one owner.

`synchronous=FULL` with a write-ahead log: `store` returns after the flush, so that whatever is done next can be
explained after a power cut. The lock is exclusive: SQLite's WAL-reset bug needs two connections to one file.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from edgeward_agent.errors import AgentError, AgentRunning, UpdateError
from edgeward_agent.sqlite_trouble import Trouble, trouble_of
from edgeward_agent.update.deployment import Book, Deployment
from edgeward_agent.update.slots import Slots
from edgeward_contract.artifact import ModelName
from edgeward_contract.desired import DesiredState

FILE: Final = "agent.db"
_BALLAST_BYTES: Final = 1 << 20
_HISTORY: Final = 20
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS slots (model TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deployments (
  number INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, deployment TEXT NOT NULL, sha256 TEXT NOT NULL,
  state TEXT NOT NULL, body BLOB NOT NULL, UNIQUE (model, deployment, sha256)
);
"""
_Statement = tuple[str, tuple[object, ...]]


class JournalFull(UpdateError):
    """A transition could not be stored, so it was not acted on."""

    reason = "disk"
    hint = (
        "Free some space on the disk of the state folder, raise its quota, or let it be written again;"
        " updates go on by themselves then."
    )


class JournalUnusable(UpdateError):
    """The file cannot be opened, or the disk fails."""

    reason = "disk"


class JournalDamaged(JournalUnusable):
    """It is no database, or not a sound one. One that is to be opened is set aside."""


class Journal:
    """The update machine's memory. Use from one thread at a time.

    Raises:
        AgentRunning (on opening): another process owns the file.
        JournalFull (on storing, and on opening a new one): no space, even with the ballast given up; a quota; a disk
            that became read-only.
        JournalUnusable: anything else that SQLite says.
    """

    def __init__(self, path: Path) -> None:
        self._ballast = path.with_name(path.name + ".ballast")
        self.quarantined = _quarantine_if_damaged(path)
        self._connection = _open(path)
        self.restore_ballast()

    def close(self) -> None:
        self._connection.close()

    def load(self) -> Book:
        with _translated():
            return _read(self._connection)

    def find(self, deployment: Deployment) -> Deployment | None:
        """The deployment of the same model, id and release that was opened earlier."""
        select = "SELECT body FROM deployments WHERE model = ? AND deployment = ? AND sha256 = ?"
        with _translated():
            row = self._connection.execute(select, _key(deployment)).fetchone()
        return msgspec.json.decode(row[0], type=Deployment) if row else None

    def take(self, desired: DesiredState) -> None:
        """Remember what the fleet wants, so that a device without a link still ends there."""
        self._commit([("INSERT OR REPLACE INTO meta VALUES ('desired', ?)", (desired.canonical(),))])

    def open(self, deployment: Deployment) -> None:
        """Make this the newest deployment of its model; the oldest of a long history are forgotten."""
        forget = (
            "DELETE FROM deployments WHERE model = ? AND number NOT IN"
            " (SELECT number FROM deployments WHERE model = ? ORDER BY number DESC LIMIT ?)"
        )
        self._commit(
            [
                ("DELETE FROM deployments WHERE model = ? AND deployment = ? AND sha256 = ?", _key(deployment)),
                _insert(deployment),
                (forget, (deployment.model, deployment.model, _HISTORY)),
            ]
        )

    def store(self, deployment: Deployment, slots: Slots | None = None) -> None:
        """Store a step of a deployment and, in the same transaction, the slots of its model."""
        update = "UPDATE deployments SET state = ?, body = ? WHERE model = ? AND deployment = ? AND sha256 = ?"
        values = (deployment.state.value, msgspec.json.encode(deployment), *_key(deployment))
        statements: list[_Statement] = [(update, values)]
        if slots is not None:
            statements.append(_slots(deployment.model, slots))
        self._commit(statements)

    def put_slots(self, model: ModelName, slots: Slots) -> None:
        """Empty slots take the model off the device."""
        self._commit([_slots(model, slots)])

    def restore_ballast(self) -> None:
        """Set space aside, so that a roll-back can be stored on a full disk. Best effort: a full disk has none."""
        if not self._ballast.exists():
            try:
                self._ballast.write_bytes(bytes(_BALLAST_BYTES))
            except OSError:
                self._give_up_ballast()

    def _give_up_ballast(self) -> None:
        with suppress(OSError):  # on a disk that became read-only it has to stay
            self._ballast.unlink(missing_ok=True)

    def _commit(self, statements: list[_Statement]) -> None:
        try:
            self._commit_once(statements)
        except JournalFull:
            self._give_up_ballast()
            self._commit_once(statements)

    def _commit_once(self, statements: list[_Statement]) -> None:
        with _translated():
            self._transact(statements)

    def _transact(self, statements: list[_Statement]) -> None:
        with _rolled_back_on_error(self._connection):
            self._connection.execute("BEGIN IMMEDIATE")
            for sql, values in statements:
                self._connection.execute(sql, values)
            self._connection.execute("COMMIT")


def read_book(state_dir: Path) -> Book:
    """What the journal says while no agent runs, for `edgeward-agent status`. Raises AgentRunning, JournalUnusable."""
    path = state_dir / FILE
    if not path.exists():
        return Book()
    with closing(_open(path)) as connection, _translated():
        return _read(connection)


def _open(path: Path) -> sqlite3.Connection:
    with _translated():
        path.touch(mode=0o600)  # SQLite gives the log the rights of the database
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
        except BaseException:
            connection.close()
            raise
    return connection


def _read(connection: sqlite3.Connection) -> Book:
    desired = connection.execute("SELECT value FROM meta WHERE key = 'desired'").fetchone()
    slots = connection.execute("SELECT model, body FROM slots").fetchall()
    newest = connection.execute("SELECT body FROM deployments ORDER BY number").fetchall()
    deployments = [msgspec.json.decode(body, type=Deployment) for (body,) in newest]
    return Book(
        desired=DesiredState.parse(desired[0]) if desired else None,
        slots={ModelName(model): msgspec.json.decode(body, type=Slots) for model, body in slots},
        deployments={each.model: each for each in deployments},  # the last of each model wins
    )


def _quarantine_if_damaged(path: Path) -> Path | None:
    """Set a file aside that is not ours to read; the slots are found again from boot.json. Nothing is deleted."""
    if not path.exists():
        return None
    try:
        connection = _open(path)
    except JournalDamaged:
        return _set_aside(path)
    try:
        _read(connection)
        sound = connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    except (sqlite3.DatabaseError, msgspec.MsgspecError, ValueError):
        sound = False
    finally:
        connection.close()
    return None if sound else _set_aside(path)


def _set_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


@contextmanager
def _rolled_back_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what SQLite and the system say into what `Journal` raises."""
    try:
        yield
    except sqlite3.Error as error:
        raise _meaning(error) from None
    except OSError as error:
        raise JournalUnusable(f"{FILE}: expected a file to write to, got: {error.strerror}") from None


def _meaning(error: sqlite3.Error) -> AgentError:
    match trouble_of(error):
        case Trouble.NO_ROOM | Trouble.UNWRITABLE | Trouble.READ_ONLY:
            return JournalFull(f"expected room for a few kilobytes in {FILE}, got: {error}")
        case Trouble.DAMAGED:
            return JournalDamaged(f"{FILE}: expected a sound database, got: {error}")
        case Trouble.TAKEN:
            return AgentRunning(f"expected {FILE} to be free, another process has it open")
    return JournalUnusable(f"{FILE}: expected a database on a disk that works, got: {error}")


def _key(deployment: Deployment) -> tuple[str, str, str]:
    return (deployment.model, deployment.deployment, deployment.sha256)


def _insert(deployment: Deployment) -> _Statement:
    values = (*_key(deployment), deployment.state.value, msgspec.json.encode(deployment))
    return ("INSERT INTO deployments (model, deployment, sha256, state, body) VALUES (?, ?, ?, ?, ?)", values)


def _slots(model: ModelName, slots: Slots) -> _Statement:
    if slots == Slots():
        return ("DELETE FROM slots WHERE model = ?", (model,))
    return ("INSERT OR REPLACE INTO slots VALUES (?, ?)", (model, msgspec.json.encode(slots)))
