"""What a run found, as plain values: the terminal, the page and the JSON document are all made of this. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeward_agent.bench.block import Block
from edgeward_agent.bench.histogram import Bar, bars
from edgeward_agent.bench.noise import Noise, Surroundings
from edgeward_agent.bench.paired import Difference
from edgeward_agent.bench.quantiles import Bounds, Floats, Sorted, bounds, quantile
from edgeward_agent.bench.verdict import Verdict

SCHEMA = 1
CURVE = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0)
"""Quantiles of the curve on the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """The file that was measured; `sha256` is empty for a model of another server."""

    title: str
    path: str
    inputs: tuple[str, ...]
    size_bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How it was asked. `rate` is 0 in a closed loop. `duration_s` is what the measurement took."""

    rate: float
    arrivals: str
    clients: int
    cases: str
    seed: int
    rounds: int
    planned_rounds: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Microseconds; None where n is too small to say, or where what counts had no answer."""

    p50_us: float | None
    p90_us: float | None
    p99_us: float | None
    p999_us: float | None
    max_us: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round on one path: a point of the course over time."""

    p50_us: float | None
    p99_us: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathResult:
    """One way of asking.

    Attributes:
        latency: from the intended start.
        from_sending: open loop only: from when it was sent, as a naive tool has it; the rest was spent waiting.
        p99: with its bounds.
        per_second: answers, over the time that the path was asked.
    """

    name: str
    n: int
    failed: int
    failure: str
    latency: Quantiles
    from_sending: Quantiles | None
    p99: Bounds
    per_second: float
    bars: tuple[Bar, ...]
    curve_us: tuple[float | None, ...]
    rounds: tuple[Round, ...]

    def at_least(self, share: float) -> float | None:
        """The first value of the curve at `share` or beyond it; None where that had no answer."""
        return next(us for at, us in zip(CURVE, self.curve_us, strict=True) if at >= share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What `path` takes longer than `over`, round by round."""

    path: str
    over: str
    difference: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The serving process that was started for this. `ready_s` counts from its start."""

    ready_s: float
    resident_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputDifference:
    """How far one output of the second model lies from the first one's, over all cases.

    Attributes:
        scale: the largest absolute value of the first model's.
        max_rel: the largest |a - b| / |a|, where |a| is at least a thousandth of `scale`.
        equal_share: of all elements; NaN in the same place is equal.
        argmax_agreement: share of the finite rows whose largest element is the same one; None for a single element.
        not_finite: elements that are not finite in one of them or in both, and were not compared. Where these are all
            of them, the differences, the scale and the share are not numbers. Text has a share alone.
    """

    name: str
    elements: int
    max_abs: float
    max_rel: float
    mean_abs: float
    scale: float
    equal_share: float
    argmax_agreement: float | None
    not_finite: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenCount:
    """How many golden cases each model answers within the manifest's tolerance."""

    cases: int
    first: int
    second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The second model beside the first: times (second - first) on each path, and answers to the same cases."""

    second: ModelFacts
    times: tuple[Added, ...]
    tails: tuple[Added, ...]
    outputs: tuple[OutputDifference, ...]
    cases: str
    golden: GoldenCount | None
    verdict: Verdict | None
    kind: str = "compare"  # or "quantize"
    warnings: tuple[str, ...] = ()
    written: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One setting. `marks` are "fastest" and "most"; `failure` says why it was not measured."""

    threads: int
    provider: str
    batch: int
    n: int
    p50_us: float
    p99_us: float
    p99_upper_us: float | None
    cases_per_second: float
    outcome: str
    marks: tuple[str, ...] = ()
    failure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A stretch of a long run."""

    begin_s: float
    n: int
    failed: int
    p50_us: float | None
    p99_us: float | None
    max_us: float | None
    resident_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Growth over the whole run, by the median slope, as a share of where it began. `sure` if it is not by chance."""

    of: str
    growth: float
    lower: float
    upper: float
    sure: bool
    too_much: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Soaked:
    """A long run on one path."""

    path: str
    seconds: float
    windows: tuple[Window, ...]
    trends: tuple[Trend, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to try next, and why."""

    command: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything. What a mode does not have is empty. `lost` is how the server went away in mid-run."""

    schema: int
    edgeward: str
    onnxruntime: str
    at: str
    model: ModelFacts
    settings: Settings
    machine: Surroundings
    noise: Noise
    verdict: Verdict | None
    exit_code: int = 0
    paths: tuple[PathResult, ...] = ()
    added: tuple[Added, ...] = ()
    server: Server | None = None
    compared: Compared | None = None
    sweep: tuple[SweepRow, ...] = ()
    soak: Soaked | None = None
    notes: tuple[str, ...] = ()
    next: tuple[Advice, ...] = ()
    interrupted: bool = False
    lost: str = ""


def path_result(name: str, blocks: Sequence[Block], *, opened: bool) -> PathResult:
    """Sum up the blocks of one path; at least one latency."""
    rounds = [block.latencies_us for block in blocks]
    ascending = np.sort(np.concatenate(rounds))
    sent = np.sort(np.concatenate([block.sent_us for block in blocks]))
    seconds = sum(block.seconds for block in blocks)
    failed = sum(block.failed for block in blocks)
    return PathResult(
        name=name,
        n=len(ascending),
        failed=failed,
        failure=next((block.failure for block in blocks if block.failure), ""),
        latency=quantiles(ascending),
        from_sending=quantiles(sent) if opened else None,
        p99=bounds(Sorted(*rounds), 0.99),
        per_second=(len(ascending) - failed) / seconds if seconds > 0 else 0.0,
        bars=tuple(bars(ascending)),
        curve_us=tuple(finite(quantile(ascending, share)) for share in CURVE),
        rounds=tuple(_round(each) for each in rounds),
    )


def quantiles(ascending: Floats) -> Quantiles:
    """Only those that n has a value for: p99.9 of 300 requests would be another name for their maximum."""
    return Quantiles(
        p50_us=_said(ascending, 0.5),
        p90_us=_said(ascending, 0.9),
        p99_us=_said(ascending, 0.99),
        p999_us=_said(ascending, 0.999),
        max_us=finite(float(ascending[-1])),
    )


def _said(ascending: Floats, share: float) -> float | None:
    return finite(quantile(ascending, share)) if len(ascending) * (1 - share) >= 0.999999 else None


def _round(latencies_us: Floats) -> Round:
    ascending = np.sort(latencies_us)
    if not len(ascending):
        return Round(p50_us=None, p99_us=None)
    return Round(p50_us=finite(quantile(ascending, 0.5)), p99_us=finite(quantile(ascending, 0.99)))


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
