"""Medians of rounds with an interval that assumes nothing about how the figures are spread. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A median over `rounds`, and the order statistics between which the true one lies with `confidence`."""

    median: float
    low: float
    high: float
    rounds: int
    confidence: float


def estimate(values: Sequence[float]) -> Estimate:
    """The narrowest pair of order statistics that holds the median with CONFIDENCE, or all that there is.

    Seven rounds give their smallest and largest (98 %); below six no pair reaches 95 %, and the estimate says so.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("expected a value for at least one round, got none")
    ordered = sorted(values)
    count = len(ordered)
    inset = max((k for k in range(count // 2 + 1) if _covered(count, k) >= CONFIDENCE), default=0)
    return Estimate(
        median=statistics.median(ordered),
        low=ordered[inset],
        high=ordered[count - 1 - inset],
        rounds=count,
        confidence=_covered(count, inset),
    )


def _covered(count: int, inset: int) -> float:
    """Probability that the median lies between the values that have `inset` others outside them, on both sides."""
    outside: float = sum(math.comb(count, k) for k in range(inset + 1)) / 2.0**count
    return max(0.0, 1.0 - 2.0 * outside)


def ratios(above: Mapping[int, float], below: Mapping[int, float]) -> list[float]:
    """A / b of the rounds that have both: a drift of the machine is in both."""
    return [above[number] / below[number] for number in sorted(above.keys() & below.keys())]


def paired(
    above: Mapping[int, Sequence[float]],
    below: Mapping[int, Sequence[float]],
    compare: Callable[[float, float], float],
) -> list[float]:
    """One value for each round that has both: the median of what `compare` makes of the two turns of a pass."""
    return [
        statistics.median(compare(a, b) for a, b in zip(above[number], below[number], strict=True))
        for number in sorted(above.keys() & below.keys())
    ]
