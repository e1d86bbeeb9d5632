"""A real device process that comes over MQTT: a release arrives, answers and leaves records, through outages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeward_agent.identity import tls
from edgeward_agent.link.mqtt_knock import knock
from edgeward_agent.link.wire import CertificateNotTaken, FleetNotTrusted
from edgeward_contract.manifest import CaptureMode
from edgeward_fleet.accounts.model import Role
from support.agent import Agent, device, edgeward_agent, until
from support.deploy import CONFIGURATION, committed, release, version, want
from support.link_fleet import push
from support.link_mqtt import MqttFleet, open_mqtt_fleet
from support.mosquitto import free_port
from support.pki import TestCa

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, checkout: Path) -> Iterator[MqttFleet]:
    with open_mqtt_fleet(tmp_path_factory.mktemp("fleet")) as opened:
        for number in (1, 2):
            push(opened.opened, release(checkout, number))
        yield opened


@pytest.fixture(params=["", "wss"])
def agent(request: pytest.FixtureRequest, fleet: MqttFleet, tmp_path: Path) -> Iterator[Agent]:
    """With the address from its enrolment, or with one of its own."""
    own = f'mqtt_url = "{fleet.broker.websocket_address}"\n' if request.param else ""
    token = fleet.opened.fleet.device_token()
    with device(tmp_path / "state") as agent:
        agent.configure(f'{CONFIGURATION}\n[link]\nkind = "mqtt"\ntimeout_s = 5\n{own}')
        done = agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint)
        assert done.returncode == 0, done.stderr
        agent.start()
        agent.ready()
        yield agent


def test_a_release_arrives_over_mqtt_and_its_records_survive_a_killed_broker(
    fleet: MqttFleet, agent: Agent, checkout: Path
) -> None:
    want(fleet.opened, agent, release(checkout, 1), "d-1")
    committed(agent, "wdbc-risk@1")
    assert version(agent, CaptureMode.DURABLE) == "1"
    fleet.broker.kill()
    fleet.broker.forget()
    for _ in range(5):
        assert version(agent, CaptureMode.DURABLE) == "1"
    want(fleet.opened, agent, release(checkout, 2), "d-2")
    fleet.broker.start()
    committed(agent, "wdbc-risk@2")
    assert version(agent, CaptureMode.DURABLE) == "2"
    name = agent.status().device.id
    query = f"/records/count?device={name}&kind=inference&model=wdbc-risk"
    until(lambda: fleet.opened.fleet.client(Role.VIEWER).get(query).json()["count"] == 7, what="every record")
    until(lambda: agent.status().outbox.records == 0)
    shown = fleet.opened.fleet.client(Role.VIEWER).get(f"/devices/{name}").json()
    assert shown["state"] == "online" and shown["last_address"] == "mqtt"
    doctor = edgeward_agent("doctor", "--state-dir", agent.state_dir).stdout
    assert "broker         mqtts://" in doctor or "broker         wss://" in doctor, doctor
    assert "answers and takes the certificate" in doctor
    assert "Traceback" not in agent.log


def test_without_an_address_or_a_sense_the_agent_says_so(tmp_path: Path, fleet: MqttFleet) -> None:
    token = fleet.opened.fleet.device_token()
    with device(tmp_path / "state") as agent:
        agent.configure('[link]\nkind = "mqtt"\nmqtt_url = "mqtt://plain:1883"\n')
        assert agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint).returncode == 0
        refused = edgeward_agent("run", "--state-dir", agent.state_dir)
        assert refused.returncode == 2
        assert "agent.toml:3: link.mqtt_url: expected mqtts://HOST:PORT or wss://HOST:PORT/PATH" in refused.stderr
        facts = agent.state_dir / "identity" / "identity.json"
        assert str(fleet.broker.port) in facts.read_text()
        facts.write_text(facts.read_text().replace(f"mqtts://localhost:{fleet.broker.port}", ""))
        agent.configure('[link]\nkind = "mqtt"\n')
        doctor = edgeward_agent("doctor", "--state-dir", agent.state_dir)
        assert doctor.returncode == 1 and "fail  broker" in doctor.stdout
        refused = edgeward_agent("run", "--state-dir", agent.state_dir, "--http", "127.0.0.1:0")
        assert "expected the address of a broker" in refused.stderr
        assert "Set link.mqtt_url" in refused.stderr


def test_the_doctor_tells_silence_from_a_certificate_that_is_not_taken(tmp_path: Path, fleet: MqttFleet) -> None:
    token = fleet.opened.fleet.device_token()
    with device(tmp_path / "state") as agent:
        assert agent.enrol(token.enrolment_url, token.token, token.ca_fingerprint).returncode == 0
        agent.configure(f'[link]\nkind = "mqtt"\nmqtt_url = "mqtts://127.0.0.1:{free_port()}"\n')
        silent = edgeward_agent("doctor", "--state-dir", agent.state_dir)
        assert silent.returncode == 0 and "warn  broker" in silent.stdout, silent.stdout
        assert "check that the broker runs" in " ".join(silent.stdout.split())
        stranger = TestCa().enrolled(tmp_path / "stranger", "https://localhost:1")
        trusting = tls.mutual_of(fleet.opened.fleet.ca_file, stranger.certificate_file, stranger.key_file)
        with pytest.raises(CertificateNotTaken, match="refused the TLS connection"):
            knock(fleet.broker.address, trusting, timeout_s=5)
        with pytest.raises(FleetNotTrusted):
            knock(fleet.broker.address, tls.mutual(stranger), timeout_s=5)
