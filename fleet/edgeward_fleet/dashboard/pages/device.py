"""*Device*: what it should be beside what it is, its condition, its life, and how fast it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from pydantic import BaseModel
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.api.auth import AppServices
from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.live import Live, live_answer, live_part, live_rest
from edgeward_fleet.dashboard.queries.latency import answers_of, recorded_models
from edgeward_fleet.dashboard.queries.rollouts import Part, of_device
from edgeward_fleet.dashboard.render import PageRoute, page
from edgeward_fleet.dashboard.security import Looker
from edgeward_fleet.dashboard.views.chart import BUDGET_US, LatencyChart, latency_chart
from edgeward_fleet.dashboard.views.device import DeviceView, device_view, machine
from edgeward_fleet.devices.model import Device
from edgeward_fleet.services import Services

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_EVERY_S: Final = 5
_EVENTS: Final = 120
_ROLLOUTS: Final = 5

Before = Annotated[int | None, Query(ge=1, le=(1 << 63) - 1)]
Model = Annotated[str, Query(max_length=64)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicePage:
    """The head and the chart stand still. `models` are those that have answered; `model` is the one that is drawn."""

    device: Device
    live: Live
    rest: Markup
    chart: LatencyChart
    models: tuple[str, ...]
    model: str
    machine: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDevice:
    """What changes while one looks. `older` is the query of the events before these."""

    view: DeviceView
    rollouts: tuple[Part, ...]
    machine: tuple[tuple[str, str], ...]
    older: str
    is_newest: bool


class LatencySeries(BaseModel):
    """Columns for the chart: seconds since 1970 by the device's clock, and milliseconds; and the same in words."""

    at_s: list[float]
    latency_ms: list[float]
    budget_ms: float
    summary: str


@router.get("/devices/{device_id}")
async def device(
    device_id: str,
    request: Request,
    looker: Looker,
    services: AppServices,
    before: Before = None,
    model: Model = "",
) -> HTMLResponse:
    """One device; `model` chooses whose answers are drawn."""
    identifier = DeviceId(device_id)
    found = await services.devices.details(identifier)
    live = await _live(request, services, identifier, before)
    chart, models = await _chart(services, identifier, model)
    content = DevicePage(
        device=found.device,
        live=live,
        rest=live_rest(request, live),
        chart=chart,
        models=models,
        model=model,
        machine=machine(found.device.hardware),
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
    """The moving parts, if they have moved."""
    return live_answer(request, await _live(request, services, DeviceId(device_id), before), seen)


@router.get("/devices/{device_id}/latency")
async def device_latency(device_id: str, looker: Looker, services: AppServices, model: Model = "") -> LatencySeries:
    """The chart's points, for the script that draws it sharper than the server can."""
    answers = await services.database.run(lambda session: answers_of(session, DeviceId(device_id), model))
    return LatencySeries(
        at_s=[each.wall_us / 1e6 for each in answers],
        latency_ms=[each.latency_us / 1e3 for each in answers],
        budget_ms=BUDGET_US / 1e3,
        summary=latency_chart(answers).summary,
    )


async def _chart(services: Services, device_id: DeviceId, model: str) -> tuple[LatencyChart, tuple[str, ...]]:
    def work(session: Session) -> tuple[LatencyChart, tuple[str, ...]]:
        return latency_chart(answers_of(session, device_id, model)), recorded_models(session, device_id)

    return await services.database.run(work)


async def _live(request: Request, services: Services, device_id: DeviceId, before: int | None) -> Live:
    found = await services.devices.details(device_id)
    events = await services.devices.events(device_id, before=before, limit=_EVENTS + 1)
    rollouts = await services.database.run(lambda session: of_device(session, device_id, _ROLLOUTS))
    view = device_view(found, events[:_EVENTS], services.clock())
    content = LiveDevice(
        view=view,
        rollouts=rollouts,
        machine=machine(found.device.hardware),
        older=query_string(before=events[_EVENTS - 1].event_id) if len(events) > _EVENTS else "",
        is_newest=before is None,
    )
    return live_part(
        request,
        "device-live.html",
        content,
        url=f"/devices/{device_id}/live" + query_string(before=before),
        every_s=_EVERY_S,
        sentence=f"{device_id}: {view.sentence}",
        rest="device-live-rest.html",
    )
