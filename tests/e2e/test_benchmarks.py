"""The short form of `make bench`: the measurements run and fail on a failed request. What they measure is no test."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import outbox, update_under_load


def test_an_update_costs_the_bedside_no_request() -> None:
    rows = update_under_load.measure(rounds=1, steady_s=1.0).rows
    assert rows["during an update"]["requests"] > 100
    assert set(rows["ratio, median of the rounds"]) == {"p50", "p99"}


def test_durable_records_are_compared_with_plain_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = outbox.measure(rounds=1).rows
    assert rows["SQLite, a commit each"]["ratio"] == 1
    assert all(figures["median_us_per_record"] > 0 for figures in rows.values())
