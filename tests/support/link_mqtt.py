"""The MQTT link through a real mosquitto to the real fleet, with a proxy before the broker that cuts connections."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from unittest import mock

from edgeward_agent.errors import LinkError, LinkRefused
from edgeward_agent.link.mqtt import MqttLink
from edgeward_agent.ports import Link
from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.broker import MAX_PAYLOAD_BYTES, BrokerAddress, Options, Will
from edgeward_contract.mqtt.connection import Connection
from edgeward_contract.mqtt.documents import Answer, Up
from edgeward_fleet.errors import TooMany
from edgeward_fleet.link.mqtt_inbox import Inbox
from support.fleet import EnrolledDevice, make_settings
from support.link_fleet import FleetHarness, OpenFleet, context_of, open_fleet
from support.mosquitto import Mosquitto, broker

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MqttFleet:
    """A running fleet and the broker that it uses."""

    opened: OpenFleet
    broker: Mosquitto


@contextmanager
def open_mqtt_fleet(folder: Path) -> Iterator[MqttFleet]:
    """Skips the test when there is no mosquitto."""
    with (
        broker(folder / "broker", make_settings(folder)) as running,
        open_fleet(folder, mqtt_broker=running.address) as opened,
    ):
        yield MqttFleet(opened, running)


class MqttHarness(FleetHarness):
    """See `support.link.LinkHarness`. A device of its own for each."""

    limit_bytes = MAX_PAYLOAD_BYTES

    def __init__(self, fleet: MqttFleet, *, websockets: bool = False) -> None:
        super().__init__(fleet.opened)
        self._address = fleet.broker.websocket_address if websockets else fleet.broker.address
        self._patches = ExitStack()

    async def __aexit__(self, *_: object) -> None:
        self._patches.close()
        await super().__aexit__()

    def _target(self, device: EnrolledDevice) -> tuple[str, int]:
        return "127.0.0.1", self._address.port

    async def _open(self, device: EnrolledDevice, port: int) -> Link:
        link = link_of(device, replace(self._address, port=port), timeout_s=3)
        await let_in(link)
        return link

    async def come_back(self) -> None:
        self._patches.close()
        await super().come_back()

    async def lose_next_answer(self) -> None:
        """The fleet takes the message, and what it says is not published."""
        answer = Inbox.answer
        lost: list[Answer | None] = []

        async def once(inbox: Inbox, device: DeviceId, what: Up, payload: bytes) -> Answer | None:
            made = await answer(inbox, device, what, payload)
            if device != self._device or lost:
                return made
            lost.append(made)
            return None

        self._patches.enter_context(mock.patch.object(Inbox, "answer", once))

    async def answer_later(self, retry_after_s: float) -> None:
        async def later(_inbox: Inbox, _device: DeviceId, _what: Up, _payload: bytes) -> None:
            raise TooMany("busy", retry_after_s=int(retry_after_s))

        self._patches.enter_context(mock.patch.object(Inbox, "_take", later))


def link_of(device: EnrolledDevice, address: BrokerAddress, *, timeout_s: float = 10) -> MqttLink:
    return MqttLink(address, DeviceId(device.device_id), lambda: context_of(device), timeout_s=timeout_s)


async def let_in(link: Link) -> None:
    """A device that has just enrolled may be at the broker before its role is; it tries again."""
    while True:
        try:
            await link.next_desired(-1)
        except LinkRefused:
            await asyncio.sleep(0.02)
        else:
            return


async def persistently(call: Callable[[], Awaitable[T]]) -> T:
    """Try again while the link is lost or refused, as every caller of it does."""
    while True:
        try:
            return await call()
        except LinkError:
            await asyncio.sleep(0.05)


class Mailbox:
    """What a raw connection has heard."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []

    def __call__(self, topic: str, payload: bytes, _retained: bool) -> None:
        self.messages.append((topic, payload))

    @property
    def topics(self) -> set[str]:
        return {topic for topic, _ in self.messages}


@asynccontextmanager
async def raw(
    tls: ssl.SSLContext,
    address: BrokerAddress,
    *,
    name: str = "whatever",
    will: Will | None = None,
    session_expiry_s: int = 0,
    mailbox: Mailbox | None = None,
) -> AsyncIterator[Connection]:
    """A connection to the broker that may try anything."""
    options = Options(client_id=name, session_expiry_s=session_expiry_s, timeout_s=5, will=will)
    connection = await Connection.open(address, tls, options, mailbox or Mailbox())
    try:
        yield connection
    finally:
        await connection.close()
