"""Desired state in the database: one document per device, whose generation only ever grows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, cast

from sqlalchemy import Table, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, ModelName
from edgeward_contract.desired import MAX_DESIRED_BYTES, MAX_GENERATION, DesiredModel, DesiredState
from edgeward_contract.schema import ContractError, canonical_json
from edgeward_fleet.db.schema import DesiredModelRow, DesiredRow
from edgeward_fleet.errors import Conflict

# Built once: every poll asks the first of these, twice.
_DESIRED: Final = cast(Table, DesiredRow.__table__)
_GENERATION: Final = select(DesiredRow.generation).where(DesiredRow.device_id == bindparam("device"))
_FETCH: Final = (  # in one statement: what is given out and what is noted of it are the same
    update(_DESIRED)
    .where(_DESIRED.c.device_id == bindparam("device"))
    .values(fetched_generation=_DESIRED.c.generation)
    .returning(_DESIRED.c.document)
)
_EMPTY: Final = {
    "sqlite": sqlite.insert(_DESIRED).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(_DESIRED).on_conflict_do_nothing(),
}


def desired_of(session: Session, device: DeviceId) -> DesiredState:
    """What the device should be; generation 0 and no model as long as nobody has asked for anything."""
    row = session.get(DesiredRow, device)
    return DesiredState.parse(row.document) if row else DesiredState(generation=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A new desired state, and the newest generation that the device was given before it: that one it may act on."""

    state: DesiredState
    fetched_generation: int


def set_model(
    session: Session, device: DeviceId, model: ModelName, wanted: DesiredModel | None, *, now: datetime
) -> Change:
    """Make `wanted` the release of `model` that the device should run; None takes the model away.

    The caller wakes the device's poll after its commit. Raises Conflict when the document would not fit its carriers.
    """
    row = _held(session, device, now)
    after = _with(DesiredState.parse(row.document), model, wanted)
    _save(session, row, after, now)
    session.execute(delete(DesiredModelRow).filter_by(device_id=device, model=model))
    if wanted is not None:
        session.add(
            DesiredModelRow(device_id=device, model=model, release_sha256=wanted.sha256, deployment=wanted.deployment)
        )
        session.flush()
    return Change(state=after, fetched_generation=row.fetched_generation)


def overfull(session: Session, devices: Collection[DeviceId], model: ModelName, wanted: DesiredModel) -> list[DeviceId]:
    """Those of `devices` that cannot be given `wanted` as well: their document would not fit its carriers."""
    entry_bytes = len(canonical_json({model: wanted.document()}))
    nearly_full = func.length(DesiredRow.document) > MAX_DESIRED_BYTES - 2 * entry_bytes
    found = {DeviceId(each) for each in session.scalars(select(DesiredRow.device_id).where(nearly_full))}
    return [each for each in sorted(found.intersection(devices)) if not _fits(session, each, model, wanted)]


def fetch(session: Session, device: DeviceId, after: int, now: datetime) -> bytes | None:
    """The document if its generation is above `after`, and note that the device has it: from now on it may act on it.

    A device that has seen a later generation than ours was served by this fleet before a backup was restored; it gets
    the document under a generation above its own, or it would wait for ever. As long as nobody has asked for anything
    there is no document: such a device keeps what answers at its bedside.
    """
    connection = session.connection()
    known = connection.execute(_GENERATION, {"device": device}).scalar_one_or_none()
    if known is None:
        return DesiredState(generation=0).canonical() if after < 0 else None
    if after > known:
        known = _count_on(session, device, after, now)
    return connection.execute(_FETCH, {"device": device}).scalar_one() if known > after else None


def _count_on(session: Session, device: DeviceId, after: int, now: datetime) -> int:
    """The generation of the device's document, made to be above `after`."""
    row = _held(session, device, now)
    if row.generation <= after:
        _save(session, row, replace(DesiredState.parse(row.document), generation=after + 1), now)
    return row.generation


def is_behind(session: Session, device: DeviceId, generation: int) -> bool:
    """Whether the device has seen a later generation than there is here; what none can be is not believed."""
    known = session.connection().execute(_GENERATION, {"device": device}).scalar_one_or_none()
    return known is not None and known < generation <= MAX_GENERATION


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


def _held(session: Session, device: DeviceId, now: datetime) -> DesiredRow:
    """The device's row, made if there was none; nobody else changes it until the transaction ends."""
    row = session.get(DesiredRow, device, with_for_update=True, populate_existing=True)
    if row is not None:
        return row
    columns = {"device_id": device, "generation": 0, "fetched_generation": 0, "changed_at": now}
    connection = session.connection()
    connection.execute(_EMPTY[connection.dialect.name], {**columns, "document": DesiredState(generation=0).canonical()})
    return session.get_one(DesiredRow, device, with_for_update=True)


def _save(session: Session, row: DesiredRow, state: DesiredState, now: datetime) -> None:
    try:
        document = state.canonical()
    except ContractError as error:
        raise Conflict(
            f"device {row.device_id}: its desired state would not fit: {error}", hint="Give it fewer models at once."
        ) from None
    row.generation, row.document, row.changed_at = state.generation, document, now
    session.flush()
