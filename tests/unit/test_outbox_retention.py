"""What may stay and what must go, decided without a disk."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.link.backoff import MAX_RETRY_AFTER_S, delay_s
from edgeward_agent.outbox.retention import (
    Admission,
    PeriodUse,
    Span,
    admit,
    age_s,
    joined,
    keys_to_destroy,
    period_of,
)


@pytest.mark.parametrize(
    ("used", "need", "droppable", "telemetry", "expected"),
    [
        (0, 100, False, False, Admission.ADMIT),
        (900, 100, True, True, Admission.ADMIT),
        (901, 100, True, False, Admission.DROP_OLDEST),
        (901, 100, True, True, Admission.DROP_OLDEST),
        (901, 100, False, True, Admission.DISCARD),
        (901, 100, False, False, Admission.REFUSE),
        (0, 1001, True, False, Admission.REFUSE),  # nothing is dropped for what never fits
        (0, 1001, True, True, Admission.DISCARD),
    ],
)
def test_telemetry_makes_way_and_results_do_not(
    used: int, need: int, droppable: bool, telemetry: bool, expected: Admission
) -> None:
    found = admit(used_bytes=used, need_bytes=need, limit_bytes=1000, droppable=droppable, telemetry=telemetry)
    assert found is expected


@given(
    used=st.integers(0, 2000),
    need=st.integers(0, 2000),
    droppable=st.booleans(),
)
def test_a_result_is_never_discarded_in_silence(used: int, need: int, droppable: bool) -> None:
    found = admit(used_bytes=used, need_bytes=need, limit_bytes=1000, droppable=droppable, telemetry=False)
    assert found is not Admission.DISCARD


def test_a_key_is_destroyed_when_its_day_is_over_and_no_row_needs_it() -> None:
    uses = [
        PeriodUse(key_id="today", day=10, rows=0),
        PeriodUse(key_id="yesterday", day=9, rows=0),
        PeriodUse(key_id="needed", day=2, rows=1),
        PeriodUse(key_id="old", day=2, rows=0),
        PeriodUse(key_id="clock-was-wrong", day=20_000, rows=0),
    ]
    assert keys_to_destroy(uses, today=10, retention_days=0) == ("yesterday", "old", "clock-was-wrong")
    assert keys_to_destroy(uses, today=10, retention_days=1) == ("old", "clock-was-wrong")


def test_periods_are_days_and_survive_a_clock_before_1970() -> None:
    assert period_of(86_400.0 * 3 + 5) == 3
    assert period_of(-5.0) == 0


def test_the_age_of_the_oldest_is_never_negative() -> None:
    assert age_s(oldest_wall_us=None, now_wall_s=100.0) == 0
    assert age_s(oldest_wall_us=40_000_000, now_wall_s=100.0) == 60
    assert age_s(oldest_wall_us=400_000_000, now_wall_s=100.0) == 0


def test_spans_of_one_epoch_become_one() -> None:
    spans = [
        Span(epoch="a", first=3, last=9, count=5),
        Span(epoch="b", first=1, last=1, count=1),
        Span(epoch="a", first=10, last=10, count=1),
    ]
    assert joined(spans) == (Span(epoch="a", first=3, last=10, count=6), Span(epoch="b", first=1, last=1, count=1))


@given(failures=st.integers(0, 10_000), unit=st.floats(0, 1, exclude_max=True))
def test_a_delay_is_from_one_second_to_five_minutes(failures: int, unit: float) -> None:
    assert 1.0 <= delay_s(failures, unit) <= 300.0


def test_the_ceiling_doubles_up_to_five_minutes() -> None:
    assert [round(delay_s(failures, 1.0)) for failures in (1, 2, 3, 8, 9, 1000)] == [2, 4, 8, 256, 300, 300]
    assert delay_s(50, 0.0) == 1.0


@given(failures=st.integers(1, 40), unit=st.floats(0, 1, exclude_max=True), wish=st.floats(0, MAX_RETRY_AFTER_S))
def test_never_earlier_than_the_fleet_wishes(failures: int, unit: float, wish: float) -> None:
    assert wish + 1.0 <= delay_s(failures, unit, retry_after_s=wish) <= wish + 300.0


@pytest.mark.parametrize("wish", [math.nan, -5.0, math.inf])
def test_a_senseless_wish_is_bounded(wish: float) -> None:
    assert 1.0 <= delay_s(1, 0.5, retry_after_s=wish) <= MAX_RETRY_AFTER_S + 2.0
