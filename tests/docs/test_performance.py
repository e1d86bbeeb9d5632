"""The page on performance and its chart say what was measured, and nothing else."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from benchmarks.latency import chart, page, result
from benchmarks.latency.names import SERVERS
from benchmarks.latency.result import CaseRow, Kept


@pytest.fixture(scope="module")
def kept() -> Kept:
    return result.read()


def test_the_page_says_what_the_result_says(kept: Kept) -> None:
    assert page.PAGE.read_text() == page.written(page.PAGE.read_text(), kept), "run: python -m benchmarks.latency.page"


def test_the_chart_shows_what_the_result_says(kept: Kept) -> None:
    assert page.CHART.read_text() == chart.drawn(kept), "run: python -m benchmarks.latency.page"


def test_the_chart_is_a_picture_with_a_title(checkout: Path) -> None:
    root = ElementTree.fromstring((checkout / "docs/performance.svg").read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{http://www.w3.org/2000/svg}title") is not None


def test_the_result_holds_every_server(kept: Kept) -> None:
    """A peer that could not be had is a row with its reason, not a row that is missing."""
    assert {row.server for row in kept.cases} == set(SERVERS)
    assert all(row.figures or row.note for row in kept.cases)


def test_a_block_may_be_of_an_earlier_result(kept: Kept) -> None:
    form = "<!-- machine{}: benchmarks/latency/page.py writes this -->\n<!-- end -->"
    assert kept.at[:10] in page.written(form.format(""), kept)
    assert "2026-11-28" in page.written(form.format(" of latency-2026-11-28.json"), kept)
    with pytest.raises(FileNotFoundError):
        page.written(form.format(" of never.json"), kept)


def test_what_ours_takes_stands_beside_its_floor_and_the_model(kept: Kept) -> None:
    rows = [
        CaseRow(model="m", server=server, way=way, placement="free", connections=1, figures={"p50_us": p50})
        for server, way, p50 in (
            ("raw", "run", 10.0),
            ("echo", "tcp", 30.0),
            ("ours", "tcp", 60.0),
            ("ours", "unix", 50.0),
        )
    ]
    form = "<!-- added: benchmarks/latency/page.py writes this -->\n<!-- end -->"
    table = page.written(form, msgspec.structs.replace(kept, cases=rows)).splitlines()
    assert table[4:-2] == ["| m | free | Edgeward | TCP | 40 | 60 | 1.5 |"]
