"""What a version has answered, and how fast: counted in under a microsecond per request."""

from __future__ import annotations

from typing import Final

from edgeward_agent.serving.outcome import Outcome
from edgeward_contract.traffic import Traffic

_SUB_BITS: Final = 4  # 16 steps per power of two: a percentile is at most 6 % too high
_STEPS: Final = 1 << _SUB_BITS
POWERS: Final = 64
"""Bit lengths that a time in µs may have."""
_BUCKETS: Final = _STEPS * 28  # beyond an hour


class TrafficMeter:
    """Counts answers and their latency. Touched on the loop's thread alone.

    Default buckets of metrics libraries begin at 5 or 100 ms and would hide everything that matters here.
    """

    __slots__ = (
        "_counts",
        "abandoned",
        "errors",
        "expired",
        "full",
        "invalid",
        "late",
        "latency_ns",
        "refused",
        "requests",
        "unrecorded",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        # What was not answered in time, by its outcome. Only what is late is among the requests: the rest did not run.
        # Neither is what could not be recorded: it says nothing of the release.
        self.late = 0
        self.refused = 0
        self.full = 0
        self.expired = 0
        self.unrecorded = 0
        # What was the caller's own doing, and is no sign of a bad release.
        self.invalid = 0
        self.abandoned = 0
        self.latency_ns = 0  # of all that were answered
        self._counts = [0] * _BUCKETS

    def answered(self, latency_ns: int) -> None:
        self.requests += 1
        self.latency_ns += latency_ns
        us = latency_ns // 1000
        bucket = us
        if us >= 2 * _STEPS:
            shift = us.bit_length() - _SUB_BITS - 1
            bucket = (shift << _SUB_BITS) + (us >> shift)
        try:
            self._counts[bucket] += 1
        except IndexError:  # and no call for the smaller of two, each time
            self._counts[-1] += 1

    def not_answered(self, outcome: Outcome) -> None:
        if outcome is Outcome.REFUSED:
            self.refused += 1
        elif outcome is Outcome.FULL:
            self.full += 1
        elif outcome is Outcome.EXPIRED:
            self.expired += 1
        elif outcome is Outcome.UNRECORDED:
            self.unrecorded += 1
        elif outcome is Outcome.ABANDONED:
            self.abandoned += 1

    def failed(self) -> None:
        """The model or the runtime failed; what a caller did wrong is not counted."""
        self.requests += 1
        self.errors += 1

    def snapshot(self) -> Traffic:
        return Traffic(
            requests=self.requests,
            errors=self.errors,
            p50_us=self._quantile_us(0.5),
            p99_us=self._quantile_us(0.99),
            late=self.late,
            refused=self.refused + self.full + self.expired,
        )

    def outcomes(self) -> dict[Outcome, int]:
        """How requests ended, each counted once."""
        return {
            Outcome.ANSWERED: self.requests - self.errors - self.late,
            Outcome.LATE: self.late,
            Outcome.REFUSED: self.refused,
            Outcome.FULL: self.full,
            Outcome.EXPIRED: self.expired,
            Outcome.UNRECORDED: self.unrecorded,
            Outcome.FAILED: self.errors,
            Outcome.INVALID: self.invalid,
            Outcome.ABANDONED: self.abandoned,
        }

    def below_powers(self) -> list[int]:
        """How many took less than 2^n µs and not less than half of it, for each n."""
        powers = [0] * POWERS
        for index, count in enumerate(self._counts):
            powers[_upper_us(index).bit_length()] += count
        return powers

    def _quantile_us(self, share: float) -> int:
        rest = share * sum(self._counts)
        for index, count in enumerate(self._counts):
            rest -= count
            if count and rest <= 0:
                return _upper_us(index)
        return 0


def _upper_us(index: int) -> int:
    """The largest whole µs that falls into a bucket."""
    if index < 2 * _STEPS:
        return index
    shift = (index >> _SUB_BITS) - 1
    return ((index - (shift << _SUB_BITS) + 1) << shift) - 1
