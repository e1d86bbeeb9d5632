"""How many open files the serving process may have, and so how many clients. Each connection is one."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Final

WANTED: Final = 4096
KEPT_BACK: Final = 256
"""For everything else: listeners, models, frames with their memory (two files for each), records, the runtime."""
_FEWEST: Final = 8


def raise_limit() -> int:
    """Have as many as may be, up to `WANTED`; shells and systemd give fewer to who does not ask. Returns how many."""
    if sys.platform == "win32":
        return WANTED
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # a system with a bound of its own below the one that it names
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return WANTED if soft == resource.RLIM_INFINITY else soft


def connections(wanted: int, files: int) -> int:
    """How many of `wanted` connections HTTP, and as many again gRPC, may have: never so many that an accept fails."""
    return max(_FEWEST, min(wanted, (files - KEPT_BACK) // 2))
