"""The outbox under every order of appends, deliveries, lost answers, restarts, power cuts and restored images.

The model is three sets of numbers: what callers were told is safe, what may be safe, and what a restored image has
taken back. The fleet in memory keeps its own books.
"""

from __future__ import annotations

import asyncio
import shutil
import struct
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from itertools import count, pairwise
from pathlib import Path
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgeward_agent.outbox.model import Receipt, StoreOptions
from edgeward_agent.outbox.store import Store, open_store
from edgeward_contract.record import Record, RecordClass, Verdict, VerdictStatus
from support.outbox import DEVICE, ImpatientClock, MemoryFleet, draft, number_of, power_cut

T = TypeVar("T")
OPTIONS = StoreOptions(max_bytes=16 << 20, ballast_bytes=0)
NEVER_DROPPED = st.sampled_from([RecordClass.RESULT, RecordClass.AUDIT])
IN_MEMORY = Path("/dev/shm")  # the order of things is what matters here, not the disk
FRAME_BYTES = 24 + 4096


class OutboxMachine(RuleBasedStateMachine):
    """One device, one fleet, and a person who restores images."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp(prefix="edgeward-outbox-", dir=IN_MEMORY if IN_MEMORY.is_dir() else None))
        self.folders = (self.root / f"disk-{number}" for number in count())
        self.numbers = count()
        self.clock = ImpatientClock()
        self.fleet = self.run(self._fleet())
        self.safe: set[int] = set()
        self.perhaps: set[int] = set()
        self.image: tuple[Path, set[int], set[int]] | None = None
        self.last: Receipt | None = None
        self.answers: list[tuple[Verdict, ...]] = []
        self.in_order = True  # until a record is refused or an image restored

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    async def _fleet(self) -> MemoryFleet:
        return MemoryFleet()

    @initialize()
    def first_start(self) -> None:
        self.folder = next(self.folders)
        self.folder.mkdir()
        self._open()

    def _open(self) -> None:
        self.stack = AsyncExitStack()
        opening = open_store(self.folder, device=DEVICE, options=OPTIONS, clock=self.clock)
        self.store: Store = self.run(self.stack.enter_async_context(opening))

    def _close(self) -> None:
        self.run(self.stack.aclose())

    @rule(record_class=NEVER_DROPPED, size=st.integers(1, 4), padding=st.sampled_from([0, 100, 5000]))
    def append(self, record_class: RecordClass, size: int, padding: int) -> None:
        numbers = [next(self.numbers) for _ in range(size)]
        drafts = [draft(number, record_class, padding=padding) for number in numbers]
        for receipt in self.run(self.store.append(drafts)):
            if self.last is not None and receipt.epoch == self.last.epoch:
                assert receipt.sequence > self.last.sequence
            self.last = receipt
        self.safe |= set(numbers)

    @rule(size=st.integers(1, 4))
    def append_without_waiting(self, size: int) -> None:
        numbers = [next(self.numbers) for _ in range(size)]
        self.run(self.store.append([draft(number) for number in numbers], durable=False))
        self.perhaps |= set(numbers)

    @rule(limit=st.sampled_from([1, 2, 5, 1000]), lost=st.booleans())
    def forward(self, limit: int, lost: bool) -> None:
        """One batch. When the answer is lost it may still come, much later."""
        batch = self.run(self.store.head(limit_records=limit))
        if batch is None:
            return
        answer = self.run(self.fleet.deliver(batch)).verdicts
        self.answers.append(answer)
        if not lost:
            self.run(self.store.apply(answer))

    @precondition(lambda self: self.answers)
    @rule(which=st.integers(0, 100))
    def an_old_answer_comes_again(self, which: int) -> None:
        self.run(self.store.apply(self.answers[which % len(self.answers)]))

    @rule(odd=st.booleans())
    def the_fleet_rejects_some(self, odd: bool) -> None:
        self.in_order = False
        self.fleet.judge = lambda record: (
            VerdictStatus.REJECTED if number_of(record) % 2 == odd else VerdictStatus.ACCEPTED
        )
        self.forward(limit=5, lost=False)
        self.fleet.judge = lambda _: VerdictStatus.ACCEPTED

    @rule()
    def a_person_sends_quarantine_again(self) -> None:
        self._requeue()

    def _requeue(self) -> None:
        held = self.run(self.store.quarantined(limit=1000))
        assert self.run(self.store.requeue([each.row for each in held])) == len(held)

    @rule()
    def restart(self) -> None:
        self._close()
        self._open()

    @rule(days=st.integers(0, 2))
    def maintain(self, days: int) -> None:
        self.clock.now_s += 86_400 * days
        self.run(self.store.maintain())

    @rule(tail=st.sampled_from(["clean", "garbage", "unfinished"]))
    def power_is_cut(self, tail: str) -> None:
        folder = self._image()
        self._close()
        self.folder = folder
        self._tear(tail)
        self._open()
        assert self.run(self.store.stats()).alarms in ((), ("outbox_quarantine",)), "a power cut is no damage"

    def _tear(self, tail: str) -> None:
        """What a write that the power cut short leaves at the end of the log."""
        wal = self.folder / "outbox.db-wal"
        if tail == "clean" or not wal.exists() or wal.stat().st_size < 32:
            return
        data = wal.read_bytes()
        if tail == "garbage":
            wal.write_bytes(data + b"\xa5" * 3000)
        elif len(data) >= 32 + FRAME_BYTES and (len(data) - 32) % FRAME_BYTES == 0:
            salts = data[-FRAME_BYTES + 8 : -FRAME_BYTES + 16]
            wal.write_bytes(data + struct.pack(">II", 2, 0) + salts + bytes(8) + b"\x5a" * 4096)

    @rule()
    def make_an_image(self) -> None:
        self.image = (self._image(), set(self.safe), set(self.perhaps))

    def _image(self) -> Path:
        self.run(self.store.stats())  # what was handed over without waiting is on disk now, not perhaps
        return power_cut(self.folder, next(self.folders))

    @precondition(lambda self: self.image is not None)
    @rule()
    def restore_the_image(self) -> None:
        assert self.image is not None
        self._close()
        folder, safe, perhaps = self.image
        self.folder = Path(shutil.copytree(folder, next(self.folders)))
        delivered = set(self.fleet.numbers)
        # What the old disk held and had not delivered is gone with it; that is what restoring an image means.
        self.perhaps = perhaps | (self.perhaps & delivered)
        self.safe = safe | (self.safe & delivered)
        self.last = None
        self.in_order = False
        self.answers.clear()
        self._open()

    @rule(before=st.integers(1, 3), after=st.integers(1, 3), limit=st.sampled_from([1, 2, 1000]), lost=st.booleans())
    def a_second_life(self, before: int, after: int, limit: int, lost: bool) -> None:
        """What forks an epoch, in the one order that chance seldom finds."""
        self.append(RecordClass.RESULT, 1, 0)
        self.make_an_image()
        self.append(RecordClass.RESULT, before, 0)
        self.forward(1000, lost)
        self.restore_the_image()
        self.append(RecordClass.RESULT, after, 0)
        self.forward(limit, lost)

    @invariant()
    def the_fleet_has_nothing_twice(self) -> None:
        numbers = self.fleet.numbers
        assert len(numbers) == len(set(numbers))

    @invariant()
    def the_fleet_has_nothing_that_nobody_sent(self) -> None:
        assert set(self.fleet.numbers) <= self.safe | self.perhaps

    @invariant()
    def each_stream_arrives_in_order(self) -> None:
        if self.in_order:
            for record_class in RecordClass:
                stream = [each for each in self.fleet.records if each.record_class is record_class]
                assert all(_earlier(one, other) for one, other in pairwise(stream))

    def teardown(self) -> None:
        """Deliver all that is there: everything safe has arrived, in whatever life of the device."""
        try:
            if hasattr(self, "store"):
                self._requeue()
                while batch := self.run(self.store.head()):
                    self.run(self.store.apply(self.run(self.fleet.deliver(batch)).verdicts))
                assert self.safe <= set(self.fleet.numbers)
                self.the_fleet_has_nothing_twice()
                self.the_fleet_has_nothing_that_nobody_sent()
                self.each_stream_arrives_in_order()
                self._close()
        finally:
            self.runner.close()
            shutil.rmtree(self.root)


def _earlier(one: Record, other: Record) -> bool:
    return number_of(one) < number_of(other) and (one.epoch != other.epoch or one.sequence < other.sequence)


TestOutboxMachine = OutboxMachine.TestCase
TestOutboxMachine.settings = settings(max_examples=max(100, settings.default.max_examples if settings.default else 0))
