"""Rollouts as lines of a list: counted in the database, because a rollout may hold thousands of devices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeward_contract.artifact import ModelName
from edgeward_fleet.db.schema import RolloutDeviceRow, RolloutRow
from edgeward_fleet.rollouts import repository
from edgeward_fleet.rollouts.model import Rollout, Standing
from edgeward_fleet.rollouts.repository import Authorship

Counts = Mapping[Standing, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutEntry:
    """A rollout without its devices; `counts` are devices by standing."""

    rollout: Rollout
    authorship: Authorship
    counts: Counts


def page(session: Session, *, model: ModelName | None, before: datetime | None, limit: int) -> list[RolloutEntry]:
    """Newest first."""
    query = select(RolloutRow)
    if model is not None:
        query = query.where(RolloutRow.model == model)
    if before is not None:
        query = query.where(RolloutRow.created_at < before)
    rows = session.scalars(query.order_by(RolloutRow.created_at.desc(), RolloutRow.rollout_id).limit(limit)).all()
    found = counts(session, [row.rollout_id for row in rows])
    return [
        RolloutEntry(
            rollout=repository.rollout_of(row, ()),
            authorship=repository.authorship_of(row),
            counts=found.get(row.rollout_id, {}),
        )
        for row in rows
    ]


def counts(session: Session, ids: Collection[str]) -> Mapping[str, Counts]:
    """The devices of each rollout by their standing; a standing that nobody has is left out."""
    query = (
        select(RolloutDeviceRow.rollout_id, RolloutDeviceRow.standing, func.count())
        .where(RolloutDeviceRow.rollout_id.in_(list(ids)))
        .group_by(RolloutDeviceRow.rollout_id, RolloutDeviceRow.standing)
    )
    found: dict[str, dict[Standing, int]] = {}
    for rollout, standing, count in session.execute(query):
        found.setdefault(rollout, {})[Standing(standing)] = count
    return found
