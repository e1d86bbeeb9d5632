"""The registry, for people: push artifacts, register releases, see where they run."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, JsonValue, TypeAdapter
from starlette.requests import ClientDisconnect

from edgeward_contract.artifact import ReleaseRef, Sha256, model_name
from edgeward_contract.manifest import MAX_MANIFEST_BYTES
from edgeward_contract.schema import ContractError
from edgeward_fleet.api import documents
from edgeward_fleet.api.auth import AppServices, Operator, Viewer
from edgeward_fleet.api.device_api import Digest
from edgeward_fleet.api.problems import problems
from edgeward_fleet.errors import BadRequest, NotFound
from edgeward_fleet.models.model import ModelSummary, Release, WhereItRuns

router = APIRouter(prefix="/api/v1", tags=["releases"])
_document = TypeAdapter(dict[str, JsonValue])
_UPLOAD = documents.takes(documents.FILE, "The file", media_type=documents.BYTES)
_FILE = documents.answers(documents.FILE, "The file", media_type=documents.BYTES)

Version = Annotated[int, Path(ge=1, le=(1 << 63) - 1)]


class ArtifactView(BaseModel):
    """A file in the store."""

    sha256: str
    size_bytes: int


class NewRelease(BaseModel):
    """The manifest's exact bytes, in base64: a digest is over bytes, and JSON in JSON would not keep them."""

    manifest: Annotated[str, Field(max_length=MAX_MANIFEST_BYTES * 4 // 3 + 8)]


class ReleaseSummary(BaseModel):
    """A release; `sha256` is its identity."""

    release: str
    name: str
    version: int
    sha256: str
    summary: str
    created_at: datetime
    created_by: str

    @classmethod
    def of(cls, release: Release) -> ReleaseSummary:
        return cls(
            release=str(release.ref),
            name=release.ref.name,
            version=release.ref.version,
            sha256=release.sha256,
            summary=release.parsed().summary,
            created_at=release.created_at,
            created_by=release.created_by,
        )


class WhereView(BaseModel):
    """Devices: for which it is wanted, and on which it is live (`current` committed, `candidate` on probation)."""

    desired: int
    current: int
    candidate: int

    @classmethod
    def of(cls, where: WhereItRuns) -> WhereView:
        return cls(desired=where.desired, current=where.current, candidate=where.candidate)


class ReleaseView(ReleaseSummary):
    """A release with its whole manifest."""

    manifest: dict[str, JsonValue]
    devices: WhereView

    @classmethod
    def full(cls, release: Release, where: WhereItRuns) -> ReleaseView:
        return cls(
            **ReleaseSummary.of(release).model_dump(),
            manifest=_document.validate_json(release.manifest),
            devices=WhereView.of(where),
        )


class ModelView(BaseModel):
    """A model with its newest release."""

    name: str
    releases: int
    latest: ReleaseSummary

    @classmethod
    def of(cls, summary: ModelSummary) -> ModelView:
        return cls(name=summary.name, releases=summary.releases, latest=ReleaseSummary.of(summary.latest))


class ModelPage(BaseModel):
    """Models by name; `next` is the `after` of the next page."""

    items: list[ModelView]
    next: str | None


class ReleasesView(BaseModel):
    """All releases of a model, newest first; there is only ever one page."""

    name: str
    items: list[ReleaseSummary]
    next: str | None = None


@router.put(
    "/artifacts/{sha256}",
    status_code=201,
    responses={200: {"model": ArtifactView, "description": "It was here already"}, **problems(401, 403, 503)},
    openapi_extra=_UPLOAD,
)
async def put_artifact(
    sha256: Digest, request: Request, response: Response, principal: Operator, services: AppServices
) -> ArtifactView:
    """Store the request's body under its digest. Again is fine, and mends a copy that was damaged."""
    artifact, is_new = await services.registry.put_artifact(principal.actor, Sha256(sha256), _pieces(request))
    response.status_code = 201 if is_new else 200
    return ArtifactView(sha256=artifact.sha256, size_bytes=artifact.size_bytes)


@router.get("/artifacts/{sha256}", response_class=StreamingResponse, responses={200: _FILE, **problems(401, 403, 404)})
async def get_artifact(sha256: Digest, principal: Viewer, services: AppServices) -> StreamingResponse:
    """The whole file."""
    artifact, body = await services.registry.artifact(Sha256(sha256))
    headers = {"Content-Length": str(artifact.size_bytes), "ETag": f'"{artifact.sha256}"'}
    return StreamingResponse(body, media_type="application/octet-stream", headers=headers)


@router.post(
    "/releases",
    status_code=201,
    responses={200: {"model": ReleaseView, "description": "It was here already"}, **problems(401, 403, 409)},
)
async def create_release(
    body: NewRelease, response: Response, principal: Operator, services: AppServices
) -> ReleaseView:
    """Register a release whose artifacts have been pushed."""
    release, is_new = await services.registry.add_release(principal.actor, _decoded(body.manifest))
    response.status_code = 201 if is_new else 200
    return ReleaseView.full(*await services.registry.release(release.ref))


@router.get("/models", responses=problems(401, 403))
async def models(
    principal: Viewer,
    services: AppServices,
    after: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ModelPage:
    """All models, by name."""
    found = await services.registry.models(after=after, limit=limit)
    return ModelPage(items=[ModelView.of(each) for each in found], next=found[-1].name if len(found) == limit else None)


@router.get("/models/{name}", responses=problems(401, 403, 404))
async def model(name: str, principal: Viewer, services: AppServices) -> ReleasesView:
    """All releases of one model."""
    found = await services.registry.releases(_ref(name, 1).name)
    return ReleasesView(name=name, items=[ReleaseSummary.of(each) for each in found])


@router.get("/releases/{name}/{version}", responses=problems(401, 403, 404))
async def release(name: str, version: Version, principal: Viewer, services: AppServices) -> ReleaseView:
    """One release, and where it runs."""
    return ReleaseView.full(*await services.registry.release(_ref(name, version)))


def _ref(name: str, version: int) -> ReleaseRef:
    """A name that cannot be one is a name that there is not."""
    try:
        return ReleaseRef(model_name(name, "name"), version)
    except ContractError as error:
        raise NotFound(str(error)) from None


async def _pieces(request: Request) -> AsyncIterator[bytes]:
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect:
        raise BadRequest("body: expected all of it, the connection ended before", hint="Push again.") from None


def _decoded(manifest: str) -> bytes:
    try:
        return base64.b64decode(manifest, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("manifest: expected base64 of the manifest's bytes, got something else") from None
