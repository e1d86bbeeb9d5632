"""A real agent: enrolled by its own command, run as a process of its own, asked as a person asks it."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edgeward_agent.errors import AgentError
from edgeward_agent.state_dir import StateDir
from edgeward_agent.status import Status, read_status

T = TypeVar("T")

DEADLINE_S = 30.0


def edgeward_agent(*arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    command = [sys.executable, "-m", "edgeward_agent", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=DEADLINE_S)


def until(look: Callable[[], T], *, within_s: float = DEADLINE_S, what: str = "") -> T:
    """The first true thing that `look` gives; what it raises on the way is not there yet."""
    deadline = time.monotonic() + within_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = found = look()
        except (OSError, http.client.HTTPException, AssertionError, KeyError, IndexError) as error:
            last = error
        else:
            if found:
                return found
        time.sleep(0.02)
    raise AssertionError(f"expected {what or look} within {within_s:g} s, last saw {last!r}")


@dataclass(slots=True)
class Agent:
    """One device. `state_dir` survives the process."""

    state_dir: Path
    process: subprocess.Popen[str] | None = None
    options: tuple[str, ...] = ()

    @property
    def log(self) -> str:
        return (self.state_dir.parent / f"{self.state_dir.name}.log").read_text()

    def configure(self, text: str) -> None:
        self.state_dir.mkdir(exist_ok=True)
        (self.state_dir / "agent.toml").write_text(text)

    def enrol(self, enrolment_url: str, token: str, fingerprint: str, *more: str) -> subprocess.CompletedProcess[str]:
        options = ("--fleet", enrolment_url, "--token", token, "--ca-fingerprint", fingerprint)
        return edgeward_agent("enrol", "--state-dir", self.state_dir, *options, *more)

    def start(self, *options: str) -> None:
        """Returns at once; see `ready`."""
        self.options = options or self.options or ("--http", "127.0.0.1:0")
        command = [sys.executable, "-m", "edgeward_agent", "run", "--state-dir", str(self.state_dir), *self.options]
        with (self.state_dir.parent / f"{self.state_dir.name}.log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, text=True)

    def ready(self) -> Status:
        """Wait until it answers, and give its status."""

        def answers() -> Status:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            self.live()
            status = self.status()
            assert status.agent.pid == self.process.pid
            return status

        return until(answers, what="an agent that answers")

    def status(self) -> Status:
        """What `edgeward-agent status --json` prints, without a process for each look."""
        try:
            return read_status(StateDir(self.state_dir))
        except AgentError as error:
            raise AssertionError(str(error)) from None

    def port(self) -> int:
        address = self.status().serving.http
        assert address, "expected an address"
        return int(address.rpartition(":")[2])

    def serving_pid(self) -> int:
        return self.status().serving.pid

    def live(self) -> bool:
        """One request to the data port; raises what went wrong."""
        return self.get("/v2/health/live").status == 200

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port(), timeout=5)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            response.read()
            return response
        finally:
            connection.close()

    def kill(self) -> None:
        """As a power cut does it to the control process alone."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


@contextmanager
def device(state_dir: Path) -> Iterator[Agent]:
    """A device that is ended at the end of the block, serving process and all, however the test went."""
    agent = Agent(state_dir)
    try:
        yield agent
    finally:
        if agent.process is not None:
            if agent.process.poll() is not None:  # a killed one may have left its serving process behind
                agent.start()
            agent.stop()
