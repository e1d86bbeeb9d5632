"""Where an inference runs: on the loop when that is quicker than a hand-over, else in one line to few threads.

A hand-over to a thread and back costs more than a small model takes. A long model on the loop would hold up
everybody else: one line for all into as many threads as cores gave 1.9 times the throughput and fair tails. Where only
one connection is open there is nobody else, and one of at most 20 ms runs on the loop too (ADR 8).

What is decided is decided in `line`; here are the threads around it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final

from edgeward_agent.serving.callers import MANY, Callers
from edgeward_agent.serving.cores import usable_cores
from edgeward_agent.serving.line import NEVER_NS, Dropped, Job, Line, Turn
from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.pace import ALONE_BELOW_NS, INLINE_BELOW_NS, Learned
from edgeward_agent.serving.refusal import Refusal, retry_after

_log: Final = logging.getLogger(__name__)

_CAPACITY: Final = 256
_RESULTS: Final = 2
"""For each thread: while the loop makes an answer of one the next is computed. Results of 64 MiB are made faster than
answers of them, and would pile up."""
_LOOK_NS: Final = 10_000_000
"""Between two looks through the line for those who have left: each takes about as long as a short run."""
_POLL_S: Final = 0.01
_WAITED_FOR: Final = 0.75  # of the time that there is for the end; the rest is for the answers
_TICK_S: Final = 0.001  # timers of uvloop are whole milliseconds, and one that comes early finds nobody


class Turned(Refusal):
    """503: a request that was not run, and why."""

    hint = "Ask again a little later, with less at once, or with a longer timeout."

    def __init__(self, outcome: Outcome, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(HTTPStatus.SERVICE_UNAVAILABLE, message)
        self.outcome = outcome
        if retry_after_s is not None:
            self.fields = retry_after(retry_after_s)


class Scheduler:
    """Runs jobs. Every method belongs to the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        threads: int | None = None,
        capacity: int = _CAPACITY,
        callers: Callers | None = None,
    ) -> None:
        """Args:
        callers: who may ask; without it there may always be somebody else.
        """
        count = threads or usable_cores()
        self._loop = loop
        self.callers = callers or Callers(others=MANY)
        self._line = Line(threads=count, capacity=capacity)
        self._lock = threading.Condition()  # around every call of the line; told of when there may be something to do
        self._ending = False
        self._looked_ns = 0
        self._results = threading.Semaphore(_RESULTS * count)  # that may wait for the loop
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ns = NEVER_NS
        self._threads = [
            threading.Thread(target=self._work, args=(index,), name=f"inference-{index}", daemon=True)
            for index in range(count)
        ]

    @property
    def waiting(self) -> int:
        return self._line.waiting

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def runs_now(self, learned: Learned) -> bool:
        """Whether such a run would hold up nobody. One of which nothing is known yet might."""
        usual_ns = learned.usual_ns
        # What the data decides, as in a loop of the graph, shows in the p99: its own request tells nothing of it.
        steady = usual_ns < INLINE_BELOW_NS and learned.tail.value < ALONE_BELOW_NS
        quick = steady or (usual_ns < ALONE_BELOW_NS and self.callers.alone)
        return quick and usual_ns > 0 and not self._line.waiting

    def submit(self, job: Job) -> None:
        """Run now or soon.

        Raises:
            Turned: 503, the line is full, or the job could not make its deadline.
        """
        if self.runs_now(job.pace.of(job.size_bytes)) and (not job.strict or _in_time(job)):
            job.run()
            job.finish()
            return
        refused = self._offered(job)
        if refused is not None:
            raise self._turned(refused, job)
        if job.deadline_ns < self._alarm_ns:
            self._set_alarm(job.deadline_ns)

    async def drain(self, timeout_s: float) -> None:
        """Let those who wait run. Who has not begun when most of the time is over gets an answer, not silence."""
        ends_s = self._loop.time() + _WAITED_FOR * timeout_s
        while self._line.waiting and self._loop.time() < ends_s:  # noqa: ASYNC110  # once, at the end
            await asyncio.sleep(_POLL_S)
        with self._lock:
            dropped = self._line.give_up()
        _drop(dropped)

    async def close(self) -> None:
        """Let the threads end after what is queued."""
        with self._lock:
            self._line.ripen()
            self._ending = True
            self._lock.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        if self._alarm is not None:
            self._alarm.cancel()

    def _offered(self, job: Job) -> Outcome | None:
        """Let a job wait; or say why not, which must not be for the sake of others for whom nobody waits any more."""
        now_ns, dead = time.perf_counter_ns(), []
        with self._lock:
            refused = self._line.offer(job, now_ns)
            if refused is not None and now_ns - self._looked_ns > _LOOK_NS:
                self._looked_ns = now_ns
                dead = self._line.expire(now_ns)
            if dead:
                refused = self._line.offer(job, now_ns)
            if refused is None:
                self._lock.notify()
        if dead:
            self._loop.call_soon(_drop, dead)
        return refused

    # -- on the threads

    def _work(self, thread: int) -> None:
        while True:
            self._results.acquire()  # before a job leaves the line, where its deadline is seen
            turn = self._next(thread)
            if turn is None:
                return
            if not turn.jobs:
                self._results.release()
            self._run(turn, thread)
            del turn  # the next may be long in coming, and tensors are large

    def _next(self, thread: int) -> Turn | None:
        """Wait until there is something to do; None when there will be nothing any more."""
        with self._lock:
            while True:
                turn = self._line.take(thread, time.perf_counter_ns())
                if turn.jobs or turn.dropped:
                    return turn
                if self._ending and not self._line.waiting:
                    return None
                self._lock.wait(_until_s(turn.look_again_ns))

    def _run(self, turn: Turn, thread: int) -> None:
        jobs = turn.jobs
        if turn.dropped:
            self._loop.call_soon_threadsafe(_drop, turn.dropped)
        if len(jobs) == 1:
            jobs[0].run()
        elif jobs:
            jobs[0].run_with(jobs)
        self._line.done(thread)
        if jobs:
            self._loop.call_soon_threadsafe(self._ran, jobs)

    # -- on the loop

    def _ran(self, jobs: Sequence[Job]) -> None:
        self._results.release()
        for job in jobs:
            _told(job.finish)

    def _turned(self, outcome: Outcome, job: Job) -> Turned:
        if outcome is Outcome.FULL:
            message = f"expected at most {self._line.capacity} waiting requests, the queue is full"
            return Turned(outcome, message, retry_after_s=math.ceil(self._line.expected_ns / 1e9))
        left_us = max(0, job.deadline_ns - time.perf_counter_ns()) // 1000
        p99_us = job.pace.of(job.size_bytes).p99_ns // 1000
        found = f"{self._line.waiting} waiting and a p99 of {p99_us} µs"
        return Turned(outcome, f"expected to answer before the deadline, in {left_us} µs, got {found}")

    def _set_alarm(self, at_ns: int) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_ns = at_ns
        delay_s = max(0, at_ns - time.perf_counter_ns()) / 1e9 + _TICK_S
        self._alarm = self._loop.call_later(delay_s, self._sound) if at_ns < NEVER_NS else None

    def _sound(self) -> None:
        """Tell those whose time is up, though every thread is busy: an answer, not silence."""
        with self._lock:
            dropped = self._line.expire(time.perf_counter_ns())
            next_ns = self._line.next_deadline_ns
        self._set_alarm(next_ns)
        _drop(dropped)


def _until_s(at_ns: int | None) -> float | None:
    return None if at_ns is None else max(0.0, (at_ns - time.perf_counter_ns()) / 1e9)


def _in_time(job: Job) -> bool:
    """Whether the caller's own deadline can be made with nothing ahead."""
    return time.perf_counter_ns() + job.pace.of(job.size_bytes).p99_ns <= job.deadline_ns


def _drop(dropped: Sequence[Dropped]) -> None:
    for job, outcome in dropped:
        _told(partial(job.drop, outcome))


def _told(tell: Callable[[], None]) -> None:
    """A bug in one job must not keep the others from their end: nobody would tell them later."""
    try:
        tell()
    except Exception:
        _log.exception("the end of a request could not be told")
