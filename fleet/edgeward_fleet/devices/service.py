"""Devices: let them in with their certificate, list them, end them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from sqlalchemy import bindparam, exists, select, update
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.audit import service as audit
from edgeward_fleet.audit.model import Actor
from edgeward_fleet.clock import Clock, is_due
from edgeward_fleet.db.engine import Database
from edgeward_fleet.db.schema import CertificateRow, DeviceRow
from edgeward_fleet.devices import repository
from edgeward_fleet.devices.model import Device, DeviceDetails, DeviceEvent, DevicePrincipal, Presence
from edgeward_fleet.errors import Conflict, Forbidden
from edgeward_fleet.recent import Recent
from edgeward_fleet.settings import Settings
from edgeward_fleet.wakeups import Wakeups

_SEEN_RESOLUTION: Final = timedelta(seconds=15)  # `last_seen_at` must not cost a write per request
_ENROL_AGAIN: Final = (
    "Enrol the device again with a new token: `edgeward device token --site SITE --device-id NAME`; without the name it"
    " becomes another device."
)
_NAME_IS_GONE: Final = "A revoked name is never used again: enrol the device with a token for another one."


class Devices:
    """Everything about devices that have enrolled."""

    def __init__(self, database: Database, settings: Settings, clock: Clock, wakeups: Wakeups) -> None:
        self._database: Final = database
        self._settings: Final = settings
        self._clock: Final = clock
        self._wakeups: Final = wakeups
        # Half of `late_after`: who is remembered is not noted as seen. With SQLite no other process can revoke;
        # with a server another replica may, and that must show in seconds.
        self._admitted: Final[Recent[tuple[bytes, str], _Admitted]] = Recent(90.0 if database.is_sqlite else 2.0)
        wakeups.add_listener(self._admitted.forget)

    async def authenticate(self, certificate_der: bytes, address: str) -> DevicePrincipal:
        """Which device the certificate stands for, now; notes that the device was seen.

        Raises:
            Forbidden: not one of ours, expired, or revoked.
        """
        now = self._clock()
        known = self._admitted.get((certificate_der, address))
        if known is not None and now < known.until:
            return known.principal
        serial = _serial(certificate_der)
        digest = hashlib.sha256(certificate_der).hexdigest()
        admitted = await self._database.run(lambda session: _admit(session, serial, digest, address, now), urgent=False)
        self._admitted.put(admitted.principal.device_id, (certificate_der, address), admitted)
        return admitted.principal

    async def page(self, *, site: str | None, state: Presence | None, after: str, limit: int) -> list[Device]:
        now = self._clock()

        def work(session: Session) -> list[Device]:
            return repository.page(session, self._settings, now, site=site, state=state, after=after, limit=limit)

        return await self._database.run(work)

    async def details(self, device_id: DeviceId) -> DeviceDetails:
        """Raises NotFound."""
        now = self._clock()
        return await self._database.run(lambda session: repository.details(session, device_id, self._settings, now))

    async def events(self, device_id: DeviceId, *, before: int | None, limit: int) -> list[DeviceEvent]:
        """Newest first. Raises NotFound."""

        def work(session: Session) -> list[DeviceEvent]:
            repository.device_row(session, device_id)
            return repository.events(session, device_id, before=before, limit=limit)

        return await self._database.run(work)

    async def revoke(self, actor: Actor, device_id: DeviceId, reason: str) -> Device:
        """End the device's certificates at once; parked polls are cut.

        Raises:
            NotFound: no such device.
            Conflict: it is revoked already.
        """
        now = self._clock()

        def work(session: Session) -> Device:
            row = repository.device_row(session, device_id)
            if row.revoked_at is not None:
                raise Conflict(f"device {device_id}: expected one that is not revoked, this one is")
            row.revoked_at = now
            repository.revoke_certificates(session, device_id, reason[:200] or "revoked", now)
            repository.note(session, device_id, "revoked", {"by": actor.name, "reason": reason}, at=now)
            audit.record(session, actor, "device.revoke", device_id, {"reason": reason}, at=now)
            return repository.device(row, self._settings, now)

        revoked = await self._database.run(work)
        self._wakeups.notify(device_id)
        return revoked


def heard_of(session: Session, device_id: DeviceId, via: str, now: datetime) -> None:
    """For a link that has authenticated the device itself: is it still ours? Notes that it was seen.

    Raises:
        Forbidden: it never enrolled, was revoked, or has no certificate that is still good.
    """
    known = session.connection().execute(_KNOWN, {"device": device_id, "now": now}).one_or_none()
    if known is None:
        raise _unknown()
    last_seen_at, ended_at, has_certificate = known
    if ended_at is not None or not has_certificate:
        raise Forbidden(
            f"device {device_id}: expected a device in good standing, it was revoked or its certificate expired",
            hint=_ENROL_AGAIN,
        )
    _note_seen(session, device_id, last_seen_at, via, now)


def ensure_admitted(session: Session, principal: DevicePrincipal, now: datetime) -> None:
    """For a request that was parked: is the certificate that it came with still good? Raises Forbidden."""
    _check(_shown(session, principal.serial), now)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Admitted:
    principal: DevicePrincipal
    until: datetime  # the certificate's own end


def _admit(session: Session, serial: str, digest: str, address: str, now: datetime) -> _Admitted:
    shown = _shown(session, serial)
    if shown.sha256 != digest:
        raise _unknown()
    _check(shown, now)
    _note_seen(session, shown.device_id, shown.last_seen_at, address, now)
    principal = DevicePrincipal(device_id=DeviceId(shown.device_id), site=shown.site, serial=serial, address=address)
    return _Admitted(principal=principal, until=shown.not_after)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A certificate that a device shows, and whose it is; in the order of `_SHOWN`."""

    device_id: str
    site: str
    last_seen_at: datetime | None
    ended_at: datetime | None  # the device itself was revoked
    sha256: str
    not_after: datetime
    revoked_at: datetime | None
    revoked_because: str | None


# Every poll and many a request asks this: columns by themselves take a quarter of the time of rows.
_SHOWN: Final = (
    select(
        DeviceRow.device_id,
        DeviceRow.site,
        DeviceRow.last_seen_at,
        DeviceRow.revoked_at,
        CertificateRow.sha256,
        CertificateRow.not_after,
        CertificateRow.revoked_at,
        CertificateRow.revoked_because,
    )
    .join(CertificateRow, CertificateRow.device_id == DeviceRow.device_id)
    .where(CertificateRow.serial == bindparam("serial"))
)


def _shown(session: Session, serial: str) -> _Shown:
    """Raises Forbidden: not one of ours."""
    row = session.connection().execute(_SHOWN, {"serial": serial}).one_or_none()
    if row is None:
        raise _unknown()
    return _Shown(*row)


_KNOWN: Final = select(
    DeviceRow.last_seen_at,
    DeviceRow.revoked_at,
    exists().where(
        CertificateRow.device_id == DeviceRow.device_id,
        CertificateRow.revoked_at.is_(None),
        CertificateRow.not_after > bindparam("now", type_=CertificateRow.not_after.type),
    ),
).where(DeviceRow.device_id == bindparam("device"))


def _check(shown: _Shown, now: datetime) -> None:
    if shown.ended_at is not None:
        raise Forbidden(
            f"device {shown.device_id}: expected a device in good standing, it was revoked", hint=_NAME_IS_GONE
        )
    if shown.revoked_at is not None:
        raise Forbidden(
            f"device {shown.device_id}: expected a valid certificate, this one was revoked: {shown.revoked_because}",
            hint=_ENROL_AGAIN,
        )
    if shown.not_after <= now:
        raise Forbidden(f"device {shown.device_id}: expected a valid certificate, it has expired", hint=_ENROL_AGAIN)


def _note_seen(session: Session, device_id: str, last_seen_at: datetime | None, address: str, now: datetime) -> None:
    if is_due(last_seen_at, now, _SEEN_RESOLUTION):
        seen = update(DeviceRow).where(DeviceRow.device_id == device_id)
        session.connection().execute(seen.values(last_seen_at=now, last_address=address))


def _serial(certificate_der: bytes) -> str:
    try:
        return serial_text(x509.load_der_x509_certificate(certificate_der))
    except ValueError:
        raise _unknown() from None


def serial_text(certificate: x509.Certificate) -> str:
    return format(certificate.serial_number, "x")


def _unknown() -> Forbidden:
    return Forbidden("expected a certificate that this fleet gave out, got another", hint=_ENROL_AGAIN)
