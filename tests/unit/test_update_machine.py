"""The table of the update machine: what must be true of every path through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeward_agent.update.machine import (
    BEFORE_ACTIVATION,
    ON_TRIAL,
    TRANSITIONS,
    WORKING,
    Event,
    IllegalTransition,
    advance,
    diagram,
)
from edgeward_contract.reported import RESTING
from edgeward_contract.reported import UpdateState as State


@pytest.mark.parametrize("state", WORKING)
def test_every_working_state_survives_a_reboot(state: State) -> None:
    after = advance(state, Event.REBOOTED)
    assert after in WORKING
    assert (after in BEFORE_ACTIVATION) == (state in BEFORE_ACTIVATION)


@pytest.mark.parametrize("state", sorted(RESTING))
def test_nothing_leaves_a_resting_state(state: State) -> None:
    assert [event for (origin, event) in TRANSITIONS if origin is state] == []
    with pytest.raises(IllegalTransition, match=f"expected an event that {state} knows, got rebooted"):
        advance(state, Event.REBOOTED)


@pytest.mark.parametrize("state", [state for state in State if state is not State.OFFERED])
def test_every_state_can_be_reached(state: State) -> None:
    assert state in _reachable(State.OFFERED)


@pytest.mark.parametrize("state", WORKING)
def test_every_working_state_can_come_to_rest(state: State) -> None:
    assert _reachable(state) & RESTING


@pytest.mark.parametrize("event", list(Event))
def test_every_event_is_in_the_table(event: Event) -> None:
    assert event in {known for _, known in TRANSITIONS}


def test_the_live_model_is_given_up_only_through_a_roll_back() -> None:
    for (state, _), to in TRANSITIONS.items():
        if state in ON_TRIAL:
            assert to in (*ON_TRIAL, State.COMMITTED, State.ROLLING_BACK)
        if state in BEFORE_ACTIVATION:
            assert to not in (State.ROLLING_BACK, State.ROLLED_BACK, State.STRANDED, State.PROBATION)


def test_activation_comes_after_verification_and_probe() -> None:
    assert [state for (state, _), to in TRANSITIONS.items() if to is State.PROBING and state is not to] == [
        State.VERIFYING
    ]
    assert [state for (state, _), to in TRANSITIONS.items() if to is State.ACTIVATING and state is not to] == [
        State.PROBING
    ]


def test_the_page_shows_the_table(checkout: Path) -> None:
    page = (checkout / "docs" / "update-machine.md").read_text()
    assert f"```mermaid\n{diagram()}```\n" in page, "run `python -m edgeward_agent.update.machine` and paste its output"


def _reachable(start: State) -> set[State]:
    found: set[State] = set()
    frontier = {start}
    while frontier:
        state = frontier.pop()
        for (origin, _), to in TRANSITIONS.items():
            if origin is state and to not in found and to is not state:
                found.add(to)
                frontier.add(to)
    return found
