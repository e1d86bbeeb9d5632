"""A fleet in memory: for tests and for trying the agent without a network.

It keeps the same promises as a real one (dedupe on the record's name, acknowledge after taking), because the
conformance suite holds both to the same words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from edgeward_agent.errors import LinkLost, LinkRefused
from edgeward_contract.artifact import ArtifactRef, Sha256, sha256_of
from edgeward_contract.chunks import ChunkIndex, StoredChunk, raw_index
from edgeward_contract.desired import DesiredState
from edgeward_contract.record import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    Acknowledgement,
    Batch,
    Record,
    Verdict,
    VerdictStatus,
)
from edgeward_contract.reported import ReportedState

T = TypeVar("T")


@dataclass(slots=True)
class MemoryFleet:
    """One device's view of a fleet. Tests read what arrived and make it misbehave."""

    desired: DesiredState = field(default_factory=lambda: DesiredState(generation=0))
    reports: list[ReportedState] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    records: dict[tuple[str, int], Record] = field(default_factory=dict)
    online: bool = True
    retry_after_s: float | None = None  # while set, everything is answered "later"
    refusal: str = ""  # while set, everything is answered "no"
    lose_answers: int = 0  # so many next calls arrive, and their answers do not
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def set_desired(self, desired: DesiredState) -> None:
        """The newest generation wins; an older one that comes late changes nothing."""
        if desired.generation > self.desired.generation:
            self.desired = desired
        await self.wake()

    async def set_online(self, online: bool) -> None:
        self.online = online
        await self.wake()

    async def wake(self) -> None:
        """Let parked polls look again."""
        async with self.changed:
            self.changed.notify_all()

    def check(self) -> None:
        """Raises LinkLost or LinkRefused as the fleet is told to behave."""
        if not self.online:
            raise LinkLost("fleet in memory: expected an answer, it is offline")
        if self.retry_after_s is not None:
            raise LinkLost("fleet in memory: busy", retry_after_s=self.retry_after_s)
        if self.refusal:
            raise LinkRefused(f"fleet in memory: {self.refusal}", status=403)

    def take(self, batch: Batch) -> Acknowledgement:
        """Keep what is new. Raises LinkRefused for a batch above the contract's limits."""
        if len(batch.records) > MAX_BATCH_RECORDS or len(batch.canonical()) > MAX_BATCH_BYTES:
            raise LinkRefused("fleet in memory: expected a smaller batch", status=413)
        self.batches.append(batch)
        return Acknowledgement(batch_id=batch.batch_id, verdicts=tuple(self._take(each) for each in batch.records))

    def answer(self) -> None:
        """Raises LinkLost when this answer is to be lost."""
        if self.lose_answers:
            self.lose_answers -= 1
            raise LinkLost("fleet in memory: the answer was lost")

    def _take(self, record: Record) -> Verdict:
        name = (record.epoch, record.sequence)
        kept = self.records.setdefault(name, record)
        if kept is record:
            status = VerdictStatus.ACCEPTED
        else:
            status = VerdictStatus.DUPLICATE if kept.sha256() == record.sha256() else VerdictStatus.CONFLICT
        return Verdict(epoch=record.epoch, sequence=record.sequence, status=status)


class MemoryLink:
    """See `ports.Link`."""

    def __init__(self, fleet: MemoryFleet) -> None:
        self._fleet = fleet
        self._closed = False

    @property
    def max_batch_bytes(self) -> int:
        return MAX_BATCH_BYTES

    async def next_desired(self, after: int) -> DesiredState:
        async with self._fleet.changed:
            while True:
                self._check()
                if self._fleet.desired.generation > after:
                    return self._fleet.desired
                await self._fleet.changed.wait()

    async def report(self, reported: ReportedState) -> None:
        self._check()
        self._fleet.reports.append(ReportedState.parse(reported.canonical()))
        self._fleet.answer()

    async def deliver(self, batch: Batch) -> Acknowledgement:
        self._check()
        acknowledgement = self._fleet.take(batch)
        self._fleet.answer()
        return acknowledgement

    async def aclose(self) -> None:
        self._closed = True
        await self._fleet.wake()

    def _check(self) -> None:
        if self._closed:
            raise LinkLost("fleet in memory: the link was closed")
        self._fleet.check()


class MemoryReleases:
    """See `ports.ReleaseSource`. Gives what was put in, chunked as a fleet would."""

    def __init__(self, fleet: MemoryFleet, *, chunk_bytes: int = 64 * 1024) -> None:
        self._fleet = fleet
        self._chunk_bytes = chunk_bytes
        self._manifests: dict[Sha256, bytes] = {}
        self._indexes: dict[Sha256, ChunkIndex] = {}
        self._chunks: dict[Sha256, bytes] = {}

    def add(self, manifest: bytes, files: Mapping[str, bytes]) -> Sha256:
        """Publish a release; the digest of its manifest is what a desired state names."""
        for data in files.values():
            index = raw_index(data, chunk_bytes=self._chunk_bytes)
            self._indexes[index.artifact.sha256] = index
            for chunk in index.chunks:
                self._chunks[chunk.sha256] = data[chunk.offset : chunk.offset + chunk.size_bytes]
        digest = sha256_of(manifest)
        self._manifests[digest] = manifest
        return digest

    def index_of(self, sha256: Sha256) -> ChunkIndex:
        return self._find(self._indexes, sha256)

    async def manifest(self, sha256: Sha256) -> bytes:
        return self._find(self._manifests, sha256)

    async def chunk_index(self, artifact: ArtifactRef) -> ChunkIndex:
        index = self.index_of(artifact.sha256)
        if index.artifact != artifact:
            raise LinkRefused(f"fleet in memory: expected {artifact.size_bytes} bytes, got {index.artifact.size_bytes}")
        return index

    async def chunk(self, stored: StoredChunk) -> bytes:
        return self._find(self._chunks, stored.sha256)

    def _find(self, shelf: Mapping[Sha256, T], sha256: Sha256) -> T:
        self._fleet.check()
        if sha256 not in shelf:
            raise LinkRefused(f"fleet in memory: nothing has the digest {sha256[:12]}…", status=404)
        return shelf[sha256]
