"""What the routers and the workers of one fleet share; `app.build_services` fills it in, nothing else does."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from edgeward_fleet.accounts.service import Accounts
from edgeward_fleet.clock import Clock
from edgeward_fleet.db.engine import Database
from edgeward_fleet.devices.service import Devices
from edgeward_fleet.enrolment.authority import Authority
from edgeward_fleet.enrolment.service import Enrolment
from edgeward_fleet.link.inbound import Inbound
from edgeward_fleet.models.service import Registry
from edgeward_fleet.records.service import Records
from edgeward_fleet.rollouts.service import Rollouts
from edgeward_fleet.rollouts.ticker import Ticker
from edgeward_fleet.settings import Settings
from edgeward_fleet.wakeups import Wakeups


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One field per domain; a new domain adds its own here."""

    settings: Settings
    clock: Clock
    database: Database
    wakeups: Wakeups
    accounts: Accounts
    authority: Authority
    enrolment: Enrolment
    devices: Devices
    registry: Registry
    records: Records
    rollouts: Rollouts
    ticker: Ticker
    inbound: Inbound


async def services_of(request: Request) -> Services:  # not async, each request would wait for a thread
    """The services of the app that answers `request`; as a dependency: `Depends(services_of)`."""
    services = request.app.state.services
    assert isinstance(services, Services)
    return services
