"""The box around a probe: limits, the lowest priority, and death with the parent. What is Linux alone is here.

The child puts itself into the box before it opens the candidate. On a device systemd draws a second box around it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeward_agent.priority import be_last

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_MAX_FILES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one child may use: seconds of processor time, bytes of private memory, bytes of a file that it writes."""

    cpu_s: int = 60
    memory_bytes: int = 2 << 30
    file_bytes: int = 0

    def options(self, parent: int) -> dict[str, int]:
        """For the command line of a child of the process `parent`."""
        return {
            "--parent": parent,
            "--cpu-s": self.cpu_s,
            "--memory-bytes": self.memory_bytes,
            "--file-bytes": self.file_bytes,
        }

    @staticmethod
    def add_options(parser: argparse.ArgumentParser) -> None:
        """What `options` gives."""
        for option in ("--parent", "--cpu-s", "--memory-bytes", "--file-bytes"):
            parser.add_argument(option, type=int, required=True)

    @classmethod
    def read(cls, args: argparse.Namespace) -> Limits:
        return cls(cpu_s=args.cpu_s, memory_bytes=args.memory_bytes, file_bytes=args.file_bytes)


def confine(limits: Limits, *, parent: int) -> None:
    """Put this process into the box; `parent` is the process with which it must die. For good."""
    _limit(resource.RLIMIT_CORE, 0)  # a core file would hold the golden set
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)  # a verdict goes through a pipe
    _limit(resource.RLIMIT_NOFILE, _MAX_FILES)
    _limit(resource.RLIMIT_CPU, limits.cpu_s, hard=limits.cpu_s + 5)  # at equal limits it dies of SIGKILL, unexplained
    # Private writable memory. RLIMIT_AS would count address space, of which the runtime reserves what it never uses.
    _limit(resource.RLIMIT_DATA, limits.memory_bytes)
    if sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked to be told
            os.kill(os.getpid(), signal.SIGKILL)
    be_last()


def forget_peak() -> int:
    """Let the peak begin anew where the kernel can, and return what it is now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM to what is resident now
    return peak_memory_bytes()


def peak_memory_bytes() -> int:
    """The most resident memory this process has had, since `forget_peak` where the kernel can."""
    with suppress(OSError, StopIteration):
        # Not ru_maxrss: that one remembers the size of the process that forked us.
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _limit(which: int, soft: int, *, hard: int | None = None) -> None:
    _, ceiling = resource.getrlimit(which)
    wanted = soft if hard is None else hard
    allowed = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
    with suppress(ValueError, OSError):  # not every platform has every limit
        resource.setrlimit(which, (min(soft, allowed), allowed))


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
