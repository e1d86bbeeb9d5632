"""The audit log, newest first and filtered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from sqlalchemy import select
from sqlalchemy.orm import Session

from edgeward_contract.schema import JsonValue, parse_json
from edgeward_fleet.db.schema import AuditRow


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailFilter:
    """What is empty matches everything."""

    actor: str = ""
    action: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailEntry:
    """Who did what to which."""

    sequence: int
    at: datetime
    actor: str
    address: str
    action: str
    subject: str
    detail: tuple[tuple[str, JsonValue], ...]
    sha256: str

    @property
    def href(self) -> str:
        """The page of what it was done to; "" where there is none."""
        name = quote(self.subject, safe="")
        match self.action.partition(".")[0]:
            case "rollout":
                return f"/rollouts/{name}"
            case "device" if self.action != "device.token":  # nothing may have come of the token
                return f"/devices/{name}"
            case "release":
                model, _, version = self.subject.partition("@")
                return f"/releases/{quote(model, safe='')}/{quote(version, safe='')}"
            case _:
                return ""


def entries(session: Session, which: TrailFilter, *, before: int | None, limit: int) -> tuple[TrailEntry, ...]:
    """Newest first, with a sequence below `before`."""
    query = select(AuditRow).order_by(AuditRow.sequence.desc()).limit(limit)
    if before is not None:
        query = query.where(AuditRow.sequence < before)
    for column, wanted in (
        (AuditRow.actor, which.actor),
        (AuditRow.action, which.action),
        (AuditRow.subject, which.subject),
    ):
        if wanted:
            query = query.where(column == wanted)
    return tuple(_entry(row) for row in session.scalars(query))


def actions(session: Session) -> tuple[str, ...]:
    """Every kind of action that there has been."""
    return tuple(session.scalars(select(AuditRow.action).distinct().order_by(AuditRow.action)))


def _entry(row: AuditRow) -> TrailEntry:
    return TrailEntry(
        sequence=row.sequence,
        at=row.at,
        actor=row.actor,
        address=row.address,
        action=row.action,
        subject=row.subject,
        detail=tuple(parse_json(row.detail.encode()).members().items()),
        sha256=row.sha256,
    )
