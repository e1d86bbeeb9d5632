"""What a version is believed to take, learned from its runs."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.serving.pace import DOUBT_AFTER_NS, INLINE_BELOW_NS, STALE_NS, Learned, Pace, Tail

MS = 1_000_000
_BLOCK = 32


@given(st.lists(st.integers(0, 10**10), min_size=0, max_size=600))
def test_the_tail_is_the_third_largest_of_the_last_eight_blocks(values: list[int]) -> None:
    tail = Tail()
    for each in values:
        tail.add(each)
    begin = max(0, (len(values) // _BLOCK - 7) * _BLOCK)
    window = [0, 0, 0, *values[begin:]]
    assert tail.value == sorted(window)[-3]


def test_the_tail_is_near_the_real_p99() -> None:
    draw = random.Random(7)
    tail = Tail()
    seen = []
    for _ in range(20_000):
        value = int(draw.lognormvariate(15, 0.3))
        tail.add(value)
        seen.append(tail.value)
    # p99 of this distribution: exp(15 + 0.3 * 2.326)
    assert abs(sum(seen[1000:]) / len(seen[1000:]) / 6_567_000 - 1) < 0.1


def test_two_outliers_change_nothing_and_a_slower_model_is_noticed_in_three_runs() -> None:
    learned = Learned()
    for at in range(100):
        learned.add(7 * MS, at)
    learned.add(900 * MS, 100)
    learned.add(900 * MS, 101)
    assert learned.p99_ns < 15 * MS
    for at in range(3):
        learned.add(20 * MS, 102 + at)
    assert learned.p99_ns == 20 * MS


def test_the_first_runs_do_not_count_as_what_is_usual() -> None:
    learned = Learned()
    for at, run in enumerate([90 * MS, 60 * MS, *[7 * MS] * 30]):
        learned.add(run, at)
    assert learned.usual_ns < 12 * MS
    assert learned.p99_ns < 12 * MS


def test_a_bad_minute_is_forgotten() -> None:
    learned = Learned()
    for at in range(256):
        learned.add(50 * MS, at)
    for at in range(9 * _BLOCK):
        learned.add(7 * MS, 256 + at)
    assert (learned.usual_ns // MS, learned.p99_ns) == (7, 7 * MS)


def test_refusals_forget_the_tail_but_not_the_usual_time() -> None:
    learned = Learned()
    for at in range(256):
        learned.add(50 * MS if at % 32 < 3 else 7 * MS, at)
    assert learned.p99_ns == 50 * MS
    for _ in range(8):
        learned.doubt(DOUBT_AFTER_NS)
    assert learned.p99_ns == 50 * MS  # while runs go on they tell by themselves
    for _ in range(8):
        learned.doubt(256 + DOUBT_AFTER_NS)
    assert learned.p99_ns == learned.usual_ns < 20 * MS


def test_after_a_long_rest_the_next_run_tells_what_is_usual() -> None:
    learned = Learned()
    learned.add(300 * MS, 0)
    assert not learned.try_anew(STALE_NS)
    assert learned.try_anew(STALE_NS + 1)
    learned.add(7 * MS, STALE_NS + 1)
    assert learned.usual_ns == 7 * MS
    assert not learned.try_anew(STALE_NS + 2)


def test_after_a_long_rest_one_is_tried_in_ten_seconds_and_not_all() -> None:
    learned = Learned()
    learned.add(300 * MS, 0)
    assert [learned.try_anew(at) for at in range(0, 3 * STALE_NS, STALE_NS // 10)].count(True) == 2


def test_of_a_size_that_was_never_seen_nothing_is_known() -> None:
    pace = Pace()
    pace.learn(100, 10_000, 0)
    assert pace.of(120).usual_ns == 10_000
    assert (pace.of(100_000).usual_ns, pace.of(100_000).p99_ns) == (0, 0)


def test_a_model_that_becomes_slow_leaves_the_loop_and_comes_back() -> None:
    pace = Pace()
    pace.learn(100, 10_000, 0)
    for _ in range(20):
        pace.learn(100, 5_000_000, 0)
    assert pace.of(100).usual_ns > INLINE_BELOW_NS
    for _ in range(60):
        pace.learn(100, 10_000, 0)
    assert 0 < pace.of(100).usual_ns < INLINE_BELOW_NS
