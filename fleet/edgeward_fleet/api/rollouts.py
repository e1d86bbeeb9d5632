"""Rollouts: create, approve, steer, watch."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from edgeward_contract.artifact import Sha256, model_name
from edgeward_fleet.api import documents
from edgeward_fleet.api.auth import Approver, AppServices, Operator, Viewer
from edgeward_fleet.api.parameters import Moment
from edgeward_fleet.api.problems import problems
from edgeward_fleet.api.rollout_views import EventPage, EventView, RolloutPage, RolloutSummary, RolloutView
from edgeward_fleet.rollouts.machine import RolloutEvent
from edgeward_fleet.rollouts.model import RolloutId

router = APIRouter(prefix="/api/v1", tags=["rollouts"])

_SPEC = documents.takes(
    documents.ROLLOUT_SPEC,
    "The spec: docs/rollout-machine.md. A key that is not known is refused.",
    example={
        "release": "wdbc-risk@2",
        "target": {"sites": ["north"]},
        "phases": [
            {"name": "canary", "percent": 20, "soak_s": 600, "timeout_s": 3600},
            {"name": "everyone", "percent": 100},
        ],
        "gates": {"max_failed_percent": 0, "min_success_percent": 100, "max_error_percent": 2},
        "on_failure": "rollback",
    },
)


class Approval(BaseModel):
    """What is approved: the digest of the spec that the approver has read."""

    spec_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Why(BaseModel):
    """It stands in the audit log and in the rollout's own timeline."""

    reason: Annotated[str, Field(max_length=500)] = ""


@router.post("/rollouts", status_code=201, responses=problems(401, 403, 404, 409), openapi_extra=_SPEC)
async def create(request: Request, principal: Operator, services: AppServices) -> RolloutView:
    """Ask for a rollout; it starts when somebody else has approved it."""
    return RolloutView.full(await services.rollouts.create(principal.actor, await request.body()))


@router.get("/rollouts", responses=problems(401, 403))
async def rollouts(
    principal: Viewer,
    services: AppServices,
    model: Annotated[str, Query(max_length=64)] | None = None,
    after: Moment | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> RolloutPage:
    """Rollouts, newest first; `after` is the `next` of the page before."""
    name = model_name(model, "model") if model else None
    found = await services.rollouts.page(model=name, before=after, limit=limit)
    return RolloutPage(
        items=[RolloutSummary.of(each.rollout, each.authorship, each.counts) for each in found],
        next=found[-1].rollout.created_at if len(found) == limit else None,
    )


@router.get("/rollouts/{rollout_id}", responses=problems(401, 403, 404))
async def show(rollout_id: str, principal: Viewer, services: AppServices) -> RolloutView:
    """One rollout: its phases with their evidence, its devices, and why it is where it is."""
    return RolloutView.full(await services.rollouts.show(RolloutId(rollout_id)))


@router.get("/rollouts/{rollout_id}/events", responses=problems(401, 403, 404))
async def events(
    rollout_id: str,
    principal: Viewer,
    services: AppServices,
    after: Annotated[int, Query(ge=0, le=(1 << 63) - 1)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> EventPage:
    """What happened, oldest first."""
    found = await services.rollouts.events(RolloutId(rollout_id), after=after, limit=limit)
    return EventPage(
        items=[EventView.of(each) for each in found], next=found[-1].event_id if len(found) == limit else None
    )


@router.post("/rollouts/{rollout_id}/approve", responses=problems(401, 403, 404, 409))
async def approve(rollout_id: str, body: Approval, principal: Approver, services: AppServices) -> RolloutView:
    """Allow exactly the spec with this digest. Its author cannot."""
    approved = await services.rollouts.approve(principal.actor, RolloutId(rollout_id), Sha256(body.spec_sha256))
    services.ticker.wake()
    return RolloutView.full(approved)


@router.post("/rollouts/{rollout_id}/pause", responses=problems(401, 403, 404, 409))
async def pause(rollout_id: str, principal: Operator, services: AppServices, body: Why | None = None) -> RolloutView:
    """Offer the release to nobody else until resumed; devices that have the offer go on."""
    return await _command(services, principal, rollout_id, RolloutEvent.PAUSE, body)


@router.post("/rollouts/{rollout_id}/resume", responses=problems(401, 403, 404, 409))
async def resume(rollout_id: str, principal: Operator, services: AppServices, body: Why | None = None) -> RolloutView:
    """Go on with the open phase, its time-out begun anew; devices that failed are offered the release again."""
    return await _command(services, principal, rollout_id, RolloutEvent.RESUME, body)


@router.post("/rollouts/{rollout_id}/abort", responses=problems(401, 403, 404, 409))
async def abort(rollout_id: str, principal: Operator, services: AppServices, body: Why | None = None) -> RolloutView:
    """Stop, and withdraw the offer where it has not been proven; devices that run the release keep it."""
    return await _command(services, principal, rollout_id, RolloutEvent.ABORT, body)


@router.post("/rollouts/{rollout_id}/rollback", responses=problems(401, 403, 404, 409))
async def roll_back(
    rollout_id: str, principal: Operator, services: AppServices, body: Why | None = None
) -> RolloutView:
    """Give every device that was offered the release its former one; also after success."""
    return await _command(services, principal, rollout_id, RolloutEvent.ROLL_BACK, body)


async def _command(
    services: AppServices, principal: Operator, rollout_id: str, event: RolloutEvent, body: Why | None
) -> RolloutView:
    reason = body.reason if body else ""
    after = await services.rollouts.command(principal.actor, RolloutId(rollout_id), event, reason)
    services.ticker.wake()
    return RolloutView.full(after)
