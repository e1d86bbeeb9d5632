"""Which devices the broker should know, as the database has it, and who was there when."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.db.schema import DeviceEventRow, DeviceRow
from edgeward_fleet.devices.repository import note

VIA: Final = "mqtt"  # where a device was last seen: a broker does not tell its address


def ours(session: Session) -> set[DeviceId]:
    """Every device that enrolled and was not revoked. An expired certificate is the broker's affair."""
    query = select(DeviceRow.device_id).where(DeviceRow.revoked_at.is_(None))
    return {DeviceId(each) for each in session.scalars(query)}


def note_presence(session: Session, device: DeviceId, *, online: bool, now: datetime) -> None:
    """A line in the device's life, unless the last of its kind says the same: a will may come twice."""
    if not is_ours(session, device):
        return
    kinds = ("connected", "disconnected")
    newest = select(DeviceEventRow.kind).where(DeviceEventRow.device_id == device, DeviceEventRow.kind.in_(kinds))
    kind = kinds[0] if online else kinds[1]
    if session.scalar(newest.order_by(DeviceEventRow.event_id.desc()).limit(1)) != kind:
        note(session, device, kind, {"via": VIA}, at=now)


def is_ours(session: Session, device: DeviceId) -> bool:
    row = session.get(DeviceRow, device)
    return row is not None and row.revoked_at is None
