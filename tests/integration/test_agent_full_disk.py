"""A device whose disk is full: it answers, refuses what it could not keep, starts again, goes on once there is room."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeward_agent.client import NotRecorded
from edgeward_agent.errors import ReadOnlyFolder
from edgeward_contract.manifest import CaptureMode
from support.agent import Agent, device, until
from support.deploy import CONFIGURATION, committed, release, version, want
from support.link_fleet import OpenFleet, open_fleet, push

DISK = "24m"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=False)
    if mounted.returncode != 0:
        pytest.skip("needs root")
    yield folder
    unmount(folder)


@pytest.fixture
def fleet(tmp_path: Path, checkout: Path) -> Iterator[OpenFleet]:
    with open_fleet(tmp_path) as opened:
        for number in (1, 2):
            push(opened, release(checkout, number))
        yield opened


def test_a_full_disk_costs_no_answer_and_nothing_that_was_promised(
    small_disk: Path, fleet: OpenFleet, checkout: Path
) -> None:
    with device(small_disk / "state") as agent:
        set_up(agent, fleet)
        want(fleet, agent, release(checkout, 1), "d-1")
        committed(agent, "wdbc-risk@1")
        fill(small_disk / "everything")
        assert version(agent) == "1"
        with pytest.raises(NotRecorded, match="outbox_full"):
            until_refused(agent)
        until(lambda: "outbox_full" in agent.status().alarms)
        want(fleet, agent, release(checkout, 2), "d-2")
        power_cut(agent)
        agent.start()
        agent.ready()
        assert version(agent) in ("1", "2")
        (small_disk / "everything").unlink()
        committed(agent, "wdbc-risk@2")
        assert version(agent, CaptureMode.DURABLE) == "2"
        assert "Traceback" not in agent.log


def set_up(agent: Agent, fleet: OpenFleet) -> None:
    small = CONFIGURATION.replace("[update]", "[update]\ndisk_reserve_bytes = 1000000\ndefer_poll_s = 0.2")
    agent.configure(small + "[outbox]\nmax_bytes = 1048576\nballast_bytes = 100000\n")
    token = fleet.fleet.device_token()
    assert agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint).returncode == 0
    agent.start("--config", str(agent.state_dir / "agent.toml"))
    agent.ready()


def unmount(folder: Path) -> None:
    """Once nobody uses it: who was killed may still be on his way out."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(path: Path) -> None:
    with path.open("wb") as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 16))
            file.flush()


def until_refused(agent: Agent) -> None:
    """The log of the database may have a little room left."""
    for _ in range(200):
        version(agent, CaptureMode.DURABLE)


def power_cut(agent: Agent) -> None:
    serving = agent.serving_pid()
    agent.kill()
    os.kill(serving, signal.SIGKILL)


def test_a_read_only_disk_is_named_and_serves_with_room_for_sockets(small_disk: Path, fleet: OpenFleet) -> None:
    def mounted(*options: str) -> None:
        subprocess.run(["mount", *options], check=True)

    state = small_disk  # all of it: the log lies beside the folder
    with device(state) as agent:
        set_up(agent, fleet)
        agent.stop()
        mounted("-o", "remount,ro", str(small_disk))
        agent.start()
        assert agent.process is not None
        assert agent.process.wait(30) == 1
        assert agent.log.splitlines()[-2:] == [
            f"error: {state / 'run'}: expected to write there, found a read-only file system",
            f"  {ReadOnlyFolder.hint}",
        ]
        for folder in (state / "run", state / "socket"):
            mounted("-t", "tmpfs", "tmpfs", str(folder))
        try:
            agent.start()
            assert agent.process.wait(30) == 1, "the outbox wants a disk"
            until(agent.live)
        finally:
            if pid := agent.serving_pid():
                os.kill(pid, signal.SIGKILL)
            for folder in (state / "run", state / "socket"):
                unmount(folder)
            mounted("-o", "remount,rw", str(small_disk))
