"""Latency as a picture: dots over time on a logarithmic scale, with the line that none may cross. Pure geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from edgeward_fleet.dashboard.queries.latency import Answer
from edgeward_fleet.dashboard.words import milliseconds, number, plural

BUDGET_US: Final = 10_000
WIDTH: Final = 800
HEIGHT: Final = 200
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TICKS_US: Final = (10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One answer."""

    x: float
    y: float
    is_over: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A line of the scale."""

    y: float
    label: str
    is_budget: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyChart:
    """Drawn for readers without scripts; `summary` says the same in words."""

    dots: tuple[Dot, ...]
    ticks: tuple[Tick, ...]
    summary: str
    width: int = WIDTH
    height: int = HEIGHT


def latency_chart(answers: Sequence[Answer]) -> LatencyChart:
    """A chart of `answers`, which are in the order of time; without any it is empty."""
    if not answers:
        return LatencyChart(dots=(), ticks=(), summary="")
    lowest = min(BUDGET_US // 10, _power_below(min(each.latency_us for each in answers)))
    highest = max(BUDGET_US * 10, 10 * _power_below(max(each.latency_us for each in answers)))
    first, last = answers[0].wall_us, answers[-1].wall_us

    def y(latency_us: int) -> float:
        share = math.log10(max(latency_us, lowest) / lowest) / math.log10(highest / lowest)
        return round(HEIGHT * (1 - share), 1)

    dots = (
        Dot(
            x=round(WIDTH * (each.wall_us - first) / max(1, last - first), 1),
            y=y(each.latency_us),
            is_over=each.latency_us > BUDGET_US,
        )
        for each in answers
    )
    ticks = (
        Tick(y=y(each), label=milliseconds(each), is_budget=each == BUDGET_US)
        for each in _TICKS_US
        if lowest <= each <= highest
    )
    return LatencyChart(dots=tuple(dots), ticks=tuple(ticks), summary=_summary(answers))


def percentile(ordered: Sequence[int], share: float) -> int:
    """The nearest rank; `ordered` rises and is not empty."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _summary(answers: Sequence[Answer]) -> str:
    ordered = sorted(each.latency_us for each in answers)
    over = sum(each > BUDGET_US for each in ordered)
    return (
        f"The last {plural(len(ordered), 'recorded answer')}: half within {milliseconds(percentile(ordered, 0.5))}, "
        f"99 % within {milliseconds(percentile(ordered, 0.99))}, the slowest {milliseconds(ordered[-1])}; "
        f"{number(over) if over else 'none'} over {milliseconds(BUDGET_US)}. "
        f"Recorded {_when(answers[0].wall_us, answers[-1].wall_us)} by the device's clock."
    )


def _when(first_us: int, last_us: int) -> str:
    """Both ends, because a chart without a date may be of last week. A clock that nobody has set may say anything."""
    try:
        first, last = (_EPOCH + timedelta(microseconds=each) for each in (first_us, last_us))
    except OverflowError:
        return "at a time that cannot be"
    shown = "%H:%M:%S" if first.date() == last.date() else "%Y-%m-%d %H:%M:%S"
    return f"from {first:%Y-%m-%d %H:%M:%S} to {last.strftime(shown)} UTC"


def _power_below(value: int) -> int:
    return int(10 ** math.floor(math.log10(max(10, value))))
