"""What goes wrong between a device, a real broker and the fleet, and that it costs nothing but time."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from edgeward_agent.errors import LinkError, LinkLost, LinkRefused
from edgeward_agent.identity import tls
from edgeward_agent.link.https import HttpsLink
from edgeward_agent.link.mqtt import MqttLink
from edgeward_agent.link.opening import LargeOverHttps
from edgeward_agent.link.wire import CertificateNotTaken, FleetNotTrusted, Wire
from edgeward_agent.ports import Link
from edgeward_contract import topics
from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.broker import MAX_PAYLOAD_BYTES, BrokerError, PacketTooLarge
from edgeward_contract.mqtt.documents import Answer, Up
from edgeward_contract.record import Batch, VerdictStatus
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.link.mqtt_identity import client_context
from support.fleet import make_settings, running_fleet
from support.link import batch, desired_state, record, reported_state
from support.link_fleet import context_of
from support.link_mqtt import Mailbox, MqttFleet, MqttHarness, link_of, open_mqtt_fleet, persistently, raw
from support.mosquitto import broker
from support.pki import TestCa
from support.waiting import eventually, until

SOON_S = 5.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttFleet]:
    with open_mqtt_fleet(tmp_path_factory.mktemp("fleet")) as opened:
        yield opened


def play(fleet: MqttFleet, scenario: Callable[[MqttHarness], Awaitable[None]]) -> None:
    async def act() -> None:
        async with asyncio.timeout(60), MqttHarness(fleet) as harness:
            await scenario(harness)

    asyncio.run(act())


def test_a_broker_that_is_killed_loses_no_record(fleet: MqttFleet) -> None:
    async def scenario(harness: MqttHarness) -> None:
        delivered = 0

        async def send_all() -> int:
            nonlocal delivered
            failures = 0
            for number in range(1, 61):
                failures += await until_delivered(harness.link, batch(number, batch_id=f"b-{number}"))
                delivered = number
            return failures

        sending = asyncio.create_task(send_all())
        for _ in range(2):
            enough = delivered + 5
            await eventually(lambda enough=enough: delivered >= enough, "some records")  # type: ignore[misc]
            fleet.broker.kill()
            fleet.broker.forget()
            await asyncio.to_thread(fleet.broker.start)
        assert await sending > 0
        assert sorted(await harness.records()) == [("e1", number) for number in range(1, 61)]

    play(fleet, scenario)


def test_a_killed_broker_cuts_the_call_that_waits_and_the_newest_state_comes_after_it(fleet: MqttFleet) -> None:
    async def scenario(harness: MqttHarness) -> None:
        await harness.set_desired(desired_state(3))
        assert (await harness.link.next_desired(0)).generation == 3
        waiting = asyncio.create_task(harness.link.next_desired(3))
        await asyncio.wait((waiting,), timeout=0.3)
        fleet.broker.kill()
        with pytest.raises(LinkLost):
            await asyncio.wait_for(waiting, SOON_S)
        fleet.broker.forget()
        await harness.set_desired(desired_state(4))
        await asyncio.to_thread(fleet.broker.start)
        assert (await persistently(lambda: harness.link.next_desired(3))).generation == 4

    play(fleet, scenario)


def test_a_lost_retained_state_comes_from_the_database_when_the_device_says_hello(fleet: MqttFleet) -> None:
    async def scenario(harness: MqttHarness) -> None:
        await harness.set_desired(desired_state(7))
        assert (await harness.link.next_desired(0)).generation == 7
        fleet.broker.kill()
        fleet.broker.forget()
        await asyncio.to_thread(fleet.broker.start)
        reinstalled = link_of(harness.device, fleet.broker.address)  # knows nothing any more
        assert (await persistently(lambda: reinstalled.next_desired(0))).generation == 7
        await reinstalled.aclose()

    play(fleet, scenario)


def test_a_device_from_after_a_restored_backup_is_served_again(fleet: MqttFleet) -> None:
    """It has seen a later generation than the fleet knows; it would wait for ever."""

    async def scenario(harness: MqttHarness) -> None:
        await harness.set_desired(desired_state(5))
        desired = await asyncio.wait_for(harness.link.next_desired(9), SOON_S)
        assert desired.generation == 10
        assert desired.models == desired_state(5).models

    play(fleet, scenario)


def test_a_device_that_stayed_at_the_broker_while_a_backup_was_restored_is_served_again(fleet: MqttFleet) -> None:
    """It says hello no more, and took what the fleet then wanted for older than what it had."""

    async def scenario(harness: MqttHarness) -> None:
        await harness.set_desired(desired_state(5))
        assert (await harness.link.next_desired(0)).generation == 5
        waiting = asyncio.create_task(harness.link.next_desired(5))
        await asyncio.sleep(0)
        await harness.link.report(reported_state(1, generation=5))  # answered after the hello before it
        await harness.restore(desired_state(2))
        await harness.set_desired(desired_state(3))
        await harness.link.report(reported_state(2, generation=5))
        desired = await asyncio.wait_for(waiting, SOON_S)
        assert desired.generation == 6
        assert desired.models == desired_state(3).models

    play(fleet, scenario)


def test_older_generations_are_not_heard_and_what_cannot_be_read_is_told(fleet: MqttFleet) -> None:
    """A broker may bring back what it had retained before it crashed; a fleet may be newer than its devices."""

    async def scenario(harness: MqttHarness) -> None:
        await harness.set_desired(desired_state(6))
        assert (await harness.link.next_desired(0)).generation == 6
        topic = topics.down_desired(DeviceId(harness.device.device_id))
        services = fleet.opened.services
        tls_of_fleet = client_context(services.authority, fleet.broker.folder, services.clock())
        waiting = asyncio.create_task(harness.link.next_desired(6))
        await asyncio.sleep(0)
        await harness.link.report(reported_state(1))  # answered after the hello before it
        async with raw(tls_of_fleet, fleet.broker.address) as connection:  # pushes the fleet off for a moment
            for stale in (b"", desired_state(2).canonical(), b"{}", b"\xff"):
                await connection.publish(topic, stale, retain=True)
        with pytest.raises(LinkRefused, match="desired state: .*expected"):
            await asyncio.wait_for(waiting, SOON_S)
        assert (await harness.link.next_desired(0)).generation == 6
        again = link_of(harness.device, fleet.broker.address)
        assert (await persistently(lambda: again.next_desired(5))).generation == 6
        await again.aclose()

    play(fleet, scenario)


def test_messages_that_come_twice_and_in_another_order_change_nothing(fleet: MqttFleet) -> None:
    async def scenario(harness: MqttHarness) -> None:
        device, mailbox = DeviceId(harness.device.device_id), Mailbox()
        await harness.link.aclose()
        up, later, earlier = topics.up_topic, reported_state(2), reported_state(1)
        async with raw(context_of(harness.device), fleet.broker.address, mailbox=mailbox) as connection:
            await connection.subscribe(topics.all_of(device, "down"))
            for number in (2, 1, 2, 1):
                await connection.publish(up(device, Up.RECORDS), batch(number, batch_id=f"b-{number}").canonical())
            for reported in (later, earlier, later):
                await connection.publish(up(device, Up.REPORTED), reported.canonical())
            answers = await answers_of(mailbox, device, 7)
        verdicts = [
            (each.tag, each.acknowledgement.verdicts[0].status) for each in answers if each.acknowledgement is not None
        ]
        accepted, duplicate = VerdictStatus.ACCEPTED, VerdictStatus.DUPLICATE
        assert sorted(verdicts) == [("b-1", accepted), ("b-1", duplicate), ("b-2", accepted), ("b-2", duplicate)]
        assert {each.status for each in answers} == {200}
        assert sorted(await harness.records()) == [("e1", 1), ("e1", 2)]
        assert await harness.reports() == (later,)

    play(fleet, scenario)


def test_what_cannot_be_read_is_refused_by_name_and_blocks_nothing(fleet: MqttFleet) -> None:
    async def scenario(harness: MqttHarness) -> None:
        device, mailbox = DeviceId(harness.device.device_id), Mailbox()
        broken = batch(1, 2, batch_id="b-9").canonical().replace(b'"sequence":2', b'"sequence":3')
        async with raw(context_of(harness.device), fleet.broker.address, mailbox=mailbox) as connection:
            await connection.subscribe(topics.all_of(device, "down"))
            for what in Up:
                for payload in (b"", b"\xff\x00", b"[]", b"{}"):
                    await connection.publish(topics.up_topic(device, what), payload)
            await connection.publish(topics.up_topic(device, Up.RECORDS), broken)
            (answer,) = await answers_of(mailbox, device, 1)
        assert (answer.tag, answer.status) == ("b-9", 400)
        assert "records[1].sha256: expected the digest of the record" in answer.detail
        assert (await harness.link.deliver(batch(1))).verdicts[0].status is VerdictStatus.ACCEPTED

    play(fleet, scenario)


def test_a_batch_above_the_limit_is_not_even_sent(fleet: MqttFleet) -> None:
    async def scenario(harness: MqttHarness) -> None:
        with pytest.raises(LinkRefused, match="expected at most 131072 bytes, got") as refused:
            await harness.link.deliver(batch(1, 2, padding_bytes=MAX_PAYLOAD_BYTES // 2))
        assert refused.value.status == 413

    play(fleet, scenario)


def test_what_the_broker_finds_too_large_is_told_apart(fleet: MqttFleet) -> None:
    async def scenario(harness: MqttHarness) -> None:
        topic = topics.up_topic(DeviceId(harness.device.device_id), Up.RECORDS)
        async with raw(context_of(harness.device), fleet.broker.address) as connection:
            assert connection.room(topic, 1 << 20) == 135_168 - len(topic) - 64
            assert connection.room(topic, 1000) == 1000
            with pytest.raises(PacketTooLarge, match=r"packet too large \(0x95\)"):
                await connection.publish(topic, b"x" * (MAX_PAYLOAD_BYTES + 1))
        async with raw(context_of(harness.device), fleet.broker.address) as connection:
            with pytest.raises(BrokerError):  # above what it told at the beginning it hangs up while we write
                await connection.publish(topic, b"x" * 200_000)

    play(fleet, scenario)


def test_one_record_that_no_broker_carries_goes_over_https(fleet: MqttFleet) -> None:
    async def scenario(harness: MqttHarness) -> None:
        wire = Wire(harness.device.device_url, context_of(harness.device), timeout_s=10)
        link = LargeOverHttps(harness.link, HttpsLink(wire, park_s=1))
        large = record(1, padding_bytes=200_000)
        with pytest.raises(LinkRefused):  # several are halved first
            await link.deliver(Batch(batch_id="b-1", records=(large, record(2))))
        await link.deliver(Batch(batch_id="b-2", records=(large,)))
        await link.deliver(Batch(batch_id="b-3", records=(record(2),)))
        assert sorted(await harness.records()) == [("e1", 1), ("e1", 2)]
        await link.aclose()

    play(fleet, scenario)


def test_a_broker_of_another_ca_is_not_trusted(fleet: MqttFleet, tmp_path: Path) -> None:
    async def scenario(harness: MqttHarness) -> None:
        other = tmp_path / "other-ca.pem"
        other.write_bytes(TestCa(name="somebody else's").pem)

        def distrusting() -> ssl.SSLContext:
            device = harness.device
            return tls.mutual_of(other, device.certificate_file, device.key_file)

        link = MqttLink(fleet.broker.address, DeviceId(harness.device.device_id), distrusting, timeout_s=5)
        for _ in range(2):
            with pytest.raises(FleetNotTrusted, match="broker at localhost:"):
                await asyncio.wait_for(link.report(reported_state(1)), SOON_S)
        await link.aclose()

    play(fleet, scenario)


def test_a_certificate_that_the_broker_refuses_is_told_each_time_and_a_new_one_is_taken(
    fleet: MqttFleet, tmp_path: Path
) -> None:
    """TLS 1.3 tells after the handshake, which is when paho 1.6.1's own thread dies of it."""

    async def scenario(harness: MqttHarness) -> None:
        device = harness.device
        stranger = TestCa(name="somebody else's").enrolled(tmp_path / "identity", "https://localhost:1")
        shown = [stranger.certificate_file, stranger.key_file]

        def context() -> ssl.SSLContext:
            made = tls.mutual_of(device.ca_file, *shown)
            made.minimum_version = ssl.TLSVersion.TLSv1_3
            return made

        link = MqttLink(fleet.broker.address, DeviceId(device.device_id), context, timeout_s=5)
        for _ in range(3):
            with pytest.raises(CertificateNotTaken, match="refused the TLS connection"):
                await asyncio.wait_for(link.report(reported_state(1)), SOON_S)
        shown[:] = [device.certificate_file, device.key_file]
        await link.report(reported_state(1))
        await link.aclose()

    play(fleet, scenario)


def test_the_fleet_knows_who_is_connected_and_who_was_cut_off(fleet: MqttFleet) -> None:
    async def scenario(harness: MqttHarness) -> None:
        await harness.link.report(reported_state(1))
        await said_of(harness, ["connected", "enrolled"])
        await harness.go_offline()  # without a word: the broker speaks the will
        await said_of(harness, ["disconnected", "connected", "enrolled"])
        await harness.come_back()
        await harness.link.report(reported_state(2))
        await said_of(harness, ["connected", "disconnected", "connected", "enrolled"])
        await harness.link.aclose()
        await said_of(harness, ["disconnected", "connected", "disconnected", "connected", "enrolled"])

    async def said_of(harness: MqttHarness, kinds: list[str]) -> None:
        """The life of the device, newest first."""
        viewer, path = fleet.opened.fleet.client(Role.VIEWER), f"/devices/{harness.device.device_id}"

        def is_told() -> bool:
            events = viewer.get(path).json()["events"]
            return [each["kind"] for each in events if each["kind"] not in ("update", "live", "alarms")] == kinds

        await asyncio.to_thread(until, is_told, f"{kinds} of the device", within_s=10)

    play(fleet, scenario)


def test_a_fleet_that_is_down_acknowledges_nothing_and_nothing_is_lost(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    with broker(tmp_path / "broker", settings) as running:
        with running_fleet(tmp_path, mqtt_broker=running.address) as up:
            device = up.enrol("bed-1")
            link = link_of(device, running.address)
            asyncio.run(_deliver_and_close(link, 1))

        async def nobody_there() -> None:
            alone = link_of(device, running.address)
            for call in (alone.deliver(batch(2)), alone.report(reported_state(1)), alone.next_desired(0)):
                with pytest.raises(LinkLost, match="nobody listens"):
                    await asyncio.wait_for(call, SOON_S)
            await alone.aclose()

        asyncio.run(nobody_there())
        with running_fleet(tmp_path, mqtt_broker=running.address) as up:
            asyncio.run(_deliver_and_close(link_of(device, running.address), 2))
            assert up.client(Role.VIEWER).get("/records/count?device=bed-1").json()["count"] == 2


async def until_delivered(link: Link, wanted: Batch) -> int:
    """As the forwarder does it, with less patience; how often it failed before."""
    failures = 0
    while True:
        try:
            acknowledgement = await link.deliver(wanted)
        except LinkError:
            failures += 1
            await asyncio.sleep(0.05)
            continue
        assert {each.status for each in acknowledgement.verdicts} <= {VerdictStatus.ACCEPTED, VerdictStatus.DUPLICATE}
        return failures


async def answers_of(mailbox: Mailbox, device: DeviceId, count: int) -> list[Answer]:
    def found() -> list[Answer]:
        return [Answer.parse(payload) for topic, payload in mailbox.messages if topic == topics.down_acks(device)]

    await eventually(lambda: len(found()) >= count, f"{count} answers")
    return found()


async def _deliver_and_close(link: MqttLink, number: int) -> None:
    async with asyncio.timeout(20):
        assert (await persistently(lambda: link.deliver(batch(number)))).batch_id == "b1"
    await link.aclose()
