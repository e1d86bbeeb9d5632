"""Gates with their evidence, and how little a small sample proves."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edgeward_fleet.api.rollout_views import PhaseStatus
from edgeward_fleet.dashboard.words import duration, number, percent, plural
from edgeward_fleet.rollouts.analysis import Evidence
from edgeward_fleet.rollouts.model import Gates, PhaseSpec


class Judgement(StrEnum):
    """What the evidence says of a gate so far."""

    HOLDS = "holds"
    OPEN = "not yet"
    BREACHED = "breached"
    MISSED = "missed"
    UNTRIED = "no evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """One criterion: what it asks for, what was seen, what follows. `href` leads to who speaks against it."""

    name: str
    limit: str
    seen: str
    judgement: Judgement
    href: str = ""

    @property
    def tone(self) -> str:
        return _TONES.get(self.judgement, "idle")


_TONES: Final = {Judgement.HOLDS: "ok", Judgement.BREACHED: "bad", Judgement.MISSED: "bad"}


def gates_of(gates: Gates, evidence: Evidence, status: PhaseStatus) -> tuple[Gate, ...]:
    """The three gates of a phase, by the same rules as the verdict (`rollouts.analysis`)."""
    return (_failed(gates, evidence), _succeeded(gates, evidence, status), _errors(gates, evidence))


def asks(gates: Gates, phase: PhaseSpec) -> str:
    """What a phase must show before the next one opens; an approver reads this before there is any evidence."""
    least = f", and at least {number(gates.min_errors)}," if gates.max_error_percent else ""
    return (
        f"Passes when at least {percent(gates.min_success_percent)} of its devices have succeeded and stay so for "
        f"{duration(phase.soak_s)}. Fails when more than {percent(gates.max_failed_percent)} fail, or when more than "
        f"{percent(gates.max_error_percent)} of the answers{least} are errors. "
        f"Gives up after {duration(phase.timeout_s)}."
    )


def honesty(evidence: Evidence) -> str:
    """What the answers so far do not rule out."""
    answered = evidence.succeeded + evidence.failed
    if not answered:
        return "No device has proven anything yet, so nothing is known of the failure rate."
    return (
        f"{plural(evidence.failed, 'failure')} in {plural(answered, 'device')} bounds the failure rate at "
        f"{percent(evidence.failure_bound_percent)} (95 % confidence)."
    )


def _failed(gates: Gates, evidence: Evidence) -> Gate:
    breached = evidence.failed_percent > gates.max_failed_percent
    answered = evidence.succeeded + evidence.already + evidence.failed
    judgement = Judgement.BREACHED if breached else Judgement.HOLDS if answered else Judgement.UNTRIED
    return Gate(
        name="Devices failed",
        limit=f"at most {percent(gates.max_failed_percent)}",
        seen=f"{number(evidence.failed)} of {number(evidence.present)} ({percent(evidence.failed_percent)})",
        judgement=judgement,
        href="?standing=FAILED#devices" if evidence.failed else "",
    )


def _succeeded(gates: Gates, evidence: Evidence, status: PhaseStatus) -> Gate:
    good = evidence.succeeded + evidence.already
    reached = evidence.success_percent >= gates.min_success_percent
    late = Judgement.MISSED if status is PhaseStatus.STOPPED else Judgement.OPEN
    return Gate(
        name="Devices succeeded",
        limit=f"at least {percent(gates.min_success_percent)}",
        seen=f"{number(good)} of {number(evidence.total)}",
        judgement=Judgement.HOLDS if reached and evidence.total else late if evidence.total else Judgement.UNTRIED,
    )


def _errors(gates: Gates, evidence: Evidence) -> Gate:
    enough = evidence.errors >= gates.min_errors or gates.max_error_percent == 0
    breached = enough and evidence.error_percent > gates.max_error_percent
    judgement = Judgement.BREACHED if breached else Judgement.HOLDS if evidence.requests else Judgement.UNTRIED
    least = f", from {plural(gates.min_errors, 'error')} on" if gates.max_error_percent else ""
    return Gate(
        name="Errors in answers",
        limit=f"at most {percent(gates.max_error_percent)}{least}",
        seen=_errors_seen(evidence),
        judgement=judgement,
    )


def _errors_seen(evidence: Evidence) -> str:
    if not evidence.requests:
        return "no answers yet"
    return f"{number(evidence.errors)} of {number(evidence.requests)} ({percent(evidence.error_percent)})"
