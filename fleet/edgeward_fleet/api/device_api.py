"""What a device fetches: manifests, chunk indexes and chunks of the releases that its desired state names."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from edgeward_contract import topics
from edgeward_contract.artifact import Sha256
from edgeward_fleet.api import documents
from edgeward_fleet.api.auth import AppServices
from edgeward_fleet.api.device_auth import DeviceCaller
from edgeward_fleet.api.problems import problems

router = APIRouter(tags=["releases"])

_MANIFEST = documents.answers(documents.ANY_DOCUMENT, "The manifest")
_INDEX = documents.answers(documents.ANY_DOCUMENT, "The chunks in order")
_CHUNK = documents.answers(documents.FILE, "The chunk", media_type=documents.BYTES)

Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]


@router.get(topics.MANIFEST, responses={200: _MANIFEST, **problems(401, 403)})
async def manifest(sha256: Digest, caller: DeviceCaller, services: AppServices) -> Response:
    """The exact bytes of a manifest."""
    data = await services.registry.manifest_for(caller.device_id, Sha256(sha256))
    return _immutable(data, sha256, "application/json")


@router.get(topics.CHUNK_INDEX, responses={200: _INDEX, **problems(401, 403)})
async def chunk_index(sha256: Digest, caller: DeviceCaller, services: AppServices) -> Response:
    """How an artifact is cut into chunks."""
    data = await services.registry.chunk_index_for(caller.device_id, Sha256(sha256))
    return Response(data, media_type="application/json")


@router.get(topics.CHUNK, response_class=Response, responses={200: _CHUNK, **problems(401, 403)})
async def chunk(sha256: Digest, caller: DeviceCaller, services: AppServices) -> Response:
    """One chunk, as it is stored."""
    data = await services.registry.chunk_for(caller.device_id, Sha256(sha256))
    return _immutable(data, sha256, "application/octet-stream")


def _immutable(data: bytes, sha256: str, media_type: str) -> Response:
    """The digest is of these very bytes, so it is their ETag, too."""
    return Response(data, media_type=media_type, headers={"ETag": f'"{sha256}"'})
