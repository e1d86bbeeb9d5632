"""Which roles a broker should have, in the words of mosquitto's dynamic-security plugin. Pure.

One role per device, and nothing besides: with the plugin *and* a pattern ACL file one device read another's retained
desired state (seen on 2.0.11).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from edgeward_contract import topics
from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.documents import Up
from edgeward_contract.schema import Fields, JsonValue

FLEET_NAME: Final = "Edgeward-Fleet"
"""The fleet's own name at the broker. No device can have it: device ids have no capital letters."""

_FLEET_ROLE: Final = "fleet"
_ROLE_PREFIX: Final = "device:"

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to change at a broker. Who is in both is made anew."""

    revoke: tuple[DeviceId, ...]
    grant: tuple[DeviceId, ...]


@dataclass(slots=True)
class Found:
    """What a broker has, gathered page by page from its verbose lists."""

    clients: dict[str, list[str]] = field(default_factory=dict)
    roles: dict[str, JsonValue] = field(default_factory=dict)

    def add_client(self, found: Fields) -> None:
        """Raises ContractError."""
        roles = sorted(each.text("rolename") for each in found.objects("roles")) if found.has("roles") else []
        self.clients[found.text("username")] = [*roles, *(["in a group"] if found.raw("groups") else [])]

    def add_role(self, found: Fields) -> None:
        """Raises ContractError."""
        acls = found.objects("acls") if found.has("acls") else ()
        self.roles[found.text("rolename")] = _sorted([each.members() for each in acls])

    def plan(self, wanted: Iterable[DeviceId]) -> Plan:
        """Make it so that the wanted devices have their own role, word by word, and nobody else has a device's.

        A role may be of an earlier version of the fleet, half made when the broker was killed, or changed by somebody.
        Clients and roles that are not of devices are left alone.
        """
        due = set(wanted)
        known = {DeviceId(name.removeprefix(_ROLE_PREFIX)) for name in self.roles if name.startswith(_ROLE_PREFIX)}
        known |= {each for each in due if each in self.clients}
        right = {each for each in due if self._is_right(each)}
        return Plan(revoke=tuple(sorted(known - right)), grant=tuple(sorted(due - right)))

    def _is_right(self, device: DeviceId) -> bool:
        role = _device_role(device)["acls"]
        assert isinstance(role, list)
        return self.clients.get(device) == [_role(device)] and self.roles.get(_role(device)) == _sorted(role)


def _sorted(acls: list[JsonValue]) -> list[JsonValue]:
    return sorted(acls, key=lambda each: json.dumps(each, sort_keys=True))
