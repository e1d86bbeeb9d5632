"""Mounts the dashboard on the admin application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from edgeward_fleet.dashboard import assets
from edgeward_fleet.dashboard.pages import audit, device, devices, entry, fleet, models, rollout, rollouts
from edgeward_fleet.dashboard.render import problem
from edgeward_fleet.dashboard.security import PAGE_HEADERS, opened, sessions_of
from edgeward_fleet.dashboard.sessions import Sessions
from edgeward_fleet.errors import FleetError
from edgeward_fleet.services import Services

ROUTERS: Final[tuple[APIRouter, ...]] = (
    assets.router,
    entry.router,
    fleet.router,
    devices.router,
    device.router,
    models.router,
    rollouts.router,
    rollout.router,
    audit.router,
)

_Handler = Callable[[Request, Exception], Response | Awaitable[Response]]


def install(app: FastAPI, services: Services) -> None:
    """Add the pages to `app`, whose own error answers must be in place."""
    app.state.sessions = Sessions(services.database, services.accounts, services.clock)
    for router in ROUTERS:
        app.include_router(router)
    for kind in (HTTPException, Exception):
        app.add_exception_handler(kind, _also_for_people(app.exception_handlers[kind]))


def _also_for_people(otherwise: _Handler) -> _Handler:
    """An address that there is not, or a fault of ours, is a page for a browser and a problem for a program."""

    async def handler(request: Request, error: Exception) -> Response:
        if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            answer = otherwise(request, error)
            return answer if isinstance(answer, Response) else await answer
        await _recognise(request)
        shown = await problem(request, error)
        shown.headers.update(PAGE_HEADERS)
        return shown

    return handler


async def _recognise(request: Request) -> None:
    """No route has asked who this is; a page for somebody who is logged in has the links that lead on."""
    with suppress(FleetError):
        await opened(request, sessions_of(request))
