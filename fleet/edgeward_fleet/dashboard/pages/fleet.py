"""*Fleet*: the overview, which refreshes itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from edgeward_fleet.api.auth import AppServices
from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.live import Live, anew, live_answer, live_part
from edgeward_fleet.dashboard.queries import devices, releases, rollouts
from edgeward_fleet.dashboard.queries.rollouts import ListedRollout, RolloutFilter
from edgeward_fleet.dashboard.render import PageRoute, page
from edgeward_fleet.dashboard.security import Looker
from edgeward_fleet.dashboard.views.attention import TAKEN_BACK_FOR, WANT_A_PERSON
from edgeward_fleet.dashboard.views.fleet import FleetView, Seen, fleet_view
from edgeward_fleet.rollouts.machine import FINAL, RolloutState
from edgeward_fleet.services import Services
from edgeward_fleet.settings import Settings

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_UNFINISHED: Final = frozenset(RolloutState) - FINAL
_ROLLOUTS_SHOWN: Final = 10
_ENDED_SHOWN: Final = 3
_WANTING_SHOWN: Final = 50
_EVERY_S: Final = 10


class Sites(StrEnum):
    """Which sites are shown: the worst, unless all are asked for."""

    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveFleet:
    """What changes while one looks."""

    view: FleetView


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPage:
    """What stands still, and what does not. The commands need the fleet's own address."""

    live: Live
    is_empty: bool
    release: str
    admin_url: str
    fingerprint: str


@router.get("/")
async def fleet(request: Request, looker: Looker, services: AppServices, sites: Sites | None = None) -> HTMLResponse:
    """How everything is."""
    view = await _view(services, sites)
    content = FleetPage(
        live=_live(request, view, sites),
        is_empty=view.devices == 0,
        release=view.release,
        admin_url=services.settings.admin_url,
        fingerprint=services.authority.fingerprint,
    )
    return page(request, "fleet.html", content, title="Fleet", section="fleet")


@router.get("/live")
async def fleet_live(
    request: Request,
    looker: Looker,
    services: AppServices,
    sites: Sites | None = None,
    first: bool = False,
    seen: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The moving part, if it has moved; a page that waits for the `first` device is drawn anew when there is one."""
    view = await _view(services, sites)
    return anew() if first and view.devices else live_answer(request, _live(request, view, sites), seen)


async def _view(services: Services, sites: Sites | None) -> FleetView:
    now = services.clock()
    seen = await services.database.run(lambda session: overview(session, services.settings, now))
    return fleet_view(seen, now, every_site=sites is Sites.ALL)


def overview(session: Session, settings: Settings, now: datetime) -> Seen:
    """What the page is drawn from."""
    under_way = rollouts.listed(session, RolloutFilter(states=_UNFINISHED), limit=_ROLLOUTS_SHOWN)
    ended = rollouts.listed(session, RolloutFilter(states=FINAL), limit=_ENDED_SHOWN, by_state=True)
    return Seen(
        glances=devices.glances(session, settings, now),
        versions=releases.versions(session),
        rollouts=(*under_way, *ended),
        wanting=_wanting(session, now),
        astray=devices.astray(session),
    )


def _wanting(session: Session, now: datetime) -> tuple[ListedRollout, ...]:
    """Those that want a person, however many newer ones there are."""
    taken_back = RolloutFilter(states={RolloutState.ROLLED_BACK}, since=now - TAKEN_BACK_FOR)
    return (
        *rollouts.listed(session, RolloutFilter(states=WANT_A_PERSON), limit=_WANTING_SHOWN),
        *rollouts.listed(session, taken_back, limit=_WANTING_SHOWN),
    )


def _live(request: Request, view: FleetView, sites: Sites | None) -> Live:
    url = "/live" + query_string(sites=sites.value if sites else None, first=None if view.devices else 1)
    return live_part(request, "fleet-live.html", LiveFleet(view=view), url=url, every_s=_EVERY_S, sentence=view.summary)
