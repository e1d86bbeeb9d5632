"""The first admin, by a one-time link; and what anybody may know without a login."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from edgeward_contract.version import __version__
from edgeward_fleet.api.accounts import AccountView, Credentials
from edgeward_fleet.api.auth import AppServices, address_of
from edgeward_fleet.api.problems import problems

router = APIRouter(prefix="/api/v1", tags=["set-up"])


class SetupRequest(Credentials):
    """The token of the link, and the first admin's own choice of name and password."""

    token: str


class HealthView(BaseModel):
    """The fleet answers, and its database does."""

    status: str
    version: str


@router.post("/setup", status_code=201, responses=problems(401, 409, 429))
async def set_up(body: SetupRequest, request: Request, services: AppServices) -> AccountView:
    """Make the first admin. The token works once."""
    made = await services.accounts.set_up(body.token, body.username, body.password, address_of(request))
    return AccountView.of(made)


@router.get("/health", responses=problems(503))
async def health(services: AppServices) -> HealthView:
    """For monitors: 200 while the fleet can read its database."""
    await services.database.run(lambda session: session.connection().exec_driver_sql("SELECT 1").scalar())
    return HealthView(status="ok", version=__version__)
