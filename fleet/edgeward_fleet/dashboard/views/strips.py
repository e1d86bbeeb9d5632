"""Strips: counts as widths of one bar, drawn on the server so that they need no script. Pure geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgeward_fleet.dashboard.words import number

WIDTH: Final = 1000
_GAP: Final = 3
_LEAST: Final = 8  # one device of a thousand must still be seen


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a strip. `tone` is a class of the style sheet; `href` leads to what is counted."""

    label: str
    count: int
    tone: str
    href: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Where a segment lies, in units of WIDTH."""

    x: float
    width: float
    tone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A bar with its legend; `label` says it in words for those who do not see it."""

    segments: tuple[Segment, ...]
    bars: tuple[Bar, ...]
    label: str
    width: int = WIDTH

    @property
    def total(self) -> int:
        return sum(segment.count for segment in self.segments)


def strip(segments: Sequence[Segment], *, of: str = "devices") -> Strip:
    """Lay `segments` out side by side; those without a count take no room."""
    shown = [segment for segment in segments if segment.count]
    words = ", ".join(f"{number(segment.count)} {segment.label}" for segment in shown)
    return Strip(segments=tuple(segments), bars=_bars(shown), label=f"{of}: {words}" if words else f"no {of}")


def _bars(shown: Sequence[Segment]) -> tuple[Bar, ...]:
    total = sum(segment.count for segment in shown)
    room = WIDTH - _GAP * max(0, len(shown) - 1)
    widths = [max(_LEAST, room * segment.count / total) for segment in shown] if total else []
    scale = room / sum(widths) if widths else 0.0
    bars, x = [], 0.0
    for segment, width in zip(shown, widths, strict=True):
        bars.append(Bar(x=round(x, 1), width=round(width * scale, 1), tone=segment.tone))
        x += width * scale + _GAP
    return tuple(bars)
