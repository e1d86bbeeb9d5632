"""A long run in windows: does it stay as it began? Held to the budget, to its own p99 over time, and to memory."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from edgeward_agent.bench.block import Block, Cut
from edgeward_agent.bench.drift import LEAST_WINDOWS, MEMORY, P99, trend
from edgeward_agent.bench.errors import NOTHING_DUE, NOTHING_YET
from edgeward_agent.bench.histogram import Tallies, Tally
from edgeward_agent.bench.machine import Probe
from edgeward_agent.bench.measuring import PROBE_BEFORE, PROBE_BETWEEN, Measured, Progress, undisturbed, warm_up
from edgeward_agent.bench.noise import Noise
from edgeward_agent.bench.options import Options
from edgeward_agent.bench.paths import Opened
from edgeward_agent.bench.plain import open_either, patience
from edgeward_agent.bench.preparing import (
    EXITS,
    INTERRUPTED,
    Prepared,
    noise_of,
    prepare,
    report_maker,
    server,
    slowdown,
    watch,
)
from edgeward_agent.bench.quantiles import bounds
from edgeward_agent.bench.report import CURVE, PathResult, Quantiles, Report, Round, Soaked, Trend, Window, finite
from edgeward_agent.bench.schedule import Load, check_due, grace, intended_starts, least_due
from edgeward_agent.bench.targets import Target
from edgeward_agent.bench.verdict import Outcome, Verdict, decide

MOST_LATENCY_GROWTH: Final = 0.25
MOST_MEMORY_GROWTH: Final = 0.10
_MOST_WINDOWS: Final = 60


@dataclass(slots=True, kw_only=True)
class Watched:
    """What is kept of a long run: sums, and one line for each window.

    Windows beyond `complete` were interrupted: they say nothing of growth, and nothing is judged by one alone.
    """

    budget_us: float
    windows: list[Window] = field(default_factory=list)
    latencies: Tallies = field(default_factory=Tallies)
    sent: Tally = field(default_factory=Tally)
    late: list[int] = field(default_factory=list)
    failure: str = ""
    busy_s: float = 0.0
    complete: int = 0

    def add(self, begin_s: float, block: Block, resident_bytes: int | None) -> None:
        window = self.latencies.add(block.latencies_us)
        self.sent.add(block.sent_us)
        self.late.append(int(np.count_nonzero(block.latencies_us > self.budget_us)))
        self.failure = self.failure or block.failure
        self.busy_s += block.seconds
        self.windows.append(_window(begin_s, window, block.failed, resident_bytes))

    @property
    def failed(self) -> int:
        return sum(window.failed for window in self.windows)


def run(options: Options, progress: Progress) -> Report:
    """`--soak`: one path for a long time. A server that goes away ends it, and is over.

    Raises CannotMeasure, and ServerLost when there is no server to begin with.
    """
    wishes = options.wishes
    if wishes.rate:
        least_s = math.ceil(least_due(wishes.arrivals) / wishes.rate)
        check_due(wishes, options.soak_s, f"--soak {least_s}s")
    progress("loading the model", 0.0, 0.0)
    prepared = prepare(options)
    chosen = options if options.through or options.url else replace(options, through=("tcp",))
    with ExitStack() as stack:
        opened = open_either(stack, prepared, chosen)
        target = opened.targets[-1]
        progress("warming up", 0.0, 0.0)
        patience_s = patience(warm_up([target]), prepared)
        watching, watched = watch(opened), Watched(budget_us=prepared.budget.latency_us)
        measured = _soak(target, opened, watched, options, patience_s, progress)
        _check_something(measured, watched)
        seen = watching.look()
        noise = noise_of(measured.probes, seen)
        verdict = _verdict(target.name, watched, prepared, slowdown(noise, options)) if watched.complete else None
        soaked = Soaked(
            path=target.name,
            seconds=measured.seconds,
            windows=tuple(watched.windows),
            trends=_trends(watched.windows[: watched.complete]),
        )
        report = report_maker(prepared, options, measured, seen, noise)(verdict)
        return replace(
            report,
            exit_code=_exit(verdict, soaked, measured, noise, options),
            paths=(_path(target.name, watched, opened=bool(options.wishes.rate)),),
            server=server(opened),
            soak=soaked,
        )


def _soak(
    target: Target, opened: Opened, watched: Watched, options: Options, patience_s: float, progress: Progress
) -> Measured:
    count = window_count(options.soak_s)
    length_s = options.soak_s / count
    measured = Measured(blocks={}, planned=count)
    probe, generator = Probe(), np.random.default_rng(options.seed)
    measured.probes.append(probe.times(PROBE_BEFORE))
    began = time.monotonic()

    def keep(begin_s: float, block: Block) -> None:
        watched.add(begin_s, block, opened.daemon.resident_bytes() if opened.daemon else None)
        measured.blocks.setdefault(target.name, []).append(_EMPTY)

    try:
        with undisturbed():
            for number in range(count):
                begin_s = time.monotonic() - began
                block = target.run(_load(options, number, length_s, generator, watched.latencies.n, patience_s))
                measured.probes.append(probe.times(PROBE_BETWEEN))
                keep(begin_s, block)
                watched.complete += 1
                progress(f"window {number + 1} of {count}", (number + 1) / count, (count - number - 1) * length_s)
                measured.lost = block.gone
                if measured.lost:
                    break
    except KeyboardInterrupt as error:
        measured.interrupted = True
        if isinstance(error, Cut) and len(error.block.latencies_us):
            keep(begin_s, error.block)
    measured.seconds = time.monotonic() - began
    return measured


def _check_something(measured: Measured, watched: Watched) -> None:
    """Raises Interrupted when there was no time for anything, CannotMeasure when chance has left nothing to do."""
    if not watched.latencies.n:
        raise NOTHING_YET if measured.interrupted else NOTHING_DUE


_EMPTY: Final = Block(latencies_us=np.array([]), sent_us=np.array([]), seconds=0.0)  # its latencies are in the sums


def window_count(seconds: float) -> int:
    """Of about a second or more each; enough for a trend."""
    return min(_MOST_WINDOWS, max(LEAST_WINDOWS, int(seconds)))


def _load(
    options: Options, number: int, length_s: float, generator: np.random.Generator, first: int, patience_s: float
) -> Load:
    wishes, grace_s = options.wishes, grace(length_s, patience_s)
    if not wishes.rate:
        return Load(seconds=length_s, clients=wishes.clients, first=first, grace_s=grace_s)
    starts = intended_starts(wishes.rate, length_s, wishes.arrivals, generator, begin_s=number * length_s)
    return Load(starts_s=starts, seconds=length_s, clients=wishes.clients, first=first, grace_s=grace_s)


def _window(begin_s: float, tally: Tally, failed: int, resident_bytes: int | None) -> Window:
    return Window(
        begin_s=begin_s,
        n=tally.n,
        failed=failed,
        p50_us=finite(tally.quantile(0.5)) if tally.n else None,
        p99_us=finite(tally.quantile(0.99)) if tally.n else None,
        max_us=finite(tally.maximum_us) if tally.n else None,
        resident_bytes=resident_bytes,
    )


def _verdict(path: str, watched: Watched, prepared: Prepared, slowed: float) -> Verdict:
    late = np.array(watched.late, dtype=np.float64)
    return decide(path, watched.latencies, late, prepared.budget, slowdown=slowed)


def _trends(windows: list[Window]) -> tuple[Trend, ...]:
    found = (
        trend(P99, [each.p99_us for each in windows], MOST_LATENCY_GROWTH),
        trend(MEMORY, [each.resident_bytes for each in windows], MOST_MEMORY_GROWTH),
    )
    return tuple(each for each in found if each is not None)


def _exit(verdict: Verdict | None, soaked: Soaked, measured: Measured, noise: Noise, options: Options) -> int:
    if verdict is None or measured.interrupted:
        return INTERRUPTED
    return EXITS[Outcome.OVER] if measured.lost else soak_exit(verdict, soaked, noise, options)


def soak_exit(verdict: Verdict, soaked: Soaked, noise: Noise, options: Options) -> int:
    """What grows is over; latency that grows on a noisy machine may be the machine's doing."""
    grown = {each.of for each in soaked.trends if each.too_much}
    if MEMORY in grown or (P99 in grown and (options.force or not noise.noisy)):
        return EXITS[Outcome.OVER]
    if P99 in grown and verdict.outcome is Outcome.PASS:
        return EXITS[Outcome.INCONCLUSIVE]
    return EXITS[verdict.outcome]


def _path(name: str, watched: Watched, *, opened: bool) -> PathResult:
    tally = watched.latencies.together
    return PathResult(
        name=name,
        n=tally.n,
        failed=watched.failed,
        failure=watched.failure,
        latency=_quantiles(tally),
        from_sending=_quantiles(watched.sent) if opened else None,
        p99=bounds(watched.latencies, 0.99),
        per_second=(tally.n - watched.failed) / watched.busy_s,
        bars=tuple(tally.bars()),
        curve_us=tuple(finite(tally.quantile(share)) for share in CURVE),
        rounds=tuple(Round(p50_us=each.p50_us, p99_us=each.p99_us) for each in watched.windows),
    )


def _quantiles(tally: Tally) -> Quantiles:
    return Quantiles(
        p50_us=finite(tally.quantile(0.5)),
        p90_us=finite(tally.quantile(0.9)),
        p99_us=finite(tally.quantile(0.99)) if tally.n >= 100 else None,
        p999_us=finite(tally.quantile(0.999)) if tally.n >= 1000 else None,
        max_us=finite(tally.maximum_us),
    )
