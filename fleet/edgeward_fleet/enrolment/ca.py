"""Certificates, as pure functions: no disk, no database; the clock comes in as an argument.

Of a signing request only the public key is taken; every field is set here (RFC 5280 names the extensions). Validity
begins an hour early, because a device's clock may be behind and its first handshake must not wait for that hour.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.errors import Invalid

ROOT_LIFE: Final = timedelta(days=3650)
BACKDATED: Final = timedelta(hours=1)
MAX_CSR_BYTES: Final = 16 * 1024
_CURVES: Final = ("secp256r1", "secp384r1")


@dataclass(frozen=True, slots=True)
class Root:
    """A root of the fleet's CA with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)


def fingerprint(certificate: x509.Certificate) -> str:
    """`sha256:<hex of the DER>`, as it is shown beside an enrolment token."""
    return "sha256:" + hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def new_root(now: datetime) -> Root:
    key = new_key()
    # The name carries part of the key's digest: two roots must differ in name, or chains become ambiguous.
    name = _name(f"Edgeward fleet CA {_key_id(key.public_key()).hex()[:8]}")
    certificate = _root_builder(name, key.public_key(), now, now + ROOT_LIFE).issuer_name(name)
    return Root(certificate.sign(key, hashes.SHA256()), key)


def cross_certificate(new: Root, by: Root, now: datetime) -> x509.Certificate:
    """The key of `new`, certified by `by`: whoever trusts the old root can follow it to the new one."""
    subject = new.certificate.subject
    until = min(now + ROOT_LIFE, by.certificate.not_valid_after_utc)
    builder = _root_builder(subject, new.key.public_key(), now, until).issuer_name(by.certificate.subject)
    return builder.add_extension(_issued_by(by), critical=False).sign(by.key, hashes.SHA256())


def device_certificate(
    root: Root, public_key: ec.EllipticCurvePublicKey, device_id: DeviceId, now: datetime, life: timedelta
) -> x509.Certificate:
    """For client authentication alone; the common name is the device id."""
    builder = _leaf_builder(root, public_key, device_id, now, life)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"urn:edgeward:device:{device_id}")])
    return (
        builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(names, critical=False)
        .sign(root.key, hashes.SHA256())
    )


def service_certificate(
    root: Root, public_key: ec.EllipticCurvePublicKey, name: str, now: datetime, life: timedelta
) -> x509.Certificate:
    """For client authentication by a part of the fleet itself, such as its connection to a broker."""
    return (
        _leaf_builder(root, public_key, name, now, life)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(root.key, hashes.SHA256())
    )


def server_certificate(
    root: Root, public_key: ec.EllipticCurvePublicKey, hosts: Sequence[str], now: datetime, life: timedelta
) -> x509.Certificate:
    """For the three ports, valid for every one of `hosts` (names or addresses)."""
    builder = _leaf_builder(root, public_key, hosts[0][:64], now, life)
    return (
        builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_host(each) for each in hosts]), critical=False)
        .sign(root.key, hashes.SHA256())
    )


def key_sha256(key: ec.EllipticCurvePublicKey) -> str:
    """By which a key is known again: the digest of its SubjectPublicKeyInfo."""
    info = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).hexdigest()


def public_key_of_request(csr_pem: str) -> ec.EllipticCurvePublicKey:
    """The public key of a signing request whose signature proves that the sender has the private one.

    Raises:
        Invalid: not a request, a wrong signature, or a key of a kind that devices do not use.
    """
    if len(csr_pem) > MAX_CSR_BYTES:
        raise Invalid(f"csr_pem: expected at most {MAX_CSR_BYTES} characters, got {len(csr_pem)}")
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        key = request.public_key()
        proven = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        raise Invalid("csr_pem: expected a PEM certificate signing request, got something else") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
        found = key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else type(key).__name__.strip("_")
        raise Invalid(f"csr_pem: expected a key on the curve P-256 or P-384, got {found}")
    if not proven:
        raise Invalid("csr_pem: expected a request signed with its own key, the signature does not fit")
    return key


def _root_builder(
    name: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        _builder(name, key, now, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)  # each rotation adds a link
        .add_extension(_usage(signs_certificates=True), critical=True)
    )


def _leaf_builder(
    root: Root, key: ec.EllipticCurvePublicKey, common_name: str, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    until = min(now + life, root.certificate.not_valid_after_utc)
    return (
        _builder(_name(common_name), key, now, until)
        .issuer_name(root.certificate.subject)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(_issued_by(root), critical=False)
    )


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier(_key_id(key)), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issued_by(root: Root) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(_key_id(root.key.public_key()), None, None)


def _key_id(key: ec.EllipticCurvePublicKey) -> bytes:
    return x509.SubjectKeyIdentifier.from_public_key(key).digest


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
