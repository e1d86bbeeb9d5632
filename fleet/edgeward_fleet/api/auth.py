"""Who makes a request: a person or program on the admin port, a device on the device port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from edgeward_fleet.accounts.model import Principal, Role
from edgeward_fleet.errors import Forbidden, Unauthenticated
from edgeward_fleet.services import Services, services_of

_bearer: Final = HTTPBearer(auto_error=False, description="An API token of `POST /api/v1/login` or `/api/v1/tokens`.")


def address_of(request: Request) -> str:
    """The peer's address as the socket has it; headers such as X-Forwarded-For are anybody's to write."""
    return request.client.host if request.client else "unknown"


async def authenticated(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    services: Annotated[Services, Depends(services_of)],
) -> Principal:
    """Raises Unauthenticated."""
    if credentials is None:
        raise Unauthenticated("expected a token in the Authorization header, got none")
    return await services.accounts.authenticate(credentials.credentials, address_of(request))


def require(role: Role) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency that lets in whoever has at least `role`."""

    async def allowed(principal: Annotated[Principal, Depends(authenticated)]) -> Principal:
        if not principal.role.covers(role):
            raise Forbidden(f"expected the role {role} or higher, {principal.username} has {principal.role} here")
        return principal

    return allowed


Viewer = Annotated[Principal, Depends(require(Role.VIEWER))]
Operator = Annotated[Principal, Depends(require(Role.OPERATOR))]
Approver = Annotated[Principal, Depends(require(Role.APPROVER))]
Admin = Annotated[Principal, Depends(require(Role.ADMIN))]
AppServices = Annotated[Services, Depends(services_of)]
