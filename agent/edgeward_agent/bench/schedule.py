"""When requests are meant to begin, and in which order things are measured. Pure: randomness comes in as a generator.

Open loop: requests begin when the schedule says, as patients come, whether or not the last one was answered. A loop
that waits for each answer before it asks again leaves out just the requests that would have waited longest
("coordinated omission", G. Tene). So a latency here runs from the intended start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from edgeward_agent.bench.errors import CannotMeasure
from edgeward_agent.bench.quantiles import Floats, least_samples

MOST_REQUESTS: Final = 10_000
"""Enough for any budget at p99, and p99.9 to look at; a small model takes a second or two for it."""
ROUNDS: Final = 20
DEFAULT_S: Final = 10.0
_LONGEST_DEFAULT_S: Final = 30.0  # for a slow model, which needs more time until anything can be said of its tail
_OPEN_ROUND_S: Final = 0.5
_MOST_OPEN_S: Final = 60.0
_MOST_GRACE_S: Final = 1.0
_ROUNDING: Final = 1e-6
_TURN_S: Final = 3.0  # as long as somebody waits who wants to see something of each path


class Arrivals(StrEnum):
    """POISSON: independent of each other, as people are. CONSTANT: evenly spaced, as a monitor is."""

    POISSON = "poisson"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one block asks. Without `starts_s` each of `clients` asks as soon as it has its answer.

    Closed loops end after `count` requests or after `seconds`, whichever comes first; 0 is no limit. `starts_s` are
    the intended starts from the beginning of the block, which then lasts `seconds` at least; what waits to be sent
    `grace_s` after the last of them is not sent any more, and counts as never answered; so does what has waited for as
    long when the run is interrupted. `first` is the number of the first case, so that blocks go round all of them.
    `turns` is in how many parts `count` is asked, each path in turn: the same for all paths of a round.
    """

    count: int = 0
    seconds: float = 0.0
    starts_s: Floats | None = None
    clients: int = 1
    first: int = 0
    grace_s: float = math.inf
    turns: int = 1

    def turn(self, number: int) -> Load:
        """The part of that number, from 0."""
        before, count = part_of(self.count, number, self.turns)
        return replace(self, count=count, first=self.first + before, turns=1)


def part_of(total: int, number: int, parts: int) -> tuple[int, int]:
    """How many come before the part of that number, from 0, and how many are in it: as even as whole numbers can be."""
    before = total * number // parts
    return before, total * (number + 1) // parts - before


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Rounds of one block for each path. Fixed before the first latency is seen, so that no result ends the run."""

    rounds: int
    requests: int  # of all blocks of a path; in an open loop what is expected of them
    seconds: float  # of one block, about
    rate: float = 0.0
    arrivals: Arrivals = Arrivals.POISSON
    clients: int = 1
    grace_s: float = math.inf

    def in_rounds(self, rounds: int) -> Plan:
        """The same requests in as many rounds."""
        return replace(self, rounds=rounds, seconds=self.seconds * self.rounds / rounds)

    def load(self, round_number: int, generator: np.random.Generator) -> Load:
        """The block of this round: the same for every path."""
        first, count = part_of(self.requests, round_number, self.rounds)
        if not self.rate:
            turns = max(1, min(int(self.seconds / _TURN_S), count // self.clients))
            return Load(count=count, clients=self.clients, first=first, grace_s=self.grace_s, turns=turns)
        begin_s = round_number * self.seconds
        starts = intended_starts(self.rate, self.seconds, self.arrivals, generator, begin_s=begin_s)
        return Load(starts_s=starts, seconds=self.seconds, clients=self.clients, first=first, grace_s=self.grace_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a person asked for; 0 leaves it to us. `share` is the quantile that is going to be judged.

    In an open loop nothing is given up before it is late by `patience_s`. Time is never too short for `least_rounds`
    in a closed one.
    """

    requests: int = 0
    duration_s: float = 0.0
    rate: float = 0.0
    arrivals: Arrivals = Arrivals.POISSON
    clients: int = 1
    share: float = 0.99
    patience_s: float = 0.0
    least_rounds: int = 1


def intended_starts(
    rate: float, seconds: float, arrivals: Arrivals, generator: np.random.Generator, *, begin_s: float = 0.0
) -> Floats:
    """Starts within `seconds`, ascending; none where none is due.

    Args:
        begin_s: how much of the run has passed: what is evenly spaced goes on from there.
    """
    if arrivals is Arrivals.CONSTANT:
        first, last = (math.ceil(at * rate - _ROUNDING) for at in (begin_s, begin_s + seconds))
        return np.maximum(0.0, np.arange(first, last, dtype=np.float64) / rate - begin_s)
    expected = rate * seconds
    gaps = generator.exponential(1 / rate, size=math.ceil(expected + 6 * math.sqrt(expected) + 10))
    starts: Floats = np.cumsum(gaps)
    return starts[: int(np.searchsorted(starts, seconds))]


def least_due(arrivals: Arrivals) -> int:
    """How many have to be expected for any to come: where five are, and independent, none comes in 1 of 150 runs."""
    return 1 if arrivals is Arrivals.CONSTANT else 5


def check_due(wishes: Wishes, seconds: float, remedy: str) -> None:
    """Raises CannotMeasure when too few requests are due within `seconds` on a path; `remedy` is what to ask for."""
    least, due = least_due(wishes.arrivals), wishes.rate * seconds
    if due < least - _ROUNDING:
        raise CannotMeasure(
            f"--rate {wishes.rate:g}: expected at least {least} to be due on each path,"
            f" got {due:.2g} in {seconds:.3g} s",
            f"Ask for more: {remedy}, or a higher rate.",
        )


def grace(seconds: float, patience_s: float) -> float:
    """How long after its end a block of an open loop sends what it owes: half its length, and a second at most.

    Where a queue grows it would take many times as long to send all of it. But what is given up has to be late, so it
    is never less than `patience_s`: the budget, and a few answers of a slow model.
    """
    return max(patience_s, min(_MOST_GRACE_S, seconds / 2))


def plan_closed(costs_s: Sequence[float], wishes: Wishes) -> Plan:
    """As many requests as the time allows and the verdict can use, the same number on every path.

    Args:
        costs_s: seconds for one request on each path when that many clients ask, as the warm-up had it.
    """
    cost = max(sum(costs_s), 1e-9)
    fits = int(wishes.duration_s / cost) if wishes.duration_s else _by_default(cost, wishes)
    total = wishes.requests or max(wishes.least_rounds * wishes.clients, fits)
    rounds = max(1, min(ROUNDS, total // max(1, wishes.clients)))
    seconds = total / rounds * cost
    return Plan(
        rounds=rounds,
        requests=total,
        seconds=seconds,
        clients=wishes.clients,
        grace_s=grace(seconds, wishes.patience_s),
    )


def _by_default(cost_s: float, wishes: Wishes) -> int:
    """What decides with ease, in ten seconds; what decides at all, in thirty."""
    least = least_samples(wishes.share)
    enough = min(max(MOST_REQUESTS, 4 * least), int(DEFAULT_S / cost_s))
    return max(enough, min(2 * least, int(_LONGEST_DEFAULT_S / cost_s)))


def plan_open(paths: int, wishes: Wishes) -> Plan:
    """Blocks of at least half a second, for a queue needs time to build up.

    Raises CannotMeasure when too few requests would be due.
    """
    wanted = wishes.requests or math.ceil(1.5 * least_samples(wishes.share))
    per_path_s = wanted / wishes.rate
    if wishes.duration_s:
        per_path_s = wishes.duration_s / paths
    elif not wishes.requests:
        per_path_s = min(max(per_path_s, DEFAULT_S / paths), _MOST_OPEN_S / paths)
    least = least_due(wishes.arrivals)
    longer = f"--requests {least}" if wishes.requests else f"--duration {math.ceil(least * paths / wishes.rate)}s"
    check_due(wishes, per_path_s, longer)
    rounds = max(1, min(ROUNDS, int(per_path_s / max(_OPEN_ROUND_S, 2 / wishes.rate))))
    seconds = per_path_s / rounds
    return Plan(
        rounds=rounds,
        requests=max(1, round(wishes.rate * per_path_s)),
        seconds=seconds,
        rate=wishes.rate,
        arrivals=wishes.arrivals,
        clients=wishes.clients,
        grace_s=grace(seconds, wishes.patience_s),
    )


def order(paths: Sequence[str], round_number: int) -> list[str]:
    """Each round begins with another path, and every other one goes backwards: nobody always follows the same one."""
    turn = round_number % len(paths)
    turned = [*paths[turn:], *paths[:turn]]
    return turned[::-1] if (round_number // len(paths)) % 2 else turned
