"""Which versions run where, over the whole fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeward_fleet.db.schema import DesiredModelRow, DeviceRow, ReleaseRow, ReportedModelRow


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionCount:
    """One version of a model: on how many devices it is wanted, committed, and on probation."""

    model: str
    version: int
    desired: int = 0
    current: int = 0
    candidate: int = 0

    @property
    def live(self) -> int:
        return self.current + self.candidate


def versions(session: Session, model: str | None = None) -> tuple[VersionCount, ...]:
    """Every registered version, newest first within its model; revoked devices do not count."""
    query = select(ReleaseRow.sha256, ReleaseRow.name, ReleaseRow.version)
    if model is not None:
        query = query.where(ReleaseRow.name == model)
    desired, live = _desired(session), _live(session)
    return tuple(
        VersionCount(
            model=name,
            version=version,
            desired=desired.get(sha256, 0),
            current=live.get((sha256, "current"), 0),
            candidate=live.get((sha256, "candidate"), 0),
        )
        for sha256, name, version in session.execute(query.order_by(ReleaseRow.name, ReleaseRow.version.desc()))
    )


def _desired(session: Session) -> Mapping[str, int]:
    query = (
        select(DesiredModelRow.release_sha256, func.count())
        .join(DeviceRow, DeviceRow.device_id == DesiredModelRow.device_id)
        .where(DeviceRow.revoked_at.is_(None))
        .group_by(DesiredModelRow.release_sha256)
    )
    return {sha256: count for sha256, count in session.execute(query)}


def _live(session: Session) -> Mapping[tuple[str, str], int]:
    query = (
        select(ReportedModelRow.live_sha256, ReportedModelRow.live_slot, func.count())
        .join(DeviceRow, DeviceRow.device_id == ReportedModelRow.device_id)
        .where(DeviceRow.revoked_at.is_(None), ReportedModelRow.live_sha256.is_not(None))
        .group_by(ReportedModelRow.live_sha256, ReportedModelRow.live_slot)
    )
    return {(sha256 or "", slot or ""): count for sha256, slot, count in session.execute(query)}
