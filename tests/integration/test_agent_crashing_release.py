"""Version 6 of wdbc-risk passes every check and then takes the runtime down with some patients: it does not stay."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edgeward_agent.client import Client, ClientError
from support.agent import Agent, device, until
from support.deploy import CONFIGURATION, committed, release, version, want
from support.link_fleet import open_fleet, push
from support.models import wdbc_evaluation, wdbc_patients

pytestmark = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"}, reason="only x86-64 ends a process on an overflowing division"
)


def test_a_release_that_crashes_the_runtime_is_taken_back_by_the_device(tmp_path: Path, checkout: Path) -> None:
    with open_fleet(tmp_path / "fleet") as opened, device(tmp_path / "state") as agent:
        for number in (2, 6):
            push(opened, release(checkout, number))
        token = opened.fleet.device_token()
        agent.configure(CONFIGURATION.replace("probation_s = 1.0", "probation_s = 5.0"))
        assert agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint).returncode == 0
        agent.start("--config", str(agent.state_dir / "agent.toml"))
        agent.ready()
        want(opened, agent, release(checkout, 2), "d-1")
        committed(agent, "wdbc-risk@2")
        want(opened, agent, release(checkout, 6), "d-2")
        until(lambda: version(agent) == "6", what="version 6 to answer")
        until(lambda: crashed_back(agent), what="the way back")
        (model,) = agent.status().models
        assert (model.live, model.slot, model.reason) == ("wdbc-risk@2", "current", "crashes")
        assert version(agent) == "2"
        assert ask_fatal(agent) == "2", "the patient that version 6 died of gets an answer again"


def crashed_back(agent: Agent) -> bool:
    """Ask about the patient that version 6 dies of until the device has had enough."""
    ask_fatal(agent)
    return any(model.update_state == "ROLLED_BACK" for model in agent.status().models)


def ask_fatal(agent: Agent) -> str:
    patients = wdbc_patients()
    fatal = wdbc_evaluation().object("faults").object("6").texts("patients")[:1]
    features = patients.tensor(patients.rows_of(fatal))
    try:
        with Client(f"http://127.0.0.1:{agent.port()}") as client:
            return client.infer("wdbc-risk", {"features": features}).version
    except ClientError as error:
        return repr(error)
