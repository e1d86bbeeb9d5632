"""What decides without a clock: budgets, verdicts, schedules, histograms, noise, drift."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.bench import bf16
from edgeward_agent.bench.budget import Budget, parse_budget, parse_time_s, quantile_name
from edgeward_agent.bench.cases import random
from edgeward_agent.bench.drift import LEAST_WINDOWS, trend
from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.histogram import Tallies, Tally, bars
from edgeward_agent.bench.noise import Surroundings, assess
from edgeward_agent.bench.quantiles import Floats, Sorted, bounds, quantile
from edgeward_agent.bench.schedule import (
    Arrivals,
    Plan,
    Wishes,
    grace,
    intended_starts,
    order,
    plan_closed,
    plan_open,
)
from edgeward_agent.bench.verdict import Outcome, Why, judge
from edgeward_agent.wire.tensors import floats_of_bf16
from edgeward_contract.manifest import Datatype, TensorSpec
from support.bench import MACHINE

TEN_MS = Budget(latency_us=10_000)
GENERATOR = np.random.default_rng(1)


@pytest.mark.parametrize(
    ("text", "latency_us", "share"),
    [
        ("10ms@p99", 10_000, 0.99),
        ("10ms", 10_000, 0.99),
        ("500us@p99.9", 500, 0.999),
        ("1.5 ms @ p50", 1500, 0.5),
        ("2s@p99.99", 2e6, 0.9999),
        ("80µs@p90", 80, 0.9),
        ("10MS@P99", 10_000, 0.99),
        ("80µS@P90", 80, 0.9),
        ("80ΜS", 80, 0.99),
    ],
)
def test_budgets_that_are_understood(text: str, latency_us: float, share: float) -> None:
    budget = parse_budget(text)
    assert budget.latency_us == latency_us and budget.share == pytest.approx(share)


@pytest.mark.parametrize(
    "text", ["10", "10@99", "ms", "-1ms", "0ms", "10ms@p100", "10ms@p0", "10ms@99", "10 m@p99", ""]
)
def test_budgets_that_are_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected .* (such as 10ms@p99|between p0 and p100)"):
        parse_budget(text)


def test_times_that_are_understood() -> None:
    assert [parse_time_s(text) for text in ("10", "10s", "300ms", "10m", "2min", "1.5h")] == [
        10,
        10,
        0.3,
        600,
        120,
        5400,
    ]
    for text in ("", "0s", "ten", "10d", "-3s"):
        with pytest.raises(ValueError, match="expected a length of time such as 10s"):
            parse_time_s(text)


def test_quantiles_have_their_usual_names() -> None:
    assert [quantile_name(share) for share in (0.5, 0.99, 0.999, 0.9995)] == ["p50", "p99", "p99.9", "p99.95"]


def rounds(value_us: float, n: int = 1000, late: int = 0, late_us: float = 50_000) -> list[Floats]:
    """Ten rounds; the late ones are spread evenly."""
    values = np.full(n, value_us) + GENERATOR.random(n)
    if late:
        values[:: n // late][:late] = late_us
    return np.array_split(values, 10)


@pytest.mark.parametrize(
    ("values", "outcome", "why"),
    [
        (rounds(1000), Outcome.PASS, Why.DECIDED),
        (rounds(1000, late=3), Outcome.PASS, Why.DECIDED),
        (rounds(20_000), Outcome.OVER, Why.DECIDED),
        (rounds(1000, late=40), Outcome.OVER, Why.DECIDED),
        (rounds(20_000, n=10), Outcome.OVER, Why.DECIDED),
        (rounds(1000, n=100), Outcome.INCONCLUSIVE, Why.TOO_FEW),
        (rounds(1000, late=10), Outcome.INCONCLUSIVE, Why.TOO_CLOSE),
        (rounds(1000, n=10), Outcome.INCONCLUSIVE, Why.TOO_FEW),
    ],
)
def test_a_verdict_rests_on_a_bound(values: list[Floats], outcome: Outcome, why: Why) -> None:
    found = judge("TCP", values, TEN_MS)
    assert (found.outcome, found.why) == (outcome, why)
    assert (found.needed_n > 0) == (why is Why.TOO_FEW)


def test_a_budget_far_beyond_every_answer_is_met_even_if_answers_come_in_bursts() -> None:
    slow = np.concatenate([np.full(90, 1.0), np.full(10, 9.0)])
    found = judge("TCP", [slow if at < 2 else np.full(100, 1.0) for at in range(20)], TEN_MS)
    assert found.outcome is Outcome.PASS and found.bounds.upper_us == 9.0


def test_late_answers_in_one_round_are_less_evidence_than_the_same_number_apart() -> None:
    apart = [np.append(np.full(49, 1.0), late) for late in [50_000.0] * 8 + [1.0] * 12]
    burst = [np.full(50, 1.0) for _ in range(20)]
    burst[0][:8] = 50_000.0
    needed = [judge("TCP", each, TEN_MS).needed_n for each in (apart, burst)]
    assert judge("TCP", apart, TEN_MS).late_share == judge("TCP", burst, TEN_MS).late_share == 0.008
    assert needed[1] == 0 or needed[1] > needed[0]


def test_what_never_came_is_late() -> None:
    found = judge("TCP", rounds(1000, late=40, late_us=math.inf), TEN_MS)
    assert found.outcome is Outcome.OVER and found.late_share == pytest.approx(0.04)


def test_a_budget_that_is_met_to_the_microsecond_is_met() -> None:
    assert judge("TCP", [np.full(400, 10_000.0)], TEN_MS).outcome is Outcome.PASS


def test_noise_excuses_what_it_can_explain_and_no_more() -> None:
    """On a machine that may have been four times too slow: 20 ms may have been 5, 100 ms were at least 25."""
    assert judge("TCP", rounds(20_000), TEN_MS, slowdown=4.0).why is Why.TOO_NOISY
    assert judge("TCP", rounds(100_000), TEN_MS, slowdown=4.0).outcome is Outcome.OVER
    assert judge("TCP", rounds(9000), TEN_MS, slowdown=4.0).outcome is Outcome.PASS


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=500), st.floats(1, 1e6))
def test_a_verdict_never_contradicts_its_bounds(values: list[float], budget_us: float) -> None:
    found = judge("TCP", [np.array(values)], Budget(latency_us=budget_us, share=0.9))
    if found.outcome is Outcome.PASS:
        assert found.bounds.upper_us <= budget_us
    if found.outcome is Outcome.OVER:
        assert found.bounds.lower_us > budget_us


# -- schedules


def test_poisson_arrivals_come_at_their_rate_and_independently() -> None:
    starts = intended_starts(200, 50, Arrivals.POISSON, np.random.default_rng(2))
    gaps = np.diff(starts)
    assert len(starts) == pytest.approx(10_000, rel=0.05)
    assert np.all(gaps >= 0) and starts[-1] < 50
    assert float(gaps.std()) == pytest.approx(float(gaps.mean()), rel=0.05)  # as an exponential has it


def test_constant_arrivals_are_even() -> None:
    starts = intended_starts(100, 2, Arrivals.CONSTANT, np.random.default_rng(2))
    assert len(starts) == 200 and np.allclose(np.diff(starts), 0.01)


@given(st.floats(0.1, 500), st.floats(0.01, 5), st.sampled_from(list(Arrivals)))
def test_all_starts_lie_in_their_block(rate: float, seconds: float, arrivals: Arrivals) -> None:
    starts = intended_starts(rate, seconds, arrivals, np.random.default_rng(4))
    assert np.all(np.diff(starts) >= 0) and np.all((starts >= 0) & (starts < seconds))


@pytest.mark.parametrize("arrivals", Arrivals)
def test_short_blocks_keep_the_rate_and_some_are_empty(arrivals: Arrivals) -> None:
    generator = np.random.default_rng(4)
    blocks = [intended_starts(0.4, 1.0, arrivals, generator, begin_s=float(at)) for at in range(1000)]
    assert sum(map(len, blocks)) == pytest.approx(400, rel=0.1 if arrivals is Arrivals.POISSON else 1e-9)
    begun = np.concatenate([starts + at for at, starts in enumerate(blocks)])
    if arrivals is Arrivals.CONSTANT:
        assert np.allclose(np.diff(begun), 2.5)
    else:
        assert np.quantile(np.diff(begun), 0.5) == pytest.approx(2.5 * math.log(2), rel=0.15)  # as an exponential


@pytest.mark.parametrize(
    ("wishes", "paths", "found", "way_out"),
    [
        (Wishes(rate=0.01, duration_s=2.0), 1, "at least 5 to be due on each path, got 0.02 in 2 s", "--duration 500s"),
        (Wishes(rate=1.0, duration_s=8.0), 2, "at least 5 to be due on each path, got 4 in 4 s", "--duration 10s"),
        (Wishes(rate=0.05), 1, "at least 5 to be due on each path, got 3 in 60 s", "--duration 100s"),
        (Wishes(rate=5.0, requests=2), 1, "at least 5 to be due on each path, got 2 in 0.4 s", "--requests 5"),
        (Wishes(rate=0.1, duration_s=2.0, arrivals=Arrivals.CONSTANT), 1, "at least 1 to be due", "--duration 10s"),
    ],
)
def test_a_rate_that_brings_nothing_in_that_time_is_refused(
    wishes: Wishes, paths: int, found: str, way_out: str
) -> None:
    with pytest.raises(CannotMeasure, match=found) as told:
        plan_open(paths, wishes)
    assert told.value.hint == f"Ask for more: {way_out}, or a higher rate."


def test_every_path_gets_the_same_schedule_and_every_round_another() -> None:
    plan = Plan(rounds=2, requests=50, seconds=1.0, rate=50.0)
    generator = np.random.default_rng(6)
    first, second = plan.load(0, generator), plan.load(1, generator)
    assert first.starts_s is not None and second.starts_s is not None
    assert first.starts_s.tolist() != second.starts_s.tolist()


def test_a_quick_model_gets_many_requests_and_a_slow_one_what_it_needs() -> None:
    quick = plan_closed([1e-5, 1e-4], Wishes())
    assert quick.requests == 10_000
    slow = plan_closed([0.008, 0.009, 0.009], Wishes())
    assert slow.requests >= 598
    awful = plan_closed([2.0, 2.0], Wishes())
    assert 1 <= awful.requests <= 10
    assert plan_closed([0.001], Wishes(requests=37)).requests == 37
    assert plan_closed([2.0, 2.0], Wishes(duration_s=2.0, least_rounds=6)).rounds == 6
    assert plan_closed([2.0, 2.0], Wishes(requests=3, least_rounds=6)).rounds == 3
    asked = plan_closed([0.001], Wishes(duration_s=2.0))
    assert asked.requests >= 2000


@pytest.mark.parametrize("requests", [1, 7, 19, 21, 301, 10_000])
@pytest.mark.parametrize("clients", [1, 4])
def test_as_many_requests_are_asked_as_were_asked_for(requests: int, clients: int) -> None:
    plan = plan_closed([0.001], Wishes(requests=requests, clients=clients))
    for each in (plan, plan.in_rounds(max(1, plan.rounds - 2))):
        loads = [each.load(number, GENERATOR) for number in range(each.rounds)]
        counts = [load.count for load in loads]
        assert sum(counts) == requests and max(counts) - min(counts) <= 1
        assert [load.first for load in loads] == [sum(counts[:at]) for at in range(len(counts))]


def test_more_clients_take_no_longer_than_was_asked_for() -> None:
    """What a request costs is found with as many clients: a path that gets no quicker with them is not asked more."""
    plan = plan_closed([0.001], Wishes(duration_s=2.0, clients=32))
    assert plan.requests == 2000
    assert plan.rounds * plan.seconds == pytest.approx(2.0, rel=0.1)


def test_an_open_loop_runs_long_enough_to_decide() -> None:
    plan = plan_open(1, Wishes(rate=20.0))
    assert plan.rounds * plan.seconds * plan.rate >= 1.5 * 299 - 1
    assert plan_open(1, Wishes(rate=1.0)).seconds * plan_open(1, Wishes(rate=1.0)).rounds <= 60
    assert plan_open(1, Wishes(rate=100.0, duration_s=3.0)).seconds >= 0.5


def test_a_grace_is_short_and_never_less_than_the_budget() -> None:
    assert grace(0.5, 0.01) == 0.25 and grace(60, 0.01) == 1.0 and grace(0.5, 5.0) == 5.0
    plan = plan_open(1, Wishes(rate=100.0, duration_s=3.0, patience_s=0.01))
    assert plan.rounds * (plan.seconds + plan.load(0, np.random.default_rng(0)).grace_s) <= 4.5


def test_nobody_always_goes_first() -> None:
    paths = ["a", "b", "c"]
    orders = [order(paths, number) for number in range(12)]
    for each in paths:
        assert [one[0] for one in orders].count(each) == 4
    assert all(sorted(one) == paths for one in orders)
    followers = {(one[at], one[at + 1]) for one in orders for at in range(2)}
    assert len(followers) == 6


# -- histograms


@given(st.lists(st.floats(0.1, 1e6), min_size=1, max_size=300))
def test_bars_hold_every_answer_once(values: list[float]) -> None:
    ascending = np.sort(np.array(values))
    found = bars(ascending)
    assert sum(bar.count for bar in found) == len(values)
    assert 1 <= len(found) <= 14
    assert all(bar.lower_us <= bar.upper_us for bar in found)


def test_an_outlier_does_not_flatten_the_rest() -> None:
    values = np.sort(np.append(np.linspace(100, 200, 999), 1e6))
    found = bars(values)
    assert found[-1].tail and found[-1].upper_us == 1e6
    assert sum(bar.count > 20 for bar in found) >= 6


def test_bars_have_round_edges() -> None:
    found = bars(np.linspace(105, 395, 1000))
    edges = {f"{bar.lower_us:g}" for bar in found}
    assert all(len(edge.rstrip("0").replace(".", "")) <= 2 for edge in edges), edges


def test_nothing_answered_has_no_bars() -> None:
    assert bars(np.array([math.inf])) == []


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_tally_is_off_by_one_percent_at_most(values: list[float], share: float) -> None:
    tally = Tally()
    for part in np.array_split(np.array(values), 3):
        tally.add(part)
    exact = quantile(np.sort(np.array(values)), share)
    assert tally.n == len(values)
    assert exact * (1 - 1e-9) <= tally.quantile(share) <= exact * 1.0101
    assert tally.from_top(0) == Sorted(np.array(values)).from_top(0)
    assert sum(bar.count for bar in tally.bars()) == len(values)


def test_the_bars_of_a_long_run_count_every_request() -> None:
    """Whatever fits the bins of a tally fits a bar, at most one too far to the right."""
    values = np.exp(GENERATOR.normal(5, 0.5, 100_000))
    tally = Tally()
    tally.add(values)
    found, exact = tally.bars(), bars(np.sort(values))
    assert sum(bar.count for bar in found) == 100_000 and tally.n == 100_000
    assert [bar.lower_us for bar in found] == [bar.lower_us for bar in exact]
    assert all(one.count == pytest.approx(other.count, abs=5000) for one, other in zip(found, exact, strict=True))


def test_a_long_run_is_bounded_by_what_differs_between_its_windows() -> None:
    """No answer is anywhere near a budget of seconds; yet the windows differ, and p99 is no surer for their length."""
    windows = [GENERATOR.exponential(100, 5000) * factor for factor in (0.8, 0.9, 1.0, 1.1, 1.2, 0.85, 1.3, 1.0)]
    tallies = Tallies()
    for window in windows:
        tallies.add(window)
    kept, told = bounds(Sorted(*windows), 0.99), bounds(tallies, 0.99)
    assert told.n == 40_000 and told.effective_n < 4000
    assert told.effective_n == pytest.approx(kept.effective_n, rel=0.1)
    assert kept.upper_us <= told.upper_us <= kept.upper_us * 1.03
    assert kept.lower_us * 0.97 <= told.lower_us <= kept.lower_us


def test_the_same_latency_in_all_windows_bounds_itself() -> None:
    tallies = Tallies()
    for _ in range(8):
        tallies.add(np.full(100, 20_000.0))
    found = bounds(tallies, 0.99)
    assert 19_800 < found.lower_us <= found.upper_us == 20_000


def test_a_tally_keeps_what_never_came() -> None:
    tally = Tally()
    tally.add(np.array([1.0, math.inf]))
    assert tally.from_top(0) == math.inf and tally.quantile(0.5) == pytest.approx(1.0, rel=0.011)


# -- noise and drift


def test_a_quiet_machine_is_quiet() -> None:
    found = assess([np.full(200, 200.0), np.full(40, 201.0)], MACHINE)
    assert not found.noisy and found.ratio == pytest.approx(1.0, abs=0.01) and found.remarks == ()


@pytest.mark.parametrize(
    ("probes", "machine", "words"),
    [
        ([np.concatenate([np.full(190, 200.0), np.full(10, 900.0)])], MACHINE, "4.5 times as long at p99 as at p50"),
        ([np.full(200, 200.0), np.full(40, 300.0)], MACHINE, "speed changed by 50"),
        ([np.full(200, 200.0)], replace(MACHINE, others_share=0.4), "other programs used 40"),
        ([np.full(200, 200.0)], replace(MACHINE, stolen_share=0.1), "the host took 10"),
    ],
)
def test_a_noisy_machine_says_how(probes: list[Floats], machine: Surroundings, words: str) -> None:
    found = assess(probes, machine)
    assert found.noisy and words in found.reasons[0].replace("\u00a0", " ")


def test_a_slow_clock_and_a_load_are_worth_a_remark() -> None:
    found = assess([np.full(200, 200.0)], replace(MACHINE, governor="powersave", load=1.5))
    assert (
        not found.noisy and "powersave" in found.remarks[0] and "load before the run was 3.0 on 2" in found.remarks[1]
    )


def test_what_grows_is_seen_and_chance_is_not() -> None:
    generator = np.random.default_rng(8)
    flat = [100 + generator.normal(0, 3) for _ in range(30)]
    grows = [each + at for at, each in enumerate(flat)]
    still, grown = trend("memory", flat, 0.1), trend("memory", grows, 0.1)
    assert still is not None and not still.too_much
    assert grown is not None and grown.sure and grown.too_much and grown.growth == pytest.approx(0.29, abs=0.06)
    shrinks = trend("memory", grows[::-1], 0.1)
    assert shrinks is not None and shrinks.sure and not shrinks.too_much


def test_nothing_shrinks_by_more_than_all() -> None:
    """The line through what falls and then stays leads below nothing."""
    values = [100.0 * 0.5**at + at % 3 for at in range(8)]
    found = trend("p99", values, 0.1)
    assert found is not None and found.lower == -1.0 <= found.growth <= found.upper


def test_one_bad_window_is_no_trend() -> None:
    values: list[float | None] = [100.0] * 20
    values[-1] = 900.0
    found = trend("p99", values, 0.1)
    assert found is not None and found.growth == 0 and not found.too_much


def test_too_few_windows_have_no_trend() -> None:
    assert trend("p99", [1.0] * (LEAST_WINDOWS - 1), 0.1) is None
    assert trend("p99", [1.0, None] * LEAST_WINDOWS, 0.1) is not None


def test_false_alarms_of_a_soak_are_rare() -> None:
    generator = np.random.default_rng(9)
    alarms = sum(
        found.sure
        for _ in range(500)
        if (found := trend("p99", list(generator.lognormal(0, 0.2, 20)), 0.0)) is not None
    )
    assert alarms <= 15


# -- random input


@pytest.mark.parametrize(
    ("datatype", "least", "most"),
    [(Datatype.UINT8, 0, 255), (Datatype.INT8, -128, 127), (Datatype.INT64, 0, 1), (Datatype.BOOL, 0, 1)],
)
def test_random_integers_cover_the_range_that_is_told(datatype: Datatype, least: int, most: int) -> None:
    cases = random([TensorSpec(name="x", datatype=datatype, shape=(1, 4096))], {})
    values = np.concatenate([each["x"] for each in cases.feeds])
    assert (int(values.min()), int(values.max())) == (least, most)


def test_bf16_is_made_of_ordinary_numbers_and_read_back() -> None:
    values = np.array([[0.0, 1.0, -2.5], [np.inf, np.nan, 3e38]], np.float32)
    bits = bf16.from_floats(values)
    assert bits.dtype == np.uint16 and bits.shape == values.shape
    assert np.allclose(floats_of_bf16(bits), values, rtol=1 / 128, equal_nan=True)
    saved = bits.view("V2")
    assert all(np.array_equal(np.asarray(bf16.from_array(each)), bits) for each in (saved, bits))
    spec = TensorSpec(name="x", datatype=Datatype.BF16, shape=(-1, 50))
    drawn = np.concatenate([floats_of_bf16(each["x"]) for each in random([spec], {}).feeds])
    assert drawn.min() >= 0 and drawn.max() < 1 and len(np.unique(drawn)) > 50
