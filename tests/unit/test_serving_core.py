"""Traffic, pace, scheduler: where an inference runs and what is counted of it."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.serving.protocol import Refusal
from edgeward_agent.serving.scheduler import Pace, Scheduler, usable_cores
from edgeward_agent.serving.traffic import TrafficMeter
from support.serving import until


def test_nothing_answered_is_all_zero() -> None:
    counted = TrafficMeter().snapshot()
    assert (counted.requests, counted.errors, counted.p50_us, counted.p99_us) == (0, 0, 0, 0)


@given(st.lists(st.integers(0, 10_000_000_000), min_size=1, max_size=60))
def test_percentiles_are_right_to_six_percent(latencies_ns: list[int]) -> None:
    meter = TrafficMeter()
    for each in latencies_ns:
        meter.answered(each)
    exact = sorted(each // 1000 for each in latencies_ns)
    counted = meter.snapshot()
    for share, found in ((0.5, counted.p50_us), (0.99, counted.p99_us)):
        want = exact[max(-(-int(share * 100) * len(exact) // 100) - 1, 0)]
        assert want <= found <= want * 1.0625 + 1


def test_errors_count_as_requests_and_an_eternity_fits() -> None:
    meter = TrafficMeter()
    meter.failed()
    meter.answered(1 << 70)
    counted = meter.snapshot()
    assert (counted.requests, counted.errors) == (2, 1)


def test_a_size_that_was_never_seen_is_not_short() -> None:
    pace = Pace()
    assert not pace.is_short(100)
    pace.learn(100, 10_000)
    assert pace.is_short(120)
    assert not pace.is_short(100_000)


def test_a_model_that_becomes_slow_leaves_the_loop_and_comes_back() -> None:
    pace = Pace()
    pace.learn(100, 10_000)
    for _ in range(20):
        pace.learn(100, 5_000_000)
    assert not pace.is_short(100)
    for _ in range(60):
        pace.learn(100, 10_000)
    assert pace.is_short(100)


class _Job:
    def __init__(self, *, short: bool = False, gate: threading.Event | None = None) -> None:
        self.short = short
        self.abandoned = False
        self.ran_on = ""
        self.finished_on = ""
        self._gate = gate

    def run(self) -> None:
        if self._gate is not None:
            assert self._gate.wait(10)
        self.ran_on = threading.current_thread().name

    def finish(self) -> None:
        self.finished_on = threading.current_thread().name


def test_a_short_job_runs_at_once_and_a_long_one_elsewhere() -> None:
    async def main() -> None:
        scheduler = Scheduler(asyncio.get_running_loop(), threads=1)
        scheduler.start()
        here = threading.current_thread().name
        short, long = _Job(short=True), _Job()
        scheduler.submit(short)
        assert (short.ran_on, short.finished_on) == (here, here)
        scheduler.submit(long)
        await until(lambda: long.finished_on)
        assert (long.ran_on, long.finished_on) == ("inference-0", here)
        await scheduler.close()

    asyncio.run(main())


def test_nobody_overtakes_the_queue_and_a_full_one_refuses() -> None:
    async def main() -> None:
        scheduler = Scheduler(asyncio.get_running_loop(), threads=1, capacity=2)
        scheduler.start()
        gate = threading.Event()
        running = _Job(gate=gate)
        scheduler.submit(running)
        await until(scheduler._queue.empty)
        waiting = [_Job(short=True, gate=gate), _Job(short=False)]
        beside = _Job(short=True)
        scheduler.submit(beside)
        assert beside.finished_on  # nobody waits, so it may run beside the long one
        scheduler.submit(waiting[1])
        scheduler.submit(waiting[0])
        assert not waiting[0].ran_on
        with pytest.raises(Refusal, match="expected at most 2 waiting requests, the queue is full") as caught:
            scheduler.submit(_Job())
        assert caught.value.status == 503
        gate.set()
        await scheduler.close()
        await until(lambda: all(each.finished_on for each in (running, *waiting)))

    asyncio.run(main())


def test_a_job_that_nobody_waits_for_does_not_run() -> None:
    async def main() -> None:
        scheduler = Scheduler(asyncio.get_running_loop(), threads=1)
        scheduler.start()
        job = _Job()
        job.abandoned = True
        scheduler.submit(job)
        await until(lambda: job.finished_on)
        assert not job.ran_on
        await scheduler.close()

    asyncio.run(main())


def test_there_are_as_many_threads_as_cores() -> None:
    scheduler = Scheduler(asyncio.new_event_loop())
    assert len(scheduler._threads) == usable_cores() >= 1
    scheduler._loop.close()
