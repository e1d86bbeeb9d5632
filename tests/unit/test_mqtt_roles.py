"""What a broker has is compared word by word with what it should have; without one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from edgeward_contract.artifact import DeviceId
from edgeward_contract.schema import Fields
from edgeward_fleet.link.mqtt_roles import FLEET_NAME, Found, Plan, initial_config

A, B = DeviceId("bed-1"), DeviceId("bed-2")
Config = dict[str, list[dict[str, Any]]]
NOTHING = Plan(revoke=(), grant=())


def written(*devices: DeviceId) -> Config:
    document: Config = json.loads(initial_config(devices))
    return document


def found(config: Config) -> Found:
    made = Found()
    for client in config["clients"]:
        made.add_client(Fields.of(client, "client"))
    for role in config["roles"]:
        made.add_role(Fields.of(role, "role"))
    return made


def client_of(config: Config, device: DeviceId) -> dict[str, Any]:
    return next(each for each in config["clients"] if each["username"] == device)


def role_of(config: Config, device: DeviceId) -> dict[str, Any]:
    return next(each for each in config["roles"] if each["rolename"] == f"device:{device}")


def test_what_was_written_needs_no_change_in_whatever_order_it_is_told() -> None:
    config = written(A, B)
    for role in config["roles"]:
        role["acls"].reverse()
    assert found(config).plan([A, B]) == NOTHING


def test_who_is_missing_is_let_in_and_who_is_not_wanted_is_shut_out() -> None:
    assert found(written(A)).plan([B]) == Plan(revoke=(A,), grant=(B,))


def more(config: Config) -> None:
    role_of(config, A)["acls"].append({"acltype": "subscribePattern", "topic": "#", "priority": 0, "allow": True})


def wider(config: Config) -> None:
    role_of(config, A)["acls"][0]["topic"] = "edgeward/v1/bed-1/up/#"


def of_the_fleet(config: Config) -> None:
    client_of(config, A)["roles"].append({"rolename": "fleet"})


def in_a_group(config: Config) -> None:
    client_of(config, A)["groups"] = [{"groupname": "wards"}]


def without_a_role(config: Config) -> None:
    del client_of(config, A)["roles"]


def without_its_role(config: Config) -> None:
    config["roles"].remove(role_of(config, A))


def without_its_client(config: Config) -> None:
    config["clients"].remove(client_of(config, A))


@pytest.mark.parametrize(
    "change", [more, wider, of_the_fleet, in_a_group, without_a_role, without_its_role, without_its_client]
)
def test_a_device_that_is_not_exactly_as_it_should_be_is_made_anew(change: Callable[[Config], None]) -> None:
    config = written(A, B)
    change(config)
    assert found(config).plan([A, B]) == Plan(revoke=(A,), grant=(A,))


def test_what_is_not_of_a_device_is_left_alone() -> None:
    config = written(A)
    config["clients"].append({"username": "monitor", "roles": [{"rolename": "reader"}]})
    config["roles"].append({"rolename": "reader", "acls": []})
    assert found(config).plan([A]) == NOTHING
    assert FLEET_NAME in found(config).clients
