"""Tokens for certificates, for a thousand devices: a key and a signing request each, as an agent does it."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.fleet.device import Device, Pace
from benchmarks.fleet.wire import LoopWire, Tally
from edgeward_agent.identity import tls
from edgeward_agent.identity.keys import key_pem, new_key, signing_request
from edgeward_agent.link.https import HttpsLink
from edgeward_agent.link.mqtt import MqttLink
from edgeward_agent.link.opening import LargeOverHttps
from edgeward_agent.link.wire import Call
from edgeward_agent.ports import Link
from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.broker import BrokerAddress
from edgeward_contract.schema import Fields, canonical_json, parse_json
from edgeward_contract.topics import ENROL
from edgeward_fleet.cli.client import Client

SITES: Final = ("north", "south", "harbour", "hill")
TIMEOUT_S: Final = 60.0  # for one answer; more than the agent's 20 s, so that a slow fleet shows as slow
_AT_ONCE: Final = 16
_ANSWER_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Hall:
    """Where devices are made: `folder` takes their keys, `at_work` is set while bedside applications ask."""

    operator: Client
    folder: Path
    ca_pem: str
    pace: Pace
    tally: Tally
    at_work: asyncio.Event
    broker: BrokerAddress | None = None


async def enrolled(hall: Hall, count: int) -> list[Device]:
    """Raises CommandFailed, LinkLost or LinkRefused: with a device missing every other figure would be too good."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> Device:
        async with room:
            return await _enrol(hall, number)

    return await asyncio.gather(*(one(number) for number in range(count)))


async def _enrol(hall: Hall, number: int) -> Device:
    name = f"device-{number + 1:04}"
    asked = {"site": SITES[number % len(SITES)], "device_id": name}
    token = await asyncio.to_thread(hall.operator.post, "/device-tokens", {**asked})
    key = new_key()
    given = await _exchange(hall, token, signing_request(key, name).decode())
    files = [hall.folder / f"{name}.{kind}" for kind in ("ca", "crt", "key")]
    texts = (given.text("ca_pem", max_length=_ANSWER_BYTES), given.text("certificate_pem", max_length=_ANSWER_BYTES))
    for file, data in zip(files, (*(text.encode() for text in texts), key_pem(key)), strict=True):
        file.write_bytes(data)
    context = tls.mutual_of(*files)
    wire = LoopWire(given.text("device_url"), context, timeout_s=TIMEOUT_S, tally=hall.tally)
    return Device(name, wire, hall.pace, hall.at_work, partial(_connect, hall, DeviceId(name), wire, context))


def _connect(hall: Hall, name: DeviceId, wire: LoopWire, context: ssl.SSLContext) -> Link:
    """As `link.opening` does on a device."""
    https = HttpsLink(wire, park_s=hall.pace.park_s)
    if hall.broker is None:
        return https
    return LargeOverHttps(MqttLink(hall.broker, name, lambda: context, timeout_s=TIMEOUT_S), https)


async def _exchange(hall: Hall, token: Fields, csr_pem: str) -> Fields:
    context = tls.server_only(hall.ca_pem.encode())
    wire = LoopWire(token.text("enrolment_url"), context, timeout_s=TIMEOUT_S, tally=hall.tally)
    try:
        body = canonical_json({"token": token.text("token"), "csr_pem": csr_pem})
        answer = await wire.request(Call(method="POST", path=ENROL, body=body, limit_bytes=_ANSWER_BYTES))
    finally:
        wire.close()
    return parse_json(answer.body)
