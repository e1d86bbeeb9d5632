"""What the reports prove: where a device stands, what a phase shows, and how little a small sample says.

Silence proves nothing: a device that has not answered is unknown, never a success. Every verdict comes with its
sentence, because a person has to act on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.reported import RESTING, LiveModel, ReportedModel, ReportedState, UpdateState, UpdateStatus
from edgeward_fleet.rollouts.model import Back, Gates, PhaseSpec, RolloutDevice, Standing, reasons_of

FAILURES: Final = frozenset(
    {
        UpdateState.FAILED,
        UpdateState.REJECTED,
        UpdateState.ROLLED_BACK,
        UpdateState.STRANDED,
        UpdateState.CANCELLED,
    }
)
# WAITING too: what a device says of an attempt before it is offered the release (again) proves nothing of the new one.
_UNMOVED: Final = frozenset({Standing.WAITING, Standing.FAILED, Standing.LEFT, Standing.ALREADY})
_SETTLED_BACK: Final = frozenset({Back.NONE, Back.PROVEN, Back.NEVER_TOOK, Back.LEFT})
_SHOWN: Final = 5
_MOST: Final = (1 << 63) - 1  # that a database holds; a device that says so at each restart comes to more


class Outcome(StrEnum):
    """The verdict on a phase."""

    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`reason` is a sentence for people."""

    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What is known of a phase. `total` is the frozen denominator, with the `lost`: offered the release, then gone.

    A device that goes takes its proof along, so it counts against success until a person resumes without it; it is no
    failure either, so failures are counted among those that are `present`. `left` are all that went.

    `faded` succeeded and have not been heard of since: they are none of the `succeeded`.
    """

    total: int = 0
    succeeded: int = 0
    already: int = 0
    failed: int = 0
    working: int = 0
    unknown: int = 0
    waiting: int = 0
    left: int = 0
    lost: int = 0
    joined_late: int = 0
    requests: int = 0
    errors: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    faded: tuple[str, ...] = ()

    @property
    def present(self) -> int:
        return self.total - self.lost

    @property
    def good(self) -> int:
        return self.succeeded + self.already

    @property
    def is_deserted(self) -> bool:
        """Every device is gone: whatever the gates ask, there is no evidence and there will be none."""
        return self.left > 0 and not self.present

    @property
    def success_percent(self) -> float:
        """100 for a phase that never had a device: nothing was asked of it."""
        if not self.total:
            return 0.0 if self.left else 100.0
        return 100.0 * self.good / self.total

    @property
    def failed_percent(self) -> float:
        return 100.0 * self.failed / self.present if self.present else 0.0

    @property
    def failure_bound_percent(self) -> float:
        """The upper 95 % bound (one-sided, Clopper and Pearson) of the rate at which such devices fail, given those
        that have answered: with none of 12 failed it is still 22 %. Of many failures it takes long, and no gate asks.
        """
        return 100.0 * upper_bound(self.failed, self.succeeded)

    @property
    def error_percent(self) -> float:
        return 100.0 * self.errors / self.requests if self.requests else 0.0


def observe(device: RolloutDevice, model: ModelName, sha256: Sha256, reported: ReportedState) -> RolloutDevice:
    """`device` as `reported` leaves it: its standing while the release is offered, its proof while it is taken back."""
    said = reported.models.get(model, ReportedModel())
    seen = _with_traffic(device, sha256, said.live)
    if seen.back is Back.ASKED:
        return replace(seen, back=Back.PROVEN) if _is_back(seen, said, reported.generation) else seen
    if not seen.offered or seen.standing in _UNMOVED:
        return seen
    return _with_standing(seen, sha256, said, reported.generation)


def tally(devices: Sequence[RolloutDevice], *, heard_since: datetime | None = None) -> Evidence:
    """Count the devices of one phase; with `heard_since`, a success of which no report says that it lasts is none."""
    faded = [each for each in devices if heard_since is not None and _has_faded(each, heard_since)]
    gone = [each for each in devices if each.standing is Standing.LEFT]
    present = [each for each in devices if each.counted and each.standing is not Standing.LEFT]
    lost = sum(each.counted and each.offered for each in gone)
    count = {standing: sum(each.standing is standing for each in present) for standing in Standing}
    return Evidence(
        total=len(present) + lost,
        succeeded=count[Standing.SUCCEEDED] - sum(each.counted for each in faded),
        already=count[Standing.ALREADY],
        failed=count[Standing.FAILED],
        working=count[Standing.WORKING],
        unknown=count[Standing.UNKNOWN],
        waiting=count[Standing.WAITING],
        left=len(gone),
        lost=lost,
        joined_late=sum(not each.counted and each.standing is not Standing.LEFT for each in devices),
        requests=sum(each.requests for each in present),
        errors=sum(each.errors for each in present),
        reasons=reasons_of(tuple(present)),
        silent=tuple(sorted(each.device for each in present if each.standing is Standing.UNKNOWN)),
        faded=tuple(sorted(each.device for each in faded)),
    )


def _has_faded(device: RolloutDevice, since: datetime) -> bool:
    is_heard = device.heard_at is not None and device.heard_at >= since
    return device.standing is Standing.SUCCEEDED and not is_heard


def breach(phase: PhaseSpec, gates: Gates, evidence: Evidence) -> str | None:
    """The sentence that says why the phase has failed, as soon as it has."""
    if evidence.failed_percent > gates.max_failed_percent:
        return (
            f"{evidence.failed} of {_devices(evidence.present)} of phase '{phase.name}' failed "
            f"({_reasons(evidence.reasons)}); at most {gates.max_failed_percent:g} % may"
        )
    enough = evidence.errors >= gates.min_errors or gates.max_error_percent == 0
    if enough and evidence.error_percent > gates.max_error_percent:
        return (
            f"{evidence.errors} of {evidence.requests} requests ({evidence.error_percent:.2g} %) to the new release in "
            f"phase '{phase.name}' ended in an error of the model; at most {gates.max_error_percent:g} % may"
        )
    return None


def has_enough(gates: Gates, evidence: Evidence) -> bool:
    """Whether as many devices have proven their success as the gate asks for; one has to where it asks for none."""
    is_bare = evidence.total > 0 and not evidence.good
    return not evidence.is_deserted and not is_bare and evidence.success_percent >= gates.min_success_percent


def verdict(phase: PhaseSpec, gates: Gates, evidence: Evidence) -> Verdict:
    """The verdict at the end of a phase."""
    failure = breach(phase, gates, evidence)
    if failure:
        return Verdict(outcome=Outcome.FAILED, reason=failure)
    if has_enough(gates, evidence):
        return Verdict(outcome=Outcome.PASSED, reason=_passed(phase, evidence))
    why = _deserted(phase, evidence) if evidence.is_deserted else _inconclusive(phase, gates, evidence)
    return Verdict(outcome=Outcome.INCONCLUSIVE, reason=why)


def not_yet_back(devices: Sequence[RolloutDevice]) -> tuple[RolloutDevice, ...]:
    """The devices whose former release is asked for and not proven."""
    return tuple(each for each in devices if each.back not in _SETTLED_BACK)


def upper_bound(failed: int, succeeded: int, *, confidence: float = 0.95) -> float:
    """The largest failure rate that `failed` failures in `failed + succeeded` trials do not rule out; 1.0 without any.

    Source: C. Clopper, E. S. Pearson, Biometrika 26 (1934), one-sided.
    """
    if succeeded == 0:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _at_most(failed, failed + succeeded, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _with_traffic(device: RolloutDevice, sha256: Sha256, live: LiveModel | None) -> RolloutDevice:
    if live is None or live.sha256 != sha256 or not device.offered:
        return device
    said, before = live.traffic, (device.earlier_requests, device.earlier_errors)
    if said.requests < before[0] + device.requests or said.errors < before[1] + device.errors:
        before = (-device.requests, -device.errors)  # the serving process is another one: it began at 0, we go on
    return replace(
        device,
        requests=min(said.requests - before[0], _MOST),
        errors=min(said.errors - before[1], _MOST),
        earlier_requests=before[0],
        earlier_errors=before[1],
    )


def _with_standing(device: RolloutDevice, sha256: Sha256, said: ReportedModel, generation: int) -> RolloutDevice:
    update = said.update if said.update and said.update.deployment == device.deployment else None
    if update and update.state in FAILURES:
        reason = update.reason or update.state.value.lower()
        return replace(device, standing=Standing.FAILED, reason=reason, detail=update.detail)
    if generation < device.generation:
        return replace(device, standing=Standing.UNKNOWN, reason="", detail="")
    if _is_committed(said.live, sha256) and _rests(said.update):
        return replace(device, standing=Standing.SUCCEEDED, reason="", detail="")
    if update is None:
        return replace(
            device, standing=Standing.UNKNOWN, reason="", detail="the report does not mention the deployment"
        )
    return replace(device, standing=Standing.WORKING, reason=update.state.value.lower(), detail=update.detail)


def _is_back(device: RolloutDevice, said: ReportedModel, generation: int) -> bool:
    if generation < device.back_generation or not _rests(said.update):
        return False
    if device.former is None:
        return said.live is None
    return _is_committed(said.live, device.former.sha256)


def _is_committed(live: LiveModel | None, sha256: Sha256) -> bool:
    return live is not None and live.sha256 == sha256 and live.slot == "current"


def _rests(update: UpdateStatus | None) -> bool:
    return update is None or update.state in RESTING


def _at_most(successes: int, trials: int, rate: float) -> float:
    """The probability of at most `successes` hits; in logarithms, because the coefficients overflow."""
    if rate <= 0.0:
        return 1.0
    if rate >= 1.0:
        return 1.0 if successes >= trials else 0.0
    return math.fsum(math.exp(_log_binomial(hits, trials, rate)) for hits in range(successes + 1))


def _log_binomial(hits: int, trials: int, rate: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(hits + 1) - math.lgamma(trials - hits + 1)
    return ways + hits * math.log(rate) + (trials - hits) * math.log1p(-rate)


def _passed(phase: PhaseSpec, evidence: Evidence) -> str:
    if not evidence.total:
        return f"phase '{phase.name}' has no device of its own"
    text = f"{evidence.good} of {_devices(evidence.total)} of phase '{phase.name}' succeeded"
    if not evidence.succeeded:
        return f"{text}; all had the release before"
    return (
        f"{text}; by this evidence up to {evidence.failure_bound_percent:.2g} % of such devices could still fail (95 %)"
    )


def _deserted(phase: PhaseSpec, evidence: Evidence) -> str:
    whom = "its only device has left" if evidence.left == 1 else f"all its {evidence.left} devices have left"
    return (
        f"nothing shows what the release does in phase '{phase.name}': {whom} (revoked, or given something else); "
        "abort or roll back, then ask for a new rollout"
    )


def _inconclusive(phase: PhaseSpec, gates: Gates, evidence: Evidence) -> str:
    must = f"{gates.min_success_percent:g} % must" if gates.min_success_percent else "one must"
    parts = [
        f"phase '{phase.name}' timed out after {phase.timeout_s} s: "
        f"{evidence.good} of {_devices(evidence.total)} succeeded, {must}"
    ]
    if evidence.silent:
        parts.append(f"{evidence.unknown} not heard of ({_names(evidence.silent)})")
    if evidence.faded:
        parts.append(f"{len(evidence.faded)} not heard of since success ({_names(evidence.faded)})")
    if evidence.working:
        parts.append(f"{evidence.working} still at it")
    if evidence.lost:
        have = "1 has" if evidence.lost == 1 else f"{evidence.lost} have"
        parts.append(f"{have} left since the offer; a resume goes on without")
    return "; ".join(parts)


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"


def _names(devices: Sequence[str]) -> str:
    return ", ".join(devices[:_SHOWN]) + (", …" if len(devices) > _SHOWN else "")


def _reasons(reasons: Mapping[str, int]) -> str:
    words = [reason if len(reasons) == 1 else f"{count} {reason}" for reason, count in reasons.items()]
    return ", ".join(words[:_SHOWN]) + (", …" if len(words) > _SHOWN else "")
