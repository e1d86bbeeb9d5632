"""A device whose processors are all taken: answers go first, and what waits for the rest still comes in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from edgeward_agent.client import Client
from edgeward_agent.priority import BACKGROUND_NICE
from edgeward_contract.manifest import CaptureMode
from support.agent import Agent, device, until
from support.deploy import CONFIGURATION, ONE_CASE, committed, release, version, want
from support.link_fleet import OpenFleet, open_fleet, push

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="priorities are those of Linux")

CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 1
RECORDS = 30
COMMIT_S = 5.0  # how long the serving process waits for a commit before it refuses the request


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[OpenFleet]:
    with open_fleet(tmp_path_factory.mktemp("fleet")) as opened:
        for number in (1, 2):
            push(opened, release(checkout, number))
        yield opened


@pytest.fixture
def agent(fleet: OpenFleet, tmp_path: Path, checkout: Path) -> Iterator[Agent]:
    """A device that answers with version 1."""
    token = fleet.fleet.device_token()
    with device(tmp_path / "state") as agent:
        agent.configure(CONFIGURATION)
        done = agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint)
        assert done.returncode == 0, done.stderr
        agent.start("--config", str(agent.state_dir / "agent.toml"))
        agent.ready()
        want(fleet, agent, release(checkout, 1), "d-1")
        committed(agent, "wdbc-risk@1")
        yield agent


@contextmanager
def taken(cores: int) -> Iterator[None]:
    """So many processes, of the priority of answers, that compute and never wait."""
    with ExitStack() as stack:
        for _ in range(cores):
            burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        yield


def test_answers_go_before_the_work_around_them(agent: Agent) -> None:
    def standings() -> tuple[Standing, Standing]:
        return standing(agent.status().agent.pid), standing(agent.serving_pid())

    ours = standing(os.getpid())
    control, serving = standings()
    assert serving == ours
    assert (control.nice, len(control.cores)) == (max(BACKGROUND_NICE, ours.nice), max(1, CORES - 1))
    killed = agent.serving_pid()
    os.kill(killed, signal.SIGKILL)
    until(lambda: agent.live() and agent.serving_pid() not in (0, killed), what="another serving process")
    assert standings() == (control, serving)  # who starts it has given its own up


def test_durable_records_are_committed_on_a_device_without_an_idle_core(agent: Agent) -> None:
    took_s = []
    with taken(2 * CORES), Client(f"http://127.0.0.1:{agent.port()}") as client:
        for _ in range(RECORDS):
            began_s = time.monotonic()
            client.infer("wdbc-risk", {"features": ONE_CASE}, capture=CaptureMode.DURABLE, deadline_us=0)
            took_s.append(time.monotonic() - began_s)
    assert max(took_s) < COMMIT_S
    assert sorted(took_s)[RECORDS // 2] < COMMIT_S / 10


@pytest.mark.skipif(CORES < 2, reason="the check of a release waits for an idle core")
def test_an_update_needs_no_more_than_one_idle_core(fleet: OpenFleet, agent: Agent, checkout: Path) -> None:
    with taken(CORES - 1):
        want(fleet, agent, release(checkout, 2), "d-2")
        committed(agent, "wdbc-risk@2")
    assert version(agent) == "2"


class Standing(NamedTuple):
    nice: int
    cores: Set[int]


def standing(pid: int) -> Standing:
    return Standing(os.getpriority(os.PRIO_PROCESS, pid), os.sched_getaffinity(pid))
