"""Every path of the device and enrolment ports, in one place, for both sides. MQTT topics join them here."""

from __future__ import annotations

from typing import Final

from edgeward_contract.artifact import Sha256

CA: Final = "/enrolment/v1/ca"
ENROL: Final = "/enrolment/v1/enrol"

DESIRED: Final = "/device/v1/desired"
REPORTED: Final = "/device/v1/reported"
RECORDS: Final = "/device/v1/records"
CERTIFICATE: Final = "/device/v1/certificate"
MANIFEST: Final = "/device/v1/manifests/{sha256}"
CHUNK_INDEX: Final = "/device/v1/artifacts/{sha256}/index"
CHUNK: Final = "/device/v1/chunks/{sha256}"

MAX_PARK_S: Final = 55
"""How long a poll for desired state may be parked; below the idle time-outs of common proxies (60 s)."""


def desired_path(after: int, wait_s: int) -> str:
    """Long poll: answers at once with a generation above `after`, else after `wait_s` with 204."""
    return f"{DESIRED}?after={after}&wait={wait_s}"


def manifest_path(sha256: Sha256) -> str:
    return MANIFEST.format(sha256=sha256)


def chunk_index_path(sha256: Sha256) -> str:
    return CHUNK_INDEX.format(sha256=sha256)


def chunk_path(sha256: Sha256) -> str:
    return CHUNK.format(sha256=sha256)
