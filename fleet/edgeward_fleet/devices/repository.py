"""Rows of devices and certificates, in and out as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, and_, not_, select, update
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_contract.schema import JsonValue
from edgeward_fleet.db.schema import CertificateRow, DesiredRow, DeviceEventRow, DeviceRow, ReportedRow
from edgeward_fleet.devices.model import CertificateSummary, Device, DeviceDetails, DeviceEvent, Presence, presence
from edgeward_fleet.errors import NotFound
from edgeward_fleet.settings import Settings

MAX_EVENTS: int = 50


def device_row(session: Session, device_id: str) -> DeviceRow:
    """Raises NotFound."""
    row = session.get(DeviceRow, device_id)
    if row is None:
        raise NotFound(f"device {device_id[:70]!r}: expected an enrolled device, there is none of that name")
    return row


def note(
    session: Session, device_id: str, kind: str, detail: Mapping[str, JsonValue] | None = None, *, at: datetime
) -> None:
    """Add a line to the device's life."""
    session.add(DeviceEventRow(device_id=device_id, at=at, kind=kind, detail=dict(detail or {})))


def revoke_certificates(
    session: Session, device_id: str, because: str, now: datetime, *, keep: tuple[str, ...] = ()
) -> None:
    session.execute(
        update(CertificateRow)
        .where(
            CertificateRow.device_id == device_id,
            CertificateRow.revoked_at.is_(None),
            CertificateRow.serial.not_in(keep),
        )
        .values(revoked_at=now, revoked_because=because)
    )


def page(
    session: Session,
    settings: Settings,
    now: datetime,
    *,
    site: str | None,
    state: Presence | None,
    after: str,
    limit: int,
) -> list[Device]:
    query = select(DeviceRow).where(DeviceRow.device_id > after).order_by(DeviceRow.device_id).limit(limit)
    if site is not None:
        query = query.where(DeviceRow.site == site)
    if state is not None:
        query = query.where(_is(state, settings, now))
    return [device(row, settings, now) for row in session.scalars(query)]


def details(session: Session, device_id: str, settings: Settings, now: datetime) -> DeviceDetails:
    """Raises NotFound."""
    row = device_row(session, device_id)
    desired = session.get(DesiredRow, device_id)
    reported = session.get(ReportedRow, device_id)
    return DeviceDetails(
        device=device(row, settings, now),
        certificate=_newest_certificate(session, device_id),
        desired=desired.document if desired else None,
        reported=reported.document if reported else None,
        reported_at=reported.received_at if reported else None,
        events=tuple(events(session, device_id, before=None, limit=MAX_EVENTS)),
    )


def events(session: Session, device_id: str, *, before: int | None, limit: int) -> list[DeviceEvent]:
    """Newest first."""
    query = select(DeviceEventRow).where(DeviceEventRow.device_id == device_id)
    if before is not None:
        query = query.where(DeviceEventRow.event_id < before)
    rows = session.scalars(query.order_by(DeviceEventRow.event_id.desc()).limit(limit))
    return [DeviceEvent(event_id=row.event_id, at=row.at, kind=row.kind, detail=row.detail) for row in rows]


def device(row: DeviceRow, settings: Settings, now: datetime) -> Device:
    return Device(
        device_id=DeviceId(row.device_id),
        site=row.site,
        presence=presence(
            last_seen_at=row.last_seen_at,
            revoked=row.revoked_at is not None,
            now=now,
            late_after=settings.late_after,
            offline_after=settings.offline_after,
        ),
        enrolled_at=row.enrolled_at,
        last_seen_at=row.last_seen_at,
        last_address=row.last_address,
        revoked_at=row.revoked_at,
        hardware=row.hardware,
    )


def _newest_certificate(session: Session, device_id: str) -> CertificateSummary | None:
    newest_first = CertificateRow.issued_at.desc()
    row = session.scalar(
        select(CertificateRow).where(CertificateRow.device_id == device_id).order_by(newest_first).limit(1)
    )
    if row is None:
        return None
    return CertificateSummary(
        serial=row.serial,
        authority=row.authority,
        not_before=row.not_before,
        not_after=row.not_after,
        revoked_at=row.revoked_at,
        revoked_because=row.revoked_because,
    )


def _is(state: Presence, settings: Settings, now: datetime) -> ColumnElement[bool]:
    """`presence` as a query, so that a filtered page is full; a test holds the two together."""
    seen = DeviceRow.last_seen_at
    lately, not_long_ago = (
        and_(seen > now - limit, seen < now + limit) for limit in (settings.late_after, settings.offline_after)
    )
    if state is Presence.REVOKED:
        return DeviceRow.revoked_at.is_not(None)
    conditions: dict[Presence, ColumnElement[bool]] = {
        Presence.NEVER: seen.is_(None),
        Presence.ONLINE: lately,
        Presence.LATE: and_(not_long_ago, not_(lately)),
        Presence.OFFLINE: and_(seen.is_not(None), not_(not_long_ago)),
    }
    return and_(DeviceRow.revoked_at.is_(None), conditions[state])
