"""Whether the state folder can be worked in: what may be read, what may be written, and whether the disk keeps it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from edgeward_agent.checks import Check, fail, ok
from edgeward_agent.secret_file import create, sync_folder
from edgeward_agent.state_dir import StateDir

_NAME: Final = "state folder"
_PROBE_BYTES: Final = 4096
_READ_ONLY: Final = "See the kernel's log (`dmesg`): a disk that fails is made read-only. Mount it again for writing."
_HINTS: Final = {
    errno.EACCES: "Look as the user that runs the agent; else make it theirs: chown -R USER, chmod -R u+rwX.",
    errno.ENOSPC: "Make room on this disk.",
    errno.EDQUOT: "Make room, or raise the quota of the user that runs the agent.",
    errno.EFBIG: "Raise the limit of a file's size: ulimit -f, or LimitFSIZE= in the unit.",
    errno.EIO: "The disk fails: see the kernel's log (`dmesg`), and replace it.",
}
_HINTS[errno.EPERM] = _HINTS[errno.EACCES]


def reachable(folder: Path) -> bool:
    """Whether more can be said of it than that it cannot be looked into. One that is not there yet can be."""
    try:
        return not folder.exists() or os.access(folder, os.R_OK | os.X_OK, effective_ids=True)
    except OSError:
        return False


def folder_check(state: StateDir) -> Check:
    """Access to the folder and to each file in it; then a file is written, flushed and removed."""
    if not reachable(state.root):
        return fail(_NAME, _closed(state.root), _HINTS[errno.EACCES])
    if not state.root.exists():
        return ok(_NAME, f"{state.root} is not there yet")
    if os.statvfs(state.root).f_flag & os.ST_RDONLY:
        return fail(_NAME, f"{state.root}: expected a disk that can be written to, it is read-only", _READ_ONLY)
    if refused := next(_refused(state.root), None):
        return fail(_NAME, refused, _HINTS[errno.EACCES])
    try:
        _write(state.root)
    except OSError as error:
        detail = f"{state.root}: expected to write a file and to flush it, got: {error.strerror}"
        return fail(_NAME, detail, _HINTS.get(error.errno or 0, "See the kernel's log (`dmesg`)."))
    return ok(_NAME, f"{state.root} can be read, written and flushed")


def _refused(root: Path) -> Iterator[str]:
    """What this user may not use, and for what."""
    for folder, _, files in os.walk(root):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            yield _closed(folder)
        for name in files:
            path = Path(folder, name)
            wanted, words = (os.R_OK | os.W_OK, "read and to write") if ".db" in name else (os.R_OK, "read")
            if not os.access(path, wanted, effective_ids=True) and path.exists():  # the agent removes files, too
                yield f"{path}: expected a file to {words}, as user {os.geteuid()} it is not"


def _closed(folder: Path | str) -> str:
    return f"{folder}: expected a folder to read and to write in, as user {os.geteuid()} it is not"


def _write(root: Path) -> None:
    probe = root / f".doctor.{os.getpid()}"
    try:
        create(probe, bytes(_PROBE_BYTES))
        sync_folder(root)
    finally:
        with suppress(OSError):
            probe.unlink()
