"""*Audit*: who did what, when, from where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from edgeward_fleet.api.auth import AppServices
from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.queries.trail import TrailEntry, TrailFilter, actions, entries
from edgeward_fleet.dashboard.render import PageRoute, page
from edgeward_fleet.dashboard.security import Looker

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_PAGE: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """Newest first; `older` is the query of the following page."""

    entries: tuple[TrailEntry, ...]
    chosen: TrailFilter
    actions: tuple[str, ...]
    is_first: bool
    older: str
    first: str


@router.get("/audit")
async def audit(
    request: Request,
    looker: Looker,
    services: AppServices,
    actor: Annotated[str, Query(max_length=64)] = "",
    action: Annotated[str, Query(max_length=64)] = "",
    subject: Annotated[str, Query(max_length=200)] = "",
    before: Annotated[int | None, Query(ge=1, le=(1 << 63) - 1)] = None,
) -> HTMLResponse:
    """The log, for everybody who may look at all: it is evidence, not a secret."""
    chosen = TrailFilter(actor=actor.strip(), action=action.strip(), subject=subject.strip())

    def work(session: Session) -> tuple[tuple[TrailEntry, ...], tuple[str, ...]]:
        return entries(session, chosen, before=before, limit=_PAGE + 1), actions(session)

    found, known = await services.database.run(work)
    shown = found[:_PAGE]
    same = query_string(actor=chosen.actor, action=chosen.action, subject=chosen.subject)
    content = AuditPage(
        entries=shown,
        chosen=chosen,
        actions=known,
        is_first=before is None,
        older=f"{same or '?'}{'&' if same else ''}before={shown[-1].sequence}" if len(found) > _PAGE else "",
        first=same or "?",
    )
    return page(request, "audit.html", content, title="Audit", section="audit")
