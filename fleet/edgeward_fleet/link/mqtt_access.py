"""Who may do what at the broker: mosquitto's dynamic-security plugin, told by the fleet through its control topic.

One role per device, and nothing besides: with the plugin *and* a pattern ACL file one device read another's retained
desired state (seen on 2.0.11). To revoke is to take the role away first and to disconnect then, because with its
certificate a device comes back in whatever the plugin thinks of its name; without a role it can do nothing there.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterable, Sequence
from typing import Final

from edgeward_contract import topics
from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.broker import BrokerLost
from edgeward_contract.mqtt.connection import Connection
from edgeward_contract.mqtt.documents import Up
from edgeward_contract.schema import ContractError, Fields, JsonValue, canonical_json, parse_json

FLEET_NAME: Final = "Edgeward-Fleet"
"""The fleet's own name at the broker. No device can have it: device ids have no capital letters."""

CONTROL: Final = "$CONTROL/dynamic-security/v1"
RESPONSES: Final = f"{CONTROL}/response"
_FLEET_ROLE: Final = "fleet"
_ROLE_PREFIX: Final = "device:"
_PAGE: Final = 500
_BATCH: Final = 40  # commands in one message; the plugin rewrites its whole file for each command anyway
_TIMEOUT_S: Final = 60.0
_HARMLESS: Final = ("already exists", "not found")  # done before; a broker may crash between file and answer

Command = dict[str, JsonValue]


def grant(device: DeviceId) -> tuple[Command, ...]:
    """Commands after which the device may use its own topics."""
    return (
        {"command": "createRole", **_device_role(device)},
        {"command": "createClient", **_device_client(device)},
    )


def revoke(device: DeviceId) -> tuple[Command, ...]:
    """Commands after which the device may do nothing and is disconnected.

    In this order: to delete a role that a client still has crashes mosquitto 2.0.11 at the client's own deletion.
    """
    return (
        {"command": "removeClientRole", "username": device, "rolename": _role(device)},
        {"command": "deleteClient", "username": device},
        {"command": "deleteRole", "rolename": _role(device)},
    )


def initial_config(devices: Iterable[DeviceId]) -> bytes:
    """The plugin's file for a new broker: the fleet may do everything it needs, each device what is its own."""
    known = sorted(devices)
    fleet: JsonValue = {"username": FLEET_NAME, "textname": "the fleet", "roles": [{"rolename": _FLEET_ROLE}]}
    clients: list[JsonValue] = [fleet, *(_device_client(each) for each in known)]
    roles: list[JsonValue] = [_fleet_role(), *(_device_role(each) for each in known)]
    nothing = {"publishClientSend": False, "publishClientReceive": False, "subscribe": False, "unsubscribe": True}
    document = {"defaultACLAccess": nothing, "clients": clients, "groups": [], "roles": roles}
    return json.dumps(document, indent=1).encode() + b"\n"


class BrokerAccess:
    """The plugin of one broker, over one connection. Hand it what arrives on `RESPONSES`."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Final = connection
        self._waiting: Final[dict[str, asyncio.Future[Fields]]] = {}

    async def reconcile(self, wanted: set[DeviceId]) -> tuple[int, int]:
        """Make the broker's roles those of the `wanted` devices; how many were added and taken away."""
        present = await self._present()
        missing, surplus = sorted(wanted - present), sorted(present - wanted)
        await self._run([each for device in surplus for each in revoke(device)])
        await self._run([each for device in missing for each in grant(device)])
        return len(missing), len(surplus)

    async def grant(self, device: DeviceId) -> None:
        await self._run(grant(device))

    async def revoke(self, device: DeviceId) -> None:
        await self._run(revoke(device))

    def heard(self, payload: bytes) -> None:
        """A response of the plugin. One that cannot be read is as good as none."""
        try:
            responses = parse_json(payload).objects("responses")
        except ContractError:
            return
        for response in responses:
            waiting = self._waiting.get(str(response.raw("correlationData")))
            if waiting is not None and not waiting.done():
                waiting.set_result(response)

    async def _present(self) -> set[DeviceId]:
        """Devices that have a role and a client; one with a half of it counts as absent and is made anew."""
        roles = await self._names("listRoles", "roles")
        clients = await self._names("listClients", "clients")
        whole = {name for name in clients if f"{_ROLE_PREFIX}{name}" in roles}
        return {DeviceId(name) for name in whole}

    async def _names(self, command: str, key: str) -> set[str]:
        found: set[str] = set()
        while True:
            (answer,) = await self._send([{"command": command, "count": _PAGE, "offset": len(found)}])
            page = answer.object("data").texts(key)
            found.update(page)
            if len(page) < _PAGE:
                return found

    async def _run(self, commands: Sequence[Command]) -> None:
        """Raises BrokerLost when the plugin does not do as it was told."""
        for first in range(0, len(commands), _BATCH):
            for answer in await self._send(commands[first : first + _BATCH]):
                problem = str(answer.raw("error") or "")
                if problem and not any(words in problem.lower() for words in _HARMLESS):
                    raise BrokerLost(f"dynamic security: {answer.raw('command')}: expected success, got: {problem}")

    async def _send(self, commands: Sequence[Command]) -> list[Fields]:
        loop = asyncio.get_running_loop()
        expected: dict[str, asyncio.Future[Fields]] = {secrets.token_hex(8): loop.create_future() for _ in commands}
        self._waiting.update(expected)
        tagged: list[JsonValue] = [
            {**each, "correlationData": tag} for each, tag in zip(commands, expected, strict=True)
        ]
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._connection.publish(CONTROL, canonical_json({"commands": tagged}))
                answers = asyncio.gather(*expected.values())
                await asyncio.wait((answers, self._connection.ended), return_when=asyncio.FIRST_COMPLETED)
                if not answers.done():
                    answers.cancel()
                    raise self._connection.ended.result()
                return answers.result()
        except TimeoutError:
            raise BrokerLost("dynamic security: expected an answer, got none; is the plugin loaded?") from None
        finally:
            for tag in expected:
                del self._waiting[tag]


def _role(device: DeviceId) -> str:
    return f"{_ROLE_PREFIX}{device}"


def _device_client(device: DeviceId) -> Command:
    return {"username": device, "roles": [{"rolename": _role(device)}]}


def _device_role(device: DeviceId) -> Command:
    """Topic by topic: with `up/#` a device could fill the broker with as many retained messages as there are names,
    and with a pattern to subscribe by, with as many subscriptions.
    """
    down = topics.all_of(device, "down")
    acls: list[JsonValue] = [
        *(_allow("publishClientSend", topics.up_topic(device, what)) for what in Up),
        _allow("publishClientReceive", down),
        _allow("subscribeLiteral", down),
    ]
    return {"rolename": _role(device), "acls": acls}


def _fleet_role() -> Command:
    acls: list[JsonValue] = [
        _allow("publishClientSend", "$CONTROL/dynamic-security/#"),
        _allow("publishClientReceive", "$CONTROL/dynamic-security/#"),
        _allow("subscribePattern", "$CONTROL/dynamic-security/#"),
        _allow("publishClientSend", topics.ALL_DOWN),
        _allow("publishClientSend", topics.ALL_UP),  # to clear what a revoked device has left behind
        _allow("publishClientReceive", topics.ALL_UP),
        _allow("subscribePattern", topics.ALL_UP),
    ]
    return {"rolename": _FLEET_ROLE, "acls": acls}


def _allow(kind: str, topic: str) -> Command:
    return {"acltype": kind, "topic": topic, "priority": 0, "allow": True}
