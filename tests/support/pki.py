"""A certificate authority for tests, with every field in the test's hands."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeward_agent.identity import keys
from edgeward_agent.identity.keys import Identity, IdentityFacts
from edgeward_contract.artifact import DeviceId

_DAY = timedelta(days=1)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


@dataclass(slots=True)
class TestCa:
    """Signs server and device certificates."""

    __test__ = False

    key: ec.EllipticCurvePrivateKey = field(default_factory=keys.new_key)
    name: str = "Edgeward test CA"

    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        builder = self._builder(self.name, self.key.public_key(), timedelta(days=-1), timedelta(days=3650))
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        self.certificate = (
            builder.serial_number(1)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        return "sha256:" + self.certificate.fingerprint(hashes.SHA256()).hex()

    def sign(
        self,
        common_name: str,
        key: ec.EllipticCurvePublicKey,
        *,
        begins: timedelta = -_DAY,
        ends: timedelta = 30 * _DAY,
        server: bool = False,
    ) -> bytes:
        builder = self._builder(common_name, key, begins, ends).serial_number(x509.random_serial_number())
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        if server:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def server_context(self, folder: Path, *, mutual: bool) -> ssl.SSLContext:
        """For a server on localhost; with `mutual` it insists on a certificate of this CA."""
        key = keys.new_key()
        (folder / "server.key").write_bytes(keys.key_pem(key))
        (folder / "server.pem").write_bytes(self.sign("localhost", key.public_key(), server=True))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cadata=self.pem.decode())
        return context

    def enrolled(
        self,
        folder: Path,
        device_url: str,
        *,
        device: str = "ward-3",
        begins: timedelta = -_DAY,
        ends: timedelta = 30 * _DAY,
    ) -> Identity:
        """An identity in `folder`, as enrolment leaves it."""
        key = keys.new_key()
        facts = IdentityFacts(
            device_id=DeviceId(device), site="north", device_url=device_url, enrolment_url="https://localhost:1"
        )
        certificate = self.sign(device, key.public_key(), begins=begins, ends=ends)
        keys.stage(folder, key=key, certificate_pem=certificate, ca_pem=self.pem, facts=facts)
        return keys.install(folder)

    def _builder(
        self, common_name: str, key: ec.EllipticCurvePublicKey, begins: timedelta, ends: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(common_name))
            .issuer_name(_name(self.name))
            .public_key(key)
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
        )
