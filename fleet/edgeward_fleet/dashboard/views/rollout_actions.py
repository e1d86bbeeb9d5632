"""What a person may do about a rollout now, what it would do, and what they hear when somebody was faster. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgeward_fleet.accounts.model import Principal, Role
from edgeward_fleet.dashboard.views.rollout_timeline import VERBS
from edgeward_fleet.dashboard.words import dated, plural, state_word
from edgeward_fleet.rollouts.machine import RolloutEvent, RolloutState, commands
from edgeward_fleet.rollouts.model import Rollout, Standing
from edgeward_fleet.rollouts.repository import RolloutLine
from edgeward_fleet.rollouts.service import RolloutRecord

DONE: Final = {
    RolloutEvent.APPROVE: "approved",
    RolloutEvent.PAUSE: "paused",
    RolloutEvent.RESUME: "resumed",
    RolloutEvent.ABORT: "aborted",
    RolloutEvent.ROLL_BACK: "rolled back",
}
"""What a command will have done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What this person may do now. `refusal` says why not, where the button would mislead."""

    event: RolloutEvent
    path: str
    label: str
    tone: str = ""
    refusal: str = ""


def actions(record: RolloutRecord, viewer: Principal) -> list[Action]:
    """The buttons for `viewer`, by role and state; nobody is shown a button that would be refused."""
    if not viewer.role.covers(Role.OPERATOR):
        return []
    possible = commands(record.rollout.state)
    return [action for action in (_action(record, viewer, event) for event in possible) if action]


def _action(record: RolloutRecord, viewer: Principal, event: RolloutEvent) -> Action | None:
    if event is RolloutEvent.APPROVE and not viewer.role.covers(Role.APPROVER):
        return None
    base = f"/rollouts/{record.rollout.id}/"
    match event:
        case RolloutEvent.APPROVE:
            own = "You asked for this rollout; somebody else has to approve it."
            refusal = own if record.authorship.created_by == viewer.username else ""
            return Action(event=event, path=base + "approve", label="Approve", tone="primary", refusal=refusal)
        case RolloutEvent.RESUME:
            # After a failure the way on is a decision, not a suggestion.
            tone = "" if any(each.standing is Standing.FAILED for each in record.rollout.devices) else "primary"
            return Action(event=event, path=base + "resume", label="Resume", tone=tone)
        case RolloutEvent.PAUSE:
            return Action(event=event, path=base + "pause", label="Pause")
        case RolloutEvent.ABORT:
            return Action(event=event, path=base + "abort", label="Abort", tone="danger")
        case _:
            return Action(event=event, path=base + "rollback", label="Roll back", tone="danger")


def consequence(record: RolloutRecord, event: RolloutEvent) -> str:
    """What a command will do, in the numbers of this rollout; stands above the button that does it."""
    rollout = record.rollout
    count = {each: sum(device.standing is each for device in rollout.devices) for each in Standing}
    holding = [each for each in rollout.devices if each.holds_offer]
    match event:
        case RolloutEvent.APPROVE:
            return _start(rollout)
        case RolloutEvent.PAUSE:
            return (
                f"No further device is offered {rollout.spec.release}. "
                f"Those that have the offer ({len(holding)}) go on."
            )
        case RolloutEvent.RESUME:
            return (
                f"Phase '{rollout.open_phase.name}' goes on, its time-out begins anew. "
                f"The release is offered again to {plural(count[Standing.FAILED], 'device')} that failed."
            )
        case RolloutEvent.ABORT:
            unproven = sum(each.standing is not Standing.SUCCEEDED for each in holding)
            return (
                f"The offer is withdrawn from {plural(unproven, 'device')} without proof so far. "
                f"{rollout.spec.release} stays on {plural(count[Standing.SUCCEEDED], 'device')}."
            )
        case _:
            others = sum(each.offered for each in rollout.devices) - len(holding)
            rest = f" {plural(others, 'other has', 'others have')} left or gone back already." if others else ""
            return (
                f"Every device that was offered {rollout.spec.release} is given its former release: "
                f"{plural(len(holding), 'device')}.{rest}"
            )


def _start(rollout: Rollout) -> str:
    """What an approval sets off, and when."""
    spec, first = rollout.spec, rollout.spec.phases[0]
    when = f"at {dated(spec.start_at)}, or at once if that is over" if spec.start_at else "at once"
    ends = f" Rollout {spec.supersedes} ends with the approval." if spec.supersedes else ""
    return (
        f"{spec.release} is offered to {plural(len(rollout.of_phase(0)), 'device')} of phase '{first.name}' {when}; "
        f"the plan holds {plural(len(rollout.devices), 'device')} in all.{ends}"
    )


def too_late(state: RolloutState, latest: RolloutLine | None) -> str:
    """How a rollout came into a `state` that somebody did not expect; `latest` is what a person asked of it last."""
    now = f"it is {state_word(state)}"
    if latest is None:
        return now
    return f"{now}; {latest.actor} {VERBS[latest.kind]} at {dated(latest.at)}"
