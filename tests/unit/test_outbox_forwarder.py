"""The forwarder between a real store and a fleet in memory that fails in every way a fleet can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from edgeward_agent.clock import SystemClock
from edgeward_agent.errors import LinkLost, LinkRefused
from edgeward_agent.outbox.forwarder import Forwarder
from edgeward_agent.outbox.store import Store, open_store
from edgeward_contract.record import Acknowledgement, Batch, Record, RecordClass, Verdict, VerdictStatus
from support.outbox import DEVICE, SMALL, ImpatientClock, MemoryFleet, draft, empty, number_of, until

Scenario = Callable[["Site"], Awaitable[None]]


class Site:
    """A device that forwards to a fleet, in a test."""

    def __init__(self, store: Store, fleet: MemoryFleet, clock: ImpatientClock) -> None:
        self.store = store
        self.fleet = fleet
        self.clock = clock
        self.forwarder = Forwarder(store, fleet, clock=clock, random=lambda: 0.5)

    async def append(self, *numbers: int, record_class: RecordClass = RecordClass.RESULT) -> None:
        await self.store.append([draft(number, record_class) for number in numbers])

    async def settled(self) -> None:
        """Wait until nothing waits."""
        await empty(self.store)

    @asynccontextmanager
    async def forwarding(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.forwarder.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def scenario(tmp_path: Path) -> Callable[[Scenario], None]:
    async def run(work: Scenario) -> None:
        clock = ImpatientClock()
        async with open_store(tmp_path, device=DEVICE, options=SMALL, clock=clock) as store:
            await work(Site(store, MemoryFleet(), clock))

    return lambda work: asyncio.run(run(work))


Play = Callable[[Scenario], None]


def failing(times: int, error: Callable[[], Exception]) -> Callable[[Batch], None]:
    """Fail so often, then work."""
    errors: Iterator[Exception] = iter([error() for _ in range(times)])

    def step(_: Batch) -> None:
        for problem in errors:
            raise problem

    return step


def test_records_go_out_as_they_come(scenario: Play) -> None:
    async def work(site: Site) -> None:
        async with site.forwarding():
            for number in range(20):
                await site.append(number)
                await site.fleet.holds(number + 1)
            await site.settled()
        assert site.fleet.numbers == list(range(20))
        assert site.clock.slept == []

    scenario(work)


def test_a_lost_link_is_waited_out_with_growing_delays(scenario: Play) -> None:
    async def work(site: Site) -> None:
        site.fleet.before = failing(12, lambda: LinkLost("cable"))
        await site.append(1, 2)
        async with site.forwarding():
            await site.settled()
        assert site.fleet.numbers == [1, 2]
        assert site.clock.slept == [1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 64.5, 128.5, 150.5, 150.5, 150.5, 150.5]
        await site.append(3)
        site.fleet.before = failing(1, lambda: LinkLost("cable"))
        async with site.forwarding():
            await site.settled()
        assert site.clock.slept[-1] == 1.5, "a success starts the count anew"

    scenario(work)


def test_retry_after_is_honoured(scenario: Play) -> None:
    async def work(site: Site) -> None:
        site.fleet.before = failing(1, lambda: LinkLost("busy", retry_after_s=120.0))
        await site.append(1)
        async with site.forwarding():
            await site.settled()
        assert site.clock.slept == [121.5]

    scenario(work)


def test_a_lost_acknowledgement_delivers_nothing_twice(scenario: Play) -> None:
    async def work(site: Site) -> None:
        site.fleet.after = failing(3, lambda: LinkLost("no answer"))
        await site.append(*range(10))
        async with site.forwarding():
            await site.settled()
        assert site.fleet.numbers == list(range(10))
        assert len(site.fleet.batches) == 4

    scenario(work)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_poison_is_isolated_and_the_rest_goes_on(scenario: Play, status: int) -> None:
    def refuse(batch: Batch) -> None:
        if 13 in [number_of(record) for record in batch.records]:
            raise LinkRefused("records[?]: expected better", status=status)

    async def work(site: Site) -> None:
        site.fleet.before = refuse
        await site.append(*range(100))
        async with site.forwarding():
            await site.settled()
        assert site.fleet.numbers == [number for number in range(100) if number != 13]
        (held,) = await site.store.quarantined()
        assert held.record is not None
        assert number_of(held.record) == 13
        assert held.reason == "records[?]: expected better"
        assert len(site.fleet.batches) <= 2 * 8
        assert site.clock.slept == []

    scenario(work)


def test_batches_are_large_again_once_nobody_refuses_them(scenario: Play) -> None:
    def refuse(batch: Batch) -> None:
        if len(batch.canonical()) > 300_000:
            raise LinkRefused("too large", status=413)

    async def work(site: Site) -> None:
        async def send(count: int) -> int:
            """The largest batch among those of so many records of 100 kB, one batch at a time."""
            before = len(site.fleet.batches)
            for first in range(0, count, 10):
                await site.store.append([draft(number, padding=100_000) for number in range(first, first + 10)])
                await site.settled()
            return max(len(batch.records) for batch in site.fleet.batches[before:])

        async with site.forwarding():
            site.fleet.before = refuse
            assert await send(10) > 2
            assert await send(10) == 2, "smaller ones from the start"
            site.fleet.before = lambda _: None
            await send(250)
            assert await send(10) == 10

    scenario(work)


def test_no_batch_is_larger_than_what_the_carrier_says(scenario: Play) -> None:
    """Else each of a backlog would be refused, halved and halved again."""

    async def work(site: Site) -> None:
        site.fleet.max_batch_bytes = 128 * 1024
        for first in range(0, 40, 10):
            await site.store.append([draft(number, padding=20_000) for number in range(first, first + 10)])
        async with site.forwarding():
            await site.settled()
        sizes = [len(batch.canonical()) for batch in site.fleet.batches]
        assert max(sizes) <= 128 * 1024
        assert len(sizes) == 7  # of six records each

    scenario(work)


@pytest.mark.parametrize("status", [401, 403, 404, 426, 0])
def test_a_refusal_that_is_no_fault_of_the_records_leaves_them(scenario: Play, status: int) -> None:
    async def work(site: Site) -> None:
        site.fleet.before = failing(5, lambda: LinkRefused("certificate revoked", status=status))
        await site.append(1, 2, 3)
        async with site.forwarding():
            await site.settled()
        assert site.fleet.numbers == [1, 2, 3]
        assert (await site.store.stats()).quarantined == 0
        assert len(site.clock.slept) == 5

    scenario(work)


def test_when_everything_is_refused_quarantine_fills_slowly(scenario: Play) -> None:
    async def work(site: Site) -> None:
        site.fleet.before = failing(10_000, lambda: LinkRefused("schema: expected at most 0, got 1", status=400))
        await site.append(*range(8))
        async with site.forwarding():
            await site.settled()
        assert (await site.store.stats()).quarantined == 8
        assert site.clock.slept == [1.5, 2.5, 4.5, 8.5, 16.5]

    scenario(work)


def test_a_rejected_verdict_puts_aside_and_does_not_block(scenario: Play) -> None:
    def judge(record: Record) -> VerdictStatus:
        return VerdictStatus.REJECTED if number_of(record) == 1 else VerdictStatus.ACCEPTED

    async def work(site: Site) -> None:
        site.fleet.judge = judge
        await site.append(0, 1, 2)
        async with site.forwarding():
            await site.settled()
        assert site.fleet.numbers == [0, 2]
        (held,) = await site.store.quarantined()
        assert held.reason == "as the test wished"

    scenario(work)


def test_a_conflict_is_sent_again_under_a_new_epoch(scenario: Play) -> None:
    async def work(site: Site) -> None:
        await site.append(1, 2)
        batch = await site.store.head()
        assert batch is not None
        first = batch.records[0]
        site.fleet.taken[first.epoch, first.sequence] = batch.records[1].sha256()
        async with site.forwarding():
            await site.settled()
        assert site.fleet.numbers == [2, 1]
        assert len({record.epoch for record in site.fleet.records}) == 2

    scenario(work)


class Liar(MemoryFleet):
    """Answers first with what `answer` makes of the right answer."""

    def __init__(self, answer: Callable[[Acknowledgement], Acknowledgement]) -> None:
        super().__init__()
        self._answer = answer
        self._lies = 3

    async def deliver(self, batch: Batch) -> Acknowledgement:
        right = await super().deliver(batch)
        self._lies -= 1
        return right if self._lies < 0 else self._answer(right)


def _of_another_batch(right: Acknowledgement) -> Acknowledgement:
    return Acknowledgement(batch_id="b-other", verdicts=right.verdicts)


def _of_other_records(right: Acknowledgement) -> Acknowledgement:
    others = [
        Verdict(epoch=each.epoch, sequence=each.sequence + 10, status=VerdictStatus.ACCEPTED) for each in right.verdicts
    ]
    return Acknowledgement(batch_id=right.batch_id, verdicts=tuple(others))


def _of_nothing(right: Acknowledgement) -> Acknowledgement:
    return Acknowledgement(batch_id=right.batch_id, verdicts=())


@pytest.mark.parametrize("answer", [_of_another_batch, _of_other_records, _of_nothing])
def test_only_what_was_sent_and_judged_is_let_go(
    tmp_path: Path, answer: Callable[[Acknowledgement], Acknowledgement]
) -> None:
    async def run() -> None:
        clock, fleet = ImpatientClock(), Liar(answer)
        async with open_store(tmp_path, device=DEVICE, options=SMALL, clock=clock) as store:
            site = Site(store, fleet, clock)
            await site.append(*range(15))
            first = await store.head(limit_records=5)
            assert first is not None
            site.forwarder._limit_bytes = sum(300 for _ in first.records)  # five or fewer a batch
            async with site.forwarding():
                await site.settled()
            assert fleet.numbers == list(range(15))
            assert len(clock.slept) == 3, "no hot loop against a fleet that talks nonsense"

    asyncio.run(run())


def test_a_nudge_ends_a_wait_but_not_the_fleets_own(tmp_path: Path) -> None:
    class Patient(SystemClock):
        waits = 0

        async def sleep(self, seconds: float) -> None:
            self.waits += 1
            await asyncio.Event().wait()

        async def waiting(self, waits: int) -> None:
            async def reached() -> bool:
                return self.waits >= waits

            await until(reached)

    async def run() -> None:
        clock, fleet = Patient(), MemoryFleet()
        async with open_store(tmp_path, device=DEVICE, options=SMALL) as store:
            forwarder = Forwarder(store, fleet, clock=clock)
            fleet.before = failing(1, lambda: LinkLost("cable"))
            await store.append([draft(1)])
            task = asyncio.create_task(forwarder.run())
            await clock.waiting(1)
            forwarder.nudge()
            await fleet.holds(1)
            fleet.before = failing(1, lambda: LinkLost("busy", retry_after_s=60))
            await store.append([draft(2)])
            await clock.waiting(2)
            forwarder.nudge()
            await asyncio.gather(*(asyncio.sleep(0) for _ in range(50)))
            assert fleet.numbers == [1]
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(run())
