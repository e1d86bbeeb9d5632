"""Create and steer rollouts. Every change of state stands in the audit log of the same transaction."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, ModelName, Sha256
from edgeward_contract.schema import JsonValue
from edgeward_fleet.audit import service as audit
from edgeward_fleet.audit.model import SYSTEM, Actor
from edgeward_fleet.clock import Clock
from edgeward_fleet.db import turns
from edgeward_fleet.db.engine import Database
from edgeward_fleet.db.turns import Turn
from edgeward_fleet.errors import Conflict, DatabaseError, FleetError, Invalid
from edgeward_fleet.models import repository as releases
from edgeward_fleet.rollouts import checks, repository
from edgeward_fleet.rollouts.cohort import Fleet, candidates, come_back, reconcile
from edgeward_fleet.rollouts.decide import moved
from edgeward_fleet.rollouts.listing import RolloutEntry, page
from edgeward_fleet.rollouts.machine import (
    FINAL,
    TICKING,
    IllegalTransition,
    RolloutEvent,
    RolloutState,
    advance,
)
from edgeward_fleet.rollouts.model import Rollout, RolloutDevice, RolloutId, RolloutSpec
from edgeward_fleet.rollouts.phases import Candidate, assign, uncovered
from edgeward_fleet.rollouts.repository import Authorship, RolloutLine
from edgeward_fleet.rollouts.stepping import step
from edgeward_fleet.rollouts.watching import watch
from edgeward_fleet.secrets import new_id

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRecord:
    """A rollout with who asked for it and who allowed it."""

    rollout: Rollout
    authorship: Authorship


class Rollouts:
    """Everything about rollouts. `wake_device` is called after each commit that changed a desired state.

    `name` makes the id of a new rollout, which chooses the cohorts.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        wake_device: Callable[[DeviceId], None],
        name: Callable[[], str] = lambda: new_id("r-"),
    ) -> None:
        self._name: Final = name
        self._database: Final = database
        self._clock: Final = clock
        self._wake_device: Final = wake_device

    async def create(self, actor: Actor, data: bytes) -> RolloutRecord:
        """Ask for a rollout; it waits for somebody else's approval.

        Raises:
            ContractError: `data` is not a spec; names the key.
            Invalid: no such release, no such device, nobody to roll out to, or phases that leave devices out.
            NotFound: there is no rollout to supersede.
            Conflict: another rollout of the model is under way on some of the devices, or one of them is full.
        """
        spec = RolloutSpec.parse(data)

        def work(session: Session) -> RolloutRecord:
            turns.take(session, Turn.ROLLOUTS)
            return self._create(session, actor, spec)

        return await self._database.run(work)

    async def approve(self, actor: Actor, rollout_id: RolloutId, spec_sha256: Sha256) -> RolloutRecord:
        """Allow exactly the spec with this digest. Raises Forbidden for its author, Conflict for another digest."""

        def work(session: Session) -> RolloutRecord:
            rollout = _to_change(session, rollout_id)
            checks.check_approval(rollout, repository.authorship(session, rollout_id), actor, spec_sha256)
            checks.check_room(session, rollout)
            now = self._clock()
            if rollout.spec.supersedes is not None:
                self._supersede(session, rollout.spec.supersedes, rollout, actor, now)
            self._command(session, rollout, RolloutEvent.APPROVE, actor, "", now)
            repository.approve(session, rollout_id, actor, now)
            return _record(session, rollout_id)

        return await self._database.run(work)

    async def command(self, actor: Actor, rollout_id: RolloutId, event: RolloutEvent, reason: str) -> RolloutRecord:
        """Pause, resume, abort or roll back. Raises Conflict when the state does not allow it or nobody is left."""

        def work(session: Session) -> RolloutRecord:
            rollout = _to_change(session, rollout_id)
            if event is RolloutEvent.ROLL_BACK and rollout.state in FINAL:
                over, rollout = rollout, _reopened(session, rollout)
                repository.save(session, over, rollout)
            if event is RolloutEvent.RESUME:
                rollout = _as_it_is_now(session, rollout)
            self._command(session, rollout, event, actor, reason, self._clock())
            return _record(session, rollout_id)

        return await self._database.run(work)

    async def show(self, rollout_id: RolloutId) -> RolloutRecord:
        """Raises NotFound."""
        return await self._database.run(lambda session: _record(session, rollout_id))

    async def foresee(self, rollout_id: RolloutId, event: RolloutEvent) -> RolloutRecord:
        """As `show`, with who has left since and who has joined: what `event` would act on.

        Raises Conflict as the command would.
        """

        def work(session: Session) -> RolloutRecord:
            found = _record(session, rollout_id)
            rollout = found.rollout
            if event is RolloutEvent.ROLL_BACK and rollout.state in FINAL:
                rollout = _reopened(session, rollout)
            taken = repository.taken(session, rollout, checks.BLOCKING)
            return replace(found, rollout=reconcile(rollout, repository.fleet_now(session, rollout.model), taken))

        return await self._database.run(work)

    async def page(self, *, model: ModelName | None, before: datetime | None, limit: int) -> list[RolloutEntry]:
        """Newest first."""
        return await self._database.run(lambda session: page(session, model=model, before=before, limit=limit))

    async def events(self, rollout_id: RolloutId, *, after: int, limit: int) -> list[RolloutLine]:
        """Raises NotFound."""
        return await self._database.run(
            lambda session: repository.events(session, rollout_id, after=after, limit=limit)
        )

    async def watch(self) -> None:
        """Note that somebody watches; to be called before the first tick, and often. Raises DatabaseError."""
        await self._database.run(lambda session: watch(session, self._clock()))

    async def tick(self) -> None:
        """Decide what can be decided now, each decision in a transaction of its own.

        A rollout that cannot go on is paused with the reason, and the others move. Raises DatabaseError.
        """
        active = await self._database.run(lambda session: repository.in_states(session, TICKING))
        for rollout_id in active:
            try:
                while await self._step(rollout_id):
                    pass
            except DatabaseError:
                raise
            except FleetError as error:
                _log.error("rollout %s cannot go on: %s", rollout_id, error)
                await self._halt(rollout_id, f"{error}. {error.hint}")

    async def _step(self, rollout_id: RolloutId) -> bool:
        went_on, touched = await self._database.run(lambda session: step(session, rollout_id, self._clock()))
        for device in touched:
            self._wake_device(device)
        return went_on

    async def _halt(self, rollout_id: RolloutId, reason: str) -> None:
        """Only an advance can be paused; who is to give a release back is asked again at the next tick."""

        def work(session: Session) -> None:
            rollout = _to_change(session, rollout_id)
            if rollout.state is RolloutState.PROGRESSING:
                self._command(session, rollout, RolloutEvent.PAUSE, SYSTEM, reason, self._clock())

        await self._database.run(work)

    def _create(self, session: Session, actor: Actor, spec: RolloutSpec) -> RolloutRecord:
        release = releases.find_release(session, spec.release)
        if release is None:
            raise Invalid(
                f"release: expected a registered one, there is no {spec.release}",
                hint="`edgeward model push` registers a release; `edgeward model list` shows what there is.",
            )
        now = self._clock()
        rollout = Rollout(
            id=RolloutId(self._name()),
            spec=spec,
            release_sha256=release.sha256,
            state=_submitted(),
            created_at=now,
            since=now,
            phase_since=now,
            step_since=now,
        )
        fleet = repository.fleet_now(session, rollout.model)
        rollout = replace(rollout, devices=_cohort(rollout, fleet))
        if spec.supersedes is not None:
            checks.check_superseded(repository.load(session, spec.supersedes), rollout, fleet)
        checks.check_free(session, rollout)
        checks.check_room(session, rollout)
        repository.add(session, rollout, actor)
        repository.add_event(session, rollout.id, now, actor.name, "created", f"{spec.release} to {spec.target}")
        detail: dict[str, JsonValue] = {"release": str(spec.release), "spec_sha256": spec.sha256()}
        audit.record(session, actor, "rollout.create", rollout.id, detail, at=now)
        return _record(session, rollout.id)

    def _command(
        self, session: Session, rollout: Rollout, event: RolloutEvent, actor: Actor, reason: str, now: datetime
    ) -> None:
        words = reason or ("" if event in (RolloutEvent.APPROVE, RolloutEvent.RESUME) else f"asked for by {actor.name}")
        try:
            after = moved(rollout, event, words, now)
        except IllegalTransition:
            raise Conflict(
                f"rollout {rollout.id}: expected a state in which '{event}' is possible, it is {rollout.state}"
            ) from None
        repository.save(session, rollout, after)
        detail: dict[str, JsonValue] = {"state": after.state.value, "reason": reason}
        repository.add_event(session, rollout.id, now, actor.name, event.value, reason)
        audit.record(session, actor, f"rollout.{event.value}", rollout.id, detail, at=now)

    def _supersede(self, session: Session, older_id: RolloutId, newer: Rollout, actor: Actor, now: datetime) -> None:
        older = _to_change(session, older_id)
        if older.state not in FINAL:
            checks.check_superseded(older, newer, repository.fleet_now(session, newer.model))
            self._command(session, older, RolloutEvent.SUPERSEDE, actor, f"superseded by {newer.id}", now)


def _to_change(session: Session, rollout_id: RolloutId) -> Rollout:
    turns.take(session, Turn.ROLLOUTS)
    return repository.load(session, rollout_id, to_change=True)


def _reopened(session: Session, rollout: Rollout) -> Rollout:
    """A rollout that is over, about to be rolled back, with the devices that it has now. Raises Conflict."""
    checks.check_free_to_roll_back(session, rollout)
    fleet = repository.fleet_now(session, rollout.model)
    reopened = come_back(rollout, fleet, repository.given_back(session, rollout.model))
    checks.check_anybody_left(reconcile(reopened, fleet))
    return reopened


def _as_it_is_now(session: Session, rollout: Rollout) -> Rollout:
    """A paused rollout without those who left meanwhile: whoever resumes it knows of them, and goes on without them."""
    taken = repository.taken(session, rollout, checks.BLOCKING)
    seen = reconcile(rollout, repository.fleet_now(session, rollout.model), taken)
    repository.save(session, rollout, seen)
    return seen


def _submitted() -> RolloutState:
    """What is invalid is refused and leaves nothing behind, so a stored rollout has both steps behind it."""
    return advance(advance(RolloutState.DRAFT, RolloutEvent.SUBMITTED), RolloutEvent.VALID)


def _record(session: Session, rollout_id: RolloutId) -> RolloutRecord:
    rollout = repository.load(session, rollout_id)
    return RolloutRecord(rollout=rollout, authorship=repository.authorship(session, rollout_id))


def _cohort(rollout: Rollout, fleet: Fleet) -> tuple[RolloutDevice, ...]:
    """The devices of a new rollout. Raises Invalid: nobody, an unknown name, or phases that leave devices out."""
    spec = rollout.spec
    unknown = sorted(set(spec.target.devices) - set(fleet))
    if unknown:
        raise Invalid(
            f"target.devices: expected enrolled devices, there is no {', '.join(unknown[:5])}",
            hint="`edgeward device list` shows the enrolled devices.",
        )
    matching = {Candidate(device=now.device, site=now.site) for now in candidates(rollout, fleet)}
    if not matching:
        raise Invalid(
            f"target: matches no device ({spec.target}; {len(fleet)} enrolled)",
            hint="`edgeward device list` shows the devices and their sites; a revoked device never matches.",
        )
    nowhere = sorted(set(spec.target.sites) - {now.site for now in fleet.values()})
    if nowhere:
        raise Invalid(
            f"target.sites: expected sites with devices, there is none at {', '.join(nowhere[:5])}",
            hint="`edgeward device list` shows the devices and their sites; a site of later is rolled out to later.",
        )
    left_out = uncovered(spec.phases, len(matching))
    if left_out:
        raise Invalid(
            f"phases: expected the last one to reach all {len(matching)} matching devices, it leaves {left_out} out",
            hint="Sizes include the phases before: end with percent 100, or narrow the target.",
        )
    assigned = assign(rollout.id, matching, spec.phases)
    members = (RolloutDevice(device=each.device, site=each.site, phase=phase) for each, phase in assigned.items())
    return tuple(sorted(members, key=lambda member: member.device))
