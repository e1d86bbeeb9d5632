"""Quantiles of latencies with distribution-free confidence bounds. Pure.

Latencies are skewed, capped below and long above, so nothing here assumes a normal distribution. How many of n
requests are later than the true p99 is binomial whatever the latencies look like; hence each bound is one of the
observed values, chosen by rank (H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed., section 7.1).

What is late comes in bursts, and ten late requests in one burst are less evidence than ten by themselves. So the
requests beyond a bound, and n with them, are divided by the design effect (L. Kish, Survey Sampling, section 8.2). It
is estimated between the rounds of the run, at that very bound, and raised for what so few rounds leave unsure of it
(E. L. Korn, B. I. Graubard, Confidence intervals for proportions with small expected number of positive counts
estimated from survey data, Survey Methodology 24, 1998). Where nothing lies beyond a bound nothing clusters there, and
n counts in full.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CONFIDENCE: Final = 0.95
"""Of every one-sided bound and every two-sided interval, unless said otherwise."""
_MOST_NEEDED: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """A quantile as observed, and one-sided bounds on the true one. Microseconds.

    `upper_us` is infinite when n is too small for any bound, `lower_us` is 0. `effective_n` is what the n requests
    are worth as evidence of this quantile.
    """

    share: float
    n: int
    effective_n: int
    estimate_us: float
    lower_us: float
    upper_us: float


class Ordered(Protocol):
    """Latencies of all rounds in order, by place: 0 is the latest. A place may be known to lie in a range only."""

    @property
    def n(self) -> int: ...

    @property
    def sizes(self) -> Floats:
        """Requests of each round."""

    def from_top(self, place: int) -> float:
        """The latency at that place, or the upper end of its range."""

    def least(self, place: int) -> float:
        """The same, or the lower end."""

    def later(self, place: int) -> Floats:
        """How many of each round lie beyond `from_top`."""

    def as_late(self, place: int) -> Floats:
        """How many of each round are at `least` as late."""


class Sorted:
    """Latencies that are all kept, by rounds; at least one. With a single round they count as independent."""

    def __init__(self, *rounds: Floats) -> None:
        self._rounds = [np.sort(each) for each in rounds]
        self.ascending: Floats = np.sort(np.concatenate(self._rounds))
        self.sizes: Floats = np.array([len(each) for each in self._rounds], dtype=np.float64)

    @property
    def n(self) -> int:
        return len(self.ascending)

    def from_top(self, place: int) -> float:
        return float(self.ascending[self.n - 1 - place])

    def least(self, place: int) -> float:
        return self.from_top(place)

    def later(self, place: int) -> Floats:
        return self.beyond(self.from_top(place))

    def as_late(self, place: int) -> Floats:
        line = self.from_top(place)
        before = [np.searchsorted(each, line, side="left") for each in self._rounds]
        return self.sizes - np.array(before, dtype=np.float64)

    def beyond(self, line_us: float) -> Floats:
        """How many of each round are later than that."""
        within = [np.searchsorted(each, line_us, side="right") for each in self._rounds]
        return self.sizes - np.array(within, dtype=np.float64)


def quantile(ascending: Floats, share: float) -> float:
    """The smallest value that `share` of the values do not exceed: no interpolation between two tails."""
    return float(ascending[rank(len(ascending), share)])


def rank(n: int, share: float) -> int:
    """Of that value, counted from 0."""
    return min(n - 1, max(0, math.ceil(round(share * n, 9)) - 1))


def bounds(values: Ordered, share: float, *, confidence: float = CONFIDENCE) -> Bounds:
    """Bound the quantile `share` from below and from above, each with `confidence`.

    Args:
        values: at least one latency in µs; infinite where no answer came.
    """
    n = values.n
    at = n - 1 - rank(n, share)
    above = _furthest(lambda place: surely_fewer(values.later(place), values.sizes, share, confidence), 0, at)
    below = _furthest(lambda place: surely_more(values.as_late(place), values.sizes, share, confidence), n - 1, at)
    estimate = values.from_top(at)
    return Bounds(
        share=share,
        n=n,
        effective_n=max(1, int(n / design_effect(values.later(at), values.sizes, confidence))),
        estimate_us=estimate,
        lower_us=values.least(below) if below is not None else 0.0,
        upper_us=values.from_top(above) if above is not None else math.inf,
    )


def _furthest(holds: Callable[[int], bool], start: int, end: int) -> int | None:
    """By bisection: how far from `start` towards `end` it holds; None when not even there."""
    if not holds(start):
        return None
    good, bad = start, end + (1 if end >= start else -1)
    while abs(bad - good) > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(middle) else (good, middle)
    return good


def surely_fewer(counts: Floats, sizes: Floats, share: float, confidence: float = CONFIDENCE) -> bool:
    """Whether `counts` of `sizes`, by rounds, show that less than 1 - `share` of all requests are like these."""
    design = design_effect(counts, sizes, confidence)
    _, above = bound_ranks(max(1, int(sizes.sum() / design)), share, confidence)
    return above is not None and math.ceil(counts.sum() / design) <= above


def surely_more(counts: Floats, sizes: Floats, share: float, confidence: float = CONFIDENCE) -> bool:
    """Whether they show that more than 1 - `share` are."""
    design = design_effect(counts, sizes, confidence)
    below, _ = bound_ranks(math.ceil(sizes.sum() / design), share, confidence)
    return below is not None and int(counts.sum() / design) > below


@lru_cache(maxsize=256)
def bound_ranks(n: int, share: float, confidence: float = CONFIDENCE) -> tuple[int | None, int | None]:
    """Ranks of the lower and the upper bound, counted from the largest value, which is 0; None where n allows none."""
    later = later_than_quantile(n, share)
    alpha = 1 - confidence
    above = int(np.searchsorted(later, alpha, side="right")) - 1
    below = int(np.searchsorted(later, confidence, side="left"))
    return (below if below < n else None), (above if above >= 0 else None)


def later_than_quantile(n: int, share: float) -> Floats:
    """P(at most j of n are later than the true quantile), for j = 0, 1, … as far as it matters."""
    chance = 1 - share
    spread = math.sqrt(n * chance * share)
    last = min(n, math.ceil(n * chance + 12 * spread + 30))
    steps = np.arange(1, last + 1, dtype=np.float64)
    ratios = np.log((n - steps + 1) / steps) + math.log(chance / share)
    logs = np.concatenate([[0.0], np.cumsum(ratios)]) + n * math.log1p(-chance)
    chances: Floats = np.minimum(np.cumsum(np.exp(logs)), 1.0)
    return chances


def least_samples(share: float, confidence: float = CONFIDENCE) -> int:
    """How many requests an upper bound needs at least: with fewer, even the latest says nothing about `share`."""
    return math.ceil(math.log(1 - confidence) / math.log(share))


def design_effect(counts: Floats, sizes: Floats, confidence: float = CONFIDENCE) -> float:
    """How many of n requests say as much as one that came by itself, for `counts` of `sizes` in each round; at least 1.

    It is raised by the square of Student's t over the normal quantile: it is an estimate, from as many rounds as there
    are. It is 1 where there is nothing to estimate it from: one round, or counts of none or of all.
    """
    share = float(counts.sum() / sizes.sum())
    full = sizes > 0
    freedom = int(np.count_nonzero(full)) - 1
    if freedom < 1 or share in (0.0, 1.0):
        return 1.0
    normal = NormalDist().inv_cdf(confidence)
    return max(1.0, dispersion(counts[full], sizes[full]) * (student(freedom, normal) / normal) ** 2)


def dispersion(counts: Floats, sizes: Floats) -> float:
    """Pearson's chi-square of `counts` of `sizes` over its degrees of freedom: about 1 when chance spreads them."""
    share = float(counts.sum() / sizes.sum())
    squares = (counts - sizes * share) ** 2 / (sizes * share * (1 - share))
    return float(squares.sum()) / (len(counts) - 1)


def student(freedom: int, normal: float) -> float:
    """Student's t where the normal distribution has `normal`; within 2 % from two degrees of freedom.

    Source: Cornish and Fisher's expansion, M. Abramowitz, I. A. Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = normal
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))


def samples_to_decide(share: float, late_share: float, design: float = 1.0, confidence: float = CONFIDENCE) -> int:
    """About how many requests would decide whether at most 1 - `share` are late, if `late_share` of them stay late.

    0 when no number that anybody would wait for does: too close to call.
    """
    n = least_samples(share, confidence)
    while not _decided(n, share, late_share, confidence):
        n = math.ceil(n * 1.25)
        if n > _MOST_NEEDED:
            return 0
    return math.ceil(n * design)


def _decided(n: int, share: float, late_share: float, confidence: float) -> bool:
    below, above = bound_ranks(n, share, confidence)
    late = math.ceil(n * late_share)
    return (above is not None and late <= above) or (below is not None and late > below + 1)
