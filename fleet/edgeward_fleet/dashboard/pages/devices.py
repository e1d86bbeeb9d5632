"""*Devices*: the list, which refreshes itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, ReleaseRef
from edgeward_contract.schema import ContractError
from edgeward_fleet.api.auth import AppServices
from edgeward_fleet.dashboard.live import Live, anew, live_answer, live_part
from edgeward_fleet.dashboard.queries import devices as queries
from edgeward_fleet.dashboard.queries.devices import Condition
from edgeward_fleet.dashboard.queries.releases import versions
from edgeward_fleet.dashboard.render import PageRoute
from edgeward_fleet.dashboard.render import page as whole
from edgeward_fleet.dashboard.security import Looker
from edgeward_fleet.dashboard.views.attention import Concern
from edgeward_fleet.dashboard.views.devices import ORDERS, DeviceFilter, DevicesView, Found, Order, devices_view
from edgeward_fleet.dashboard.views.fleet import WORDS
from edgeward_fleet.dashboard.views.paging import MAX_PAGE
from edgeward_fleet.models import repository as releases
from edgeward_fleet.services import Services

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_EVERY_S: Final = 5
_LIST_EVERY_S: Final = 10
_EVENTS: Final = 40

Before = Annotated[int | None, Query(ge=1, le=(1 << 63) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesPage:
    """The filters stand still and the list below moves; without any device, the way to the first one."""

    chosen: DeviceFilter
    live: Live
    is_empty: bool
    sites: tuple[str, ...]
    releases: tuple[str, ...]
    admin_url: str
    fingerprint: str
    orders: Mapping[Order, str] = field(default_factory=lambda: ORDERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDevices:
    """What changes while one looks."""

    view: DevicesView
    release_exists: bool
    is_empty: bool
    words: Mapping[Condition, str] = field(default_factory=lambda: WORDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What the list was made from."""

    view: DevicesView
    sites: tuple[str, ...]
    releases: tuple[str, ...]
    is_empty: bool


async def chosen_devices(
    site: Annotated[str, Query(max_length=64)] = "",
    state: Condition | None = None,
    release: Annotated[str, Query(max_length=100)] = "",
    search: Annotated[str, Query(max_length=64)] = "",
    attention: Concern | None = None,
    order: Order = Order.NAME,
) -> DeviceFilter:
    """The filters of the address."""
    return DeviceFilter(
        site=site, state=state, release=release.strip(), search=search.strip(), attention=attention, order=order
    )


Chosen = Annotated[DeviceFilter, Depends(chosen_devices)]
PageNumber = Annotated[int, Query(ge=1, le=MAX_PAGE)]


@router.get("/devices")
async def devices(
    request: Request, looker: Looker, services: AppServices, chosen: Chosen, page: PageNumber = 1
) -> HTMLResponse:
    """A page at a time."""
    listed = await _list(services, chosen, page)
    content = DevicesPage(
        chosen=chosen,
        live=_live_list(request, listed),
        is_empty=listed.is_empty,
        sites=listed.sites,
        releases=listed.releases,
        admin_url=services.settings.admin_url,
        fingerprint=services.authority.fingerprint,
    )
    return whole(request, "devices.html", content, title="Devices", section="devices")


@router.get("/live/devices")
async def devices_live(
    request: Request,
    looker: Looker,
    services: AppServices,
    chosen: Chosen,
    page: PageNumber = 1,
    first: bool = False,
    seen: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The list, if it has changed; a page that waits for the `first` device is drawn anew when there is one."""
    listed = await _list(services, chosen, page)
    return anew() if first and not listed.is_empty else live_answer(request, _live_list(request, listed), seen)


async def _list(services: Services, chosen: DeviceFilter, page: int) -> Listed:
    now = services.clock()

    def work(session: Session) -> Listed:
        glances = queries.glances(session, services.settings, now)
        found = Found(
            glances=glances,
            running=_running(session, chosen.release),
            astray=queries.astray(session) if chosen.attention is Concern.RELEASE else (),
        )
        view = devices_view(found, chosen, page, now)
        return Listed(
            view=view.with_runs(queries.models_of(session, [row.glance.device for row in view.rows])),
            sites=tuple(sorted({each.site for each in glances})),
            releases=tuple(f"{each.model}@{each.version}" for each in versions(session)),
            is_empty=not glances,
        )

    return await services.database.run(work)


def _live_list(request: Request, listed: Listed) -> Live:
    chosen = listed.view.chosen
    content = LiveDevices(view=listed.view, release_exists=chosen.release in listed.releases, is_empty=listed.is_empty)
    url = "/live/devices" + ("?first=1" if listed.is_empty else listed.view.address)
    return live_part(
        request, "devices-live.html", content, url=url, every_s=_LIST_EVERY_S, sentence=listed.view.summary
    )


def _running(session: Session, release: str) -> frozenset[DeviceId] | None:
    """None: no release is asked for. One that there is not runs nowhere."""
    if not release:
        return None
    try:
        found = releases.find_release(session, ReleaseRef.parse(release))
    except ContractError:
        return frozenset()
    return queries.running(session, found.sha256) if found else frozenset()
