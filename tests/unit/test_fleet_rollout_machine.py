"""The tables of the rollout machine, and the document that is drawn from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeward_fleet.rollouts.machine import (
    FINAL,
    STEPS,
    TICKING,
    TRANSITIONS,
    IllegalTransition,
    PhaseStep,
    RolloutEvent,
    RolloutState,
    StepEvent,
    advance,
    advance_step,
    commands,
    diagram,
)

_DOCUMENT = Path(__file__).parents[2] / "docs" / "rollout-machine.md"
_ASKED_BY_PEOPLE = {
    RolloutEvent.APPROVE,
    RolloutEvent.PAUSE,
    RolloutEvent.RESUME,
    RolloutEvent.ABORT,
    RolloutEvent.ROLL_BACK,
    RolloutEvent.SUPERSEDE,
}


def test_every_state_can_be_reached_from_a_draft() -> None:
    reached, fresh = {RolloutState.DRAFT}, {RolloutState.DRAFT}
    while fresh:
        fresh = {target for (source, _), target in TRANSITIONS.items() if source in fresh} - reached
        reached |= fresh
    assert reached == set(RolloutState)


@pytest.mark.parametrize("state", sorted(FINAL))
def test_a_final_state_is_left_only_by_a_person_who_rolls_back(state: RolloutState) -> None:
    assert {event for source, event in TRANSITIONS if source is state} <= {RolloutEvent.ROLL_BACK}


@pytest.mark.parametrize("state", [RolloutState.ROLLED_BACK, RolloutState.SUPERSEDED, RolloutState.EXPIRED])
def test_what_is_over_is_over(state: RolloutState) -> None:
    for event in RolloutEvent:
        with pytest.raises(IllegalTransition, match=f"got '{event}' while {state}"):
            advance(state, event)


@pytest.mark.parametrize("state", [state for state in RolloutState if state not in FINAL])
def test_no_state_that_is_not_final_is_a_dead_end(state: RolloutState) -> None:
    assert any(source is state for source, _ in TRANSITIONS)


@pytest.mark.parametrize("state", sorted(TICKING))
def test_every_state_that_ticks_can_be_left_without_a_person(state: RolloutState) -> None:
    assert {event for source, event in TRANSITIONS if source is state} - _ASKED_BY_PEOPLE


def test_nothing_starts_without_an_approval() -> None:
    into_scheduled = {event for (_, event), target in TRANSITIONS.items() if target is RolloutState.SCHEDULED}
    into_progress = {
        source
        for (source, _), target in TRANSITIONS.items()
        if target is RolloutState.PROGRESSING and source is not RolloutState.PROGRESSING
    }
    assert into_scheduled == {RolloutEvent.APPROVE}
    assert into_progress == {RolloutState.SCHEDULED, RolloutState.PAUSED}


def test_a_phase_is_analysed_before_the_next_one_opens() -> None:
    assert advance_step(PhaseStep.SELECTING, StepEvent.SELECTED) is PhaseStep.OFFERING
    assert advance_step(PhaseStep.OFFERING, StepEvent.SETTLED) is PhaseStep.SOAKING
    assert advance_step(PhaseStep.SOAKING, StepEvent.SOAKED) is PhaseStep.ANALYSING
    with pytest.raises(IllegalTransition):
        advance_step(PhaseStep.OFFERING, StepEvent.SOAKED)


@pytest.mark.parametrize("step", list(PhaseStep))
def test_a_resume_opens_the_phase_again_from_every_step(step: PhaseStep) -> None:
    assert STEPS[step, StepEvent.OPENED] is PhaseStep.SELECTING


def test_the_error_says_what_would_have_been_possible() -> None:
    with pytest.raises(IllegalTransition, match="expected one of: abort, resume, roll_back, supersede; got 'pause'"):
        advance(RolloutState.PAUSED, RolloutEvent.PAUSE)


def test_what_people_can_ask_for_in_a_state() -> None:
    assert commands(RolloutState.PAUSED) == (RolloutEvent.RESUME, RolloutEvent.ABORT, RolloutEvent.ROLL_BACK)
    assert commands(RolloutState.SUCCEEDED) == (RolloutEvent.ROLL_BACK,)
    assert commands(RolloutState.ROLLED_BACK) == ()


def test_the_document_shows_the_tables_as_they_are() -> None:
    assert diagram() in _DOCUMENT.read_text(encoding="utf-8"), (
        "docs/rollout-machine.md is out of date: put the output of rollouts.machine.diagram() there"
    )
