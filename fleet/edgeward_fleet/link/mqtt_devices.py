"""Which devices the broker should know, as the database has it."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.db.schema import DeviceRow


def ours(session: Session) -> set[DeviceId]:
    """Every device that enrolled and was not revoked. An expired certificate is the broker's affair."""
    query = select(DeviceRow.device_id).where(DeviceRow.revoked_at.is_(None))
    return {DeviceId(each) for each in session.scalars(query)}


def is_ours(session: Session, device: DeviceId) -> bool:
    row = session.get(DeviceRow, device)
    return row is not None and row.revoked_at is None
