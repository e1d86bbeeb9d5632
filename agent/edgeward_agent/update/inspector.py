"""Looks whether the current releases still are on the disk as they were fetched: a disk forgets without a word.

A model that is served from its prepared graph would else be missed at the next runtime, which needs the original.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Final

from edgeward_agent.clock import Clock
from edgeward_agent.update.releases import GOLDEN, MODEL, DigestMismatch, ReleaseFolders
from edgeward_contract.artifact import ArtifactRef, Sha256
from edgeward_contract.schema import ContractError

_LOOK_S: Final = 600.0
_FIRST_READ_S: Final = 3600.0
_READ_EACH_S: Final = 86_400.0
_PIECE_BYTES: Final = 1 << 20
_BREATH_S: Final = 0.05
"""Between two pieces: 20 MB a second at most, behind answers and updates."""


class Inspector:
    """Sizes at each look, every byte once a day. `tell` gets the release and what is wrong with it, in words.

    The slot `previous` is not looked at: it is hashed before it is used.
    """

    def __init__(
        self,
        releases: Path,
        *,
        current: Callable[[], Iterable[Sha256]],
        tell: Callable[[Sha256, str], None],
        clock: Clock,
    ) -> None:
        self._folders = ReleaseFolders(releases.parent)
        self._current = current
        self._tell = tell
        self._clock = clock
        self._read_due_s = clock.monotonic() + _FIRST_READ_S

    async def run(self) -> None:
        """Never returns."""
        while True:
            await self._clock.sleep(_LOOK_S)
            await self.look()

    async def look(self) -> None:
        reads = self._clock.monotonic() >= self._read_due_s
        if reads:
            self._read_due_s = self._clock.monotonic() + _READ_EACH_S
        for sha256 in self._current():
            if problem := await self._problem(sha256, reads=reads):
                self._tell(sha256, problem)

    async def _problem(self, sha256: Sha256, *, reads: bool) -> str:
        try:
            problem = await asyncio.to_thread(self._folders.wrong_size, sha256)
            if reads and not problem:
                await self._read(sha256)
        except (DigestMismatch, ContractError, OSError) as error:
            return str(error)
        return problem

    async def _read(self, sha256: Sha256) -> None:
        manifest = await asyncio.to_thread(self._folders.manifest, sha256)
        if manifest is not None:
            await self._hash(self._folders.path(sha256) / MODEL, manifest.file)
            await self._hash(self._folders.path(sha256) / GOLDEN, manifest.golden.file)

    async def _hash(self, path: Path, expected: ArtifactRef) -> None:
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            _forget_cached(file)
            while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                await asyncio.to_thread(digest.update, piece)
                await self._clock.sleep(_BREATH_S)
        if digest.hexdigest() != expected.sha256:
            raise DigestMismatch(path.name, expected=expected.sha256, found=Sha256(digest.hexdigest()))


def _forget_cached(file: BinaryIO) -> None:
    """So that it is the disk that answers, and not the memory of an earlier read."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
