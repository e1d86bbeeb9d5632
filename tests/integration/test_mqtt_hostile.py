"""An enrolled device that floods or babbles, and a broker that is none: the others and the fleet go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock

import pytest

from edgeward_agent.errors import LinkLost, LinkRefused
from edgeward_contract import topics
from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt import connection as mqtt_connection
from edgeward_contract.mqtt.broker import BrokerRefused
from edgeward_contract.mqtt.connection import Connection
from edgeward_contract.mqtt.documents import Up
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.link import mqtt_lanes
from support.fleet import EnrolledDevice
from support.link import batch, reported_state
from support.link_fleet import context_of
from support.link_mqtt import MqttFleet, let_in, link_of, open_mqtt_fleet, raw
from support.odd_broker import WELCOME, OddBroker

SOON_S = 5.0
FULL = batch(*range(1, 200), padding_bytes=300).canonical()  # nearly as large as a broker carries


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttFleet]:
    with open_mqtt_fleet(tmp_path_factory.mktemp("fleet")) as opened:
        yield opened


_count = iter(range(1000))


async def newcomer(fleet: MqttFleet) -> EnrolledDevice:
    device = await asyncio.to_thread(fleet.opened.fleet.enrol, f"bed-{next(_count)}")
    link = link_of(device, fleet.broker.address)
    await let_in(link)
    await link.aclose()
    return device


@asynccontextmanager
async def flooding(fleet: MqttFleet, device: EnrolledDevice, payload: bytes) -> AsyncIterator[Connection]:
    """Publish as fast as the broker takes it, until the connection ends."""
    topic = topics.up_topic(DeviceId(device.device_id), Up.RECORDS)

    async def pump(connection: Connection) -> None:
        while True:
            await connection.publish(topic, payload)

    async with raw(context_of(device), fleet.broker.address) as connection:
        pumps = [asyncio.create_task(pump(connection)) for _ in range(20)]
        try:
            yield connection
        finally:
            for each in pumps:
                each.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


@pytest.mark.parametrize("payload", [FULL, b"babble"], ids=["full batches", "what nobody can read"])
def test_a_device_that_floods_is_kept_out_for_a_while_and_the_others_notice_nothing(
    fleet: MqttFleet, payload: bytes
) -> None:
    async def scenario() -> None:
        loud, *others = [await newcomer(fleet) for _ in range(5)]
        links = [link_of(each, fleet.broker.address) for each in others]
        async with flooding(fleet, loud, payload) as connection:
            slowest_s = 0.0
            for sequence in range(1, 1000):
                began = time.monotonic()
                await asyncio.gather(*(link.report(reported_state(sequence)) for link in links))
                slowest_s = max(slowest_s, time.monotonic() - began)
                if connection.ended.done():
                    break
            assert connection.ended.done()
            assert slowest_s < SOON_S
        own = DeviceId(loud.device_id)
        async with raw(context_of(loud), fleet.broker.address) as connection:
            with pytest.raises(BrokerRefused):
                await connection.publish(topics.up_topic(own, Up.RECORDS), payload)
        back = link_of(loud, fleet.broker.address)
        await let_in(back)
        await back.report(reported_state(1))
        for link in (back, *links):
            await link.aclose()

    with mock.patch.object(mqtt_lanes, "SHORTEST_OUT_S", 2.0):
        asyncio.run(scenario())


def test_a_flood_does_not_delay_its_own_revocation(fleet: MqttFleet) -> None:
    async def scenario() -> None:
        loud = await newcomer(fleet)
        async with flooding(fleet, loud, FULL) as connection:
            path = f"/devices/{loud.device_id}/revoke"
            answer = await asyncio.to_thread(fleet.opened.fleet.client(Role.ADMIN).post, path)
            assert answer.status_code == 200, answer.text
            async with asyncio.timeout(SOON_S):
                await asyncio.shield(connection.ended)
            async with raw(context_of(loud), fleet.broker.address) as again:
                with pytest.raises(BrokerRefused):
                    await again.publish(topics.up_topic(DeviceId(loud.device_id), Up.RECORDS), FULL)

    with mock.patch.object(mqtt_lanes, "MAX_STRIKES", 1 << 30):  # nothing but the revocation cuts it
        asyncio.run(scenario())


def test_a_device_cannot_fill_the_broker_with_names(fleet: MqttFleet) -> None:
    """Each retained message and each subscription costs the broker memory for as long as it likes."""

    async def scenario() -> None:
        device = await newcomer(fleet)
        own = DeviceId(device.device_id)
        async with raw(context_of(device), fleet.broker.address) as connection:
            for what in ("other", "records/1", "records/"):
                with pytest.raises(BrokerRefused):
                    await connection.publish(topics.up_topic(own, what), b"x", retain=True)
            for pattern in ("down/acks", "down/other", "down/+", "down/+/#"):
                with pytest.raises(BrokerRefused):
                    await connection.subscribe(f"{topics.MQTT_ROOT}/{own}/{pattern}")
            for number in range(3):
                with pytest.raises(BrokerRefused):
                    await connection.subscribe(f"$share/g{number}/{topics.all_of(own, 'down')}")

    asyncio.run(scenario())


# -- a broker that is none


def test_a_broker_that_stops_acknowledging_is_left_and_tried_anew(tmp_path: Path) -> None:
    """It answers pings, so nothing below would ever call the connection dead."""

    async def scenario() -> None:
        async with OddBroker(tmp_path) as broker:
            broker.acknowledges = 1  # the device's presence
            link = broker.link(timeout_s=0.5)
            with pytest.raises(LinkLost, match="none in time"):
                await asyncio.wait_for(link.report(reported_state(1)), SOON_S)
            # The call and the connection wait equally long: either may be the first to end, and say so in its words.
            with pytest.raises(LinkLost, match=r"broker at localhost:\d+: expected an answer, got:? none in time"):
                await asyncio.wait_for(link.report(reported_state(2)), SOON_S)
            broker.acknowledges = 1
            async with asyncio.timeout(SOON_S):
                while broker.connections < 2:
                    with pytest.raises(LinkLost):
                        await link.report(reported_state(3))
            assert broker.connections >= 2  # a busy machine may need another
            await link.aclose()

    with mock.patch.object(mqtt_connection, "_TICK_S", 0.05):
        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"", "none in time"),
        (bytes.fromhex("2003008700"), r"not authorized \(0x87\)"),
        (bytes.fromhex("200300a700"), r"a cut connection|noise \(.*167"),
        (bytes.fromhex("20020000"), "expected an answer"),  # of MQTT 3.1.1
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "expected an answer"),
        (WELCOME + b"\xff" * 100, "expected an answer"),
        (WELCOME + bytes.fromhex("30ffffff7f"), "none in time|expected an answer"),  # 256 MiB are on their way
    ],
    ids=["nothing", "no", "no for reasons of its own", "an older one", "a web server", "noise", "a boast"],
)
def test_whatever_a_broker_says_to_a_greeting_is_a_failed_call_and_no_more(
    tmp_path: Path, greeting: bytes, words: str
) -> None:
    async def scenario() -> None:
        async with OddBroker(tmp_path) as broker:
            broker.greeting, broker.acknowledges = greeting, 0
            link = broker.link(timeout_s=0.3)
            for _ in range(2):
                with pytest.raises((LinkLost, LinkRefused), match=words):
                    await asyncio.wait_for(link.report(reported_state(1)), SOON_S)
            await link.aclose()

    asyncio.run(scenario())
