"""Latencies as bars, and as a small sum that a run of hours can keep. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edgeward_agent.bench.quantiles import Floats, rank

Counts = npt.NDArray[np.int64]
_SERIES: Final = (1, 2, 3, 6, 12, 24, 48, 96)  # steps of a decade; IEC 60063 has the same idea for resistors


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """How many latencies lie in (lower, upper], in µs. The last bar may be the tail: everything later, to the end."""

    lower_us: float
    upper_us: float
    count: int
    tail: bool = False


def bars(ascending: Floats) -> list[Bar]:
    """As `counted_bars`, of latencies that are all kept."""
    return counted_bars(ascending, np.ones(len(ascending), dtype=np.int64))


def counted_bars(ascending: Floats, counts: Counts, *, most: int = 12, body: float = 0.99) -> list[Bar]:
    """At most `most` bars with round edges for the share `body` of the answers, and one for the rest.

    Bars that widen with the latency would let one outlier squeeze all others into a single one; hence the tail.

    Args:
        counts: how often each value of `ascending` occurs, at least once.
    """
    finite = np.isfinite(ascending)
    answered, up_to = ascending[finite], np.cumsum(counts[finite])
    if not len(answered):
        return []
    n = int(up_to[-1])
    edges = _edges(float(answered[0]), float(answered[np.searchsorted(up_to, rank(n, body) + 1)]), most)
    within = np.append(0, up_to)[np.searchsorted(answered, edges, side="right")]
    found = [
        Bar(lower_us=float(low), upper_us=float(high), count=int(count))
        for low, high, count in zip(edges[:-1], edges[1:], np.diff(within), strict=True)
    ]
    rest = n - int(within[-1] - within[0])
    if rest:
        found.append(Bar(lower_us=float(edges[-1]), upper_us=float(answered[-1]), count=rest, tail=True))
    return found


def _edges(low: float, high: float, most: int) -> Floats:
    """The densest series of round numbers that needs at most `most` steps from below `low` to `high`."""
    low = max(low, 1e-3)
    best = np.array([low * 0.999, max(high, low)])
    for steps in _SERIES:
        marks = _marks(low, max(high, low), steps)
        if len(marks) - 1 > most:
            break
        best = marks
    return best


def _marks(low: float, high: float, steps: int) -> Floats:
    """Two or three significant digits, evenly spaced on a logarithmic scale, from just below `low` to `high`."""
    first = math.floor(math.log10(low) * steps)
    last = math.ceil(math.log10(high) * steps)
    digits = 1 if steps <= 12 else 2
    marks = sorted({_rounded(10 ** (step / steps), digits) for step in range(first - 1, last + 2)})
    begin = max((i for i, mark in enumerate(marks) if mark < low), default=0)
    end = min((i for i, mark in enumerate(marks) if mark >= high), default=len(marks) - 1)
    return np.array(marks[begin : end + 1], dtype=np.float64)


def _rounded(value: float, digits: int) -> float:
    return round(value, digits - math.floor(math.log10(value)))


class Tally:
    """Counts in bins 1 % wide: what is left of the latencies of a run of hours, in a fixed room.

    A quantile read from it is at most 1 % too high and never too low.
    """

    # To about 70 s; one more bin is for what is later, or never came.
    _EDGES: Final[Floats] = 0.1 * np.power(1.01, np.arange(2047, dtype=np.float64))

    def __init__(self) -> None:
        self.counts: Counts = np.zeros(len(self._EDGES) + 1, dtype=np.int64)
        self.maximum_us = 0.0

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    def add(self, latencies_us: Floats) -> None:
        if not len(latencies_us):
            return
        self.counts += np.bincount(np.searchsorted(self._EDGES, latencies_us), minlength=len(self.counts))
        self.maximum_us = max(self.maximum_us, float(latencies_us.max()))

    def bin_from_top(self, place: int) -> int:
        """Where the latency lies that so many others exceed."""
        return int(np.searchsorted(np.cumsum(self.counts), self.n - place))

    def from_top(self, place: int) -> float:
        """The upper end of that bin."""
        return self._upper(self.bin_from_top(place))

    def least(self, place: int) -> float:
        """The lower end of that bin."""
        at = self.bin_from_top(place)
        return float(self._EDGES[at - 1]) if at else 0.0

    def quantile(self, share: float) -> float:
        return self.from_top(self.n - 1 - rank(self.n, share))

    def bars(self) -> list[Bar]:
        """Each bin goes whole to the bar of its upper end."""
        filled = np.flatnonzero(self.counts)
        return counted_bars(np.array([self._upper(int(at)) for at in filled]), self.counts[filled])

    def _upper(self, at: int) -> float:
        return min(float(self._EDGES[at]), self.maximum_us) if at < len(self._EDGES) else self.maximum_us


class Tallies:
    """One tally for each window, and one of all: the windows are the rounds of a long run, as `Ordered` has them."""

    def __init__(self) -> None:
        self.together = Tally()
        self._windows: list[Tally] = []

    def add(self, latencies_us: Floats) -> Tally:
        """Keep a window, at least one latency, and return it."""
        window = Tally()
        for tally in (window, self.together):
            tally.add(latencies_us)
        self._windows.append(window)
        return window

    @property
    def n(self) -> int:
        return self.together.n

    @property
    def sizes(self) -> Floats:
        return np.array([window.n for window in self._windows], dtype=np.float64)

    def from_top(self, place: int) -> float:
        return self.together.from_top(place)

    def least(self, place: int) -> float:
        return self.together.least(place)

    def later(self, place: int) -> Floats:
        return self._from_bin(self.together.bin_from_top(place) + 1)

    def as_late(self, place: int) -> Floats:
        return self._from_bin(self.together.bin_from_top(place))

    def _from_bin(self, at: int) -> Floats:
        return np.array([window.counts[at:].sum() for window in self._windows], dtype=np.float64)
