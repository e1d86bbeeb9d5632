"""TLS contexts: the fleet is trusted through its own CA and nothing else, and the device shows its certificate."""

from __future__ import annotations

import ssl
from pathlib import Path

from edgeward_agent.identity.keys import Identity, IdentityDamaged


def server_only(ca_pem: bytes) -> ssl.SSLContext:
    """For the enrolment port: checks the fleet, shows no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    return context


def mutual(identity: Identity) -> ssl.SSLContext:
    """For the device port. Raises IdentityDamaged when OpenSSL cannot use the files."""
    return mutual_of(identity.ca_file, identity.certificate_file, identity.key_file)


def mutual_of(ca_file: Path, certificate_file: Path, key_file: Path) -> ssl.SSLContext:
    """The same from files that are not installed yet, to try a new certificate before the old one is given up."""
    try:
        context = server_only(ca_file.read_bytes())
        context.load_cert_chain(certificate_file, key_file)
    except (ssl.SSLError, OSError, UnicodeDecodeError) as error:
        raise IdentityDamaged(f"{certificate_file.parent}: expected a usable key pair, got: {error}") from None
    return context


def unverified() -> ssl.SSLContext:
    """For fetching the CA certificate alone, whose fingerprint is then compared; nothing secret may go over it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
