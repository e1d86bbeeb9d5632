"""Debian's PostgreSQL on loopback, in a folder of its own, and a rehearsal on it."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from edgeward_fleet.db.base import Base
from edgeward_fleet.db.engine import Database
from support.mosquitto import free_port
from support.rehearsal import Rehearsal
from support.waiting import until

ABSENT = "PostgreSQL is absent"
_QUICK = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "deadlock_timeout=200ms", "-c", "shared_buffers=16MB")


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server. It refuses to run as root, who lends it an account. Skips the test when there is none."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip(ABSENT)
    user = "postgres" if os.geteuid() == 0 else getpass.getuser()
    folder, port = Path(tempfile.mkdtemp(prefix="edgeward-pg-")), free_port()
    if os.geteuid() == 0:
        shutil.chown(folder, user)
    data = folder / "data"
    made = [str(programs[-1]), "-D", str(data), "-A", "trust", "-U", "fleet", "--no-sync", "--no-instructions"]
    subprocess.run(made, user=user, check=True, stdout=subprocess.DEVNULL)
    server = subprocess.Popen(
        [programs[-1].with_name("postgres"), "-D", data, "-p", str(port), "-k", folder, *_QUICK],
        user=user,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ready = [str(programs[-1].with_name("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(port)]
        until(lambda: subprocess.run(ready, check=False).returncode == 0, "PostgreSQL to listen")
        yield f"postgresql+psycopg://fleet@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # which does not wait for its clients
        server.wait(20)
        shutil.rmtree(folder)


@contextmanager
def rehearsal_on(url: str, folder: Path) -> Iterator[Rehearsal]:
    """A fresh fleet on the server at `url`."""
    with closing(Database(url)) as database:
        database.with_connection(lambda connection: connection.execute(text("DROP SCHEMA public CASCADE")).close())
        database.with_connection(lambda connection: connection.execute(text("CREATE SCHEMA public")).close())
        database.with_connection(lambda connection: Base.metadata.create_all(connection))
        yield Rehearsal(folder, database)
