"""What counting an answer costs: too little to be seen in a latency, so it is called by itself many times."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Final

from benchmarks.latency.store import Figures
from edgeward_agent.serving.statistics import Statistics
from edgeward_agent.serving.traffic import TrafficMeter

_CALLS: Final = 200_000
_LATENCIES_NS: Final = (9_000, 25_000, 110_000, 1_800_000, 7_200_000)
"""From a small model over shared memory to a large one: each falls into another bucket."""


def measure() -> Figures:
    """µs that metrics add to a request: all that is counted for one, less the loop around it."""
    meter, statistics = TrafficMeter(), Statistics()

    def count(latency_ns: int) -> None:
        """As `inference.count_answered` does it for one that had to wait: the dearer of the two ways."""
        meter.answered(latency_ns)
        statistics.last_ns = latency_ns
        statistics.answered(1, 1, 2_000, latency_ns >> 3, latency_ns >> 1, 3_000)

    return {"us": (_timed_ns(count) - _timed_ns(_nothing)) / _CALLS / 1e3}


def _nothing(latency_ns: int) -> None:
    """As much of a call as every call is."""


def _timed_ns(count: Callable[[int], None]) -> int:
    latencies = itertools.islice(itertools.cycle(_LATENCIES_NS), _CALLS)
    began = time.perf_counter_ns()
    for latency_ns in latencies:
        count(latency_ns)
    return time.perf_counter_ns() - began
