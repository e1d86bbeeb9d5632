"""Who comes first: anybody can recompute it, and no site is the only guinea pig."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_contract.artifact import DeviceId
from edgeward_fleet.rollouts.model import PhaseSpec
from edgeward_fleet.rollouts.phases import Candidate, assign, cumulative_size, rank, uncovered

_TWO = (PhaseSpec(name="canary", percent=20), PhaseSpec(name="everyone", percent=100))


def _fleet(**sites: int) -> list[Candidate]:
    return [
        Candidate(device=DeviceId(f"{site}-{number}"), site=site)
        for site, size in sites.items()
        for number in range(size)
    ]


_FLEETS = st.dictionaries(st.sampled_from(["n", "s", "e", "w"]), st.integers(1, 40), min_size=1).map(
    lambda sites: _fleet(**sites)
)


@given(_FLEETS, st.text(max_size=5), st.randoms())
def test_the_order_depends_on_the_devices_and_the_salt_alone(fleet: list[Candidate], salt: str, chance: Random) -> None:
    shuffled = sorted(fleet, key=lambda _: chance.random())
    assert rank(salt, fleet) == rank(salt, shuffled)


def test_another_salt_means_other_canaries() -> None:
    fleet = _fleet(north=50)
    firsts = {rank(f"r-{number}", fleet)[0] for number in range(20)}
    assert len(firsts) > 10


@given(_FLEETS, st.integers(1, 100))
def test_everybody_is_in_exactly_one_phase_and_sizes_are_cumulative(fleet: list[Candidate], percent: int) -> None:
    phases = (PhaseSpec(name="a", percent=percent), PhaseSpec(name="b", percent=100))
    assigned = assign("r-1", fleet, phases)
    assert set(assigned) == set(fleet)
    assert sum(phase == 0 for phase in assigned.values()) == -(-len(fleet) * percent // 100)


@given(_FLEETS)
def test_every_prefix_holds_its_share_of_every_site(fleet: list[Candidate]) -> None:
    sizes = Counter(candidate.site for candidate in fleet)
    ranked = rank("r-1", fleet)
    for length in range(1, len(ranked) + 1):
        taken = Counter(candidate.site for candidate in ranked[:length])
        for site, size in sizes.items():
            assert abs(taken[site] - length * size / len(fleet)) <= len(sizes)


def test_a_canary_of_four_takes_one_from_each_of_four_sites() -> None:
    ranked = rank("r-1", _fleet(a=10, b=10, c=10, d=10))
    assert {candidate.site for candidate in ranked[:4]} == {"a", "b", "c", "d"}


@pytest.mark.parametrize(("total", "expected"), [(1, 1), (3, 1), (5, 1), (6, 2), (100, 20)])
def test_a_percentage_rounds_up_so_that_a_canary_is_never_empty(total: int, expected: int) -> None:
    assert cumulative_size(_TWO[0], total) == expected


def test_a_count_above_the_fleet_is_the_fleet() -> None:
    assert cumulative_size(PhaseSpec(name="all", devices=99), 7) == 7


def test_devices_that_no_phase_reaches_are_counted() -> None:
    assert uncovered((PhaseSpec(name="some", percent=50),), 10) == 5
    assert uncovered(_TWO, 10) == 0


def test_cohorts_do_not_change_from_one_version_of_the_fleet_to_the_next() -> None:
    """The order is part of what an approver approved; these names were computed when the hash was chosen."""
    assert [candidate.device for candidate in rank("r-abc", _fleet(north=3, south=2))] == EXPECTED_ORDER


EXPECTED_ORDER = ["north-2", "south-0", "north-0", "south-1", "north-1"]
