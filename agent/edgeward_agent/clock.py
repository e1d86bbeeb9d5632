"""Time as a port, so that no test waits for it."""

from __future__ import annotations

import asyncio
import time
from functools import cache
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Seconds. `monotonic` orders and measures; `wall` is for people and certificates and may jump."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clocks. CLOCK_BOOTTIME where there is one: it goes on while the machine is suspended."""

    def monotonic(self) -> float:
        return time.clock_gettime(_BOOTTIME) if _BOOTTIME is not None else time.monotonic()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


@cache
def boot_id() -> str:
    """What distinguishes this boot of the machine from the last; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
