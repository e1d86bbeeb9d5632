"""*Devices* and *Device*."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, ReleaseRef
from edgeward_contract.schema import ContractError
from edgeward_fleet.api.auth import AppServices
from edgeward_fleet.dashboard.live import Live, live_answer, live_part
from edgeward_fleet.dashboard.queries.devices import Condition, glances, models_of, running
from edgeward_fleet.dashboard.queries.latency import last_answers
from edgeward_fleet.dashboard.render import PageRoute, page
from edgeward_fleet.dashboard.security import Looker
from edgeward_fleet.dashboard.views.chart import BUDGET_US, LatencyChart, latency_chart
from edgeward_fleet.dashboard.views.device import DeviceView, device_view, machine
from edgeward_fleet.dashboard.views.devices import Concern, DeviceFilter, DevicesView, devices_view
from edgeward_fleet.devices.model import Device
from edgeward_fleet.models import repository as releases
from edgeward_fleet.services import Services

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_EVERY_S: Final = 5
_EVENTS: Final = 40

Before = Annotated[int | None, Query(ge=1, le=(1 << 63) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesPage:
    """The list, or the way to the first device."""

    view: DevicesView
    states: tuple[Condition, ...]
    admin_url: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePage:
    """The head and the chart stand still. `older` is the query of the events before these."""

    device: Device
    live: Live
    chart: LatencyChart
    machine: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDevice:
    """What changes while one looks."""

    view: DeviceView
    older: str
    is_newest: bool


class LatencySeries(BaseModel):
    """Columns for the chart: seconds since 1970 by the device's clock, and milliseconds."""

    at_s: list[float]
    latency_ms: list[float]
    budget_ms: float


@router.get("/devices")
async def devices(
    request: Request,
    looker: Looker,
    services: AppServices,
    site: Annotated[str, Query(max_length=64)] = "",
    state: Condition | None = None,
    release: Annotated[str, Query(max_length=100)] = "",
    search: Annotated[str, Query(max_length=64)] = "",
    attention: Concern | None = None,
    after: Annotated[str, Query(max_length=64)] = "",
) -> HTMLResponse:
    """By name, a page at a time."""
    chosen = DeviceFilter(site=site, state=state, release=release.strip(), search=search.strip(), attention=attention)
    content = DevicesPage(
        view=await _list(services, chosen, after),
        states=tuple(Condition),
        admin_url=services.settings.admin_url,
        fingerprint=services.authority.fingerprint,
    )
    return page(request, "devices.html", content, title="Devices", section="devices")


@router.get("/devices/{device_id}")
async def device(
    device_id: str, request: Request, looker: Looker, services: AppServices, before: Before = None
) -> HTMLResponse:
    """One device."""
    identifier = DeviceId(device_id)
    found = await services.devices.details(identifier)
    live = await _live(request, services, identifier, before)
    answers = await services.database.run(lambda session: last_answers(session, identifier))
    content = DevicePage(
        device=found.device, live=live, chart=latency_chart(answers), machine=machine(found.device.hardware)
    )
    return page(request, "device.html", content, title=device_id, section="devices")


@router.get("/devices/{device_id}/live")
async def device_live(
    device_id: str,
    request: Request,
    looker: Looker,
    services: AppServices,
    before: Before = None,
    seen: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The moving part, if it has moved."""
    return live_answer(await _live(request, services, DeviceId(device_id), before), seen)


@router.get("/devices/{device_id}/latency")
async def device_latency(device_id: str, looker: Looker, services: AppServices) -> LatencySeries:
    """The chart's points, for the script that draws it sharper than the server can."""
    answers = await services.database.run(lambda session: last_answers(session, DeviceId(device_id)))
    return LatencySeries(
        at_s=[each.wall_us / 1e6 for each in answers],
        latency_ms=[each.latency_us / 1e3 for each in answers],
        budget_ms=BUDGET_US / 1e3,
    )


async def _list(services: Services, chosen: DeviceFilter, after: str) -> DevicesView:
    now = services.clock()

    def work(session: Session) -> DevicesView:
        found = glances(session, services.settings, now)
        view = devices_view(found, chosen, _running(session, chosen.release), after, now)
        return view.with_runs(models_of(session, [row.glance.device for row in view.rows]))

    return await services.database.run(work)


def _running(session: Session, release: str) -> frozenset[DeviceId] | None:
    """None: no release is asked for. One that there is not runs nowhere."""
    if not release:
        return None
    try:
        found = releases.find_release(session, ReleaseRef.parse(release))
    except ContractError:
        return frozenset()
    return running(session, found.sha256) if found else frozenset()


async def _live(request: Request, services: Services, device_id: DeviceId, before: int | None) -> Live:
    found = await services.devices.details(device_id)
    events = await services.devices.events(device_id, before=before, limit=_EVENTS + 1)
    view = device_view(found, events[:_EVENTS], services.clock())
    older = f"?before={events[_EVENTS - 1].event_id}" if len(events) > _EVENTS else ""
    content = LiveDevice(view=view, older=older, is_newest=before is None)
    url = f"/devices/{device_id}/live" + (f"?before={before}" if before is not None else "")
    sentence = f"{device_id} is {found.device.presence}"
    return live_part(request, "device-live.html", content, url=url, every_s=_EVERY_S, sentence=sentence)
