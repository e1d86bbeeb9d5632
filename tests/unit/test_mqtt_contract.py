"""What both sides of a broker agree on, without one."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeward_contract import topics
from edgeward_contract.artifact import DeviceId
from edgeward_contract.desired import MAX_GENERATION
from edgeward_contract.mqtt.broker import BrokerAddress, BrokerLost, BrokerRefused, PacketTooLarge, failure
from edgeward_contract.mqtt.documents import Answer, Hello, PresenceNote, report_tag
from edgeward_contract.record import Acknowledgement, Verdict, VerdictStatus
from edgeward_contract.reported import DeviceHealth, ReportedState
from edgeward_contract.schema import ContractError
from edgeward_fleet.link.mqtt_broker import PLUGIN, BrokerPlan, configuration, service
from edgeward_fleet.link.mqtt_roles import FLEET_NAME, grant, initial_config, revoke
from edgeward_fleet.settings import Settings

WARD = DeviceId("ward-3")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mqtts://broker:8883", BrokerAddress(host="broker", port=8883)),
        ("mqtts://broker", BrokerAddress(host="broker", port=8883)),
        ("mqtts://[::1]:18883", BrokerAddress(host="::1", port=18883)),
        ("wss://broker", BrokerAddress(host="broker", port=443, transport="websockets")),
        ("wss://broker:8443/ws", BrokerAddress(host="broker", port=8443, transport="websockets", path="/ws")),
    ],
)
def test_an_address_is_read_and_written(text: str, expected: BrokerAddress) -> None:
    address = BrokerAddress.parse(text)
    assert address == expected
    assert BrokerAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text", ["mqtt://broker", "broker:8883", "mqtts://", "mqtts://broker/path", "wss://a@b", "mqtts://b:99999", ""]
)
def test_an_address_without_tls_or_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected mqtts://HOST:PORT or wss://HOST:PORT/PATH, got"):
        BrokerAddress.parse(text)


def test_every_failing_reason_code_has_a_kind() -> None:
    kinds = {code: type(failure("connection", code)) for code in range(0x80, 0x100)}
    assert {code for code, kind in kinds.items() if kind is BrokerRefused} == {0x86, 0x87, 0x8A, 0x8C, 0x98}
    assert {code for code, kind in kinds.items() if kind is PacketTooLarge} == {0x95}
    assert {kind for code, kind in kinds.items()} == {BrokerRefused, PacketTooLarge, BrokerLost}
    assert str(failure("message on a/b", 0x87)) == "message on a/b: expected success, got: not authorized (0x87)"


def test_documents_survive_the_way() -> None:
    taken = Acknowledgement(batch_id="b-1", verdicts=(Verdict(epoch="e1", sequence=1, status=VerdictStatus.ACCEPTED),))
    later = Answer(tag="t", status=429, detail="busy", hint="wait", retry_after_s=17)
    for answer in (Answer(tag="t"), Answer(tag="b-1", acknowledgement=taken), later):
        assert Answer.parse(answer.canonical()) == answer
    assert Hello.parse(Hello(tag="h", generation=-1).canonical()) == Hello(tag="h", generation=-1)
    assert PresenceNote.parse(PresenceNote(online=False).canonical()) == PresenceNote(online=False)


@pytest.mark.parametrize("claimed", [MAX_GENERATION + 1, (1 << 63) - 2, (1 << 63) - 1])
def test_a_device_may_claim_no_generation_from_which_the_fleet_could_not_count_on(claimed: int) -> None:
    assert Hello.parse(Hello(tag="h", generation=MAX_GENERATION).canonical()).generation == MAX_GENERATION
    with pytest.raises(ContractError, match=f"generation: expected -1 to 9007199254740992, got {claimed}"):
        Hello.parse(Hello(tag="h", generation=claimed).canonical())


def test_a_report_is_named_by_its_number() -> None:
    health = DeviceHealth(serving_ready=True, disk_free_bytes=1)
    reported = ReportedState(generation=1, boot="abc", sequence=7, agent_version="0", health=health)
    assert report_tag(reported) == "abc:7"


def test_the_device_is_read_off_the_topic() -> None:
    assert topics.read_up_topic("edgeward/v1/ward-3/up/records") == (WARD, "records")
    for other in (
        "edgeward/v1/ward-3/down/acks",
        "edgeward/v1/up/records",
        "x/edgeward/v1/a/up/b",
        "edgeward/v1/A/up/b",
    ):
        with pytest.raises(ContractError):
            topics.read_up_topic(other)


def test_no_device_can_have_the_name_of_the_fleet() -> None:
    """Its certificate would be the fleet's own at the broker."""
    with pytest.raises(ContractError):
        topics.read_up_topic(f"edgeward/v1/{FLEET_NAME}/up/hello")


def test_a_role_permits_the_devices_own_topics_alone() -> None:
    role, client = grant(WARD)
    assert {(each["acltype"], each["topic"], each["allow"]) for each in role["acls"]} == {  # type: ignore[union-attr,index,call-overload]
        ("publishClientSend", "edgeward/v1/ward-3/up/hello", True),
        ("publishClientSend", "edgeward/v1/ward-3/up/presence", True),
        ("publishClientSend", "edgeward/v1/ward-3/up/records", True),
        ("publishClientSend", "edgeward/v1/ward-3/up/reported", True),
        ("publishClientReceive", "edgeward/v1/ward-3/down/#", True),
        ("subscribeLiteral", "edgeward/v1/ward-3/down/#", True),
    }
    assert client["roles"] == [{"rolename": role["rolename"]}]


def test_a_role_is_taken_from_its_client_before_either_is_deleted() -> None:
    """The other way round crashes mosquitto 2.0.11."""
    assert [each["command"] for each in revoke(WARD)] == ["removeClientRole", "deleteClient", "deleteRole"]


def test_a_new_broker_denies_what_no_role_permits() -> None:
    text = initial_config([WARD]).decode()
    assert '"publishClientReceive": false' in text
    assert '"ward-3"' in text


def test_the_configuration_that_is_shown_is_the_one_that_is_written(checkout: Path) -> None:
    plugin = Path("/usr/lib/x86_64-linux-gnu") / PLUGIN
    plan = BrokerPlan(folder=Path("/etc/mosquitto/edgeward"), plugin=plugin, websocket_port=443)
    text = configuration(plan)
    assert (checkout / "packaging/mosquitto/mosquitto.conf").read_text() == text
    assert (checkout / "packaging/mosquitto/systemd.conf").read_text() == service(plan)
    for line in (
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "max_connections 5000",  # counts for the listener above it alone
    ):
        assert text.count(f"\n{line}\n") == 2  # for each listener
    for line in ("allow_anonymous false", "message_size_limit 131072"):
        assert f"\n{line}\n" in text
    assert "\nacl_file" not in text


def test_devices_are_told_the_broker_under_the_fleets_public_name(tmp_path: Path) -> None:
    broker = BrokerAddress(host="127.0.0.1", port=18883)
    settings = Settings(data_dir=tmp_path, public_host="fleet.example.org", mqtt_broker=broker)
    assert settings.mqtt_url == "mqtts://fleet.example.org:18883"
    assert Settings(data_dir=tmp_path).mqtt_url is None
    told = Settings(data_dir=tmp_path, mqtt_broker=broker, mqtt_public_url="wss://edge:443/mqtt").mqtt_url
    assert told == "wss://edge:443/mqtt"
