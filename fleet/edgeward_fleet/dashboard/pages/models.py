"""*Models*, one model, and *Release*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session

from edgeward_contract.artifact import ModelName, ReleaseRef, Sha256, model_name
from edgeward_contract.manifest import Manifest, TensorSpec
from edgeward_contract.schema import ContractError
from edgeward_fleet.api.auth import AppServices
from edgeward_fleet.dashboard.queries.releases import SiteCount, VersionCount, refusals_of, sites_of, versions
from edgeward_fleet.dashboard.queries.rollouts import ListedRollout, RolloutFilter, listed
from edgeward_fleet.dashboard.render import PageRoute, page
from edgeward_fleet.dashboard.security import Looker
from edgeward_fleet.dashboard.views.causes import Cause, of_update
from edgeward_fleet.dashboard.views.fleet import version_strip
from edgeward_fleet.dashboard.views.strips import Strip
from edgeward_fleet.errors import NotFound
from edgeward_fleet.models import repository
from edgeward_fleet.models.model import ModelSummary, Release, WhereItRuns

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_PAGE: Final = 50
_ROLLOUTS_SHOWN: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLine:
    """A model of the list."""

    summary: ModelSummary
    about: str
    spread: Strip


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsPage:
    """By name; `next` is the name after which the following page begins."""

    models: tuple[ModelLine, ...]
    next: str
    is_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseLine:
    """A release of a model, and where it is."""

    release: Release
    summary: str
    where: VersionCount


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPage:
    """All releases of a model, newest first."""

    name: str
    releases: tuple[ReleaseLine, ...]
    spread: Strip


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Devices that did not take the release, and why."""

    devices: int
    cause: Cause


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePage:
    """Everything about one release."""

    release: Release
    manifest: Manifest
    where: WhereItRuns
    sites: tuple[SiteCount, ...]
    refusals: tuple[Refusal, ...]
    rollouts: tuple[ListedRollout, ...]
    tensors: tuple[tuple[str, tuple[TensorSpec, ...]], ...]
    document: str


@router.get("/models")
async def models(
    request: Request, looker: Looker, services: AppServices, after: Annotated[str, Query(max_length=64)] = ""
) -> HTMLResponse:
    """What can be rolled out."""

    def work(session: Session) -> tuple[list[ModelSummary], tuple[VersionCount, ...]]:
        return repository.summaries(session, after=after, limit=_PAGE + 1), versions(session)

    found, counted = await services.database.run(work)
    shown = found[:_PAGE]
    content = ModelsPage(
        models=tuple(
            ModelLine(summary=each, about=each.latest.parsed().summary, spread=_spread(each.name, counted))
            for each in shown
        ),
        next=shown[-1].name if len(found) > _PAGE else "",
        is_first=not after,
    )
    return page(request, "models.html", content, title="Models", section="models")


@router.get("/models/{name}")
async def model(name: str, request: Request, looker: Looker, services: AppServices) -> HTMLResponse:
    """One model with its releases."""
    known = _model_name(name)
    found = await services.registry.releases(known)
    counted = await services.database.run(lambda session: versions(session, known))
    where = {each.version: each for each in counted}
    content = ModelPage(
        name=known,
        releases=tuple(
            ReleaseLine(release=each, summary=each.parsed().summary, where=where[each.ref.version]) for each in found
        ),
        spread=_spread(known, counted),
    )
    return page(request, "model.html", content, title=known, section="models")


@router.get("/releases/{name}/{version}")
async def release(
    name: str,
    version: Annotated[int, Path(ge=1, le=(1 << 63) - 1)],
    request: Request,
    looker: Looker,
    services: AppServices,
) -> HTMLResponse:
    """One release: what it says of itself, and where it runs."""
    found, where = await services.registry.release(ReleaseRef(_model_name(name), version))
    rollouts, sites, refusals = await services.database.run(lambda session: _use(session, found.sha256))
    manifest = found.parsed()
    content = ReleasePage(
        release=found,
        manifest=manifest,
        where=where,
        sites=sites,
        refusals=refusals,
        rollouts=rollouts,
        tensors=(("Inputs", manifest.inputs), ("Outputs", manifest.outputs)),
        document=found.manifest.decode(),
    )
    return page(request, "release.html", content, title=str(found.ref), section="models")


def _use(
    session: Session, release: Sha256
) -> tuple[tuple[ListedRollout, ...], tuple[SiteCount, ...], tuple[Refusal, ...]]:
    refused = refusals_of(session, release)
    return (
        listed(session, RolloutFilter(release=release), limit=_ROLLOUTS_SHOWN),
        sites_of(session, release),
        tuple(Refusal(devices=count, cause=of_update(word)) for word, count in refused.items()),
    )


def _spread(name: str, counted: Sequence[VersionCount]) -> Strip:
    return version_strip(tuple(each for each in counted if each.model == name and each.live))


def _model_name(name: str) -> ModelName:
    """A name that cannot be one is a name that there is not."""
    try:
        return model_name(name, "model")
    except ContractError as error:
        raise NotFound(str(error)) from None
