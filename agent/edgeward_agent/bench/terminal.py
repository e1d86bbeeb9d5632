"""The report for a terminal as wide as it is, or drawn in ASCII for a file or a pipe. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import click

from edgeward_agent.bench import words
from edgeward_agent.bench.histogram import Bar
from edgeward_agent.bench.report import PathResult, Quantiles, Report
from edgeward_agent.bench.table import blocks, wrapped
from edgeward_agent.bench.telling import OVER, PASS, UNSURE, cut_short, headline, machine, overload, where
from edgeward_agent.bench.terminal_modes import compared_lines, soak_lines, sweep_lines
from edgeward_agent.bench.words import Screen, Unit, unit_for

_COLOURS: Final = {PASS: "green", OVER: "red", UNSURE: "yellow"}
_NUMBERS: Final = 56  # columns of a row of the table without its name
_NAME: Final = 20  # columns for that at least
_ONCE_SENT: Final = "  once sent"


def render(report: Report, screen: Screen) -> str:
    """The whole report; it ends with a newline."""
    parts = [list(part(report, screen)) for part in _PARTS]
    lines = [line for part in parts if part for line in ("", *part)][1:]
    commands = {each.command for each in report.next if each.command}
    fitted = (line if any(each in line for each in commands) else screen.fit(line) for line in lines)
    return screen.encodable("\n".join(fitted)) + "\n"


def _verdict(report: Report, screen: Screen) -> Iterator[str]:
    if told := cut_short(report):
        yield from wrapped(told, screen, indent="")
    found = headline(report)
    if found is None:
        return
    indent = " " * (len(found.word) + 2)
    first, *rest = wrapped(found.sentence, screen, indent=indent)
    word = _styled(found.word, screen, fg=_COLOURS[found.word], bold=True)
    yield f"{word}  {_styled(first.strip(), screen, bold=True)}"
    yield from rest
    yield from wrapped(found.sure, screen, indent=indent)


def _next(report: Report, screen: Screen) -> Iterator[str]:
    for number, advice in enumerate(report.next):
        lead = "Next  " if number == 0 else " " * 6
        if advice.command:
            yield lead + _styled(advice.command, screen, fg="cyan")
            yield from wrapped(advice.why, screen, indent=" " * 6)
        else:
            yield from wrapped(advice.why, screen, indent=" " * 6, first=lead)


def _paths(report: Report, screen: Screen) -> Iterator[str]:
    if not report.paths or report.sweep:
        return
    unit = unit_for(max((path.latency.p50_us or 0.0) for path in report.paths))
    rows = [*_rows(report, unit, max(_NAME, screen.width - _NUMBERS))]
    for lines in blocks(rows, screen.width):
        for row, line in zip(rows, lines, strict=True):
            yield _styled(line, screen, dim=row is rows[0] or _ONCE_SENT in row[0])
    yield from _added(report, screen)
    if told := overload(report):
        yield from wrapped(told, screen)
    for path in report.paths:
        if path.failed:
            failed = f"{path.name}: {path.failed:,} of {path.n:,} had no answer, which counts as late: {path.failure}"
            yield from wrapped(failed, screen)


def _rows(report: Report, unit: Unit, most: int) -> Iterator[tuple[str, ...]]:
    """Heads, and for each path its name in at most that many columns, how often it was asked, and the quantiles."""
    width = min(most, max(12, *(len(path.name) for path in report.paths)))
    yield f"  {unit.name:<{width}}", *_cells("n", "p50", "p90", "p99", "p99.9", "max")
    for path in report.paths:
        yield f"  {_cut(path.name, width):<{width}}", *_cells(f"{path.n:,}", *_numbers(path.latency, unit))
        if path.from_sending is not None:
            yield f"  {_ONCE_SENT:<{width}}", *_cells("", *_numbers(path.from_sending, unit))


def _cells(*values: str) -> tuple[str, ...]:
    return tuple(f" {value:>8}" for value in values)


def _numbers(found: Quantiles, unit: Unit) -> list[str]:
    return [unit.number(each) for each in (found.p50_us, found.p90_us, found.p99_us, found.p999_us, found.max_us)]


def _added(report: Report, screen: Screen) -> Iterator[str]:
    if report.added:
        told = [f"{each.path} adds {words.with_interval(each.difference)}" for each in report.added]
        yield from wrapped(f"At the median, {', '.join(told)}.", screen)


def _histogram(report: Report, screen: Screen) -> Iterator[str]:
    if report.verdict is None or not report.paths:
        return
    path = next((each for each in report.paths if each.name == report.verdict.path), report.paths[-1])
    if not path.bars:
        return
    unit = unit_for(path.latency.p50_us)
    what = "from the intended start to the answer" if path.from_sending is not None else "to the answer"
    for line in wrapped(f"{unit.name} {what}, {where(path.name)}", screen):
        yield _styled(line, screen, dim=True)
    most = max(bar.count for bar in path.bars)
    labels, counts = [_label(bar, unit) for bar in path.bars], [f"{bar.count:,}" for bar in path.bars]
    pointers = [_pointer(bar, path) for bar in path.bars]
    label, count, pointer = (max(map(len, each)) for each in (labels, counts, pointers))
    room = max(1, screen.width - label - count - pointer - 5)
    for bar, *told in zip(path.bars, labels, counts, pointers, strict=True):
        drawn = screen.bar_of(bar.count / most, room)
        yield f"  {told[0]:>{label}}  {drawn:<{room}} {told[1]:>{count}}{told[2]}"


def _label(bar: Bar, unit: Unit) -> str:
    if bar.tail:
        return f"over {unit.number(bar.lower_us)}"
    return f"{unit.number(bar.lower_us)} – {unit.number(bar.upper_us)}"


def _pointer(bar: Bar, path: PathResult) -> str:
    """Where the quantiles lie."""
    known = (("p50", path.latency.p50_us), ("p90", path.latency.p90_us), ("p99", path.latency.p99_us))
    here = [name for name, at in known if at is not None and bar.lower_us < at <= bar.upper_us]
    return f" ◂ {' '.join(here)}" if here else ""


def _compared(report: Report, screen: Screen) -> Iterator[str]:
    return compared_lines(report, screen)


def _sweep(report: Report, screen: Screen) -> Iterator[str]:
    return sweep_lines(report, screen)


def _soak(report: Report, screen: Screen) -> Iterator[str]:
    return soak_lines(report, screen)


def _foot(report: Report, screen: Screen) -> Iterator[str]:
    """How it was measured, and on what: without it a number means nothing."""
    for line in (_how(report), machine(report.machine), _serving(report), _quiet(report)):
        if line:
            yield from (_styled(each, screen, dim=True) for each in wrapped(line, screen))
    for note in report.notes:
        yield from wrapped(f"Note: {note}", screen)


def _how(report: Report) -> str:
    used = report.settings
    clients = "one client" if used.clients == 1 else f"{used.clients} clients"
    loop = f"{used.rate:g} requests a second ({used.arrivals})" if used.rate else "one request after the other"
    in_turn = " in turn" if len(report.paths) > 1 or report.sweep else ""
    rounds = words.counted(used.rounds, "round") + in_turn
    return f"{loop}, {clients}, {used.cases}, {rounds}, {words.seconds(used.duration_s)}"


def _serving(report: Report) -> str:
    told = f"onnxruntime {report.onnxruntime}"
    if report.server is None:
        return told
    memory = f", {words.size(report.server.resident_bytes)} of memory" if report.server.resident_bytes else ""
    return f"{told}; the server was ready in {words.seconds(report.server.ready_s)}{memory}"


def _quiet(report: Report) -> str:
    noise = report.noise
    if noise.noisy:
        return f"The machine is noisy: {'; '.join(noise.reasons)}."
    told = [f"quiet enough: work that always is the same took {noise.ratio:.2g} times as long at p99", *noise.remarks]
    return "; ".join(told)


_PARTS: Final[tuple[Callable[[Report, Screen], Iterator[str]], ...]] = (
    _verdict,
    _next,
    _paths,
    _histogram,
    _compared,
    _sweep,
    _soak,
    _foot,
)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _styled(
    text: str, screen: Screen, *, fg: str | None = None, bold: bool | None = None, dim: bool | None = None
) -> str:
    return click.style(text, fg=fg, bold=bold, dim=dim) if screen.colour else text
