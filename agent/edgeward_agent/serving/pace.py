"""How long a version takes, learned from its own runs. Pure: times go in, no clock.

Two numbers for each size of request: the usual time, which says whether a run may hold up the loop and how long a queue
takes, and the p99, which says whether one more request can still make its deadline.
"""

from __future__ import annotations

from typing import Final

INLINE_BELOW_NS: Final = 1_000_000
"""A run that usually takes less is quicker than a hand-over to a thread is worth."""
ALONE_BELOW_NS: Final = 20_000_000
"""One that does may hold up the loop where nobody else is there, and one of a hundred where somebody is."""
_WEIGHT: Final = 8  # of the past against the newest measurement
_SIZES: Final = 64
_BLOCK: Final = 32
_FORGIVEN: Final = 2  # outliers
_TOP: Final = _FORGIVEN + 1
_KEPT: Final = 7 * _TOP
DOUBT_AFTER_NS: Final = 1_000_000_000
STALE_NS: Final = 10_000_000_000


class Tail:
    """The third largest of the last 224 to 256 values, which is their p99. `value` is 0 before the third one.

    Two outliers are forgiven, however large: the first runs of a version, or a moment without a processor. With few
    values it is a lower quantile: nobody is refused for what is not known yet. A sketch of the whole distribution
    would be slower to update, and would remember the worst minute of the day for hours.
    """

    __slots__ = ("_count", "_kept", "_top", "value")

    def __init__(self) -> None:
        self.value = 0
        self._count = 0
        self._top = [0] * _TOP  # of the current block, smallest first
        self._kept: list[int] = []  # the same of the blocks before

    def add(self, value: int) -> None:
        """Costs two comparisons but for one value in twenty."""
        if value > self._top[0]:
            self._insert(value)
        self._count += 1
        if self._count == _BLOCK:
            self._close_block()

    def _insert(self, value: int) -> None:
        top = self._top
        top[0] = value
        top.sort()
        if value > self.value:
            self.value = _third_largest(self._kept + top)

    def forget(self) -> None:
        """Let go of the oldest block. May be called beside `add` on another thread: lists of blocks do not change."""
        if not self._kept:
            self._top = [0] * _TOP
        kept = self._kept = self._kept[_TOP:]
        self.value = _third_largest(kept + self._top)

    def _close_block(self) -> None:
        kept = self._kept = (self._kept + self._top)[-_KEPT:]
        self._top = [0] * _TOP
        self._count = 0
        self.value = _third_largest(kept)


def _third_largest(values: list[int]) -> int:
    return sorted(values)[-_TOP]


class Learned:
    """What is known of requests of one size."""

    __slots__ = ("_ran_ns", "_tried_ns", "tail", "usual_ns")

    def __init__(self) -> None:
        self.usual_ns = 0
        self._ran_ns = self._tried_ns = 0
        self.tail = Tail()

    @property
    def p99_ns(self) -> int:
        return max(self.tail.value, self.usual_ns)

    def add(self, run_ns: int, now_ns: int) -> None:
        past = self.usual_ns
        # One run that lost the processor must not send the next ones to a thread: none counts for more than four.
        usual = (past * (_WEIGHT - 1) + (run_ns if run_ns < 4 * past else 4 * past)) // _WEIGHT
        if not usual or now_ns - self._ran_ns > STALE_NS:
            usual = run_ns
        self.usual_ns = usual
        self._ran_ns = now_ns
        self.tail.add(run_ns)

    def try_anew(self, now_ns: int) -> bool:
        """Whether to let one request in against all that is known: nothing has run for so long that the next run may
        tell another story. Says so to one in ten seconds.
        """
        if now_ns - max(self._ran_ns, self._tried_ns) <= STALE_NS:
            return False
        self._tried_ns = now_ns
        return True

    def not_tried(self) -> None:
        """Whoever was let in by `try_anew` did not run: the next one may."""
        self._tried_ns = 0

    def doubt(self, now_ns: int) -> None:
        """A request was refused for the p99, and would be in time if it took the usual time.

        Runs that go on show by themselves when a bad minute is over. Where none does, nobody would be let in for ever:
        each such refusal forgets an eighth of the p99, down to the usual time.
        """
        if now_ns - self._ran_ns > DOUBT_AFTER_NS:
            self.tail.forget()


_UNKNOWN: Final = Learned()


class Pace:
    """What a version takes, by power of two of the bytes that go in.

    Unknown sizes are not short: a batch of thousands to a quick model must not stop the loop.
    """

    __slots__ = ("_sizes",)

    def __init__(self) -> None:
        self._sizes = [_UNKNOWN] * _SIZES

    def of(self, size_bytes: int) -> Learned:
        """What is known of this size; zeros where nothing is."""
        return self._sizes[size_bytes.bit_length()]

    def learn(self, size_bytes: int, run_ns: int, now_ns: int) -> None:
        """Count a run that ended at `now_ns`, of a clock that only has to go forward."""
        self.learner(size_bytes).add(run_ns, now_ns)

    def learner(self, size_bytes: int) -> Learned:
        """What is known of this size, and will be: the same for as long as the version lives."""
        index = size_bytes.bit_length()
        learned = self._sizes[index]
        if learned is _UNKNOWN:
            learned = self._sizes[index] = Learned()
        return learned
