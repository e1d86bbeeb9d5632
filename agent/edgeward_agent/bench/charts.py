"""Charts as SVG, with colours by class, so that one drawing suits light and dark. Pure.

Every chart has a title for screen readers, and its numbers stand in a table too: nothing is told by a picture alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 720
_HEIGHT: Final = 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 26, 34
_FAR: Final = 20  # a limit that many times off would squeeze everything else
Tell = Callable[[float], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A series: points in the units of the chart, None is a gap. `style` is one of s1 to s6."""

    name: str
    points: tuple[tuple[float, float | None], ...]
    style: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A bar of a histogram or of a table of settings. `mark` stands above it."""

    label: str
    value: float
    told: str
    style: str = "s1"
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """From a value to a place in the drawing; logarithmic when `log`."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (
            (math.log10(each) for each in (self.low, self.high, max(value, 1e-9)))
            if self.log
            else (
                self.low,
                self.high,
                value,
            )
        )
        share = (at - low) / (high - low) if high > low else 0.5
        return self.begin + min(1.0, max(0.0, share)) * (self.end - self.begin)


def lines(
    title: str,
    series: Sequence[Line],
    *,
    across: Sequence[tuple[float, str]],
    tell: Tell,
    log: bool = True,
    limit: float | None = None,
    limit_words: str = "",
) -> str:
    """Series over a common axis.

    Args:
        across: (place, words) of the ticks of the axis below; it reaches from the first to the last.
        tell: words for a value of the axis on the left.
        limit: a line across all, such as the budget; where it lies too far off to be drawn, words below say so.
    """
    values = [value for line in series for _, value in line.points if value is not None and value > 0]
    if not values:
        return ""
    low, top = min(values), max(values)
    if limit is not None and low / _FAR < limit < top * _FAR:
        low, top = min(low, limit), max(top, limit)
    ticks = ticks_between(low if log else 0.0, top, log=log)
    y = Scale(ticks[0], ticks[-1], _HEIGHT - _BOTTOM, _TOP, log)
    x = Scale(across[0][0], across[-1][0], _LEFT, WIDTH - _RIGHT)
    body = [*_grid(ticks, y, tell), *_below([(x(place), words) for place, words in across])]
    for line in series:
        body += _drawn(line, x, y)
    drawn = limit is not None and ticks[0] <= limit <= ticks[-1]
    if limit is not None and drawn:  # last, so that its words stand above the lines
        body += _limit(y(limit), limit_words)
    return _svg(title, body) + _legend(series) + ("" if drawn else _off_the_chart(limit, top, limit_words))


def columns(
    title: str, shown: Sequence[Column], *, tell: Tell, limit: float | None = None, limit_words: str = ""
) -> str:
    """Bars side by side, from zero."""
    if not shown:
        return ""
    top = max(column.value for column in shown) or 1.0
    ticks = ticks_between(0.0, max(top, limit) if limit is not None and limit < top * 3 else top, log=False)
    y = Scale(0.0, ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    room = (WIDTH - _LEFT - _RIGHT) / len(shown)
    body = list(_grid(ticks, y, tell))
    every = max(1, math.ceil(len(shown) * 62 / (WIDTH - _LEFT - _RIGHT)))
    for at, column in enumerate(shown):
        left = _LEFT + at * room
        body += _column(column, left, room, y, labelled=at % every == 0)
    drawn = limit is not None and limit <= ticks[-1]
    if limit is not None and drawn:
        body += _limit(y(limit), limit_words)
    return _svg(title, body) + ("" if drawn else _off_the_chart(limit, top, limit_words))


def ticks_between(low: float, high: float, *, log: bool) -> list[float]:
    """Round numbers that hold `low` and `high` between them."""
    return _log_ticks(low, high) if log else _even_ticks(high)


def _log_ticks(low: float, high: float) -> list[float]:
    low, high = max(low, 1e-6), max(high, low * 1.01, 1e-6)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [step * 10.0**decade for decade in decades for step in ((1, 2, 5) if len(decades) < 6 else (1,))]
    first = max((at for at, mark in enumerate(marks) if mark <= low), default=0)
    last = min((at for at, mark in enumerate(marks) if mark >= high), default=len(marks) - 1)
    return marks[first : last + 1] if last > first else [marks[first], marks[first] * 10]


def _even_ticks(high: float) -> list[float]:
    rough = max(high, 1e-9) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(each * power for each in (1, 2, 2.5, 5, 10) if each * power >= rough)
    return [step * at for at in range(math.ceil(high / step - 1e-9) + 1)]


def _grid(ticks: Sequence[float], y: Scale, tell: Tell) -> Iterator[str]:
    last_at = math.inf
    for tick in ticks:
        at = y(tick)
        yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        if last_at - at >= 15:
            yield f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(tell(tick))}</text>'
            last_at = at


def _below(ticks: Sequence[tuple[float, str]]) -> Iterator[str]:
    for at, words in ticks:
        anchor = "end" if at > WIDTH - _RIGHT - 20 else "middle"
        yield f'<text class="tick" x="{at:.1f}" y="{_HEIGHT - 12}" text-anchor="{anchor}">{escape(words)}</text>'


def _limit(at: float, words: str) -> list[str]:
    return [
        f'<line class="limit" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>',
        f'<text class="limit-words" x="{WIDTH - _RIGHT}" y="{at - 6:.1f}" text-anchor="end">{escape(words)}</text>',
    ]


def _off_the_chart(limit: float | None, top: float, words: str) -> str:
    if limit is None:
        return ""
    return f'<p class="small quiet">{escape(words)}: {"above" if limit > top else "below"} all that is drawn.</p>'


def _drawn(line: Line, x: Scale, y: Scale) -> Iterator[str]:
    for known, group in itertools.groupby(line.points, key=lambda point: point[1] is not None):
        if known:
            places = [(x(place), y(value)) for place, value in group if value is not None]
            path = " ".join(f"{'L' if at else 'M'}{a:.1f} {b:.1f}" for at, (a, b) in enumerate(places))
            yield f'<path class="line {line.style}" d="{path}"><title>{escape(line.name)}</title></path>'
            if len(places) == 1:
                yield f'<circle class="dot {line.style}" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="2.5"/>'


def _column(column: Column, left: float, room: float, y: Scale, *, labelled: bool) -> list[str]:
    gap = min(4.0, room * 0.15)
    at, base = y(column.value), y(0.0)
    middle = left + room / 2
    parts = [
        f'<rect class="column {column.style}" x="{left + gap / 2:.1f}" y="{at:.1f}" width="{room - gap:.1f}"'
        f' height="{max(base - at, 1.0):.1f}" rx="2"><title>{escape(column.told)}</title></rect>'
    ]
    if labelled:
        parts.append(
            f'<text class="tick" x="{middle:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(column.label)}</text>'
        )
    if column.mark:
        parts.append(
            f'<text class="mark" x="{middle:.1f}" y="{at - 6:.1f}" text-anchor="middle">{escape(column.mark)}</text>'
        )
    return parts


def _svg(title: str, body: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def _legend(series: Sequence[Line]) -> str:
    if len(series) < 2:
        return ""
    items = "".join(f'<li><span class="key {line.style}"></span>{escape(line.name)}</li>' for line in series)
    return f'<ul class="legend">{items}</ul>'
