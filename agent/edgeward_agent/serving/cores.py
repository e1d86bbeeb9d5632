"""How many cores there are for this process. What differs between platforms is here."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Cores that this process may use; containers and `taskset` give fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
