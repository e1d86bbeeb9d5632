"""A body on its way in: spooled to a file, measured and hashed, so that nothing enters the store on trust.

An upload that breaks off leaves a `.part` file at most; it goes when the request ends, or when the fleet starts again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

from edgeward_contract.artifact import ArtifactRef, Sha256
from edgeward_fleet.errors import DataDirError, Invalid, TooLarge
from edgeward_fleet.storage import StorageError

_PIECE_BYTES: Final = 1 << 20


class Spool:
    """The folder in which uploads wait to be checked; this process owns it. Raises DataDirError."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder: Final = folder
        self._max_bytes: Final = max_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for abandoned in folder.glob("*.part"):
                abandoned.unlink()
        except OSError as error:
            raise DataDirError(f"{folder}: expected a folder for uploads, got: {error.strerror}") from None

    @asynccontextmanager
    async def receive(self, expected: Sha256, body: AsyncIterable[bytes]) -> AsyncIterator[tuple[Path, ArtifactRef]]:
        """The body as a file that lives as long as the context.

        Raises:
            TooLarge: more than the limit; said as soon as it is known.
            Invalid: the body is not what its name says.
            StorageError: there is no room.
        """
        path = self._folder / f"{uuid4().hex}.part"
        try:
            artifact = await self._write(path, body)
            if artifact.sha256 != expected:
                raise Invalid(
                    f"body: expected sha256 {expected[:12]}…, got {artifact.sha256[:12]}… of {artifact.size_bytes} B",
                    hint="The file changed on the way or on the disk; pack the release again and push it.",
                )
            yield path, artifact
        finally:
            path.unlink(missing_ok=True)

    async def _write(self, path: Path, body: AsyncIterable[bytes]) -> ArtifactRef:
        digest = hashlib.sha256()
        size = 0

        def add(piece: bytes) -> None:
            digest.update(piece)
            with path.open("ab") as file:
                file.write(piece)

        async for piece in _collected(body):
            size += len(piece)
            if size > self._max_bytes:
                raise TooLarge(
                    f"artifact: expected at most {self._max_bytes} bytes, got more",
                    hint="Pack a smaller model; the fleet's operator sets the limit.",
                )
            try:
                await asyncio.to_thread(add, piece)
            except OSError as error:
                raise StorageError(f"the upload cannot be written: {error}") from error
        return ArtifactRef(sha256=Sha256(digest.hexdigest()), size_bytes=size)


async def _collected(body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Larger pieces: a server hands out 64 KiB at most, and each piece costs a change of threads."""
    buffer = bytearray()
    async for piece in body:
        buffer += piece
        if len(buffer) >= _PIECE_BYTES:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)
