"""What must be reached, and how each goal is read off the rounds. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import sub, truediv
from typing import Final

from benchmarks.latency import peers
from benchmarks.latency.plan import SMALL, Case, Placement
from benchmarks.latency.statistics import Estimate, estimate, paired, ratios
from benchmarks.latency.store import Figures, Line, Turns

ECG: Final = "ecg-rhythm"
IMAGING: Final = "imaging-latency"


class Verdict(StrEnum):
    """`CLOSE`: the median is on one side of the goal and the interval on both."""

    REACHED = "reached"
    CLOSE = "within the noise"
    MISSED = "missed"
    UNKNOWN = "not measured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A limit, and what was found."""

    name: str
    limit: float
    unit: str
    at_least: bool = False
    found: Estimate | None = None

    @property
    def verdict(self) -> Verdict:
        if self.found is None:
            return Verdict.UNKNOWN
        low, high = self._signed(self.found.low), self._signed(self.found.high)
        limit = self._signed(self.limit)
        if max(low, high) <= limit:
            return Verdict.REACHED
        return Verdict.CLOSE if min(low, high) <= limit else Verdict.MISSED

    def _signed(self, value: float) -> float:
        return -value if self.at_least else value


class Rounds:
    """Figures by case and round."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._figures: dict[str, dict[int, Figures]] = {}
        self._turns: dict[str, dict[int, Turns]] = {}
        for line in lines:
            if line.figures:
                self._figures.setdefault(line.key, {})[line.round] = line.figures
                self._turns.setdefault(line.key, {})[line.round] = line.turns

    def of(self, key: str, figure: str) -> Mapping[int, float]:
        """One figure by round; empty when it was not measured."""
        return {number: each[figure] for number, each in self._figures.get(key, {}).items() if figure in each}

    def turns(self, key: str, figure: str) -> Mapping[int, Sequence[float]]:
        """One figure by round, for each turn in the order of the passes."""
        return {number: each[figure] for number, each in self._turns.get(key, {}).items() if figure in each}


def goals(rounds: Rounds) -> list[Goal]:
    """All goals, in the order of the table."""
    return [
        *_over_the_floor(rounds),
        *_over_the_model(rounds),
        *_throughput(rounds),
        *_whole_process(rounds),
        *_kept_apart(rounds),
    ]


_FLOOR_LIMITS: Final = (
    ("tcp", "TCP", Placement.ONE_CORE, "ours", 4.2, 8.0),
    ("tcp", "TCP", Placement.ONE_CORE, "bare", 3.4, 6.0),
    ("frames", "shared memory", Placement.ONE_CORE, "ours", 3.0, 4.0),
    ("frames", "shared memory", Placement.ONE_CORE, "bare", 2.0, 2.2),
    ("tcp", "TCP", Placement.TWO_CORES, "ours", 1.5, 1.7),
)


def _over_the_floor(rounds: Rounds) -> Iterator[Goal]:
    for way, words, placement, server, median, tail in _FLOOR_LIMITS:
        for figure, limit in (("p50_us", median), ("p99_us", tail)):
            ours, floor = (_alone(SMALL, name, way, placement) for name in (server, "echo"))
            yield _goal(
                f"{SMALL}, {words}, {placement}{', bare' if server == 'bare' else ''}: {figure[:3]} over a C echo",
                limit,
                "×",
                paired(rounds.turns(ours, figure), rounds.turns(floor, figure), truediv),
            )


_MODEL_LIMITS_US: Final = (
    (ECG, "tcp", "TCP", 200.0),
    (IMAGING, "tcp", "TCP", 360.0),
    (ECG, "frames", "shared memory", 80.0),
    (IMAGING, "frames", "shared memory", 110.0),
)


def _over_the_model(rounds: Rounds) -> Iterator[Goal]:
    for model, way, words, limit in _MODEL_LIMITS_US:
        for placement in (Placement.ONE_CORE, Placement.FREE):
            ours, alone = (_alone(model, *each, placement) for each in (("ours", way), ("raw", "run")))
            found = paired(rounds.turns(ours, "p50_us"), rounds.turns(alone, "p50_us"), sub)
            yield _goal(f"{model}, {words}, {placement}: p50 over the model alone", limit, "µs", found)


def _throughput(rounds: Rounds) -> Iterator[Goal]:
    ours = rounds.of(_free(SMALL, "ours", 4), "per_s")
    for peer in peers.NAMES:
        found = ratios(ours, rounds.of(_free(SMALL, peer, 4), "per_s"))
        limit = 5.0 if peer == "fastapi" else 15.0
        yield _goal(f"{SMALL}, 4 connections: answers a second over {peer}", limit, "×", found, at_least=True)
    ours = rounds.of(_free(ECG, "ours", 16), "per_s")
    best = _best([rounds.of(_free(ECG, peer, 16), "per_s") for peer in peers.NAMES])
    yield _goal(
        f"{ECG}, 16 connections: answers a second over the best peer", 1.8, "×", ratios(ours, best), at_least=True
    )
    tail, median = (rounds.of(_free(ECG, "ours", 16), figure) for figure in ("p99_us", "p50_us"))
    yield _goal(f"{ECG}, 16 connections: p99 over p50", 1.3, "×", ratios(tail, median))


def _whole_process(rounds: Rounds) -> Iterator[Goal]:
    yield _goal(
        f"serving process with {SMALL}: memory (RSS)",
        75.0,
        "MiB",
        list(rounds.of(_free(SMALL, "ours", 4), "rss_mib").values()),
    )
    yield _goal(f"{SMALL}: first answer after the start", 0.3, "s", list(rounds.of(START_KEY, "ours").values()))


def _kept_apart(rounds: Rounds) -> Iterator[Goal]:
    client, theirs = (rounds.of(CLIENT_KEY, figure) for figure in ("ours", "tritonclient"))
    yield _goal(f"{SMALL}: our Python client over tritonclient.http, p50", 0.35, "×", ratios(client, theirs))
    yield _goal("metrics: added to a request", 2.0, "µs", list(rounds.of(METRICS_KEY, "us").values()))
    for figure, limit in (("p99", 1.2), ("p99.9", 2.0)):
        during, steady = (rounds.of(UPDATE_KEY, f"{when} {figure}_us") for when in ("update", "steady"))
        yield _goal(f"{SMALL}, another model is updated: {figure} over steady", limit, "×", ratios(during, steady))


START_KEY: Final = f"{SMALL} | first answer"
CLIENT_KEY: Final = f"{SMALL} | Python clients"
METRICS_KEY: Final = f"{SMALL} | metrics"
UPDATE_KEY: Final = f"{SMALL} | update of another model"


def _goal(name: str, limit: float, unit: str, values: Sequence[float], *, at_least: bool = False) -> Goal:
    found = estimate(values) if values else None
    return Goal(name=name, limit=limit, unit=unit, at_least=at_least, found=found)


def _best(peers_rounds: Sequence[Mapping[int, float]]) -> Mapping[int, float]:
    """The most of any peer, round by round."""
    numbers = {number for each in peers_rounds for number in each}
    return {number: max(each[number] for each in peers_rounds if number in each) for number in numbers}


def _alone(model: str, server: str, way: str, placement: Placement) -> str:
    return Case(model=model, server=server, way=way, placement=placement, connections=1).key


def _free(model: str, server: str, connections: int) -> str:
    return Case(model=model, server=server, way="tcp", placement=Placement.FREE, connections=connections).key
