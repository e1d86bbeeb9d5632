"""How long the supervisor waits for a serving process that says nothing, in a time that passes by itself."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from socket import socket
from typing import NoReturn

import pytest

from edgeward_agent import supervisor
from edgeward_agent.errors import ServingUnavailable
from edgeward_agent.ports import ServingState
from edgeward_agent.process import ProcessRef, Watched
from edgeward_agent.serving_process import Addresses, NotStarted, PidFile, ServingPlan, ServingProcess
from edgeward_agent.supervisor import ChildSupervisor, Patience
from support.update import FakeClock
from support.waiting import eventually

PATIENCE = Patience(start_s=600.0, hang_s=30.0)


class SilentProcess:
    """Stands for the child: lives until it is killed, and time passes while somebody waits for its end."""

    pid = 7

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.killed_s = 0.0

    def record(self, plan: ServingPlan, bound: Addresses) -> bool:
        return True

    async def ended(self, timeout_s: float) -> bool:
        await self._clock.sleep(timeout_s)
        return bool(self.killed_s)

    async def kill(self) -> None:
        self.killed_s = self._clock.now

    def close(self) -> str:
        return "killed"


class Answering:
    """The control socket of a process that answers when `when` says so; only `state` is asked."""

    def __init__(self, clock: FakeClock, when: Callable[[float], bool]) -> None:
        self._clock = clock
        self._when = when

    async def state(self) -> ServingState:
        if not self._when(self._clock.now):
            raise ServingUnavailable("expected the serving process to answer, it does not")
        return ServingState(pid=SilentProcess.pid, started_us=1)

    async def load(self, *_: object, **__: object) -> None:
        raise AssertionError("expected to be asked for its state alone")

    activate = unload = load


def plan_in(folder: Path) -> ServingPlan:
    return ServingPlan(
        boot=folder / "boot.json",
        control=folder / "c.sock",
        capture=folder / "k.sock",
        pid_file=folder / "serving.pid",
        wanted=Addresses(),
        graphs=folder / "graphs",
    )


def killed_after_s(monkeypatch: pytest.MonkeyPatch, folder: Path, when: Callable[[float], bool]) -> float:
    """Seconds from the start to the kill; 0 when it lives after an hour. `when` is given seconds since the start."""
    clock = FakeClock()
    began_s = clock.now
    first = SilentProcess(clock)

    class Spawner:
        @staticmethod
        def adopt(plan: ServingPlan) -> None:
            return None

        @staticmethod
        def spawn(plan: ServingPlan, listeners: Mapping[str, socket], grpc: str) -> SilentProcess:
            return first

    monkeypatch.setattr(supervisor, "ServingProcess", Spawner)
    serving = Answering(clock, lambda now: when(now - began_s))
    child = ChildSupervisor(plan_in(folder), serving=serving, clock=clock, patience=PATIENCE)

    async def run() -> None:
        await child.start()
        task = asyncio.create_task(child.run())
        await eventually(lambda: first.killed_s > 0 or clock.now - began_s > 3600, "a kill, or an hour")
        task.cancel()

    asyncio.run(run())
    return first.killed_s - began_s if first.killed_s else 0.0


def test_a_start_may_take_longer_than_a_hang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert killed_after_s(monkeypatch, tmp_path, lambda age_s: age_s > 500) == 0.0


def test_a_start_without_an_end_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert PATIENCE.start_s < killed_after_s(monkeypatch, tmp_path, lambda age_s: False) < PATIENCE.start_s + 10


def test_after_the_first_answer_a_silence_is_a_hang(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    silent_from_s = 100.0
    after_s = killed_after_s(monkeypatch, tmp_path, lambda age_s: 0 < age_s < silent_from_s) - silent_from_s
    assert PATIENCE.hang_s <= after_s < PATIENCE.hang_s + 10


def refuse(number: int) -> Callable[..., NoReturn]:
    """A call that the system refuses for want of room."""

    def call(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(
    ("number", "way_out"),
    [
        (errno.EAGAIN, "Free memory, processes or open files"),
        (errno.ENOMEM, "Free memory, processes or open files"),
        (errno.EMFILE, "Free memory, processes or open files"),
        (errno.EACCES, f"See that the user of the agent may run {sys.executable};"),
        (errno.ENOENT, f"See that the user of the agent may run {sys.executable};"),
        (errno.EIO, "See the kernel's log"),
    ],
)
def test_a_device_that_cannot_start_a_process_says_so_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, way_out: str
) -> None:
    monkeypatch.setattr(subprocess, "Popen", refuse(number))
    with pytest.raises(
        NotStarted, match=f"expected to start a serving process, got: .*{os.strerror(number)}"
    ) as caught:
        ServingProcess.spawn(plan_in(tmp_path), {})
    assert caught.value.hint.startswith(way_out) and "a running agent tries again by itself" in caught.value.hint


def test_a_process_that_cannot_be_watched_is_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Popen(subprocess.Popen[bytes]):
        def __init__(self, _: object, **__: object) -> None:
            super().__init__(["sleep", "600"])
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    monkeypatch.setattr(Watched, "child", refuse(errno.EMFILE))
    with pytest.raises(NotStarted, match="expected to watch the serving process that was started, got: .*open files"):
        ServingProcess.spawn(plan_in(tmp_path), {})
    assert [each.returncode for each in started] == [-signal.SIGKILL]


def test_a_copy_of_the_state_folder_does_not_speak_of_its_own_process(tmp_path: Path) -> None:
    """An agent that was tried on a copy ended the serving process of the one that ran on the original."""
    original, copy, other_name = tmp_path / "run", tmp_path / "copy", tmp_path / "link"
    original.mkdir()
    plan = plan_in(original)
    PidFile.of(ProcessRef.of(os.getpid()), plan, plan.wanted).write(plan.pid_file)
    shutil.copytree(original, copy)
    other_name.symlink_to(original)
    assert PidFile.read(copy / plan.pid_file.name) is None
    assert PidFile.read(other_name / plan.pid_file.name) == PidFile.read(plan.pid_file) is not None


def test_a_process_of_an_earlier_version_is_known_again(tmp_path: Path) -> None:
    """Else it stays, unknown to everybody, on the port that the next one wants."""
    plan = plan_in(tmp_path)
    PidFile.of(ProcessRef.of(os.getpid()), plan, plan.wanted).write(plan.pid_file)
    written = json.loads(plan.pid_file.read_bytes())
    del written["folder"]  # as before a copy was told apart
    plan.pid_file.write_text(json.dumps(written))
    known = PidFile.read(plan.pid_file)
    assert known is not None and known.pid == os.getpid()


def test_while_none_can_be_started_it_is_tried_again_less_and_less_often(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = FakeClock()
    tried_s: list[float] = []

    def popen(*_: object, **__: object) -> NoReturn:
        tried_s.append(clock.now)
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", popen)
    serving = Answering(clock, lambda _: False)
    child = ChildSupervisor(plan_in(tmp_path), serving=serving, clock=clock, patience=PATIENCE)

    async def run() -> None:
        task = asyncio.create_task(child.run())
        await eventually(lambda: len(tried_s) > 8 or task.done(), "nine attempts")
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await child.stop()

    asyncio.run(run())
    waits_s = [round(after - before, 3) for before, after in itertools.pairwise(tried_s[:9])]
    assert waits_s == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
