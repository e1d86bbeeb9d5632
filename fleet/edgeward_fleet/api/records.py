"""What devices have recorded, for people and programs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, JsonValue, TypeAdapter

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.api.auth import AppServices, Viewer
from edgeward_fleet.api.problems import problems
from edgeward_fleet.records.model import RecordFilter, StoredRecord

router = APIRouter(prefix="/api/v1", tags=["records"])
_members = TypeAdapter(dict[str, JsonValue])


class RecordView(BaseModel):
    """A record as the device wrote it; `wall_us` is the device's own clock and orders nothing."""

    id: int
    device: str
    received_at: datetime
    epoch: str
    sequence: int
    record_class: str
    kind: str
    boot: str
    boot_us: int
    wall_us: int
    clock_trusted: bool
    body: dict[str, JsonValue]

    @classmethod
    def of(cls, record: StoredRecord) -> RecordView:
        members = _members.validate_json(record.content)
        envelope = {"id": record.record_id, "device": record.device, "received_at": record.received_at}
        return cls.model_validate({**members, "record_class": members["class"], **envelope})


class RecordPage(BaseModel):
    """Records in the order in which they came; `next` is the `after` of the next page."""

    records: list[RecordView]
    next: int | None


class CountView(BaseModel):
    """How many records match."""

    count: int


def _which(
    device: Annotated[str, Query(max_length=64)] | None = None,
    kind: Annotated[str, Query(max_length=64)] | None = None,
    model: Annotated[str, Query(max_length=64)] | None = None,
    version: Annotated[int, Query(ge=1, le=(1 << 63) - 1)] | None = None,
) -> RecordFilter:
    return RecordFilter(device=DeviceId(device) if device else None, kind=kind, model=model, version=version)


Which = Annotated[RecordFilter, Depends(_which)]


@router.get("/records", responses=problems(401, 403))
async def records(
    which: Which,
    principal: Viewer,
    services: AppServices,
    after: Annotated[int, Query(ge=0, le=(1 << 63) - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> RecordPage:
    """Records from the one after `after` on."""
    found = await services.records.page(which, after=after, limit=limit)
    return RecordPage(
        records=[RecordView.of(each) for each in found], next=found[-1].record_id if len(found) == limit else None
    )


@router.get("/records/count", responses=problems(401, 403))
async def count(which: Which, principal: Viewer, services: AppServices) -> CountView:
    """How many records match."""
    return CountView(count=await services.records.count(which))
