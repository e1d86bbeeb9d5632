"""The data folder held and the database open: what `serve` and every other command begin with."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from edgeward_fleet import data_dir
from edgeward_fleet.clock import Clock, utc_now
from edgeward_fleet.db.engine import Database
from edgeward_fleet.db.migrate import upgrade
from edgeward_fleet.errors import DatabaseError
from edgeward_fleet.settings import Settings

_log: Final = logging.getLogger(__name__)


@contextmanager
def opened(settings: Settings, clock: Clock = utc_now) -> Iterator[Database]:
    """The database at the newest schema, for this process alone.

    Raises:
        DataDirError: the folder cannot be used.
        FleetRunning: another process uses it.
        DatabaseError: damaged, gone, unreachable, or made by a newer version.
    """
    with data_dir.owned(settings.data_dir), closing(_database(settings)) as database:
        done = upgrade(database, settings.data_dir / "backups", clock())
        if done.former is not None and done.former != done.present:
            _log.info("database upgraded from %s to %s; copy of the old one: %s", done.former, done.present, done.copy)
        yield database


def _database(settings: Settings) -> Database:
    """Where a fleet has run, no database is one that is gone: a new one would make a CA that no device knows."""
    file = settings.database_file
    has_run = (settings.data_dir / data_dir.SERVER_CERTIFICATE).exists()
    if file is not None and has_run and (not file.exists() or file.stat().st_size == 0):
        raise DatabaseError(
            f"{file}: expected the database of the fleet that has run here, found none",
            hint="Put it back from your backup of the data folder; for a new fleet choose a new folder.",
        )
    return Database(settings.sqlalchemy_url)
