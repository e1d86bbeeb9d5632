"""What the conformance suite of the link needs of every adapter: a fleet behind it that can be told to misbehave."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from edgeward_agent.link.memory import MemoryFleet, MemoryLink
from edgeward_agent.ports import Link
from edgeward_contract.artifact import ModelName, ReleaseRef, Sha256
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.record import MAX_BATCH_BYTES, Batch, Record, RecordClass
from edgeward_contract.reported import DeviceHealth, ReportedState


class LinkHarness(Protocol):
    """One device and its fleet. Generations and records are set and read on the fleet's side of the link."""

    limit_bytes: int
    """Of one batch on this carrier."""

    @property
    def link(self) -> Link: ...

    async def set_desired(self, desired: DesiredState) -> None:
        """Want this of the device from now on; the newest generation wins."""

    async def reports(self) -> Sequence[ReportedState]:
        """What the fleet keeps of the device's reports; the newest is last."""

    async def records(self) -> Sequence[tuple[str, int]]:
        """(epoch, sequence) of every record that the fleet has committed, each as often as it is there."""

    async def go_offline(self) -> None:
        """From now on nobody answers, and calls under way are cut off."""

    async def come_back(self) -> None: ...

    async def lose_next_answer(self) -> None:
        """The fleet gets the next call and acts on it; the answer does not arrive."""

    async def answer_later(self, retry_after_s: float) -> None:
        """Until `come_back`, every call is answered "later"."""

    async def refuse(self) -> None:
        """Until `come_back`, every call is answered "no": the device was revoked."""


class MemoryHarness:
    """See `LinkHarness`."""

    limit_bytes = MAX_BATCH_BYTES

    def __init__(self) -> None:
        self.fleet = MemoryFleet()
        self.link = MemoryLink(self.fleet)

    async def __aenter__(self) -> LinkHarness:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.link.aclose()

    async def set_desired(self, desired: DesiredState) -> None:
        await self.fleet.set_desired(desired)

    async def reports(self) -> Sequence[ReportedState]:
        return tuple(self.fleet.reports)

    async def records(self) -> Sequence[tuple[str, int]]:
        return tuple(self.fleet.records)

    async def go_offline(self) -> None:
        await self.fleet.set_online(False)

    async def come_back(self) -> None:
        self.fleet.retry_after_s, self.fleet.refusal = None, ""
        await self.fleet.set_online(True)

    async def lose_next_answer(self) -> None:
        self.fleet.lose_answers += 1

    async def answer_later(self, retry_after_s: float) -> None:
        self.fleet.retry_after_s = retry_after_s
        await self.fleet.wake()

    async def refuse(self) -> None:
        self.fleet.refusal = "the device is revoked"
        await self.fleet.wake()


Scenario = Callable[[LinkHarness], Awaitable[None]]


def desired_state(generation: int) -> DesiredState:
    """A document that names a release, as every carrier must be able to bring it."""
    name = ModelName("wdbc-risk")
    model = DesiredModel(release=ReleaseRef(name, 2), sha256=Sha256("ab" * 32), deployment=f"d-{generation}")
    return DesiredState(generation=generation, models={name: model})


def reported_state(sequence: int, *, generation: int = 0) -> ReportedState:
    health = DeviceHealth(serving_ready=True, disk_free_bytes=1 << 30)
    return ReportedState(generation=generation, boot="boot-1", sequence=sequence, agent_version="0", health=health)


def record(sequence: int, *, epoch: str = "e1", padding_bytes: int = 0) -> Record:
    body = {"model": "wdbc-risk", "version": 2, "outputs": {"risk": [0.25, 0.75]}, "padding": "x" * padding_bytes}
    return Record(
        epoch=epoch,
        sequence=sequence,
        record_class=RecordClass.RESULT,
        kind="inference",
        boot="boot-1",
        boot_us=sequence * 1000,
        wall_us=1_700_000_000_000_000 + sequence,
        clock_trusted=True,
        body=body,  # type: ignore[arg-type]  # JSON, as it is written here
    )


def batch(*sequences: int, batch_id: str = "b1", epoch: str = "e1", padding_bytes: int = 0) -> Batch:
    records = tuple(record(each, epoch=epoch, padding_bytes=padding_bytes) for each in sequences)
    return Batch(batch_id=batch_id, records=records)


def largest_batch(limit_bytes: int) -> Batch:
    """As close to the limit as whole records of a tenth of it come."""
    count, padding_bytes = 1, limit_bytes // 10
    while len(batch(*range(1, count + 2), padding_bytes=padding_bytes).canonical()) <= limit_bytes:
        count += 1
    return batch(*range(1, count + 1), padding_bytes=padding_bytes)
