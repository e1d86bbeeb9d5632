"""The devices of the fleet, for people."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, JsonValue, TypeAdapter

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.api.auth import Admin, AppServices, Viewer
from edgeward_fleet.api.problems import problems
from edgeward_fleet.devices.model import CertificateSummary, Device, DeviceDetails, DeviceEvent, Presence

router = APIRouter(prefix="/api/v1", tags=["devices"])
_document = TypeAdapter(dict[str, JsonValue])


class DeviceView(BaseModel):
    """A device; `state` is how lately it was heard of."""

    device_id: str
    site: str
    state: Presence
    enrolled_at: datetime
    last_seen_at: datetime | None
    last_address: str | None
    revoked_at: datetime | None
    hardware: dict[str, JsonValue]

    @classmethod
    def of(cls, device: Device) -> DeviceView:
        return cls(
            device_id=device.device_id,
            site=device.site,
            state=device.presence,
            enrolled_at=device.enrolled_at,
            last_seen_at=device.last_seen_at,
            last_address=device.last_address,
            revoked_at=device.revoked_at,
            hardware=dict(device.hardware),
        )


class DevicePage(BaseModel):
    """Devices by id; `next` is the `after` of the next page."""

    items: list[DeviceView]
    next: str | None


class CertificateView(BaseModel):
    """The newest certificate of a device."""

    serial: str
    authority: str
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None
    revoked_because: str | None

    @classmethod
    def of(cls, found: CertificateSummary) -> CertificateView:
        return cls(
            serial=found.serial,
            authority=found.authority,
            not_before=found.not_before,
            not_after=found.not_after,
            revoked_at=found.revoked_at,
            revoked_because=found.revoked_because,
        )


class DeviceEventView(BaseModel):
    """A line in the life of a device."""

    event_id: int
    at: datetime
    kind: str
    detail: dict[str, JsonValue]

    @classmethod
    def of(cls, event: DeviceEvent) -> DeviceEventView:
        return cls(event_id=event.event_id, at=event.at, kind=event.kind, detail=dict(event.detail))


class DeviceEventPage(BaseModel):
    """Events, newest first; `next` is the `before` of the next page."""

    items: list[DeviceEventView]
    next: int | None


class DeviceDetailsView(DeviceView):
    """`desired` and `reported` are the documents as they crossed the wire; docs/spec describes them."""

    certificate: CertificateView | None
    desired: dict[str, JsonValue] | None
    reported: dict[str, JsonValue] | None
    reported_at: datetime | None
    events: list[DeviceEventView]

    @classmethod
    def full(cls, found: DeviceDetails) -> DeviceDetailsView:
        return cls(
            **DeviceView.of(found.device).model_dump(),
            certificate=CertificateView.of(found.certificate) if found.certificate else None,
            desired=_document.validate_json(found.desired) if found.desired else None,
            reported=_document.validate_json(found.reported) if found.reported else None,
            reported_at=found.reported_at,
            events=[DeviceEventView.of(each) for each in found.events],
        )


class Reason(BaseModel):
    """Why; it stands in the audit log."""

    reason: Annotated[str, Field(max_length=500)] = ""


@router.get("/devices", responses=problems(401, 403))
async def devices(
    principal: Viewer,
    services: AppServices,
    site: Annotated[str, Query(max_length=64)] | None = None,
    state: Presence | None = None,
    after: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> DevicePage:
    """Enrolled devices, by id."""
    found = await services.devices.page(site=site, state=state, after=after, limit=limit)
    return DevicePage(
        items=[DeviceView.of(each) for each in found], next=found[-1].device_id if len(found) == limit else None
    )


@router.get("/devices/{device_id}", responses=problems(401, 403, 404))
async def device(device_id: str, principal: Viewer, services: AppServices) -> DeviceDetailsView:
    """Everything about one device, with its latest events."""
    return DeviceDetailsView.full(await services.devices.details(DeviceId(device_id)))


@router.get("/devices/{device_id}/events", responses=problems(401, 403, 404))
async def device_events(
    device_id: str,
    principal: Viewer,
    services: AppServices,
    before: Annotated[int, Query(ge=1, le=(1 << 63) - 1)] | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> DeviceEventPage:
    """The life of a device, newest first."""
    found = await services.devices.events(DeviceId(device_id), before=before, limit=limit)
    return DeviceEventPage(
        items=[DeviceEventView.of(each) for each in found], next=found[-1].event_id if len(found) == limit else None
    )


@router.post("/devices/{device_id}/revoke", responses=problems(401, 403, 404, 409))
async def revoke(device_id: str, principal: Admin, services: AppServices, body: Reason | None = None) -> DeviceView:
    """End the device's certificates at once and cut its parked polls. A revoked name is never used again."""
    reason = body.reason if body else ""
    return DeviceView.of(await services.devices.revoke(principal.actor, DeviceId(device_id), reason))
