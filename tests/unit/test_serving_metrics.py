"""The page of metrics: what it counts, that Prometheus can read it, and that its documentation is whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest

from edgeward_agent.serving.metrics import METRICS, Look, exposition
from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.release import Version, load_model, read_manifest
from edgeward_agent.serving.statistics import Statistics
from edgeward_agent.serving.traffic import TrafficMeter
from edgeward_contract.artifact import ModelName
from support.serving import constant_release

_SAMPLE = re.compile(r'[a-z_]+(\{([a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*\})? [0-9.e+-]+')


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Version:
    folder = constant_release(tmp_path_factory.mktemp("m"), 1.0, version=3).folder
    return load_model(folder / "model.onnx", *read_manifest(folder / "manifest.json"))


def _page(*versions: Version) -> dict[str, float]:
    look = Look(
        versions=[(each, True) for each in versions],
        refusals={404: 2, 400: 1},
        waiting=5,
        not_kept=4,
        cpu_s=1.5,
        started_s=7.25,
    )
    lines = [line for line in exposition(look).decode().splitlines() if not line.startswith("#")]
    assert all(_SAMPLE.fullmatch(line) for line in lines)
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_each_ending_is_counted_once(loaded: Version) -> None:
    traffic = loaded.traffic = TrafficMeter()
    for _ in range(3):
        traffic.answered(20_000)
    traffic.late += 1
    traffic.failed()
    traffic.invalid += 2
    for outcome in (Outcome.REFUSED, Outcome.FULL, Outcome.EXPIRED, Outcome.UNRECORDED, Outcome.ABANDONED):
        traffic.not_answered(outcome)
    counts = traffic.outcomes()
    assert counts.keys() == set(Outcome)
    assert [counts[each] for each in (Outcome.ANSWERED, Outcome.LATE, Outcome.FAILED, Outcome.INVALID)] == [2, 1, 1, 2]
    assert sum(counts.values()) == 11
    page = _page(loaded)
    assert page['edgeward_requests_total{model="toy",version="3",outcome="invalid"}'] == 2
    assert page['edgeward_requests_total{model="toy",version="3",outcome="abandoned"}'] == 1
    assert page['edgeward_refusals_total{code="404"}'] == 2
    assert page["edgeward_waiting_requests"] == 5
    assert page["edgeward_results_not_kept_total"] == 4
    assert page["process_start_time_seconds"] == 7.25


def test_times_fall_into_buckets_of_powers_of_two(loaded: Version) -> None:
    traffic = loaded.traffic = TrafficMeter()
    for us in (1, 8, 31, 32, 33, 5_000_000, 3_600_000_000):
        traffic.answered(us * 1000)
        loaded.statistics.answered(1, 0, 0, us * 1000, 2 * us * 1000, 0)
    page = _page(loaded)
    labels = 'model="toy",version="3"'
    for name, factor in (("request", 1), ("queue", 1), ("compute", 2)):
        bounds = [key for key in page if key.startswith(f"edgeward_{name}_seconds_bucket")]
        counts = [page[key] for key in bounds]
        assert counts == sorted(counts)
        assert bounds[0].endswith('le="8e-06"}') and bounds[-1].endswith('le="+Inf"}')
        assert page[f'edgeward_{name}_seconds_bucket{{{labels},le="{3.2e-05 * factor:.9g}"}}'] == 3
        assert page[f'edgeward_{name}_seconds_bucket{{{labels},le="16.777216"}}'] == 6
        assert page[f"edgeward_{name}_seconds_count{{{labels}}}"] == 7
        assert page[f"edgeward_{name}_seconds_sum{{{labels}}}"] == pytest.approx(3605.000105 * factor)


def test_a_name_cannot_break_the_page(loaded: Version) -> None:
    loaded.name, before = ModelName('a"b\\c\nd'), loaded.name
    try:
        assert 'edgeward_model_live{model="a\\"b\\\\c\\nd",version="3"}' in _page(loaded)
    finally:
        loaded.name = before


def test_every_metric_is_documented_with_its_kind_and_labels(checkout: Path, loaded: Version) -> None:
    rows = [line.split(" | ") for line in (checkout / "docs/metrics.md").read_text().splitlines() if "| `" in line]
    documented = {row[0].strip("|` "): (row[1], set(re.findall(r"`(\w+)`", row[2]))) for row in rows}
    told: dict[str, set[str]] = {}
    for sample in _page(loaded):
        name, _, labels = sample.partition("{")
        family = name if name in METRICS else re.sub("_(bucket|sum|count)$", "", name)
        told[family] = set(re.findall(r"(\w+)=", labels)) - {"le"}
    assert documented == {name: (metric.kind, told[name]) for name, metric in METRICS.items()}


def test_names_follow_the_rules_of_prometheus() -> None:
    for name, metric in METRICS.items():
        assert re.fullmatch(r"[a-z_]+", name)
        assert name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")


def test_what_ran_together_is_counted_as_requests_rows_and_one_run() -> None:
    statistics = Statistics()
    statistics.ran(statistics.batch(2), 2, 1_000, 20_000, 3_000)  # alone, and at once
    statistics.answered(3, 8, 1_000, 500_000, 40_000, 2_000)  # the first of three that were one
    statistics.answered(4, None, 1_000, 700_000, 40_000, 2_000)
    statistics.answered(1, None, 1_000, 900_000, 40_000, 2_000)
    assert (statistics.requests, statistics.inferences, statistics.executions) == (4, 10, 2)
    assert statistics.infer_ns == 20_000 + 3 * 40_000
    assert statistics.queue_ns == 2_100_000
    assert sum(statistics.queue_counts) == sum(statistics.infer_counts) == 4
    assert statistics.queue_counts[0] == 1
    document = statistics.document("toy", 3, 0)
    told = cast(Any, document["inference_stats"])
    assert told["compute_input"] == {"count": 4, "ns": 4_000}
    assert told["compute_output"] == {"count": 4, "ns": 9_000}
    assert told["success"]["ns"] == 4_000 + 9_000 + statistics.infer_ns + statistics.queue_ns
    batches = cast(Any, document["batch_stats"])
    assert [(each["batch_size"], each["compute_infer"]) for each in batches] == [
        (2, {"count": 1, "ns": 20_000}),
        (8, {"count": 1, "ns": 40_000}),
    ]


def test_a_client_cannot_make_the_statistics_grow() -> None:
    statistics = Statistics()
    for rows in range(1, 1001):
        statistics.answered(rows, rows, 0, 0, 1_000, 0)
    statistics.ran(statistics.batch(70), 70, 0, 1_000, 0)
    assert statistics.inferences == sum(range(1001)) + 70
    assert (statistics.requests, statistics.executions) == (1001, 1001)
    assert len(cast(Any, statistics.document("toy", 3, 0)["batch_stats"])) == 64
