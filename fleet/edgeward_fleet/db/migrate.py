"""Brings a database to the schema of this version: check, copy, then all migrations in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from edgeward_fleet.db import turns
from edgeward_fleet.db.engine import Database
from edgeward_fleet.db.turns import Turn
from edgeward_fleet.errors import DAMAGED_HINT, DatabaseError, DataDirError

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """What was done. `former` is None for a new database; `copy` is where the old one lies."""

    former: str | None
    present: str
    copy: Path | None


def upgrade(database: Database, backups: Path, now: datetime) -> Upgrade:
    """Bring the database to the newest schema; SQLite is copied to `backups` first when anything will change.

    Raises:
        DatabaseError: damaged, or made by a newer version.
        DataDirError: no room for the copy.
    """
    _check_sound(database)
    script = ScriptDirectory.from_config(config())
    head = script.get_current_head()
    assert head is not None
    former = database.with_connection(_revision)
    if former == head:
        return Upgrade(former=former, present=head, copy=None)
    if former is not None and former not in {each.revision for each in script.walk_revisions()}:
        raise DatabaseError(
            f"expected a database of at most revision {head}, got {former}",
            hint="A newer version made it. Start that version, or restore a copy from the `backups` folder.",
        )
    copy = _copy(database, backups, former, now) if former is not None and database.is_sqlite else None
    database.with_connection(_walk)
    return Upgrade(former=former, present=head, copy=copy)


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration without an ini file: the connection is ours, never one of its own."""
    made = Config()
    made.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


def _walk(connection: Connection) -> None:
    turns.take_on(connection, Turn.SCHEMA)  # of two that start at once, the second finds it done
    command.upgrade(config(connection), "head")


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _check_sound(database: Database) -> None:
    if not database.is_sqlite:
        return

    def work(connection: Connection) -> str:
        return str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())

    found = database.with_connection(work)
    if found != "ok":
        raise DatabaseError(f"{database.url.database}: expected a sound database, got: {found}", hint=DAMAGED_HINT)


def _copy(database: Database, backups: Path, former: str, now: datetime) -> Path:
    target = backups / f"fleet-{former}-{now:%Y%m%dT%H%M%SZ}.db"
    try:
        backups.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise DataDirError(f"{backups}: expected a folder that can be written, got: {error.strerror}") from None
    database.copy_to(str(target))
    target.chmod(0o600)
    return target
