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
from cryptography.hazmat.primitives.asymmetric import ec
from urllib3.exceptions import InsecureRequestWarning

from edgeward_agent.errors import ConfigError, IdentityError, LinkLost, LinkRefused
from edgeward_agent.identity import keys, request, tls
from edgeward_agent.identity.keys import Identity, IdentityDamaged, IdentityFacts
from edgeward_agent.link.wire import JSON, Call, FleetNotTrusted, Wire, split_url
from edgeward_contract.artifact import DeviceId, device_id
from edgeward_contract.schema import ContractError, Fields, JsonValue, canonical_json, parse_json
from edgeward_contract.topics import CA, ENROL

_MAX_ANSWER_BYTES: Final = 64 * 1024
_ROOM_BYTES: Final = 2 * _MAX_ANSWER_BYTES  # the answer as files, and what a file system adds
_TIMEOUT_S: Final = 20.0


class AlreadyEnrolled(IdentityError):
    """The state folder holds an identity that would be replaced."""

    hint = "Add --force to replace it; the old key and certificate are kept as previous.*."


class WrongFingerprint(IdentityError):
    """The CA certificate that came is not the one that was promised. Nothing was written."""

    hint = "Compare the address and the fingerprint with what the fleet admin gave you; somebody may be in between."


class TokenRefused(IdentityError, LinkRefused):
    """The fleet does not take the token: unknown, used, expired."""


class BadAddress(IdentityError, ConfigError):
    """What was given as the fleet's address is none."""

    hint = "Use the address in the command that `edgeward device token` printed."


class FleetSilent(IdentityError, LinkLost):
    """The fleet gave no answer, or said later. The token stays good for this device."""

    hint = (
        "Check the network, and that --fleet is the enrolment address (port 8445 unless it was changed); then run the "
        "same command again, the token stays good for it."
    )


class NotThatFleet(FleetSilent):
    """The CA is the one that was promised; the certificate of the port is not for this address or this time."""

    hint = "Use the host name in the command that `edgeward device token` printed, and check this device's clock."


class AnswerNotKept(IdentityError):
    """The fleet gave a certificate and the disk did not take it."""

    hint = "Free some room on this disk, then run the same command again: the fleet repeats its answer to this device."


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
    """Make a key, get a certificate for it, and install both. The token is shown once all that is needed is on disk.

    Raises:
        BadAddress: the address is not https://host:port.
        AlreadyEnrolled: there is an identity and `force` is false.
        WrongFingerprint: the CA is another one; nothing was written.
        TokenRefused: the token is unknown, used or expired.
        FleetSilent: the fleet cannot be reached, or asks to come back later.
        NoRoom: the disk is full; the token was not shown.
        AnswerNotKept: the disk filled up meanwhile; the same command may be run again.
        EnrolmentFailed: the answer is not what the contract says.
    """
    _check_address(invitation.fleet_url)
    wanted = fingerprint_digits(invitation.ca_fingerprint)
    _check_free(folder, force)
    ca = _trusted_ca(invitation.fleet_url, wanted)
    key = request.prepare(folder, _ROOM_BYTES)
    try:
        grant = _ask(invitation, ca, keys.signing_request(key, "edgeward-device"))
    except TokenRefused:
        request.forget(folder)
        raise
    identity = _kept(folder, key, grant, invitation.fleet_url)
    request.forget(folder)
    return identity


def _kept(folder: Path, key: ec.EllipticCurvePrivateKey, grant: _Grant, fleet_url: str) -> Identity:
    try:
        keys.check_certificate(grant.certificate_pem, key, grant.ca_pem)
    except IdentityDamaged as error:
        raise EnrolmentFailed(f"the fleet's answer: {error}") from None
    facts = IdentityFacts(
        device_id=grant.device_id,
        site=grant.site,
        device_url=grant.device_url,
        enrolment_url=fleet_url,
        mqtt_url=grant.mqtt_url,
    )
    try:
        request.release_room(folder)
        keys.stage(folder, key=key, certificate_pem=grant.certificate_pem, ca_pem=grant.ca_pem, facts=facts)
        return keys.install(folder)
    except OSError as error:
        raise AnswerNotKept(f"{folder}: expected room for the certificate, got: {error.strerror}") from None


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


def _check_address(url: str) -> None:
    try:
        split_url(url)
    except LinkRefused:
        raise BadAddress(
            f"--fleet: expected an address that begins with https://, such as https://fleet.example:8445, got {url!r}"
        ) from None


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
    except LinkLost as error:
        raise _silent(error) from None
    finally:
        wire.close()


def _refused(error: LinkRefused) -> IdentityError:
    if error.status not in (401, 403, 409, 410):
        return EnrolmentFailed(str(error))
    refusal = TokenRefused(str(error), status=error.status)
    if error.hint != LinkRefused.hint:
        refusal.hint = error.hint
    return refusal


def _silent(error: LinkLost) -> FleetSilent:
    """What the agent's own link would say of itself, such as that it retries, is not true of a command."""
    kind = NotThatFleet if isinstance(error, FleetNotTrusted) else FleetSilent
    silent = kind(str(error), retry_after_s=error.retry_after_s)
    if error.hint != type(error).hint:  # the fleet's own words
        silent.hint = error.hint
    return silent
