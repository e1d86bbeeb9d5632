"""The line of waiting requests: who is let in, who is next, who is sent away. No clock and no threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from edgeward_agent.serving.line import IN_A_ROW, NEVER_NS, Company, Job, Line
from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.pace import DOUBT_AFTER_NS, STALE_NS, Pace

MS = 1_000_000
USUAL = 7 * MS


def paced(*runs_ns: int, at_ns: int = 0, size_bytes: int = 1000) -> Pace:
    """A pace that has seen these runs."""
    pace = Pace()
    for each in runs_ns:
        pace.learn(size_bytes, each, at_ns)
    return pace


@dataclass(eq=False, kw_only=True)
class Request:
    """What waits. `number` says when it came."""

    number: int = 0
    size_bytes: int = 1000
    pace: Pace = field(default_factory=lambda: paced(*[USUAL] * 3))
    deadline_ns: int = NEVER_NS
    strict: bool = False
    urgent: bool = False
    company: Company | None = None
    abandoned: bool = False

    def run(self) -> None: ...
    def run_with(self, jobs: Sequence[Job]) -> None: ...
    def finish(self) -> None: ...
    def drop(self, outcome: Outcome) -> None: ...


def numbers(jobs: Sequence[Job]) -> list[int]:
    return [job.number for job in jobs if isinstance(job, Request)]


def order(line: Line, *, at_ns: int = 0) -> list[int]:
    """Everybody who waits, in the order in which one thread would take them."""
    taken: list[int] = []
    while line.waiting:
        taken += numbers(line.take(0, at_ns).jobs)
    return taken


# -- admission


@pytest.mark.parametrize(
    ("threads", "running", "waiting", "admitted"),
    [(1, 0, 0, True), (1, 1, 0, False), (2, 1, 0, True), (2, 2, 0, False), (2, 1, 1, False), (4, 2, 1, True)],
)
def test_with_a_budget_of_ten_a_model_of_seven_ms_is_refused_unless_a_thread_is_free(
    threads: int, running: int, waiting: int, admitted: bool
) -> None:
    line = Line(threads=threads, capacity=64)
    for thread in range(running):
        assert line.offer(Request(), 0) is None
        line.take(thread, 0)
    for _ in range(waiting):
        assert line.offer(Request(), 0) is None
    found = line.offer(Request(deadline_ns=10 * MS), 0)
    assert found is (None if admitted else Outcome.REFUSED)


def test_what_runs_is_over_some_day() -> None:
    line = Line(threads=1, capacity=64)
    line.offer(Request(), 0)
    line.take(0, 0)
    assert line.offer(Request(deadline_ns=13 * MS), 3 * MS) is Outcome.REFUSED
    assert line.offer(Request(deadline_ns=14 * MS), 3 * MS) is None


def test_a_thread_that_is_done_early_is_free() -> None:
    line = Line(threads=1, capacity=64)
    line.offer(Request(), 0)
    line.take(0, 0)
    line.done(0)
    assert line.offer(Request(deadline_ns=10 * MS), 3 * MS) is None


def test_where_nothing_is_ahead_the_budget_refuses_nobody_but_the_callers_own_deadline_does() -> None:
    slow = paced(*[30 * MS] * 3)
    line = Line(threads=1, capacity=64)
    assert line.offer(Request(pace=slow, deadline_ns=10 * MS, strict=True), 0) is Outcome.REFUSED
    assert line.offer(Request(pace=slow, deadline_ns=10 * MS), 0) is None


def test_a_caller_who_is_refused_for_a_bad_minute_is_let_in_again() -> None:
    pace = paced(*[USUAL, USUAL, 50 * MS, *[USUAL] * 29] * 8)
    line = Line(threads=1, capacity=64)
    later = DOUBT_AFTER_NS + 1
    found = [line.offer(Request(pace=pace, deadline_ns=later + 20 * MS, strict=True), later) for _ in range(9)]
    assert found[0] is Outcome.REFUSED
    assert None in found


def test_a_hopeless_deadline_stays_hopeless_but_for_one_try_after_a_rest() -> None:
    pace = paced(*[50 * MS] * 3)
    line = Line(threads=1, capacity=64)
    found = {line.offer(Request(pace=pace, deadline_ns=20 * MS, strict=True), 0) for _ in range(20)}
    assert found == {Outcome.REFUSED}
    later = STALE_NS + 1
    assert line.offer(Request(pace=pace, deadline_ns=later + 20 * MS, strict=True), later) is None


def _busy(at_ns: int, *, threads: int = 2) -> Line:
    """Every thread is, and somebody waits: nobody who comes now is alone."""
    line = Line(threads=threads, capacity=64)
    for thread in range(threads):
        line.offer(Request(pace=paced(MS, at_ns=at_ns)), at_ns)
        line.take(thread, at_ns)
    line.offer(Request(pace=paced(MS, at_ns=at_ns)), at_ns)
    return line


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("urgent", [True, False])
def test_a_bad_minute_is_forgotten_too_where_somebody_always_waits(strict: bool, urgent: bool) -> None:
    pace = paced(*[3 * MS, 3 * MS, 30 * MS, *[3 * MS] * 29] * 8)
    later = DOUBT_AFTER_NS + 1
    line = _busy(later)
    found = [
        line.offer(Request(pace=pace, deadline_ns=later + 10 * MS, strict=strict, urgent=urgent), later)
        for _ in range(9)
    ]
    assert found[0] is Outcome.REFUSED
    assert None in found


def test_refusals_teach_nothing_while_runs_go_on() -> None:
    """In overload there are more refusals than runs: they would forget the p99 faster than it is learned."""
    pace = paced(*[3 * MS, 3 * MS, 9 * MS, *[3 * MS] * 29] * 8)
    line = _busy(0)
    found = {line.offer(Request(pace=pace, deadline_ns=9 * MS), 0) for _ in range(100)}
    assert found == {Outcome.REFUSED}
    assert pace.of(1000).p99_ns == 9 * MS


def test_after_a_rest_one_is_tried_too_where_somebody_always_waits() -> None:
    pace = paced(*[50 * MS] * 3)
    later = STALE_NS + 1
    line = _busy(later)
    assert line.offer(Request(pace=pace, deadline_ns=later), later) is Outcome.REFUSED  # that teaches nobody anything
    found = [line.offer(Request(pace=pace, deadline_ns=later + 20 * MS), later) for _ in range(3)]
    assert found == [None, Outcome.REFUSED, Outcome.REFUSED]


def test_a_try_that_did_not_run_is_the_next_ones() -> None:
    pace = paced(*[50 * MS] * 3)
    line = Line(threads=1, capacity=64)
    later = STALE_NS + 1
    assert line.offer(Request(pace=pace, deadline_ns=later + MS, strict=True), later) is None
    after = later + 2 * MS
    assert line.offer(Request(pace=pace, deadline_ns=after + 20 * MS, strict=True), after) is Outcome.REFUSED
    assert line.take(0, after).jobs == ()
    assert line.offer(Request(pace=pace, deadline_ns=after + 20 * MS, strict=True), after) is None


def test_a_timeout_that_nobody_could_keep_forgets_nothing_that_others_rest_on() -> None:
    pace = paced(*[5 * MS, 5 * MS, 9 * MS, *[5 * MS] * 29] * 8)
    line = Line(threads=1, capacity=64)
    later = DOUBT_AFTER_NS + 1
    for _ in range(20):
        assert line.offer(Request(pace=pace, deadline_ns=later + MS // 10, strict=True), later) is Outcome.REFUSED
    assert line.offer(Request(pace=pace, deadline_ns=later + 7 * MS, strict=True), later) is Outcome.REFUSED


def test_who_waits_for_company_keeps_no_thread_from_others() -> None:
    line = Line(threads=2, capacity=64)
    for key in "ab":
        line.offer(Request(company=company(key, delay_ns=5 * MS)), 0)
    assert line.offer(Request(pace=paced(*[12 * MS] * 3), deadline_ns=10 * MS), 0) is None


@pytest.mark.parametrize("strict", [True, False])
def test_those_who_wait_for_company_at_once_are_not_each_alone(strict: bool) -> None:
    line = Line(threads=1, capacity=64)
    pace = paced(*[5 * MS] * 3)
    found = [
        line.offer(
            Request(
                pace=pace, company=company(str(key), max_rows=2, delay_ns=5 * MS), deadline_ns=20 * MS, strict=strict
            ),
            0,
        )
        for key in range(20)
    ]
    assert found.count(None) <= 4


def test_priority_one_does_not_count_those_whom_it_passes() -> None:
    line = Line(threads=1, capacity=64)
    for _ in range(5):
        line.offer(Request(), 0)
    assert line.offer(Request(deadline_ns=20 * MS), 0) is Outcome.REFUSED
    assert line.offer(Request(deadline_ns=20 * MS, urgent=True), 0) is None


def test_without_a_deadline_only_the_length_counts_and_some_room_is_for_priority_one() -> None:
    line = Line(threads=1, capacity=8)
    found = [line.offer(Request(), 0) for _ in range(8)]
    assert found == [None] * 7 + [Outcome.FULL]
    assert [line.offer(Request(urgent=True), 0) for _ in range(2)] == [None, Outcome.FULL]


@given(
    ends=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    ahead=st.lists(st.integers(1, 20), max_size=12),
    slack=st.integers(0, 200),
)
def test_the_shortcut_never_lets_in_whom_the_full_account_would_not(
    ends: list[int], ahead: list[int], slack: int
) -> None:
    """A plain list schedule is what is promised; the line may only be quicker about it."""
    line = Line(threads=len(ends), capacity=10_000)
    for thread, end in enumerate(ends):
        line.offer(Request(pace=paced(end)), 0)
        line.take(thread, 0)
    for each in ahead:
        line.offer(Request(pace=paced(each)), 0)
    free = sorted(ends)
    for each in ahead:
        free = sorted([free[0] + each, *free[1:]])
    late = free[0] > 0 and free[0] + USUAL > slack + USUAL
    found = line.offer(Request(deadline_ns=slack + USUAL), 0)
    assert found is (Outcome.REFUSED if late else None)


# -- order


def test_first_come_first_served_and_priority_one_before() -> None:
    line = Line(threads=1, capacity=64)
    for number, urgent in enumerate([False, True, False, True]):
        line.offer(Request(number=number, urgent=urgent), 0)
    assert order(line) == [1, 3, 0, 2]


def test_nobody_starves() -> None:
    line = Line(threads=1, capacity=64)
    for number in range(10):
        line.offer(Request(number=number, urgent=number != 0), 0)
    assert order(line).index(0) == IN_A_ROW


def test_the_dead_are_told_and_do_not_run() -> None:
    line = Line(threads=1, capacity=64)
    gone, late, alive = Request(number=0), Request(number=1, deadline_ns=20 * MS), Request(number=2)
    for each in (gone, late, alive):
        assert line.offer(each, 0) is None
    gone.abandoned = True
    turn = line.take(0, 21 * MS)
    assert (numbers(turn.jobs), turn.dropped) == ([2], ((gone, Outcome.ABANDONED), (late, Outcome.EXPIRED)))
    assert line.waiting == 0


def test_one_that_a_thread_was_idle_for_runs_even_if_the_thread_is_slow_to_wake() -> None:
    line = Line(threads=2, capacity=64)
    jobs = [Request(deadline_ns=10 * MS), Request(deadline_ns=10 * MS, strict=True)]
    for each in jobs:
        assert line.offer(each, 0) is None
    assert line.next_deadline_ns == 10 * MS
    turn = line.take(0, 11 * MS)
    assert turn.jobs == (jobs[0],)
    assert line.take(1, 11 * MS).dropped == ((jobs[1], Outcome.EXPIRED),)


def test_a_thread_that_takes_longer_than_foreseen_is_not_idle() -> None:
    line = Line(threads=1, capacity=64)
    line.offer(Request(), 0)
    line.take(0, 0)
    waiting = Request(deadline_ns=30 * MS)
    assert line.offer(waiting, 20 * MS) is None
    assert line.expire(31 * MS) == [(waiting, Outcome.EXPIRED)]


def test_who_is_late_is_found_wherever_it_stands() -> None:
    line = Line(threads=4, capacity=64)
    jobs = [Request(number=number, deadline_ns=(40 - number) * MS, strict=True) for number in range(4)]
    for each in jobs:
        line.offer(each, 0)
    assert line.next_deadline_ns == 37 * MS
    assert [(numbers([job]), fate) for job, fate in line.expire(38 * MS + 1)] == [
        ([2], Outcome.EXPIRED),
        ([3], Outcome.EXPIRED),
    ]
    assert (line.waiting, line.next_deadline_ns) == (2, 39 * MS)


# -- company


def company(key: str = "a", *, rows: int = 1, max_rows: int = 4, delay_ns: int = 0) -> Company:
    return Company(key=key, rows=rows, max_rows=max_rows, max_delay_ns=delay_ns)


def test_equal_ones_run_as_one_and_others_keep_their_place() -> None:
    line = Line(threads=1, capacity=64)
    for number, key in enumerate("abababaa"):
        line.offer(Request(number=number, company=company(key)), 0)
    taken = [numbers(line.take(0, 0).jobs) for _ in range(3)]
    assert taken == [[0, 2, 4, 6], [1, 3, 5], [7]]


def test_a_large_one_that_does_not_fit_is_passed_by_smaller_ones() -> None:
    line = Line(threads=1, capacity=64)
    for number, rows in enumerate([2, 3, 2]):
        line.offer(Request(number=number, company=company(rows=rows)), 0)
    assert numbers(line.take(0, 0).jobs) == [0, 2]
    assert numbers(line.take(0, 0).jobs) == [1]


def test_it_waits_for_company_no_longer_than_it_may() -> None:
    line = Line(threads=1, capacity=64)
    line.offer(Request(number=0, company=company(delay_ns=2 * MS)), 0)
    turn = line.take(0, MS)
    assert (turn.jobs, turn.look_again_ns, line.waiting) == ((), 2 * MS, 1)
    assert numbers(line.take(0, 2 * MS).jobs) == [0]


def test_a_full_company_waits_no_longer() -> None:
    line = Line(threads=1, capacity=64)
    for number in range(4):
        line.offer(Request(number=number, company=company(delay_ns=2 * MS)), 0)
    turn = line.take(0, 0)
    assert (numbers(turn.jobs), turn.look_again_ns) == ([0, 1, 2, 3], None)


def test_waiting_for_company_leaves_time_to_run_with_all_of_it() -> None:
    line = Line(threads=1, capacity=64)
    budget = 4 * USUAL + MS
    line.offer(Request(number=0, company=company(delay_ns=50 * MS), deadline_ns=budget), 0)
    assert line.take(0, 0).look_again_ns == MS
    line.offer(Request(number=1, company=company(delay_ns=50 * MS), deadline_ns=15 * MS), 0)
    assert numbers(line.take(0, 0).jobs) == [1, 0]


def test_a_model_that_nobody_knows_yet_does_not_wait_for_company() -> None:
    line = Line(threads=1, capacity=64)
    line.offer(Request(pace=Pace(), company=company(delay_ns=50 * MS)), 0)
    assert len(line.take(0, 0).jobs) == 1


def test_others_go_on_while_one_waits_for_company() -> None:
    line = Line(threads=1, capacity=64)
    line.offer(Request(number=0, company=company(delay_ns=2 * MS)), 0)
    line.offer(Request(number=1), 0)
    turn = line.take(0, 0)
    assert (numbers(turn.jobs), turn.look_again_ns) == ([1], 2 * MS)
    line.ripen()
    assert numbers(line.take(0, 0).jobs) == [0]


def test_the_dead_do_not_run_behind_one_that_waits_for_company() -> None:
    line = Line(threads=2, capacity=64)
    waits = Request(number=0, company=company(delay_ns=5 * MS))
    late, gone = Request(number=1, pace=paced(*[MS] * 3), deadline_ns=2 * MS, strict=True), Request(number=2)
    for each in (waits, late, gone, Request(number=3)):
        assert line.offer(each, 0) is None
    gone.abandoned = True
    turn = line.take(0, 3 * MS)
    assert (numbers(turn.jobs), turn.dropped) == ([3], ((late, Outcome.EXPIRED), (gone, Outcome.ABANDONED)))
    assert (line.waiting, turn.look_again_ns) == (1, 5 * MS)


def test_company_costs_nobody_a_deadline_that_could_be_kept() -> None:
    pace = paced(*[2 * MS] * 3)
    line = Line(threads=1, capacity=64)
    line.offer(Request(number=0, pace=pace, company=company(max_rows=64), deadline_ns=10 * MS, strict=True), 0)
    for number in range(1, 12):
        line.offer(Request(number=number, pace=pace, company=company(max_rows=64)), 0)
    assert numbers(line.take(0, 0).jobs) == [0, 1, 2, 3, 4]  # five take ten, as far as is known
    assert numbers(line.take(0, 0).jobs) == [5, 6, 7, 8, 9, 10, 11]


def test_company_is_as_large_as_was_learned_that_it_may_be() -> None:
    pace = paced(*[2 * MS] * 3)
    for _ in range(3):
        pace.learn(8_000, 9 * MS, 0)
        pace.learn(16_000, 20 * MS, 0)
    line = Line(threads=1, capacity=64)
    line.offer(Request(pace=pace, company=company(max_rows=64), deadline_ns=10 * MS, strict=True), 0)
    for _ in range(15):
        line.offer(Request(pace=pace, company=company(max_rows=64)), 0)
    assert len(line.take(0, 0).jobs) == 8


def test_one_that_joins_keeps_its_own_deadline_too() -> None:
    pace = paced(*[2 * MS] * 3)
    line = Line(threads=1, capacity=64)
    for number, deadline in enumerate([NEVER_NS, NEVER_NS, 7 * MS, NEVER_NS, NEVER_NS]):
        request = Request(number=number, pace=pace, company=company(max_rows=8), deadline_ns=deadline, strict=True)
        assert line.offer(request, 0) is None
    assert numbers(line.take(0, 0).jobs) == [0, 1, 2]


def _with_bad_joint_runs(at_ns: int, joint_at_ns: int = 0) -> Line:
    """Eight wait; by itself each takes two of ten ms, three together usually three, of late thirty."""
    pace = paced(*[2 * MS] * 3, at_ns=at_ns)
    for run_ns in [30 * MS] * 3 + [3 * MS] * 29:
        pace.learn(4000, run_ns, joint_at_ns)
    line = Line(threads=1, capacity=64)
    for number in range(8):
        request = Request(number=number, pace=pace, company=company(), deadline_ns=at_ns + 10 * MS)
        request.deadline_ns = NEVER_NS if number % 2 else request.deadline_ns
        line.offer(request, at_ns)
    return line


def test_a_bad_minute_of_joint_runs_ends_them_for_a_second_and_not_for_ever() -> None:
    line = _with_bad_joint_runs(1)
    assert [len(line.take(0, 1).jobs) for _ in range(4)] == [2, 2, 2, 2]
    later = DOUBT_AFTER_NS + 1
    line = _with_bad_joint_runs(later)
    assert [len(line.take(0, later).jobs) for _ in range(2)] == [4, 4]


def test_a_joint_run_whose_usual_time_is_too_long_is_tried_anew_after_a_rest() -> None:
    later = STALE_NS + 1
    pace = paced(*[2 * MS] * 3, at_ns=later)
    for _ in range(8):
        pace.learn(4000, 30 * MS, 0)
    together = []
    for _ in range(2):
        line = Line(threads=1, capacity=64)
        line.offer(Request(pace=pace, company=company(), deadline_ns=later + 10 * MS), later)
        for _ in range(3):
            line.offer(Request(pace=pace, company=company()), later)
        together.append(len(line.take(0, later).jobs))
    assert together == [3, 2]


def test_what_stays_behind_counts_as_the_run_that_it_will_be() -> None:
    pace = paced(*[2 * MS] * 3)
    pace.learn(2000, 3 * MS, 0)
    pace.learn(4000, 8 * MS, 0)
    line = Line(threads=1, capacity=64)
    line.offer(Request(pace=pace, company=company(), deadline_ns=4 * MS, strict=True), 0)
    for _ in range(3):
        line.offer(Request(pace=pace, company=company()), 0)
    assert line.expected_ns == 8 * MS
    assert len(line.take(0, 0).jobs) == 2
    assert line.expected_ns == 3 * MS


def test_one_that_is_late_in_any_case_keeps_nobody_from_its_company() -> None:
    pace = paced(*[12 * MS] * 3)
    line = Line(threads=1, capacity=64)
    for number in range(4):
        line.offer(
            Request(number=number, pace=pace, company=company(), deadline_ns=10 * MS if number < 1 else NEVER_NS), 0
        )
    assert len(line.take(0, 0).jobs) == 4


def test_company_is_counted_once_when_somebody_asks_how_long_it_takes() -> None:
    pace = paced(USUAL)
    pace.learn(4000, 10 * MS, 0)
    pace.learn(2000, 8 * MS, 0)
    pace.learn(3000, 8 * MS, 0)
    line = Line(threads=1, capacity=64)
    for _ in range(4):
        line.offer(Request(pace=pace, company=company()), 0)
    assert line.offer(Request(deadline_ns=18 * MS), 0) is None
    assert line.offer(Request(deadline_ns=16 * MS), 0) is Outcome.REFUSED


# -- whatever happens


@settings(max_examples=60, stateful_step_count=60, deadline=None)
class _Whatever(RuleBasedStateMachine):
    """Nobody is lost or answered twice, the line is bounded, order and fairness hold."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.line = Line(threads=2, capacity=16)
        self.waiting: list[Request] = []
        self.answered: list[int] = []
        self.count = 0
        self.urgent_in_a_row = 0

    @rule(
        urgent=st.booleans(),
        timeout_ms=st.sampled_from([None, 1, 8, 30, 100]),
        strict=st.booleans(),
        run_ms=st.sampled_from([1, 7, 40]),
        key=st.sampled_from([None, "a", "b"]),
        rows=st.integers(1, 3),
        delay_ms=st.sampled_from([0, 5]),
    )
    def offer(
        self,
        urgent: bool,
        timeout_ms: int | None,
        strict: bool,
        run_ms: int,
        key: str | None,
        rows: int,
        delay_ms: int,
    ) -> None:
        request = Request(
            number=self.count,
            pace=paced(run_ms * MS, at_ns=self.now),
            urgent=urgent,
            strict=strict,
            deadline_ns=NEVER_NS if timeout_ms is None else self.now + timeout_ms * MS,
            company=company(key, rows=rows, delay_ns=delay_ms * MS) if key else None,
        )
        self.count += 1
        if self.line.offer(request, self.now) is None:
            self.waiting.append(request)
        else:
            self.answered.append(request.number)

    @rule(ms=st.integers(0, 20))
    def time_passes(self, ms: int) -> None:
        self.now += ms * MS

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0, 15))
    def give_up(self, which: int) -> None:
        self.waiting[which % len(self.waiting)].abandoned = True

    @rule(thread=st.integers(0, 1), done=st.booleans())
    def take(self, thread: int, done: bool) -> None:
        before = list(self.waiting)
        turn = self.line.take(thread, self.now)
        for job, fate in turn.dropped:
            self._answer(job, fate)
        if not turn.jobs:
            assert all(each.company and each.company.max_delay_ns for each in self.waiting if not each.abandoned)
            assert not self.waiting or turn.look_again_ns is not None
            self.urgent_in_a_row = 0  # nobody else is due
            return
        first = turn.jobs[0]
        assert isinstance(first, Request)
        self._check_order(first, [each for each in before if each not in [job for job, _ in turn.dropped]])
        self._check_company(first, turn.jobs)
        for job in turn.jobs:
            assert job.deadline_ns >= self.now or not job.strict
            self._answer(job, None)
        if done:
            self.line.done(thread)

    @rule()
    def expire(self) -> None:
        for job, fate in self.line.expire(self.now):
            self._answer(job, fate)
        assert not any(each.abandoned or (each.strict and each.deadline_ns < self.now) for each in self.waiting)

    @invariant()
    def all_are_accounted_for(self) -> None:
        assert self.line.waiting == len(self.waiting) <= 16
        assert sorted([*self.answered, *(each.number for each in self.waiting)]) == list(range(self.count))
        assert all(lane.expected_ns == sum(e.expected_ns for e in lane.entries) for lane in self.line._lanes)

    def _answer(self, job: Job, fate: Outcome | None) -> None:
        assert isinstance(job, Request)
        if fate is not None:
            assert fate is (Outcome.ABANDONED if job.abandoned else Outcome.EXPIRED)
        self.waiting.remove(job)
        self.answered.append(job.number)

    def _check_order(self, first: Request, before: list[Request]) -> None:
        def due(request: Request) -> bool:
            delayed = request.company is not None and request.company.max_delay_ns
            return not delayed

        assert not any(due(each) for each in before if each.urgent == first.urgent and each.number < first.number)
        self.urgent_in_a_row = self.urgent_in_a_row + 1 if first.urgent else 0
        if not any(due(each) for each in before if not each.urgent):
            self.urgent_in_a_row = 0
        assert self.urgent_in_a_row <= IN_A_ROW

    def _check_company(self, first: Request, jobs: Sequence[Job]) -> None:
        if len(jobs) == 1:
            return
        assert first.company is not None
        assert {each.company.key for each in jobs if each.company} == {first.company.key}
        assert sum(each.company.rows for each in jobs if each.company) <= first.company.max_rows
        assert numbers(jobs[1:]) == sorted(numbers(jobs[1:]))


TestWhatever = _Whatever.TestCase
