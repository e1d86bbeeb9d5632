"""A broker that does what none should: as much of MQTT 5 as it takes to fail a client in every way.

async with OddBroker(folder) as broker:
    broker.acknowledges = 1  # and is silent from then on
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from edgeward_agent.identity import tls
from edgeward_agent.link.mqtt import MqttLink
from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.broker import BrokerAddress
from support.pki import TestCa

CONNECT, PUBLISH, SUBSCRIBE, PINGREQ = 1, 3, 8, 12
WELCOME: Final = bytes.fromhex("2003000000")  # CONNACK, success, no properties
_PONG: Final = bytes.fromhex("d000")


class OddBroker:
    """`greeting` is what it says to CONNECT. Of all PUBLISH it acknowledges so many, and pings it always answers."""

    def __init__(self, folder: Path) -> None:
        self.greeting = WELCOME
        self.acknowledges = 1 << 30
        self.connections = 0
        self._ca = TestCa()
        self._identity = self._ca.enrolled(folder / "identity", "https://localhost:1")
        self._context = self._ca.server_context(folder, mutual=True)
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    def link(self, *, timeout_s: float) -> MqttLink:
        """Of a device with a certificate that this broker takes."""
        port = self._server.sockets[0].getsockname()[1]
        address = BrokerAddress(host="localhost", port=port)
        return MqttLink(address, DeviceId("ward-3"), lambda: tls.mutual(self._identity), timeout_s=timeout_s)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        answers: dict[int, Callable[[bytes], bytes]] = {
            CONNECT: lambda _: self.greeting,
            SUBSCRIBE: lambda body: bytes((0x90, 4, *body[:2], 0, 1)),  # of one topic: QoS 1
            PUBLISH: self._acknowledged,
            PINGREQ: lambda _: _PONG,
        }
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, body = await _packet(reader)
                writer.write(answers[kind](body) if kind in answers else b"")
                await writer.drain()

    def _acknowledged(self, body: bytes) -> bytes:
        if self.acknowledges <= 0:
            return b""
        self.acknowledges -= 1
        length = int.from_bytes(body[:2])
        return bytes((0x40, 2, *body[2 + length : 4 + length]))


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    first, length, shift = (await reader.readexactly(1))[0], 0, 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return first >> 4, await reader.readexactly(length)
