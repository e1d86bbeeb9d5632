"""Asks over sockets, closed or open loop, from one thread that does nothing else.

One thread: with several, whoever waits for the interpreter's lock would be counted as the server's latency. An open
loop sends at the intended start, on any free connection; where none is free the request waits here, and the wait
counts, because the clock runs from the intended start.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter_ns
from typing import Final

import numpy as np

from edgeward_agent.bench.block import Block, Cut
from edgeward_agent.bench.connection import Connection
from edgeward_agent.bench.errors import NobodyThere
from edgeward_agent.bench.schedule import Load
from edgeward_agent.bench.silence import Silence

SPIN_NS: Final = 200_000  # the system wakes a sleeper up to this late


class _Run:
    """The state of one block. Times are nanoseconds of the monotonic clock."""

    def __init__(
        self,
        connections: Sequence[Connection],
        requests: Sequence[bytes],
        load: Load,
        timeout_s: float,
        silence: Silence,
    ) -> None:
        self._silence = silence
        self._requests = requests
        self._load = load
        self._timeout_ns = int(timeout_s * 1e9)
        self._free = deque(connections)
        self._busy: dict[Connection, tuple[int, int]] = {}  # intended start, sent
        self._latencies: list[float] = []
        self._sent: list[float] = []
        self._asked = self._failed = self._unreached = 0
        self._failure = self._gone = ""
        self._began = perf_counter_ns()
        starts = load.starts_s
        self._starts = None if starts is None else [self._began + int(each * 1e9) for each in starts]
        self._until = last_sending(self._began, load)

    def run(self) -> Block:
        """Raises Cut."""
        try:
            self._ask()
        except KeyboardInterrupt:
            self._count_what_is_late()
            raise Cut(self._block()) from None
        return self._block()

    def _ask(self) -> None:
        while not self._gone:
            due = self._begin_what_is_due()
            if not self._busy and due is None:
                break
            self._take(due)
        self._wait_for_the_end()
        if self._unreached and self._unreached == self._asked:
            self._gone = self._gone or f"no connection could be made, {self._failure.lower()}"
        if self._gone:
            self._count_what_is_left()

    def _block(self) -> Block:
        return Block(
            latencies_us=np.array(self._latencies, dtype=np.float64),
            sent_us=np.array(self._sent, dtype=np.float64),
            seconds=(perf_counter_ns() - self._began) / 1e9,
            failed=self._failed,
            failure=self._failure,
            gone=self._gone,
        )

    def _wait_for_the_end(self) -> None:
        """What was due is answered; the next block's requests are not due yet."""
        if self._starts is not None and not self._gone:
            time.sleep(max(0.0, self._load.seconds - (perf_counter_ns() - self._began) / 1e9))

    def _begin_what_is_due(self) -> int | None:
        """Returns when the next request is due; None when there is none."""
        while (due := self._next()) is not None and self._free and not self._gone:
            now = perf_counter_ns()
            if due > now:
                return due
            if now > self._until:
                self._give_up_on_the_unsent()
                return None
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
        if self._gone:
            return
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
        self._silence.broken()
        if refusal := connection.refusal():
            self._fail(refusal)
            return
        self._latencies.append((now - intended) / 1000)
        self._sent.append((now - sent) / 1000)

    def _lose(self, connection: Connection, error: OSError) -> None:
        connection.close()
        _, sent = self._busy.pop(connection)
        self._free.append(connection)
        self._fail(error.strerror or str(error))
        self._unreached += isinstance(error, NobodyThere)
        gone = self._silence.lose(error, sent, perf_counter_ns(), self._timeout_ns)
        self._gone = self._gone or gone

    def _give_up_on_the_late(self) -> None:
        now = perf_counter_ns()
        for connection, (_, sent) in list(self._busy.items()):
            if now - sent >= self._timeout_ns:
                self._lose(connection, TimeoutError(f"no answer within {self._timeout_ns / 1e9:g} s"))

    def _give_up_on_the_unsent(self) -> None:
        """They were due and nobody answered them: to leave them out would make an overloaded server look quick."""
        assert self._starts is not None
        unsent = len(self._starts) - self._asked
        self._asked += unsent
        self._failed += unsent
        self._failure = self._failure or unsent_words(self._load)
        self._latencies.extend([np.inf] * unsent)

    def _count_what_is_left(self) -> None:
        """What the server owes: what is under way, and what is due at a time of its own, whether it is there or not."""
        owed = len(self._busy) + (0 if self._starts is None else len(self._starts) - self._asked)
        for connection in self._busy:
            connection.close()
        for _ in range(owed):
            self._fail(self._gone)

    def _count_what_is_late(self) -> None:
        """When the run is interrupted: to leave out what hangs would make a server that hangs look quick."""
        latest = perf_counter_ns() - self._load.grace_s * 1e9
        due = [intended for intended, _ in self._busy.values()]
        due += [] if self._starts is None else self._starts[self._asked :]
        for _ in range(sum(intended <= latest for intended in due)):
            self._fail("no answer when the run was interrupted")

    def _fail(self, words: str) -> None:
        self._failed += 1
        self._failure = self._failure or words
        self._latencies.append(np.inf)
        self._sent.append(np.inf)


def last_sending(began_ns: int, load: Load) -> float:
    """The moment after which nothing is sent any more, in nanoseconds."""
    if load.starts_s is None or not len(load.starts_s) or not np.isfinite(load.grace_s):
        return np.inf
    return began_ns + (float(load.starts_s[-1]) + load.grace_s) * 1e9


def unsent_words(load: Load) -> str:
    return f"still waiting to be sent {load.grace_s:.2g} s after the last one of its round was due"


def drive(
    connections: Sequence[Connection], requests: Sequence[bytes], load: Load, timeout_s: float, silence: Silence
) -> Block:
    """Run one block. A server that goes away ends it: `gone` says so, and what it left unanswered is in it.

    Raises Cut.
    """
    with suppress(NobodyThere):  # whoever asks finds out, and counts it
        for connection in connections:
            connection.open()
    return _Run(connections, requests, load, timeout_s, silence).run()
