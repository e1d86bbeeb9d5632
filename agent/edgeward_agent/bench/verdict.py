"""Does it make the budget, and how sure is that? Pure.

The verdict is held to what a bound says, never to the observed quantile: p99 of 50 requests is their latest one, and
the next 50 have another. A bound on the far side of the budget decides; anything else is inconclusive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from edgeward_agent.bench.budget import Budget
from edgeward_agent.bench.quantiles import (
    CONFIDENCE,
    Bounds,
    Floats,
    Ordered,
    Sorted,
    bounds,
    design_effect,
    samples_to_decide,
)


class Outcome(StrEnum):
    """PASS: the upper bound lies within the budget. OVER: the lower bound lies beyond it."""

    PASS = "pass"  # noqa: S105
    OVER = "over"
    INCONCLUSIVE = "inconclusive"


class Why(StrEnum):
    """What leaves it open."""

    DECIDED = "decided"
    TOO_FEW = "too_few"
    TOO_CLOSE = "too_close"
    TOO_NOISY = "too_noisy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """On one way of asking (`path`). `needed_n` is about how many requests would decide; 0 when none would."""

    outcome: Outcome
    why: Why
    budget: Budget
    path: str
    bounds: Bounds
    late_share: float
    needed_n: int = 0


def judge(
    path: str, rounds: Sequence[Floats], budget: Budget, *, slowdown: float = 1.0, confidence: float = CONFIDENCE
) -> Verdict:
    """Hold the latencies of all rounds, in µs and at least one, to the budget. See `decide`."""
    values = Sorted(*rounds)
    return decide(path, values, values.beyond(budget.latency_us), budget, slowdown=slowdown, confidence=confidence)


def decide(
    path: str, values: Ordered, late: Floats, budget: Budget, *, slowdown: float = 1.0, confidence: float = CONFIDENCE
) -> Verdict:
    """Hold latencies, of which `late` of each round are beyond the budget, to it.

    What never got an answer is infinitely late. Noise makes answers late and never early, so a pass stands whatever
    the machine did; that it is over stands only if it would be on a machine that is `slowdown` times as fast.
    """
    bound = bounds(values, budget.share, confidence=confidence)
    late_share = float(late.sum()) / values.n
    outcome, why = _outcome(bound, budget, slowdown)
    design = design_effect(late, values.sizes, confidence)
    needed = samples_to_decide(budget.share, late_share, design, confidence) if why is Why.TOO_FEW else 0
    if why is Why.TOO_FEW and not _worth_waiting(needed, bound):
        why = Why.TOO_CLOSE
    return Verdict(
        outcome=outcome, why=why, budget=budget, path=path, bounds=bound, late_share=late_share, needed_n=needed
    )


def _outcome(bound: Bounds, budget: Budget, slowdown: float) -> tuple[Outcome, Why]:
    if bound.upper_us <= budget.latency_us:
        return Outcome.PASS, Why.DECIDED
    if bound.lower_us <= budget.latency_us:
        return Outcome.INCONCLUSIVE, Why.TOO_FEW
    if bound.lower_us / slowdown <= budget.latency_us:
        return Outcome.INCONCLUSIVE, Why.TOO_NOISY
    return Outcome.OVER, Why.DECIDED


def _worth_waiting(needed: int, bound: Bounds) -> bool:
    return math.isinf(bound.upper_us) or 0 < needed <= 20 * bound.n
