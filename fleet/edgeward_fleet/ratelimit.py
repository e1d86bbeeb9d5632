"""Token buckets by key: the enrolment port is open to anybody, and so is the login."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from edgeward_fleet.errors import TooMany

_MAX_KEYS: Final = 10_000  # the least recently used goes: memory must not grow with the number of attackers


class Period(NamedTuple):
    """A length of time, and how it is said."""

    seconds: float
    words: str


MINUTE: Final = Period(60, "a minute")
HOUR: Final = Period(3600, "an hour")


class RateLimit:
    """Each key may act so many `times` at once and then at that pace. Used from one thread, the event loop's."""

    def __init__(
        self, what: str, times: int, period: Period = MINUTE, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._what: Final = f"{times} {what} {period.words}"
        self._burst: Final = float(times)
        self._per_second: Final = times / period.seconds
        self._clock: Final = clock
        self._buckets: Final[OrderedDict[str, tuple[float, float]]] = OrderedDict()  # key: (tokens, at)

    def take(self, key: str) -> None:
        """Raises TooMany when `key` has to wait."""
        now = self._clock()
        tokens, at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_second)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > _MAX_KEYS:
            self._buckets.popitem(last=False)
        if not allowed:
            wait_s = math.ceil((1 - tokens) / self._per_second)
            raise TooMany(f"expected at most {self._what}, got more", retry_after_s=max(1, wait_s))
