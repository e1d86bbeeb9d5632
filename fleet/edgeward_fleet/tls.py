"""TLS of the three ports: the server's own certificate, renewed while it runs, and who may connect."""

from __future__ import annotations

import ssl
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization

from edgeward_fleet.clock import Clock
from edgeward_fleet.data_dir import SERVER_CERTIFICATE, write_private
from edgeward_fleet.enrolment import ca
from edgeward_fleet.enrolment.authority import Authority
from edgeward_fleet.errors import DataDirError
from edgeward_fleet.settings import Settings


class ServerTls:
    """The contexts of all ports. A new certificate is made at each start and at 2/3 of its life.

    Raises DataDirError: it cannot be written.
    """

    def __init__(self, authority: Authority, settings: Settings, clock: Clock) -> None:
        self._authority: Final = authority
        self._settings: Final = settings
        self._clock: Final = clock
        self._file: Final = settings.data_dir / SERVER_CERTIFICATE
        self.open: Final = _server_context()
        self.device: Final = _device_context(authority)
        self._renew_at = self._renew()

    def renew_if_due(self) -> bool:
        """New handshakes use the new certificate; connections that are open keep theirs. Raises DataDirError."""
        now = self._clock()
        if self._made_at - ca.BACKDATED <= now < self._renew_at:
            return False  # before that it would not be valid yet: the clock ran ahead when it was made
        self._renew_at = self._renew()
        return True

    def _renew(self) -> datetime:
        now, life = self._clock(), self._settings.server_certificate_life
        self._made_at = now
        self._write(self._file, now)
        for context in (self.open, self.device):
            context.load_cert_chain(self._file)
        return now + life * 2 / 3

    def _write(self, path: Path, now: datetime) -> None:
        """Key, certificate and the way from older roots, in one file: the ssl module reads nothing else."""
        key = ca.new_key()
        hosts = tuple(dict.fromkeys((self._settings.public_host, "localhost", "127.0.0.1")))
        certificate = self._authority.issue_server(key.public_key(), hosts, now, self._settings.server_certificate_life)
        plain = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            write_private(path, plain + (ca.pem(certificate) + self._authority.cross_pem).encode())
        except OSError as error:
            raise DataDirError(
                f"{path}: expected a file that can be written, got: {error.strerror}",
                hint="Check room and rights of the data folder.",
            ) from None


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _device_context(authority: Authority) -> ssl.SSLContext:
    context = _server_context()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.trusted_pem)
    # A resumed session proves nothing anew; without tickets every connection shows its certificate.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context
