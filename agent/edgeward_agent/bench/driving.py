"""Asks over sockets, closed or open loop, from one thread that does nothing else.

One thread: with several, whoever waits for the interpreter's lock would be counted as the server's latency. An open
loop sends at the intended start, on any free connection; where none is free the request waits here, and the wait
counts, because the clock runs from the intended start.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import Final

import numpy as np

from edgeward_agent.bench.connection import Connection
from edgeward_agent.bench.errors import ServerLost
from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.bench.schedule import Load

SPIN_NS: Final = 200_000  # the system wakes a sleeper up to this late
_LOST_IN_A_ROW: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block of one path.

    Attributes:
        latencies_us: from the intended start to the last byte of the answer; infinite where none came.
        sent_us: the same from when it was really sent: what a loop without a schedule would have reported.
        failed: how many had no answer; `failure` is what the first of them was told.
        seconds: from the first intended start to the last answer.
    """

    latencies_us: Floats
    sent_us: Floats
    seconds: float
    failed: int = 0
    failure: str = ""


class _Run:
    """The state of one block. Times are nanoseconds of the monotonic clock."""

    def __init__(self, connections: Sequence[Connection], requests: Sequence[bytes], load: Load, timeout_s: float):
        self._requests = requests
        self._load = load
        self._timeout_ns = int(timeout_s * 1e9)
        self._free = deque(connections)
        self._busy: dict[Connection, tuple[int, int]] = {}  # intended start, sent
        self._latencies: list[float] = []
        self._sent: list[float] = []
        self._asked = self._failed = self._lost_in_a_row = 0
        self._failure = ""
        self._began = perf_counter_ns()
        starts = load.starts_s
        self._starts = None if starts is None else [self._began + int(each * 1e9) for each in starts]

    def run(self) -> Block:
        while True:
            due = self._begin_what_is_due()
            if not self._busy and due is None:
                break
            self._take(due)
        return Block(
            latencies_us=np.array(self._latencies, dtype=np.float64),
            sent_us=np.array(self._sent, dtype=np.float64),
            seconds=(perf_counter_ns() - self._began) / 1e9,
            failed=self._failed,
            failure=self._failure,
        )

    def _begin_what_is_due(self) -> int | None:
        """Returns when the next request is due; None when there is none."""
        while (due := self._next()) is not None and self._free:
            now = perf_counter_ns()
            if due > now:
                return due
            self._begin(self._free.popleft(), now if self._starts is None else due, now)
        return due

    def _next(self) -> int | None:
        """The next intended start; 0 is as soon as possible."""
        if self._starts is not None:
            return self._starts[self._asked] if self._asked < len(self._starts) else None
        if self._load.count and self._asked >= self._load.count:
            return None
        if self._load.seconds and perf_counter_ns() - self._began >= self._load.seconds * 1e9:
            return None
        return 0

    def _begin(self, connection: Connection, intended: int, now: int) -> None:
        request = self._requests[(self._load.first + self._asked) % len(self._requests)]
        self._asked += 1
        self._busy[connection] = intended, now
        try:
            connection.begin(request)
        except OSError as error:
            self._lose(connection, error)

    def _take(self, due: int | None) -> None:
        """Wait for an answer or for the next start, and take what comes."""
        sending = [each for each in self._busy if each.sending]
        readable, writable, _ = select.select(list(self._busy), sending, [], self._patience_s(due))
        for connection in readable:
            try:
                if connection.receive():
                    self._answered(connection, perf_counter_ns())
            except OSError as error:
                self._lose(connection, error)
        for connection in writable:
            try:
                if connection in self._busy:
                    connection.send()
            except OSError as error:
                self._lose(connection, error)
        if not readable and not writable:
            self._give_up_on_the_late()

    def _patience_s(self, due: int | None) -> float:
        now = perf_counter_ns()
        until = min((sent + self._timeout_ns for _, sent in self._busy.values()), default=now + self._timeout_ns)
        if due and self._free:
            until = min(until, due - SPIN_NS)
        return max(0, until - now) / 1e9

    def _answered(self, connection: Connection, now: int) -> None:
        intended, sent = self._busy.pop(connection)
        self._free.append(connection)
        self._lost_in_a_row = 0
        if refusal := connection.refusal():
            self._fail(refusal)
            return
        self._latencies.append((now - intended) / 1000)
        self._sent.append((now - sent) / 1000)

    def _lose(self, connection: Connection, error: OSError) -> None:
        connection.close()
        del self._busy[connection]
        self._free.append(connection)
        words = error.strerror or str(error)
        self._fail(words)
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= _LOST_IN_A_ROW:
            raise ServerLost(
                f"the server went away: {self._lost_in_a_row} requests in a row were not answered ({words.lower()})",
                "See the server's own log; then start again.",
            )

    def _give_up_on_the_late(self) -> None:
        now = perf_counter_ns()
        for connection, (_, sent) in list(self._busy.items()):
            if now - sent >= self._timeout_ns:
                self._lose(connection, TimeoutError(f"no answer within {self._timeout_ns / 1e9:g} s"))

    def _fail(self, words: str) -> None:
        self._failed += 1
        self._failure = self._failure or words
        self._latencies.append(np.inf)
        self._sent.append(np.inf)


def drive(connections: Sequence[Connection], requests: Sequence[bytes], load: Load, timeout_s: float) -> Block:
    """Run one block. Raises ServerLost when the server is gone."""
    for connection in connections:
        try:
            connection.open()
        except OSError as error:
            raise ServerLost(
                f"expected a server that answers, got: {error.strerror or error}", "Start it again."
            ) from None
    return _Run(connections, requests, load, timeout_s).run()
