"""Take artifacts and releases in, and hand them out again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from functools import lru_cache, partial
from typing import Final

from sqlalchemy.orm import Session

from edgeward_contract.artifact import ArtifactRef, DeviceId, ModelName, ReleaseRef, Sha256, sha256_of
from edgeward_contract.chunks import ChunkIndex
from edgeward_contract.manifest import Manifest
from edgeward_fleet.audit import service as audit
from edgeward_fleet.audit.model import Actor
from edgeward_fleet.clock import Clock
from edgeward_fleet.db.engine import Database
from edgeward_fleet.errors import Conflict, Forbidden, Invalid
from edgeward_fleet.models import repository
from edgeward_fleet.models.model import ModelSummary, Release, WhereItRuns, read_manifest
from edgeward_fleet.models.uploads import Spool
from edgeward_fleet.recent import Recent
from edgeward_fleet.settings import Settings
from edgeward_fleet.storage import ChunkStore
from edgeward_fleet.wakeups import Wakeups


class Registry:
    """Everything about releases and artifacts."""

    def __init__(
        self, database: Database, store: ChunkStore, settings: Settings, clock: Clock, wakeups: Wakeups
    ) -> None:
        # Which chunks a device may read, one shared set for each artifact: a thousand devices ask for the same.
        self._readable: Final[Recent[tuple[DeviceId, Sha256], frozenset[Sha256]]] = Recent(15.0)
        self._chunks: Final = lru_cache(maxsize=32)(_stored_chunks)
        wakeups.add_listener(self._readable.forget)
        self._database: Final = database
        self._store: Final = store
        self._clock: Final = clock
        self._spool: Final = Spool(settings.data_dir / "uploads", max_bytes=settings.max_artifact_bytes)

    async def put_artifact(self, actor: Actor, sha256: Sha256, body: AsyncIterable[bytes]) -> tuple[ArtifactRef, bool]:
        """Store a file under its digest; True when it was not here before.

        Pushing again is allowed and mends damaged chunks. Raises TooLarge, Invalid or StorageError.
        """
        async with self._spool.receive(sha256, body) as (path, artifact):
            index = await asyncio.to_thread(self._store.store_file, path, artifact)
        return artifact, await self._database.run(lambda session: self._add_artifact(session, actor, index))

    async def add_release(self, actor: Actor, data: bytes) -> tuple[Release, bool]:
        """Register the manifest `data`; True when it is new.

        Raises:
            Invalid: not a manifest, or an artifact that it names was not pushed.
            Conflict: the version is taken by another release; versions are never reused.
        """
        manifest = read_manifest(data)
        return await self._database.run(lambda session: self._add_release(session, actor, manifest, data))

    async def models(self, *, after: str, limit: int) -> list[ModelSummary]:
        return await self._database.run(lambda session: repository.summaries(session, after=after, limit=limit))

    async def releases(self, name: ModelName) -> list[Release]:
        """Raises NotFound."""
        return await self._database.run(lambda session: repository.releases_of(session, name))

    async def release(self, ref: ReleaseRef) -> tuple[Release, WhereItRuns]:
        """Raises NotFound."""

        def work(session: Session) -> tuple[Release, WhereItRuns]:
            release = repository.release(session, ref)
            return release, repository.where_it_runs(session, release.sha256)

        return await self._database.run(work)

    async def artifact(self, sha256: Sha256) -> tuple[ArtifactRef, AsyncIterator[bytes]]:
        """The whole file as a stream. Raises NotFound; the stream raises ArtifactDamaged."""
        data = await self._database.run(lambda session: repository.chunk_index(session, sha256))
        index = ChunkIndex.parse(data)
        return index.artifact, _in_threads(self._store.read_whole(index))

    async def manifest_for(self, device: DeviceId, sha256: Sha256) -> bytes:
        """Raises Forbidden unless the device's desired state names the release."""

        def work(session: Session) -> bytes:
            if not repository.may_read_manifest(session, device, sha256):
                raise _not_yours("manifest", sha256)
            return repository.release_by_sha256(session, sha256).manifest

        return await self._database.run(work, urgent=False)

    async def chunk_index_for(self, device: DeviceId, sha256: Sha256) -> bytes:
        """Raises Forbidden unless a release that the device's desired state names holds the artifact."""

        def work(session: Session) -> bytes:
            if not repository.may_read_artifact(session, device, sha256):
                raise _not_yours("artifact", sha256)
            return repository.chunk_index(session, sha256)

        data = await self._database.run(work, urgent=False)
        self._readable.put(device, (device, sha256), self._chunks(data))
        return data

    async def chunk_for(self, device: DeviceId, sha256: Sha256) -> bytes:
        """Raises Forbidden as `chunk_index_for`, or ArtifactDamaged."""
        if not await self._may_read_chunk(device, sha256):
            raise _not_yours("chunk", sha256)
        at_hand = self._store.at_hand(sha256)
        return at_hand if at_hand is not None else await asyncio.to_thread(self._store.get, sha256)

    async def _may_read_chunk(self, device: DeviceId, sha256: Sha256) -> bool:
        """Chunks are asked for one after the other; who was given their index may have them."""
        if any(sha256 in chunks for chunks in self._readable.of(device)):
            return True
        ask = partial(repository.may_read_chunk, device=device, sha256=sha256)
        return await self._database.run(ask, urgent=False)

    def _add_artifact(self, session: Session, actor: Actor, index: ChunkIndex) -> bool:
        if repository.has_artifact(session, index.artifact.sha256):
            return False
        now = self._clock()
        repository.add_artifact(session, index, actor, now)
        detail = {"size_bytes": index.artifact.size_bytes}
        audit.record(session, actor, "artifact.push", index.artifact.sha256, detail, at=now)
        return True

    def _add_release(self, session: Session, actor: Actor, manifest: Manifest, data: bytes) -> tuple[Release, bool]:
        sha256 = sha256_of(data)
        found = repository.find_release(session, manifest.release)
        if found is not None and found.sha256 == sha256:
            return found, False
        if found is not None:
            raise Conflict(
                f"{manifest.release} is registered with sha256 {found.sha256[:12]}…, got {sha256[:12]}…",
                hint="A version names one content for ever; give the new content a new version.",
            )
        for name, artifact in (("file", manifest.file), ("golden", manifest.golden.file)):
            _check_pushed(session, name, artifact)
        now = self._clock()
        repository.add_release(session, manifest, data, sha256, actor, now)
        audit.record(session, actor, "release.create", str(manifest.release), {"sha256": sha256}, at=now)
        session.flush()
        return repository.release(session, manifest.release), True


def _check_pushed(session: Session, name: str, artifact: ArtifactRef) -> None:
    size = repository.artifact_size(session, artifact.sha256)
    if size is None:
        raise Invalid(
            f"{name}: expected artifact {artifact.sha256[:12]}… to be here, it was not pushed",
            hint="Push the artifacts first: PUT /api/v1/artifacts/{sha256}; `edgeward model push` does both.",
        )
    if size != artifact.size_bytes:
        raise Invalid(f"{name}.size_bytes: expected {size}, got {artifact.size_bytes}")


def _stored_chunks(index: bytes) -> frozenset[Sha256]:
    chunks = ChunkIndex.parse(index).chunks
    return frozenset(stored.sha256 for chunk in chunks for stored in chunk.stored)


def _not_yours(what: str, sha256: Sha256) -> Forbidden:
    return Forbidden(
        f"expected a {what} of a release that this device should run, got {sha256[:12]}…",
        hint="Fetch the desired state again; it may have changed in the meantime.",
    )


async def _in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
