"""The report as one page, with no script, font or picture from elsewhere: it can be mailed, and opened years later."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from typing import Final

from edgeward_agent.bench import words
from edgeward_agent.bench.page_charts import course, curve, histogram, settings_chart, soak_charts
from edgeward_agent.bench.report import Compared, PathResult, Quantiles, Report, SweepRow
from edgeward_agent.bench.sweeping_words import MARKS
from edgeward_agent.bench.telling import cut_short, growth, headline, machine, overload, uncompared
from edgeward_agent.bench.terminal_modes import pace
from edgeward_agent.bench.words import Unit, percent, small, unit_for

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
_HEADS: Final = ("n", "p50", "p90", "p99", "p99.9", "max")


def page(report: Report) -> str:
    """A whole HTML document."""
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    cards = "\n".join(card for part in _CARDS for card in part(report))
    title = escape(f"{report.model.title}: how long an answer takes")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n{cards}\n</main>\n</body>\n</html>\n"
    )


def _verdict(report: Report) -> Iterator[str]:
    found = headline(report)
    told = cut_short(report)
    note = f'<p class="warning">{escape(_capital(told))}</p>' if told else ""
    if found is None:
        yield note
        return
    yield (
        f'<header class="card verdict {found.word.lower()}"><p class="eyebrow">edgeward-agent bench</p>{note}'
        f'<p class="badge">{found.word}</p><h1>{escape(_capital(found.sentence))}</h1>'
        f"<p>{escape(found.sure)}</p></header>"
    )


def _latencies(report: Report) -> Iterator[str]:
    if not report.paths or report.sweep:
        return
    unit = unit_for(max((path.latency.p50_us or 0.0) for path in report.paths))
    rows = "".join(row for path in report.paths for row in _path_rows(path, unit))
    added = "".join(
        f"<p>At the median, {escape(each.path)} adds {escape(words.with_interval(each.difference))}.</p>"
        for each in report.added
    )
    failed = "".join(
        f'<p class="warning">{escape(path.name)}: {path.failed:,} of {path.n:,} had no answer, which counts as late:'
        f" {escape(path.failure)}</p>"
        for path in report.paths
        if path.failed
    )
    if told := overload(report):
        failed += f'<p class="warning">{escape(told)}</p>'
    table = _table((f"latency in {unit.name}", *_HEADS), rows)
    yield _card("How long an answer takes", table + added + failed)


def _path_rows(path: PathResult, unit: Unit) -> Iterator[str]:
    yield _row((path.name, f"{path.n:,}", *_numbers(path.latency, unit)))
    if path.from_sending is not None:
        yield _row(("once sent, without the wait before", "", *_numbers(path.from_sending, unit)), "sub")


def _numbers(found: Quantiles, unit: Unit) -> Iterator[str]:
    for value in (found.p50_us, found.p90_us, found.p99_us, found.p999_us, found.max_us):
        yield unit.number(value)


def _charts(report: Report) -> Iterator[str]:
    for title, words_below, drawing in (
        (
            "By quantile",
            "Read: so many of a hundred answers were there by then. Both axes are logarithmic.",
            curve(report),
        ),
        ("How they spread", "", histogram(report)),
        ("Over the run", "p99 of each round.", course(report)),
    ):
        if drawing:
            below = f'<p class="small quiet">{words_below}</p>' if words_below else ""
            yield _card(title, f"<figure>{drawing}</figure>{below}")


def _compared(report: Report) -> Iterator[str]:
    found = report.compared
    if found is None:
        return
    name = "INT8" if found.kind == "quantize" else found.second.title
    warnings = "".join(f'<p class="warning">{escape(each)}</p>' for each in found.warnings)
    paces = "".join(
        f"<p>{escape(pace(name, time, tail.difference))}</p>"
        for time, tail in zip(found.times, found.tails, strict=True)
    )
    yield _card(f"{report.model.title} and {name}", warnings + paces + _answers(found))


def _answers(found: Compared) -> str:
    rows = "".join(
        _row(
            (
                each.name,
                small(each.max_abs),
                small(each.max_rel),
                small(each.scale),
                percent(each.equal_share),
                words.NOTHING if each.argmax_agreement is None else percent(each.argmax_agreement),
            ),
            under=uncompared(each),
        )
        for each in found.outputs
    )
    golden = ""
    if found.golden is not None:
        cases, first, second = found.golden.cases, found.golden.first, found.golden.second
        golden = f"<p>Golden cases within tolerance: {first} and {second} of {cases}.</p>"
    heads = (f"answers to {found.cases}", "max abs", "max rel", "scale", "equal", "same argmax")
    return _table(heads, rows) + golden


def _sweep(report: Report) -> Iterator[str]:
    if not report.sweep:
        return
    unit = unit_for(min(row.p50_us for row in report.sweep if row.n))
    rows = "".join(
        _row(
            (
                f"{row.threads} × {row.provider}, batch {row.batch}",
                *_setting_numbers(row, unit),
            ),
            "best" if row.marks else "",
            under=row.failure or "; ".join(MARKS[mark] for mark in row.marks),
        )
        for row in report.sweep
    )
    heads = (f"threads, ep, batch; {unit.name}", "n", "p50", "p99", "p99 below, 95 %", "cases/s", "in budget")
    yield _card("Settings", f"<figure>{settings_chart(report)}</figure>{_table(heads, rows)}")


def _setting_numbers(row: SweepRow, unit: Unit) -> tuple[str, ...]:
    if row.failure:
        return ("0", *[words.NOTHING] * 5)
    return (
        f"{row.n:,}",
        unit.number(row.p50_us),
        unit.number(row.p99_us),
        unit.number(row.p99_upper_us),
        f"{row.cases_per_second:,.0f}",
        {"pass": "yes", "over": "no"}.get(row.outcome, "unsure"),
    )


def _soak(report: Report) -> Iterator[str]:
    if report.soak is None:
        return
    trends = "".join(
        f"<p{' class=warning' if each.too_much else ''}>{escape(_capital(growth(each)))}"
        f"{'' if each.sure else ' No trend beyond chance.'}</p>"
        for each in report.soak.trends
    )
    yield _card("Over the whole run", "".join(f"<figure>{each}</figure>" for each in soak_charts(report)) + trends)


def _next(report: Report) -> Iterator[str]:
    if report.next:
        items = "".join(
            f"<li>{f'<code>{escape(each.command)}</code>' if each.command else ''}{escape(each.why)}</li>"
            for each in report.next
        )
        yield _card("Next", f'<ul class="next">{items}</ul>')


def _foot(report: Report) -> Iterator[str]:
    used, noise = report.settings, report.noise
    loop = f"{used.rate:g} requests a second, {used.arrivals}" if used.rate else "one request after the other"
    facts = {
        "Model": report.model.path or report.model.title,
        "SHA-256": report.model.sha256,
        "Size": words.size(report.model.size_bytes) if report.model.size_bytes else "",
        "Inputs": "; ".join(report.model.inputs),
        "Asked": f"{loop}, {used.clients} at a time at most, {used.cases}",
        "Rounds": f"{used.rounds} of {used.planned_rounds}, {words.seconds(used.duration_s)}, on {report.at}",
        "Machine": machine(report.machine),
        "Software": f"edgeward {report.edgeward}, onnxruntime {report.onnxruntime}",
        "Noise": "; ".join((*noise.reasons, *noise.remarks))
        or f"quiet: work that always is the same took {noise.ratio:.2g} times as long at p99",
        "Notes": "; ".join(report.notes),
    }
    rows = "".join(f"<dt>{name}</dt><dd>{escape(text)}</dd>" for name, text in facts.items() if text)
    yield _card("How it was measured", f"<dl>{rows}</dl>")


_CARDS: Final = (_verdict, _next, _latencies, _compared, _sweep, _soak, _charts, _foot)


def _card(title: str, body: str) -> str:
    return f'<section class="card"><h2>{escape(title)}</h2>{body}</section>'


def _table(heads: Sequence[str], rows: str) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(cells: Sequence[str], kind: str = "", *, under: str = "") -> str:
    """`under` stands below the first cell: a column of its own would be wider than the page."""
    below = f'<span class="under">{escape(under)}</span>' if under else ""
    inner = f"<td>{escape(cells[0])}{below}</td>" + "".join(f"<td>{escape(each)}</td>" for each in cells[1:])
    return f'<tr class="{kind}">{inner}</tr>' if kind else f"<tr>{inner}</tr>"


def _capital(text: str) -> str:
    """Names of models and of quantiles keep their own letters."""
    first = text.split(" ")[0]
    return text if "@" in first or "." in first or first[1:].isdigit() else text[:1].upper() + text[1:]
