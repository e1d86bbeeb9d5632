"""Looks at the machine: the probe's busy loop, the processors' accounts, memory. Linux tells most; nobody must."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import numpy as np

from edgeward_agent.bench.noise import Surroundings
from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.serving.cores import usable_cores

_PIECE_US: Final = 200.0
_GOVERNOR: Final = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


class Probe:
    """A busy loop of about 200 µs, as this processor runs it now. It allocates nothing and asks nobody."""

    def __init__(self) -> None:
        self._turns = 2_000
        spent = min(float(self.times(9).min()) for _ in range(3))
        self._turns = max(100, round(self._turns * _PIECE_US / max(spent, 0.1)))

    def times(self, pieces: int) -> Floats:
        """How long each of so many pieces of work took, in µs."""
        taken = np.empty(pieces)
        for at in range(pieces):
            began = perf_counter_ns()
            for _ in range(self._turns):
                pass
            taken[at] = (perf_counter_ns() - began) / 1000
        return taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """Time of all processors since the machine started, in clock ticks: in all, idle, and taken by a host."""

    total: float
    idle: float
    stolen: float


class Watch:
    """Notes what others use of the processors between `__init__` and `look`.

    Args:
        own_s: processor time in seconds of ourselves and of what we started and measure.
    """

    def __init__(self, own_s: Callable[[], float]) -> None:
        self._load = _load()
        self._own_s = own_s
        self._began = _accounts()
        self._own_before_s = own_s()

    def look(self) -> Surroundings:
        others, stolen = self._shares()
        return Surroundings(
            processor=processor(),
            cores=usable_cores(),
            system=f"{platform.system()} {platform.release()}",
            governor=_read(_GOVERNOR),
            load=self._load,
            others_share=others,
            stolen_share=stolen,
        )

    def _shares(self) -> tuple[float | None, float | None]:
        now = _accounts()
        if now is None or self._began is None or now.total <= self._began.total:
            return None, None
        total = now.total - self._began.total
        stolen = now.stolen - self._began.stolen
        own = (self._own_s() - self._own_before_s) * os.sysconf("SC_CLK_TCK")
        used = total - (now.idle - self._began.idle) - stolen
        return max(0.0, used - own) / total, max(0.0, stolen) / total


def processor() -> str:
    """As the maker calls it, where the system says so."""
    lines = (_read(Path("/proc/cpuinfo")) or "").splitlines()
    named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def own_cpu_s() -> float:
    """Processor time of this process."""
    spent = os.times()
    return spent.user + spent.system


def process_cpu_s(pid: int) -> float:
    """Processor time of another process; 0 where the system does not say."""
    fields = (_read(Path(f"/proc/{pid}/stat")) or "").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if len(fields) > 12 else 0.0


def resident_bytes(pid: int) -> int | None:
    """What a process holds of the memory; None where the system does not say, or it has ended."""
    pages = (_read(Path(f"/proc/{pid}/statm")) or "").split()
    if len(pages) > 1:
        return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") or None
    if sys.platform == "darwin":
        shown = subprocess.run(["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return int(shown.stdout) * 1024 if shown.stdout.strip().isdigit() else None
    return None


def _accounts() -> Accounts | None:
    """The first line of proc(5) stat: user nice system idle iowait irq softirq steal guest guest_nice."""
    fields = (_read(Path("/proc/stat")) or "").split("\n", 1)[0].split()
    if len(fields) < 9:
        return None
    ticks = [float(each) for each in fields[1:9]]
    return Accounts(total=sum(ticks), idle=ticks[3] + ticks[4], stolen=ticks[7])


def _load() -> float | None:
    return os.getloadavg()[0] / usable_cores() if hasattr(os, "getloadavg") else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
