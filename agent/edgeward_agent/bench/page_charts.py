"""Which charts the page has, and of what. Pure."""

from __future__ import annotations

import math
from typing import Final

from edgeward_agent.bench import words
from edgeward_agent.bench.charts import Column, Line, columns, lines
from edgeward_agent.bench.report import CURVE, Report
from edgeward_agent.bench.telling import goal
from edgeward_agent.bench.words import exact, latency, unit_for

_STYLES: Final = ("s1", "s2", "s3", "s4", "s5", "s6")
_NINES: Final = ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"))


def _style(number: int) -> str:
    return _STYLES[number % len(_STYLES)]


def _place(share: float) -> float:
    """Each further nine as wide as the one before."""
    return -math.log10(1 - share)


def curve(report: Report) -> str:
    """Latency by quantile, as far as the requests reach."""
    if report.verdict is None or not report.paths or report.sweep:
        return ""
    n = max(path.n for path in report.paths)
    ticks = [(_place(share), name) for share, name in _NINES if n * (1 - share) >= 0.5]
    series = [
        Line(
            name=path.name,
            style=_style(number),
            points=tuple(
                (_place(share), value)
                for share, value in zip(CURVE, path.curve_us, strict=True)
                if 0 < share < 1 and share <= 1 - 1 / path.n and _place(share) <= ticks[-1][0]
            ),
        )
        for number, path in enumerate(report.paths)
    ]
    budget = report.verdict.budget
    return lines(
        "Latency by quantile",
        series,
        across=[(0.0, "p0"), *ticks],
        tell=exact,
        limit=budget.latency_us,
        limit_words=f"budget {goal(report.verdict)}",
    )


def histogram(report: Report) -> str:
    """Of the path that is judged."""
    if report.verdict is None or not report.paths or report.sweep:
        return ""
    path = next((each for each in report.paths if each.name == report.verdict.path), report.paths[-1])
    unit = unit_for(path.latency.p50_us)
    known = (("p50", path.latency.p50_us), ("p90", path.latency.p90_us), ("p99", path.latency.p99_us))
    shown = [
        Column(
            label=f"> {unit.number(bar.lower_us)}" if bar.tail else f"≤ {unit.number(bar.upper_us)}",
            value=float(bar.count),
            told=f"{latency(bar.lower_us)} to {latency(bar.upper_us)}: {bar.count:,}",
            style="s6" if bar.tail else "s1",
            mark=" ".join(name for name, at in known if at is not None and bar.lower_us < at <= bar.upper_us),
        )
        for bar in path.bars
    ]
    drawing = columns(f"Answers by latency, {path.name}", shown, tell=lambda value: f"{value:,.0f}")
    return f"{drawing}<figcaption class='small quiet'>{path.name}: answers by latency in {unit.name}</figcaption>"


def course(report: Report) -> str:
    """p99 round by round: what drifts shows here."""
    if report.soak is not None or report.settings.rounds < 3 or not report.paths:
        return ""
    series = [
        Line(
            name=path.name,
            style=_style(number),
            points=tuple((float(at + 1), each.p99_us) for at, each in enumerate(path.rounds)),
        )
        for number, path in enumerate(report.paths)
    ]
    last = report.settings.rounds
    step = max(1, last // 10)
    ticks = [(float(at), str(at)) for at in range(1, last + 1, step)]
    if ticks[-1][0] != last:
        ticks.append((float(last), ""))
    return lines("p99 of each round", series, across=ticks, tell=exact)


def settings_chart(report: Report) -> str:
    """p99 of each setting of a sweep, with its budget."""
    assert report.verdict is not None
    shown = [
        Column(
            label=f"{row.threads}·{row.batch}",
            value=row.p99_us,
            told=f"{row.threads} threads, {row.provider}, batch {row.batch}: p99 {latency(row.p99_us)}",
            style={"pass": "s4", "over": "s5"}.get(row.outcome, "s6"),
            mark="★" if row.marks else "",
        )
        for row in report.sweep
        if row.n
    ]
    budget = report.verdict.budget
    drawing = columns(
        "p99 by setting", shown, tell=exact, limit=budget.latency_us, limit_words=f"budget {goal(report.verdict)}"
    )
    return f"{drawing}<figcaption class='small quiet'>p99 by threads·batch</figcaption>"


def soak_charts(report: Report) -> list[str]:
    """p50, p99 and memory over time."""
    assert report.soak is not None
    windows = report.soak.windows
    length = report.soak.seconds
    ticks = [(length * at / 5, words.seconds(length * at / 5)) for at in range(6)]
    times = [
        Line(name="p50", style="s1", points=tuple((each.begin_s, each.p50_us) for each in windows)),
        Line(name="p99", style="s2", points=tuple((each.begin_s, each.p99_us) for each in windows)),
    ]
    memory = Line(
        name="memory of the server",
        style="s3",
        points=tuple(
            (each.begin_s, None if each.resident_bytes is None else each.resident_bytes / (1 << 20)) for each in windows
        ),
    )
    return [
        drawing
        for drawing in (
            lines("Latency over time", times, across=ticks, tell=exact),
            lines("Memory over time", [memory], across=ticks, tell=lambda value: f"{value:g} MiB", log=False),
        )
        if drawing
    ]
