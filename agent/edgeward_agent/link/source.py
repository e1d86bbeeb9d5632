"""Where releases come from: the fleet's device port over HTTPS, whatever carries the rest."""

from __future__ import annotations

from edgeward_agent.errors import LinkRefused
from edgeward_agent.link.wire import Call, Wire
from edgeward_contract.artifact import ArtifactRef, Sha256
from edgeward_contract.chunks import MAX_INDEX_BYTES, ChunkIndex, StoredChunk
from edgeward_contract.manifest import MAX_MANIFEST_BYTES
from edgeward_contract.schema import ContractError
from edgeward_contract.topics import chunk_index_path, chunk_path, manifest_path


class HttpsReleaseSource:
    """See `ports.ReleaseSource`. Never reads more than the contract, or the index, allows."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def manifest(self, sha256: Sha256) -> bytes:
        return await self._get(manifest_path(sha256), MAX_MANIFEST_BYTES)

    async def chunk_index(self, artifact: ArtifactRef) -> ChunkIndex:
        body = await self._get(chunk_index_path(artifact.sha256), MAX_INDEX_BYTES)
        try:
            index = ChunkIndex.parse(body)
        except ContractError as error:
            raise LinkRefused(f"fleet at {self._wire.where}: chunk index: {error}") from None
        if index.artifact != artifact:
            raise LinkRefused(
                f"fleet at {self._wire.where}: expected the chunk index of {artifact.sha256[:12]}…, "
                f"{artifact.size_bytes} bytes, got that of {index.artifact.sha256[:12]}…, "
                f"{index.artifact.size_bytes} bytes"
            )
        return index

    async def chunk(self, stored: StoredChunk) -> bytes:
        return await self._get(chunk_path(stored.sha256), stored.size_bytes)

    async def _get(self, path: str, limit_bytes: int) -> bytes:
        return (await self._wire.request(Call(method="GET", path=path, limit_bytes=limit_bytes))).body
