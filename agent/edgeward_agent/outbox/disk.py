"""What a disk that takes no commit is: full, read-only or broken. SQLite's word for it is often the same. Pure."""

from __future__ import annotations

import os
from typing import Final

from edgeward_agent.errors import OutboxFull, OutboxUnwritable

_A_COMMIT_BYTES: Final = 256 << 10  # a few pages of the log, and of whatever else the file system writes for them


def refusal(error: OutboxUnwritable, disk: os.statvfs_result) -> OutboxFull:
    """`error` in the words that fit what the disk says of itself."""
    if disk.f_flag & os.ST_RDONLY:
        return OutboxUnwritable(f"expected a disk that takes the outbox, found it read-only ({error})")
    free = disk.f_bavail * disk.f_frsize
    if free < _A_COMMIT_BYTES:
        return OutboxFull(f"expected room on the disk for the outbox, found {free} bytes ({error})")
    words = f"refused with {free} bytes free: it is broken, or a quota or a limit of sizes ends there"
    return OutboxUnwritable(f"expected the disk to take the outbox, {words} ({error})")
