"""The bad versions of wdbc-risk on a real device: one too slow for the check, one that passes it and then crashes."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeward_agent.client import Client, ClientError
from support.agent import Agent, device, until
from support.deploy import CONFIGURATION, committed, release, version, want
from support.link_fleet import OpenFleet, open_fleet, push
from support.models import wdbc_evaluation, wdbc_patients


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[OpenFleet]:
    with open_fleet(tmp_path_factory.mktemp("fleet")) as opened:
        for number in (2, 5, 6):
            push(opened, release(checkout, number))
        yield opened


@pytest.fixture
def agent(fleet: OpenFleet, tmp_path: Path, checkout: Path) -> Iterator[Agent]:
    """A device that runs version 2 and gives a candidate time to show what it is."""
    token = fleet.fleet.device_token()
    with device(tmp_path / "state") as agent:
        agent.configure(CONFIGURATION.replace("probation_s = 1.0", "probation_s = 5.0"))
        assert agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint).returncode == 0
        agent.start("--config", str(agent.state_dir / "agent.toml"))
        agent.ready()
        want(fleet, agent, release(checkout, 2), "d-1")
        committed(agent, "wdbc-risk@2")
        yield agent


def test_a_slow_release_is_refused_before_it_answers_anybody(fleet: OpenFleet, agent: Agent, checkout: Path) -> None:
    want(fleet, agent, release(checkout, 5), "d-2")
    until(lambda: ended_as(agent, "FAILED"), what="a refusal")
    (model,) = agent.status().models
    assert (model.live, model.slot, model.reason) == ("wdbc-risk@2", "current", "too_slow")
    assert "PROBATION" not in agent.log.partition("wdbc-risk@5")[2]


@pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"}, reason="only x86-64 ends a process on an overflowing division"
)
def test_a_release_that_crashes_the_runtime_is_taken_back(fleet: OpenFleet, agent: Agent, checkout: Path) -> None:
    want(fleet, agent, release(checkout, 6), "d-2")
    until(lambda: version(agent) == "6", what="version 6 to answer")
    until(lambda: ask_fatal(agent) and ended_as(agent, "ROLLED_BACK"), what="the way back")
    (model,) = agent.status().models
    assert (model.live, model.slot, model.reason) == ("wdbc-risk@2", "current", "crashes")
    assert ask_fatal(agent) == "2", "the patient that version 6 died of gets an answer again"


def ended_as(agent: Agent, state: str) -> bool:
    return any(model.update_state == state for model in agent.status().models)


def ask_fatal(agent: Agent) -> str:
    """Ask about the patient that version 6 dies of; the version that answered, or what went wrong."""
    patients = wdbc_patients()
    fatal = wdbc_evaluation().object("faults").object("6").texts("patients")[:1]
    try:
        with Client(f"http://127.0.0.1:{agent.port()}") as client:
            return client.infer("wdbc-risk", {"features": patients.tensor(patients.rows_of(fatal))}).version
    except ClientError as error:
        return repr(error)
