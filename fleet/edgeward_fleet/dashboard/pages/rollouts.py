"""*Rollouts*: the list, which refreshes itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from edgeward_fleet.api.auth import AppServices
from edgeward_fleet.dashboard.links import query_string
from edgeward_fleet.dashboard.live import Live, anew, live_answer, live_part
from edgeward_fleet.dashboard.queries.releases import versions
from edgeward_fleet.dashboard.queries.rollouts import (
    ListedRollout,
    RolloutFilter,
    listed,
    models_rolled_out,
    states_of,
)
from edgeward_fleet.dashboard.render import PageRoute
from edgeward_fleet.dashboard.render import page as whole
from edgeward_fleet.dashboard.security import Looker
from edgeward_fleet.dashboard.views.devices import Choice
from edgeward_fleet.dashboard.views.paging import MAX_PAGE, Pages, pages
from edgeward_fleet.dashboard.words import plural, state_word
from edgeward_fleet.rollouts.machine import RolloutState
from edgeward_fleet.services import Services

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_PAGE: Final = 30
_EVERY_S: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The filters of the address; None and "" match everything."""

    state: RolloutState | None
    model: str

    def address(self, page: int = 1) -> str:
        state = self.state.value if self.state else None
        return query_string(state=state, model=self.model, page=page if page > 1 else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutList:
    """A page of the list; `models` are those to choose from."""

    rollouts: tuple[ListedRollout, ...]
    chosen: Chosen
    choices: tuple[Choice, ...]
    models: tuple[str, ...]
    pages: Pages
    is_empty: bool
    release: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutsPage:
    """The filters stand still and the list below moves; without any rollout, the way to the first one."""

    list: RolloutList
    live: Live


async def chosen_rollouts(
    state: RolloutState | None = None, model: Annotated[str, Query(max_length=64)] = ""
) -> Chosen:
    """What the address asks for."""
    return Chosen(state=state, model=model.strip())


ChosenRollouts = Annotated[Chosen, Depends(chosen_rollouts)]
PageNumber = Annotated[int, Query(ge=1, le=MAX_PAGE)]


@router.get("/rollouts")
async def rollouts(
    request: Request, looker: Looker, services: AppServices, chosen: ChosenRollouts, page: PageNumber = 1
) -> HTMLResponse:
    """Newest first."""
    found = await _list(services, chosen, page)
    content = RolloutsPage(list=found, live=_live(request, found))
    return whole(request, "rollouts.html", content, title="Rollouts", section="rollouts")


@router.get("/live/rollouts")
async def rollouts_live(
    request: Request,
    looker: Looker,
    services: AppServices,
    chosen: ChosenRollouts,
    page: PageNumber = 1,
    first: bool = False,
    seen: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The list, if it has changed; a page that waits for the `first` rollout is drawn anew when there is one."""
    found = await _list(services, chosen, page)
    return anew() if first and not found.is_empty else live_answer(request, _live(request, found), seen)


async def _list(services: Services, chosen: Chosen, page: int) -> RolloutList:
    which = RolloutFilter(states=(chosen.state,) if chosen.state else None, model=chosen.model or None)

    def work(session: Session) -> RolloutList:
        counts, models = states_of(session, chosen.model or None), models_rolled_out(session)
        total = counts.get(chosen.state, 0) if chosen.state else sum(counts.values())
        numbered = pages(total, page, _PAGE, lambda number: "/rollouts" + chosen.address(number))
        return RolloutList(
            rollouts=listed(session, which, skip=numbered.skipped, limit=_PAGE),
            chosen=chosen,
            choices=tuple(_choices(counts, chosen)),
            models=models,
            pages=numbered,
            is_empty=not models,
            release=_one_release(session) if not models else "",
        )

    return await services.database.run(work)


def _one_release(session: Session) -> str:
    """One that could be rolled out, "" while there is none."""
    return next((f"{each.model}@{each.version}" for each in versions(session)), "")


def _choices(counts: Mapping[RolloutState, int], chosen: Chosen) -> Iterator[Choice]:
    """Every state that there is, in the order of the life of a rollout."""
    href = "/rollouts" + Chosen(state=None, model=chosen.model).address()
    yield Choice(label="all", count=sum(counts.values()), href=href, is_chosen=chosen.state is None)
    for state in RolloutState:
        if counts.get(state) or chosen.state is state:
            href = "/rollouts" + Chosen(state=state, model=chosen.model).address()
            count = counts.get(state, 0)
            yield Choice(label=state_word(state), count=count, href=href, is_chosen=chosen.state is state)


def _live(request: Request, found: RolloutList) -> Live:
    url = "/live/rollouts" + ("?first=1" if found.is_empty else found.chosen.address(found.pages.number))
    sentence = plural(found.pages.total, "rollout")
    return live_part(request, "rollouts-live.html", found, url=url, every_s=_EVERY_S, sentence=sentence)
