"""The chart that the README shows: SVG without a library, readable on light and dark ground. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.latency.names import SERVERS, WAYS
from benchmarks.latency.plan import RAW
from benchmarks.latency.result import CaseRow, Kept

_WIDTH: Final = 860
_LEFT: Final = 200
_RIGHT: Final = 80
_LINE: Final = 20
_HEAD: Final = 46
_STYLE: Final = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}"
    ".head{font-weight:600}.soft{fill:#57606a;font-size:12px}.grid{stroke:#d0d7de}"
    ".ours{fill:#0a7f74;stroke:#0a7f74}.peer{fill:#8c959f;stroke:#8c959f}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#9198a1}.grid{stroke:#3d444d}"
    ".ours{fill:#35c4b5;stroke:#35c4b5}.peer{fill:#7d8590;stroke:#7d8590}}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """A line of a panel: from `low` to `high` where both matter, else from nothing to `high`."""

    name: str
    ours: bool
    low: float | None
    high: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    title: str
    bars: Sequence[_Bar]
    logarithmic: bool


def drawn(kept: Kept) -> str:
    """The whole picture."""
    panels = [_throughput(kept), *(_latency(kept, model) for model in dict.fromkeys(c.model for c in kept.cases))]
    parts, top = [], 8
    for panel in (each for each in panels if each.bars):
        parts += list(_panel(panel, top))
        top += _HEAD + _LINE * len(panel.bars)
    machine = f"{kept.machine['processor']}, {kept.machine['cores']} cores, {kept.at[:10]}; nothing pinned"
    parts.append(_text(0, top + 14, machine, "soft"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 24}" role="img">\n'
        f"<title>Answers a second, and how long an answer takes: Edgeward and others</title>\n"
        f"<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _throughput(kept: Kept) -> _Panel:
    cases = [each for each in _answered(kept) if each.model == "wdbc-risk" and each.connections == 4]
    bars = [_bar(each, None, each.figures["per_s"], f"{each.figures['per_s']:,.0f}") for each in cases]
    bars.sort(key=lambda bar: -bar.high)
    return _Panel(title="Answers a second: wdbc-risk, 4 connections", bars=bars, logarithmic=False)


def _latency(kept: Kept, model: str) -> _Panel:
    cases = [each for each in _answered(kept) if each.model == model and each.connections == 1]
    bars = [_bar(each, each.figures["p50_us"], each.figures["p99_us"], _span(each)) for each in cases]
    bars.sort(key=lambda bar: bar.low or 0.0)
    title = f"How long an answer takes, p50 to p99: {model}, 1 connection (logarithmic)"
    return _Panel(title=title, bars=bars, logarithmic=True)


def _answered(kept: Kept) -> list[CaseRow]:
    shown = [each for each in kept.cases if each.placement == "free" and each.figures]
    return [each for each in shown if each.server not in (*RAW, "echo", "bare")]


def _bar(case: CaseRow, low: float | None, high: float, text: str) -> _Bar:
    ours = case.server == "ours"
    name = f"Edgeward, {WAYS[case.way]}" if ours else SERVERS[case.server]
    return _Bar(name=name, ours=ours, low=low, high=high, text=text)


def _span(case: CaseRow) -> str:
    low, high = (case.figures[name] / 1000 for name in ("p50_us", "p99_us"))
    return f"{low:.2g}–{high:.2g} ms" if low < 10 else f"{low:.0f}–{high:.0f} ms"


def _panel(panel: _Panel, top: int) -> Iterator[str]:
    yield _text(0, top + 16, panel.title, "head")
    place = _scale(panel)
    bottom = top + 28 + _LINE * len(panel.bars)
    yield f'<line class="grid" x1="{_LEFT}" y1="{top + 26}" x2="{_LEFT}" y2="{bottom}"/>'
    for number, bar in enumerate(panel.bars):
        yield from _drawn_bar(bar, place, top + 28 + _LINE * number)


def _drawn_bar(bar: _Bar, place: Callable[[float], float], top: int) -> Iterator[str]:
    kind = "ours" if bar.ours else "peer"
    start = _LEFT if bar.low is None else place(bar.low)
    width = max(2.0, place(bar.high) - start)
    yield _text(_LEFT - 8, top + 14, bar.name, "", "end")
    yield f'<rect class="{kind}" x="{start:.1f}" y="{top + 4}" width="{width:.1f}" height="12" rx="2"/>'
    yield _text(start + width + 8, top + 14, bar.text, "soft")


def _scale(panel: _Panel) -> Callable[[float], float]:
    most, room = max(bar.high for bar in panel.bars), _WIDTH - _LEFT - _RIGHT
    if not panel.logarithmic:
        return lambda value: _LEFT + room * value / most
    least = min(bar.low or bar.high for bar in panel.bars) / 2
    return lambda value: _LEFT + room * math.log(value / least) / math.log(most / least)


def _text(x: float, y: int, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(words)}</text>'
