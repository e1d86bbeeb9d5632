"""The fleet's CA as a service: makes its root at the first start, issues, rotates, goes into a backup and out of it.

The key stands in the database, encrypted, so that it changes in one transaction with its audit entry; it is opened
once, at the start. Rotation needs the fleet to be stopped, so what was loaded stays true while it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from sqlalchemy import exists as sql_exists
from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.audit import service as audit
from edgeward_fleet.audit.model import SYSTEM, Actor
from edgeward_fleet.db import turns
from edgeward_fleet.db.schema import AuthorityRow, CertificateRow
from edgeward_fleet.db.turns import Turn
from edgeward_fleet.enrolment import ca
from edgeward_fleet.enrolment.passphrase import Passphrase
from edgeward_fleet.errors import Conflict, PassphraseError

_BACKUP_NAME: Final = b"edgeward-fleet-ca"
_BACKUP_KDF_ROUNDS: Final = 600_000  # OWASP's figure for PBKDF2 with SHA-256


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """The active root, and the certificates around it. `trusted` begins with the active root."""

    root: ca.Root
    trusted: tuple[x509.Certificate, ...]
    cross: tuple[x509.Certificate, ...]

    @property
    def ca_pem(self) -> str:
        return ca.pem(self.root.certificate)

    @property
    def trusted_pem(self) -> str:
        """What a client certificate may be signed by."""
        return "".join(ca.pem(each) for each in self.trusted)

    @property
    def cross_pem(self) -> str:
        """What a server sends along, so that devices that know an older root can follow."""
        return "".join(ca.pem(each) for each in self.cross)

    @property
    def fingerprint(self) -> str:
        return self.root.fingerprint

    def issue_device(
        self, key: ec.EllipticCurvePublicKey, device_id: DeviceId, now: datetime, life: timedelta
    ) -> x509.Certificate:
        return ca.device_certificate(self.root, key, device_id, now, life)

    def issue_server(
        self, key: ec.EllipticCurvePublicKey, hosts: Sequence[str], now: datetime, life: timedelta
    ) -> x509.Certificate:
        return ca.server_certificate(self.root, key, hosts, now, life)

    def issue_service(
        self, key: ec.EllipticCurvePublicKey, name: str, now: datetime, life: timedelta
    ) -> x509.Certificate:
        return ca.service_certificate(self.root, key, name, now, life)


def exists(session: Session) -> bool:
    """Whether this database has a CA."""
    return _active_row(session) is not None


def load_or_create(session: Session, passphrase: Passphrase, now: datetime) -> Authority:
    """The CA of this database; makes the first root when there is none. Raises PassphraseError."""
    if not exists(session):
        turns.take(session, Turn.AUDIT)  # two fleets that start at once with one database have one CA
    if not exists(session):
        root = ca.new_root(now)
        _store(session, root, None, passphrase, now)
        audit.record(session, SYSTEM, "ca.create", root.fingerprint, at=now)
    return load(session, passphrase, now)


def load(session: Session, passphrase: Passphrase, now: datetime) -> Authority:
    """Raises PassphraseError, or Conflict when there is no CA yet."""
    row = _active_row(session)
    if row is None:
        raise Conflict("expected a CA, there is none yet", hint="`edgeward-fleet serve` makes one at its first start.")
    retired = _retired_rows(session)
    used = [number for number, each in enumerate(retired) if _in_use(session, each, now)]
    # From the oldest root that a device may still know, each link of the way to the active one is needed.
    links = [row, *retired[: used[-1] if used else 0]]
    return Authority(
        root=ca.Root(_certificate(row.certificate_pem), _open_key(row, passphrase)),
        trusted=tuple(_certificate(each.certificate_pem) for each in (row, *(retired[number] for number in used))),
        cross=tuple(_certificate(each.cross_pem) for each in links if each.cross_pem) if used else (),
    )


def rotate(session: Session, actor: Actor, passphrase: Passphrase, now: datetime) -> Authority:
    """Make a new root, certified by the old one too. Devices move over as they renew; until then both are trusted."""
    old = load(session, passphrase, now)
    row = _active_row(session)
    assert row is not None
    row.retired_at = now
    new = ca.new_root(now)
    _store(session, new, ca.cross_certificate(new, old.root, now), passphrase, now)
    audit.record(session, actor, "ca.rotate", new.fingerprint, {"former": old.fingerprint}, at=now)
    return load(session, passphrase, now)


def backup(session: Session, actor: Actor, passphrase: Passphrase, now: datetime) -> bytes:
    """The active root with its key and the older roots, as PKCS #12 under the same passphrase."""
    authority = load(session, passphrase, now)
    encryption = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(_BACKUP_KDF_ROUNDS)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(passphrase.secret)
    )
    audit.record(session, actor, "ca.backup", authority.fingerprint, at=now)
    return pkcs12.serialize_key_and_certificates(
        _BACKUP_NAME, authority.root.key, authority.root.certificate, authority.trusted[1:] or None, encryption
    )


def restore(session: Session, actor: Actor, data: bytes, passphrase: Passphrase, now: datetime) -> Authority:
    """Take the CA of a backup into a database that has none.

    Raises:
        Conflict: there is a CA already.
        PassphraseError: not a backup, or another passphrase.
    """
    if exists(session):
        raise Conflict("expected a fleet without a CA, this one has its own", hint="Restore into a new data folder.")
    try:
        bundle = pkcs12.load_pkcs12(data, passphrase.secret)
    except ValueError:
        raise PassphraseError(f"expected a CA backup that the passphrase of {passphrase.origin} opens") from None
    if bundle.cert is None or not isinstance(bundle.key, ec.EllipticCurvePrivateKey):
        raise PassphraseError("expected a CA backup with certificate and key, got another PKCS #12 file")
    root = ca.Root(bundle.cert.certificate, bundle.key)
    _store(session, root, None, passphrase, now)
    audit.record(session, actor, "ca.restore", root.fingerprint, at=now)
    return load(session, passphrase, now)


def _store(
    session: Session, root: ca.Root, cross: x509.Certificate | None, passphrase: Passphrase, now: datetime
) -> None:
    encrypted = root.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.secret),
    )
    row = AuthorityRow(
        fingerprint=root.fingerprint,
        certificate_pem=ca.pem(root.certificate),
        cross_pem=ca.pem(cross) if cross else None,
        key_pem=encrypted.decode(),
        created_at=now,
    )
    session.add(row)
    session.flush()


def _open_key(row: AuthorityRow, passphrase: Passphrase) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(row.key_pem.encode(), passphrase.secret)
    except ValueError:
        raise PassphraseError(
            f"expected the passphrase of the CA's key, the one of {passphrase.origin} is not it"
        ) from None
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _active_row(session: Session) -> AuthorityRow | None:
    return session.scalar(select(AuthorityRow).where(AuthorityRow.retired_at.is_(None)))


def _retired_rows(session: Session) -> Sequence[AuthorityRow]:
    newest_first = AuthorityRow.retired_at.desc()
    return session.scalars(
        select(AuthorityRow).where(AuthorityRow.retired_at.is_not(None)).order_by(newest_first)
    ).all()


def _in_use(session: Session, row: AuthorityRow, now: datetime) -> bool:
    live = sql_exists().where(
        CertificateRow.authority == row.fingerprint,
        CertificateRow.revoked_at.is_(None),
        CertificateRow.not_after > now,
    )
    return bool(session.scalar(select(live)))


def _certificate(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())
