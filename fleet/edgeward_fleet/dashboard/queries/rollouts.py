"""Rollouts as lines of a list: counted in the database, because a rollout may hold thousands of devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVarTuple

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, Sha256
from edgeward_fleet.db.schema import RolloutDeviceRow, RolloutEventRow, RolloutRow
from edgeward_fleet.rollouts.listing import counts
from edgeward_fleet.rollouts.machine import ASKED, FINAL, PhaseStep, RolloutState
from edgeward_fleet.rollouts.model import Back, RolloutId, RolloutSpec, Standing
from edgeward_fleet.rollouts.repository import RolloutLine

Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedRollout:
    """A rollout without its devices; `counts` are devices by standing."""

    id: RolloutId
    spec: RolloutSpec
    state: RolloutState
    phase: int
    step: PhaseStep
    reason: str
    created_at: datetime
    created_by: str
    since: datetime
    counts: Mapping[Standing, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def succeeded(self) -> int:
        return self.counts.get(Standing.SUCCEEDED, 0) + self.counts.get(Standing.ALREADY, 0)

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def phase_name(self) -> str:
        return self.spec.phases[self.phase].name


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFilter:
    """Which rollouts; None means any. `since`: whose state began then or later."""

    states: Collection[RolloutState] | None = None
    model: str | None = None
    release: Sha256 | None = None
    since: datetime | None = None


def listed(
    session: Session, which: RolloutFilter = RolloutFilter(), *, skip: int = 0, limit: int, by_state: bool = False
) -> tuple[ListedRollout, ...]:
    """Newest first; `by_state` those first that came into their state last."""
    newest = RolloutRow.since if by_state else RolloutRow.created_at
    query = _filtered(select(RolloutRow), which).order_by(newest.desc(), RolloutRow.rollout_id)
    rows = session.scalars(query.offset(skip).limit(limit)).all()
    found = counts(session, [row.rollout_id for row in rows])
    return tuple(_listed(row, found.get(row.rollout_id, {})) for row in rows)


def states_of(session: Session, model: str | None) -> Mapping[RolloutState, int]:
    """How many rollouts of `model`, or of all, are in which state."""
    query = _filtered(select(RolloutRow.state, func.count()), RolloutFilter(model=model)).group_by(RolloutRow.state)
    return {RolloutState(state): count for state, count in session.execute(query)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A rollout as one of its devices sees it."""

    id: RolloutId
    spec: RolloutSpec
    state: RolloutState
    created_at: datetime
    standing: Standing
    back: Back


def of_device(session: Session, device: DeviceId, limit: int) -> tuple[Part, ...]:
    """The rollouts that the device is part of, newest first."""
    query = (
        select(RolloutRow, RolloutDeviceRow.standing, RolloutDeviceRow.back)
        .join(RolloutDeviceRow, RolloutDeviceRow.rollout_id == RolloutRow.rollout_id)
        .where(RolloutDeviceRow.device_id == device)
        .order_by(RolloutRow.created_at.desc(), RolloutRow.rollout_id)
        .limit(limit)
    )
    return tuple(
        Part(
            id=RolloutId(row.rollout_id),
            spec=RolloutSpec.parse(row.spec),
            state=RolloutState(row.state),
            created_at=row.created_at,
            standing=Standing(standing),
            back=Back(back),
        )
        for row, standing, back in session.execute(query)
    )


def models_rolled_out(session: Session) -> tuple[str, ...]:
    """Every model that there has been a rollout of."""
    return tuple(session.scalars(select(RolloutRow.model).distinct().order_by(RolloutRow.model)))


def timeline(session: Session, rollout_id: RolloutId, *, before: int | None, limit: int) -> tuple[RolloutLine, ...]:
    """What happened, newest first."""
    query = select(RolloutEventRow).where(RolloutEventRow.rollout_id == rollout_id)
    if before is not None:
        query = query.where(RolloutEventRow.event_id < before)
    rows = session.scalars(query.order_by(RolloutEventRow.event_id.desc()).limit(limit))
    return tuple(_line(row) for row in rows)


def latest_command(session: Session, rollout_id: RolloutId) -> RolloutLine | None:
    """The last thing that a person asked of the rollout."""
    asked = [each.value for each in ASKED]
    query = select(RolloutEventRow).where(RolloutEventRow.rollout_id == rollout_id, RolloutEventRow.kind.in_(asked))
    row = session.scalar(query.order_by(RolloutEventRow.event_id.desc()).limit(1))
    return _line(row) if row else None


def _filtered(query: Select[*Ts], which: RolloutFilter) -> Select[*Ts]:
    if which.states is not None:
        query = query.where(RolloutRow.state.in_([each.value for each in which.states]))
    if which.model is not None:
        query = query.where(RolloutRow.model == which.model)
    if which.release is not None:
        query = query.where(RolloutRow.release_sha256 == which.release)
    if which.since is not None:
        query = query.where(RolloutRow.since >= which.since)
    return query


def _line(row: RolloutEventRow) -> RolloutLine:
    return RolloutLine(event_id=row.event_id, at=row.at, actor=row.actor, kind=row.kind, detail=row.detail)


def _listed(row: RolloutRow, counts: Mapping[Standing, int]) -> ListedRollout:
    return ListedRollout(
        id=RolloutId(row.rollout_id),
        spec=RolloutSpec.parse(row.spec),
        state=RolloutState(row.state),
        phase=row.phase,
        step=PhaseStep(row.step),
        reason=row.reason,
        created_at=row.created_at,
        created_by=row.created_by,
        since=row.since,
        counts=counts,
    )
