"""Quantiles of latencies with distribution-free confidence bounds. Pure.

Latencies are skewed, capped below and long above, so nothing here assumes a normal distribution. How many of n
requests are later than the true p99 is binomial whatever the latencies look like; hence each bound is one of the
observed values, chosen by rank (H. A. David, H. N. Nagaraja, Order Statistics, 3rd ed., section 7.1).

What is late comes in bursts, and ten late requests in one burst are less evidence than ten by themselves. The design
effect (L. Kish, Survey Sampling, section 8.2), estimated between the blocks of a run, says how many independent
requests the n are worth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
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
    are worth as evidence.
    """

    share: float
    n: int
    effective_n: int
    estimate_us: float
    lower_us: float
    upper_us: float


class Ordered(Protocol):
    """Latencies in order: `from_top(0)` is the latest."""

    @property
    def n(self) -> int: ...

    def from_top(self, place: int) -> float: ...


@dataclass(frozen=True, slots=True)
class Sorted:
    """Latencies that are all kept, ascending."""

    ascending: Floats

    @property
    def n(self) -> int:
        return len(self.ascending)

    def from_top(self, place: int) -> float:
        return float(self.ascending[self.n - 1 - place])


def quantile(ascending: Floats, share: float) -> float:
    """The smallest value that `share` of the values do not exceed: no interpolation between two tails."""
    return float(ascending[rank(len(ascending), share)])


def rank(n: int, share: float) -> int:
    """Of that value, counted from 0."""
    return min(n - 1, max(0, math.ceil(round(share * n, 9)) - 1))


def bounds(values: Ordered, share: float, *, design: float = 1.0, confidence: float = CONFIDENCE) -> Bounds:
    """Bound the quantile `share` from below and from above, each with `confidence`.

    Args:
        values: at least one latency in µs; infinite where no answer came.
        design: the design effect, at least 1.
    """
    n = values.n
    effective = max(1, int(n / design))
    below, above = bound_ranks(effective, share, confidence)
    estimate = values.from_top(n - 1 - rank(n, share))
    lower = values.from_top(min(n, math.ceil((below + 1) * design)) - 1) if below is not None else 0.0
    upper = values.from_top(int(above * design)) if above is not None else math.inf
    return Bounds(
        share=share,
        n=n,
        effective_n=effective,
        estimate_us=estimate,
        lower_us=min(lower, estimate),
        upper_us=max(upper, estimate),
    )


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


def design_effect(blocks: Sequence[Floats], share: float) -> float:
    """How much more the late requests cluster in some blocks than chance would have them; at least 1."""
    full = [block for block in blocks if len(block)]
    if len(full) < 2:
        return 1.0
    together = np.sort(np.concatenate(full))
    line = quantile(together, share)
    late = float(np.count_nonzero(together > line)) / len(together)
    if late == 0:
        line, late = float(np.nextafter(line, 0)), float(np.count_nonzero(together >= line)) / len(together)
    counts = np.array([np.count_nonzero(block > line) for block in full], dtype=np.float64)
    sizes = np.array([len(block) for block in full], dtype=np.float64)
    return dispersion(counts, sizes)


def dispersion(counts: Floats, sizes: Floats) -> float:
    """Pearson's chi-square of `counts` of `sizes` over its degrees of freedom: 1 when chance alone spreads them."""
    share = float(counts.sum() / sizes.sum())
    if len(counts) < 2 or share in (0.0, 1.0):
        return 1.0
    squares = (counts - sizes * share) ** 2 / (sizes * share * (1 - share))
    return max(1.0, float(squares.sum()) / (len(counts) - 1))


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
