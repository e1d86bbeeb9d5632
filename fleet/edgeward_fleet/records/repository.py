"""Records in the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, TypeVar, cast

from sqlalchemy import Select, Table, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, Sha256
from edgeward_fleet.db.schema import RecordRow
from edgeward_fleet.records.model import Arrival, Key, RecordFilter, StoredRecord

Row = TypeVar("Row")

# Built once: every batch of every device asks and inserts.
_RECORDS: Final = cast(Table, RecordRow.__table__)
_KEY: Final = ("device_id", "epoch", "sequence")
_INSERT: Final = {
    "sqlite": sqlite.insert(_RECORDS).on_conflict_do_nothing(index_elements=_KEY),
    "postgresql": postgresql.insert(_RECORDS).on_conflict_do_nothing(index_elements=_KEY),
}
_DIGESTS: Final = select(RecordRow.sequence, RecordRow.sha256).where(
    RecordRow.device_id == bindparam("device"),
    RecordRow.epoch == bindparam("epoch"),
    RecordRow.sequence.in_(bindparam("sequences", expanding=True)),
)


def insert_new(session: Session, device: DeviceId, batch: Sequence[Arrival], now: datetime) -> None:
    """Insert those of `batch` that nobody else has inserted meanwhile."""
    if batch:
        connection = session.connection()
        statement = _INSERT[connection.dialect.name]
        connection.execute(statement, [_columns(device, each, now) for each in batch])


def stored_digests(session: Session, device: DeviceId, keys: Iterable[Key]) -> dict[Key, Sha256]:
    """The digests of those keys that are stored."""
    sequences: dict[str, list[int]] = defaultdict(list)
    for epoch, sequence in keys:
        sequences[epoch].append(sequence)
    connection = session.connection()
    found: dict[Key, Sha256] = {}
    for epoch, wanted in sequences.items():
        rows = connection.execute(_DIGESTS, {"device": device, "epoch": epoch, "sequences": wanted})
        found.update(((epoch, sequence), Sha256(sha256)) for sequence, sha256 in rows)
    return found


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
