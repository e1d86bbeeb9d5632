"""The next decision about a rollout, from what is known and what time it is. Pure and repeatable.

`decide` returns one decision at a time; the ticker commits it together with its consequences (a device's new desired
state is a row in the same database) and asks again until there is none. A tick too many changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.rollouts import analysis
from edgeward_fleet.rollouts.analysis import Outcome
from edgeward_fleet.rollouts.machine import (
    PhaseStep,
    RolloutEvent,
    RolloutState,
    StepEvent,
    advance,
    advance_step,
)
from edgeward_fleet.rollouts.model import Back, OnFailure, Rollout, RolloutDevice, Standing

APPROVAL_LIFETIME: Final = timedelta(days=30)
"""An approval that nobody has given for a month would approve what nobody remembers."""
MAX_AT_ONCE: Final = 200
"""Devices that one transaction touches; more would keep reports and polls waiting behind it."""

SHORTEST_WAIT: Final = timedelta(minutes=3)
"""For a word in a soak, however short that is and however soon the phase times out: devices report each minute."""

_ON_FAILURE: Final = {
    OnFailure.PAUSE: RolloutEvent.FAILED_PAUSE,
    OnFailure.ABORT: RolloutEvent.FAILED_ABORT,
    OnFailure.ROLLBACK: RolloutEvent.FAILED_ROLL_BACK,
}
_NAMES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """At most one event of each kind, that of the step first; the devices to offer the release or take it back from."""

    event: RolloutEvent | None = None
    step_event: StepEvent | None = None
    reason: str = ""
    offer: tuple[DeviceId, ...] = ()
    take_back: tuple[DeviceId, ...] = ()


def decide(rollout: Rollout, now: datetime) -> Decision | None:
    """What to do now; None when there is nothing to do until a report arrives or time passes."""
    match rollout.state:
        case RolloutState.AWAITING_APPROVAL:
            return _expiry(rollout, now)
        case RolloutState.SCHEDULED:
            return _start(rollout, now)
        case RolloutState.PROGRESSING:
            return _progress(rollout, now)
        case RolloutState.ABORTING | RolloutState.ROLLING_BACK | RolloutState.ROLLBACK_INCOMPLETE:
            return _go_back(rollout, now)
        case _:
            return None


def apply(rollout: Rollout, decision: Decision, now: datetime) -> Rollout:
    """`rollout` after the decision; offers and what is taken back are the service's to write."""
    if decision.step_event is not None:
        rollout = replace(rollout, step=advance_step(rollout.step, decision.step_event), step_since=now)
    return rollout if decision.event is None else moved(rollout, decision.event, decision.reason, now)


def moved(rollout: Rollout, event: RolloutEvent, reason: str, now: datetime) -> Rollout:
    """`rollout` after an event, a person's command or one of our own. Raises IllegalTransition."""
    state = advance(rollout.state, event)
    since = rollout.since if state is rollout.state else now
    after = replace(rollout, state=state, since=since, reason=reason)
    if event is RolloutEvent.START_DUE:
        return _opened(after, 0, now)
    if event is RolloutEvent.PHASE_PASSED:
        return _opened(after, rollout.phase + 1, now)
    if event is RolloutEvent.RESUME:
        return _opened(replace(after, devices=tuple(_resumed(after, each) for each in after.devices)), after.phase, now)
    return after


def evidence_of(rollout: Rollout, phase: int) -> analysis.Evidence:
    """What is known of one phase."""
    return analysis.tally(rollout.of_phase(phase))


def lasting_evidence(rollout: Rollout) -> analysis.Evidence:
    """The same of the open phase, without those that were not heard of since it soaks: what they run is unknown."""
    since = rollout.step_since if rollout.step is PhaseStep.SOAKING and rollout.open_phase.soak_s else None
    return analysis.tally(rollout.of_phase(rollout.phase), heard_since=since)


def soaked_at(rollout: Rollout) -> datetime:
    """When the phase that soaks has done so, if everybody is heard of."""
    return rollout.step_since + timedelta(seconds=rollout.open_phase.soak_s)


def _expiry(rollout: Rollout, now: datetime) -> Decision | None:
    if now < rollout.created_at + APPROVAL_LIFETIME:
        return None
    reason = f"nobody approved it within {APPROVAL_LIFETIME.days} days"
    return Decision(event=RolloutEvent.APPROVAL_EXPIRED, reason=reason)


def _start(rollout: Rollout, now: datetime) -> Decision | None:
    if rollout.spec.start_at and now < rollout.spec.start_at:
        return None
    return Decision(event=RolloutEvent.START_DUE)


def _progress(rollout: Rollout, now: datetime) -> Decision | None:
    if rollout.step is PhaseStep.ANALYSING:
        return _analyse(rollout)
    waiting = tuple(each.device for each in _open(rollout) if each.standing is Standing.WAITING)
    if waiting:  # the devices of the phase, and joiners when it is the last one
        return Decision(offer=waiting[:MAX_AT_ONCE])
    if rollout.step is PhaseStep.SELECTING:
        return Decision(step_event=StepEvent.SELECTED)
    event = _watch(rollout, now)
    if event is None:
        return None
    if advance_step(rollout.step, event) is not PhaseStep.ANALYSING:
        return Decision(step_event=event)
    # On what was seen: a report that came in between could let a phase pass that had just failed, or has not soaked.
    return replace(_analyse(rollout), step_event=event)


def _watch(rollout: Rollout, now: datetime) -> StepEvent | None:
    evidence = evidence_of(rollout, rollout.phase)
    if _breach(rollout):
        return StepEvent.BREACHED
    enough = analysis.has_enough(rollout.spec.gates, evidence)
    times_out_at = rollout.phase_since + timedelta(seconds=rollout.open_phase.timeout_s)
    timed_out = now >= times_out_at
    if rollout.step is PhaseStep.SOAKING:
        if not enough:
            return StepEvent.UNSETTLED
        lasting = analysis.has_enough(rollout.spec.gates, lasting_evidence(rollout))
        waited = now >= max(times_out_at, rollout.step_since + SHORTEST_WAIT)
        return StepEvent.SOAKED if now >= soaked_at(rollout) and (lasting or waited) else None
    if evidence.is_deserted:
        return StepEvent.DESERTED
    if enough and (timed_out or not evidence.working):
        return StepEvent.SETTLED
    return StepEvent.TIMED_OUT if timed_out else None


def _analyse(rollout: Rollout) -> Decision:
    failure = _breach(rollout)
    if failure:
        return Decision(event=_ON_FAILURE[rollout.spec.on_failure], reason=failure)
    verdict = analysis.verdict(rollout.open_phase, rollout.spec.gates, lasting_evidence(rollout))
    if verdict.outcome is not Outcome.PASSED:
        return Decision(event=RolloutEvent.INCONCLUSIVE, reason=verdict.reason)
    event = RolloutEvent.ALL_PHASES_PASSED if rollout.is_last_phase else RolloutEvent.PHASE_PASSED
    return Decision(event=event, reason=verdict.reason)


def _breach(rollout: Rollout) -> str | None:
    """The gates hold for phases that have passed, too: their devices go on reporting."""
    for number, phase in enumerate(rollout.spec.phases[: rollout.phase + 1]):
        failure = analysis.breach(phase, rollout.spec.gates, evidence_of(rollout, number))
        if failure:
            return failure
    return None


def _go_back(rollout: Rollout, now: datetime) -> Decision | None:
    to_ask = tuple(each.device for each in rollout.devices if _is_to_be_asked(rollout, each))
    if to_ask:
        return Decision(take_back=to_ask[:MAX_AT_ONCE])
    missing = analysis.not_yet_back(rollout.devices)
    timed_out = now >= rollout.since + timedelta(seconds=rollout.spec.back_timeout_s)
    if rollout.state is RolloutState.ABORTING:
        if missing and not timed_out:
            return None
        return Decision(event=RolloutEvent.WITHDRAWN, reason=_outcome(rollout, missing, "withdrawn"))
    if not missing:
        return Decision(event=RolloutEvent.ALL_PROVEN_BACK, reason=_outcome(rollout, (), "rolled back"))
    if timed_out and rollout.state is RolloutState.ROLLING_BACK:
        return Decision(event=RolloutEvent.BACK_TIMED_OUT, reason=_outcome(rollout, missing, "rolled back"))
    return None


def _is_to_be_asked(rollout: Rollout, device: RolloutDevice) -> bool:
    """A roll-back takes the release from every device offered it; an abort from those that have not proven it."""
    if not device.offered or device.back is not Back.NONE:
        return False
    return rollout.state is not RolloutState.ABORTING or device.standing is not Standing.SUCCEEDED


def _outcome(rollout: Rollout, missing: Sequence[RolloutDevice], what: str) -> str:
    back, left = (
        sum(each.is_back for each in rollout.devices),
        sum(each.back is Back.LEFT for each in rollout.devices),
    )
    cause = f"{rollout.reason}; " if rollout.reason else ""
    gone = f"; {left} {'has' if left == 1 else 'have'} left" if left else ""
    if not missing:
        return f"{cause}{what} on {back} device{'' if back == 1 else 's'}{gone}"
    names = ", ".join(each.device for each in missing[:_NAMES_SHOWN]) + (", …" if len(missing) > _NAMES_SHOWN else "")
    return f"{cause}{what} on {back} of {back + len(missing)} devices{gone}; no proof yet from {names}"


def _open(rollout: Rollout) -> tuple[RolloutDevice, ...]:
    return tuple(each for each in rollout.devices if each.phase <= rollout.phase)


def _opened(rollout: Rollout, phase: int, now: datetime) -> Rollout:
    step = advance_step(rollout.step, StepEvent.OPENED)
    return replace(rollout, phase=phase, step=step, phase_since=now, step_since=now)


def _resumed(rollout: Rollout, device: RolloutDevice) -> RolloutDevice:
    """Whoever resumes has mended what made devices fail or err, and goes on without those that have left."""
    if device.phase > rollout.phase:
        return device
    if device.standing is Standing.LEFT:
        return replace(device, counted=False)
    after = replace(
        device,
        requests=0,
        errors=0,
        earlier_requests=device.earlier_requests + device.requests,
        earlier_errors=device.earlier_errors + device.errors,
    )
    if device.standing is Standing.FAILED:
        return replace(after, standing=Standing.WAITING, reason="", detail="")
    return after
