"""What the agent asks of the operating system about processes: locks, exact identity, waiting for the end.

A process id alone names nothing: it is used again. Id and start time together do, and a pidfd keeps them together
while we look. Linux has both; elsewhere the agent asks by id and looks again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgeward_agent.errors import AgentRunning, ReadOnlyFolder

_LOOK_AGAIN_S: Final = 0.05
_START_TICKS: Final = 19  # proc(5): field 22, counted from the one after the name


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRef:
    """One process for all time of this boot. `started` is its start in clock ticks; "" where that is not known."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessRef:
        """Raises ProcessLookupError when there is no such process."""
        return cls(pid=pid, started=_started(pid))

    def alive(self) -> bool:
        """Where its start is not known, or cannot be read because no descriptor is left, a process of its id is it."""
        try:
            found = _started(self.pid)
        except ProcessLookupError:
            return False
        return "" in (found, self.started) or found == self.started


class StateFolderLock:
    """One agent for each state folder. Held until the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Raises AgentRunning when another process holds it, ReadOnlyFolder where nothing can be written."""
        import fcntl  # not on Windows, where models are served but no device runs

        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno == errno.EROFS:
                raise ReadOnlyFolder(f"{path.parent}: expected to write there, found a read-only file system") from None
            raise
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 20).decode(errors="replace").strip() or "unknown"
            self.close()
            raise AgentRunning(f"{path.parent.parent}: expected no agent, found a running one (pid {holder})") from None
        with contextlib.suppress(OSError):  # a full disk: the lock itself needs no room
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, f"{os.getpid()}\n".encode())

    def close(self) -> None:
        os.close(self._descriptor)


def agent_is_running(lock: Path) -> bool:
    """Whether somebody holds the lock, without taking it for longer than a moment."""
    import fcntl

    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


class Watched:
    """A process that is held by a pidfd: it can be waited for and signalled, and never mistaken for another."""

    def __init__(self, process: ProcessRef) -> None:
        """For a process that cannot be mistaken now: `hold` and `child` see to that."""
        self.process = process
        self._descriptor = os.pidfd_open(process.pid) if hasattr(os, "pidfd_open") else -1

    @classmethod
    def hold(cls, process: ProcessRef) -> Watched:
        """Raises ProcessLookupError when that process is gone, even if another has its id now."""
        watched = cls(process)
        if not process.alive():
            watched.close()
            raise ProcessLookupError(process.pid)
        return watched

    @classmethod
    def child(cls, pid: int) -> Watched:
        """Of our own child, which may have ended already: until it is waited for, its id is nobody else's."""
        return cls(ProcessRef(pid=pid, started=_stat(pid)[_START_TICKS]))

    async def ended(self) -> None:
        """Return once it has ended."""
        if self._descriptor < 0:
            while self.process.alive():  # noqa: ASYNC110  # no pidfd, no event
                await asyncio.sleep(_LOOK_AGAIN_S)
            return
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._descriptor, done.set)
        try:
            await done.wait()
        finally:
            loop.remove_reader(self._descriptor)

    def send(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self._descriptor >= 0:
                signal.pidfd_send_signal(self._descriptor, number)
            elif self.process.alive():
                os.kill(self.process.pid, number)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _started(pid: int) -> str:
    """Raises ProcessLookupError when there is no such process, or only its exit status is left."""
    stat = _stat(pid)
    if stat[0] in "ZX":
        raise ProcessLookupError(pid)
    return stat[_START_TICKS]


def _stat(pid: int) -> list[str]:
    """The fields of proc(5) after the name. Where they cannot be read, a living process has empty ones."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        os.kill(pid, 0)  # raises ProcessLookupError when the id is not in use
        return ["?"] + [""] * _START_TICKS
