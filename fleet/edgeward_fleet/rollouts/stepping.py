"""One decision about a rollout, from a look at it to its consequences, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_contract.schema import JsonValue
from edgeward_fleet.audit import service as audit
from edgeward_fleet.audit.model import SYSTEM
from edgeward_fleet.db import turns
from edgeward_fleet.db.turns import Turn
from edgeward_fleet.rollouts import acting, checks, repository
from edgeward_fleet.rollouts.cohort import Fleet, reconcile
from edgeward_fleet.rollouts.decide import Decision, apply, decide
from edgeward_fleet.rollouts.machine import PhaseStep, advance_step
from edgeward_fleet.rollouts.model import Rollout, RolloutId

_SHOWN: Final = {PhaseStep.SELECTING: "selected", PhaseStep.OFFERING: "offered", PhaseStep.SOAKING: "soaks"}


def step(session: Session, rollout_id: RolloutId, now: datetime) -> tuple[bool, tuple[DeviceId, ...]]:
    """Decide what comes next and do it: whether there was anything, and the devices that should be something else."""
    turns.take(session, Turn.ROLLOUTS)
    look = _look(session, rollout_id, now, to_change=False)
    if not look.changes:  # as most of the time, so that no report has to wait for us
        return False, ()
    if turns.are_taken(session):
        look = _look(session, rollout_id, now, to_change=True)
    after = look.seen if look.decision is None else _act(session, look, look.decision, now)
    repository.save(session, look.before, after)
    if look.decision is None:
        return False, ()
    _note(session, look.before, after, look.decision, now)
    return True, (*look.decision.offer, *look.decision.take_back)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """A rollout as it was stored, as the fleet leaves it, and what is to be decided about it."""

    before: Rollout
    seen: Rollout
    fleet: Fleet
    decision: Decision | None

    @property
    def changes(self) -> bool:
        return self.decision is not None or self.seen != self.before


def _look(session: Session, rollout_id: RolloutId, now: datetime, *, to_change: bool) -> _Look:
    before = repository.load(session, rollout_id, to_change=to_change)
    fleet = repository.fleet_now(session, before.model)
    seen = reconcile(before, fleet, repository.taken(session, before, checks.BLOCKING))
    return _Look(before=before, seen=seen, fleet=fleet, decision=decide(seen, now))


def _act(session: Session, look: _Look, decision: Decision, now: datetime) -> Rollout:
    after = apply(look.seen, decision, now)
    after = acting.offer(session, after, decision.offer, look.fleet, now)
    return acting.take_back(session, after, decision.take_back, look.fleet, now)


def _note(session: Session, before: Rollout, after: Rollout, decision: Decision, now: datetime) -> None:
    """Lines for the timeline; changes of state go into the audit log, too."""
    for verb, devices in (("offered", decision.offer), ("taken_back", decision.take_back)):
        if devices:
            repository.add_event(session, after.id, now, SYSTEM.name, verb, ", ".join(devices))
    if decision.step_event is not None:
        reached = _SHOWN.get(advance_step(before.step, decision.step_event), "is analysed")
        words = f"phase '{before.open_phase.name}' {reached}"
        repository.add_event(session, after.id, now, SYSTEM.name, "step", words)
    if decision.event is not None:
        repository.add_event(session, after.id, now, SYSTEM.name, decision.event.value, after.reason)
        detail: dict[str, JsonValue] = {"before": before.state.value, "state": after.state.value}
        audit.record(
            session, SYSTEM, f"rollout.{decision.event.value}", after.id, {**detail, "reason": after.reason}, at=now
        )
