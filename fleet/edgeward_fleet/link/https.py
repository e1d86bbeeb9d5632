"""The embedded link: long poll and plain requests on the device port, each with the device's certificate."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from edgeward_contract import topics
from edgeward_contract.desired import MAX_GENERATION
from edgeward_contract.record import MAX_BATCH_BYTES, Batch
from edgeward_contract.reported import MAX_REPORTED_BYTES, ReportedState
from edgeward_fleet.api import documents
from edgeward_fleet.api.auth import AppServices
from edgeward_fleet.api.device_auth import DeviceCaller
from edgeward_fleet.api.problems import problems
from edgeward_fleet.devices.service import ensure_admitted
from edgeward_fleet.errors import TooLarge
from edgeward_fleet.link.parking import parked

router = APIRouter(tags=["link"])
_JSON = "application/json"
_DESIRED = documents.answers(documents.DESIRED_STATE, "A newer desired state")
_ACKNOWLEDGEMENT = documents.answers(documents.ACKNOWLEDGEMENT, "A verdict for each record")
_REPORTED = documents.takes(documents.REPORTED_STATE, f"A reported state of at most {MAX_REPORTED_BYTES} bytes")
_BATCH = documents.takes(documents.BATCH, f"A batch of at most {MAX_BATCH_BYTES} bytes")


@router.get(topics.DESIRED, responses={200: _DESIRED, 204: {"description": "Nothing newer"}, **problems(401, 403)})
async def desired(
    caller: DeviceCaller,
    services: AppServices,
    after: Annotated[int, Query(ge=-1, le=MAX_GENERATION)] = -1,
    wait: Annotated[int, Query(ge=0, le=topics.MAX_PARK_S)] = 0,
) -> Response:
    """The desired state as soon as its generation is above `after`; 204 after `wait` seconds without one."""
    document = await parked(
        services.inbound,
        services.wakeups,
        caller.device_id,
        after,
        wait,
        lambda session, now: ensure_admitted(session, caller, now),
    )
    return Response(document, media_type=_JSON) if document else Response(status_code=204)


@router.post(topics.REPORTED, status_code=204, responses=problems(401, 403), openapi_extra=_REPORTED)
async def reported(request: Request, caller: DeviceCaller, services: AppServices) -> None:
    """The device's reported state; an older one than what is here is ignored."""
    data = await _body(request, MAX_REPORTED_BYTES)
    await services.inbound.report(caller.device_id, ReportedState.parse(data))


@router.post(topics.RECORDS, responses={200: _ACKNOWLEDGEMENT, **problems(401, 403)}, openapi_extra=_BATCH)
async def records(request: Request, caller: DeviceCaller, services: AppServices) -> Response:
    """Records from the device's outbox. The answer lists a verdict for each, and comes after the commit."""
    data = await _body(request, MAX_BATCH_BYTES)
    batch = await asyncio.to_thread(Batch.parse, data)
    acknowledgement = await services.inbound.deliver(caller.device_id, batch)
    return Response(acknowledgement.canonical(), media_type=_JSON)


async def _body(request: Request, limit_bytes: int) -> bytes:
    data = await request.body()
    if len(data) > limit_bytes:
        raise TooLarge(f"body: expected at most {limit_bytes} bytes, got {len(data)}")
    return data
