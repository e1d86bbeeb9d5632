"""How long the last recorded answers of a device took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.db.schema import RecordRow

LAST: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One recorded inference. `wall_us` is the device's clock."""

    model: str
    wall_us: int
    latency_us: int


def answers_of(session: Session, device: DeviceId, model: str = "", limit: int = LAST) -> tuple[Answer, ...]:
    """The last ones, of `model` or of every model, in the order of the device's clock."""
    query = (
        select(RecordRow.model, RecordRow.wall_us, RecordRow.latency_us)
        .where(RecordRow.device_id == device, RecordRow.latency_us >= 0)
        .order_by(RecordRow.record_id.desc())
        .limit(limit)
    )
    if model:
        query = query.where(RecordRow.model == model)
    found = [
        Answer(model=name or "", wall_us=wall_us, latency_us=latency_us)
        for name, wall_us, latency_us in session.execute(query)
        if latency_us is not None
    ]
    return tuple(sorted(found, key=lambda each: each.wall_us))


def recorded_models(session: Session, device: DeviceId) -> tuple[str, ...]:
    """The models of its last answers, by name."""
    return tuple(sorted({each.model for each in answers_of(session, device) if each.model}))
