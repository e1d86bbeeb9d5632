"""The count of results that were answered and are not kept."""

from __future__ import annotations

from edgeward_agent.not_kept import NotKept
from edgeward_agent.ports import ServingState
from support.update import FakeClock


def serving(started_us: int, dropped: int) -> ServingState:
    return ServingState(pid=1, started_us=started_us, capture_dropped=dropped)


def test_both_ways_to_lose_a_result_are_counted_over_restarts_of_the_serving_process() -> None:
    not_kept = NotKept(FakeClock())
    not_kept.look(serving(1, 0), refused=0)
    assert (not_kept.total, not_kept.alarms) == (0, ())
    not_kept.look(serving(1, 5), refused=2)
    not_kept.look(None, refused=2)
    not_kept.look(serving(2, 1), refused=3)
    assert (not_kept.total, not_kept.alarms) == (9, ("results_not_kept",))


def test_the_alarm_ends_when_nothing_more_is_lost() -> None:
    clock = FakeClock()
    not_kept = NotKept(clock)
    not_kept.look(serving(1, 5), refused=0)
    clock.now += 899
    not_kept.look(serving(1, 5), refused=0)
    assert list(not_kept.alarms) == ["results_not_kept"]
    clock.now += 1
    assert list(not_kept.alarms) == []
