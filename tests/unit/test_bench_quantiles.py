"""Quantiles, their bounds and paired differences: known values, and coverage by simulation."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.bench.comparing import most_starts, whole_starts
from edgeward_agent.bench.paired import LEAST_PAIRS, difference, median_interval
from edgeward_agent.bench.quantiles import (
    Floats,
    Sorted,
    bound_ranks,
    bounds,
    design_effect,
    dispersion,
    later_than_quantile,
    least_samples,
    quantile,
    samples_to_decide,
    student,
)
from edgeward_agent.bench.schedule import Plan

latencies = st.lists(st.floats(min_value=0.1, max_value=1e7), min_size=1, max_size=400)
shares = st.sampled_from([0.5, 0.9, 0.99, 0.999])


def test_a_quantile_is_a_value_that_was_seen() -> None:
    values = np.arange(1.0, 101.0)
    assert [quantile(values, share) for share in (0.0, 0.5, 0.99, 0.999, 1.0)] == [1, 50, 99, 100, 100]


@given(latencies, shares)
def test_at_most_the_rest_is_above_a_quantile(values: list[float], share: float) -> None:
    ascending = np.sort(np.array(values))
    found = quantile(ascending, share)
    assert np.count_nonzero(ascending <= found) >= share * len(ascending) - 1e-9
    assert np.count_nonzero(ascending < found) < share * len(ascending) + 1e-9


@pytest.mark.parametrize(
    ("share", "confidence", "needed"),
    [(0.5, 0.95, 5), (0.9, 0.95, 29), (0.99, 0.95, 299), (0.999, 0.95, 2995), (0.99, 0.99, 459)],
)
def test_how_many_requests_a_bound_needs(share: float, confidence: float, needed: int) -> None:
    """Wilks' numbers: S. S. Wilks, Annals of Mathematical Statistics 12 (1941)."""
    assert least_samples(share, confidence) == needed
    assert bound_ranks(needed, share, confidence)[1] == 0
    assert bound_ranks(needed - 1, share, confidence)[1] is None


def test_known_ranks_of_a_median() -> None:
    """n = 20, 97.5 % each way: the 6th and the 15th (W. J. Conover, Practical Nonparametric Statistics, table A3)."""
    assert bound_ranks(20, 0.5, 0.975) == (14, 5)


@pytest.mark.parametrize(("n", "share"), [(10, 0.5), (50, 0.9), (400, 0.99), (100_000, 0.999)])
def test_the_binomial_sum_is_the_binomial_sum(n: int, share: float) -> None:
    later = later_than_quantile(n, share)
    for j in range(0, min(len(later), 12)):
        exact = sum(math.comb(n, i) * (1 - share) ** i * share ** (n - i) for i in range(j + 1))
        assert later[j] == pytest.approx(exact, rel=1e-6)
    assert later[-1] == pytest.approx(1.0, abs=1e-9)


@given(latencies, shares)
def test_bounds_hold_the_estimate_between_them(values: list[float], share: float) -> None:
    found = bounds(Sorted(np.array(values)), share)
    assert found.lower_us <= found.estimate_us <= found.upper_us
    assert math.isinf(found.upper_us) == (found.n < least_samples(share))


@given(latencies, shares, st.integers(1, 20))
def test_rounds_make_bounds_wider_and_never_narrower(values: list[float], share: float, rounds: int) -> None:
    alone = bounds(Sorted(np.array(values)), share)
    together = bounds(Sorted(*np.array_split(np.sort(np.array(values)), rounds)), share)
    assert together.lower_us <= alone.lower_us and together.upper_us >= alone.upper_us


@pytest.mark.parametrize(("n", "share"), [(400, 0.99), (60, 0.9), (3500, 0.999)])
def test_a_bound_covers_as_often_as_it_says(n: int, share: float) -> None:
    """Of skewed latencies, whose true quantile is known; each side at least 95 % but for the luck of 1,500 draws."""
    generator = np.random.default_rng(7)
    truth = math.exp(1.2 * NormalDist().inv_cdf(share))
    found = [bounds(Sorted(generator.lognormal(0, 1.2, n)), share) for _ in range(1500)]
    assert np.mean([each.upper_us >= truth for each in found]) >= 0.94
    assert np.mean([each.lower_us <= truth for each in found]) >= 0.94


def independent(generator: np.random.Generator, rounds: int) -> list[Floats]:
    return [generator.exponential(1, 100) for _ in range(rounds)]


def uneven(generator: np.random.Generator, rounds: int) -> list[Floats]:
    """Some rounds are slower: their speeds have a standard deviation of a sixth."""
    return [generator.exponential(1, 100) / speed for speed in generator.gamma(36, 1 / 36, rounds)]


def bursts(generator: np.random.Generator, rounds: int) -> list[Floats]:
    """Three of ten rounds have a stall that takes ten requests with it."""
    found = independent(generator, rounds)
    for each in found:
        if generator.random() < 0.3:
            each[:10] += 5 + generator.exponential(10, 10)
    return found


@pytest.mark.parametrize("rounds", [10, 20])
@pytest.mark.parametrize("kind", [independent, uneven, bursts])
def test_a_bound_covers_whether_or_not_the_late_ones_cluster(
    kind: Callable[[np.random.Generator, int], list[Floats]], rounds: int
) -> None:
    """Each side at least 95 %, but for the luck of 300 runs (a standard deviation of 1.3 %)."""
    generator = np.random.default_rng(11)
    truth = quantile(np.sort(np.concatenate(kind(generator, 10_000))), 0.99)
    found = [bounds(Sorted(*kind(generator, rounds)), 0.99) for _ in range(300)]
    assert np.mean([each.upper_us >= truth for each in found]) >= 0.925
    assert np.mean([each.lower_us <= truth for each in found]) >= 0.925


def test_bursts_are_not_held_against_a_budget_that_they_stay_within() -> None:
    """They say much about p99 itself, and nothing about a line that no answer ever crossed."""
    generator = np.random.default_rng(12)
    for _ in range(50):
        values = Sorted(*bursts(generator, 20))
        assert bounds(values, 0.99).upper_us <= values.from_top(0)


def test_the_design_effect_of_chance_is_about_one() -> None:
    """And a little more: with twenty rounds it may have been underestimated."""
    generator = np.random.default_rng(3)
    sizes = np.full(20, 100.0)
    found = [design_effect(generator.binomial(100, 0.1, 20).astype(float), sizes) for _ in range(100)]
    assert 1.1 < float(np.mean(found)) < 1.3
    burst = np.zeros(20)
    burst[3] = 100.0
    assert design_effect(burst, sizes) > 100


def test_counts_that_cannot_spread_count_in_full() -> None:
    sizes = np.array([10.0, 10.0])
    for counts in ([0.0, 0.0], [10.0, 10.0], [5.0, 5.0]):
        assert design_effect(np.array(counts), sizes) == 1.0
    assert design_effect(np.array([1.0]), np.array([20.0])) == 1.0
    assert design_effect(np.array([2.0, 0.0]), np.array([20.0, 0.0])) == 1.0
    assert dispersion(np.array([10.0, 0.0]), sizes) == pytest.approx(20.0)


@pytest.mark.parametrize(
    ("freedom", "confidence", "known"),
    [(2, 0.95, 2.920), (4, 0.95, 2.132), (9, 0.95, 1.833), (19, 0.95, 1.729), (9, 0.995, 3.250), (59, 0.95, 1.671)],
)
def test_student_is_as_tables_have_it(freedom: int, confidence: float, known: float) -> None:
    assert student(freedom, NormalDist().inv_cdf(confidence)) == pytest.approx(known, rel=0.02)


def test_how_many_requests_would_decide() -> None:
    assert samples_to_decide(0.99, 0.0) == 299
    assert samples_to_decide(0.99, 0.0, design=2.0) == 598
    assert 300 < samples_to_decide(0.99, 0.002) < 1000
    assert samples_to_decide(0.99, 0.5) <= 299
    assert samples_to_decide(0.99, 0.0100001) == 0


def test_a_paired_difference_does_not_see_what_slows_both() -> None:
    """The machine's mood changes by a factor of three from round to round; the difference is 10 % throughout."""
    generator = np.random.default_rng(5)
    moods = generator.uniform(1, 3, 20)
    first = [mood * generator.normal(100, 1, 50) for mood in moods]
    second = [mood * generator.normal(110, 1, 50) for mood in moods]
    found = difference(first, second)
    assert found.pairs == 20 and found.clear
    assert 1.09 < found.ratio_lower <= found.ratio <= found.ratio_upper < 1.11


def test_rounds_of_one_start_are_one_observation() -> None:
    """Each start of the same model is some percent faster or slower, for as long as it lives: five rounds here."""
    generator = np.random.default_rng(17)
    claims = {1: 0, 5: 0}
    for _ in range(200):
        first, second = (_starts_of_the_same(generator) for _ in range(2))
        for together in claims:
            claims[together] += difference(first, second, rounds_per_start=together).clear
    assert claims[1] > 60 and claims[5] <= 16
    assert difference(first, second, rounds_per_start=5).pairs == 8


def _starts_of_the_same(generator: np.random.Generator) -> list[Floats]:
    factors = np.repeat(generator.normal(1, 0.02, 8), 5)
    return [factor * generator.normal(100, 1, 50) for factor in factors]


def test_starts_that_are_dear_are_fewer_but_enough_for_an_interval() -> None:
    assert [most_starts(0.0, start_s) for start_s in (0.0, 0.001, 0.5, 0.7, 1.0, 60.0)] == [20, 20, 20, 14, 10, 6]
    assert [most_starts(4.0, start_s) for start_s in (0.001, 0.2, 1.0)] == [20, 10, LEAST_PAIRS]


def test_every_start_has_as_many_rounds_and_no_request_is_lost() -> None:
    for rounds, most, wanted in (
        (20, 20, (20, 1)),
        (20, 6, (18, 3)),
        (11, 6, (6, 1)),
        (15, 14, (14, 1)),
        (4, 6, (4, 1)),
    ):
        plan, stay = whole_starts(Plan(rounds=rounds, requests=rounds * 30, seconds=0.3), most)
        assert (plan.rounds, stay) == wanted
        assert plan.requests == rounds * 30
        assert plan.rounds * plan.seconds == pytest.approx(rounds * 0.3)


def test_the_interval_of_a_median_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(13)
    intervals = [median_interval(generator.exponential(1, 20)) for _ in range(2000)]
    assert np.mean([low <= math.log(2) <= high for low, _, high in intervals]) >= 0.94


def test_too_few_rounds_have_no_interval() -> None:
    low, middle, high = median_interval(np.arange(1.0, LEAST_PAIRS))
    assert math.isnan(low) and middle == 3.0 and math.isnan(high)
    low, _, high = median_interval(np.arange(1.0, LEAST_PAIRS + 1))
    assert (low, high) == (1.0, 6.0)
    assert math.isnan(difference([], []).median_us) and not difference([], []).clear


def test_a_round_without_an_answer_is_left_out_of_a_difference() -> None:
    rounds = [np.array([float(each)]) for each in range(1, 9)]
    broken = [np.array([math.inf]), *rounds[1:]]
    assert difference(rounds, broken).pairs == 7
