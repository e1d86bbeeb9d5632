"""Rollouts in the database: rows to values and back."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from sqlalchemy import Row, Select, Table, bindparam, select, update
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, ModelName, ReleaseRef, Sha256
from edgeward_fleet.audit.model import Actor
from edgeward_fleet.db.schema import (
    DesiredModelRow,
    DeviceRow,
    ReleaseRow,
    ReportedModelRow,
    ReportedRow,
    RolloutDeviceRow,
    RolloutEventRow,
    RolloutRow,
)
from edgeward_fleet.errors import NotFound
from edgeward_fleet.rollouts.cohort import DeviceNow
from edgeward_fleet.rollouts.machine import PhaseStep, RolloutState
from edgeward_fleet.rollouts.model import Back, Former, Rollout, RolloutDevice, RolloutId, RolloutSpec, Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorship:
    """Who asked for a rollout and who allowed it."""

    created_by: str
    approved_by: str | None
    approved_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutLine:
    """A line in the life of a rollout."""

    event_id: int
    at: datetime
    actor: str
    kind: str
    detail: str


def load(session: Session, rollout_id: RolloutId, *, to_change: bool = False) -> Rollout:
    """The rollout with its devices. Raises NotFound.

    `to_change`, for whoever has the turn of the rollouts: reports of the devices wait until the transaction ends. On a
    server they would come in between otherwise, and one of the two would write what the other has just changed.
    """
    return rollout_of(_row(session, rollout_id), _devices(session, rollout_id, to_change=to_change))


def authorship(session: Session, rollout_id: RolloutId) -> Authorship:
    """Raises NotFound."""
    return authorship_of(_row(session, rollout_id))


def authorship_of(row: RolloutRow) -> Authorship:
    return Authorship(created_by=row.created_by, approved_by=row.approved_by, approved_at=row.approved_at)


def add(session: Session, rollout: Rollout, actor: Actor) -> None:
    row = RolloutRow(
        rollout_id=rollout.id,
        model=rollout.model,
        release_sha256=rollout.release_sha256,
        spec=rollout.spec.canonical(),
        spec_sha256=rollout.spec.sha256(),
        created_at=rollout.created_at,
        created_by=actor.name,
    )
    _fill(row, rollout)
    session.add(row)
    session.flush()
    session.add_all(_device_row(rollout.id, device) for device in rollout.devices)
    session.flush()


def save(session: Session, before: Rollout, after: Rollout) -> None:
    """Write what differs."""
    row = session.get_one(RolloutRow, after.id)
    _fill(row, after)
    known = {device.device: device for device in before.devices}
    differing = [device for device in after.devices if known.get(device.device) != device]
    session.add_all(_device_row(after.id, each) for each in differing if each.device not in known)
    session.flush()
    save_devices(session, after.id, [each for each in differing if each.device in known])


def save_devices(session: Session, rollout_id: RolloutId, devices: Iterable[RolloutDevice]) -> None:
    """In one statement: while hundreds are written, reports wait."""
    columns = [{**_device_columns(each), "rollout": rollout_id, "device": each.device} for each in devices]
    if columns:
        session.connection().execute(_SAVE_DEVICE, columns)


def approve(session: Session, rollout_id: RolloutId, actor: Actor, now: datetime) -> None:
    row = session.get_one(RolloutRow, rollout_id)
    row.approved_by, row.approved_at = actor.name, now


def add_event(session: Session, rollout_id: RolloutId, now: datetime, actor: str, kind: str, detail: str) -> None:
    session.add(RolloutEventRow(rollout_id=rollout_id, at=now, actor=actor, kind=kind, detail=detail))


def events(session: Session, rollout_id: RolloutId, *, after: int, limit: int) -> list[RolloutLine]:
    """Oldest first. Raises NotFound."""
    _row(session, rollout_id)
    query = select(RolloutEventRow).where(RolloutEventRow.rollout_id == rollout_id, RolloutEventRow.event_id > after)
    rows = session.scalars(query.order_by(RolloutEventRow.event_id).limit(limit))
    return [
        RolloutLine(event_id=row.event_id, at=row.at, actor=row.actor, kind=row.kind, detail=row.detail) for row in rows
    ]


def in_states(session: Session, states: Iterable[RolloutState]) -> list[RolloutId]:
    """Oldest first."""
    query = select(RolloutRow.rollout_id).where(RolloutRow.state.in_([state.value for state in states]))
    return [RolloutId(each) for each in session.scalars(query.order_by(RolloutRow.created_at))]


def of_device(
    session: Session, device: DeviceId, states: Iterable[RolloutState]
) -> list[tuple[RolloutId, ModelName, Sha256]]:
    """The rollouts in `states` that the device is part of, and any that still waits for the proof that it is back."""
    asked = {"device": device, "states": [state.value for state in states]}
    rows = session.connection().execute(_OF_DEVICE, asked)
    return [(RolloutId(rollout), ModelName(model), Sha256(sha256)) for rollout, model, sha256 in rows]


def taken(session: Session, rollout: Rollout, states: Iterable[RolloutState]) -> frozenset[DeviceId]:
    """The devices that other rollouts of the model, in `states`, have and that have not left them."""
    query = (
        select(RolloutDeviceRow.device_id)
        .join(RolloutRow, RolloutRow.rollout_id == RolloutDeviceRow.rollout_id)
        .where(RolloutRow.model == rollout.model, RolloutRow.rollout_id != rollout.id)
        .where(RolloutRow.state.in_([state.value for state in states]))
        .where(RolloutDeviceRow.standing != Standing.LEFT.value)
    )
    return frozenset(DeviceId(each) for each in session.scalars(query))


def device_of(session: Session, rollout_id: RolloutId, device: DeviceId) -> RolloutDevice:
    """To be changed: nobody else changes it until the transaction ends."""
    return _device(session.connection().execute(_ONE_DEVICE, {"rollout": rollout_id, "device": device}).one())


def fleet_now(session: Session, model: ModelName) -> dict[DeviceId, DeviceNow]:
    """Every device that has enrolled, with regard to `model`."""
    wanted = (DesiredModelRow.device_id == DeviceRow.device_id) & (DesiredModelRow.model == model)
    said = (ReportedModelRow.device_id == DeviceRow.device_id) & (ReportedModelRow.model == model)
    query = (
        select(
            DeviceRow.device_id,
            DeviceRow.site,
            DeviceRow.revoked_at,
            DesiredModelRow.deployment,
            ReleaseRow.version,
            ReleaseRow.sha256,
            ReportedModelRow.live_sha256,
            ReportedModelRow.live_slot,
        )
        .outerjoin(DesiredModelRow, wanted)
        .outerjoin(ReleaseRow, ReleaseRow.sha256 == DesiredModelRow.release_sha256)
        .outerjoin(ReportedModelRow, said)
    )
    fleet = {}
    for device, site, revoked_at, deployment, version, sha256, live, slot in session.execute(query):
        fleet[DeviceId(device)] = DeviceNow(
            device=DeviceId(device),
            site=site,
            revoked=revoked_at is not None,
            desired=Former(release=ReleaseRef(model, version), sha256=Sha256(sha256)) if sha256 else None,
            deployment=deployment,
            live_sha256=Sha256(live) if live else None,
            live_slot=slot,
        )
    return fleet


def given_back(session: Session, model: ModelName) -> frozenset[str]:
    """The deployments by which roll-backs made devices run what they should run now."""
    is_it = (RolloutDeviceRow.device_id == DesiredModelRow.device_id) & (
        RolloutDeviceRow.back_deployment == DesiredModelRow.deployment
    )
    query = select(DesiredModelRow.deployment).join(RolloutDeviceRow, is_it).where(DesiredModelRow.model == model)
    return frozenset(session.scalars(query))


def unproven_offer(session: Session, device_id: DeviceId, deployment: str) -> tuple[bool, Former | None]:
    """Whether `deployment` is an offer that no report has proven, and what the device had before it."""
    is_it = (RolloutDeviceRow.device_id == device_id) & (RolloutDeviceRow.deployment == deployment)
    found = session.execute(_with_former().where(is_it)).first()
    if found is None:
        return False, None
    device = _device(found)
    return device.standing not in (Standing.SUCCEEDED, Standing.ALREADY), device.former


def _with_former() -> Select[*tuple[object, ...]]:
    """Columns, not entities: a tick reads every device of a rollout, and entities take four times as long."""
    former = ReleaseRow.sha256 == RolloutDeviceRow.former_sha256
    heard = ReportedRow.device_id == RolloutDeviceRow.device_id
    names = (ReleaseRow.name.label("model"), ReleaseRow.version)
    columns = (*RolloutDeviceRow.__table__.columns, *names, ReportedRow.received_at)
    return select(*columns).outerjoin(ReleaseRow, former).outerjoin(ReportedRow, heard)


# Built once: every report of a device in a rollout asks these.
_DEVICES: Final = cast(Table, RolloutDeviceRow.__table__)
_OF_DEVICE: Final = (
    select(RolloutRow.rollout_id, RolloutRow.model, RolloutRow.release_sha256)
    .join(RolloutDeviceRow, RolloutDeviceRow.rollout_id == RolloutRow.rollout_id)
    .where(
        RolloutDeviceRow.device_id == bindparam("device"),
        RolloutRow.state.in_(bindparam("states", expanding=True)) | (RolloutDeviceRow.back == Back.ASKED.value),
    )
)
_ONE_DEVICE: Final = (
    _with_former()
    .where(RolloutDeviceRow.rollout_id == bindparam("rollout"), RolloutDeviceRow.device_id == bindparam("device"))
    .with_for_update(of=RolloutDeviceRow)
)
_SAVE_DEVICE: Final = update(_DEVICES).where(
    _DEVICES.c.rollout_id == bindparam("rollout"), _DEVICES.c.device_id == bindparam("device")
)


def _devices(session: Session, rollout_id: RolloutId, *, to_change: bool) -> tuple[RolloutDevice, ...]:
    query = _with_former().where(RolloutDeviceRow.rollout_id == rollout_id).order_by(RolloutDeviceRow.device_id)
    if to_change:
        query = query.with_for_update(of=RolloutDeviceRow)
    return tuple(_device(row) for row in session.execute(query))


def _row(session: Session, rollout_id: RolloutId) -> RolloutRow:
    row = session.get(RolloutRow, rollout_id, populate_existing=True)
    if row is None:
        raise NotFound(
            f"expected a rollout, there is no {rollout_id[:40]!r}", hint="`edgeward rollout list` shows them all."
        )
    return row


def _fill(row: RolloutRow, rollout: Rollout) -> None:
    row.state, row.phase, row.step, row.reason = rollout.state.value, rollout.phase, rollout.step.value, rollout.reason
    row.since, row.phase_since, row.step_since = rollout.since, rollout.phase_since, rollout.step_since


def rollout_of(row: RolloutRow, devices: tuple[RolloutDevice, ...]) -> Rollout:
    return Rollout(
        id=RolloutId(row.rollout_id),
        spec=RolloutSpec.parse(row.spec),
        release_sha256=Sha256(row.release_sha256),
        state=RolloutState(row.state),
        created_at=row.created_at,
        since=row.since,
        phase=row.phase,
        step=PhaseStep(row.step),
        phase_since=row.phase_since,
        step_since=row.step_since,
        reason=row.reason,
        devices=devices,
    )


def _device_row(rollout_id: RolloutId, device: RolloutDevice) -> RolloutDeviceRow:
    return RolloutDeviceRow(rollout_id=rollout_id, device_id=device.device, **_device_columns(device))


def _device_columns(device: RolloutDevice) -> dict[str, object]:
    return {
        "site": device.site,
        "phase": device.phase,
        "counted": device.counted,
        "standing": device.standing.value,
        "reason": device.reason,
        "detail": device.detail,
        "deployment": device.deployment,
        "generation": device.generation,
        "former_sha256": device.former.sha256 if device.former else None,
        "back": device.back.value,
        "back_deployment": device.back_deployment,
        "back_generation": device.back_generation,
        "requests": device.requests,
        "errors": device.errors,
        "earlier_requests": device.earlier_requests,
        "earlier_errors": device.earlier_errors,
    }


def _device(row: Row[*tuple[object, ...]]) -> RolloutDevice:
    return RolloutDevice(
        device=DeviceId(row.device_id),
        site=row.site,
        phase=row.phase,
        counted=row.counted,
        standing=Standing(row.standing),
        reason=row.reason,
        detail=row.detail,
        deployment=row.deployment,
        generation=row.generation,
        former=_former(row.model, row.version, row.former_sha256) if row.former_sha256 else None,
        back=Back(row.back),
        back_deployment=row.back_deployment,
        back_generation=row.back_generation,
        requests=row.requests,
        errors=row.errors,
        earlier_requests=row.earlier_requests,
        earlier_errors=row.earlier_errors,
        heard_at=row.received_at,
    )


def _former(model: str, version: int, sha256: str) -> Former:
    return Former(release=ReleaseRef(ModelName(model), version), sha256=Sha256(sha256))
