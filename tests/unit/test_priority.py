"""Priorities: what is given up, what is kept for others, and that nothing fails where a wish is not granted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from edgeward_agent import priority
from edgeward_agent.priority import (
    BACKGROUND_NICE,
    Launcher,
    background_cores,
    go_last,
    interrupt_nobody,
    least_interrupted,
    step_back,
    take_short_turns,
)
from support.turns import turn, turns_are_known

T = TypeVar("T")

linux = pytest.mark.skipif(sys.platform != "linux", reason="priorities are those of Linux")
TELL = [sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0), len(os.sched_getaffinity(0)))"]


def in_a_thread(work: Callable[[], T]) -> T:
    """In one of its own: what it gives up it cannot have back, and this thread runs the other tests."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def told(launcher: Launcher | None = None) -> tuple[int, int]:
    """How nice a child finds itself, and on how many cores."""

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(TELL, stdout=subprocess.PIPE, text=True)

    with launcher.run(start) if launcher else start() as child:
        nice, cores = child.communicate()[0].split()
        return int(nice), int(cores)


@linux
def test_children_have_the_priority_of_who_starts_them() -> None:
    nice, cores = os.getpriority(os.PRIO_PROCESS, 0), len(os.sched_getaffinity(0))

    def both() -> tuple[tuple[int, int], tuple[int, int]]:
        launcher = Launcher()
        step_back()
        try:
            return told(launcher), told()
        finally:
            launcher.close()

    assert in_a_thread(both) == ((nice, cores), (max(nice, BACKGROUND_NICE), max(1, cores - 1)))
    assert os.getpriority(os.PRIO_PROCESS, 0) == nice


def test_a_launcher_raises_what_the_start_raises() -> None:
    launcher = Launcher()
    with pytest.raises(FileNotFoundError):
        launcher.run(lambda: subprocess.Popen(["/nowhere"]))
    launcher.close()


@linux
def test_a_child_goes_last_before_it_has_said_a_word() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as child:
        go_last(child.pid)
        assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE
        weight = Path(f"/proc/{child.pid}/autogroup")
        assert not weight.exists() or weight.read_text().endswith("nice 19\n")
        child.communicate(b"\n")


@linux
def test_a_child_that_is_gone_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
        go_last(child.pid)


INTERRUPTS = """\
           CPU0       CPU2       CPU3
 28:          7         40          7   PCI-MSIX-0000:00:01.0   0-edge      virtio0-config
 36:          0    4304319          2   PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
LOC:    5221760          0    4991189   Local timer interrupts
ERR:          0
"""


@pytest.mark.parametrize(
    ("interrupts", "usable", "found"),
    [
        (INTERRUPTS, {0, 2, 3}, 0),
        (INTERRUPTS, {2, 3}, 3),
        (INTERRUPTS, {1, 2}, 1),  # it has come since
        ("", {0, 1}, 1),
        ("           CPU0       CPU1\n", {0, 1}, 1),
    ],
)
def test_the_core_for_answers_is_the_one_with_the_fewest_interrupts(
    interrupts: str, usable: set[int], found: int
) -> None:
    assert least_interrupted(interrupts, usable) == found


@linux
def test_one_core_is_left_to_answers_where_there_is_another() -> None:
    usable = os.sched_getaffinity(0)
    assert len(background_cores(usable)) == max(1, len(usable) - 1)
    assert background_cores({3}) == {3}


@linux
def test_turns_become_short_and_who_interrupts_nobody_has_usual_ones() -> None:
    def turns() -> list[tuple[int, int, int]]:
        before = turn()
        take_short_turns()
        short = turn()
        interrupt_nobody()
        return [before, short, turn()]

    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        pytest.skip("this run has another policy")
    before, short, after = in_a_thread(turns)
    assert short == (*before[:2], 100_000 if turns_are_known() else before[2])
    assert after == (os.SCHED_BATCH, *before[1:])


@linux
def test_the_work_around_answers_interrupts_nobody_and_who_was_last_stays_last() -> None:
    def policies() -> list[int]:
        step_back()
        before = os.sched_getscheduler(0)
        go_last(threading.get_native_id())
        interrupt_nobody()
        return [before, os.sched_getscheduler(0)]

    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        pytest.skip("this run has another policy")
    assert in_a_thread(policies) == [os.SCHED_BATCH, os.SCHED_IDLE]


@linux
def test_a_wish_that_may_not_even_be_asked_for_fails_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: int) -> int:
        raise OSError

    monkeypatch.setattr("os.sched_getscheduler", refused)
    take_short_turns()
    interrupt_nobody()


def test_elsewhere_nothing_is_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "LINUX", False)
    step_back()
    take_short_turns()
    interrupt_nobody()
    go_last(os.getpid())
    assert os.getpriority(os.PRIO_PROCESS, 0) == os.getpriority(os.PRIO_PROCESS, os.getpid())
