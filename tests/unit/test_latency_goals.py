"""How the latency benchmark judges: intervals over rounds, ratios within a round, goals and their verdicts."""

from __future__ import annotations

from operator import sub
from typing import cast

import numpy as np
import pytest
from benchmarks.latency import goals, noise, plan, rounds
from benchmarks.latency.goals import Goal, Rounds, Verdict
from benchmarks.latency.native import Sample
from benchmarks.latency.plan import Case, Placement
from benchmarks.latency.statistics import Estimate, estimate, paired, ratios
from benchmarks.latency.store import Line
from benchmarks.latency.workload import NAMES, Workload


def test_seven_rounds_give_their_smallest_and_largest() -> None:
    found = estimate([3.0, 1.0, 7.0, 2.0, 5.0, 4.0, 6.0])
    assert (found.low, found.median, found.high, found.rounds) == (1.0, 4.0, 7.0, 7)
    assert found.confidence == pytest.approx(1 - 2 / 2**7)


def test_more_rounds_narrow_the_interval_as_far_as_95_percent_allows() -> None:
    found = estimate([float(value) for value in range(1, 10)])
    assert (found.low, found.high) == (2.0, 8.0)
    assert 0.95 <= found.confidence < 0.97


@pytest.mark.parametrize(("count", "confidence"), [(1, 0.0), (3, 0.75), (5, 0.9375)])
def test_few_rounds_say_how_little_they_know(count: int, confidence: float) -> None:
    found = estimate([float(value) for value in range(count)])
    assert (found.low, found.high, found.confidence) == (0.0, float(count - 1), confidence)


def test_no_round_is_no_estimate() -> None:
    with pytest.raises(ValueError, match="expected a value for at least one round"):
        estimate([])


def test_only_rounds_that_have_both_are_compared() -> None:
    assert ratios({0: 4.0, 1: 9.0}, {1: 3.0, 2: 1.0}) == [3.0]
    assert paired({0: [4.0], 1: [9.0]}, {1: [3.0], 2: [1.0]}, sub) == [6.0]


def test_turns_are_compared_with_those_of_the_same_pass() -> None:
    assert paired({0: [10.0, 22.0, 14.0]}, {0: [8.0, 19.0, 10.0]}, sub) == [3.0]


@pytest.mark.parametrize(
    ("low", "high", "at_least", "verdict"),
    [
        (1.0, 2.0, False, Verdict.REACHED),
        (1.0, 2.1, False, Verdict.CLOSE),
        (2.1, 3.0, False, Verdict.MISSED),
        (2.0, 3.0, True, Verdict.REACHED),
        (1.9, 3.0, True, Verdict.CLOSE),
        (1.0, 1.9, True, Verdict.MISSED),
    ],
)
def test_a_goal_is_reached_when_the_whole_interval_is(
    low: float, high: float, at_least: bool, verdict: Verdict
) -> None:
    found = Estimate(median=(low + high) / 2, low=low, high=high, rounds=7, confidence=0.98)
    assert Goal(name="x", limit=2.0, unit="×", at_least=at_least, found=found).verdict is verdict


def test_what_was_not_measured_is_not_reached() -> None:
    assert {goal.verdict for goal in goals.goals(Rounds([]))} == {Verdict.UNKNOWN}


def _line(server: str, way: str, number: int, **turns: list[float]) -> Line:
    case = Case(model="wdbc-risk", server=server, way=way, placement=Placement.ONE_CORE, connections=1)
    named = {f"{name}_us": values for name, values in turns.items()}
    return Line(key=case.key, round=number, figures={name: max(values) for name, values in named.items()}, turns=named)


def test_goals_are_read_off_the_turns_of_rounds() -> None:
    """A host that is twice as slow for one pass is so for both."""
    lines = [
        _line("ours", "tcp", number, p50=[80.0, 40.0 + number, 44.0], p99=[90.0, 90.0, 9.0]) for number in range(7)
    ]
    lines += [_line("echo", "tcp", number, p50=[20.0, 10.0, 10.0], p99=[10.0, 10.0, 10.0]) for number in range(7)]
    median, tail = goals.goals(Rounds(lines))[:2]
    assert median.found is not None and (median.found.median, median.verdict) == (4.3, Verdict.CLOSE)
    assert tail.found is not None and (tail.found.median, tail.verdict) == (9.0, Verdict.MISSED)


def test_a_round_that_failed_counts_for_nothing() -> None:
    key = _line("ours", "tcp", 0).key
    assert Rounds([Line(key=key, round=0, figures={}, note="no")]).of(key, "p50_us") == {}


def test_every_case_that_a_goal_needs_is_measured() -> None:
    """A goal whose key nobody measures would say "not measured" for ever."""
    keys = {case.key for case in plan.cases(NAMES, plan.servers())}
    figures, turns = {"p99_us": 1.0, "p50_us": 1.0, "per_s": 1.0, "rss_mib": 1.0}, {"p50_us": [1.0], "p99_us": [1.0]}
    found = goals.goals(Rounds([Line(key=key, round=0, figures=figures, turns=turns) for key in keys]))
    beside = ("metrics", "update", "Python client", "first answer")
    missing = [goal.name for goal in found if goal.found is None and not any(each in goal.name for each in beside)]
    assert missing == []


def test_no_case_is_measured_twice() -> None:
    keys = [case.key for case in plan.cases(NAMES, plan.servers())]
    assert len(keys) == len(set(keys))


def test_what_is_held_against_each_other_is_one_block_of_several_passes() -> None:
    cases = plan.cases(NAMES, plan.servers())
    blocks = plan.blocks(cases)
    together = [case for block in blocks for case in block]
    assert len(together) == len(cases) and set(together) == set(cases)
    of = {case.key: block for block in blocks for case in block}
    for server, way, model, placement in (
        ("echo", "frames", "wdbc-risk", Placement.ONE_CORE),
        ("raw", "run", "imaging-latency", Placement.FREE),
    ):
        against = Case(model=model, server=server, way=way, placement=placement, connections=1)
        for ours in ("ours", "bare"):
            assert Case(model=model, server=ours, way="frames", placement=placement, connections=1) in of[against.key]
        wanted = plan.PASSES if model == plan.SMALL else plan.PASSES_OF_LARGE
        assert {plan.passes(case) for case in of[against.key]} == {wanted}
    alone = [block for block in blocks if plan.passes(block[0]) == 1]
    assert all(len(block) == 1 for block in alone)
    assert {block[0].connections for block in alone if block[0].server == "ours"} == {4, 16}


def test_turns_of_a_case_count_as_one() -> None:
    parts = [
        Sample(latencies_ns=np.array(each, np.uint64), per_s=per_s) for each, per_s in (([1, 5], 10.0), ([2, 3], 30.0))
    ]
    merged = Sample.merged(parts)
    assert merged.latencies_ns.tolist() == [1, 2, 3, 5]
    assert merged.per_s == 20.0


def test_turns_are_kept_in_the_order_of_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """There and back: what is held against each other must not be of two passes."""
    block = plan.blocks(plan.cases(["wdbc-risk"], ["raw", "raw huge"]))[0]
    order: list[str] = []

    def sample(case: Case, _: rounds.Running) -> Sample:
        order.append(case.key)
        return Sample(latencies_ns=np.array([1000 * order.count(case.key)], np.uint64), per_s=1.0)

    monkeypatch.setattr(rounds, "_sample", sample)
    monkeypatch.setattr(noise, "undisturbed", lambda measure, careful: measure())
    running = rounds.Running(workload=cast(Workload, None), pace=1.0, servers={}, missing={})
    lines = rounds._measured(block, 0, running)
    keys = [case.key for case in block]
    assert order == 2 * [*keys, *keys[::-1]]
    assert [line.turns["p50_us"] for line in lines] == len(block) * [[1.0, 2.0, 3.0, 4.0]]
