"""Which versions run where, over the whole fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from edgeward_contract.artifact import Sha256
from edgeward_fleet.db.schema import (
    DesiredModelRow,
    DeviceRow,
    ReleaseRow,
    ReportedModelRow,
    RolloutDeviceRow,
    RolloutRow,
)
from edgeward_fleet.rollouts.model import Standing


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteCount:
    """A release at one site: on how many devices it is wanted, and on how many it answers."""

    site: str
    desired: int = 0
    live: int = 0


def sites_of(session: Session, release: Sha256) -> tuple[SiteCount, ...]:
    """Where the release is wanted or live, most devices first; revoked devices do not count."""
    wanted = _by_site(session, DesiredModelRow.device_id, DesiredModelRow.release_sha256 == release)
    live = _by_site(session, ReportedModelRow.device_id, ReportedModelRow.live_sha256 == release)
    found = [SiteCount(site=each, desired=wanted.get(each, 0), live=live.get(each, 0)) for each in {*wanted, *live}]
    return tuple(sorted(found, key=lambda each: (-max(each.desired, each.live), each.site)))


def refusals_of(session: Session, release: Sha256) -> Mapping[str, int]:
    """How many devices failed to take the release in its rollouts, by the word that they gave for it."""
    query = (
        select(RolloutDeviceRow.reason, func.count(RolloutDeviceRow.device_id.distinct()))
        .join(RolloutRow, RolloutRow.rollout_id == RolloutDeviceRow.rollout_id)
        .where(RolloutRow.release_sha256 == release, RolloutDeviceRow.standing == Standing.FAILED.value)
        .group_by(RolloutDeviceRow.reason)
    )
    return {reason: count for reason, count in session.execute(query)}


def _by_site(session: Session, device: InstrumentedAttribute[str], which: ColumnElement[bool]) -> Mapping[str, int]:
    query = (
        select(DeviceRow.site, func.count())
        .join_from(device.class_, DeviceRow, DeviceRow.device_id == device)
        .where(which, DeviceRow.revoked_at.is_(None))
        .group_by(DeviceRow.site)
    )
    return {site: count for site, count in session.execute(query)}


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
