"""Taking records in: numbers, room, and the tombstones of what had to go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from edgeward_agent.errors import OutboxFull
from edgeward_agent.outbox.ledger import Ledger, need_bytes
from edgeward_agent.outbox.model import RANKS, TOMBSTONE, Draft, Receipt
from edgeward_agent.outbox.retention import Admission, Span, admit, joined, period_of
from edgeward_agent.outbox.rows import COLUMNS, Moment, Prepared, Row, prepare
from edgeward_agent.outbox.sealing import SealBroken
from edgeward_contract.record import Record, RecordClass
from edgeward_contract.schema import ContractError, Fields

_DROP_AT_ONCE: Final = 32
_TELEMETRY: Final = RANKS[RecordClass.TELEMETRY]
_OLDEST: Final = f"SELECT {COLUMNS} FROM records WHERE rank = ? ORDER BY row LIMIT ?"  # noqa: S608 - constants
_DROPPABLE: Final = "SELECT 1 FROM records WHERE rank = ? AND kind <> ? LIMIT 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Records of one caller: all of them are taken, or none. `moment` dates a tombstone that they may cause."""

    records: tuple[Prepared, ...]
    moment: Moment

    @property
    def telemetry(self) -> bool:
        return all(record.rank == _TELEMETRY for record in self.records)


def append(ledger: Ledger, requests: Sequence[Request]) -> list[tuple[Receipt, ...] | OutboxFull]:
    """Take what there is room for, in one commit; an answer for each request.

    Raises:
        OutboxFull: the disk has no room for the commit itself; nothing was taken.
        StoreDamaged, OutboxError: as `sqlite.translated`.
    """
    with ledger.change():
        return [_take(ledger, request) for request in requests]


def _take(ledger: Ledger, request: Request) -> tuple[Receipt, ...] | OutboxFull:
    spans: list[Span] = []
    day = period_of(request.moment.wall_us / 1e6)
    decision = _make_room(ledger, request, spans)
    if decision is Admission.REFUSE:
        _explain(ledger, spans, request.moment, day)
        return OutboxFull(f"expected room within {ledger.limit_bytes} bytes, found {ledger.used_bytes()} in use")
    if decision is Admission.DISCARD:
        receipts = tuple(ledger.take_number() for _ in request.records)
        spans += [Span(epoch=each.epoch, first=each.sequence, last=each.sequence, count=1) for each in receipts]
        _count(ledger, len(receipts))
        spans += _drop_oldest(ledger)  # there are only tombstones left: fold them into the new one
        _explain(ledger, spans, request.moment, day)
        return receipts
    _explain(ledger, spans, request.moment, day)
    return tuple(ledger.insert(record, day) for record in request.records)


def _make_room(ledger: Ledger, request: Request, spans: list[Span]) -> Admission:
    need = need_bytes(request.records)
    while True:
        decision = admit(
            used_bytes=ledger.used_bytes(),
            need_bytes=need,
            limit_bytes=ledger.limit_bytes,
            droppable=ledger.connection.execute(_DROPPABLE, (_TELEMETRY, TOMBSTONE)).fetchone() is not None,
            telemetry=request.telemetry,
        )
        if decision is not Admission.DROP_OLDEST:
            return decision
        spans += _drop_oldest(ledger)


def _drop_oldest(ledger: Ledger) -> list[Span]:
    """Delete the oldest telemetry; what its tombstones stood for lives on in the spans."""
    rows = [Row.of(each) for each in ledger.connection.execute(_OLDEST, (_TELEMETRY, _DROP_AT_ONCE))]
    ledger.delete(row.row for row in rows)
    _count(ledger, sum(row.kind != TOMBSTONE for row in rows))
    return [_span(ledger, row) for row in rows]


def _count(ledger: Ledger, dropped: int) -> None:
    ledger.state = replace(ledger.state, dropped=ledger.state.dropped + dropped)


def _span(ledger: Ledger, row: Row) -> Span:
    alone = Span(epoch=row.epoch, first=row.sequence, last=row.sequence, count=1)
    if row.kind != TOMBSTONE:
        return alone
    try:
        span = _stood_for(ledger.unseal(row))
    except (SealBroken, ContractError):
        return alone
    # Its own number is part of the gap that it leaves, but it is no record that was lost.
    return span.join(replace(alone, count=0)) if span.epoch == row.epoch else span


def _stood_for(tombstone: Record) -> Span:
    body = Fields.of(dict(tombstone.body), "body")
    return Span(
        epoch=body.text("epoch"), first=body.integer("first"), last=body.integer("last"), count=body.integer("count")
    )


def _explain(ledger: Ledger, spans: Iterable[Span], moment: Moment, day: int) -> None:
    """One tombstone per epoch.

    One that was folded into a later one may have been sent before: where ranges overlap, counts must not be added.
    """
    for span in joined(spans):
        ledger.insert(prepare(_tombstone(span), moment), day)


def _tombstone(span: Span) -> Draft:
    return Draft(
        record_class=RecordClass.TELEMETRY,
        kind=TOMBSTONE,
        body={
            "reason": "dropped_for_room",
            "epoch": span.epoch,
            "first": span.first,
            "last": span.last,
            "count": span.count,
        },
    )
