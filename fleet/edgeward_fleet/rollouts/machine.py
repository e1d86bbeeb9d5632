"""What may follow what in a rollout: two tables and one pure `advance`.

The rollout's own states answer "what has been decided"; the steps answer "how far is the open phase". They are two
tables because a pause must not forget the step. A restart of the fleet is no event: every step is committed with
its consequences, so a tick after a crash finds either the old step or the new one.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, TypeVar


class IllegalTransition(Exception):
    """The event is not allowed in the state: a person's command came too late, or the code is wrong."""

    hint = "Look at the rollout again; its state has changed."


class RolloutState(StrEnum):
    """What has been decided about a rollout."""

    DRAFT = "DRAFT"
    VALIDATING = "VALIDATING"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    SCHEDULED = "SCHEDULED"
    PROGRESSING = "PROGRESSING"
    PAUSED = "PAUSED"
    ABORTING = "ABORTING"
    ABORTED = "ABORTED"
    ROLLING_BACK = "ROLLING_BACK"
    ROLLED_BACK = "ROLLED_BACK"
    ROLLBACK_INCOMPLETE = "ROLLBACK_INCOMPLETE"
    SUPERSEDED = "SUPERSEDED"
    EXPIRED = "EXPIRED"
    SUCCEEDED = "SUCCEEDED"


class RolloutEvent(StrEnum):
    """What happens to a rollout; the second group is what a person asks for."""

    SUBMITTED = "submitted"
    VALID = "valid"
    INVALID = "invalid"
    START_DUE = "start_due"
    PHASE_PASSED = "phase_passed"
    ALL_PHASES_PASSED = "all_phases_passed"
    INCONCLUSIVE = "inconclusive"
    FAILED_PAUSE = "failed_pause"
    FAILED_ABORT = "failed_abort"
    FAILED_ROLL_BACK = "failed_roll_back"
    WITHDRAWN = "withdrawn"
    ALL_PROVEN_BACK = "all_proven_back"
    BACK_TIMED_OUT = "back_timed_out"
    APPROVAL_EXPIRED = "approval_expired"

    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLL_BACK = "roll_back"
    SUPERSEDE = "supersede"


class PhaseStep(StrEnum):
    """How far the open phase is."""

    SELECTING = "SELECTING"
    OFFERING = "OFFERING"
    SOAKING = "SOAKING"
    ANALYSING = "ANALYSING"


class StepEvent(StrEnum):
    """What happens to the open phase."""

    SELECTED = "selected"
    SETTLED = "settled"
    UNSETTLED = "unsettled"
    SOAKED = "soaked"
    BREACHED = "breached"
    TIMED_OUT = "timed_out"
    DESERTED = "deserted"
    OPENED = "opened"


_R = RolloutState
_E = RolloutEvent

TRANSITIONS: Final[Mapping[tuple[RolloutState, RolloutEvent], RolloutState]] = {
    (_R.DRAFT, _E.SUBMITTED): _R.VALIDATING,
    (_R.VALIDATING, _E.VALID): _R.AWAITING_APPROVAL,
    (_R.VALIDATING, _E.INVALID): _R.DRAFT,
    (_R.AWAITING_APPROVAL, _E.APPROVE): _R.SCHEDULED,
    (_R.AWAITING_APPROVAL, _E.ABORT): _R.ABORTING,
    (_R.AWAITING_APPROVAL, _E.SUPERSEDE): _R.SUPERSEDED,
    (_R.AWAITING_APPROVAL, _E.APPROVAL_EXPIRED): _R.EXPIRED,
    (_R.SCHEDULED, _E.START_DUE): _R.PROGRESSING,
    (_R.SCHEDULED, _E.ABORT): _R.ABORTING,
    (_R.SCHEDULED, _E.SUPERSEDE): _R.SUPERSEDED,
    (_R.PROGRESSING, _E.PHASE_PASSED): _R.PROGRESSING,
    (_R.PROGRESSING, _E.ALL_PHASES_PASSED): _R.SUCCEEDED,
    (_R.PROGRESSING, _E.INCONCLUSIVE): _R.PAUSED,
    (_R.PROGRESSING, _E.FAILED_PAUSE): _R.PAUSED,
    (_R.PROGRESSING, _E.FAILED_ABORT): _R.ABORTING,
    (_R.PROGRESSING, _E.FAILED_ROLL_BACK): _R.ROLLING_BACK,
    (_R.PROGRESSING, _E.PAUSE): _R.PAUSED,
    (_R.PROGRESSING, _E.ABORT): _R.ABORTING,
    (_R.PROGRESSING, _E.ROLL_BACK): _R.ROLLING_BACK,
    (_R.PROGRESSING, _E.SUPERSEDE): _R.SUPERSEDED,
    (_R.PAUSED, _E.RESUME): _R.PROGRESSING,
    (_R.PAUSED, _E.ABORT): _R.ABORTING,
    (_R.PAUSED, _E.ROLL_BACK): _R.ROLLING_BACK,
    (_R.PAUSED, _E.SUPERSEDE): _R.SUPERSEDED,
    (_R.ABORTING, _E.WITHDRAWN): _R.ABORTED,
    (_R.ABORTING, _E.ROLL_BACK): _R.ROLLING_BACK,
    (_R.ABORTED, _E.ROLL_BACK): _R.ROLLING_BACK,  # devices that had taken the release when it was aborted still run it
    (_R.SUCCEEDED, _E.ROLL_BACK): _R.ROLLING_BACK,  # a fault may show after the soak
    (_R.ROLLING_BACK, _E.ALL_PROVEN_BACK): _R.ROLLED_BACK,
    (_R.ROLLING_BACK, _E.BACK_TIMED_OUT): _R.ROLLBACK_INCOMPLETE,
    (_R.ROLLBACK_INCOMPLETE, _E.ALL_PROVEN_BACK): _R.ROLLED_BACK,  # the last silent device came home
    (_R.ROLLBACK_INCOMPLETE, _E.SUPERSEDE): _R.SUPERSEDED,
}

STEPS: Final[Mapping[tuple[PhaseStep, StepEvent], PhaseStep]] = {
    (PhaseStep.SELECTING, StepEvent.SELECTED): PhaseStep.OFFERING,
    (PhaseStep.OFFERING, StepEvent.SETTLED): PhaseStep.SOAKING,
    (PhaseStep.OFFERING, StepEvent.BREACHED): PhaseStep.ANALYSING,  # no need to wait for the others to fail too
    (PhaseStep.OFFERING, StepEvent.TIMED_OUT): PhaseStep.ANALYSING,
    (PhaseStep.OFFERING, StepEvent.DESERTED): PhaseStep.ANALYSING,  # nobody is left to wait for
    (PhaseStep.SOAKING, StepEvent.SOAKED): PhaseStep.ANALYSING,
    (PhaseStep.SOAKING, StepEvent.BREACHED): PhaseStep.ANALYSING,
    (PhaseStep.SOAKING, StepEvent.UNSETTLED): PhaseStep.OFFERING,  # a device took its success back
    (PhaseStep.ANALYSING, StepEvent.OPENED): PhaseStep.SELECTING,  # the next phase, or the same one after a resume
    (PhaseStep.OFFERING, StepEvent.OPENED): PhaseStep.SELECTING,
    (PhaseStep.SOAKING, StepEvent.OPENED): PhaseStep.SELECTING,
    (PhaseStep.SELECTING, StepEvent.OPENED): PhaseStep.SELECTING,
}

FINAL: Final = frozenset({_R.ABORTED, _R.ROLLED_BACK, _R.SUPERSEDED, _R.EXPIRED, _R.SUCCEEDED})
"""Nothing happens here by itself any more; two of them can still be rolled back by a person."""

ASKED: Final = (_E.APPROVE, _E.PAUSE, _E.RESUME, _E.ABORT, _E.ROLL_BACK)
"""What a person asks for; nothing of it happens by itself."""

TICKING: Final = frozenset(
    {_R.AWAITING_APPROVAL, _R.SCHEDULED, _R.PROGRESSING, _R.ABORTING, _R.ROLLING_BACK, _R.ROLLBACK_INCOMPLETE}
)
"""States in which time or a report may decide something."""

_S = TypeVar("_S", bound=StrEnum)
_V = TypeVar("_V", bound=StrEnum)


def advance(state: RolloutState, event: RolloutEvent) -> RolloutState:
    """The state after `event`. Pure: persist the result before anything acts on it. Raises IllegalTransition."""
    return _next(TRANSITIONS, state, event)


def advance_step(step: PhaseStep, event: StepEvent) -> PhaseStep:
    """The step after `event`. Raises IllegalTransition."""
    return _next(STEPS, step, event)


def commands(state: RolloutState) -> tuple[RolloutEvent, ...]:
    """What a person may ask for in `state`."""
    return tuple(event for event in ASKED if (state, event) in TRANSITIONS)


def diagram() -> str:
    """Both tables as Mermaid state diagrams; docs/rollout-machine.md holds exactly this."""
    return "\n\n".join((_mermaid(TRANSITIONS, FINAL), _mermaid(STEPS, frozenset())))


def _next(table: Mapping[tuple[_S, _V], _S], state: _S, event: _V) -> _S:
    try:
        return table[state, event]
    except KeyError:
        possible = ", ".join(sorted(str(each) for source, each in table if source == state)) or "nothing"
        raise IllegalTransition(f"expected one of: {possible}; got '{event}' while {state}") from None


def _mermaid(table: Mapping[tuple[_S, _V], _S], final: frozenset[_S]) -> str:
    arrows = [f"    {source} --> {target}: {event}" for (source, event), target in table.items()]
    ends = [f"    {state} --> [*]" for state in sorted(final)]
    return "\n".join(("```mermaid", "stateDiagram-v2", *arrows, *ends, "```"))
