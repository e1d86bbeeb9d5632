"""The identity folder: a private key, its certificate, and who signed it.

Files of one identity belong together, and a power cut must never leave a key beside another key's certificate. So a
new identity is written into a folder `next`, whose appearance is the commit; moving its files into place can be
done again after any interruption, and is, whenever the identity is read.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeward_agent.errors import IdentityError
from edgeward_agent.secret_file import create, sync_folder
from edgeward_contract.artifact import DeviceId, device_id
from edgeward_contract.schema import ContractError, Fields, canonical_json, parse_json

KEY: Final = "device.key"
CERTIFICATE: Final = "device.pem"
CA: Final = "ca.pem"
FACTS: Final = "identity.json"
_STAGED: Final = "staged"
_NEXT: Final = "next"
_PREVIOUS: Final = {KEY: "previous.key", CERTIFICATE: "previous.pem"}
_DAY_S: Final = 86_400
_FRESH_S: Final = 3_600


class NotEnrolled(IdentityError):
    """There is no identity in this state folder."""

    hint = "Run `edgeward-agent enrol --fleet URL --token TOKEN --ca-fingerprint FINGERPRINT`; a fleet admin has them."


class IdentityDamaged(IdentityError):
    """The files of the identity do not fit together or cannot be read."""

    hint = "Enrol again with a new token and --force; the damaged files are kept as previous.*."


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityFacts:
    """What the fleet said at enrolment."""

    device_id: DeviceId
    site: str
    device_url: str
    enrolment_url: str
    mqtt_url: str = ""  # of the fleet's broker; empty when it has none

    @classmethod
    def read(cls, fields: Fields) -> IdentityFacts:
        return cls(
            device_id=device_id(fields.text("device_id"), "device_id"),
            site=fields.text("site"),
            device_url=fields.text("device_url"),
            enrolment_url=fields.text("enrolment_url"),
            mqtt_url=fields.text("mqtt_url", default=""),
        )

    def canonical(self) -> bytes:
        return canonical_json(
            {
                "device_id": self.device_id,
                "site": self.site,
                "device_url": self.device_url,
                "enrolment_url": self.enrolment_url,
                "mqtt_url": self.mqtt_url,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An identity on disk whose parts fit together."""

    folder: Path
    facts: IdentityFacts
    certificate: x509.Certificate

    @property
    def key_file(self) -> Path:
        return self.folder / KEY

    @property
    def certificate_file(self) -> Path:
        return self.folder / CERTIFICATE

    @property
    def ca_file(self) -> Path:
        return self.folder / CA

    def seconds_left(self, now_s: float) -> float:
        """Until the certificate expires; negative once it has."""
        return self.certificate.not_valid_after_utc.timestamp() - now_s

    def days_left(self, now_s: float) -> int:
        """Whole days. The minutes since it was made cost a new one no day; an expired one has at most -1."""
        left_s = self.seconds_left(now_s)
        return int((left_s + _FRESH_S if left_s > 0 else left_s) // _DAY_S)


def expiry_line(identity: Identity, now_s: float) -> str:
    """One sentence about an expired certificate; empty while it is valid."""
    if identity.seconds_left(now_s) > 0:
        return ""
    ended = identity.certificate.not_valid_after_utc.strftime("%Y-%m-%d %H:%M UTC")
    way_out = "until this device is enrolled again, or its clock is set if that is ahead"
    return f"the device certificate expired on {ended}; serving goes on, the fleet is out of reach {way_out}"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_request(key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    """A CSR in PEM. The CA takes the public key from it and sets every other field itself."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def check_certificate(pem: bytes, key: ec.EllipticCurvePrivateKey, ca_pem: bytes) -> x509.Certificate:
    """Return the certificate. Raises IdentityDamaged: not one, of another key, or not signed by this CA."""
    certificate = _certificates(pem, CERTIFICATE)[0]
    if certificate.public_key() != key.public_key():
        raise IdentityDamaged(f"{CERTIFICATE}: expected the certificate of {KEY}, got one of another key")
    if not any(_issued(certificate, ca) for ca in _certificates(ca_pem, CA)):
        raise IdentityDamaged(f"{CERTIFICATE}: expected one signed by {CA}, got one of another issuer")
    return certificate


def load_identity(folder: Path, *, finish: bool = True) -> Identity:
    """Read and check the identity. Without `finish` nothing is moved: for those who only look, beside a running agent.

    Raises:
        NotEnrolled: there is none.
        IdentityDamaged: a file is missing or unreadable, or key, certificate and CA do not belong together.
    """
    if finish:
        finish_install(folder)
    if not (folder / FACTS).exists() and not (folder / CERTIFICATE).exists():
        raise NotEnrolled(f"expected an enrolled device, found no identity in {folder}")
    try:
        facts = IdentityFacts.read(parse_json(_read(folder, FACTS)))
    except ContractError as error:
        raise IdentityDamaged(f"{folder / FACTS}: {error}") from None
    certificate = check_certificate(_read(folder, CERTIFICATE), load_key(folder), _read(folder, CA))
    return Identity(folder=folder, facts=facts, certificate=certificate)


def load_key(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Raises IdentityDamaged unless the key file holds a P-256 key."""
    try:
        key = serialization.load_pem_private_key(_read(folder, KEY), password=None)
    except (ValueError, TypeError) as error:
        raise IdentityDamaged(f"{folder / KEY}: expected a private key in PEM, got: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityDamaged(f"{folder / KEY}: expected a P-256 key, got {type(key).__name__}")
    return key


def stage(
    folder: Path, *, key: ec.EllipticCurvePrivateKey, certificate_pem: bytes, ca_pem: bytes, facts: IdentityFacts
) -> Path:
    """Write a new identity down beside the old one; nothing uses it before `install`. Returns its folder."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    finish_install(folder)
    scratch = folder / _STAGED
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    files = {KEY: key_pem(key), CERTIFICATE: certificate_pem, CA: ca_pem, FACTS: facts.canonical()}
    for name, data in files.items():
        create(scratch / name, data)
    sync_folder(scratch)
    return scratch


def install(folder: Path) -> Identity:
    """Make what was staged the identity, whatever interrupts; the pair before it stays as previous.*."""
    _keep_previous(folder)
    (folder / _STAGED).rename(folder / _NEXT)
    sync_folder(folder)
    finish_install(folder)
    return load_identity(folder)


def finish_install(folder: Path) -> None:
    """Move the files of a committed `next` into place; nothing to do when there is none."""
    pending = folder / _NEXT
    if not pending.is_dir():
        return
    for file in sorted(pending.iterdir()):
        file.replace(folder / file.name)
    sync_folder(folder)
    pending.rmdir()


def _keep_previous(folder: Path) -> None:
    for name, kept in _PREVIOUS.items():
        if (folder / name).exists():
            with contextlib.suppress(FileNotFoundError):
                (folder / kept).unlink()
            (folder / kept).hardlink_to(folder / name)


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise IdentityDamaged(f"{folder / name}: expected a readable file, got: {error.strerror}") from None


def _certificates(pem: bytes, name: str) -> list[x509.Certificate]:
    """There are two CA certificates while the fleet changes its CA."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise IdentityDamaged(f"{name}: expected a certificate in PEM, got: {error}") from None


def _issued(certificate: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
