"""What stands in the way of a rollout or of a command: each check raises the error that says so, and the way out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, Sha256
from edgeward_contract.desired import DesiredModel
from edgeward_fleet.audit.model import Actor
from edgeward_fleet.errors import Conflict, Forbidden
from edgeward_fleet.rollouts import repository
from edgeward_fleet.rollouts.cohort import Fleet, reconcile
from edgeward_fleet.rollouts.machine import FINAL, TRANSITIONS, RolloutEvent, RolloutState
from edgeward_fleet.rollouts.model import Rollout, RolloutDevice, RolloutId, Standing
from edgeward_fleet.rollouts.repository import Authorship
from edgeward_fleet.secrets import new_id
from edgeward_fleet.states import desired

# A roll-back that waits for silent devices has given them their former release; it need not hold up what comes next.
BLOCKING: Final = frozenset(RolloutState) - FINAL - {RolloutState.ROLLBACK_INCOMPLETE}


def check_free_to_roll_back(session: Session, rollout: Rollout) -> None:
    """Refuse to take back, from a rollout that is over, what another one has in hand."""
    offered = {each.device for each in rollout.devices if each.offered}
    _check_nobody_else(
        session, rollout, offered, None, "Abort it (`edgeward rollout abort {}`) or wait for it, then roll back."
    )


def check_free(session: Session, rollout: Rollout) -> None:
    """Refuse a new rollout of devices that another one has in hand."""
    hint = "Wait for it, abort it, or name it in the new rollout: supersedes = {}."
    _check_nobody_else(session, rollout, {each.device for each in rollout.devices}, rollout.spec.supersedes, hint)


def _check_nobody_else(
    session: Session, rollout: Rollout, devices: Iterable[DeviceId], superseded: RolloutId | None, hint: str
) -> None:
    wanted = set(devices)
    for other_id in repository.in_states(session, BLOCKING):
        if other_id in (superseded, rollout.id):
            continue
        other = repository.load(session, other_id)
        shared = sorted(wanted & {each.device for each in other.devices})
        if other.model == rollout.model and shared:
            raise Conflict(
                f"rollout {other_id} of {other.spec.release} is {other.state} on {len(shared)} of these devices "
                f"({', '.join(shared[:3])}{', …' if len(shared) > 3 else ''})",
                hint=hint.format(other_id),
            )


def check_superseded(older: Rollout, newer: Rollout, fleet: Fleet) -> None:
    """Refuse to end a rollout for one that would leave devices behind on what it has offered them."""
    if older.model != newer.model:
        raise Conflict(
            f"supersedes: expected a rollout of {newer.model}, {older.id} is one of {older.spec.release}",
            hint="Rollouts of different models do not stand in each other's way.",
        )
    if (older.state, RolloutEvent.SUPERSEDE) not in TRANSITIONS:
        raise Conflict(
            f"supersedes: expected a rollout that something else may take the place of, {older.id} is {older.state}",
            hint="Leave supersedes out when the other one is over, or wait until it is.",
        )
    behind = sorted(
        each.device for each in reconcile(older, fleet).devices if each.holds_offer and not _reaches(newer, each)
    )
    if behind:
        raise Conflict(
            f"supersedes: expected a target with every device that {older.id} has offered {older.spec.release}, "
            f"it lacks {len(behind)} ({', '.join(behind[:3])}{', …' if len(behind) > 3 else ''})",
            hint=f"Widen the target, or abort {older.id} first.",
        )


def check_room(session: Session, rollout: Rollout) -> None:
    """Refuse what a device could not be told. Two rollouts may still fill a device between them: see `tick`."""
    wanted = DesiredModel(release=rollout.spec.release, sha256=rollout.release_sha256, deployment=new_id("d-"))
    devices = {each.device for each in rollout.devices if each.standing is not Standing.LEFT}
    full = desired.overfull(session, devices, rollout.model, wanted)
    if full:
        raise Conflict(
            f"target: expected devices with room for one more model, the desired state of {len(full)} would not fit "
            f"({', '.join(full[:3])}{', …' if len(full) > 3 else ''})",
            hint="Roll back a model that they no longer need, or narrow the target.",
        )


def check_approval(rollout: Rollout, authorship: Authorship, actor: Actor, spec_sha256: Sha256) -> None:
    if authorship.created_by == actor.name:
        raise Forbidden(
            f"rollout {rollout.id}: expected somebody other than its author to approve it, {actor.name} wrote it",
            hint="Ask another person with the role approver: nobody approves a rollout of their own.",
        )
    actual = rollout.spec.sha256()
    if spec_sha256 != actual:
        raise Conflict(
            f"rollout {rollout.id}: expected an approval of spec {actual[:12]}…, got one of {spec_sha256[:12]}…",
            hint="Look at the rollout again and approve the spec that it has.",
        )


def check_anybody_left(rollout: Rollout) -> None:
    offered = [each for each in rollout.devices if each.offered]
    if offered and not any(each.holds_offer or each.is_back for each in offered):
        raise Conflict(
            f"rollout {rollout.id}: expected a device to give its former release back to, all {len(offered)} have "
            "left (revoked, or given something else by a later rollout)",
            hint="Roll the later rollout back; `edgeward rollout list` shows it.",
        )


def _reaches(rollout: Rollout, device: RolloutDevice) -> bool:
    """Also who is not in it yet: the last phase takes everybody who matches."""
    return rollout.spec.target.matches(device.device, device.site)
