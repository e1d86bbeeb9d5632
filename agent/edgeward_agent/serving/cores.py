"""How many cores there are for this process. What differs between platforms is here."""

from __future__ import annotations

import os
from typing import Final

STAND_IN: Final = "EDGEWARD_CORES"
"""In the environment of a child that loads a model as the serving process would: it may have fewer cores than that."""


def usable_cores() -> int:
    """Cores that this process may use; containers and `taskset` give fewer than the machine has."""
    if told := os.environ.get(STAND_IN):
        return int(told)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


AT_START: Final = usable_cores()
"""Before this process left any of them alone."""
