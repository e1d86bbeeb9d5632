"""The audit log, for everybody who may look at all: it is evidence, not a secret."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, JsonValue, TypeAdapter

from edgeward_fleet.api.auth import AppServices, Viewer
from edgeward_fleet.api.problems import problems
from edgeward_fleet.audit import service as audit
from edgeward_fleet.audit.model import AuditEntry

router = APIRouter(prefix="/api/v1", tags=["audit"])
_detail = TypeAdapter(dict[str, JsonValue])


class AuditView(BaseModel):
    """Who did what to which, when and from where."""

    sequence: int
    at: datetime
    actor: str
    address: str
    action: str
    subject: str
    detail: dict[str, JsonValue]
    sha256: str

    @classmethod
    def of(cls, entry: AuditEntry) -> AuditView:
        return cls(
            sequence=entry.sequence,
            at=entry.at,
            actor=entry.actor,
            address=entry.address,
            action=entry.action,
            subject=entry.subject,
            detail=_detail.validate_json(entry.detail),
            sha256=entry.sha256,
        )


class AuditPage(BaseModel):
    """Entries, oldest first; `next` is the `after` of the next page."""

    items: list[AuditView]
    next: int | None


@router.get("/audit", responses=problems(401, 403))
async def audit_log(
    principal: Viewer,
    services: AppServices,
    after: Annotated[int, Query(ge=0, le=(1 << 63) - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> AuditPage:
    """The audit log from `after` on."""
    found = await services.database.run(lambda session: audit.page(session, after=after, limit=limit))
    return AuditPage(
        items=[AuditView.of(each) for each in found], next=found[-1].sequence if len(found) == limit else None
    )
