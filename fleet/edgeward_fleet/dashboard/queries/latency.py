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


def last_answers(session: Session, device: DeviceId, limit: int = LAST) -> tuple[Answer, ...]:
    """In the order of the device's clock."""
    query = (
        select(RecordRow.model, RecordRow.wall_us, RecordRow.latency_us)
        .where(RecordRow.device_id == device, RecordRow.latency_us.is_not(None))
        .order_by(RecordRow.record_id.desc())
        .limit(limit)
    )
    found = [
        Answer(model=model or "", wall_us=wall_us, latency_us=latency_us)
        for model, wall_us, latency_us in session.execute(query)
        if latency_us is not None and latency_us >= 0
    ]
    return tuple(sorted(found, key=lambda each: each.wall_us))
