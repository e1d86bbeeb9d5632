"""Writing so that it is still there after a power cut, and the one thread that does it."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DiskThread:
    """Owner of the journal and the release folders: flushes take milliseconds, which the event loop does not have."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="update-disk")

    async def run(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: work(*args, **kwargs))

    def close(self) -> None:
        self._pool.shutdown(wait=True)


def write_durably(path: Path, data: bytes) -> None:
    """Replace `path` by a complete file, or leave what was there; returns after the flush. Raises OSError."""
    partial = path.with_name(path.name + ".tmp")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)  # on a full disk every byte counts
        raise
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Make names in `folder` survive a power cut: a rename alone does not."""
    flush_file(folder)


def flush_file(path: Path) -> None:
    """Make the content of a file that somebody else wrote survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_full(error: OSError) -> bool:
    """No space, or a quota that is used up."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
