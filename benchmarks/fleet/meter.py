"""What the fleet's process costs, read from the kernel, so that nothing has to be built into it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """At one moment: processor time of the process so far, and its resident memory."""

    at_s: float
    cpu_s: float
    rss_mib: float


def read(pid: int) -> Reading:
    """Raises OSError when there is no such process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    rss = next(line for line in status if line.startswith("VmRSS:"))
    return Reading(
        at_s=time.monotonic(),
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,  # utime and stime of proc(5), after the name
        rss_mib=int(rss.split()[1]) / 1024,
    )


def cost(before: Reading, after: Reading) -> dict[str, float]:
    """Of the time between two readings."""
    wall_s, cpu_s = after.at_s - before.at_s, after.cpu_s - before.cpu_s
    return {
        "wall_s": wall_s,
        "fleet_cpu_s": cpu_s,
        "fleet_percent_of_a_core": 100 * cpu_s / wall_s,
        "fleet_rss_mib": after.rss_mib,
    }
