"""Composition root of the fleet: services, the three applications, the workers. No logic lives here."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Final

from fastapi import APIRouter, Depends, FastAPI

from edgeward_contract import topics
from edgeward_contract.version import __version__
from edgeward_fleet.accounts.service import Accounts
from edgeward_fleet.api import (
    accounts,
    audit,
    device_api,
    devices,
    enrolment,
    parameters,
    problems,
    records,
    releases,
    rollouts,
    setup,
)
from edgeward_fleet.api.middleware import BodyLimit, StandardHeaders
from edgeward_fleet.api.turnstile import Turnstile
from edgeward_fleet.clock import Clock
from edgeward_fleet.dashboard.install import install as install_dashboard
from edgeward_fleet.db.engine import Database
from edgeward_fleet.devices.service import Devices
from edgeward_fleet.enrolment.authority import Authority
from edgeward_fleet.enrolment.service import Enrolment
from edgeward_fleet.link import https
from edgeward_fleet.link.inbound import Inbound
from edgeward_fleet.link.mqtt import serve_mqtt
from edgeward_fleet.models.service import Registry
from edgeward_fleet.records.service import Records
from edgeward_fleet.rollouts.service import Rollouts
from edgeward_fleet.rollouts.ticker import Ticker
from edgeward_fleet.services import Services
from edgeward_fleet.settings import Settings
from edgeward_fleet.storage import ChunkStore
from edgeward_fleet.wakeups import Wakeups

# A new resource adds its router to the port where it belongs.
ADMIN_ROUTERS: Final[tuple[APIRouter, ...]] = (
    setup.router,
    accounts.router,
    audit.router,
    devices.router,
    enrolment.admin_router,
    releases.router,
    rollouts.router,
    records.router,
)
DEVICE_ROUTERS: Final[tuple[APIRouter, ...]] = (enrolment.device_router, https.router, device_api.router)
ENROLMENT_ROUTERS: Final[tuple[APIRouter, ...]] = (enrolment.enrolment_router,)


async def tick_rollouts(services: Services) -> None:
    """Moves rollouts on."""
    await services.ticker.run()


Worker = Callable[[Services], Coroutine[None, None, None]]
# What runs beside the ports; cancelled at the stop, when the last answer has been given.
WORKERS: Final[tuple[Worker, ...]] = (tick_rollouts, serve_mqtt)

_DEVICES_AT_ONCE: Final = 16
_ARTIFACT_UPLOAD: Final = re.compile(r"/api/v1/artifacts/[^/]+")


def build_services(settings: Settings, database: Database, authority: Authority, clock: Clock) -> Services:
    """Everything that the applications and the workers share."""
    wakeups = Wakeups(hears_all=database.is_sqlite)
    rollout_service = Rollouts(database, clock, wakeups.notify)
    ticker = Ticker(rollout_service, interval_s=settings.ticker_interval_s)
    record_service = Records(database, clock)
    return Services(
        settings=settings,
        clock=clock,
        database=database,
        wakeups=wakeups,
        accounts=Accounts(database, settings, clock),
        authority=authority,
        enrolment=Enrolment(database, authority, settings, clock, wakeups),
        devices=Devices(database, settings, clock, wakeups),
        registry=Registry(database, ChunkStore(settings.artifacts_url), settings, clock, wakeups),
        records=record_service,
        rollouts=rollout_service,
        ticker=ticker,
        inbound=Inbound(database, clock, record_service, ticker.wake),
    )


def build_admin_app(services: Services) -> FastAPI:
    """REST for programs and the command line, pages for people."""
    settings = services.settings

    def limit_for(method: str, path: str) -> int:
        upload = method == "PUT" and _ARTIFACT_UPLOAD.fullmatch(path)
        return settings.max_artifact_bytes if upload else settings.max_body_bytes

    made = _build("Edgeward fleet", services, ADMIN_ROUTERS, limit_for, openapi_url="/api/v1/openapi.json")
    install_dashboard(made, services)
    return made


def build_device_app(services: Services) -> FastAPI:
    """What devices use, each with its own certificate."""
    limit_bytes = services.settings.max_body_bytes
    made = _build("Edgeward devices", services, DEVICE_ROUTERS, lambda *_: limit_bytes)
    made.add_middleware(Turnstile, at_once=_DEVICES_AT_ONCE, limit_bytes=limit_bytes, free={topics.DESIRED})
    return made


def build_enrolment_app(services: Services) -> FastAPI:
    """Open to anybody who can reach it: small bodies, rate limited."""
    return _build("Edgeward enrolment", services, ENROLMENT_ROUTERS, lambda *_: 64 * 1024)


def _build(
    title: str,
    services: Services,
    routers: Sequence[APIRouter],
    limit_for: Callable[[str, str], int],
    openapi_url: str | None = None,
) -> FastAPI:
    app = FastAPI(
        title=title,
        version=__version__,
        openapi_url=openapi_url,
        docs_url=None,  # the page loads its scripts from elsewhere
        redoc_url=None,
        responses=problems.problems(400, 413, 422),
    )
    app.state.services = services
    problems.install(app)
    app.add_middleware(BodyLimit, limit_for=limit_for)
    app.add_middleware(StandardHeaders)
    for router in routers:
        app.include_router(router, dependencies=[Depends(parameters.each_once)])
    return app
