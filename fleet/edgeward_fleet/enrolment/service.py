"""Enrolment and renewal: a token or a certificate goes in, a certificate comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import update
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_contract.artifact import device_id as parse_device_id
from edgeward_contract.schema import ContractError, JsonValue
from edgeward_fleet.accounts.model import Role
from edgeward_fleet.audit import service as audit
from edgeward_fleet.audit.model import Actor
from edgeward_fleet.clock import Clock, rfc3339
from edgeward_fleet.db.engine import Database
from edgeward_fleet.db.schema import AccountRow, CertificateRow, DeviceRow, EnrolmentTokenRow
from edgeward_fleet.devices import repository as devices
from edgeward_fleet.devices.model import DevicePrincipal
from edgeward_fleet.devices.service import serial_text
from edgeward_fleet.enrolment import ca
from edgeward_fleet.enrolment.authority import Authority
from edgeward_fleet.errors import Conflict, Gone, Invalid, Unauthenticated
from edgeward_fleet.ratelimit import HOUR, RateLimit
from edgeward_fleet.secrets import digest, new_id, new_secret
from edgeward_fleet.settings import Settings
from edgeward_fleet.wakeups import Wakeups

MAX_TOKEN_HOURS: Final = 7 * 24
_RENEWALS_PER_HOUR: Final = 10  # a device wants one in weeks; its failures come at first within minutes
_ASK_AGAIN: Final = "Ask a fleet operator for a new token: `edgeward device token --site SITE`."


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentToken:
    """The only moment at which the secret is known."""

    secret: str
    device_id: DeviceId
    site: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a device gets: its certificate and the root by which it knows the fleet."""

    device_id: DeviceId
    site: str
    certificate_pem: str
    ca_pem: str
    not_after: datetime


class Enrolment:
    """Gives certificates to devices."""

    def __init__(
        self, database: Database, authority: Authority, settings: Settings, clock: Clock, wakeups: Wakeups
    ) -> None:
        self._database: Final = database
        self._authority: Final = authority
        self._settings: Final = settings
        self._clock: Final = clock
        self._wakeups: Final = wakeups
        self._limit: Final = RateLimit("enrolments from one address", settings.enrolments_per_minute)
        self._renewals: Final = RateLimit("renewals of one device", _RENEWALS_PER_HOUR, HOUR)

    async def new_token(
        self, actor: Actor, site: str, device_id: str | None, life: timedelta | None = None
    ) -> EnrolmentToken:
        """A right to enrol one device at `site`, once. Without `device_id` the fleet chooses one.

        Unused tokens that the device had before end: who has lost one, or shown it around, makes another.

        Raises:
            Invalid: a name breaks the rule.
            Conflict: the device is revoked, or belongs to another site.
        """
        _name(site, "site")
        chosen = DeviceId(_name(device_id or _new_name(site), "device_id"))
        secret, now = new_secret("ewe_"), self._clock()
        expires = now + (life or self._settings.enrolment_token_life)

        def work(session: Session) -> EnrolmentToken:
            _check_may_enrol(session.get(DeviceRow, chosen), chosen, site)
            _end_tokens(session, chosen, now)
            row = EnrolmentTokenRow(
                sha256=digest(secret),
                site=site,
                device_id=chosen,
                created_by=actor.name,
                created_at=now,
                expires_at=expires,
            )
            session.add(row)
            detail = {"site": site, "expires_at": rfc3339(expires)}
            audit.record(session, actor, "device.token", chosen, detail, at=now)
            return EnrolmentToken(secret=secret, device_id=chosen, site=site, expires_at=expires)

        return await self._database.run(work)

    async def enrol(self, secret: str, csr_pem: str, hardware: Mapping[str, JsonValue], address: str) -> Identity:
        """Exchange a token for a certificate. Who lost the answer may ask again with the same key.

        Raises:
            TooMany: too many tries from this address.
            Invalid: the signing request is no good; the token stays unused.
            Unauthenticated: no such token.
            Conflict: the token was used, with another key or too long ago.
            Gone: the token has expired, a newer one has taken its place, or who made it may not any more.
        """
        self._limit.take(address)
        key = ca.public_key_of_request(csr_pem)
        now = self._clock()

        def work(session: Session) -> Identity:
            token = _known_token(session, secret, now)
            first = _take_token(session, token, key, now)
            if first:
                _check_host(session, token)
            device = _enrolled_device(session, token, hardware, now) if first else _same_device(session, token, key)
            identity = self._issue(session, device, key, now)
            actor = Actor(name=f"device:{device.device_id}"[:64], address=address)
            detail: dict[str, JsonValue] = {"site": device.site, "token_by": token.created_by, "repeated": not first}
            devices.note(session, device.device_id, "enrolled", {**detail, "address": address}, at=now)
            audit.record(session, actor, "device.enrol", device.device_id, detail, at=now)
            return identity

        identity = await self._database.run(work)
        self._wakeups.notify(identity.device_id)  # who still polls with an older certificate is cut off
        return identity

    async def renew(self, principal: DevicePrincipal, csr_pem: str) -> Identity:
        """A new certificate for the same device; the one in use stays good until the new one has been taken into use.

        Raises:
            Invalid: the signing request is no good.
            TooMany: a device that asks again and again, as one whose clock is wrong may.
        """
        key = ca.public_key_of_request(csr_pem)
        self._renewals.take(principal.device_id)
        now = self._clock()

        def work(session: Session) -> Identity:
            device = devices.device_row(session, principal.device_id)
            because = "superseded by a renewal"
            devices.revoke_certificates(session, device.device_id, because, now, keep=(principal.serial,))
            identity = self._issue(session, device, key, now)
            detail = {"not_after": rfc3339(identity.not_after)}
            devices.note(session, device.device_id, "renewed", detail, at=now)
            audit.record(session, principal.actor, "device.renew", device.device_id, detail, at=now)
            return identity

        identity = await self._database.run(work)
        self._wakeups.notify(identity.device_id)  # certificates older than the one in use were revoked
        return identity

    def _issue(self, session: Session, device: DeviceRow, key: ec.EllipticCurvePublicKey, now: datetime) -> Identity:
        device_id = DeviceId(device.device_id)
        life = self._settings.device_certificate_life
        certificate = self._authority.issue_device(key, device_id, now, life)
        session.add(_certificate_row(certificate, device_id, self._authority.fingerprint, now))
        return Identity(
            device_id=device_id,
            site=device.site,
            certificate_pem=ca.pem(certificate),
            ca_pem=self._authority.ca_pem,
            not_after=certificate.not_valid_after_utc,
        )


def _known_token(session: Session, secret: str, now: datetime) -> EnrolmentTokenRow:
    row = session.get(EnrolmentTokenRow, digest(secret))
    if row is None:
        raise Unauthenticated("token: expected one that this fleet gave out, got an unknown one", hint=_ASK_AGAIN)
    if row.expires_at > now:
        return row
    if row.used_at is not None:
        raise _used(row)
    raise Gone(f"token: expected one that is valid, this one expired at {rfc3339(row.expires_at)}", hint=_ASK_AGAIN)


def _new_name(site: str) -> str:
    """Of a device whose name nobody has chosen: its site's, as much of it as there is room for, and six signs."""
    return f"{site[:57].rstrip('._-')}-{new_id('', 6)}"


def _end_tokens(session: Session, device_id: DeviceId, now: datetime) -> None:
    unused = (EnrolmentTokenRow.device_id == device_id) & EnrolmentTokenRow.used_at.is_(None)
    session.execute(update(EnrolmentTokenRow).where(unused, EnrolmentTokenRow.expires_at > now).values(expires_at=now))


def _check_host(session: Session, token: EnrolmentTokenRow) -> None:
    """A token is worth what its maker may do now, as every other token is. Raises Gone."""
    host = session.get(AccountRow, token.created_by)
    if host is None or host.disabled or not Role(host.role).covers(Role.OPERATOR):
        raise Gone("token: expected one of an operator, who made this one is none any more", hint=_ASK_AGAIN)


def _take_token(session: Session, row: EnrolmentTokenRow, key: ec.EllipticCurvePublicKey, now: datetime) -> bool:
    """Whether it was unused until now."""
    # One statement decides who was first: of two that come at once, one finds it unused.
    taken = session.execute(
        update(EnrolmentTokenRow)
        .where(EnrolmentTokenRow.sha256 == row.sha256, EnrolmentTokenRow.used_at.is_(None))
        .values(used_at=now, key_sha256=ca.key_sha256(key))
        .returning(EnrolmentTokenRow.sha256)
    )
    return taken.first() is not None


def _same_device(session: Session, token: EnrolmentTokenRow, key: ec.EllipticCurvePublicKey) -> DeviceRow:
    """The device that has used the token already and, its answer lost, asks again.

    Its earlier certificate stays good until the next renewal: it is for the same key, and may still be on its way.

    Raises:
        Conflict: another key, or the device has enrolled with another token since.
    """
    session.refresh(token)
    device = session.get(DeviceRow, token.device_id)
    if token.key_sha256 != ca.key_sha256(key) or device is None or device.enrolled_at != token.used_at:
        raise _used(token)
    _check_may_enrol(device, DeviceId(token.device_id), token.site)
    return device


def _used(row: EnrolmentTokenRow) -> Conflict:
    return Conflict(f"token: expected an unused one, this one has enrolled {row.device_id} already", hint=_ASK_AGAIN)


def _enrolled_device(
    session: Session, token: EnrolmentTokenRow, hardware: Mapping[str, JsonValue], now: datetime
) -> DeviceRow:
    row = session.get(DeviceRow, token.device_id)
    _check_may_enrol(row, DeviceId(token.device_id), token.site)
    if row is None:
        row = DeviceRow(device_id=token.device_id, site=token.site, enrolled_at=now, hardware=dict(hardware))
        session.add(row)
    else:
        row.enrolled_at, row.hardware = now, dict(hardware)
        devices.revoke_certificates(session, row.device_id, "enrolled again", now)
    session.flush()
    return row


def _check_may_enrol(row: DeviceRow | None, device_id: DeviceId, site: str) -> None:
    if row is None:
        return
    if row.revoked_at is not None:
        raise Conflict(
            f"device {device_id}: expected a device in good standing, it was revoked",
            hint="A revoked name is never used again; choose another device id.",
        )
    if row.site != site:
        raise Conflict(
            f"device {device_id}: expected the site {row.site} it is enrolled at, got {site}",
            hint="Choose another device id for the other site.",
        )


def _certificate_row(
    certificate: x509.Certificate, device_id: DeviceId, authority: str, now: datetime
) -> CertificateRow:
    return CertificateRow(
        serial=serial_text(certificate),
        device_id=device_id,
        authority=authority,
        sha256=ca.fingerprint(certificate).removeprefix("sha256:"),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        issued_at=now,
    )


def _name(value: str, key: str) -> str:
    try:
        return parse_device_id(value, key)
    except ContractError as error:
        raise Invalid(str(error)) from None
