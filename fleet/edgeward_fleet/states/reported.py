"""Reported state in the database: the newest report of each device, and what changed from the one before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final, cast

from sqlalchemy import Connection, Table, bindparam, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, ModelName, Sha256
from edgeward_contract.reported import MAX_REPORTED_BYTES, ReportedModel, ReportedState, UpdateState
from edgeward_contract.schema import JsonValue
from edgeward_fleet.db.schema import DeviceEventRow, ReportedModelRow, ReportedRow
from edgeward_fleet.errors import TooLarge

_BOOTS_KEPT: Final = 16

# Columns by themselves, built once: reports are most of what a fleet hears, and mapped rows take four times as long.
_REPORTED: Final = cast(Table, ReportedRow.__table__)
_MODELS: Final = cast(Table, ReportedModelRow.__table__)
# For update: on a server the next report of the device waits, or the one that ends last would be the newest.
_NEWEST: Final = (
    select(ReportedRow.boot, ReportedRow.sequence, ReportedRow.earlier_boots, ReportedRow.document)
    .where(ReportedRow.device_id == bindparam("device"))
    .with_for_update()
)
_INSERT: Final = {
    "sqlite": sqlite.insert(_REPORTED).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(_REPORTED).on_conflict_do_nothing(),
}
_UPDATE: Final = update(_REPORTED).where(_REPORTED.c.device_id == bindparam("device"))
_FORGET_MODELS: Final = delete(_MODELS).where(_MODELS.c.device_id == bindparam("device"))
_ADD_MODELS: Final = insert(_MODELS)
_ADD_EVENTS: Final = insert(cast(Table, DeviceEventRow.__table__))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is known of the order of a device's reports."""

    boot: str
    sequence: int
    earlier_boots: tuple[str, ...] = ()

    def is_older(self, boot: str, sequence: int) -> bool:
        """Whether a report of `boot` with `sequence` comes before the newest one, or is the same again."""
        if boot == self.boot:
            return sequence <= self.sequence
        return boot in self.earlier_boots

    def then(self, boot: str, sequence: int) -> Order:
        earlier = self.earlier_boots if boot == self.boot else (*self.earlier_boots, self.boot)[-_BOOTS_KEPT:]
        return Order(boot=boot, sequence=sequence, earlier_boots=earlier)


def reported_of(session: Session, device: DeviceId) -> ReportedState | None:
    """The newest report; None before the first."""
    row = session.get(ReportedRow, device)
    return ReportedState.parse(row.document) if row else None


def take(session: Session, device: DeviceId, reported: ReportedState, now: datetime) -> bool:
    """Store a report; False when it is older than what is here, or the same again. Raises TooLarge."""
    connection = session.connection()
    row = connection.execute(_NEWEST, {"device": device}).one_or_none()
    boots: tuple[str, ...] = ()
    if row is not None:
        order = Order(boot=row.boot, sequence=row.sequence, earlier_boots=tuple(row.earlier_boots))
        if order.is_older(reported.boot, reported.sequence):
            return False
        boots = order.then(reported.boot, reported.sequence).earlier_boots
    columns = _report_columns(reported, boots, now)
    if row is not None:
        connection.execute(_UPDATE, {"device": device, **columns})
    elif not connection.execute(_INSERT[connection.dialect.name], {"device_id": device, **columns}).rowcount:
        return take(session, device, reported, now)  # another one came first, of which nothing could be seen yet
    _note_changes(connection, device, ReportedState.parse(row.document) if row else None, reported, now)
    return True


def _note_changes(
    connection: Connection, device: DeviceId, before: ReportedState | None, reported: ReportedState, now: datetime
) -> None:
    if before is None or _columns(before) != _columns(reported):  # a heartbeat, the most of all reports, changes none
        _replace_models(connection, device, reported)
    news = [
        {"device_id": device, "at": now, "kind": kind, "detail": detail} for kind, detail in changes(before, reported)
    ]
    if news:
        connection.execute(_ADD_EVENTS, news)


def _report_columns(reported: ReportedState, earlier_boots: tuple[str, ...], now: datetime) -> dict[str, object]:
    return {
        "boot": reported.boot,
        "sequence": reported.sequence,
        "earlier_boots": list(earlier_boots),
        "generation": reported.generation,
        "document": _document(reported),
        "received_at": now,
        "unwell": " ".join(ailments(reported)),
        "outbox_records": reported.health.outbox_records,
        "outbox_oldest_s": reported.health.outbox_oldest_s,
    }


def _document(reported: ReportedState) -> bytes:
    """As it will be read again, with the same limit. What a device leaves out is written out here, and takes room.

    Raises TooLarge.
    """
    document = reported.canonical()
    if len(document) > MAX_REPORTED_BYTES:
        raise TooLarge(f"reported state: expected at most {MAX_REPORTED_BYTES} bytes in full, got {len(document)}")
    return document


def ailments(reported: ReportedState) -> tuple[str, ...]:
    """In what a device is unwell by its own account: its alarms, and what nobody had to raise an alarm for."""
    stranded = any(model.update and model.update.state is UpdateState.STRANDED for model in reported.models.values())
    signs = {
        "not_serving": bool(reported.models) and not reported.health.serving_ready,
        "quarantine": reported.health.quarantined > 0,
        "stranded": stranded,
    }
    alarms = reported.health.alarms.split()
    return tuple(dict.fromkeys((*alarms, *(word for word, shows in signs.items() if shows))))


def changes(before: ReportedState | None, after: ReportedState) -> Iterator[tuple[str, dict[str, JsonValue]]]:
    """What goes on the device's timeline: steps of its updates, another live release, alarms that come and go."""
    for name, model in after.models.items():
        was = before.models.get(name, ReportedModel()) if before else ReportedModel()
        if model.update and (was.update is None or _step(model) != _step(was)):
            yield "update", {"model": name, **model.update.document()}
        if _live(model) != _live(was):
            yield "live", {"model": name, "release": _live(model), "before": _live(was)}
    for name in sorted(set(before.models) - set(after.models)) if before else ():
        yield "live", {"model": name, "release": None, "before": _live(before.models[name]) if before else None}
    alarms_before = before.health.alarms if before else ""
    if after.health.alarms != alarms_before:
        yield "alarms", {"alarms": after.health.alarms, "before": alarms_before}


def _step(model: ReportedModel) -> tuple[str, str, str] | None:
    return (model.update.deployment, model.update.state.value, model.update.reason) if model.update else None


def _live(model: ReportedModel) -> str | None:
    return f"{model.live.release} ({model.live.slot})" if model.live else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _ModelColumns:
    """What of a reported model can be asked for in a query."""

    model: ModelName
    live_sha256: Sha256 | None
    live_slot: str | None
    deployment: str | None
    update_state: str | None


def _columns(reported: ReportedState) -> tuple[_ModelColumns, ...]:
    return tuple(
        _ModelColumns(
            model=name,
            live_sha256=model.live.sha256 if model.live else None,
            live_slot=model.live.slot if model.live else None,
            deployment=model.update.deployment if model.update else None,
            update_state=model.update.state.value if model.update else None,
        )
        for name, model in reported.models.items()
    )


def _replace_models(connection: Connection, device: DeviceId, reported: ReportedState) -> None:
    connection.execute(_FORGET_MODELS, {"device": device})
    if reported.models:
        connection.execute(_ADD_MODELS, [{"device_id": device, **asdict(each)} for each in _columns(reported)])
