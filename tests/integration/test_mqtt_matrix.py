"""Who may do what at a real broker: no device reads or writes another's topics, takes its name, or comes back."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from edgeward_agent.errors import LinkError
from edgeward_contract import topics
from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.broker import BrokerAddress, BrokerError, BrokerRefused, Will
from edgeward_contract.mqtt.documents import Up
from edgeward_fleet.accounts.model import Role
from support.fleet import EnrolledDevice
from support.link import batch, desired_state, reported_state
from support.link_fleet import context_of
from support.link_mqtt import Mailbox, MqttFleet, MqttHarness, let_in, link_of, open_mqtt_fleet, persistently, raw
from support.pki import TestCa


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttFleet]:
    with open_mqtt_fleet(tmp_path_factory.mktemp("fleet")) as opened:
        yield opened


@pytest.fixture(params=["tcp", "websockets"])
def address(request: pytest.FixtureRequest, fleet: MqttFleet) -> BrokerAddress:
    return fleet.broker.address if request.param == "tcp" else fleet.broker.websocket_address


@dataclass(frozen=True, slots=True)
class Pair:
    """Two devices that may not see each other, both let in. The second has a desired state to be read."""

    mallory: EnrolledDevice
    victim: EnrolledDevice
    harness: MqttHarness


_count = iter(range(1000))


async def pair(fleet: MqttFleet, harness: MqttHarness) -> Pair:
    await harness.set_desired(desired_state(1))
    mallory = await asyncio.to_thread(fleet.opened.fleet.enrol, f"mallory-{next(_count)}")
    link = link_of(mallory, fleet.broker.address)
    await let_in(link)
    await link.aclose()
    return Pair(mallory, harness.device, harness)


def test_no_device_reads_what_is_another_s(fleet: MqttFleet, address: BrokerAddress) -> None:
    async def scenario() -> None:
        async with MqttHarness(fleet) as harness:
            both, mailbox = await pair(fleet, harness), Mailbox()
            victim = DeviceId(both.victim.device_id)
            forbidden = (
                topics.all_of(victim, "down"),
                topics.all_of(victim, "up"),
                topics.down_desired(victim),
                topics.ALL_DOWN,
                topics.ALL_UP,
                f"$share/group/{topics.all_of(victim, 'down')}",
                f"{topics.MQTT_ROOT}/#",
                "#",
                "+/+/+/down/desired",
                "$SYS/#",
                "$CONTROL/#",
                topics.all_of(DeviceId(both.mallory.device_id), "up"),
            )
            async with raw(context_of(both.mallory), address, mailbox=mailbox) as connection:
                for topic in forbidden:
                    with pytest.raises(BrokerRefused, match=r"not authorized \(0x87\)"):
                        await connection.subscribe(topic)
                await harness.set_desired(desired_state(2))
                assert (await harness.link.next_desired(1)).generation == 2
                await connection.subscribe(topics.all_of(DeviceId(both.mallory.device_id), "down"))
            assert not {topic for topic in mailbox.topics if both.mallory.device_id not in topic}

    asyncio.run(scenario())


def test_no_device_writes_what_is_another_s_or_the_fleets(fleet: MqttFleet, address: BrokerAddress) -> None:
    async def scenario() -> None:
        async with MqttHarness(fleet) as harness:
            both = await pair(fleet, harness)
            victim, mallory = DeviceId(both.victim.device_id), DeviceId(both.mallory.device_id)
            forbidden = {
                topics.up_topic(victim, Up.RECORDS): batch(1).canonical(),
                topics.up_topic(victim, Up.REPORTED): reported_state(9).canonical(),
                topics.up_topic(victim, Up.PRESENCE): b'{"schema":1,"online":false}',
                topics.up_topic(victim, Up.HELLO): b'{"schema":1,"tag":"x","generation":9}',
                topics.down_desired(victim): desired_state(99).canonical(),
                topics.down_acks(victim): b"{}",
                topics.down_desired(mallory): desired_state(99).canonical(),
                topics.down_acks(mallory): b"{}",
                "$CONTROL/dynamic-security/v1": b'{"commands":[{"command":"listClients"}]}',
                "elsewhere": b"x",
            }
            async with raw(context_of(both.mallory), address) as connection:
                for topic, payload in forbidden.items():
                    for retain in (False, True):
                        with pytest.raises(BrokerRefused, match=r"not authorized \(0x87\)"):
                            await connection.publish(topic, payload, retain=retain)
            await harness.link.report(reported_state(1))
            assert await harness.reports() == (reported_state(1),)
            assert not await harness.records()
            await harness.set_desired(desired_state(2))
            assert (await harness.link.next_desired(1)).generation == 2

    asyncio.run(scenario())


def test_a_will_on_anothers_topic_is_not_spoken(fleet: MqttFleet) -> None:
    async def scenario() -> None:
        async with MqttHarness(fleet) as harness:
            both = await pair(fleet, harness)
            await harness.link.next_desired(0)
            topic = topics.down_desired(DeviceId(both.victim.device_id))
            will = Will(topic=topic, payload=desired_state(99).canonical())
            async with raw(context_of(both.mallory), fleet.broker.address, will=will) as connection:
                await connection.close(with_will=True)
            await harness.set_desired(desired_state(2))
            assert (await harness.link.next_desired(1)).generation == 2

    asyncio.run(scenario())


def test_who_asks_for_anothers_name_keeps_its_own_and_pushes_nobody_off(
    fleet: MqttFleet, address: BrokerAddress
) -> None:
    async def scenario() -> None:
        async with MqttHarness(fleet) as harness:
            both = await pair(fleet, harness)
            victims, own = Mailbox(), Mailbox()
            async with (
                raw(context_of(both.victim), address, name=both.victim.device_id, mailbox=victims) as victim,
                raw(context_of(both.mallory), address, name=both.victim.device_id, mailbox=own) as impostor,
            ):
                with pytest.raises(BrokerRefused):
                    await impostor.subscribe(topics.all_of(DeviceId(both.victim.device_id), "down"))
                await victim.subscribe(topics.all_of(DeviceId(both.victim.device_id), "down"))
                assert not victim.ended.done()
                assert not impostor.ended.done()
                assert not own.messages

    asyncio.run(scenario())


def test_nobody_comes_without_a_client_certificate_of_the_fleet(fleet: MqttFleet, address: BrokerAddress) -> None:
    nobody = fleet.opened.fleet.tls()
    stranger = fleet.opened.fleet.tls()
    _show(stranger, TestCa(), fleet)
    server = fleet.opened.fleet.tls()
    server.load_cert_chain(fleet.broker.folder / "server.pem", fleet.broker.folder / "server.key")

    async def scenario() -> None:
        for context in (nobody, stranger, server):
            with pytest.raises(BrokerError) as refused:
                async with raw(context, address):
                    pass
            assert not isinstance(refused.value, BrokerRefused)  # it was not even heard

    asyncio.run(scenario())


def test_a_revoked_device_is_cut_off_and_does_not_come_back(fleet: MqttFleet, address: BrokerAddress) -> None:
    async def scenario() -> None:
        async with MqttHarness(fleet) as harness:
            both, before, after = await pair(fleet, harness), Mailbox(), Mailbox()
            own = DeviceId(both.mallory.device_id)
            mine, other = topics.all_of(own, "down"), topics.all_of(DeviceId(both.victim.device_id), "down")
            tls = context_of(both.mallory)
            async with raw(tls, address, session_expiry_s=600, mailbox=before) as connection:
                await connection.subscribe(mine)
                await _revoke(fleet, own)
                async with asyncio.timeout(5):
                    assert isinstance(await asyncio.shield(connection.ended), BrokerError)
            for _ in range(2):  # its certificate still opens the door; behind it there is nothing
                async with raw(context_of(both.mallory), address, session_expiry_s=600, mailbox=after) as connection:
                    for topic in (mine, other):
                        with pytest.raises(BrokerRefused):
                            await connection.subscribe(topic)
                    for topic in (topics.up_topic(own, Up.RECORDS), topics.down_desired(own)):
                        with pytest.raises(BrokerRefused):
                            await connection.publish(topic, b"x")
            assert not after.messages
            link = link_of(both.mallory, address)
            for call in (link.report(reported_state(1)), link.deliver(batch(1)), link.next_desired(0)):
                with pytest.raises(LinkError, match="not authorized"):
                    await call
            await link.aclose()
            assert (await harness.link.next_desired(0)).generation == 1  # the others notice nothing

    asyncio.run(scenario())


def test_a_device_that_was_revoked_while_the_fleet_was_away_is_kept_out_when_it_is_back(fleet: MqttFleet) -> None:
    """Roles are compared at each connection of the fleet, in both directions."""

    async def scenario() -> None:
        async with MqttHarness(fleet) as harness:
            both = await pair(fleet, harness)
            await asyncio.to_thread(fleet.broker.stop)
            await _revoke(fleet, DeviceId(both.mallory.device_id))
            late = await asyncio.to_thread(fleet.opened.fleet.enrol, f"late-{next(_count)}")
            await asyncio.to_thread(fleet.broker.start)
            newcomer, revoked = link_of(late, fleet.broker.address), link_of(both.mallory, fleet.broker.address)
            await let_in(newcomer)
            await newcomer.report(reported_state(1))
            with pytest.raises(LinkError, match="not authorized"):
                await revoked.report(reported_state(1))
            for link in (newcomer, revoked):
                await link.aclose()

    asyncio.run(scenario())


def test_a_role_that_was_widened_at_the_broker_is_narrowed_when_the_fleet_comes(fleet: MqttFleet) -> None:
    """By somebody, or by an earlier version of the fleet."""

    async def scenario() -> None:
        async with MqttHarness(fleet) as harness:
            both = await pair(fleet, harness)
            await asyncio.to_thread(fleet.broker.stop)
            file = fleet.broker.folder / "dynamic-security.json"
            config = json.loads(file.read_text())
            (role,) = (each for each in config["roles"] if each["rolename"] == f"device:{both.mallory.device_id}")
            role["acls"].append({"acltype": "subscribePattern", "topic": "#", "priority": 0, "allow": True})
            file.write_text(json.dumps(config))
            await asyncio.to_thread(fleet.broker.start)
            link = link_of(both.mallory, fleet.broker.address)
            await persistently(lambda: link.report(reported_state(1)))  # so the fleet has been there
            await link.aclose()
            async with raw(context_of(both.mallory), fleet.broker.address) as connection:
                with pytest.raises(BrokerRefused):
                    await connection.subscribe(topics.all_of(DeviceId(both.victim.device_id), "down"))

    asyncio.run(scenario())


async def _revoke(fleet: MqttFleet, device: DeviceId) -> None:
    admin = fleet.opened.fleet.client(Role.ADMIN)
    answer = await asyncio.to_thread(admin.post, f"/devices/{device}/revoke", json={"reason": "stolen"})
    assert answer.status_code == 200, answer.text


def _show(context: ssl.SSLContext, ca: TestCa, fleet: MqttFleet) -> None:
    """A certificate that says the right name and that the fleet has not signed."""
    identity = ca.enrolled(fleet.broker.folder / "stranger", "https://localhost:1", device="bed-1")
    context.load_cert_chain(identity.certificate_file, identity.key_file)
