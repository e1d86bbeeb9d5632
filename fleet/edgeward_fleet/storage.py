"""Where artifacts lie: as chunks, each named by the digest of its content, on any file system that fsspec knows.

A chunk is written once and never changed, so several fleet processes may share a store without a lock. What a
database row points at has been flushed to the disk before the row is committed (`settle`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Protocol, cast
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from edgeward_contract.artifact import ArtifactRef, Sha256, sha256_of
from edgeward_contract.chunks import CHUNK_BYTES, Chunk, ChunkIndex, Encoding, StoredChunk
from edgeward_fleet.errors import FleetError, Unavailable

_AT_HAND_BYTES: Final = 32 << 20


class StorageError(Unavailable):
    """The artifact store did not do what was asked."""

    hint = "Check room and rights of the artifact store, the folder `artifacts` of the data folder."


class ArtifactDamaged(FleetError):
    """What the store holds is not what was put there."""

    hint = "Restore the chunk from a backup, or push the release again: pushing replaces damaged chunks."


class _FileSystem(Protocol):
    """The part of fsspec that we use; the library itself has no types."""

    def pipe_file(self, path: str, value: bytes) -> None: ...
    def cat_file(self, path: str) -> bytes: ...
    def makedirs(self, path: str, exist_ok: bool) -> None: ...


class ChunkStore:
    """Chunks by digest, under `url` (a folder, or any fsspec URL such as s3://bucket/prefix)."""

    def __init__(self, url: str) -> None:
        """Raises StorageError when there is no such kind of store, or it cannot be written."""
        try:
            file_system, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise StorageError(
                f"expected a folder or a URL of an installed fsspec driver, got {url}: {error}"
            ) from None
        self._files = cast(_FileSystem, file_system)
        self._root: Final = str(root).rstrip("/")
        self._is_local: Final = isinstance(file_system, LocalFileSystem)
        self._lately: Final[dict[Sha256, bytes]] = {}
        self._lately_bytes = 0
        self._changing: Final = threading.Lock()
        try:
            self._files.makedirs(self._root, exist_ok=True)
        except OSError as error:
            raise StorageError(f"expected a store that can be written at {url}, got: {error}") from error

    def put(self, data: bytes) -> Sha256:
        """Store a chunk; a sound copy that is there already stays. Raises StorageError."""
        digest = sha256_of(data)
        if self._sound(digest) is not None:
            return digest
        path = self._path(digest)
        try:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            if self._is_local:
                _write_beside(Path(path), data)
            else:
                self._files.pipe_file(path, data)
        except OSError as error:
            raise StorageError(f"chunk {digest[:12]}… cannot be stored: {error}") from error
        return digest

    def get(self, digest: Sha256) -> bytes:
        """The chunk's bytes, checked. Raises ArtifactDamaged: it is missing or not what it was."""
        data = self.at_hand(digest) or self._sound(digest)
        if data is None:
            raise ArtifactDamaged(f"expected a sound chunk {digest[:12]}… in the store, found none")
        self._keep(digest, data)
        return data

    def at_hand(self, digest: Sha256) -> bytes | None:
        """The chunk if it was read and checked lately: in a rollout a thousand devices ask for the same few."""
        return self._lately.get(digest)

    def _keep(self, digest: Sha256, data: bytes) -> None:
        with self._changing:
            if digest not in self._lately:
                self._lately[digest] = data
                self._lately_bytes += len(data)
            while self._lately_bytes > _AT_HAND_BYTES:
                oldest = next(iter(self._lately))
                self._lately_bytes -= len(self._lately.pop(oldest))

    def settle(self, digests: Iterable[Sha256]) -> None:
        """Return when the chunks survive a power cut. Stores other than folders promise that on `put`."""
        if not self._is_local:
            return
        paths = [Path(self._path(digest)) for digest in digests]
        folders = {folder for path in paths for folder in (path.parent, path.parent.parent)}
        try:
            for each in (*paths, *folders):
                _flush(each)
        except OSError as error:
            raise StorageError(f"chunks cannot be flushed to the disk: {error}") from error

    def store_file(self, source: Path, artifact: ArtifactRef) -> ChunkIndex:
        """Cut a file, whose digest the caller has checked, into raw chunks, one in memory at a time."""
        chunks: list[Chunk] = []
        offset = 0
        for piece in _pieces(source):
            digest = self.put(piece)
            raw = StoredChunk(encoding=Encoding.RAW, sha256=digest, size_bytes=len(piece))
            chunks.append(Chunk(offset=offset, size_bytes=len(piece), sha256=digest, stored=(raw,)))
            offset += len(piece)
        self.settle({chunk.sha256 for chunk in chunks})
        return ChunkIndex(artifact=artifact, chunks=tuple(chunks))

    def read_whole(self, index: ChunkIndex) -> Iterator[bytes]:
        """The artifact, chunk by chunk. Raises ArtifactDamaged on the way."""
        for chunk in index.chunks:
            yield self.get(chunk.best([Encoding.RAW]).sha256)

    def _sound(self, digest: Sha256) -> bytes | None:
        try:
            data = self._files.cat_file(self._path(digest))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(f"chunk {digest[:12]}… cannot be read: {error}") from error
        return data if sha256_of(data) == digest else None

    def _path(self, digest: Sha256) -> str:
        return f"{self._root}/{digest[:2]}/{digest}"


def _pieces(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def _write_beside(path: Path, data: bytes) -> None:
    """A reader sees the whole chunk or none, also when this process is killed."""
    beside = path.with_name(f"{path.name}.{uuid4().hex}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
