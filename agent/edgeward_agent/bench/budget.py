"""What a person types as a budget or a length of time. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_UNITS_US: Final = {"us": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6}  # casefold makes the micro sign the Greek letter
_BUDGET: Final = re.compile(
    r"\s*(\d+(?:\.\d+)?)\s*(us|µs|μs|ms|s)\s*(?:@\s*p(\d{1,2}(?:\.\d{1,3})?)\s*)?", re.IGNORECASE
)
_TIME: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?\s*")
_SECONDS: Final = {"ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_LONGEST_S: Final = 500 * 3600.0  # the system waits for an answer for 2^31 ms at most
DEFAULT_SHARE: Final = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most 1 - `share` of the answers may come later than `latency_us`. `said` is who asked for it."""

    latency_us: float
    share: float = DEFAULT_SHARE
    said: str = ""

    @property
    def quantile(self) -> str:
        return quantile_name(self.share)


def parse_budget(text: str, said: str = "--budget") -> Budget:
    """`10ms@p99`, `500us@p99.9`; without a quantile it is p99. Raises ValueError, which says what was expected."""
    found = _BUDGET.fullmatch(text)
    if found is None:
        raise ValueError(f"expected TIME@QUANTILE such as 10ms@p99 or 500us@p99.9, got {begin(text)!r}")
    number, unit, percent = found.groups()
    share = round(float(percent) / 100, 7) if percent else DEFAULT_SHARE
    latency_us = float(number) * _UNITS_US[unit.casefold()]
    if not 0 < latency_us <= _LONGEST_S * 1e6 or not 0 < share < 1:
        raise ValueError(
            f"expected a time above 0, at most 500h, and a quantile between p0 and p100, got {begin(text)!r}"
        )
    return Budget(latency_us=latency_us, share=share, said=said)


def parse_time_s(text: str) -> float:
    """`10s`, `10m`, `1.5h`, `300ms`; a bare number is seconds. Raises ValueError, which says what was expected."""
    found = _TIME.fullmatch(text)
    time_s = float(found[1]) * _SECONDS[found[2] or ""] if found else 0.0
    if not 0 < time_s <= _LONGEST_S:
        raise ValueError(f"expected a length of time such as 10s, 10m or 1h, at most 500h, got {begin(text)!r}")
    return time_s


def begin(text: str) -> str:
    """As much as shows what it is."""
    return text if len(text) <= 60 else f"{text[:59]}…"


def quantile_name(share: float) -> str:
    """`p99`, `p99.9`."""
    return f"p{round(share * 100, 5):g}"
