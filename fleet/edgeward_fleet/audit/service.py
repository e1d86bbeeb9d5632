"""Write, read and verify the audit log. `record` runs inside the transaction of what it records."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeward_contract.schema import JsonValue, canonical_json
from edgeward_fleet.audit.model import GENESIS, Actor, AuditEntry, problem_between
from edgeward_fleet.clock import utc_now
from edgeward_fleet.db import turns
from edgeward_fleet.db.schema import AuditRow, SettingRow
from edgeward_fleet.db.turns import Turn

_HEAD: Final = "audit_head"
_BATCH: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How far the chain holds. `problem` is one sentence about the first place where it does not."""

    entries: int
    head_sha256: str
    problem: str | None


def record(
    session: Session,
    actor: Actor,
    action: str,
    subject: str,
    detail: Mapping[str, JsonValue] | None = None,
    *,
    at: datetime | None = None,
) -> None:
    """Append one entry; it stands or falls with the caller's transaction. Never put a secret into `detail`.

    `action` is `<noun>.<verb>` such as `rollout.approve`; `subject` is the id of what it was done to.
    """
    turns.take(session, Turn.AUDIT)
    head = session.get(SettingRow, _HEAD)
    sequence, previous = _parse_head(head)
    entry = AuditEntry(
        sequence=sequence + 1,
        at=at or utc_now(),
        actor=actor.name,
        address=actor.address,
        action=action,
        subject=subject[:200],
        detail=canonical_json(detail or {}).decode(),
        previous_sha256=previous,
        sha256="",
    )
    entry = dataclasses.replace(entry, sha256=entry.expected_sha256())
    session.add(AuditRow(**{field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}))
    value = f"{entry.sequence} {entry.sha256}"
    session.merge(SettingRow(key=_HEAD, value=value))
    session.flush()


def page(session: Session, *, after: int, limit: int) -> list[AuditEntry]:
    """Entries with a sequence above `after`, oldest first."""
    rows = session.scalars(select(AuditRow).where(AuditRow.sequence > after).order_by(AuditRow.sequence).limit(limit))
    return [_entry(row) for row in rows]


def verify(session: Session) -> Verification:
    """Walk the whole chain and hold its end against the head that is kept apart from it."""
    before: AuditEntry | None = None
    for entry in _all(session):
        if problem := problem_between(before, entry):
            return _verdict(before, problem)
        before = entry
    head = session.get(SettingRow, _HEAD)
    noted = head.value if head else ""  # compared as it stands: whoever changed the log may have written anything here
    if noted != (f"{before.sequence} {before.sha256}" if before else ""):
        end = noted.partition(" ")[0][:20] or "0"
        return _verdict(before, f"expected the log to end at entry {end}, its end was cut off or that was changed")
    return _verdict(before, None)


def count(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(AuditRow)) or 0


def _verdict(last: AuditEntry | None, problem: str | None) -> Verification:
    return Verification(
        entries=last.sequence if last else 0, head_sha256=last.sha256 if last else GENESIS, problem=problem
    )


def _all(session: Session) -> Iterator[AuditEntry]:
    after = 0
    while batch := page(session, after=after, limit=_BATCH):
        yield from batch
        after = batch[-1].sequence


def _parse_head(head: SettingRow | None) -> tuple[int, str]:
    if head is None:
        return 0, GENESIS
    sequence, _, sha256 = head.value.partition(" ")
    return int(sequence), sha256


def _entry(row: AuditRow) -> AuditEntry:
    return AuditEntry(**{field.name: getattr(row, field.name) for field in dataclasses.fields(AuditEntry)})
