"""The short form of `make bench`: the measurements run and fail on a failed request. What they measure is no test."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from benchmarks import outbox, update_under_load
from benchmarks.fleet.device import Pace
from benchmarks.fleet.scenario import Plan
from benchmarks.fleet.scenario import measure as measure_fleet

from support import mosquitto


def test_an_update_costs_the_bedside_no_request() -> None:
    rows = update_under_load.measure(rounds=1, steady_s=1.0).rows
    assert rows["during an update"]["requests"] > 100
    assert set(rows["ratio, median of the rounds"]) == {"p50", "p99", "p99.9"}


def test_durable_records_are_compared_with_plain_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = outbox.measure(rounds=1).rows
    assert rows["SQLite, a commit each"]["ratio"] == 1
    assert all(figures["median_us_per_record"] > 0 for figures in rows.values())


@pytest.mark.parametrize("link", ["https", "mqtt"])
def test_a_simulated_fleet_comes_back_and_takes_a_release(link: Literal["https", "mqtt"]) -> None:
    if link == "mqtt":
        mosquitto.command()
    pace = Pace(probe_s=0.1, probation_s=0.5, records_every_s=0.5)
    plan = Plan(link=link, devices=30, pace=pace, outage_s=0.2, calm_s=0, idle_s=0.5, page_loads=2, patience_s=60)
    rows = measure_fleet(plan).rows
    assert [figures["lost"] for figures in rows.values() if "lost" in figures] == [0, 0, 0, 0]
    told = 5 if link == "https" else 0  # steps of the update; over a broker they are no requests
    assert rows["rollout, approval to committed"]["requests"] >= 30 * (
        1 + 2 + 4 + 1 + told
    )  # manifest, indexes, chunks
    assert rows["idle"]["fleet_rss_mib"] > 0
    assert {name for name in rows if name.startswith("page ")} > {"page Fleet", "page Devices"}
