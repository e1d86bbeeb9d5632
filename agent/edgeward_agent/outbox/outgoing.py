"""Giving records out, and letting go of them: batches, verdicts, quarantine."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from edgeward_agent.outbox.ledger import Ledger
from edgeward_agent.outbox.model import CLASSES, Applied, HeldRecord
from edgeward_agent.outbox.retention import keys_to_destroy
from edgeward_agent.outbox.rows import COLUMNS, PARAMETERS, Row
from edgeward_agent.outbox.sealing import SealBroken
from edgeward_contract.record import Batch, Record, Verdict, VerdictStatus

_BATCH_ENVELOPE_BYTES: Final = 128
_DONE: Final = {VerdictStatus.ACCEPTED, VerdictStatus.DUPLICATE}

# Constants alone are put together here, no value: S608 does not apply.
_NEXT: Final = f"SELECT {COLUMNS} FROM records WHERE rank = ? ORDER BY row LIMIT ?"  # noqa: S608
_LIST: Final = f"SELECT {COLUMNS}, '' FROM records WHERE row > ? ORDER BY row LIMIT ?"  # noqa: S608
_LIST_HELD: Final = f"SELECT {COLUMNS}, reason FROM quarantine WHERE row > ? ORDER BY row LIMIT ?"  # noqa: S608
_RELEASE: Final = f"INSERT INTO records ({COLUMNS}) SELECT {COLUMNS} FROM quarantine WHERE row = ?"  # noqa: S608
_ADOPT: Final = f"INSERT OR IGNORE INTO records ({COLUMNS}) VALUES ({PARAMETERS})"  # noqa: S608
_ADOPT_HELD: Final = f"INSERT OR IGNORE INTO quarantine ({COLUMNS}, reason) VALUES ({PARAMETERS}, ?)"  # noqa: S608


def head(ledger: Ledger, *, limit_bytes: int, limit_records: int) -> Batch | None:
    """The next batch: highest class first, in each class the oldest first; None when there is nothing to send.

    Always at least one record, however small the limit. A row that no longer opens goes to quarantine on the way.
    """
    chosen: list[Record] = []
    broken: list[tuple[Row, str]] = []
    for row in _next_rows(ledger, limit_bytes - _BATCH_ENVELOPE_BYTES, limit_records):
        try:
            chosen.append(ledger.unseal(row))
        except SealBroken as error:
            broken.append((row, f"unreadable: {error}"))
    if broken:
        with ledger.change():
            for row, reason in broken:
                ledger.put_aside(row, reason)
        return head(ledger, limit_bytes=limit_bytes, limit_records=limit_records)
    return Batch(batch_id=f"b-{secrets.token_hex(8)}", records=tuple(chosen)) if chosen else None


def apply(ledger: Ledger, verdicts: Sequence[Verdict]) -> Applied:
    """Do what the fleet said, in one commit. A verdict on a row that is not here changes nothing: it came twice.

    A conflict says that the fleet has other content under this number: this device was restored from an image and
    lives a second time. The record then moves to the epoch that follows, and so does whatever comes after. Rows without
    a verdict keep their numbers, because those from before the image may be in the fleet already; a new number would
    make them duplicates that nobody can tell. Each is moved when the fleet calls it a conflict, and not before.
    """
    removed = quarantined = moved = 0
    with ledger.change():
        for verdict in verdicts:
            row = ledger.find(verdict.epoch, verdict.sequence)
            if row is None:
                continue
            if verdict.status in _DONE:
                ledger.delete([row.row])
                removed += 1
            elif verdict.status is VerdictStatus.REJECTED:
                ledger.put_aside(row, verdict.reason)
                quarantined += 1
            else:
                _move(ledger, row)
                moved += 1
    return Applied(removed=removed, quarantined=quarantined, moved=moved)


def held(ledger: Ledger, *, quarantined: bool, after: int | None, limit: int) -> tuple[HeldRecord, ...]:
    """Rows for people, oldest first, from the row above `after` on."""
    first = -(1 << 63) if after is None else after
    found = ledger.connection.execute(_LIST_HELD if quarantined else _LIST, (first, limit))
    return tuple(_held(ledger, Row.of(columns[:9]), columns[9]) for columns in found)


def requeue(ledger: Ledger, rows: Iterable[int]) -> int:
    """Out of quarantine, back to where they were in the order; how many there were."""
    with ledger.change():
        count = 0
        for row in rows:
            count += ledger.connection.execute(_RELEASE, (row,)).rowcount
            ledger.connection.execute("DELETE FROM quarantine WHERE row = ?", (row,))
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """A row out of a damaged store, its seal checked, with the wrapped key that opens it."""

    row: Row
    day: int
    wrapped: bytes
    reason: str | None = None  # not None: it lay in quarantine


def oldest_row(ledger: Ledger) -> int:
    """A number that no row is below: what is salvaged is older than what came since, and goes there."""
    (oldest,) = ledger.connection.execute(
        "SELECT min(low) FROM (SELECT min(row) AS low FROM records UNION ALL SELECT min(row) FROM quarantine)"
    ).fetchone()
    return min(0, oldest or 0)


def adopt(ledger: Ledger, salvaged: Sequence[Salvaged]) -> None:
    """Take rows over with their old numbers: the fleet may have some of them, and must recognise those."""
    with ledger.change():
        for each in salvaged:
            key = (each.row.key_id, each.day, each.wrapped)
            ledger.connection.execute("INSERT OR IGNORE INTO period_keys VALUES (?, ?, ?)", key)
            if each.reason is None:
                ledger.connection.execute(_ADOPT, each.row.columns())
            else:
                ledger.connection.execute(_ADOPT_HELD, (*each.row.columns(), each.reason))


def destroy_keys(ledger: Ledger, *, today: int, retention_days: int) -> int:
    """Destroy the keys of periods that are over and acknowledged; how many."""
    doomed = keys_to_destroy(ledger.keys.uses(), today=today, retention_days=retention_days)
    if doomed:
        with ledger.change():
            ledger.keys.destroy(doomed)
    return len(doomed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What only the database knows."""

    records: int
    quarantined: int
    oldest_wall_us: int | None


def counts(ledger: Ledger) -> Counts:
    (records,) = ledger.connection.execute("SELECT count(*) FROM records").fetchone()
    (quarantined,) = ledger.connection.execute("SELECT count(*) FROM quarantine").fetchone()
    oldest = ledger.connection.execute("SELECT wall_us FROM records ORDER BY row LIMIT 1").fetchone()
    return Counts(records=records, quarantined=quarantined, oldest_wall_us=oldest[0] if oldest else None)


def _next_rows(ledger: Ledger, room: int, limit_records: int) -> Iterator[Row]:
    """Stops at the first row that does not fit, in whatever class: skipping it would break its order."""
    taken = 0
    for rank in sorted(CLASSES):
        for columns in ledger.connection.execute(_NEXT, (rank, limit_records - taken)):
            row = Row.of(columns)
            room -= row.wire_bytes
            if room < 0 and taken:
                return
            taken += 1
            yield row
        if taken >= limit_records:
            return


def _move(ledger: Ledger, row: Row) -> None:
    try:
        ledger.move(row)
    except SealBroken as error:
        ledger.put_aside(row, f"unreadable: {error}")


def _held(ledger: Ledger, row: Row, reason: str) -> HeldRecord:
    try:
        return HeldRecord(row=row.row, record=ledger.unseal(row), reason=reason)
    except SealBroken as error:
        return HeldRecord(row=row.row, record=None, reason=reason or f"unreadable: {error}")
