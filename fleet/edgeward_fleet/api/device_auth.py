"""Which device makes a request. A revoked certificate ends with the next one: see `Devices.authenticate`."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from edgeward_fleet.api.auth import AppServices, address_of
from edgeward_fleet.devices.model import DevicePrincipal
from edgeward_fleet.errors import Unauthenticated


def peer_certificate(request: Request) -> bytes:
    """The DER of the certificate that the handshake proved. Raises Unauthenticated when it is not there."""
    tls = request.scope.get("extensions", {}).get("tls", {})
    der = tls.get("client_certificate_der")
    if not isinstance(der, bytes) or not der:
        raise Unauthenticated("expected a connection with a device's certificate, got one without", hint="Enrol first.")
    return der


async def authenticated_device(request: Request, services: AppServices) -> DevicePrincipal:
    """Raises Unauthenticated or Forbidden."""
    return await services.devices.authenticate(peer_certificate(request), address_of(request))


DeviceCaller = Annotated[DevicePrincipal, Depends(authenticated_device)]
