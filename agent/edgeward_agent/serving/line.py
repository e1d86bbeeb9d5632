"""The line of requests that wait for a thread: who may join it, who is next, who is sent away. Pure: `now` goes in.

Admission. A request that cannot make its deadline is refused at once, since an answer in microseconds is of more use to
its caller than an error after the deadline. It cannot when the moment at which a thread will be free for it, by the
usual times of what is ahead, plus the learned p99 of its own run, lies beyond the deadline. One exception: where a
thread is idle, the budget of the model refuses nobody, and nobody expires on the way to it. The manifest's budget is
what the model should keep, not what the caller said; refusing would free no thread for anybody else, and take from the
bedside answers that are a little late. A deadline that the caller gave is held to the letter.

Order. Priority 1 goes before the others, and within each it is first come, first served. Nobody starves: while others
wait, at most four of priority 1 start in a row. The last eighth of the line is kept for priority 1.

Company. A model whose manifest says so has waiting requests of equal shape run as one; see `batching`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from heapq import heapreplace
from itertools import chain
from typing import Final, NamedTuple, Protocol

import msgspec

from edgeward_agent.serving.outcome import Outcome
from edgeward_agent.serving.pace import Learned, Pace

NEVER_NS: Final = 1 << 62
IN_A_ROW: Final = 4
_RESERVED: Final = 8  # one eighth
_URGENT, _ORDINARY = 0, 1


class Company(msgspec.Struct, frozen=True, kw_only=True):
    """With whom a request may run as one: those of equal `key`, up to `max_rows` together, waiting `max_delay_ns`."""

    key: Hashable
    rows: int
    max_rows: int
    max_delay_ns: int = 0


class Job(Protocol):
    """One inference. Times are of one clock that only goes forward, in ns.

    `run` and `run_with` are called on any thread; `finish` or `drop` on the loop's, once.
    """

    size_bytes: int
    pace: Pace
    deadline_ns: int  # NEVER_NS: none
    strict: bool  # the deadline is the caller's own, not the budget of the model
    urgent: bool
    company: Company | None

    @property
    def abandoned(self) -> bool:
        """Nobody waits for the answer any more."""

    def run(self) -> None:
        """Must not raise: keeps result or error for `finish`."""

    def run_with(self, jobs: Sequence[Job]) -> None:
        """Run all of these, itself among them, as one; each keeps its own result."""

    def finish(self) -> None:
        """It has run."""

    def drop(self, outcome: Outcome) -> None:
        """It waited and will not run."""


class _Entry(msgspec.Struct, eq=False):
    job: Job
    expected_ns: int
    deadline_ns: int  # for waiting; NEVER_NS for one that a thread was idle for
    trial: Learned | None = None  # what it was let in to find out anew
    ripe_ns: int = 0  # not to be started before: it waits for company

    def fate(self, now_ns: int) -> Outcome | None:
        """Why it need not run any more; None when it must."""
        if self.job.abandoned:
            return Outcome.ABANDONED
        return Outcome.EXPIRED if self.deadline_ns < now_ns else None


Dropped = tuple[Job, Outcome]


class Turn(NamedTuple):
    """What a thread does next: run `jobs` as one, and say to the callers of `dropped` how their requests ended.

    `look_again_ns` is when a request that waits for company will be due; None when none does.
    """

    jobs: tuple[Job, ...]
    dropped: tuple[Dropped, ...]
    look_again_ns: int | None


class _Lane(msgspec.Struct):
    """The waiting requests of one priority."""

    entries: deque[_Entry] = msgspec.field(default_factory=deque)
    expected_ns: int = 0

    def append(self, entry: _Entry) -> None:
        self.entries.append(entry)
        self.expected_ns += entry.expected_ns

    def drop(self, dead: Iterable[_Entry]) -> None:
        """Take out those who will not run."""
        for entry in dead:
            if entry.trial is not None:
                entry.trial.not_tried()
            self.take_out([entry])

    def take_out(self, some: Iterable[_Entry]) -> None:
        for entry in some:
            if self.entries[0] is entry:
                self.entries.popleft()
            else:
                self.entries.remove(entry)
            self.expected_ns -= entry.expected_ns

    def recount(self, company: Company) -> None:
        """Say what each of a company adds to the run that it will be in. Anew when one comes or a run begins."""
        rows = size_bytes = sum_ns = 0
        for entry in self.of_company(company):
            job = entry.job
            if rows + _rows(entry) > company.max_rows:
                rows = size_bytes = sum_ns = 0
            rows, size_bytes = rows + _rows(entry), size_bytes + job.size_bytes
            joint_ns = job.pace.of(size_bytes).usual_ns
            expected_ns = max(0, joint_ns - sum_ns) if joint_ns else job.pace.of(job.size_bytes).usual_ns
            self.expected_ns += expected_ns - entry.expected_ns
            entry.expected_ns = expected_ns
            sum_ns += expected_ns

    def of_company(self, company: Company) -> list[_Entry]:
        return [each for each in self.entries if each.job.company and each.job.company.key == company.key]


class Line:
    """Not safe for threads: whoever shares it holds a lock around every call."""

    def __init__(self, *, threads: int, capacity: int) -> None:
        self.capacity = capacity
        self.waiting = 0
        self._lanes = (_Lane(), _Lane())
        self._busy_until_ns = [0] * threads  # as far as can be foreseen; 0: idle
        self._urgent_in_a_row = 0
        self._ripe_ns = 0  # nobody waits for company after this

    def offer(self, job: Job, now_ns: int) -> Outcome | None:
        """Let a request wait; or say why not: FULL, or REFUSED for its deadline."""
        if self.waiting >= self.capacity - (0 if job.urgent else self.capacity // _RESERVED):
            return Outcome.FULL
        alone = self._ahead(job, now_ns) < self._busy_until_ns.count(0)
        learned = job.pace.of(job.size_bytes)
        in_time, trial = self._judged(job, learned, now_ns, alone=alone)
        if not in_time:
            return Outcome.REFUSED
        lane = self._lanes[_URGENT if job.urgent else _ORDINARY]
        until_ns = NEVER_NS if alone and not job.strict else job.deadline_ns
        entry = _Entry(job, learned.usual_ns, until_ns, trial)
        if job.company is None:
            lane.append(entry)
        else:
            _seek_company(entry, job.company, lane.of_company(job.company), now_ns)
            self._ripe_ns = max(self._ripe_ns, entry.ripe_ns)
            lane.append(entry)
            lane.recount(job.company)
        self.waiting += 1
        return None

    def take(self, thread: int, now_ns: int) -> Turn:
        """What a thread that is free does now."""
        dropped: list[Dropped] = []
        entries = self._next(now_ns, dropped)
        self._busy_until_ns[thread] = now_ns + _together_ns(entries) if entries else 0
        return Turn(tuple(each.job for each in entries), tuple(dropped), self._due_ns(now_ns))

    def done(self, thread: int) -> None:
        """A thread is free, perhaps earlier than was foreseen. Needs no lock: it is one assignment."""
        self._busy_until_ns[thread] = 0

    def expire(self, now_ns: int) -> list[Dropped]:
        """Take out everybody who need not run any more, wherever they stand."""
        dropped: list[Dropped] = []
        for lane in self._lanes:
            dead = [(each, fate) for each in lane.entries if (fate := each.fate(now_ns)) is not None]
            lane.drop([each for each, _ in dead])
            self.waiting -= len(dead)
            dropped += [(each.job, fate) for each, fate in dead]
        return dropped

    @property
    def next_deadline_ns(self) -> int:
        """When somebody has to be told that it is too late; NEVER_NS when nobody has."""
        return min((each.deadline_ns for each in self._entries()), default=NEVER_NS)

    @property
    def expected_ns(self) -> int:
        """How long all that wait will take, by their usual times."""
        return sum(lane.expected_ns for lane in self._lanes) // len(self._busy_until_ns)

    def ripen(self) -> None:
        """Wait for nobody's company any more: the end is near."""
        for entry in self._entries():
            entry.ripe_ns = 0

    def give_up(self) -> list[Dropped]:
        """Take out everybody: the time of the server is over, and with it theirs."""
        for entry in self._entries():
            entry.deadline_ns = 0
        return self.expire(1)

    def _entries(self) -> Iterable[_Entry]:
        return chain(self._lanes[_URGENT].entries, self._lanes[_ORDINARY].entries)

    def _ahead(self, job: Job, now_ns: int) -> int:
        """How many may want a thread when this one does: those who wait for company do not yet, unless it waits too."""
        if self._ripe_ns <= now_ns or (job.company is not None and job.company.max_delay_ns):
            return self.waiting
        return sum(each.ripe_ns <= now_ns for each in self._entries())

    def _due_ns(self, now_ns: int) -> int | None:
        if self._ripe_ns <= now_ns:
            return None
        return min((each.ripe_ns for each in self._entries() if each.ripe_ns > now_ns), default=None)

    def _judged(self, job: Job, learned: Learned, now_ns: int, *, alone: bool) -> tuple[bool, Learned | None]:
        """Whether a request is let in, and what it shall find out anew where it is against all that was learned."""
        if job.deadline_ns >= NEVER_NS or (alone and not job.strict):
            return True, None
        latest_start_ns = job.deadline_ns - learned.p99_ns
        start_ns = now_ns if alone else self._start_ns(now_ns, latest_start_ns, urgent=job.urgent)
        if start_ns <= latest_start_ns:
            return True, None
        if start_ns < job.deadline_ns and learned.try_anew(now_ns):
            return True, learned
        if start_ns + learned.usual_ns <= job.deadline_ns:
            learned.doubt(now_ns)
        return False, None

    def _start_ns(self, now_ns: int, enough_ns: int, *, urgent: bool) -> int:
        """When a thread will be free, if what is ahead takes its usual time; any time up to `enough_ns` is as good."""
        lanes = self._lanes[:1] if urgent else self._lanes
        free_ns = sorted(max(end_ns, now_ns) for end_ns in self._busy_until_ns)
        latest_ns = free_ns[0] + sum(lane.expected_ns for lane in lanes)
        if latest_ns <= enough_ns:
            return latest_ns  # in time even if one thread did it all: no need to look at every one
        for entry in chain.from_iterable(lane.entries for lane in lanes):
            heapreplace(free_ns, free_ns[0] + entry.expected_ns)
        return free_ns[0]

    def _next(self, now_ns: int, dropped: list[Dropped]) -> list[_Entry]:
        """Who starts now, with its company; empty when nobody is due. Those who need not run go to `dropped`."""
        urgent, ordinary = (self._first(lane, now_ns, dropped) for lane in self._lanes)
        if urgent is not None and (ordinary is None or self._urgent_in_a_row < IN_A_ROW):
            self._urgent_in_a_row = self._urgent_in_a_row + 1 if ordinary is not None else 0
            return self._start(_URGENT, urgent, now_ns)
        self._urgent_in_a_row = 0
        return self._start(_ORDINARY, ordinary, now_ns) if ordinary is not None else []

    def _first(self, lane: _Lane, now_ns: int, dropped: list[Dropped]) -> _Entry | None:
        """The first of a lane that is due, and the dead before it taken out."""
        dead: list[_Entry] = []
        first = None
        for entry in lane.entries:
            if (fate := entry.fate(now_ns)) is not None:
                dead.append(entry)
                dropped.append((entry.job, fate))
            elif entry.ripe_ns <= now_ns:
                first = entry
                break
        lane.drop(dead)
        self.waiting -= len(dead)
        return first

    def _start(self, which: int, first: _Entry, now_ns: int) -> list[_Entry]:
        lane, company = self._lanes[which], first.job.company
        if company is None:
            together = [first]
            lane.take_out(together)
        else:
            together = _fill(first, company, lane.of_company(company), now_ns)
            lane.take_out(together)
            lane.recount(company)
        self.waiting -= len(together)
        return together


def _seek_company(entry: _Entry, company: Company, others: list[_Entry], now_ns: int) -> None:
    """Say until when the request waits for others to run with."""
    job = entry.job
    group = _open_group(others, company)
    if company.rows + sum(_rows(each) for each in group) >= company.max_rows:
        for each in group:
            each.ripe_ns = 0
    elif company.max_delay_ns and (longest_ns := _longest_ns(job, company)):
        entry.ripe_ns = min(now_ns + company.max_delay_ns, job.deadline_ns - longest_ns)


def _open_group(others: list[_Entry], company: Company) -> list[_Entry]:
    """Those at the end that will run together and have room for one more."""
    group: list[_Entry] = []
    rows = 0
    for each in others:
        if rows + _rows(each) > company.max_rows:
            group, rows = [], 0
        group.append(each)
        rows += _rows(each)
    return group if rows + company.rows <= company.max_rows else []


def _longest_ns(job: Job, company: Company) -> int:
    """What a full company may take; 0 when not even the request alone is known: then nobody waits."""
    times = company.max_rows // company.rows
    full_ns = job.pace.of(job.size_bytes * times).p99_ns
    return full_ns or job.pace.of(job.size_bytes).p99_ns * times


def _fill(first: _Entry, company: Company, candidates: list[_Entry], now_ns: int) -> list[_Entry]:
    """The first, and in their order those that fit beside it and cost nobody a deadline that could be kept."""
    together, rows = [first], company.rows
    pace, size_bytes, sum_ns = first.job.pace, first.job.size_bytes, _p99_ns(first.job)
    until_ns = _to_keep_ns(first.job, now_ns)
    for each in candidates:
        if each is first or rows + _rows(each) > company.max_rows or each.fate(now_ns) is not None:
            continue
        earliest_ns = min(until_ns, _to_keep_ns(each.job, now_ns))
        joint_bytes, joint_ns = size_bytes + each.job.size_bytes, sum_ns + _p99_ns(each.job)
        if _may_join(pace.of(joint_bytes), joint_ns, now_ns, earliest_ns):
            together.append(each)
            rows += _rows(each)
            size_bytes, sum_ns, until_ns = joint_bytes, joint_ns, earliest_ns
    return together


def _may_join(joint: Learned, sum_ns: int, now_ns: int, until_ns: int) -> bool:
    """Whether a joint run will be over by then; `sum_ns` is what each by itself would take, the p99 of all together.

    What a bad minute taught is forgotten as in `_judged`: runs of this size would end for ever, since none is made.
    """
    if now_ns + (joint.p99_ns or sum_ns) <= until_ns:
        return True
    if now_ns + sum_ns <= until_ns and joint.try_anew(now_ns):
        return True
    if joint.usual_ns and now_ns + joint.usual_ns <= until_ns:
        joint.doubt(now_ns)
    return False


def _to_keep_ns(job: Job, now_ns: int) -> int:
    """The deadline of a job, or NEVER_NS where it would not make it by itself either."""
    return job.deadline_ns if now_ns + job.pace.of(job.size_bytes).usual_ns <= job.deadline_ns else NEVER_NS


def _p99_ns(job: Job) -> int:
    return job.pace.of(job.size_bytes).p99_ns


def _rows(entry: _Entry) -> int:
    return entry.job.company.rows if entry.job.company else 1


def _size_bytes(entries: Iterable[_Entry]) -> int:
    return sum(each.job.size_bytes for each in entries)


def _together_ns(entries: list[_Entry]) -> int:
    usual_ns = entries[0].job.pace.of(_size_bytes(entries)).usual_ns
    return usual_ns or sum(each.expected_ns for each in entries)
