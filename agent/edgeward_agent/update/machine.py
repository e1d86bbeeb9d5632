"""The update machine of one deployment: one table, so that every path through it can be read and counted.

A reboot is an event like any other. The result of `advance` is stored before it is acted on, and every action
can be repeated; together this is why a kill at any moment ends in the old release or in the new one.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from edgeward_agent.errors import UpdateError
from edgeward_contract.reported import RESTING
from edgeward_contract.reported import UpdateState as State


class Event(StrEnum):
    """What may happen to a deployment."""

    ACCEPT = "accept"
    ALREADY_CURRENT = "already_current"
    REJECT = "reject"
    START = "start"
    ON_DISK = "on_disk"
    DEFER = "defer"
    RESUME = "resume"
    RETRY = "retry"
    DOWNLOADED = "downloaded"
    VERIFIED = "verified"
    PROBE_PASSED = "probe_passed"
    FAIL = "fail"
    CANCEL = "cancel"
    SUPERSEDE = "supersede"
    ACTIVATED = "activated"
    LOAD_REFUSED = "load_refused"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    CRASH_LIMIT = "crash_limit"
    ATTEMPTS_USED = "attempts_used"
    WITHDRAWN = "withdrawn"
    RESTORED = "restored"
    IMPOSSIBLE = "impossible"
    GUARD = "guard"
    REBOOTED = "rebooted"


class IllegalTransition(UpdateError):
    """A bug of ours: the table has no such arrow."""

    hint = "Please report this with the output of `edgeward-agent status --json`; the model that is live is untouched."


WORKING: Final = tuple(state for state in State if state not in RESTING)
BEFORE_ACTIVATION: Final = (
    State.OFFERED,
    State.ACCEPTED,
    State.DEFERRED,
    State.RETRY_WAIT,
    State.DOWNLOADING,
    State.VERIFYING,
    State.PROBING,
)
"""While a deployment is here the model that is live has not been touched."""
ON_TRIAL: Final = (State.ACTIVATING, State.PROBATION)

Table = dict[tuple[State, Event], State]


def _each(states: Iterable[State], event: Event, to: State) -> Table:
    return {(state, event): to for state in states}


TRANSITIONS: Final[Table] = {
    (State.OFFERED, Event.ACCEPT): State.ACCEPTED,
    (State.OFFERED, Event.ALREADY_CURRENT): State.COMMITTED,
    (State.ACCEPTED, Event.START): State.DOWNLOADING,
    (State.ACCEPTED, Event.ON_DISK): State.VERIFYING,  # going back to `previous` needs no link
    (State.DEFERRED, Event.RESUME): State.ACCEPTED,
    (State.RETRY_WAIT, Event.RESUME): State.ACCEPTED,
    (State.DOWNLOADING, Event.DOWNLOADED): State.VERIFYING,
    (State.VERIFYING, Event.VERIFIED): State.PROBING,
    (State.PROBING, Event.PROBE_PASSED): State.ACTIVATING,
    (State.ACTIVATING, Event.ACTIVATED): State.PROBATION,
    (State.ACTIVATING, Event.LOAD_REFUSED): State.ROLLING_BACK,
    (State.PROBATION, Event.LOAD_REFUSED): State.ROLLING_BACK,  # after a crash it is loaded once more
    (State.PROBATION, Event.HEALTHY): State.COMMITTED,
    (State.PROBATION, Event.UNHEALTHY): State.ROLLING_BACK,
    (State.ROLLING_BACK, Event.RESTORED): State.ROLLED_BACK,
    (State.ROLLING_BACK, Event.IMPOSSIBLE): State.STRANDED,
    (State.DOWNLOADING, Event.REJECT): State.REJECTED,  # the manifest is the first that says what it needs
    **_each((State.ACCEPTED, State.DOWNLOADING, State.VERIFYING), Event.DEFER, State.DEFERRED),
    **_each((State.DOWNLOADING, State.VERIFYING, State.PROBING), Event.RETRY, State.RETRY_WAIT),
    **_each((State.DOWNLOADING, State.VERIFYING, State.PROBING), Event.FAIL, State.FAILED),
    **_each(BEFORE_ACTIVATION, Event.CANCEL, State.CANCELLED),
    **_each(BEFORE_ACTIVATION, Event.SUPERSEDE, State.SUPERSEDED),
    **_each(ON_TRIAL, Event.CRASH_LIMIT, State.ROLLING_BACK),
    **_each(ON_TRIAL, Event.ATTEMPTS_USED, State.ROLLING_BACK),
    **_each(ON_TRIAL, Event.WITHDRAWN, State.ROLLING_BACK),  # the fleet wants something else: do not wait for a verdict
    (State.PROBING, Event.ATTEMPTS_USED): State.FAILED,  # a candidate that takes the machine down with it
    # The loop guard: more stores than any honest path needs.
    **_each(BEFORE_ACTIVATION, Event.GUARD, State.FAILED),
    **_each(ON_TRIAL, Event.GUARD, State.ROLLING_BACK),
    # Reboots: sites switch devices off at night, so a reboot by itself is never a verdict.
    (State.OFFERED, Event.REBOOTED): State.OFFERED,
    (State.ACCEPTED, Event.REBOOTED): State.ACCEPTED,
    (State.DEFERRED, Event.REBOOTED): State.ACCEPTED,  # whatever it waited for may have come
    (State.RETRY_WAIT, Event.REBOOTED): State.ACCEPTED,  # the wait was counted in a time that is gone
    (State.DOWNLOADING, Event.REBOOTED): State.DOWNLOADING,  # chunks already here are kept
    (State.VERIFYING, Event.REBOOTED): State.VERIFYING,
    (State.PROBING, Event.REBOOTED): State.PROBING,
    (State.ACTIVATING, Event.REBOOTED): State.ACTIVATING,
    (State.PROBATION, Event.REBOOTED): State.PROBATION,
    (State.ROLLING_BACK, Event.REBOOTED): State.ROLLING_BACK,
}


def advance(state: State, event: Event) -> State:
    """Return the state after `event`. Pure: store the result before you act on it.

    Raises:
        IllegalTransition: the table has no such arrow.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"expected an event that {state} knows, got {event}") from None


def diagram() -> str:
    """The table as a Mermaid state diagram; arrows between the same two states share a line."""
    labels: dict[tuple[State, State], list[Event]] = {}
    for (state, event), to in TRANSITIONS.items():
        if state is not to:
            labels.setdefault((state, to), []).append(event)
    lines = ["stateDiagram-v2", f"    [*] --> {State.OFFERED}"]
    lines += [f"    {state} --> {to}: {' | '.join(events)}" for (state, to), events in labels.items()]
    lines += [f"    {state} --> [*]" for state in State if state in RESTING]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(diagram(), end="")
