"""Numbers and signs as people read them. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from edgeward_agent.bench.paired import LEAST_PAIRS, Difference

NOTHING: Final = "–"
_NBSP: Final = "\u00a0"  # between a number and its unit, which belong on one line


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """What the output can show.

    Attributes:
        width: columns.
        unicode: whether to draw with blocks; false in a file or a pipe, and where the encoding has none.
        encoding: what text is written in, whatever it is drawn with.
    """

    width: int = 80
    unicode: bool = False
    encoding: str = "utf-8"
    colour: bool = False

    @property
    def bar(self) -> str:
        return "█" if self.unicode else "#"

    def bar_of(self, share: float, room: int) -> str:
        """A bar of at most `room` signs; anything above nothing shows."""
        if not self.unicode:
            return "#" * max(1 if share > 0 else 0, round(share * room))
        eighths = max(1 if share > 0 else 0, round(share * room * 8))
        full, rest = divmod(eighths, 8)
        return "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")

    def fit(self, text: str) -> str:
        """Our own signs in ASCII where nothing is drawn; names stay as they are, for they are pasted."""
        text = text.replace(_NBSP, " ")
        if self.unicode:
            return text
        for sign, plain in _PLAIN.items():
            text = text.replace(sign, plain)
        return text

    def encodable(self, text: str) -> str:
        """With ? for what cannot be written there at all."""
        return text.encode(self.encoding, "replace").decode(self.encoding)


_PLAIN: Final = {
    "µs": "us",
    "∞": "inf",
    "–": "-",
    "…": "...",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
    "◂": "<",
    "·": "|",
    "→": "->",
    "±": "+-",
    "★": "*",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit for a whole table, so that its numbers can be compared at a glance."""

    name: str
    us: float

    def number(self, value_us: float | None) -> str:
        if value_us is None or math.isnan(value_us):
            return NOTHING
        return "∞" if math.isinf(value_us) else digits(value_us / self.us)


MICRO: Final = Unit(name="µs", us=1.0)
MILLI: Final = Unit(name="ms", us=1e3)
SECOND: Final = Unit(name="s", us=1e6)


def unit_for(value_us: float | None) -> Unit:
    if value_us is None or not math.isfinite(value_us) or abs(value_us) < 1e3:
        return MICRO
    return MILLI if abs(value_us) < 10e6 else SECOND


def latency(value_us: float | None) -> str:
    """`6.8 µs`, `14.2 ms`: with the unit that suits it."""
    if value_us is None or not math.isfinite(value_us):
        return "no answer"
    unit = unit_for(value_us)
    return f"{unit.number(value_us)}{_NBSP}{unit.name}"


def exact(value_us: float) -> str:
    """`10 ms`: a number that somebody chose, as they chose it."""
    unit = SECOND if value_us >= SECOND.us else unit_for(value_us)
    return f"{value_us / unit.us:g}{_NBSP}{unit.name}"


def digits(value: float) -> str:
    """Three that count: 6.82, 209, 2,022."""
    size = abs(value)
    if size == 0:
        return "0"
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    shown = f"{value:,.{decimals}f}"
    return shown.rstrip("0").rstrip(".") if decimals == 3 else shown


def small(value: float) -> str:
    """A number of any size, short: 0.0021, 1.2e-07."""
    if math.isnan(value):
        return NOTHING
    return "0" if value == 0 else f"{value:.2g}"


def percent(share: float) -> str:
    """`0.4 %`; anything that is not all never reads as 100 %, and anything at all never as 0 %."""
    if math.isnan(share):
        return NOTHING
    if 0 < share < 0.001:
        return f"below 0.1{_NBSP}%"
    if 0.999 < share < 1:
        return f"above 99.9{_NBSP}%"
    value = share * 100
    return f"{value:.1f}{_NBSP}%" if 0 < value < 10 or 99 <= value < 100 else f"{value:.0f}{_NBSP}%"


def seconds(value: float) -> str:
    if value < 10:
        return f"{value:.{1 if value >= 1 else 2}f}{_NBSP}s"
    if value < 120:
        return f"{value:.0f}{_NBSP}s"
    return f"{value / 60:.0f}{_NBSP}min" if value < 7200 else f"{value / 3600:.1f}{_NBSP}h"


def size(value_bytes: int) -> str:
    if value_bytes < 10_240:
        return f"{value_bytes:,}{_NBSP}bytes"
    if value_bytes < 1 << 20:
        return f"{value_bytes / 1024:.0f}{_NBSP}KiB"
    return f"{value_bytes / (1 << 20):.{0 if value_bytes >= 10 << 20 else 1}f}{_NBSP}MiB"


def counted(n: int, what: str) -> str:
    """`1 round`, `1,000 rounds`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def rounded_up(n: int) -> int:
    """To two digits: nobody knows it better."""
    step: int = 10 ** max(0, len(str(n)) - 2)
    return math.ceil(n / step) * step


def with_interval(difference: Difference) -> str:
    """`197 µs (95 %: 187 to 210 µs)`, all in one unit; an interval that is missing is said."""
    if difference.pairs < LEAST_PAIRS or math.isnan(difference.lower_us):
        return f"{latency(difference.median_us)} (too few rounds for an interval)"
    unit = unit_for(max(abs(difference.lower_us), abs(difference.upper_us)))
    low, middle, high = map(unit.number, (difference.lower_us, difference.median_us, difference.upper_us))
    return f"{middle}{_NBSP}{unit.name} (95{_NBSP}%: {low} to {high}{_NBSP}{unit.name})"


def too_few(difference: Difference) -> bool:
    """Whether there is no interval, so that nothing can be said of a difference, nor that there is none."""
    return difference.pairs < LEAST_PAIRS or math.isnan(difference.ratio_lower)


def ratio_interval(difference: Difference) -> str:
    if too_few(difference):
        return "(too few rounds for an interval)"
    return f"(95{_NBSP}%: {digits(difference.ratio_lower)} to {digits(difference.ratio_upper)})"
