"""*Rollout*: the lanes that move by themselves, and what a person may do about them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from edgeward_contract.artifact import Sha256
from edgeward_fleet.accounts.model import Principal, Role
from edgeward_fleet.api.auth import AppServices
from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.live import Live, live_answer, live_part
from edgeward_fleet.dashboard.queries.rollouts import latest_command, timeline
from edgeward_fleet.dashboard.render import MAX_REASON, PageRoute, page
from edgeward_fleet.dashboard.security import Looker, OperatorLooks, OperatorPosts, ensure
from edgeward_fleet.dashboard.views.paging import MAX_PAGE
from edgeward_fleet.dashboard.views.rollout import RolloutView, rollout_view
from edgeward_fleet.dashboard.views.rollout_actions import DONE, actions, consequence, too_late
from edgeward_fleet.dashboard.views.rollout_devices import DeviceTable, device_table
from edgeward_fleet.dashboard.views.rollout_timeline import Line, lines
from edgeward_fleet.errors import Conflict, Forbidden
from edgeward_fleet.rollouts.machine import RolloutEvent, commands
from edgeward_fleet.rollouts.model import RolloutId, Standing
from edgeward_fleet.rollouts.repository import RolloutLine
from edgeward_fleet.rollouts.service import RolloutRecord
from edgeward_fleet.services import Services

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_TIMELINE: Final = 300  # told in far fewer lines: devices that did the same are one
_MOVING_S: Final = 2
_RESTING_S: Final = 15


class Command(StrEnum):
    """What a page can ask for, by the last part of its path."""

    APPROVE = "approve"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    ROLLBACK = "rollback"

    @property
    def event(self) -> RolloutEvent:
        return RolloutEvent.ROLL_BACK if self is Command.ROLLBACK else RolloutEvent(self.value)

    @property
    def needs(self) -> Role:
        return Role.APPROVER if self is Command.APPROVE else Role.OPERATOR


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRollout:
    """What changes while one looks."""

    view: RolloutView
    table: DeviceTable
    timeline: tuple[Line, ...]
    is_newest: bool
    older: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPage:
    """The head of the page stands still."""

    record: RolloutRecord
    live: Live


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmPage:
    """The question before a command."""

    record: RolloutRecord
    label: str
    tone: str
    consequence: str
    path: str
    form: str
    asks_reason: bool
    reason: str
    spec_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Which devices of the rollout the table shows, and up to which event what happened is told."""

    standing: Standing | None
    page: int
    before: int | None

    def query(self) -> str:
        standing = self.standing.value if self.standing else None
        return query_string(standing=standing, page=self.page if self.page > 1 else None, before=self.before)


async def shown_devices(
    standing: Standing | None = None,
    page: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 1,
    before: Annotated[int | None, Query(ge=1, le=(1 << 63) - 1)] = None,
) -> Shown:
    """What the address asks for."""
    return Shown(standing=standing, page=page, before=before)


ShownDevices = Annotated[Shown, Depends(shown_devices)]


@router.get("/rollouts/{rollout_id}")
async def rollout(
    rollout_id: str, request: Request, looker: Looker, services: AppServices, shown: ShownDevices
) -> HTMLResponse:
    """One rollout."""
    record = await services.rollouts.show(RolloutId(rollout_id))
    live = await _live(request, services, record, looker, shown)
    title = f"{record.rollout.spec.release} · rollout"
    return page(request, "rollout.html", RolloutPage(record=record, live=live), title=title, section="rollouts")


@router.get("/rollouts/{rollout_id}/live")
async def rollout_live(
    rollout_id: str,
    request: Request,
    looker: Looker,
    services: AppServices,
    shown: ShownDevices,
    seen: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The moving part, if it has moved."""
    record = await services.rollouts.show(RolloutId(rollout_id))
    return live_answer(request, await _live(request, services, record, looker, shown), seen)


@router.get("/rollouts/{rollout_id}/{command}")
async def confirm(
    rollout_id: str,
    command: Command,
    request: Request,
    looker: OperatorLooks,
    services: AppServices,
    reason: Annotated[str, Query(max_length=MAX_REASON)] = "",
) -> HTMLResponse:
    """The question before the command, with what it will do; `reason` is what was written before a log-in."""
    ensure(looker, command.needs)
    record = await services.rollouts.show(RolloutId(rollout_id))
    found = next((each for each in actions(record, looker) if each.event is command.event), None)
    if found is None:
        raise await _too_late(services, record.rollout.id, command)
    if found.refusal:
        raise Forbidden(found.refusal)
    foreseen = await services.rollouts.foresee(record.rollout.id, command.event)
    content = ConfirmPage(
        record=record,
        label=found.label,
        tone=found.tone,
        consequence=consequence(foreseen, command.event),
        path=found.path,
        form=request.state.session.form_token,
        asks_reason=command is not Command.APPROVE,
        reason=reason,
        spec_sha256=record.rollout.spec.sha256(),
    )
    return page(request, "confirm.html", content, title=f"{found.label}?", section="rollouts")


@router.post("/rollouts/{rollout_id}/{command}")
async def perform(
    rollout_id: str,
    command: Command,
    poster: OperatorPosts,
    services: AppServices,
    reason: Annotated[str, Form(max_length=MAX_REASON)] = "",
    spec_sha256: Annotated[str, Form(max_length=64)] = "",
) -> RedirectResponse:
    """Do it as the session's person, through the same services as the REST API."""
    ensure(poster, command.needs)
    identifier = RolloutId(rollout_id)
    try:
        await _do(services, poster, identifier, command, reason.strip(), spec_sha256)
    except Conflict:
        latest = await _latest(services, identifier)
        if latest is None or (latest.actor, latest.kind) != (poster.username, command.event.value):
            raise
        # A double click: the second request shows what the first has done.
    return RedirectResponse(f"/rollouts/{identifier}", 303)


async def _do(
    services: Services, poster: Principal, identifier: RolloutId, command: Command, reason: str, spec_sha256: str
) -> None:
    record = await services.rollouts.show(identifier)
    if command.event not in commands(record.rollout.state):
        raise await _too_late(services, identifier, command)
    if command is Command.APPROVE:
        await services.rollouts.approve(poster.actor, identifier, Sha256(spec_sha256))
    else:
        await services.rollouts.command(poster.actor, identifier, command.event, reason)
    services.ticker.wake()


async def _too_late(services: Services, identifier: RolloutId, command: Command) -> Conflict:
    """Says who was faster: two people may look at one rollout."""
    record, latest = await services.rollouts.show(identifier), await _latest(services, identifier)
    return Conflict(
        f"expected a rollout that can still be {DONE[command.event]}, {too_late(record.rollout.state, latest)}",
        hint="Nothing was done. Look at the rollout as it is now, then decide again.",
    )


async def _latest(services: Services, identifier: RolloutId) -> RolloutLine | None:
    return await services.database.run(lambda session: latest_command(session, identifier))


async def _live(request: Request, services: Services, record: RolloutRecord, viewer: Principal, shown: Shown) -> Live:
    identifier = record.rollout.id
    happened = await services.database.run(
        lambda session: timeline(session, identifier, before=shown.before, limit=_TIMELINE + 1)
    )
    view = rollout_view(record, viewer)
    content = LiveRollout(
        view=view,
        table=device_table(record.rollout, shown.standing, shown.page),
        timeline=lines(happened[:_TIMELINE]),
        is_newest=shown.before is None,
        older=query_string(before=happened[_TIMELINE - 1].event_id) if len(happened) > _TIMELINE else "",
    )
    return live_part(
        request,
        "rollout-live.html",
        content,
        url=f"/rollouts/{identifier}/live{shown.query()}",
        every_s=_MOVING_S if view.is_moving else _RESTING_S,
        sentence=view.sentence,
    )
