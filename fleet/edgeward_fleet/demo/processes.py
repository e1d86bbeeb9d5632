"""The processes of a demonstration: started here, ended here, by their ids, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from edgeward_contract.schema import ContractError, parse_json
from edgeward_fleet.cli.errors import Undecided
from edgeward_fleet.demo.errors import DemoFailed

_STOP_S: Final = 15.0
_POLL_S: Final = 0.05
_OURS: Final = "EDGEWARD_"
_ASK_TO_BE_TOLD: Final = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGTERM; it outlives exec
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
_MORTAL: Final = (
    (sys.executable, "-I", "-S", "-c", _ASK_TO_BE_TOLD, str(os.getpid())) if sys.platform == "linux" else ()
)
"""What a command is put behind to end with this process."""


@dataclass(frozen=True, slots=True)
class Child:
    """A process that runs until it is told to stop."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    leaves: Path | None = None  # names the process that this one leaves behind when it is killed

    def check(self) -> None:
        """Raises DemoFailed when it has ended by itself, with the last thing that it said."""
        code = self.process.poll()
        if code is not None:
            raise DemoFailed(f"{self.name} ended by itself with {code}: {last_words(self.log)}")

    def end(self) -> None:
        """SIGTERM and, to one that does not listen, SIGKILL."""
        self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.leaves is not None:
            _end_left(self.leaves)


class Household:
    """Every process of the demonstration; the last one started is the first one ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []

    def __enter__(self) -> Household:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gone = self._gone() if isinstance(error, Undecided) else None  # who does not answer may have ended
        with _undisturbed():
            for child in self._children:
                child.process.terminate()  # all at once: each takes its time to stop cleanly
            for child in reversed(self._children):
                child.end()
        if gone is not None:
            raise gone from error

    def start(self, name: str, module: str, *arguments: str, leaves: Path | None = None) -> Child:
        """Run `python -m module arguments…`; see `run`."""
        return self.run(name, _command(module, arguments), leaves=leaves)

    def run(self, name: str, command: Sequence[str], *, leaves: Path | None = None) -> Child:
        """Run `command`; what it says goes to `NAME.log`.

        It gets a session of its own: Ctrl-C is for us, and we end the others in order. Where the kernel can, it is
        told to stop when we are killed, for then nobody does.
        """
        log = self._folder / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*_MORTAL, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=_environment(),
                start_new_session=True,
            )
        child = Child(name, process, log, leaves)
        self._children.append(child)
        return child

    @property
    def pids(self) -> tuple[int, ...]:
        return tuple(child.process.pid for child in self._children)

    def check(self) -> None:
        """Raises DemoFailed when one of them has ended by itself."""
        for child in self._children:
            child.check()

    def _gone(self) -> DemoFailed | None:
        try:
            self.check()
        except DemoFailed as error:
            return error
        return None


def ask(module: str, *arguments: str, secret: str = "") -> str:
    """Run `python -m module arguments…` to its end, `secret` on its standard input; what it said.

    Raises:
        DemoFailed: it failed; with its own words.
    """
    done = subprocess.run(
        _command(module, arguments), input=secret, capture_output=True, text=True, check=False, env=_environment()
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise DemoFailed(f"{module} {arguments[0]} ended with {done.returncode}: {lines[0]}")
    return done.stdout


def wait_until(happened: Callable[[], bool], household: Household, what: str, *, timeout_s: float) -> None:
    """Raises DemoFailed when `happened` is not true in time, or a process ends meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        household.check()
        if time.monotonic() >= deadline:
            raise DemoFailed(f"expected {what} within {timeout_s:g} s, it did not happen")
        time.sleep(_POLL_S)


def last_words(log: Path) -> str:
    """What it said last; of an error with its hint below, the error."""
    *_, before, last = ["", "it said nothing", *log.read_text(errors="replace").strip().splitlines()]
    return (before if before.startswith("error: ") else last).removeprefix("error: ")[:300]


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C of an impatient person must not leave processes behind."""
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_left(pid_file: Path) -> None:
    """End the process of `pid_file` if it is still the one that was started here: its command names the folder."""
    try:
        pid = parse_json(pid_file.read_bytes()).integer("pid", minimum=2)
        if str(pid_file.parent).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    except (OSError, ContractError):
        return  # it is gone, which is what was wanted


def _command(module: str, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _environment() -> dict[str, str]:
    """Ours, without settings that are meant for the person's own fleet and devices."""
    return {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
