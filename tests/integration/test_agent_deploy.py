"""One real device and a real fleet: a release arrives, answers, leaves records; a bad one not; kills cost nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgeward_agent.client import Client, ClientError
from edgeward_contract.manifest import CaptureMode
from edgeward_fleet.accounts.model import Role
from support.agent import Agent, device, edgeward_agent, until
from support.deploy import CONFIGURATION, ONE_CASE, committed, release, version, want
from support.link_fleet import OpenFleet, open_fleet, push


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[OpenFleet]:
    with open_fleet(tmp_path_factory.mktemp("fleet")) as opened:
        for number in (1, 2, 3):
            push(opened, release(checkout, number))
        yield opened


@pytest.fixture
def agent(fleet: OpenFleet, tmp_path: Path) -> Iterator[Agent]:
    token = fleet.fleet.device_token()
    with device(tmp_path / "state") as agent:
        agent.configure(CONFIGURATION)
        done = agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint)
        assert done.returncode == 0, done.stderr
        agent.start("--config", str(agent.state_dir / "agent.toml"))
        agent.ready()
        yield agent


def test_a_release_arrives_answers_and_leaves_records(fleet: OpenFleet, agent: Agent, checkout: Path) -> None:
    want(fleet, agent, release(checkout, 2), "d-1")
    committed(agent, "wdbc-risk@2")
    for capture in (CaptureMode.ASYNC, CaptureMode.DURABLE):
        assert version(agent, capture) == "2"
    query = f"/records/count?device={agent.status().device.id}&kind=inference&model=wdbc-risk&version=2"
    until(lambda: fleet.fleet.client(Role.VIEWER).get(query).json()["count"] == 2, what="both records at the fleet")
    until(lambda: agent.status().outbox.records == 0)
    listed = edgeward_agent("outbox", "list", "--state-dir", agent.state_dir)
    assert listed.stdout == "nothing waits for the fleet\n"
    assert "PROBATION" in agent.log and "Traceback" not in agent.log
    assert "loaded wdbc-risk@2 on cpu, prepared graph" in agent.log


def test_a_bad_release_is_refused_and_the_good_one_goes_on(fleet: OpenFleet, agent: Agent, checkout: Path) -> None:
    want(fleet, agent, release(checkout, 2), "d-1")
    committed(agent, "wdbc-risk@2")
    want(fleet, agent, release(checkout, 3), "d-2")
    model = until(lambda: next((each for each in agent.status().models if each.update_state == "FAILED"), None))
    assert model is not None
    assert (model.live, model.slot, model.reason) == ("wdbc-risk@2", "current", "golden_mismatch")
    text = edgeward_agent("status", "--state-dir", agent.state_dir).stdout
    assert "wdbc-risk@3 FAILED (golden_mismatch)" in text and "expected" in text
    answer = edgeward_agent("infer", "wdbc-risk", "-i", "features=" + "1," * 29 + "1", "--state-dir", agent.state_dir)
    assert json.loads(answer.stdout)["version"] == "2", answer.stderr


def test_a_release_that_was_damaged_while_the_agent_was_off_comes_back(
    fleet: OpenFleet, agent: Agent, checkout: Path
) -> None:
    want(fleet, agent, release(checkout, 2), "d-1")
    committed(agent, "wdbc-risk@2")
    agent.stop()
    (model,) = (agent.state_dir / "releases").glob("*/model.onnx")
    os.truncate(model, 100)
    shutil.rmtree(agent.state_dir / "graphs")
    agent.start()
    until(lambda: "damaged:wdbc-risk" in agent.status().alarms, what="the alarm")
    committed(agent, "wdbc-risk@2")
    assert version(agent) == "2"
    until(lambda: not agent.status().alarms, what="the end of the alarms")


@pytest.mark.parametrize("state", ["DOWNLOADING", "PROBING", "ACTIVATING", "PROBATION"])
def test_a_kill_in_the_middle_of_an_update_ends_where_the_fleet_wants_it(
    fleet: OpenFleet, agent: Agent, checkout: Path, state: str
) -> None:
    want(fleet, agent, release(checkout, 1), "d-1")
    committed(agent, "wdbc-risk@1")
    with asking(agent) as failures:
        want(fleet, agent, release(checkout, 2), "d-2")
        until(lambda: re.search(rf"wdbc-risk@2\b.*\b{state}\b", agent.log), what=state)
        agent.kill()
        agent.start()
        committed(agent, "wdbc-risk@2")
    assert not failures
    assert version(agent) == "2"


def test_after_both_processes_are_killed_the_committed_release_answers_alone(
    fleet: OpenFleet, agent: Agent, checkout: Path
) -> None:
    """As after a power cut, with the fleet out of reach from then on."""
    want(fleet, agent, release(checkout, 2), "d-1")
    committed(agent, "wdbc-risk@2")
    serving = agent.serving_pid()
    agent.kill()
    os.kill(serving, signal.SIGKILL)
    facts = agent.state_dir / "identity/identity.json"
    facts.write_text(facts.read_text().replace(agent.status().device.fleet, "https://localhost:9"))
    agent.start()
    agent.ready()
    for _ in range(3):
        assert version(agent, CaptureMode.DURABLE) == "2"
    assert agent.status().outbox.records == 3
    listed = edgeward_agent("outbox", "list", "--state-dir", agent.state_dir).stdout.splitlines()
    assert len(listed) == 3 and all("inference" in line for line in listed)
    agent.stop()
    exported = edgeward_agent("outbox", "export", "--state-dir", agent.state_dir).stdout.splitlines()
    assert [json.loads(line)["body"]["model"] for line in exported] == ["wdbc-risk"] * 3


@contextmanager
def asking(agent: Agent) -> Iterator[list[str]]:
    """A bedside application that asks without a pause; what went wrong for it."""
    failures: list[str] = []
    enough = threading.Event()

    def ask() -> None:
        with Client(f"http://127.0.0.1:{agent.port()}") as client:
            while not enough.is_set():
                try:
                    client.infer("wdbc-risk", {"features": ONE_CASE})
                except ClientError as error:
                    failures.append(repr(error))
                enough.wait(0.005)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield failures
    finally:
        enough.set()
        thread.join()
