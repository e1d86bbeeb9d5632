"""docs/performance.md and its chart: written from the kept result, and a test holds them to it.

python -m benchmarks.latency.page        writes the tables and the chart again
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.latency import chart, result
from benchmarks.latency.names import SERVERS, WAYS
from benchmarks.latency.result import CaseRow, GoalRow, Kept
from benchmarks.report import FOLDER

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PAGE: Final = ROOT / "docs/performance.md"
CHART: Final = ROOT / "docs/performance.svg"
_MODEL: Final = ("raw", "run")
_BLOCK: Final = re.compile(
    r"(<!-- (\w+)(?: of ([\w.-]+))?: benchmarks/latency/page.py writes this -->\n).*?(<!-- end -->)", re.DOTALL
)


def written(page: str, kept: Kept) -> str:
    """The page with every block made anew, from `kept` or, where the block says so, from an earlier result.

    Raises KeyError for a block that nobody writes, OSError for a result that is not kept.
    """

    def block(found: re.Match[str]) -> str:
        source = result.read(FOLDER / found[3]) if found[3] else kept
        return f"{found[1]}\n{_BLOCKS[found[2]](source)}\n{found[4]}"

    return _BLOCK.sub(block, page)


def _machine(kept: Kept) -> str:
    machine = kept.machine
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
        f"ONNX Runtime {machine['onnxruntime']}; {kept.at[:10]}.\n"
    )


def goals_table(kept: Kept) -> str:
    """Every goal beside what was found."""
    rows = [(each.name, _limit(each), _found(each), each.verdict) for each in kept.goals]
    return _table(("", "goal", "found (interval; rounds)", ""), rows, "lrrl")


def _limit(goal: GoalRow) -> str:
    return f"{'≥' if goal.at_least else '≤'} {goal.limit:g} {goal.unit}"


def _found(goal: GoalRow) -> str:
    if goal.found is None:
        return "–"
    return f"{number(goal.found)} {goal.unit} ({number(goal.low)} to {number(goal.high)}; {goal.rounds})"


def _added(kept: Kept) -> str:
    """What one request costs above what nobody can save: the echo of the same bytes, and the model alone."""
    cases = {(each.model, each.placement, each.server, each.way): each for each in kept.cases if each.connections == 1}
    rows = []
    for (model, placement, server, way), ours in cases.items():
        alone, floor = cases.get((model, placement, *_MODEL)), cases.get((model, placement, "echo", way))
        if server not in ("ours", "bare") or alone is None or floor is None:
            continue
        least, found = alone.figures["p50_us"] + floor.figures["p50_us"], ours.figures["p50_us"]
        rows.append(
            (model, placement, SERVERS[server], WAYS[way], *map(number, (float(f"{least:.4g}"), found, found / least)))
        )
    return _table(("model", "placement", "server", "way", "floor + model µs", "p50 µs", "×"), rows, "llllrrr")


def _pinned(kept: Kept) -> str:
    wanted = [each for each in kept.cases if each.placement != "free"]
    return _latencies(wanted, ("model", "placement"))


def _free(kept: Kept) -> str:
    wanted = [each for each in kept.cases if each.placement == "free"]
    return _latencies(sorted(wanted, key=lambda each: (_model_order(kept, each), each.connections)), ("model",))


def _model_order(kept: Kept, case: CaseRow) -> int:
    return list(dict.fromkeys(each.model for each in kept.cases)).index(case.model)


def _latencies(cases: Sequence[CaseRow], first: tuple[str, ...]) -> str:
    heads = (*first, "connections", "server", "way", "p50 µs", "p99 µs", "p99.9 µs", "answers/s", "RSS MiB")
    rows = [(*(str(getattr(each, name)) for name in first), *_cells(each)) for each in cases]
    return _table(heads, rows, "l" * len(first) + "rllrrrrr")


def _cells(case: CaseRow) -> tuple[str, ...]:
    who = (str(case.connections), SERVERS[case.server], WAYS[case.way])
    if case.note:
        return (*who, case.note, "", "", "", "")
    figures = ("p50_us", "p99_us", "p99.9_us", "per_s", "rss_mib")
    return (*who, *(number(case.figures[name]) if name in case.figures else "" for name in figures))


def _beside(kept: Kept) -> str:
    rows = [(key, name, number(value)) for key, each in kept.beside.items() for name, value in each.items()]
    return _table(("", "", ""), rows, "llr")


_BLOCKS: Final[dict[str, Callable[[Kept], str]]] = {
    "machine": _machine,
    "goals": goals_table,
    "added": _added,
    "pinned": _pinned,
    "free": _free,
    "beside": _beside,
}


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    rule = ["---:" if side == "r" else "---" for side in align]
    lines = [heads, rule, *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def number(value: float) -> str:
    """As the page writes a figure."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def main() -> None:
    """Write the page and the chart again."""
    kept = result.read()
    PAGE.write_text(written(PAGE.read_text(), kept))
    CHART.write_text(chart.drawn(kept))


if __name__ == "__main__":
    main()
