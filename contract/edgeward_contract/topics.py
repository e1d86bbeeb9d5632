"""Every path of the device and enrolment ports and every topic of a broker, in one place, for both sides."""

from __future__ import annotations

from typing import Final, Literal

from edgeward_contract.artifact import DeviceId, Sha256, device_id
from edgeward_contract.schema import ContractError

CA: Final = "/enrolment/v1/ca"
ENROL: Final = "/enrolment/v1/enrol"

DESIRED: Final = "/device/v1/desired"
REPORTED: Final = "/device/v1/reported"
RECORDS: Final = "/device/v1/records"
CERTIFICATE: Final = "/device/v1/certificate"
MANIFEST: Final = "/device/v1/manifests/{sha256}"
CHUNK_INDEX: Final = "/device/v1/artifacts/{sha256}/index"
CHUNK: Final = "/device/v1/chunks/{sha256}"

MAX_PARK_S: Final = 55
"""How long a poll for desired state may be parked; below the idle time-outs of common proxies (60 s)."""


def desired_path(after: int, wait_s: int) -> str:
    """Long poll: answers at once with a generation above `after`, else after `wait_s` with 204."""
    return f"{DESIRED}?after={after}&wait={wait_s}"


def manifest_path(sha256: Sha256) -> str:
    return MANIFEST.format(sha256=sha256)


def chunk_index_path(sha256: Sha256) -> str:
    return CHUNK_INDEX.format(sha256=sha256)


def chunk_path(sha256: Sha256) -> str:
    return CHUNK.format(sha256=sha256)


MQTT_ROOT: Final = "edgeward/v1"
ALL_UP: Final = f"{MQTT_ROOT}/+/up/#"
ALL_DOWN: Final = f"{MQTT_ROOT}/+/down/#"


def up_topic(device: DeviceId, what: str) -> str:
    """What the device publishes; nobody else may."""
    return f"{MQTT_ROOT}/{device}/up/{what}"


def down_desired(device: DeviceId) -> str:
    """The desired state, retained: a device that connects has it at once."""
    return f"{MQTT_ROOT}/{device}/down/desired"


def down_acks(device: DeviceId) -> str:
    """The fleet's answers to what the device published."""
    return f"{MQTT_ROOT}/{device}/down/acks"


def all_of(device: DeviceId, direction: Literal["up", "down"]) -> str:
    """The filter for everything of one device in one direction."""
    return f"{MQTT_ROOT}/{device}/{direction}/#"


def read_up_topic(topic: str) -> tuple[DeviceId, str]:
    """Device and what it published. Raises ContractError for any other topic."""
    head, _, rest = topic.partition(f"{MQTT_ROOT}/")
    device, _, what = rest.partition("/up/")
    if head or not what or "/" in what:
        raise ContractError("topic", f"expected {MQTT_ROOT}/DEVICE/up/…, got {topic[:200]!r}")
    return device_id(device, "topic"), what
