"""The ways of asking: the session in this process, or a server over a socket. All take the same cases in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import perf_counter_ns
from typing import Final, Protocol

import numpy as np

from edgeward_agent.bench.block import Block, Cut
from edgeward_agent.bench.cases import Feeds
from edgeward_agent.bench.connection import Connection
from edgeward_agent.bench.driving import SPIN_NS, drive, last_sending, unsent_words
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.first import check_answers
from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.bench.schedule import Load
from edgeward_agent.bench.silence import Silence
from edgeward_agent.bench.wire import Place
from edgeward_agent.errors import ServingError
from edgeward_agent.serving.session import Session

IN_PROCESS: Final = "in process"
UNIX: Final = "unix socket"
TCP: Final = "TCP"


class Target(Protocol):
    """Something that can be asked. `check` raises CannotMeasure and ServerLost, `run` raises CannotMeasure and Cut."""

    @property
    def name(self) -> str: ...

    def check(self) -> None:
        """Ask for the first time, and read what comes, before the clock runs."""

    def run(self, load: Load) -> Block: ...

    def close(self) -> None: ...


class InProcess:
    """The model alone: our session, called by one caller. What every server adds is on top of this."""

    def __init__(self, name: str, session: Session, feeds: Sequence[Feeds]) -> None:
        self.name = name
        self._session = session
        self._outputs = list(session.interface.outputs)
        self._feeds = feeds

    def check(self) -> None:
        """The session gives all outputs, or fails."""
        self.run(Load(count=1))

    def run(self, load: Load) -> Block:
        try:
            return self._closed(load) if load.starts_s is None else self._open(load, load.starts_s)
        except ServingError as error:
            raise CannotMeasure(
                f"{self.name}: {error}", "Give inputs that the model takes: --input NAME=@FILE.npy, or another --shape."
            ) from None

    def reopen(self, session: Callable[[], Session]) -> None:
        """Ask another session of the same model from now on.

        The old one goes when the new one is there: room that was free already would be taken again, place for place.
        """
        self._session = session()

    def close(self) -> None:
        """Nothing to do: the session is the subject's."""

    def _closed(self, load: Load) -> Block:
        taken: list[float] = []
        began = perf_counter_ns()
        end = began + int(load.seconds * 1e9)
        try:
            while (not load.count or len(taken) < load.count) and (not load.seconds or perf_counter_ns() < end):
                feeds = self._feeds[(load.first + len(taken)) % len(self._feeds)]
                start = perf_counter_ns()
                self._session.run(self._outputs, feeds)
                taken.append((perf_counter_ns() - start) / 1000)
        except KeyboardInterrupt:
            raise Cut(_block(taken, taken, began)) from None
        return _block(taken, taken, began)

    def _open(self, load: Load, starts_s: Floats) -> Block:
        taken: list[float] = []
        sent: list[float] = []
        began = perf_counter_ns()
        until = last_sending(began, load)
        try:
            for at, start_s in enumerate(starts_s):
                if perf_counter_ns() > until:
                    break
                intended = began + int(start_s * 1e9)
                wait_until(intended)
                start = perf_counter_ns()
                self._session.run(self._outputs, self._feeds[(load.first + at) % len(self._feeds)])
                now = perf_counter_ns()
                taken.append((now - intended) / 1000)
                sent.append((now - start) / 1000)
            wait_until(began + int(load.seconds * 1e9))
        except KeyboardInterrupt:
            late = np.count_nonzero(starts_s <= (perf_counter_ns() - began) / 1e9 - load.grace_s)
            raise Cut(_with_unsent(_block(taken, sent, began), int(late) - len(taken), load)) from None
        return _with_unsent(_block(taken, sent, began), len(starts_s) - len(taken), load)


class OverSocket:
    """A server, asked by as many kept connections as there are clients. `model` is what its answers call the model."""

    def __init__(
        self, name: str, place: Place, requests: Sequence[bytes], *, clients: int, timeout_s: float, model: str = ""
    ) -> None:
        self.name = name
        self._place = place
        self._model = model
        self._requests = requests
        self._timeout_s = timeout_s
        self._connections = [Connection(place, timeout_s) for _ in range(clients)]
        self._silence = Silence()

    def check(self) -> None:
        check_answers(self.name, self._place, self._model, self._requests, self._timeout_s)

    def run(self, load: Load) -> Block:
        return drive(self._connections[: load.clients], self._requests, load, self._timeout_s, self._silence)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


def _with_unsent(block: Block, unsent: int, load: Load) -> Block:
    if unsent <= 0:
        return block
    late = np.append(block.latencies_us, [np.inf] * unsent)
    return replace(block, latencies_us=late, failed=unsent, failure=unsent_words(load))


def wait_until(moment_ns: int) -> None:
    """Sleep, and spin for the last stretch: the system wakes a sleeper late."""
    while (left := moment_ns - perf_counter_ns()) > 0:
        if left > SPIN_NS:
            time.sleep((left - SPIN_NS) / 1e9)


def _block(taken: Sequence[float], sent: Sequence[float], began: int) -> Block:
    return Block(
        latencies_us=np.array(taken, dtype=np.float64),
        sent_us=np.array(sent, dtype=np.float64),
        seconds=(perf_counter_ns() - began) / 1e9,
    )
