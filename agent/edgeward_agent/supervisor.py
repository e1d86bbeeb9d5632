"""Who starts the serving process and keeps it there.

The serving process outlives its supervisor: it runs in a session of its own and answers from what it has loaded, so
`kill -9` of the control process costs no inference. The next control process takes it over when it is exactly the one
that it would have started, and replaces it when it is not.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from edgeward_agent.clock import Clock
from edgeward_agent.errors import AgentError, ServingError
from edgeward_agent.listening import (
    bound_address,
    check_unix_path,
    listen_frames,
    listen_tcp,
    listen_unix,
    reserve_grpc,
)
from edgeward_agent.log import fields
from edgeward_agent.ports import Serving
from edgeward_agent.priority import Launcher
from edgeward_agent.process import ProcessRef, Watched
from edgeward_agent.serving_process import Addresses, PidFile, ServingPlan, ServingProcess

log = logging.getLogger(__name__)

_LIVED_WELL_S: Final = 10.0  # after this long a crash is a new story
_LONGEST_BACKOFF_S: Final = 5.0
_LOOK_S: Final = 2.0
_LOOK_EARLY_S: Final = 0.05


class Supervisor(Protocol):
    """Keeps a serving process running: a child on a laptop, systemd on a device."""

    @property
    def pid(self) -> int:
        """0 while there is none."""

    @property
    def restarts(self) -> int:
        """How often it ended without being asked to, since this agent started."""

    @property
    def addresses(self) -> Addresses:
        """Where models answer."""

    async def start(self) -> None:
        """Take over or start the process. Raises PortInUse or ConfigError when it cannot listen."""

    async def answered(self, within_s: float) -> bool:
        """Wait until it answers for the first time; False when it does not `within_s`."""

    async def run(self) -> None:
        """Start it again whenever it ends; never returns."""

    async def stop(self) -> None:
        """End it and give back the addresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """`backoff_s` before the first restart. A process is killed after `start_s` without its first answer, and after
    `hang_s` without another one.

    The two differ because all models are read, hashed and loaded before the first answer: on a slow disk that takes
    minutes, and a process that is killed for it never serves.
    """

    backoff_s: float = 0.1
    stop_s: float = 5.0
    start_s: float = 600.0
    hang_s: float = 30.0


class ChildSupervisor:
    """See `Supervisor`. The serving process is a child, or one that an earlier control process left running.

    It is started with the priority that this process had when the supervisor was made.
    """

    def __init__(self, plan: ServingPlan, *, serving: Serving, clock: Clock, patience: Patience) -> None:
        self._plan = plan
        self._serving = serving
        self._clock = clock
        self._patience = patience
        self._sockets = ExitStack()
        self._listeners: dict[str, socket.socket] = {}
        self._reserved = False
        self._process: ServingProcess | None = None
        self._recorded = True
        self._restarts = 0
        self._bound = plan.wanted
        self._launcher = Launcher()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def restarts(self) -> int:
        return self._restarts

    @property
    def addresses(self) -> Addresses:
        return self._bound

    async def start(self) -> None:
        check_unix_path(self._plan.control)
        check_unix_path(self._plan.capture)
        adopted = ServingProcess.adopt(self._plan)
        if adopted is None:
            await self._end_stranger()
            self._spawn()
            return
        self._process, self._bound = adopted
        log.info("took over the running serving process", extra=fields(pid=self.pid))

    async def answered(self, within_s: float) -> bool:
        end_s = self._clock.monotonic() + within_s
        while not await self._answers():
            if self._clock.monotonic() > end_s:
                return False
            await self._clock.sleep(_LOOK_EARLY_S)
        return True

    async def run(self) -> None:
        backoff_s = self._patience.backoff_s
        while True:
            began_s = self._clock.monotonic()
            await self._until_it_ends()
            if self._clock.monotonic() - began_s > _LIVED_WELL_S:
                backoff_s = self._patience.backoff_s
            await self._clock.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _LONGEST_BACKOFF_S)
            try:
                self._spawn()
            except AgentError as error:
                log.error("the serving process cannot be started; trying again", extra=fields(error=error))

    async def stop(self) -> None:
        if self._process is not None:
            await self._process.end(self._patience.stop_s)
            self._process.close()
            self._process = None
        self._give_back()
        self._launcher.close()

    def _give_back(self) -> None:
        self._sockets.close()
        self._listeners.clear()
        self._reserved = False
        self._plan.pid_file.unlink(missing_ok=True)
        for path in filter(None, (self._bound.unix, self._bound.frames)):
            Path(path).unlink(missing_ok=True)

    async def _until_it_ends(self) -> None:
        if self._process is None:
            return
        heard_s, limit_s = self._clock.monotonic(), self._patience.start_s
        while not await self._process.ended(_LOOK_S):
            self._recorded = self._recorded or self._process.record(self._plan, self._bound)
            if await self._answers():
                heard_s, limit_s = self._clock.monotonic(), self._patience.hang_s
            elif (silent_s := self._clock.monotonic() - heard_s) > limit_s:
                silence = fields(pid=self.pid, silent_s=round(silent_s))
                log.error("the serving process does not answer; killing it", extra=silence)
                await self._process.kill()
        self._restarts += 1
        how = self._process.close()
        self._process = None
        log.error("the serving process ended; starting it again", extra=fields(how=how))

    async def _answers(self) -> bool:
        try:
            await self._serving.state()
        except ServingError:
            return False
        return True

    def _spawn(self) -> None:
        self._listen()
        spawn = partial(ServingProcess.spawn, self._plan, self._listeners, self._bound.grpc)
        self._process = self._launcher.run(spawn)
        self._recorded = self._process.record(self._plan, self._bound)
        log.info("serving process started", extra=fields(pid=self.pid, **asdict(self._bound)))

    def _listen(self) -> None:
        """Open the addresses, once; they stay open across restarts, and a port once chosen stays the same."""
        if self._bound.http and "http" not in self._listeners:
            self._listeners["http"] = self._sockets.enter_context(listen_tcp(self._bound.http))
            self._bound = replace(self._bound, http=bound_address(self._listeners["http"]))
        if self._bound.unix and "unix" not in self._listeners:
            listener = listen_unix(Path(self._bound.unix), group=self._bound.unix_group, mode=self._unix_mode)
            self._listeners["unix"] = self._sockets.enter_context(listener)
        if self._bound.frames and "frames" not in self._listeners:
            listener = listen_frames(Path(self._bound.frames), group=self._bound.unix_group, mode=self._unix_mode)
            self._listeners["frames"] = self._sockets.enter_context(listener)
        if self._bound.grpc and not self._reserved:
            reserved = self._sockets.enter_context(reserve_grpc(self._bound.grpc))
            self._bound = replace(self._bound, grpc=bound_address(reserved))
            self._reserved = True

    @property
    def _unix_mode(self) -> int:
        return int(self._bound.unix_mode, 8)

    async def _end_stranger(self) -> None:
        """End a serving process of this state folder that was started for something else."""
        recorded = PidFile.read(self._plan.pid_file)
        watched = (recorded.watched() if recorded else None) or await self._who_answers()
        if watched is None:
            return
        stranger = ServingProcess(watched)
        log.info("replacing a serving process that has other settings", extra=fields(pid=stranger.pid))
        await stranger.end(self._patience.stop_s)
        stranger.close()

    async def _who_answers(self) -> Watched | None:
        """Who answers on our private socket; asked twice, so that the process held is the one that answers."""
        with contextlib.suppress(ServingError, ProcessLookupError):
            pid = (await self._serving.state()).pid
            watched = Watched.hold(ProcessRef.of(pid))
            with contextlib.suppress(ServingError):
                if (await self._serving.state()).pid == pid:
                    return watched
            watched.close()
        return None
