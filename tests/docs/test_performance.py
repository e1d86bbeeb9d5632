"""The page on performance and its chart say what was measured, and nothing else."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarks.latency import chart, page, result
from benchmarks.latency.names import SERVERS
from benchmarks.latency.result import Kept


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
