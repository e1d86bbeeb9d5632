"""Cold starts: from the start of the process to the first right answer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from benchmarks.latency import servers
from benchmarks.latency.servers import NotStarted
from benchmarks.latency.store import Figures
from benchmarks.latency.workload import prepare

PEER_ROUNDS: Final = 3
"""A peer takes seconds; whether it is 2.1 or 2.2 decides nothing."""


def measure(model: str, names: Sequence[str], number: int) -> Figures:
    """Seconds by server. The files are in the system's memory: a disk that has to be read adds to all alike."""
    workload = prepare(model)
    figures = {}
    for name in names:
        if name in servers.OURS or number < PEER_ROUNDS:
            with suppress(NotStarted), servers.start(name, workload) as server:
                figures[name] = server.first_answer_s
    return figures
