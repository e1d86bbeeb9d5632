"""Which device belongs to which phase: a deterministic hash, spread evenly over the sites.

Two people who know the rollout's id and the devices compute the same cohorts, so nobody can be suspected of having
picked the canary; and a canary of several devices never sits at one site while others have none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.rollouts.model import PhaseSpec


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Candidate:
    """A device that matches the target."""

    device: DeviceId
    site: str


def assign(salt: str, candidates: Iterable[Candidate], phases: Sequence[PhaseSpec]) -> Mapping[Candidate, int]:
    """The phase of each candidate; devices beyond the last phase are left out (see `uncovered`)."""
    ranked = rank(salt, candidates)
    bounds = [cumulative_size(phase, len(ranked)) for phase in phases]
    assigned: dict[Candidate, int] = {}
    for position, candidate in enumerate(ranked):
        phase = next((number for number, bound in enumerate(bounds) if position < bound), None)
        if phase is not None:
            assigned[candidate] = phase
    return assigned


def rank(salt: str, candidates: Iterable[Candidate]) -> list[Candidate]:
    """All candidates in the order of their turn: every prefix holds about the same share of every site."""
    by_site: dict[str, list[tuple[str, Candidate]]] = {}
    for candidate in set(candidates):
        by_site.setdefault(candidate.site, []).append((_draw(salt, candidate.device), candidate))
    turns: list[tuple[float, str, Candidate]] = []
    for drawn in by_site.values():
        for position, (draw, candidate) in enumerate(sorted(drawn)):
            turns.append(((position + 0.5) / len(drawn), draw, candidate))
    return [candidate for _, _, candidate in sorted(turns)]


def cumulative_size(phase: PhaseSpec, total: int) -> int:
    """How many devices the phase and those before it hold; a percentage rounds up, so that a canary is never empty."""
    if phase.devices is not None:
        return min(phase.devices, total)
    return -(-total * (phase.percent or 0) // 100)


def uncovered(phases: Sequence[PhaseSpec], total: int) -> int:
    """How many matching devices no phase would reach."""
    return total - max(cumulative_size(phase, total) for phase in phases)


def _draw(salt: str, device: DeviceId) -> str:
    return hashlib.sha256(f"{salt}\0{device}".encode()).hexdigest()
