"""The agent as people start it, against a real fleet: enrolment, supervision, status, and every way to get it wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeward_fleet.accounts.model import Role
from support.agent import Agent, device, until
from support.fleet import Fleet, running_fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with running_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


@pytest.fixture
def agent(fleet: Fleet, tmp_path: Path) -> Iterator[Agent]:
    """Enrolled, not running."""
    token = fleet.device_token()
    with device(tmp_path / "state") as agent:
        done = agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint)
        assert done.returncode == 0, done.stderr
        yield agent


def test_a_device_runs_reports_and_stops_cleanly(fleet: Fleet, agent: Agent) -> None:
    agent.start()
    status = agent.ready()
    until(lambda: agent.status().link.connected)
    seen = until(lambda: fleet.client(Role.VIEWER).get(f"/devices/{status.device.id}").json()["reported"])
    assert seen["health"]["certificate_days_left"] >= 28
    serving = agent.serving_pid()
    assert agent.stop() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(serving, 0)
    assert sorted(path.name for path in (agent.state_dir / "run").iterdir()) == ["agent.pid"]
