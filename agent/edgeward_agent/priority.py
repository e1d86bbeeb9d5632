"""Who goes first on the processors of a device: answers, then the work around them, then checks. Linux alone.

Everything here is a wish. A kernel or a container that does not grant it costs tails, not answers, so nothing fails.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")
LINUX: Final = sys.platform == "linux"
BACKGROUND_NICE: Final = 5
"""A third of the weight of an answer: when both want a processor the work around answers still gets a quarter of it,
and a durable record is committed in time on a device that is full (`tests/integration/test_busy_device.py`)."""
_LAST_NICE: Final = 19


_SHORT_TURN_NS: Final = 100_000
_USUAL_TURN: Final = 0  # whatever it is on this machine
_OTHER, _BATCH = 0, 3  # linux/sched.h; elsewhere `os` has no names for them
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}  # the number of the call, which the C library has no name for
_SCHED_ATTR: Final = struct.Struct("<IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period


class Launcher:
    """Starts processes with the priority and the cores of now, whatever is given up later: a child has those of the
    thread that starts it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="launcher")
        self._thread.submit(os.getpid).result()  # else it would begin with its first child

    def run(self, start: Callable[[], T]) -> T:
        """Do it there, and wait for it; raises what it raises."""
        return self._thread.submit(start).result()

    def close(self) -> None:
        self._thread.shutdown()


def step_back() -> None:
    """Let this thread, and those that it starts, wait for whoever answers, and leave one core alone.

    A kernel interrupts one that computes on another core late, when its tick comes, or in a virtual machine when the
    host gets to it: with this work on every core an answer waited 1 to 2 ms in a hundred cases, with one core free of
    it half a millisecond.

    One way: without privileges nobody gets back what was given up, children included.
    """
    if not LINUX:
        return  # elsewhere it would be the whole process, and the serving process is started by it
    with suppress(OSError):
        os.sched_setaffinity(0, background_cores(os.sched_getaffinity(0)))
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, max(BACKGROUND_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    interrupt_nobody()
    if os.getsid(0) == os.getpid():  # else the group is that of a terminal, with whatever else was started there
        _weigh_session(os.getpid(), BACKGROUND_NICE)


def take_short_turns() -> None:
    """Let this thread, and those that it starts, go as soon as they wake, before one that computes for longer.

    A thread that wakes waits for the turn of another one to end, which is looked at when the tick comes: most of the
    stalls of 2 to 5 ms while a model was loaded beside were that. Who asks for short turns goes at once (Linux 6.12,
    sched(7); an older kernel knows no turns and ignores it), and gets no more of the processor by it.
    """
    _set_turn(_OTHER, _SHORT_TURN_NS)


def interrupt_nobody() -> None:
    """For a thread that works beside those that answer, also one that was started by one with short turns.

    It has its usual share, but where it wakes it does not stop the one that runs (SCHED_BATCH, sched(7)): an answer
    that was half done waited half a millisecond for whoever reads its record, and up to three for one that loads.
    """
    _set_turn(_BATCH, _USUAL_TURN)


def _set_turn(policy: int, turn_ns: int) -> None:
    if not LINUX or sys.maxsize < 1 << 32:  # the calls of a 32-bit process have other numbers
        return
    call = _SCHED_SETATTR.get(os.uname().machine)
    with suppress(OSError):
        if call is not None and os.sched_getscheduler(0) == _OTHER:
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            wish = _SCHED_ATTR.pack(_SCHED_ATTR.size, policy, 0, nice, 0, turn_ns, 0, 0)
            ctypes.CDLL(None).syscall(call, 0, wish, 0)


def background_cores(usable: Set[int]) -> Set[int]:
    """All but the one that devices interrupt least: where the disk's interrupts arrive, who waits for it belongs."""
    try:
        interrupts = Path("/proc/interrupts").read_text()
    except OSError:
        interrupts = ""
    return usable - {least_interrupted(interrupts, usable)} if len(usable) > 1 else usable


def least_interrupted(interrupts: str, usable: Set[int]) -> int:
    """The core of `usable` with the fewest interrupts of devices, by proc(5) interrupts; of equals the last. Pure."""
    head, *lines = interrupts.splitlines() or [""]
    cores = [int(name.removeprefix("CPU")) for name in head.split()]
    counts = dict.fromkeys(cores, 0)
    for line in lines:
        number, *cells = line.split()
        if number.rstrip(":").isdecimal():  # the rest are the kernel's own
            for core, cell in zip(cores, cells, strict=False):
                counts[core] += int(cell)
    return min(usable, key=lambda core: (counts.get(core, 0), -core))


def go_last(pid: int) -> None:
    """Let a child run only where a processor is idle, from its first instruction on."""
    if not LINUX:
        return
    with suppress(OSError):
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    _weigh_session(pid, _LAST_NICE)


def be_last() -> None:
    """The same, of this process. A check must not cost the bedside a millisecond."""
    go_last(os.getpid())
    with suppress(OSError):
        os.nice(_LAST_NICE)


def _weigh_session(pid: int, nice: int) -> None:
    """A session of its own is a scheduling group of its own (sched(7), autogroup), where nice counts for nothing."""
    with suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(nice))
