"""Releases as values, and the rules that a new one must meet; pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from edgeward_contract.artifact import MAX_VERSION, ModelName, ReleaseRef, Sha256, new_model_name, sha256_of
from edgeward_contract.manifest import Manifest
from edgeward_contract.schema import ContractError
from edgeward_fleet.errors import Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A registered model version. `sha256` is the digest of `manifest`, the exact bytes that devices get."""

    ref: ReleaseRef
    sha256: Sha256
    manifest: bytes
    created_at: datetime
    created_by: str

    def parsed(self) -> Manifest:
        return Manifest.parse(self.manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhereItRuns:
    """Devices, by what the fleet wants and what they report. `current` is committed, `candidate` on probation."""

    desired: int
    current: int
    candidate: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """A model and its newest version."""

    name: ModelName
    releases: int
    latest: Release


def read_manifest(data: bytes) -> Manifest:
    """Raises Invalid: not a manifest, or not in the canonical form whose digest every reader computes alike."""
    try:
        manifest = Manifest.parse(data)
        new_model_name(manifest.name, "name")
    except ContractError as error:
        raise Invalid(f"manifest: {error}", hint="`edgeward model pack` writes a valid one.") from None
    if manifest.version > MAX_VERSION:
        raise Invalid(f"manifest: version: expected 1 to {MAX_VERSION}, got {manifest.version}")
    if manifest.canonical() != data:
        raise Invalid(
            f"manifest: expected its canonical bytes ({manifest.sha256()[:12]}…), got others ({sha256_of(data)[:12]}…)",
            hint="Send the file that `edgeward model pack` wrote, byte for byte.",
        )
    return manifest
