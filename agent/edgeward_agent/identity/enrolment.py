"""The first meeting of a device and its fleet: a one-time token one way, a certificate the other.

The device has nothing to trust yet but the fingerprint that a person carried over. So it fetches the CA certificate
without trust, compares the fingerprint, and only then, over TLS that this CA vouches for, shows the token.
"""

from __future__ import annotations

import os
import platform
import re
import ssl
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from urllib3.exceptions import InsecureRequestWarning

from edgeward_agent.errors import IdentityError, LinkRefused
from edgeward_agent.identity import keys, tls
from edgeward_agent.identity.keys import Identity, IdentityDamaged, IdentityFacts
from edgeward_agent.link.wire import JSON, Call, Wire
from edgeward_contract.artifact import DeviceId, device_id
from edgeward_contract.schema import ContractError, Fields, JsonValue, canonical_json, parse_json
from edgeward_contract.topics import CA, ENROL

_MAX_ANSWER_BYTES: Final = 64 * 1024
_TIMEOUT_S: Final = 20.0


class AlreadyEnrolled(IdentityError):
    """The state folder holds an identity that would be replaced."""

    hint = "Add --force to replace it; the old key and certificate are kept as previous.*."


class WrongFingerprint(IdentityError):
    """The CA certificate that came is not the one that was promised. Nothing was written."""

    hint = "Compare the address and the fingerprint with what the fleet admin gave you; somebody may be in between."


class TokenRefused(IdentityError, LinkRefused):
    """The fleet does not take the token: unknown, used, expired."""


class EnrolmentFailed(IdentityError):
    """The fleet's answer cannot be used."""

    hint = "Check that --fleet is the enrolment address (port 8445 unless it was changed); then ask for a new token."


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What a fleet admin hands to the person at the device."""

    fleet_url: str
    token: str
    ca_fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grant:
    """The fleet's answer to a good token."""

    device_id: DeviceId
    site: str
    certificate_pem: bytes
    ca_pem: bytes
    device_url: str
    mqtt_url: str

    @classmethod
    def read(cls, fields: Fields) -> _Grant:
        return cls(
            device_id=device_id(fields.text("device_id"), "device_id"),
            site=fields.text("site"),
            certificate_pem=fields.text("certificate_pem", max_length=_MAX_ANSWER_BYTES).encode(),
            ca_pem=fields.text("ca_pem", max_length=_MAX_ANSWER_BYTES).encode(),
            device_url=fields.text("device_url"),
            mqtt_url=fields.text("mqtt_url", default=""),
        )


def enrol(folder: Path, invitation: Invitation, *, force: bool = False) -> Identity:
    """Make a key, get a certificate for it, and install both.

    Raises:
        AlreadyEnrolled: there is an identity and `force` is false.
        WrongFingerprint: the CA is another one; nothing was written.
        TokenRefused: the token is unknown, used or expired.
        LinkLost: the fleet cannot be reached, or asks to come back later.
        EnrolmentFailed: the answer is not what the contract says.
    """
    wanted = fingerprint_digits(invitation.ca_fingerprint)
    _check_free(folder, force)
    ca = _trusted_ca(invitation.fleet_url, wanted)
    key = keys.new_key()
    grant = _ask(invitation, ca, keys.signing_request(key, "edgeward-device"))
    try:
        keys.check_certificate(grant.certificate_pem, key, grant.ca_pem)
    except IdentityDamaged as error:
        raise EnrolmentFailed(f"the fleet's answer: {error}") from None
    facts = IdentityFacts(
        device_id=grant.device_id,
        site=grant.site,
        device_url=grant.device_url,
        enrolment_url=invitation.fleet_url,
        mqtt_url=grant.mqtt_url,
    )
    keys.stage(folder, key=key, certificate_pem=grant.certificate_pem, ca_pem=grant.ca_pem, facts=facts)
    return keys.install(folder)


def fingerprint_digits(text: str) -> str:
    """The 64 digits of `sha256:ab12…`, `AB:12:…` or `ab12…`. Raises WrongFingerprint for anything else."""
    digits = re.sub(r"^sha256[:=]", "", text.strip().lower()).replace(":", "").replace(" ", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise WrongFingerprint(f"--ca-fingerprint: expected sha256: and 64 hexadecimal digits, got {text[:80]!r}")
    return digits


def fingerprint(certificate: x509.Certificate) -> str:
    return "sha256:" + certificate.fingerprint(hashes.SHA256()).hex()


def hardware() -> dict[str, JsonValue]:
    """What the fleet shows of the machine; nothing that identifies a person."""
    return {
        "machine": platform.machine(),
        "os": f"{platform.system()} {platform.release()}",
        "cpus": os.cpu_count() or 1,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _check_free(folder: Path, force: bool) -> None:
    keys.finish_install(folder)
    if force or not (folder / keys.CERTIFICATE).exists():
        return
    try:
        name = keys.load_identity(folder).facts.device_id
    except IdentityError:
        raise AlreadyEnrolled(f"expected an empty {folder}, found a damaged identity") from None
    raise AlreadyEnrolled(f"expected an empty {folder}, found the identity of {name}")


def _trusted_ca(fleet_url: str, wanted: str) -> bytes:
    """Fetch the CA certificates over TLS that proves nothing; keep the one with the right fingerprint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureRequestWarning)  # the fingerprint is the verification
        answer = _exchange(fleet_url, tls.unverified(), Call(method="GET", path=CA, limit_bytes=_MAX_ANSWER_BYTES))
    try:
        pem = answer.text("ca_pem", max_length=_MAX_ANSWER_BYTES).encode()
        found = x509.load_pem_x509_certificates(pem)
    except (ContractError, ValueError) as error:
        raise EnrolmentFailed(f"{fleet_url}{CA}: expected a CA certificate, got: {error}") from None
    for certificate in found:
        if certificate.fingerprint(hashes.SHA256()).hex() == wanted:
            return certificate.public_bytes(serialization.Encoding.PEM)
    raise WrongFingerprint(
        f"CA fingerprint of {fleet_url}: expected sha256:{wanted}, got {', '.join(map(fingerprint, found))}"
    )


def _ask(invitation: Invitation, ca_pem: bytes, csr_pem: bytes) -> _Grant:
    body = canonical_json({"token": invitation.token, "csr_pem": csr_pem.decode(), "hardware": hardware()})
    call = Call(method="POST", path=ENROL, body=body, limit_bytes=_MAX_ANSWER_BYTES)
    fields = _exchange(invitation.fleet_url, tls.server_only(ca_pem), call)
    try:
        return _Grant.read(fields)
    except ContractError as error:
        raise EnrolmentFailed(f"{invitation.fleet_url}{ENROL}: {error}") from None


def _exchange(fleet_url: str, context: ssl.SSLContext, call: Call) -> Fields:
    wire = Wire(fleet_url, context, timeout_s=_TIMEOUT_S)
    try:
        return parse_json(wire.request_blocking(call).body)
    except ContractError as error:
        raise EnrolmentFailed(f"{fleet_url}{call.path}: expected {JSON}, got: {error}") from None
    except LinkRefused as error:
        raise _refused(error) from None
    finally:
        wire.close()


def _refused(error: LinkRefused) -> IdentityError:
    if error.status not in (401, 403, 409, 410):
        return EnrolmentFailed(str(error))
    refusal = TokenRefused(str(error), status=error.status)
    if error.hint != LinkRefused.hint:
        refusal.hint = error.hint
    return refusal
