"""Does something grow over a long run? Pure.

The median of all slopes between two windows (P. K. Sen, JASA 63 (1968)) does not mind a few bad windows, and its
interval comes from ranks, as everything here does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.bench.report import Trend

P99: Final = "p99"
MEMORY: Final = "memory"
LEAST_WINDOWS: Final = 8
_ALL: Final = -1.0  # a line may lead below nothing, what it describes cannot
_Z: Final = 2.576  # two-sided 99 %: a soak looks at two things, and nobody wants to be woken by chance


def trend(of: str, values: Sequence[float | None], most: float) -> Trend | None:
    """Growth from the first to the last window, relative to where it began.

    Args:
        values: one for each window; None is left out.
        most: growth that is tolerated, as a share.

    Returns None when there are too few windows.
    """
    known = [(at, value) for at, value in enumerate(values) if value is not None]
    if len(known) < LEAST_WINDOWS:
        return None
    places = np.array([at for at, _ in known], dtype=np.float64)
    heights = np.array([value for _, value in known], dtype=np.float64)
    level = float(np.median(heights - _slope(places, heights) * places))
    if level <= 0:
        return None
    low, middle, high = (max(_ALL, each * (len(values) - 1) / level) for each in _slopes(places, heights))
    return Trend(
        of=of, growth=middle, lower=low, upper=high, sure=low > 0 or high < 0, too_much=low > 0 and middle > most
    )


def _slope(places: Floats, heights: Floats) -> float:
    return _slopes(places, heights)[1]


def _slopes(places: Floats, heights: Floats) -> tuple[float, float, float]:
    """(lower, median, upper) of the slopes of all pairs, by Kendall's distribution of their signs."""
    first, second = np.triu_indices(len(places), k=1)
    slopes = np.sort((heights[second] - heights[first]) / (places[second] - places[first]))
    n, pairs = len(places), len(slopes)
    spread = _Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low = max(0, math.floor((pairs - spread) / 2))
    high = min(pairs - 1, math.ceil((pairs + spread) / 2))
    return float(slopes[low]), float(np.median(slopes)), float(slopes[high])
