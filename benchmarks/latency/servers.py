"""What is measured, as processes: ours with everything on, ours bare, and the peers.

A server is started once and asked in many short turns. Between its turns it stands still (SIGSTOP): what it does while
nobody asks is not counted against the others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benchmarks.latency import ours, peers, tree
from benchmarks.latency.ours import Start
from benchmarks.latency.way import Way, ask, check
from benchmarks.latency.wire import WrongAnswer
from benchmarks.latency.workload import Workload

OURS: Final = ("ours", "bare")
_START_S: Final = 60.0
_END_S: Final = 5.0
_TRIES: Final = 3
"""A peer may want more ports than the one that was found free for it, and somebody may have taken those."""


class NotStarted(Exception):
    """A server cannot be had here, or does not give the model's outputs. The text is the reason."""


class Ended(NotStarted):
    """A server ended before it had answered anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A process that answers rightly, how long its first answer took, and the ways to ask it by name."""

    name: str
    pid: int
    first_answer_s: float
    ways: Mapping[str, Way]
    recorder: int = 0


@contextmanager
def start(name: str, workload: Workload, *more: str) -> Iterator[Server]:
    """A server that stands still until it is woken (`tree.awake`). `more` are words for the command line of ours.

    Raises:
        NotStarted: it cannot be installed or does not come up, or its outputs are not the model's.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="edgeward-bench-")))
        if name in OURS:
            begin = stack.enter_context(ours.start(workload, folder, bare=name == "bare", more=more))
            yield stack.enter_context(_running(name, begin, workload, folder / "log"))
        else:
            yield _peer(name, workload, folder / "log", stack)


def _peer(name: str, workload: Workload, log: Path, stack: ExitStack) -> Server:
    """One that ends at once is started again, on other ports; why it ended the last time is what is told."""
    tries = 0
    while True:
        tries += 1
        try:
            return stack.enter_context(_running(name, peers.start(name, workload), workload, log))
        except peers.NotInstalled as error:
            raise NotStarted(str(error)) from None
        except Ended:
            if tries == _TRIES:
                raise


@contextmanager
def _running(name: str, begin: Start, workload: Workload, log: Path) -> Iterator[Server]:
    began = time.perf_counter()
    process = _spawn(begin, log)
    try:
        first = next(iter(begin.ways.values()))
        _await_first_answer(process, first, log)
        first_answer_s = time.perf_counter() - began
        _check_all(name, begin.ways, workload)
        tree.send(process.pid, signal.SIGSTOP)
        yield Server(
            name=name, pid=process.pid, first_answer_s=first_answer_s, ways=begin.ways, recorder=begin.recorder
        )
    finally:
        _end(process)


def _spawn(begin: Start, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as written:
        return subprocess.Popen(
            [str(word) for word in begin.command],
            env=os.environ | dict(begin.extra),
            cwd=log.parent if begin.scratch else None,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )


def _await_first_answer(process: subprocess.Popen[bytes], way: Way, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            if ask(way).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.001)
    told = log.read_text(errors="replace").strip().rpartition("\n")[2][-400:] or "nothing"
    if process.poll() is not None:
        raise Ended(f"it ended before it had answered: {told}")
    raise NotStarted(f"expected an answer within {_START_S:g} s, got: {told}")


def _check_all(name: str, ways: Mapping[str, Way], workload: Workload) -> None:
    for way in ways.values():
        try:
            check(way, workload)
        except (WrongAnswer, OSError) as error:
            raise NotStarted(f"{name}: {error}") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Every member by its number: children may have left the group, and one that stands still hears no request."""
    members = tree.family(process.pid)
    _send_all(members, signal.SIGCONT)
    _send_all(members, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
    _send_all(members, signal.SIGKILL)
    process.wait()


def _send_all(members: Sequence[int], number: signal.Signals) -> None:
    for member in members:
        with suppress(ProcessLookupError):
            os.kill(member, number)
