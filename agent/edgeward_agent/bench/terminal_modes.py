"""What the modes add to the report in the terminal: two models side by side, settings, a long run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from edgeward_agent.bench import words
from edgeward_agent.bench.paired import Difference
from edgeward_agent.bench.report import Added, Compared, OutputDifference, Report, SweepRow, Window
from edgeward_agent.bench.sweeping_words import MARKS, setting_name, setting_words
from edgeward_agent.bench.table import blocks, wrapped
from edgeward_agent.bench.targets import IN_PROCESS
from edgeward_agent.bench.telling import growth, uncompared, where
from edgeward_agent.bench.words import Screen, Unit, digits, percent, small, unit_for

_OTHER: Final = {"pass": "makes the same budget", "over": "misses the same budget"}
_SPARKS: Final = "▁▂▃▄▅▆▇█"
_STEPS: Final = "_.-=oO#@"


def compared_lines(report: Report, screen: Screen) -> Iterator[str]:
    found = report.compared
    if found is None:
        return
    name = "INT8" if found.kind == "quantize" else found.second.title
    for warning in found.warnings:
        yield from wrapped(f"Warning: {warning}.", screen)
    for time, tail in zip(found.times, found.tails, strict=True):
        yield from wrapped(pace(name, time, tail.difference), screen)
    yield from _verdict_of_the_other(report, found, screen)
    yield ""
    yield from outputs_table(found, screen)
    if found.golden is not None:
        first, second, cases = found.golden.first, found.golden.second, found.golden.cases
        yield from wrapped(f"Golden cases within tolerance: {first} of {cases}, {name} {second}.", screen)
    if found.kind == "quantize":
        kept = f"written to {found.written}" if found.written else "not kept: --output FILE does"
        yield from wrapped(
            f"{words.size(report.model.size_bytes)} became {words.size(found.second.size_bytes)}; {kept}.", screen
        )


def pace(name: str, time: Added, tail: Difference) -> str:
    """`In process INT8 takes 0.28 times as long (95 %: 0.27 to 0.29), -1.4 ms …`."""
    place = where(time.over).capitalize() if time.over != "TCP" else "Over TCP"
    found = time.difference
    if words.too_few(found):
        return f"{place} there were too few rounds to say: {name} took {digits(found.ratio)} times as long."
    if not found.clear:
        same = f"{digits(found.ratio)} times as long {words.ratio_interval(found)}"
        return f"{place} no difference shows: {name} takes {same}."
    told = f"{place} {name} takes {digits(found.ratio)} times as long at p50 {words.ratio_interval(found)}"
    covers = "" if time.over == IN_PROCESS else " That is of one start of each server."
    return f"{told}, {_signed(found.median_us)}; at p90 {digits(tail.ratio)} times.{covers}"


def _signed(value_us: float) -> str:
    return f"{'+' if value_us > 0 else '-'}{words.latency(abs(value_us))}"


def _verdict_of_the_other(report: Report, found: Compared, screen: Screen) -> Iterator[str]:
    if found.verdict is None:
        return
    title = report.model.title if found.kind == "quantize" else found.second.title
    says = _OTHER.get(found.verdict.outcome.value, "cannot be held to the same budget yet")
    yield from wrapped(f"{title} {says}: p99 {words.latency(found.verdict.bounds.estimate_us)}.", screen)


def outputs_table(found: Compared, screen: Screen) -> Iterator[str]:
    yield from wrapped(f"answers to {found.cases}", screen)
    width = min(24, max(len("output"), *(len(each.name) for each in found.outputs)))
    heads = (f"  {'output':<{width}}", *_apart("max abs", "max rel", "scale", "equal", "same argmax"))
    for lines in blocks([heads, *(_output_row(each, width) for each in found.outputs)], screen.width):
        yield from lines
    for each in found.outputs:
        if told := uncompared(each):
            yield from wrapped(f"Warning: {told}", screen)


def _output_row(each: OutputDifference, width: int) -> tuple[str, ...]:
    agreement = words.NOTHING if each.argmax_agreement is None else percent(each.argmax_agreement)
    numbers = (small(each.max_abs), small(each.max_rel), small(each.scale), percent(each.equal_share), agreement)
    return f"  {each.name[:width]:<{width}}", *_apart(*numbers)


def _apart(*values: str) -> tuple[str, ...]:
    return tuple(f"  {value:>{size}}" for value, size in zip(values, (9, 9, 9, 11, 11), strict=True))


def sweep_lines(report: Report, screen: Screen) -> Iterator[str]:
    if not report.sweep:
        return
    measured = [row for row in report.sweep if not row.failure]
    unit = unit_for(min(row.p50_us for row in measured))
    titles = ("n", f"p50 {unit.name}", f"p99 {unit.name}", "p99 below", "", "cases/s", "")
    heads = (f"  {'threads':>7} {'ep':<6} {'batch':>5}", *_setting_cells(*titles))
    for lines in blocks([heads, *(_setting_row(row, unit) for row in measured)], screen.width):
        yield from lines
    for row in report.sweep:
        if row.failure:
            setting = setting_words(setting_name(row.threads, row.provider, row.batch))
            yield from wrapped(f"{setting}: {row.failure}", screen)
    yield from wrapped(_legend(report.sweep), screen)


def _setting_row(row: SweepRow, unit: Unit) -> tuple[str, ...]:
    upper = words.NOTHING if row.p99_upper_us is None else unit.number(row.p99_upper_us)
    numbers = (f"{row.n:,}", unit.number(row.p50_us), unit.number(row.p99_us), upper, _SIGNS[row.outcome])
    cells = _setting_cells(*numbers, f"{row.cases_per_second:,.0f}", _marks(row))
    return f"  {row.threads:>7} {row.provider[:6]:<6} {row.batch:>5}", *cells


def _setting_cells(n: str, p50: str, p99: str, upper: str, sign: str, cases: str, marks: str) -> tuple[str, ...]:
    return f" {n:>6}", f" {p50:>6}", f" {p99:>6}", f" {upper:>9} {sign:<2}", f" {cases:>7}", f" {marks}"


_SIGNS: Final = {"pass": "ok", "over": "no", "inconclusive": "?"}


def _marks(row: SweepRow) -> str:
    return f"★ {', '.join(row.marks)}" if row.marks else ""


def _legend(rows: tuple[SweepRow, ...]) -> str:
    used = [f"{mark}: {words}" for mark, words in MARKS.items() if any(mark in row.marks for row in rows)]
    return f"★ {'; '.join(used)}. ok, no: makes the budget, misses it; p99 below: all rows together at 95 %."


def soak_lines(report: Report, screen: Screen) -> Iterator[str]:
    if report.soak is None:
        return
    windows = report.soak.windows
    room = screen.width - 34
    for name, values, shown in _courses(windows):
        known = [value for value in values if value is not None]
        if known:
            span = f"{shown(min(known))} to {shown(max(known))}"
            yield f"  {name:<7} {spark(values, screen, room)}  {span}"
    for trend in report.soak.trends:
        lead = "too much: " if trend.too_much else ("" if trend.sure else "no trend beyond chance: ")
        yield from wrapped(f"{lead}{growth(trend)}", screen)
    if not report.soak.trends:
        yield "  Too few windows for a trend."


def _courses(windows: tuple[Window, ...]) -> Iterator[tuple[str, list[float | None], Callable[[float], str]]]:
    yield "p99", [each.p99_us for each in windows], words.latency
    yield "memory", [each.resident_bytes for each in windows], lambda value: words.size(int(value))


def spark(values: list[float | None], screen: Screen, room: int) -> str:
    """A line of small bars; several windows share one where there are more than fit."""
    per = max(1, -(-len(values) // room))
    groups = [[v for v in values[at : at + per] if v is not None] for at in range(0, len(values), per)]
    tops = [max(group) if group else None for group in groups]
    most = max((top for top in tops if top is not None), default=0.0) or 1.0
    steps = _SPARKS if screen.unicode else _STEPS
    return "".join(" " if top is None else steps[min(7, int(top / most * 7.999))] for top in tops)
