"""How a rollout looks from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, JsonValue

from edgeward_fleet.rollouts.analysis import Evidence, not_yet_back
from edgeward_fleet.rollouts.decide import evidence_of
from edgeward_fleet.rollouts.listing import Counts
from edgeward_fleet.rollouts.machine import FINAL, PhaseStep, RolloutState, commands
from edgeward_fleet.rollouts.model import Back, Rollout, RolloutDevice, Standing
from edgeward_fleet.rollouts.repository import Authorship, RolloutLine
from edgeward_fleet.rollouts.service import RolloutRecord


class PhaseStatus(StrEnum):
    """Where a phase stands, at a glance."""

    WAITING = "waiting"
    OPEN = "open"
    PASSED = "passed"
    STOPPED = "stopped"


class EvidenceView(BaseModel):
    """Devices of the phase by what is proven of them.

    `unknown` have not answered the offer; `failure_bound_percent` is the failure rate that the answers do not rule out
    (one-sided 95 %).
    """

    total: int
    succeeded: int
    already: int
    failed: int
    working: int
    unknown: int
    waiting: int
    left: int
    lost: int
    joined_late: int
    requests: int
    errors: int
    error_percent: float
    success_percent: float
    failed_percent: float
    failure_bound_percent: float
    reasons: dict[str, int]

    @classmethod
    def of(cls, evidence: Evidence) -> EvidenceView:
        return cls(
            total=evidence.total,
            succeeded=evidence.succeeded,
            already=evidence.already,
            failed=evidence.failed,
            working=evidence.working,
            unknown=evidence.unknown,
            waiting=evidence.waiting,
            left=evidence.left,
            lost=evidence.lost,
            joined_late=evidence.joined_late,
            requests=evidence.requests,
            errors=evidence.errors,
            error_percent=round(evidence.error_percent, 3),
            success_percent=round(evidence.success_percent, 3),
            failed_percent=round(evidence.failed_percent, 3),
            failure_bound_percent=round(evidence.failure_bound_percent, 3),
            reasons=dict(evidence.reasons),
        )


class PhaseView(BaseModel):
    """One phase: what was asked for, and what is known."""

    index: int
    name: str
    percent: int | None
    devices: int | None
    soak_s: int
    timeout_s: int
    status: PhaseStatus
    evidence: EvidenceView


class RolloutDeviceView(BaseModel):
    """One device. `former` is what it is given back in a roll-back; `back` says how far that is."""

    device: str
    site: str
    phase: int
    phase_name: str
    counted: bool
    standing: Standing
    reason: str
    detail: str
    deployment: str | None
    former: str | None
    back: Back
    requests: int
    errors: int

    @classmethod
    def of(cls, device: RolloutDevice, rollout: Rollout) -> RolloutDeviceView:
        return cls(
            device=device.device,
            site=device.site,
            phase=device.phase,
            phase_name=rollout.spec.phases[device.phase].name,
            counted=device.counted,
            standing=device.standing,
            reason=device.reason,
            detail=device.detail,
            deployment=device.deployment,
            former=str(device.former.release) if device.former else None,
            back=device.back,
            requests=device.requests,
            errors=device.errors,
        )


class RolloutSummary(BaseModel):
    """A rollout as a line of the list. `counts` are devices by standing; `finished`: nothing more will happen."""

    id: str
    name: str
    release: str
    model: str
    release_sha256: str
    spec_sha256: str
    state: RolloutState
    finished: bool
    phase: int
    phase_name: str
    step: PhaseStep | None
    reason: str
    counts: dict[str, int]
    created_at: datetime
    created_by: str
    approved_at: datetime | None
    approved_by: str | None
    since: datetime
    can: list[str]

    @classmethod
    def of(cls, rollout: Rollout, authorship: Authorship, counts: Counts) -> RolloutSummary:
        return cls(
            id=rollout.id,
            name=rollout.spec.name,
            release=str(rollout.spec.release),
            model=rollout.model,
            release_sha256=rollout.release_sha256,
            spec_sha256=rollout.spec.sha256(),
            state=rollout.state,
            finished=rollout.state in FINAL,
            phase=rollout.phase,
            phase_name=rollout.open_phase.name,
            step=rollout.step if rollout.state is RolloutState.PROGRESSING else None,
            reason=rollout.reason,
            counts={standing.value: counts[standing] for standing in Standing if standing in counts},
            created_at=rollout.created_at,
            created_by=authorship.created_by,
            approved_at=authorship.approved_at,
            approved_by=authorship.approved_by,
            since=rollout.since,
            can=[event.value for event in commands(rollout.state)],
        )


class RolloutView(RolloutSummary):
    """A rollout with everything. `not_proven_back` lists the devices that a roll-back still waits for."""

    spec: dict[str, JsonValue]
    phases: list[PhaseView]
    devices: list[RolloutDeviceView]
    not_proven_back: list[str]

    @classmethod
    def full(cls, found: RolloutRecord) -> RolloutView:
        rollout = found.rollout
        standings = Counter(device.standing for device in rollout.devices)
        spec: Mapping[str, JsonValue] = rollout.spec.document()
        return cls(
            **RolloutSummary.of(rollout, found.authorship, standings).model_dump(),
            spec=dict(spec),
            phases=[_phase(rollout, index) for index in range(len(rollout.spec.phases))],
            devices=[RolloutDeviceView.of(device, rollout) for device in rollout.devices],
            not_proven_back=[device.device for device in not_yet_back(rollout.devices)],
        )


class RolloutPage(BaseModel):
    """Rollouts, newest first; `next` is the `after` of the next page."""

    items: list[RolloutSummary]
    next: datetime | None


class EventView(BaseModel):
    """A line in the life of a rollout; `actor` is a person, a device or `system`."""

    id: int
    at: datetime
    actor: str
    kind: str
    detail: str

    @classmethod
    def of(cls, line: RolloutLine) -> EventView:
        return cls(id=line.event_id, at=line.at, actor=line.actor, kind=line.kind, detail=line.detail)


class EventPage(BaseModel):
    """Events, oldest first; `next` is the `after` of the next page."""

    items: list[EventView]
    next: int | None


def _phase(rollout: Rollout, index: int) -> PhaseView:
    spec = rollout.spec.phases[index]
    return PhaseView(
        index=index,
        name=spec.name,
        percent=spec.percent,
        devices=spec.devices,
        soak_s=spec.soak_s,
        timeout_s=spec.timeout_s,
        status=phase_status(rollout, index),
        evidence=EvidenceView.of(evidence_of(rollout, index)),
    )


def phase_status(rollout: Rollout, index: int) -> PhaseStatus:
    """Where the phase stands; the dashboard shows the same word."""
    if rollout.state is RolloutState.SUCCEEDED or index < rollout.phase:
        return PhaseStatus.PASSED
    if index > rollout.phase or rollout.state in (RolloutState.AWAITING_APPROVAL, RolloutState.SCHEDULED):
        return PhaseStatus.WAITING
    return PhaseStatus.OPEN if rollout.state is RolloutState.PROGRESSING else PhaseStatus.STOPPED
