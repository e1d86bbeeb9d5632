"""Where an inference runs: on the loop when that is quicker than a hand-over, else in one queue to few threads.

A hand-over to a thread and back costs more than a small model takes. A long model on the loop would hold up
everybody else: one FIFO for all into as many threads as cores gave 1.9 times the throughput and fair tails.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from http import HTTPStatus
from typing import Final, Protocol

from edgeward_agent.serving.protocol import Refusal

_INLINE_BELOW_NS: Final = 1_000_000
_WEIGHT: Final = 8  # of the past against the newest measurement
_SIZES: Final = 64


class Pace:
    """How long a version takes, learned from its runs, by power of two of the bytes that go in.

    Unknown sizes are not inline: a batch of thousands to a quick model must not stop the loop.
    """

    __slots__ = ("_learned_ns",)

    def __init__(self) -> None:
        self._learned_ns = [0] * _SIZES

    def learn(self, size_bytes: int, run_ns: int) -> None:
        index = size_bytes.bit_length()
        past = self._learned_ns[index]
        # One run that lost the processor must not send the next ones to a thread: none counts for more than four.
        learned_ns = (past * (_WEIGHT - 1) + min(run_ns, 4 * past)) // _WEIGHT
        self._learned_ns[index] = learned_ns or run_ns

    def is_short(self, size_bytes: int) -> bool:
        return 0 < self._learned_ns[size_bytes.bit_length()] < _INLINE_BELOW_NS


class Job(Protocol):
    """One inference. `run` is called on any thread, `finish` on the loop's, once, after it."""

    @property
    def abandoned(self) -> bool:
        """Nobody waits for it any more: it need not run."""

    @property
    def short(self) -> bool: ...

    def run(self) -> None:
        """Must not raise: keeps result or error for `finish`."""

    def finish(self) -> None: ...


class Scheduler:
    """Runs jobs. Every method belongs to the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, threads: int | None = None, capacity: int = 256) -> None:
        self._loop = loop
        self._capacity = capacity
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"inference-{index}", daemon=True)
            for index in range(threads or usable_cores())
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Run now or soon.

        Raises:
            Refusal: 503, the queue is full.
        """
        if job.short and self._queue.empty():
            job.run()
            job.finish()
            return
        if self._queue.qsize() >= self._capacity:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, f"expected at most {self._capacity} waiting requests, the queue is full"
            )
        self._queue.put(job)

    async def close(self) -> None:
        """Let the threads end after what is queued."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            if not job.abandoned:
                job.run()
            self._loop.call_soon_threadsafe(job.finish)


def usable_cores() -> int:
    """Cores that this process may use; containers and `taskset` give fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
