"""The data folder: private, and owned by one process at a time, which is what makes one SQLite connection certain."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from edgeward_fleet.errors import DataDirError, FleetRunning

_LOCK: Final = "fleet.lock"
SERVER_CERTIFICATE: Final = "server.pem"
"""Made by each `serve`: a fleet has run where it lies."""


def default() -> Path:
    """`/var/lib/edgeward-fleet` for root, else a folder of the user's own state."""
    if os.geteuid() == 0:
        return Path("/var/lib/edgeward-fleet")
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local/state") / "edgeward-fleet"


@contextmanager
def owned(data_dir: Path) -> Iterator[None]:
    """Make the folder if need be and hold it for this process.

    Raises:
        DataDirError: it cannot be made or written.
        FleetRunning: another process holds it.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirError(f"{data_dir}: expected a folder that can be written, got: {error.strerror}") from None
    try:
        _lock(descriptor, data_dir)
        yield
    finally:
        os.close(descriptor)  # the lock goes with it, also when the process is killed


def write_private(path: Path, data: bytes) -> None:
    """Replace `path` with `data`, readable by this user alone, all or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # a rename is kept only with its folder
    finally:
        os.close(folder)


def _lock(descriptor: int, data_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
        raise FleetRunning(f"{data_dir}: expected a folder that no fleet uses, process {owner} does") from None
    except OSError as error:
        raise DataDirError(
            f"{data_dir}: expected a file system that can lock a file, got: {error.strerror}",
            hint="Choose a folder on a disk of this machine with --data-dir.",
        ) from None
    with suppress(OSError):  # who holds the lock is for people; a full disk takes it from them and no more
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
