"""Differences between two things that were measured in turn, pair by pair. Pure.

Two runs one after the other compare the machine's mood as much as the things. Taken in turn, round by round, what
slows a round slows both, and the difference within the round is what is left.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeward_agent.bench.quantiles import CONFIDENCE, Floats, bound_ranks, quantile

LEAST_PAIRS: Final = 6
"""With fewer, not even the smallest and the largest of the differences bound their median with 95 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The median of the differences (second - first) in µs over the rounds, with an interval; the same as a ratio.

    The interval is not a number where there are too few rounds for one. `pairs` is how many differences it rests on.
    """

    pairs: int
    median_us: float
    lower_us: float
    upper_us: float
    ratio: float
    ratio_lower: float
    ratio_upper: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.lower_us > 0 or self.upper_us < 0


def difference(
    first: Sequence[Floats], second: Sequence[Floats], share: float = 0.5, *, rounds_per_start: int = 1
) -> Difference:
    """Compare the quantile `share` of each round of `first` with the same round of `second`.

    Args:
        first, second: latencies of each round in µs. A round in which one of them has none, or no answer, is left out.
        rounds_per_start: how many rounds in a row asked the same sessions. Where those happened to lie in memory is in
            all of these rounds, so that they are one observation: their median.
    """
    pairs = [
        (number // rounds_per_start, _quantile(a, share), _quantile(b, share))
        for number, (a, b) in enumerate(zip(first, second, strict=False))
        if len(a) and len(b)
    ]
    finite = [(start, a, b) for start, a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    differences = _medians([(start, b - a) for start, a, b in finite])
    low, middle, high = median_interval(differences)
    ratio_low, ratio, ratio_high = median_interval(_medians([(start, b / a) for start, a, b in finite if a > 0]))
    return Difference(
        pairs=len(differences),
        median_us=middle,
        lower_us=low,
        upper_us=high,
        ratio=ratio,
        ratio_lower=ratio_low,
        ratio_upper=ratio_high,
    )


def _medians(numbered: Sequence[tuple[int, float]]) -> Floats:
    """Of the values with the same number, for numbers that ascend."""
    groups = itertools.groupby(numbered, key=lambda each: each[0])
    return np.array([np.median([value for _, value in group]) for _, group in groups], dtype=np.float64)


def median_interval(values: Floats, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """(lower, median, upper): both ends are observed values, by rank, each passed with half of what is left."""
    if not len(values):
        return math.nan, math.nan, math.nan
    ascending = np.sort(values)
    middle = float(np.median(ascending))
    below, above = bound_ranks(len(values), 0.5, 1 - (1 - confidence) / 2)
    if below is None or above is None:
        return math.nan, middle, math.nan
    last = len(values) - 1
    return float(ascending[last - below]), middle, float(ascending[last - above])


def _quantile(latencies_us: Floats, share: float) -> float:
    return quantile(np.sort(latencies_us), share)
