"""How a device gets its first certificate (enrolment port) and the next ones (device port), and the tokens for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from edgeward_contract import topics
from edgeward_fleet.api.auth import AppServices, Operator, address_of
from edgeward_fleet.api.device_auth import DeviceCaller
from edgeward_fleet.api.problems import problems
from edgeward_fleet.enrolment.ca import MAX_CSR_BYTES
from edgeward_fleet.enrolment.service import MAX_TOKEN_HOURS

enrolment_router = APIRouter(tags=["enrolment"])
device_router = APIRouter(tags=["identity"])
admin_router = APIRouter(prefix="/api/v1", tags=["devices"])

Csr = Annotated[str, Field(max_length=MAX_CSR_BYTES)]


class CaView(BaseModel):
    """The root by which everything of this fleet is known."""

    ca_pem: str


class CaWithFingerprint(CaView):
    """`fingerprint` is what a person compares: `sha256:<hex of the DER>`."""

    fingerprint: str


class Hardware(BaseModel):
    """What the device says of itself."""

    machine: Annotated[str, Field(max_length=64)] = ""
    os: Annotated[str, Field(max_length=200)] = ""
    cpus: Annotated[int, Field(ge=0, le=100_000)] = 0
    memory_bytes: Annotated[int, Field(ge=0, le=1 << 60)] = 0


class EnrolRequest(BaseModel):
    """Of the signing request only the public key is taken."""

    token: Annotated[str, Field(max_length=200)]
    csr_pem: Csr
    hardware: Hardware = Hardware()


class IdentityView(BaseModel):
    """Everything that a device needs to know about itself and the fleet."""

    device_id: str
    site: str
    certificate_pem: str
    ca_pem: str
    device_url: str
    mqtt_url: str | None
    not_after: datetime


class RenewRequest(BaseModel):
    """A new key is welcome."""

    csr_pem: Csr


class RenewedView(BaseModel):
    """The new certificate, and the root that may have changed since the last one."""

    certificate_pem: str
    ca_pem: str


class DeviceTokenRequest(BaseModel):
    """Without `device_id` the fleet chooses one."""

    site: Annotated[str, Field(max_length=64)]
    device_id: Annotated[str, Field(max_length=64)] | None = None
    expires_in_h: Annotated[int, Field(ge=1, le=MAX_TOKEN_HOURS)] | None = None


class DeviceTokenView(BaseModel):
    """The token is shown this once; `command` is what to type on the device."""

    token: str
    device_id: str
    site: str
    expires_at: datetime
    enrolment_url: str
    ca_fingerprint: str
    command: str


@enrolment_router.get(topics.CA)
async def ca(services: AppServices) -> CaView:
    """The fleet's root; whoever fetches it compares its fingerprint."""
    return CaView(ca_pem=services.authority.ca_pem)


@enrolment_router.post(topics.ENROL, status_code=201, responses=problems(401, 409, 410, 429))
async def enrol(body: EnrolRequest, request: Request, services: AppServices) -> IdentityView:
    """Exchange a one-time token and a signing request for a certificate; again, as long as the token lives, with the
    same key alone.
    """
    made = await services.enrolment.enrol(body.token, body.csr_pem, body.hardware.model_dump(), address_of(request))
    return IdentityView(
        device_id=made.device_id,
        site=made.site,
        certificate_pem=made.certificate_pem,
        ca_pem=made.ca_pem,
        device_url=services.settings.device_url,
        mqtt_url=services.settings.mqtt_url,
        not_after=made.not_after,
    )


@device_router.post(topics.CERTIFICATE, responses=problems(401, 403, 429))
async def renew(body: RenewRequest, caller: DeviceCaller, services: AppServices) -> RenewedView:
    """A new certificate for the device of this connection."""
    made = await services.enrolment.renew(caller, body.csr_pem)
    return RenewedView(certificate_pem=made.certificate_pem, ca_pem=made.ca_pem)


@admin_router.get("/ca")
async def ca_with_fingerprint(services: AppServices) -> CaWithFingerprint:
    """The fleet's root, for command lines and browsers."""
    return CaWithFingerprint(ca_pem=services.authority.ca_pem, fingerprint=services.authority.fingerprint)


@admin_router.post("/device-tokens", status_code=201, responses=problems(401, 403, 409))
async def create_device_token(body: DeviceTokenRequest, principal: Operator, services: AppServices) -> DeviceTokenView:
    """A right to enrol one device, once."""
    life = timedelta(hours=body.expires_in_h) if body.expires_in_h else None
    made = await services.enrolment.new_token(principal.actor, body.site, body.device_id, life)
    url, fingerprint = services.settings.enrolment_url, services.authority.fingerprint
    return DeviceTokenView(
        token=made.secret,
        device_id=made.device_id,
        site=made.site,
        expires_at=made.expires_at,
        enrolment_url=url,
        ca_fingerprint=fingerprint,
        command=f"edgeward-agent enrol --fleet {url} --token {made.secret} --ca-fingerprint {fingerprint}",
    )
