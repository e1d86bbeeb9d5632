"""Traffic and scheduler: what is counted of inferences, and the threads on which they run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.serving.callers import Callers
from edgeward_agent.serving.cores import usable_cores
from edgeward_agent.serving.line import NEVER_NS, Company, Job
from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.pace import ALONE_BELOW_NS, Pace
from edgeward_agent.serving.scheduler import Scheduler, Turned
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


class _Job:
    """`short` says what its version has learned; `gate` holds its run back."""

    def __init__(
        self, *, short: bool = False, gate: threading.Event | None = None, deadline_ns: int = NEVER_NS, rows: int = 0
    ) -> None:
        self.size_bytes = 100
        self.pace = Pace()
        if short:
            self.pace.learn(self.size_bytes, 10_000, 0)
        self.deadline_ns = deadline_ns
        self.strict = deadline_ns != NEVER_NS
        self.urgent = False
        self.company = Company(key="k", rows=rows, max_rows=4) if rows else None
        self.abandoned = False
        self.ran_on = ""
        self.ran_with = 0
        self.finished_on = ""
        self.outcome = Outcome.ANSWERED
        self._gate = gate

    def run(self) -> None:
        if self._gate is not None:
            assert self._gate.wait(10)
        self.ran_on = threading.current_thread().name

    def run_with(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            assert isinstance(job, _Job)
            job.ran_with = len(jobs)
            job.run()

    def finish(self) -> None:
        assert not self.finished_on
        self.finished_on = threading.current_thread().name

    def drop(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.finish()


@asynccontextmanager
async def _scheduler(*, threads: int = 1, capacity: int = 256) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(asyncio.get_running_loop(), threads=threads, capacity=capacity)
    scheduler.start()
    yield scheduler
    await scheduler.close()


async def _occupy(scheduler: Scheduler, gate: threading.Event) -> _Job:
    """Give the only thread something to do until the gate opens."""
    running = _Job(gate=gate)
    scheduler.submit(running)
    await until(lambda: not scheduler.waiting)
    return running


def test_a_short_job_runs_at_once_and_a_long_one_elsewhere() -> None:
    async def main() -> None:
        async with _scheduler() as scheduler:
            here = threading.current_thread().name
            short, long = _Job(short=True), _Job()
            scheduler.submit(short)
            assert (short.ran_on, short.finished_on) == (here, here)
            scheduler.submit(long)
            await until(lambda: long.finished_on)
            assert (long.ran_on, long.finished_on) == ("inference-0", here)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("run_ns", "callers", "inline"),
    [
        (ALONE_BELOW_NS // 2, 1, True),
        (ALONE_BELOW_NS // 2, 2, False),
        (ALONE_BELOW_NS // 2, 0, False),  # nobody says who is there
        (2 * ALONE_BELOW_NS, 1, False),
        (0, 1, False),  # not known yet
    ],
)
def test_who_is_alone_is_answered_on_the_loop(run_ns: int, callers: int, inline: bool) -> None:
    async def main() -> None:
        async with _scheduler() as scheduler:
            scheduler.callers = Callers(callers)
            job = _Job()
            if run_ns:
                job.pace.learn(job.size_bytes, run_ns, time.perf_counter_ns())
            scheduler.submit(job)
            await until(lambda: job.finished_on)
            assert (job.ran_on == threading.current_thread().name) is inline

    asyncio.run(main())


def test_where_nobody_counts_who_is_connected_there_may_be_others() -> None:
    async def main() -> None:
        async with _scheduler() as scheduler:
            scheduler.callers.came()
            assert not scheduler.callers.alone

    asyncio.run(main())


def test_a_bug_at_the_end_of_one_keeps_nobody_else_from_his() -> None:
    class Broken(_Job):
        def finish(self) -> None:
            raise ZeroDivisionError("a bug")

    async def main() -> None:
        gate = threading.Event()
        async with _scheduler() as scheduler:
            await _occupy(scheduler, gate)
            together = [Broken(rows=1), _Job(rows=1)]
            for each in together:
                scheduler.submit(each)
            gate.set()
            await until(lambda: together[1].finished_on)
            assert together[1].ran_with == 2

    asyncio.run(main())


def test_results_do_not_pile_up_while_the_loop_has_no_time() -> None:
    async def main() -> None:
        async with _scheduler(threads=1) as scheduler:
            jobs = [_Job() for _ in range(8)]
            for each in jobs:
                scheduler.submit(each)
            time.sleep(0.2)  # noqa: ASYNC251  # the loop is busy, the thread is not
            assert sum(bool(each.ran_on) for each in jobs) == 2
            await until(lambda: all(each.finished_on for each in jobs))

    asyncio.run(main())


def test_nobody_overtakes_the_line_and_a_full_one_refuses() -> None:
    async def main() -> None:
        gate = threading.Event()
        async with _scheduler(capacity=2) as scheduler:
            running = await _occupy(scheduler, gate)
            waiting = [_Job(gate=gate), _Job(short=True)]
            beside = _Job(short=True)
            scheduler.submit(beside)
            assert beside.finished_on  # nobody waits, so it may run beside the long one
            for each in waiting:
                scheduler.submit(each)
            assert not waiting[1].ran_on
            with pytest.raises(Turned, match="expected at most 2 waiting requests, the queue is full") as caught:
                scheduler.submit(_Job())
            assert (caught.value.status, caught.value.outcome) == (503, Outcome.FULL)
            assert caught.value.fields == b"Retry-After: 1\r\n"
            gate.set()
        await until(lambda: all(each.finished_on for each in (running, *waiting)))

    asyncio.run(main())


def test_a_job_that_nobody_waits_for_does_not_run() -> None:
    async def main() -> None:
        async with _scheduler() as scheduler:
            job = _Job()
            job.abandoned = True
            scheduler.submit(job)
            await until(lambda: job.finished_on)
            assert (job.ran_on, job.outcome) == ("", Outcome.ABANDONED)

    asyncio.run(main())


def test_a_deadline_that_cannot_be_made_is_refused_at_once() -> None:
    async def main() -> None:
        async with _scheduler() as scheduler:
            job = _Job(deadline_ns=time.perf_counter_ns() + 1_000_000)
            for _ in range(3):
                job.pace.learn(job.size_bytes, 2_000_000, time.perf_counter_ns())
            words = r"expected to answer before the deadline, in \d+ µs, got 0 waiting and a p99 of 2000 µs"
            with pytest.raises(Turned, match=words) as caught:
                scheduler.submit(job)
            assert (caught.value.status, caught.value.outcome) == (503, Outcome.REFUSED)
            assert not job.ran_on

    asyncio.run(main())


def test_a_deadline_that_passes_in_the_line_is_told_while_the_thread_is_busy() -> None:
    async def main() -> None:
        gate = threading.Event()
        async with _scheduler() as scheduler:
            running = await _occupy(scheduler, gate)
            late, patient = _Job(deadline_ns=time.perf_counter_ns() + 20_000_000), _Job(gate=gate)
            scheduler.submit(late)
            scheduler.submit(patient)
            await until(lambda: late.finished_on)
            assert (late.ran_on, late.outcome, running.finished_on) == ("", Outcome.EXPIRED, "")
            gate.set()
            await until(lambda: patient.finished_on)

    asyncio.run(main())


def test_company_runs_as_one_and_the_end_leaves_nobody_behind() -> None:
    async def main() -> None:
        gate = threading.Event()
        async with _scheduler() as scheduler:
            await _occupy(scheduler, gate)
            jobs = [_Job(rows=1) for _ in range(6)]
            for each in jobs:
                scheduler.submit(each)
            gate.set()
        await until(lambda: all(each.finished_on for each in jobs))
        assert [each.ran_with for each in jobs] == [4, 4, 4, 4, 2, 2]

    asyncio.run(main())


@pytest.mark.parametrize("threads", [1, 2])
def test_several_that_waited_for_company_in_vain_all_run(threads: int) -> None:
    async def main() -> None:
        async with _scheduler(threads=threads) as scheduler:
            jobs = [_Job(rows=1) for _ in range(6)]
            for number, each in enumerate(jobs):
                each.pace.learn(each.size_bytes, 2_000_000, time.perf_counter_ns())
                each.company = Company(key=str(number), rows=1, max_rows=4, max_delay_ns=5_000_000)
                scheduler.submit(each)
            await until(lambda: all(each.finished_on for each in jobs))  # before anybody else comes

    asyncio.run(main())


@pytest.mark.parametrize(("capacity", "timeout_ns"), [(8, NEVER_NS), (64, 30_000_000)], ids=["full", "too late"])
def test_those_for_whom_nobody_waits_any_more_take_nobodys_place(capacity: int, timeout_ns: int) -> None:
    async def main() -> None:
        gate = threading.Event()
        async with _scheduler(capacity=capacity) as scheduler:
            await _occupy(scheduler, gate)
            dead = [_Job() for _ in range(7)]
            for each in dead:
                each.pace.learn(each.size_bytes, 10_000_000, time.perf_counter_ns())
                scheduler.submit(each)

            def another() -> _Job:
                deadline_ns = NEVER_NS if timeout_ns == NEVER_NS else time.perf_counter_ns() + timeout_ns
                return _Job(deadline_ns=deadline_ns)

            with pytest.raises(Turned):
                scheduler.submit(another())
            for each in dead:
                each.abandoned = True
            await asyncio.sleep(0.02)
            job = another()
            scheduler.submit(job)
            await until(lambda: all(each.finished_on for each in dead))
            assert {each.outcome for each in dead} == {Outcome.ABANDONED} and not job.finished_on
            gate.set()
            await until(lambda: job.finished_on)

    asyncio.run(main())


def test_there_are_as_many_threads_as_cores() -> None:
    loop = asyncio.new_event_loop()
    assert len(Scheduler(loop)._threads) == usable_cores() >= 1
    loop.close()
