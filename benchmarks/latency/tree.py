"""A server as the system sees it: all its processes, their memory, the cores that they may use. Linux alone."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.latency.native import Cores

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """RSS counts a shared page in each process, PSS counts it once over all that map it."""

    rss_mib: float
    pss_mib: float
    processes: int


def family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                # Field 4 is the parent; field 2 may hold spaces, but ends with the last bracket.
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def memory(pid: int) -> Memory:
    """What the whole family holds now."""
    rss_kib = pss_kib = 0
    members = family(pid)
    for each in members:
        with suppress(OSError):
            fields = dict(_fields((_PROC / str(each) / "smaps_rollup").read_text()))
            rss_kib, pss_kib = rss_kib + fields["Rss"], pss_kib + fields["Pss"]
    return Memory(rss_mib=rss_kib / 1024, pss_mib=pss_kib / 1024, processes=len(members))


def _fields(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines()[1:]:
        name, _, value = line.partition(":")
        yield name, int(value.split()[0])


def pin(pid: int, cores: Cores) -> None:
    """Hold every thread of the family to `cores`; new ones inherit it."""
    allowed = set(cores) or set(range(os.cpu_count() or 1))
    for member in family(pid):
        with suppress(OSError):
            for task in (_PROC / str(member) / "task").iterdir():
                with suppress(OSError):
                    os.sched_setaffinity(int(task.name), allowed)


def send(pid: int, number: signal.Signals) -> None:
    """A signal to every member of the family."""
    for member in family(pid):
        with suppress(ProcessLookupError):
            os.kill(member, number)


@contextmanager
def awake(pid: int, cores: Cores) -> Iterator[None]:
    """Let a family that stands still run on `cores` until the block ends: a server that idles is not quite still."""
    pin(pid, cores)
    send(pid, signal.SIGCONT)
    try:
        yield
    finally:
        send(pid, signal.SIGSTOP)
