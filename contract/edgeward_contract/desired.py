"""Desired state: the small pointer that says which release a device should run.

It must fit the narrowest carrier (an Azure twin, an 8 KB shadow, a nucleus configuration leaf): no arrays,
every string at most 900 characters, 3 kB in all. What it points at is fetched and checked by digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from edgeward_contract.artifact import ModelName, ReleaseRef, Sha256, model_name, read_sha256
from edgeward_contract.schema import ContractError, Fields, JsonValue, canonical_json, check_schema, parse_json

SCHEMA: Final = 1
MAX_DESIRED_BYTES: Final = 3000
MAX_GENERATION: Final = 1 << 53
"""What every JSON reader can count to. A device may claim no more: the fleet counts on from what it is told."""


class Mode(StrEnum):
    """How a release is taken into use."""

    ACTIVE = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredModel:
    """One release that should be live. `deployment` names the change, so that a report can answer it."""

    release: ReleaseRef
    sha256: Sha256  # of the manifest's bytes
    deployment: str
    mode: Mode = Mode.ACTIVE

    @classmethod
    def read(cls, fields: Fields) -> DesiredModel:
        return cls(
            release=ReleaseRef.parse(fields.text("release")),
            sha256=read_sha256(fields, "sha256"),
            deployment=fields.text("deployment", max_length=64),
            mode=fields.choice("mode", Mode, default=Mode.ACTIVE),
        )

    def document(self) -> dict[str, JsonValue]:
        return {
            "release": str(self.release),
            "version": self.release.version,
            "sha256": self.sha256,
            "deployment": self.deployment,
            "mode": self.mode.value,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """All that a device should be. A model that is not named should not be there. Newer means a higher generation."""

    generation: int
    models: Mapping[ModelName, DesiredModel] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> DesiredState:
        """Raises ContractError, which names the key."""
        fields = parse_json(data, limit_bytes=MAX_DESIRED_BYTES)
        check_schema(fields, SCHEMA)
        models = fields.mapping("models", DesiredModel.read)
        for name, model in models.items():
            if model.release.name != name:
                raise ContractError(f"models.{name}.release", f"expected a release of {name}, got {model.release}")
        return cls(
            generation=fields.integer("generation", minimum=0),
            models={model_name(name, "models"): model for name, model in models.items()},
        )

    def canonical(self) -> bytes:
        """Raises ContractError when the document would not fit the narrowest carrier."""
        data = canonical_json(
            {
                "schema": SCHEMA,
                "generation": self.generation,
                "models": {name: model.document() for name, model in self.models.items()},
            }
        )
        if len(data) > MAX_DESIRED_BYTES:
            raise ContractError("models", f"expected at most {MAX_DESIRED_BYTES} bytes in all, got {len(data)}")
        return data
