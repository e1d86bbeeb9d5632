"""Reported state: what a device is and how its update stands, as it appears on the wire.

The names of the update states are part of the contract; the transitions between them are the agent's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from edgeward_contract.artifact import ModelName, ReleaseRef, Sha256, model_name, read_sha256
from edgeward_contract.schema import Fields, JsonValue, canonical_json, check_schema, parse_json
from edgeward_contract.traffic import Traffic

SCHEMA: Final = 1
MAX_REPORTED_BYTES: Final = 32 * 1024


class UpdateState(StrEnum):
    """Where a deployment stands on one device."""

    OFFERED = "OFFERED"
    ACCEPTED = "ACCEPTED"
    DEFERRED = "DEFERRED"
    RETRY_WAIT = "RETRY_WAIT"
    DOWNLOADING = "DOWNLOADING"
    VERIFYING = "VERIFYING"
    PROBING = "PROBING"
    ACTIVATING = "ACTIVATING"
    PROBATION = "PROBATION"
    COMMITTED = "COMMITTED"
    ROLLING_BACK = "ROLLING_BACK"
    ROLLED_BACK = "ROLLED_BACK"
    STRANDED = "STRANDED"
    FAILED = "FAILED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    SUPERSEDED = "SUPERSEDED"


RESTING: Final = frozenset(
    {
        UpdateState.COMMITTED,
        UpdateState.ROLLED_BACK,
        UpdateState.STRANDED,
        UpdateState.FAILED,
        UpdateState.REJECTED,
        UpdateState.CANCELLED,
        UpdateState.SUPERSEDED,
    }
)
"""States in which nothing more will happen to a deployment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStatus:
    """The newest deployment of a model. `reason` is one word for machines, `detail` one sentence for people."""

    deployment: str
    release: ReleaseRef
    state: UpdateState
    reason: str = ""
    detail: str = ""
    attempt: int = 0
    progress_percent: int = 0

    @classmethod
    def read(cls, fields: Fields) -> UpdateStatus:
        return cls(
            deployment=fields.text("deployment", max_length=64),
            release=ReleaseRef.parse(fields.text("release")),
            state=fields.choice("state", UpdateState),
            reason=fields.text("reason", default="", max_length=64),
            detail=fields.text("detail", default=""),
            attempt=fields.integer("attempt", default=0, minimum=0),
            progress_percent=fields.integer("progress_percent", default=0, minimum=0, maximum=100),
        )

    def document(self) -> dict[str, JsonValue]:
        return {
            "deployment": self.deployment,
            "release": str(self.release),
            "state": self.state.value,
            "reason": self.reason,
            "detail": self.detail,
            "attempt": self.attempt,
            "progress_percent": self.progress_percent,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveModel:
    """The release that answers now, and whether it is committed (`current`) or on probation (`candidate`).

    `fallback` says why it does not run on the execution provider that its manifest wants; empty when it does.
    """

    release: ReleaseRef
    sha256: Sha256
    slot: str
    traffic: Traffic = field(default_factory=Traffic)
    fallback: str = ""

    @classmethod
    def read(cls, fields: Fields) -> LiveModel:
        return cls(
            release=ReleaseRef.parse(fields.text("release")),
            sha256=read_sha256(fields, "sha256"),
            slot=fields.text("slot", max_length=16),
            traffic=Traffic.read(fields.object("traffic")) if fields.has("traffic") else Traffic(),
            fallback=fields.text("fallback", default=""),
        )

    def document(self) -> dict[str, JsonValue]:
        return {
            "release": str(self.release),
            "sha256": self.sha256,
            "slot": self.slot,
            "traffic": self.traffic.document(),
            "fallback": self.fallback,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedModel:
    """One model on the device. Either part may be absent: nothing live yet, or never updated by the fleet."""

    live: LiveModel | None = None
    update: UpdateStatus | None = None

    @classmethod
    def read(cls, fields: Fields) -> ReportedModel:
        return cls(
            live=LiveModel.read(fields.object("live")) if fields.has("live") else None,
            update=UpdateStatus.read(fields.object("update")) if fields.has("update") else None,
        )

    def document(self) -> dict[str, JsonValue]:
        return {
            "live": self.live.document() if self.live else None,
            "update": self.update.document() if self.update else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceHealth:
    """What an admin wants to see at a glance. Times in seconds, sizes in bytes."""

    serving_ready: bool = False  # it answers, with every model that has a current release
    serving_restarts: int = 0
    outbox_records: int = 0
    outbox_oldest_s: int = 0
    quarantined: int = 0
    results_not_kept: int = 0  # answered since the agent started, and recorded nowhere
    disk_free_bytes: int = 0
    certificate_days_left: int = 0
    clock_trusted: bool = True
    alarms: str = ""  # space-separated words; empty is well

    @classmethod
    def read(cls, fields: Fields) -> DeviceHealth:
        return cls(
            serving_ready=fields.boolean("serving_ready", default=False),
            serving_restarts=fields.integer("serving_restarts", default=0, minimum=0),
            outbox_records=fields.integer("outbox_records", default=0, minimum=0),
            outbox_oldest_s=fields.integer("outbox_oldest_s", default=0, minimum=0),
            quarantined=fields.integer("quarantined", default=0, minimum=0),
            results_not_kept=fields.integer("results_not_kept", default=0, minimum=0),
            disk_free_bytes=fields.integer("disk_free_bytes", default=0, minimum=0),
            certificate_days_left=fields.integer("certificate_days_left", default=0),
            clock_trusted=fields.boolean("clock_trusted", default=True),
            alarms=fields.text("alarms", default=""),
        )

    def document(self) -> dict[str, JsonValue]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedState:
    """All that a device says of itself. `generation` is the desired generation that it answers.

    `boot` and `sequence` order the reports of a device: within one boot of the agent the higher sequence is newer.
    """

    generation: int
    boot: str
    sequence: int
    agent_version: str
    models: Mapping[ModelName, ReportedModel] = field(default_factory=dict)
    health: DeviceHealth = field(default_factory=DeviceHealth)

    @classmethod
    def parse(cls, data: bytes) -> ReportedState:
        """Raises ContractError, which names the key."""
        fields = parse_json(data, limit_bytes=MAX_REPORTED_BYTES)
        check_schema(fields, SCHEMA)
        models = fields.mapping("models", ReportedModel.read)
        return cls(
            generation=fields.integer("generation", minimum=0),
            boot=fields.text("boot", max_length=64),
            sequence=fields.integer("sequence", minimum=0),
            agent_version=fields.text("agent_version", max_length=64),
            models={model_name(name, "models"): model for name, model in models.items()},
            health=DeviceHealth.read(fields.object("health")) if fields.has("health") else DeviceHealth(),
        )

    def canonical(self) -> bytes:
        return canonical_json(
            {
                "schema": SCHEMA,
                "generation": self.generation,
                "boot": self.boot,
                "sequence": self.sequence,
                "agent_version": self.agent_version,
                "models": {name: model.document() for name, model in self.models.items()},
                "health": self.health.document(),
            }
        )
