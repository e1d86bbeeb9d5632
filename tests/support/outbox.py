"""What tests of the outbox share: a fleet in memory, a clock that does not wait, images of a store."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from edgeward_agent.errors import LinkLost
from edgeward_agent.outbox.model import Draft, StoreOptions
from edgeward_agent.outbox.store import Store
from edgeward_contract.artifact import DeviceId, Sha256
from edgeward_contract.desired import DesiredState
from edgeward_contract.record import (
    MAX_BATCH_BYTES,
    Acknowledgement,
    Batch,
    Record,
    RecordClass,
    Verdict,
    VerdictStatus,
)
from edgeward_contract.reported import ReportedState
from edgeward_contract.schema import JsonValue

DEVICE: Final = DeviceId("ward-3")
SMALL: Final = StoreOptions(max_bytes=2 << 20, ballast_bytes=64 << 10)


def draft(
    number: int, record_class: RecordClass = RecordClass.RESULT, *, kind: str = "inference", padding: int = 0
) -> Draft:
    """A record that a test recognises by its number."""
    body: dict[str, JsonValue] = {"number": number}
    if padding:
        body["padding"] = "x" * padding
    return Draft(record_class=record_class, kind=kind, body=body)


def number_of(record: Record) -> int:
    value = record.body["number"]
    assert isinstance(value, int)
    return value


def accept(batch: Batch) -> list[Verdict]:
    """What a fleet says that has never seen these records."""
    return [Verdict(epoch=each.epoch, sequence=each.sequence, status=VerdictStatus.ACCEPTED) for each in batch.records]


def power_cut(source: Path, target: Path) -> Path:
    """What is on disk at this moment, as the next boot finds it. Between commits only: a copy is not atomic."""
    shutil.copytree(source, target)
    return target


class ImpatientClock:
    """Sleeps no time at all, and remembers how long it should have been."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.now_s = 1_800_000_000.0

    def monotonic(self) -> float:
        return self.now_s - 1_799_999_000.0

    def wall(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


class MemoryFleet:
    """Ingests as the contract asks: unique key, the digest tells a duplicate from a conflict. Also the link to it.

    `before` may raise what a link raises, instead of taking the batch; `after` the same once it is taken: a lost
    acknowledgement.
    """

    def __init__(self) -> None:
        self.taken: dict[tuple[str, int], Sha256] = {}
        self.records: list[Record] = []
        self.batches: list[Batch] = []
        self.before: Callable[[Batch], None] = lambda _: None
        self.after: Callable[[Batch], None] = lambda _: None
        self.judge: Callable[[Record], VerdictStatus] = lambda _: VerdictStatus.ACCEPTED
        self.max_batch_bytes = MAX_BATCH_BYTES
        self._changed = asyncio.Condition()

    async def deliver(self, batch: Batch) -> Acknowledgement:
        self.batches.append(batch)
        self.before(batch)
        batch = Batch.parse(batch.canonical())  # as over a wire
        verdicts = tuple(self._take(record) for record in batch.records)
        async with self._changed:
            self._changed.notify_all()
        self.after(batch)
        return Acknowledgement.parse(Acknowledgement(batch_id=batch.batch_id, verdicts=verdicts).canonical())

    async def next_desired(self, after: int) -> DesiredState:
        raise LinkLost(f"this fleet wants nothing above {after}")

    async def report(self, reported: ReportedState) -> None:
        raise LinkLost(f"this fleet takes no reports such as {reported.sequence}")

    async def aclose(self) -> None:
        """Nothing is held."""

    async def holds(self, count: int, timeout_s: float = 20.0) -> None:
        """Wait until that many records are here."""
        async with asyncio.timeout(timeout_s), self._changed:
            await self._changed.wait_for(lambda: len(self.records) >= count)

    @property
    def numbers(self) -> list[int]:
        """Of the records, in the order in which they came."""
        return [number_of(record) for record in self.records if "number" in record.body]

    def _take(self, record: Record) -> Verdict:
        key, digest = (record.epoch, record.sequence), record.sha256()
        status = self.judge(record)
        if key in self.taken:
            status = VerdictStatus.DUPLICATE if self.taken[key] == digest else VerdictStatus.CONFLICT
        elif status is VerdictStatus.ACCEPTED:
            self.taken[key] = digest
            self.records.append(record)
        return Verdict(epoch=record.epoch, sequence=record.sequence, status=status, reason="as the test wished")


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 20.0) -> None:
    """Wait for what nothing announces."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - the thing waited for is on another thread or process
            await asyncio.sleep(0.001)


async def empty(store: Store, timeout_s: float = 20.0) -> None:
    """Wait until nothing waits in the store."""

    async def nothing() -> bool:
        return (await store.stats()).records == 0

    await until(nothing, timeout_s)
