"""Mounts the dashboard on the admin application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter, FastAPI, Request, Response
from starlette.exceptions import HTTPException

from edgeward_fleet.dashboard import assets
from edgeward_fleet.dashboard.pages import audit, devices, entry, fleet, models, rollouts
from edgeward_fleet.dashboard.render import problem
from edgeward_fleet.dashboard.security import PAGE_HEADERS
from edgeward_fleet.dashboard.sessions import Sessions
from edgeward_fleet.services import Services

ROUTERS: Final[tuple[APIRouter, ...]] = (
    assets.router,
    entry.router,
    fleet.router,
    devices.router,
    models.router,
    rollouts.router,
    audit.router,
)

_Handler = Callable[[Request, Exception], Response | Awaitable[Response]]


def install(app: FastAPI, services: Services) -> None:
    """Add the pages to `app`, whose own error answers must be in place."""
    app.state.sessions = Sessions(services.database, services.accounts, services.clock)
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(HTTPException, _also_for_people(app.exception_handlers[HTTPException]))


def _also_for_people(otherwise: _Handler) -> _Handler:
    """An address that there is not is a page for a browser, and a problem document for a program."""

    async def handler(request: Request, error: Exception) -> Response:
        if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
            answer = otherwise(request, error)
            return answer if isinstance(answer, Response) else await answer
        shown = problem(request, error)
        shown.headers.update(PAGE_HEADERS)
        return shown

    return handler
