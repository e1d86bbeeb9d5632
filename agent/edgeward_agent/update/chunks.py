"""Fetching a release piece by piece, so that a kill or a lost link costs one piece and not the download.

A chunk under its final name in `chunks/` was checked and flushed. What is missing is found by looking at the
folder: there is no second record of it that could be wrong.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from edgeward_agent.errors import LinkLost
from edgeward_agent.ports import ReleaseSource
from edgeward_agent.update.deployment import Deployment
from edgeward_agent.update.files import DiskThread, write_durably
from edgeward_agent.update.releases import GOLDEN, MODEL, DigestMismatch, ReleaseFolders, check_release
from edgeward_contract.artifact import ArtifactRef, Sha256, sha256_of, sha256_of_file
from edgeward_contract.chunks import Chunk, ChunkIndex, Encoding, StoredChunk, present_bytes
from edgeward_contract.manifest import Manifest
from edgeward_contract.schema import ContractError

KNOWN_ENCODINGS: Final = frozenset({Encoding.RAW})
_INDEX: Final = ".index"
T = TypeVar("T")


class ChunkStore:
    """`chunks/<sha256>` of one state folder. Blocking; methods raise OSError as the disk does."""

    def __init__(self, state_dir: Path) -> None:
        self.root = state_dir / "chunks"
        self.root.mkdir(parents=True, exist_ok=True)

    def present(self) -> set[Sha256]:
        return {Sha256(path.name) for path in self.root.iterdir() if not path.suffix}

    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.root.iterdir())

    def put(self, chunk: Chunk, data: bytes) -> None:
        write_durably(self.root / chunk.sha256, data)

    def put_index(self, index: ChunkIndex) -> None:
        """Kept, so that a download that is complete needs no link to be assembled."""
        write_durably(self._index_path(index.artifact), index.canonical())

    def index(self, artifact: ArtifactRef) -> ChunkIndex | None:
        try:
            index = ChunkIndex.parse(self._index_path(artifact).read_bytes())
        except (FileNotFoundError, ContractError):
            return None
        return index if index.artifact == artifact else None

    def assemble(self, index: ChunkIndex, target: Path) -> None:
        """Write the artifact and flush it. Raises DigestMismatch, after which the chunks at fault are gone."""
        with target.open("wb") as file:
            for chunk in index.chunks:
                with suppress(FileNotFoundError):
                    file.write((self.root / chunk.sha256).read_bytes())
            file.flush()
            os.fsync(file.fileno())
        found = sha256_of_file(target)
        if found != index.artifact.sha256:
            self._discard_bad(index)
            raise DigestMismatch(target.name, expected=index.artifact.sha256, found=found)

    def forget(self, index: ChunkIndex) -> None:
        for chunk in index.chunks:
            (self.root / chunk.sha256).unlink(missing_ok=True)
        self._index_path(index.artifact).unlink(missing_ok=True)

    def clear(self) -> None:
        """Free everything; call when nothing is being downloaded."""
        for path in self.root.iterdir():
            path.unlink(missing_ok=True)

    def _discard_bad(self, index: ChunkIndex) -> None:
        """Without a chunk to blame it is the index that lies: both go."""
        paths = {chunk.sha256: self.root / chunk.sha256 for chunk in index.chunks}
        bad = [path for name, path in paths.items() if not path.exists() or sha256_of_file(path) != name]
        for path in bad:
            path.unlink(missing_ok=True)
        if not bad:
            self.forget(index)

    def _index_path(self, artifact: ArtifactRef) -> Path:
        return self.root / (artifact.sha256 + _INDEX)


class Download:
    """One release on its way. `step` fetches one piece; a new object goes on where an old one stopped."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        source: ReleaseSource,
        folders: ReleaseFolders,
        chunks: ChunkStore,
        disk: DiskThread,
        timeout_s: float,
    ) -> None:
        self._deployment = deployment
        self._source = source
        self._folders = folders
        self._chunks = chunks
        self._disk = disk
        self._timeout_s = timeout_s
        self._manifest: Manifest | None = None
        self._indexes: dict[Sha256, ChunkIndex] = {}
        self._present: set[Sha256] | None = None

    async def manifest(self) -> Manifest:
        """The manifest, fetched if it is not here. Raises LinkLost, LinkRefused, DigestMismatch, WrongRelease."""
        if self._manifest is None:
            self._manifest = await self._disk.run(self._folders.manifest, self._deployment.sha256)
        if self._manifest is None:
            sha256 = self._deployment.sha256
            data = await self._within(self._source.manifest(sha256))
            self._manifest = check_release(sha256, data, self._deployment.release)
            await self._disk.run(self._folders.begin, sha256, data)
        return self._manifest

    async def step(self) -> bool:
        """Fetch one piece; True when nothing is missing.

        Raises:
            LinkLost, LinkRefused: from the source, or no answer in time.
            DigestMismatch: what came is not what was asked for; nothing was kept of it.
            OSError: as the disk does.
        """
        manifest = await self.manifest()
        for artifact in (manifest.file, manifest.golden.file):
            if artifact.sha256 not in self._indexes:
                self._indexes[artifact.sha256] = await self._index(artifact)
                return False
        if self._present is None:
            self._present = await self._disk.run(self._chunks.present)
        for index in self._indexes.values():
            if missing := index.missing(self._present):
                await self._fetch(missing[0])
                return False
        return True

    @property
    def percent(self) -> int:
        """Of the bytes of the model and its golden set."""
        if self._present is None:
            return 0
        total = sum(index.artifact.size_bytes for index in self._indexes.values())
        return 100 * sum(present_bytes(index, self._present) for index in self._indexes.values()) // max(total, 1)

    async def _index(self, artifact: ArtifactRef) -> ChunkIndex:
        kept = await self._disk.run(self._chunks.index, artifact)
        if kept is not None:
            return kept
        index = await self._within(self._source.chunk_index(artifact))
        if index.artifact != artifact:
            raise DigestMismatch("chunk index", expected=artifact.sha256, found=index.artifact.sha256)
        await self._disk.run(self._chunks.put_index, index)
        return index

    async def _fetch(self, chunk: Chunk) -> None:
        assert self._present is not None
        stored = chunk.best(KNOWN_ENCODINGS)
        data = decode(chunk, stored, await self._within(self._source.chunk(stored)))
        await self._disk.run(self._chunks.put, chunk, data)
        self._present.add(chunk.sha256)

    async def _within(self, call: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call
        except TimeoutError:
            raise LinkLost(f"expected an answer within {self._timeout_s:g} s, got none") from None


def decode(chunk: Chunk, stored: StoredChunk, data: bytes) -> bytes:
    """The chunk's bytes from its stored form. Raises DigestMismatch."""
    for what, expected in (("stored chunk", stored.sha256), ("chunk", chunk.sha256)):
        if (found := sha256_of(data)) != expected:
            raise DigestMismatch(f"{what} at {chunk.offset}", expected=expected, found=found)
    return data


def room_needed(manifest: Manifest) -> int:
    """Bytes that a download takes at its height: every chunk, and the files made of them."""
    return 2 * (manifest.file.size_bytes + manifest.golden.file.size_bytes)


def free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def assemble(folders: ReleaseFolders, chunks: ChunkStore, sha256: Sha256) -> None:
    """Make the release folder out of its chunks. Raises DigestMismatch, ContractError, OSError."""
    manifest = folders.manifest(sha256)
    if manifest is None:
        raise DigestMismatch("manifest", expected=sha256, found=sha256_of(b""))
    indexes: list[ChunkIndex] = []
    for artifact, name in ((manifest.file, MODEL), (manifest.golden.file, GOLDEN)):
        index = chunks.index(artifact)
        if index is None:
            raise DigestMismatch(f"chunk index of {name}", expected=artifact.sha256, found=sha256_of(b""))
        chunks.assemble(index, folders.partial(sha256) / name)
        indexes.append(index)
    folders.publish(sha256)
    for index in indexes:
        chunks.forget(index)
