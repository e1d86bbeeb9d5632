"""*Fleet*: the overview, which refreshes itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from edgeward_fleet.api.auth import AppServices
from edgeward_fleet.dashboard.live import Live, live_answer, live_part
from edgeward_fleet.dashboard.queries import devices, releases, rollouts
from edgeward_fleet.dashboard.render import PageRoute, page
from edgeward_fleet.dashboard.security import Looker
from edgeward_fleet.dashboard.views.fleet import FleetView, fleet_view
from edgeward_fleet.rollouts.machine import FINAL, RolloutState
from edgeward_fleet.services import Services

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_UNFINISHED: Final = frozenset(RolloutState) - FINAL
_ROLLOUTS_SHOWN: Final = 10
_EVERY_S: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPage:
    """What stands still, and what does not. The commands need the fleet's own address."""

    live: Live
    is_empty: bool
    has_releases: bool
    admin_url: str
    fingerprint: str


@router.get("/")
async def fleet(request: Request, looker: Looker, services: AppServices) -> HTMLResponse:
    """How everything is."""
    view = await _view(services)
    content = FleetPage(
        live=_live(request, view),
        is_empty=view.devices == 0,
        has_releases=view.has_releases,
        admin_url=services.settings.admin_url,
        fingerprint=services.authority.fingerprint,
    )
    return page(request, "fleet.html", content, title="Fleet", section="fleet")


@router.get("/live")
async def fleet_live(
    request: Request, looker: Looker, services: AppServices, seen: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """The moving part, if it has moved."""
    return live_answer(_live(request, await _view(services)), seen)


async def _view(services: Services) -> FleetView:
    now = services.clock()

    def work(session: Session) -> FleetView:
        return fleet_view(
            devices.glances(session, services.settings, now),
            releases.versions(session),
            rollouts.listed(session, states=_UNFINISHED, limit=_ROLLOUTS_SHOWN),
            now,
        )

    return await services.database.run(work)


def _live(request: Request, view: FleetView) -> Live:
    return live_part(request, "fleet-live.html", view, url="/live", every_s=_EVERY_S, sentence=view.summary)
