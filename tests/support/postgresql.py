"""A PostgreSQL of its own for a test: empty, on a socket in the test's folder, gone with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import text

from edgeward_fleet.db.base import Base
from edgeward_fleet.db.engine import Database
from support.rehearsal import Rehearsal

_OPTIONS = "-c fsync=off -c full_page_writes=off -c deadlock_timeout=200ms -c shared_buffers=16MB"


def _programs() -> Path:
    """Debian keeps them off the PATH."""
    on_path = shutil.which("pg_ctl")
    found = [Path(on_path).resolve()] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    if not found:
        pytest.skip("PostgreSQL is absent")
    return found[-1].parent


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of its one database, for `--database-url`."""
    programs = _programs()
    user = "nobody" if os.geteuid() == 0 else None  # it refuses to run as root

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL, timeout=60)

    with TemporaryDirectory(prefix="ew-pg-") as name:  # a socket's path is short
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)
        data = folder / "data"
        run(programs / "initdb", "--no-sync", "--auth=trust", "--username=fleet", "--encoding=UTF8", "-D", data)
        options = f"-k {folder} -c listen_addresses='' {_OPTIONS}"
        run(programs / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w", "start")
        try:
            yield f"postgresql+psycopg://fleet@/postgres?host={folder}"
        finally:
            run(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


@contextmanager
def rehearsal_on(url: str, folder: Path) -> Iterator[Rehearsal]:
    """A fresh fleet on the server at `url`."""
    with closing(Database(url)) as database:
        database.with_connection(lambda connection: connection.execute(text("DROP SCHEMA public CASCADE")).close())
        database.with_connection(lambda connection: connection.execute(text("CREATE SCHEMA public")).close())
        database.with_connection(lambda connection: Base.metadata.create_all(connection))
        yield Rehearsal(folder, database)
