"""Desired state in the database: one document per device, whose generation only ever grows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Final, cast

from sqlalchemy import Table, bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, ModelName
from edgeward_contract.desired import MAX_DESIRED_BYTES, DesiredModel, DesiredState
from edgeward_contract.schema import ContractError, canonical_json
from edgeward_fleet.db.schema import DesiredModelRow, DesiredRow
from edgeward_fleet.errors import Conflict

# Built once: every poll asks the first of these, twice.
_DESIRED: Final = cast(Table, DesiredRow.__table__)
_GENERATION: Final = select(DesiredRow.generation).where(DesiredRow.device_id == bindparam("device"))
_DOCUMENT: Final = select(DesiredRow.document).where(DesiredRow.device_id == bindparam("device"))
_FETCHED: Final = update(_DESIRED).where(_DESIRED.c.device_id == bindparam("device"))


def desired_of(session: Session, device: DeviceId) -> DesiredState:
    """What the device should be; generation 0 and no model as long as nobody has asked for anything."""
    row = session.get(DesiredRow, device)
    return DesiredState.parse(row.document) if row else DesiredState(generation=0)


def set_model(
    session: Session, device: DeviceId, model: ModelName, wanted: DesiredModel | None, *, now: datetime
) -> DesiredState:
    """Make `wanted` the release of `model` that the device should run; None takes the model away.

    The caller wakes the device's poll after its commit. Raises Conflict when the document would not fit its carriers.
    """
    after = _with(desired_of(session, device), model, wanted)
    _save(session, device, after, now)
    session.execute(delete(DesiredModelRow).filter_by(device_id=device, model=model))
    if wanted is not None:
        session.add(
            DesiredModelRow(device_id=device, model=model, release_sha256=wanted.sha256, deployment=wanted.deployment)
        )
        session.flush()
    return after


def overfull(session: Session, devices: Collection[DeviceId], model: ModelName, wanted: DesiredModel) -> list[DeviceId]:
    """Those of `devices` that cannot be given `wanted` as well: their document would not fit its carriers."""
    entry_bytes = len(canonical_json({model: wanted.document()}))
    nearly_full = func.length(DesiredRow.document) > MAX_DESIRED_BYTES - 2 * entry_bytes
    found = {DeviceId(each) for each in session.scalars(select(DesiredRow.device_id).where(nearly_full))}
    return [each for each in sorted(found.intersection(devices)) if not _fits(session, each, model, wanted)]


def fetch(session: Session, device: DeviceId, after: int, now: datetime) -> bytes | None:
    """The document if its generation is above `after`, and note that the device has it: from now on it may act on it.

    A device that has seen a later generation than ours was served by this fleet before a backup was restored; it gets
    the document under a generation above its own, or it would wait for ever.
    """
    connection = session.connection()
    known = connection.execute(_GENERATION, {"device": device}).scalar_one_or_none()
    if after > (known or 0):
        known = after + 1
        _save(session, device, replace(desired_of(session, device), generation=known), now)
    if known is None:
        return DesiredState(generation=0).canonical() if after < 0 else None
    if known <= after:
        return None
    connection.execute(_FETCHED, {"device": device, "fetched_generation": known})
    return connection.execute(_DOCUMENT, {"device": device}).scalar_one()


def _with(before: DesiredState, model: ModelName, wanted: DesiredModel | None) -> DesiredState:
    models = {name: each for name, each in before.models.items() if name != model}
    if wanted is not None:
        models[model] = wanted
    return DesiredState(generation=before.generation + 1, models=models)


def _fits(session: Session, device: DeviceId, model: ModelName, wanted: DesiredModel) -> bool:
    try:
        _with(desired_of(session, device), model, wanted).canonical()
    except ContractError:
        return False
    return True


def _save(session: Session, device: DeviceId, state: DesiredState, now: datetime) -> None:
    try:
        document = state.canonical()
    except ContractError as error:
        raise Conflict(
            f"device {device}: its desired state would not fit: {error}", hint="Give it fewer models at once."
        ) from None
    row = session.get(DesiredRow, device)
    if row is None:
        row = DesiredRow(device_id=device, generation=0, document=b"", fetched_generation=0, changed_at=now)
        session.add(row)
    row.generation, row.document, row.changed_at = state.generation, document, now
    session.flush()
