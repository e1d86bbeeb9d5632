"""What processes cost, read from the kernel, so that nothing has to be built into them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """At one moment: processor time of a process so far, and its resident memory."""

    cpu_s: float
    rss_mib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Of several processes at one moment."""

    at_s: float
    each: Mapping[str, Reading]


def read(pids: Mapping[str, int]) -> Readings:
    """Raises OSError when there is no such process."""
    return Readings(at_s=time.monotonic(), each={name: _read(pid) for name, pid in pids.items()})


def cost(before: Readings, after: Readings) -> dict[str, float]:
    """Of the time between two readings."""
    wall_s = after.at_s - before.at_s
    costs = {"wall_s": wall_s}
    for name, reading in after.each.items():
        cpu_s = reading.cpu_s - before.each[name].cpu_s
        costs |= {
            f"{name}_cpu_s": cpu_s,
            f"{name}_percent_of_a_core": 100 * cpu_s / wall_s,
            f"{name}_rss_mib": reading.rss_mib,
        }
    return costs


def _read(pid: int) -> Reading:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    rss = next(line for line in status if line.startswith("VmRSS:"))
    return Reading(
        cpu_s=(int(fields[11]) + int(fields[12])) / _TICKS_PER_S,  # utime and stime of proc(5), after the name
        rss_mib=int(rss.split()[1]) / 1024,
    )
