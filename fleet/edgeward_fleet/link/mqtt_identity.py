"""By what the fleet and its broker know each other: certificates of the fleet's own CA."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeward_fleet.data_dir import write_private
from edgeward_fleet.enrolment import ca
from edgeward_fleet.enrolment.authority import Authority
from edgeward_fleet.link.mqtt_roles import FLEET_NAME

_FILE: Final = "mqtt-client.pem"
_LIFE: Final = timedelta(days=7)  # there is a new one for each connection


def client_context(authority: Authority, data_dir: Path, now: datetime) -> ssl.SSLContext:
    """For a connection of the fleet: a fresh certificate, and trust in the fleet's CA alone."""
    key = ca.new_key()
    certificate = authority.issue_service(key.public_key(), FLEET_NAME, now, _LIFE)
    file = data_dir / _FILE  # the ssl module reads nothing else
    write_private(file, key_pem(key) + ca.pem(certificate).encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=authority.trusted_pem)
    context.load_cert_chain(file)
    return context


def broker_certificate(
    authority: Authority, hosts: Sequence[str], now: datetime, life: timedelta
) -> tuple[bytes, bytes]:
    """Key and certificate chain for a broker that is reached as one of `hosts`."""
    key = ca.new_key()
    certificate = authority.issue_server(key.public_key(), hosts, now, life)
    return key_pem(key), (ca.pem(certificate) + authority.cross_pem).encode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
