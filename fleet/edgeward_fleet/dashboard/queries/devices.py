"""Every device at a glance, in one query that stays cheap for thousands; and what the devices of one page run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, Sha256
from edgeward_fleet.db.schema import (
    CertificateRow,
    DesiredModelRow,
    DeviceRow,
    ReleaseRow,
    ReportedModelRow,
    ReportedRow,
    RolloutDeviceRow,
    RolloutRow,
)
from edgeward_fleet.devices.model import Presence, presence
from edgeward_fleet.rollouts.machine import FINAL
from edgeward_fleet.settings import Settings


class Condition(StrEnum):
    """How a device is: how lately it was heard of, and what it said of itself then."""

    ONLINE = "online"
    FAILING = "failing"
    LATE = "late"
    OFFLINE = "offline"
    NEVER = "never"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """A device in a line. `unwell` are its own words; without `certificate_ends` no certificate of it holds.

    `told_at` is when it last reported, or enrolled; the fleet may hear its polls and refuse its reports.
    """

    device: DeviceId
    site: str
    presence: Presence
    last_seen_at: datetime | None
    told_at: datetime
    unwell: tuple[str, ...] = ()
    outbox_records: int = 0
    outbox_oldest_s: int = 0
    certificate_ends: datetime | None = None

    @property
    def condition(self) -> Condition:
        """A device that says that it is unwell is failing, as long as it is heard of; silence says nothing new."""
        if self.unwell and self.presence in (Presence.ONLINE, Presence.LATE):
            return Condition.FAILING
        return Condition(self.presence.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """One model on one device: wanted, live, and where its update stands. Texts for people; "" is nothing."""

    model: str
    wanted: str = ""
    live: str = ""
    slot: str = ""
    update_state: str = ""


def glances(session: Session, settings: Settings, now: datetime) -> tuple[Glance, ...]:
    """All devices by name, the revoked ones too."""
    ends = (
        select(CertificateRow.device_id, func.max(CertificateRow.not_after).label("ends"))
        .where(CertificateRow.revoked_at.is_(None))
        .group_by(CertificateRow.device_id)
        .subquery()
    )
    query = (
        select(
            DeviceRow.device_id,
            DeviceRow.site,
            DeviceRow.last_seen_at,
            DeviceRow.revoked_at,
            DeviceRow.enrolled_at,
            ReportedRow.received_at,
            ReportedRow.unwell,
            ReportedRow.outbox_records,
            ReportedRow.outbox_oldest_s,
            ends.c.ends,
        )
        .outerjoin(ReportedRow, ReportedRow.device_id == DeviceRow.device_id)
        .outerjoin(ends, ends.c.device_id == DeviceRow.device_id)
        .order_by(DeviceRow.device_id)
    )
    return tuple(
        Glance(
            device=DeviceId(device),
            site=site,
            presence=presence(
                last_seen_at=seen,
                revoked=revoked is not None,
                now=now,
                late_after=settings.late_after,
                offline_after=settings.offline_after,
            ),
            last_seen_at=seen,
            told_at=received or enrolled,
            unwell=tuple((unwell or "").split()),
            outbox_records=records or 0,
            outbox_oldest_s=oldest or 0,
            certificate_ends=certificate_ends,
        )
        for (
            device,
            site,
            seen,
            revoked,
            enrolled,
            received,
            unwell,
            records,
            oldest,
            certificate_ends,
        ) in session.execute(query)
    )


def running(session: Session, release: Sha256) -> frozenset[DeviceId]:
    """Devices on which the release is live or wanted."""
    live = select(ReportedModelRow.device_id).where(ReportedModelRow.live_sha256 == release)
    wanted = select(DesiredModelRow.device_id).where(DesiredModelRow.release_sha256 == release)
    return frozenset(DeviceId(each) for each in session.scalars(live.union(wanted)))


def astray(session: Session) -> frozenset[DeviceId]:
    """Devices that answer with something else than what they should, with no rollout under way that explains it.

    A device that was passed over by a rollout that nevertheless succeeded stays so until somebody sees it.
    """
    same = (ReportedModelRow.device_id == DesiredModelRow.device_id) & (ReportedModelRow.model == DesiredModelRow.model)
    moving = (
        select(RolloutDeviceRow.device_id)
        .join(RolloutRow, RolloutRow.rollout_id == RolloutDeviceRow.rollout_id)
        .where(RolloutRow.model == DesiredModelRow.model, RolloutRow.state.not_in([each.value for each in FINAL]))
        .where(RolloutDeviceRow.device_id == DesiredModelRow.device_id)
        .exists()
    )
    query = (
        select(DesiredModelRow.device_id)
        .join(ReportedRow, ReportedRow.device_id == DesiredModelRow.device_id)
        .outerjoin(ReportedModelRow, same)  # a model that a report does not mention is not live there
        .where(ReportedModelRow.live_sha256.is_distinct_from(DesiredModelRow.release_sha256), ~moving)
    )
    return frozenset(DeviceId(each) for each in session.scalars(query))


def models_of(session: Session, devices: Collection[DeviceId]) -> Mapping[DeviceId, tuple[Runs, ...]]:
    """What each of `devices` should run and runs; meant for the devices of one page."""
    names = dict(session.execute(select(ReleaseRow.sha256, ReleaseRow.version)).all())
    found: dict[tuple[DeviceId, str], Runs] = {}
    for wanted in session.scalars(select(DesiredModelRow).where(DesiredModelRow.device_id.in_(list(devices)))):
        key = (DeviceId(wanted.device_id), wanted.model)
        found[key] = Runs(model=wanted.model, wanted=_release(wanted.model, wanted.release_sha256, names))
    for live in session.scalars(select(ReportedModelRow).where(ReportedModelRow.device_id.in_(list(devices)))):
        key = (DeviceId(live.device_id), live.model)
        found[key] = Runs(
            model=live.model,
            wanted=found[key].wanted if key in found else "",
            live=_release(live.model, live.live_sha256, names),
            slot=live.live_slot or "",
            update_state=live.update_state or "",
        )
    by_device: dict[DeviceId, tuple[Runs, ...]] = {}
    for (device, _), runs in sorted(found.items()):
        by_device[device] = (*by_device.get(device, ()), runs)
    return by_device


def _release(model: str, sha256: str | None, versions: Mapping[str, int]) -> str:
    if sha256 is None:
        return ""
    return f"{model}@{versions[sha256]}" if sha256 in versions else f"{model} ({sha256[:8]}…)"
