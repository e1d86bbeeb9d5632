"""What the fleet knows of a device; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from edgeward_contract.artifact import DeviceId
from edgeward_contract.schema import JsonValue
from edgeward_fleet.audit.model import Actor


class Presence(StrEnum):
    """How lately a device was heard of. Silence is not failure: a site may be cut off and working."""

    ONLINE = "online"
    LATE = "late"
    OFFLINE = "offline"
    NEVER = "never"
    REVOKED = "revoked"


def presence(
    *, last_seen_at: datetime | None, revoked: bool, now: datetime, late_after: timedelta, offline_after: timedelta
) -> Presence:
    """Pure; the thresholds belong to the settings.

    A time that is yet to come was noted by a clock that was ahead, and proves as little as one that is as long ago.
    """
    if revoked:
        return Presence.REVOKED
    if last_seen_at is None:
        return Presence.NEVER
    silence = abs(now - last_seen_at)
    if silence >= offline_after:
        return Presence.OFFLINE
    return Presence.LATE if silence >= late_after else Presence.ONLINE


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePrincipal:
    """A device that makes a request, as its certificate says and the database confirms."""

    device_id: DeviceId
    site: str
    serial: str  # of the certificate of this connection
    address: str

    @property
    def actor(self) -> Actor:
        return Actor(name=f"device:{self.device_id}"[:64], address=self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A row of the list."""

    device_id: DeviceId
    site: str
    presence: Presence
    enrolled_at: datetime
    last_seen_at: datetime | None
    last_address: str | None
    revoked_at: datetime | None
    hardware: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateSummary:
    """The newest certificate of a device."""

    serial: str
    authority: str
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None
    revoked_because: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvent:
    """A line in the life of a device."""

    event_id: int
    at: datetime
    kind: str
    detail: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDetails:
    """Everything about one device. `desired` and `reported` are the documents as they crossed the wire."""

    device: Device
    certificate: CertificateSummary | None
    desired: bytes | None
    reported: bytes | None
    reported_at: datetime | None
    events: tuple[DeviceEvent, ...]
