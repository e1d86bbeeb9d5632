"""One run of the serving process, started by this control process or left running by an earlier one."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socket import socket
from typing import Final

import msgspec

from edgeward_agent.clock import boot_id
from edgeward_agent.errors import ServingError
from edgeward_agent.log import fields
from edgeward_agent.process import ProcessRef, Watched
from edgeward_agent.serving.memory import serving_environment
from edgeward_contract.version import __version__

log = logging.getLogger(__name__)


_NO_ROOM: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE})
_NOT_ALLOWED: Final = frozenset({errno.EACCES, errno.EPERM, errno.ENOENT})


class NotStarted(ServingError):
    """The system gave no process, or no way to watch it; a retry is worth it, because others may give room back."""

    def __init__(self, wanted: str, cause: OSError) -> None:
        super().__init__(f"expected to {wanted}, got: {cause}")
        self.hint = f"{_way_out(cause)}; a running agent tries again by itself."


def _way_out(cause: OSError) -> str:
    if cause.errno in _NO_ROOM:
        return "Free memory, processes or open files (`free -m`, `ulimit -u -n`)"
    if cause.errno in _NOT_ALLOWED:
        return f"See that the user of the agent may run {sys.executable}"
    return "See the kernel's log (`dmesg`)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where models answer; empty where nothing listens. `unix` and `frames` are paths, for users of `unix_group` as far
    as `unix_mode` (octal) allows.
    """

    http: str = ""
    grpc: str = ""
    unix: str = ""
    frames: str = ""
    unix_group: str = ""
    unix_mode: str = "0660"


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What clients must show over TCP, and what they may take of it.

    `token_id` tells one token from another without saying it: a process that has another one is replaced.
    """

    token_file: str = ""
    token_id: str = ""
    max_body_mib: int = 64
    max_json_kib: int = 1024
    shared_memory: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPlan:
    """How to start the serving process."""

    boot: Path
    control: Path
    capture: Path
    pid_file: Path
    wanted: Addresses
    graphs: Path
    deadlines: str = "budget"
    allowed: Allowance = field(default_factory=Allowance)
    log_level: str = "info"
    log_format: str = "text"


class PidFile(msgspec.Struct, frozen=True, kw_only=True):
    """Enough to know the process again, and what it was started for.

    `folder` is where it was written: in a copy of the state folder it speaks of the original's process.
    """

    pid: int
    started: str
    boot: str
    version: str
    wanted: Addresses
    allowed: Allowance
    bound: Addresses
    deadlines: str = "budget"
    folder: str = ""

    @classmethod
    def of(cls, process: ProcessRef, plan: ServingPlan, bound: Addresses) -> PidFile:
        return cls(
            pid=process.pid,
            started=process.started,
            boot=boot_id(),
            folder=_folder_id(plan.pid_file.parent),
            version=__version__,
            wanted=plan.wanted,
            allowed=plan.allowed,
            bound=bound,
            deadlines=plan.deadlines,
        )

    def serves(self, plan: ServingPlan) -> bool:
        """Whether it is exactly what `plan` would start."""
        ours = (self.version, self.wanted, self.allowed, self.deadlines)
        return ours == (__version__, plan.wanted, plan.allowed, plan.deadlines)

    @classmethod
    def read(cls, path: Path) -> PidFile | None:
        """None when there is none, or it is of an earlier boot, where the same id was another process, or a copy."""
        try:
            found = msgspec.json.decode(path.read_bytes(), type=cls)
            here = ("", _folder_id(path.parent))  # an earlier version did not say
            return found if found.boot == boot_id() and found.folder in here else None
        except (OSError, msgspec.DecodeError):
            return None

    def write(self, path: Path) -> None:
        """Raises OSError; then there is none, since what it said before is no longer so."""
        partial = path.with_suffix(".tmp")
        try:
            partial.write_bytes(msgspec.json.encode(self))
            partial.replace(path)
        except OSError:
            for each in (partial, path):
                each.unlink(missing_ok=True)
            raise

    def watched(self) -> Watched | None:
        """None when that process is gone."""
        try:
            return Watched.hold(ProcessRef(pid=self.pid, started=self.started))
        except ProcessLookupError:
            return None


class ServingProcess:
    """A handle that stays with its process: waiting, asking how it ended, ending it."""

    def __init__(self, watched: Watched, child: subprocess.Popen[bytes] | None = None) -> None:
        self._watched = watched
        self._child = child

    @classmethod
    def adopt(cls, plan: ServingPlan) -> tuple[ServingProcess, Addresses] | None:
        """Take over what an earlier control process left, if it is exactly what `plan` would start."""
        found = PidFile.read(plan.pid_file)
        if found is None or not found.serves(plan):
            return None
        watched = found.watched()
        return (cls(watched), found.bound) if watched else None

    @classmethod
    def spawn(cls, plan: ServingPlan, listeners: Mapping[str, socket], grpc: str = "") -> ServingProcess:
        """Start it with the listening sockets as its own. `grpc` is an address: it opens that socket itself.

        Raises:
            NotStarted: no process, memory or descriptor is left, or it may not be run; nothing runs then.
        """
        try:
            child = subprocess.Popen(
                _command(plan, listeners, grpc),
                env=serving_environment(os.environ),
                stdin=subprocess.DEVNULL,
                pass_fds=[listener.fileno() for listener in listeners.values()],
                start_new_session=True,  # Ctrl-C in a terminal is for the control process, which then stops this one
            )
        except OSError as error:
            raise NotStarted("start a serving process", error) from None
        return cls(_watched(child), child)

    @property
    def pid(self) -> int:
        return self._watched.process.pid

    def record(self, plan: ServingPlan, bound: Addresses) -> bool:
        """Write down what runs, for the next control process; False on a full disk, which must not stop serving."""
        try:
            PidFile.of(self._watched.process, plan, bound).write(plan.pid_file)
        except OSError as error:
            log.warning("the serving process runs unrecorded for now", extra=fields(error=error))
            return False
        return True

    async def ended(self, timeout_s: float) -> bool:
        """Wait for its end; False when it still runs after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._watched.ended()
        except TimeoutError:
            return False
        return True

    async def end(self, timeout_s: float) -> None:
        """Ask it to end, and make it end after `timeout_s`."""
        self._watched.send(signal.SIGTERM)
        if not await self.ended(timeout_s):
            await self.kill()

    async def kill(self) -> None:
        self._watched.send(signal.SIGKILL)
        await self._watched.ended()

    def close(self) -> str:
        """Give back what is held, after its end; says how it ended."""
        self._watched.close()
        if self._child is None:
            return "ended"
        code = self._child.wait()
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def _folder_id(folder: Path) -> str:
    """The same by whatever name, and another for a copy. Raises OSError."""
    found = folder.stat()
    return f"{found.st_dev}:{found.st_ino}"


def _watched(child: subprocess.Popen[bytes]) -> Watched:
    """Hold our child. One that cannot be held is ended: beside the next one it would answer, and nobody would end it.

    Raises:
        NotStarted: it cannot be held.
    """
    try:
        return Watched.child(child.pid)
    except OSError as error:
        child.kill()
        child.wait()
        raise NotStarted("watch the serving process that was started", error) from None


def _command(plan: ServingPlan, listeners: Mapping[str, socket], grpc: str) -> list[str]:
    command = [sys.executable, "-m", "edgeward_agent.serving"]
    command += ["--boot", str(plan.boot), "--control", str(plan.control), "--capture", str(plan.capture)]
    command += ["--graphs", str(plan.graphs), "--deadlines", plan.deadlines]
    command += ["--log-level", plan.log_level, "--log-format", plan.log_format, *_allowing(plan.allowed)]
    command += ["--grpc", grpc] if grpc else []
    for name, listener in listeners.items():
        command += [f"--fd-{name}", str(listener.fileno())]
    return command


def _allowing(allowed: Allowance) -> list[str]:
    options = ["--max-body-mib", str(allowed.max_body_mib), "--max-json-kib", str(allowed.max_json_kib)]
    options += ["--token-file", allowed.token_file] if allowed.token_file else []
    return [*options, "--shared-memory"] if allowed.shared_memory else options
