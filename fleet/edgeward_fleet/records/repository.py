"""Records in the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Select, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, Sha256
from edgeward_fleet.db.schema import RecordRow
from edgeward_fleet.records.model import Arrival, Key, RecordFilter, StoredRecord

Row = TypeVar("Row")


def insert_new(session: Session, device: DeviceId, batch: Sequence[Arrival], now: datetime) -> frozenset[Key]:
    """Insert what is not there yet; the keys that were inserted."""
    if not batch:
        return frozenset()
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = dialect.insert(RecordRow).on_conflict_do_nothing(index_elements=["device_id", "epoch", "sequence"])
    rows = session.execute(
        statement.returning(RecordRow.epoch, RecordRow.sequence), [_columns(device, each, now) for each in batch]
    )
    return frozenset((epoch, sequence) for epoch, sequence in rows)


def stored_digests(session: Session, device: DeviceId, keys: Sequence[Key]) -> dict[Key, Sha256]:
    """The digests of those keys that are stored."""
    columns = (RecordRow.epoch, RecordRow.sequence)
    query = select(*columns, RecordRow.sha256).where(RecordRow.device_id == device, tuple_(*columns).in_(keys))
    return {(epoch, sequence): Sha256(sha256) for epoch, sequence, sha256 in session.execute(query)}


def page(session: Session, which: RecordFilter, *, after: int, limit: int) -> list[StoredRecord]:
    """Records in the order in which they came, from the one after `after` on."""
    query = _filtered(select(RecordRow), which).where(RecordRow.record_id > after)
    rows = session.scalars(query.order_by(RecordRow.record_id).limit(limit))
    return [
        StoredRecord(
            record_id=row.record_id,
            device=DeviceId(row.device_id),
            received_at=row.received_at,
            content=row.content,
        )
        for row in rows
    ]


def count(session: Session, which: RecordFilter) -> int:
    return session.scalar(_filtered(select(func.count()).select_from(RecordRow), which)) or 0


def _filtered(query: Select[Row], which: RecordFilter) -> Select[Row]:
    if which.device is not None:
        query = query.where(RecordRow.device_id == which.device)
    if which.kind is not None:
        query = query.where(RecordRow.kind == which.kind)
    if which.model is not None:
        query = query.where(RecordRow.model == which.model)
    if which.version is not None:
        query = query.where(RecordRow.version == which.version)
    return query


def _columns(device: DeviceId, arrival: Arrival, now: datetime) -> dict[str, object]:
    record = arrival.record
    return {
        "device_id": device,
        "epoch": record.epoch,
        "sequence": record.sequence,
        "record_class": record.record_class.value,
        "kind": record.kind,
        "model": arrival.model,
        "version": arrival.version,
        "wall_us": arrival.wall_us,
        "latency_us": arrival.latency_us,
        "sha256": arrival.sha256,
        "content": arrival.content,
        "received_at": now,
    }
