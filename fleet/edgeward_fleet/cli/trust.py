"""First contact: how the command comes to trust a fleet whose CA nobody else knows.

The fleet prints its CA's fingerprint at start; the CA itself is fetched without trust, held against that
fingerprint, and from then on nothing is said to the fleet that is not protected by it.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from typing import Final

import httpx

from edgeward_contract.schema import ContractError, parse_json
from edgeward_fleet.cli.client import API, unreachable
from edgeward_fleet.cli.errors import BadUsage, CommandFailed, NotAllowed

_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_FINGERPRINT: Final = re.compile(r"sha256:[0-9a-f]{64}")


def fingerprints(pem: str) -> dict[str, str]:
    """Each certificate of `pem` by `sha256:` and the digest of its DER form. Raises ValueError when there is none."""
    found = {_fingerprint(block): block for block in _BLOCK.findall(pem)}
    if not found:
        raise ValueError("no certificate")
    return found


def _fingerprint(block: str) -> str:
    return f"sha256:{hashlib.sha256(ssl.PEM_cert_to_DER_cert(block)).hexdigest()}"


def normal_fingerprint(text: str) -> str:
    """Accepts the colons and capitals of other tools. Raises BadUsage."""
    digest = text.strip().lower().removeprefix("sha256:").removeprefix("sha256=").replace(":", "")
    normal = f"sha256:{digest}"
    if not _FINGERPRINT.fullmatch(normal):
        raise BadUsage(f"--ca-fingerprint: expected sha256: and 64 hexadecimal digits, got {text!r}")
    return normal


def fetch_ca(url: str) -> str:
    """The CA that the fleet shows, not yet trusted. Raises Undecided, CommandFailed."""
    try:
        # Nothing secret is sent, and what comes back is used only after its fingerprint has been compared.
        with httpx.Client(verify=False, timeout=10.0, trust_env=False) as http:  # noqa: S501
            response = http.get(f"{url}{API}/ca")
        pem = parse_json(response.content).text("ca_pem", max_length=100_000)
        fingerprints(pem)
    except httpx.RequestError as error:
        raise unreachable(url, error) from None
    except (ContractError, ValueError) as error:
        raise CommandFailed(
            f"{url}: expected a fleet's CA, found: {error}", hint="Is this its admin address?"
        ) from None
    return pem


def pin(url: str, wanted: str) -> str:
    """The fleet's CA, once its fingerprint is the `wanted` one. Raises NotAllowed when it is another's."""
    found, wanted = fingerprints(fetch_ca(url)), normal_fingerprint(wanted)
    if wanted not in found:
        raise NotAllowed(
            f"{url}: expected the CA {wanted}, found {', '.join(found)}",
            hint="Compare with what the fleet printed at start. If they differ, somebody is in between: stop here.",
        )
    return found[wanted]
