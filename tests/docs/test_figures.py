"""Figures in the README are those that the benchmarks kept."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from benchmarks.latency import page

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "benchmarks/results"


def test_the_readme_quotes_what_was_measured() -> None:
    words = " ".join((ROOT / "README.md").read_text().split())
    update = json.loads((RESULTS / "update_under_load.json").read_text())["rows"]
    steady, during = update["steady"], update["during an update"]
    assert (
        f"waits {during['p99_us'] / 1000:.1f} ms at p99 instead of {steady['p99_us'] / 1000:.1f}, and"
        f" {during['p99.9_us'] / 1000:.1f} at p99.9 instead of {steady['p99.9_us'] / 1000:.1f}"
    ) in words
    update = json.loads((RESULTS / "update_under_load-2026-11-28.json").read_text())["rows"]
    steady, during = update["steady"], update["during an update"]
    assert f"{steady['p99_us'] / 1000:.1f}" == f"{during['p99_us'] / 1000:.1f}"
    assert (
        f"on a faster one {during['p99_us'] / 1000:.1f} as without, and {during['p99.9_us'] / 1000:.1f} instead of"
        f" {steady['p99.9_us'] / 1000:.1f}"
    ) in words
    outbox = json.loads((RESULTS / "outbox.json").read_text())["rows"]
    assert f"costs {outbox['outbox, one caller']['ratio']:.1f} plain SQLite commits, half of one with 16" in words
    assert 0.4 < outbox["outbox, 16 callers"]["ratio"] < 0.6


def test_the_page_on_performance_quotes_what_updates_and_swaps_cost() -> None:
    page = (ROOT / "docs/performance.md").read_text()
    for name, busy in (("update_under_load", "during an update"), ("swaps", "during swaps")):
        rows = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
        ratios = rows["ratio, median of the rounds"]
        for row in ("steady", busy):
            cells = " | ".join(f"{rows[row][each]:,.0f}" for each in ("p50_us", "p99_us", "p99.9_us", "max_us"))
            assert f"| {cells} |" in page, name
        assert f"p99 {ratios['p99']:.2f} ×, p99.9 {ratios['p99.9']:.2f} ×" in page, name
    mib = json.loads((RESULTS / "swaps.json").read_text())["rows"]["resident, MiB"]
    assert f"{mib['first']:.1f} MiB after the first and {mib['last']:.1f} after the last of 200 swaps" in page


def test_the_page_on_performance_counts_the_goals_that_are_reached() -> None:
    words = " ".join((ROOT / "docs/performance.md").read_text().split())
    for name, form in (
        ("latency", "Of 31 goals {} are reached, {} are within the noise, and {} are missed"),
        ("latency-2026-11-28", "where {} were reached, {} within the noise and {} missed"),
    ):
        goals = json.loads((RESULTS / f"{name}.json").read_text())["goals"]
        found = Counter(goal["verdict"] for goal in goals)
        counts = [found.pop(verdict, "none") for verdict in ("reached", "within the noise", "missed")]
        assert not found
        assert len(goals) == 31
        assert form.format(*counts) in words


@pytest.mark.parametrize(
    ("name", "begin", "end"),
    [("latency", "## Goals", "## Beside echo"), ("latency-2026-11-29-small", "## After that run", "## Another host")],
)
def test_the_page_on_performance_tells_each_goal_that_is_missed(name: str, begin: str, end: str) -> None:
    section = (ROOT / "docs/performance.md").read_text().partition(begin)[2].partition(end)[0]
    words = section.partition("<!-- goals")[0]
    goals = json.loads((RESULTS / f"{name}.json").read_text())["goals"]
    for goal in goals:
        if goal["verdict"] == "missed":
            told = re.search(rf"(?<![\d.]){page.number(goal['found'])}(?![\d.]*\d)", words)
            assert told, goal["name"]


def test_the_page_on_performance_says_how_the_hosts_differ() -> None:
    rows = (ROOT / "docs/performance.md").read_text()
    one_core, two_cores = [
        [("wdbc-risk", server, way, placement, 1) for server in ("echo", "ours") for way in ("tcp", "frames")]
        for placement in ("one core", "two cores")
    ]
    models = [(name, "raw", "run", "one core", 1) for name in ("wdbc-risk", "ecg-rhythm", "imaging-latency")]
    for cases in (models, one_core[:2], two_cores[:2], one_core[2:], two_cores[2:]):
        ratios = [_figure("latency", each, "p50_us") / _figure("latency-2026-11-28", each, "p50_us") for each in cases]
        assert f"| {', '.join(f'{each:.1f} ×' if each > 1 else f'{each:.2f} ×' for each in ratios)} |" in rows


def test_the_readme_quotes_what_was_answered_a_second() -> None:
    words = " ".join((ROOT / "README.md").read_text().split())
    for name, form in (
        ("latency", "{} answers a second over shared memory and {} over TCP; FastAPI with orjson gives {}."),
        ("latency-2026-11-28", "(On a faster host {}, {} and {}.)"),
    ):
        figures = [_per_s(name, *each) for each in (("ours", "frames"), ("ours", "tcp"), ("fastapi", "tcp"))]
        assert form.format(*figures) in words


def test_the_fleet_page_quotes_what_one_machine_carried() -> None:
    page = (ROOT / "docs/edgeward-fleet.md").read_text()
    assert "\n".join(fleet_rows()) in page


def fleet_rows() -> list[str]:
    """The table of docs/edgeward-fleet.md, from what was kept."""
    kept = [json.loads((RESULTS / f"fleet_{link}.json").read_text())["rows"] for link in ("https", "mqtt")]
    committed = "rollout, approval to committed"
    during = [f"page {page}, during the rollout" for page in ("Fleet", "Devices", "Rollout")]
    slowest = [max(rows[page]["p95_ms"] for page in during) for rows in kept]
    return [
        "|  | HTTPS | MQTT |",
        "| --- | ---: | ---: |",
        _row("all back after an outage, p95", "s", [rows["back after an outage"]["p95_s"] for rows in kept]),
        _row("approved to committed, p95", "s", [rows[committed]["p95_s"] for rows in kept]),
        _row("the fleet during the rollout, of one core", "%", [_cpu(rows[committed]) for rows in kept]),
        _row("a page during the rollout, p95 of the slowest", "ms", slowest),
        _row("the fleet at rest, of one core", "%", [_cpu(rows["idle"]) for rows in kept]),
        _row("the page Fleet at rest, p95", "ms", [rows["page Fleet"]["p95_ms"] for rows in kept]),
        _row("the fleet's memory", "MiB", [rows["idle"]["fleet_rss_mib"] for rows in kept]),
    ]


def _cpu(row: dict[str, float]) -> float:
    return row["fleet_percent_of_a_core"]


def _row(what: str, unit: str, figures: list[float]) -> str:
    return f"| {what} | " + " | ".join(f"{each:,.0f} {unit}" for each in figures) + " |"


def _per_s(result: str, server: str, way: str) -> str:
    """Of the small model, four connections, nothing pinned."""
    return f"{_figure(result, ('wdbc-risk', server, way, 'free', 4), 'per_s'):,.0f}"


def _figure(result: str, wanted: tuple[str, str, str, str, int], name: str) -> float:
    cases = json.loads((RESULTS / f"{result}.json").read_text())["cases"]
    keys = ("model", "server", "way", "placement", "connections")
    (found,) = [float(each["figures"][name]) for each in cases if tuple(each[key] for key in keys) == wanted]
    return found
