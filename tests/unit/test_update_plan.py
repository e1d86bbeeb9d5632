"""The planner: from what the fleet wants and what is here to the next steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeward_agent.ports import LoadedVersion, ServedModel, ServingState
from edgeward_agent.update.deployment import Book, Deployment
from edgeward_agent.update.machine import BEFORE_ACTIVATION, ON_TRIAL, WORKING, Event
from edgeward_agent.update.plan import Deploy, Drop, Remove, Restore, Stop, plan, repairs
from edgeward_agent.update.slots import Installed, Slots
from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.reported import RESTING, UpdateState
from edgeward_contract.traffic import Traffic
from support.update import MODEL, Release, desired, make_release

ONE, TWO = make_release(1), make_release(2)
OTHER = ModelName("other")


def wanted(deployment: str, release: Release) -> DesiredModel:
    return desired(1, (deployment, release)).models[release.manifest.name]


def book(
    want: DesiredState | None, *, newest: tuple[str, Release, UpdateState] | None = None, current: Release | None = None
) -> Book:
    deployments = {}
    if newest:
        name, release, state = newest
        deployments = {MODEL: replace(Deployment.of(wanted(name, release)), state=state)}
    return Book(desired=want, slots={MODEL: slots(current)} if current else {}, deployments=deployments)


def slots(current: Release) -> Slots:
    return Slots(current=Installed(version=current.manifest.version, sha256=current.sha256))


def test_without_a_desired_state_nothing_is_done() -> None:
    assert plan(book(None, current=ONE)) == ()


def test_a_new_model_is_deployed() -> None:
    assert plan(book(desired(1, ("d1", ONE)))) == (Deploy(wanted("d1", ONE)),)


def test_a_committed_deployment_is_an_answer_while_it_is_current() -> None:
    committed = ("d1", ONE, UpdateState.COMMITTED)
    assert plan(book(desired(1, ("d1", ONE)), newest=committed, current=ONE)) == ()
    assert plan(book(desired(1, ("d1", ONE)), newest=committed)) == (Deploy(wanted("d1", ONE)),)


@pytest.mark.parametrize("state", ["FAILED", "REJECTED", "ROLLED_BACK", "STRANDED"])
def test_a_deployment_that_was_given_up_is_not_tried_again(state: str) -> None:
    ended = ("d2", TWO, UpdateState(state))
    assert plan(book(desired(2, ("d2", TWO)), newest=ended, current=ONE)) == ()
    assert plan(book(desired(3, ("d3", TWO)), newest=ended, current=ONE)) == (Deploy(wanted("d3", TWO)),)


@pytest.mark.parametrize("state", ["CANCELLED", "SUPERSEDED"])
def test_a_deployment_that_was_stopped_may_come_back(state: str) -> None:
    stopped = ("d2", TWO, UpdateState(state))
    assert plan(book(desired(3, ("d2", TWO)), newest=stopped, current=ONE)) == (Deploy(wanted("d2", TWO)),)


@pytest.mark.parametrize("state", WORKING)
def test_a_deployment_under_way_is_left_alone(state: UpdateState) -> None:
    assert plan(book(desired(2, ("d2", TWO)), newest=("d2", TWO, state), current=ONE)) == ()


@pytest.mark.parametrize("state", BEFORE_ACTIVATION)
def test_before_activation_a_newer_deployment_supersedes(state: UpdateState) -> None:
    steps = plan(book(desired(3, ("d3", ONE)), newest=("d2", TWO, state), current=ONE))
    assert steps == (Stop(MODEL, Event.SUPERSEDE), Deploy(wanted("d3", ONE)))


@pytest.mark.parametrize("state", ON_TRIAL)
def test_on_trial_a_newer_deployment_takes_the_candidate_back_first(state: UpdateState) -> None:
    steps = plan(book(desired(3, ("d3", ONE)), newest=("d2", TWO, state), current=ONE))
    assert steps == (Stop(MODEL, Event.WITHDRAWN),)


@pytest.mark.parametrize("state", ON_TRIAL)
def test_on_trial_a_new_deployment_of_the_same_release_waits_for_the_verdict(state: UpdateState) -> None:
    assert plan(book(desired(3, ("d3", TWO)), newest=("d2", TWO, state), current=ONE)) == ()


def test_while_it_rolls_back_nothing_else_is_begun() -> None:
    rolling = ("d2", TWO, UpdateState.ROLLING_BACK)
    assert plan(book(desired(3, ("d3", TWO)), newest=rolling, current=ONE)) == ()
    assert plan(book(desired(3), newest=rolling, current=ONE)) == ()


@pytest.mark.parametrize("state", sorted(RESTING))
def test_a_model_that_is_not_wanted_is_removed(state: UpdateState) -> None:
    assert plan(book(desired(2), newest=("d1", ONE, state), current=ONE)) == (Remove(MODEL),)


@pytest.mark.parametrize("state", BEFORE_ACTIVATION)
def test_a_deployment_of_a_model_that_is_not_wanted_is_cancelled(state: UpdateState) -> None:
    assert plan(book(desired(2), newest=("d1", ONE, state))) == (Stop(MODEL, Event.CANCEL), Remove(MODEL))


def test_a_model_on_trial_goes_back_before_it_is_removed() -> None:
    on_trial = ("d2", TWO, UpdateState.PROBATION)
    assert plan(book(desired(3), newest=on_trial, current=ONE)) == (Stop(MODEL, Event.WITHDRAWN),)


def test_removals_come_before_everything_else() -> None:
    other = make_release(1, name=OTHER)
    steps = plan(book(desired(2, ("d9", other)), current=ONE))
    assert steps == (Remove(MODEL), Deploy(wanted("d9", other)))


def served(live: Release | None) -> ServedModel:
    version = LoadedVersion(version=live.manifest.version, sha256=live.sha256) if live else None
    return ServedModel(live=version, loaded=(version,) if version else (), traffic=Traffic())


def state(**models: ServedModel) -> ServingState:
    return ServingState(pid=1, started_us=1, models={ModelName(name): each for name, each in models.items()})


def test_nothing_is_repaired_where_slots_and_serving_agree() -> None:
    assert repairs(book(None, current=ONE), state(risk=served(ONE))) == ()


@pytest.mark.parametrize("live", [None, TWO])
def test_a_current_release_that_does_not_answer_is_restored(live: Release | None) -> None:
    here = book(None, current=ONE)
    assert repairs(here, state(risk=served(live))) == (Restore(MODEL, _installed(ONE)),)
    assert repairs(here, state()) == (Restore(MODEL, _installed(ONE)),)


def test_a_model_in_no_slot_is_unloaded_first() -> None:
    steps = repairs(book(None, current=ONE), state(other=served(make_release(1, name=OTHER))))
    assert steps == (Drop(OTHER), Restore(MODEL, _installed(ONE)))


def test_a_version_whose_load_was_given_up_and_ended_late_is_unloaded() -> None:
    there = served(ONE)
    both = replace(there, loaded=(*there.loaded, *served(TWO).loaded))
    assert repairs(book(None, current=ONE), state(risk=both)) == (Drop(MODEL, TWO.sha256),)
    trial = ("d2", TWO, UpdateState.ACTIVATING)
    assert repairs(book(None, newest=trial, current=ONE), state(risk=both)) == ()
    wrong = replace(both, live=served(TWO).live)
    assert repairs(book(None, current=ONE), state(risk=wrong)) == (Restore(MODEL, _installed(ONE)),)


@pytest.mark.parametrize("on_trial", [*ON_TRIAL, UpdateState.ROLLING_BACK])
def test_a_model_on_trial_is_left_to_its_deployment(on_trial: UpdateState) -> None:
    assert repairs(book(None, newest=("d2", TWO, on_trial), current=ONE), state(risk=served(TWO))) == ()
    assert repairs(book(None, newest=("d2", TWO, on_trial)), state(risk=served(TWO))) == ()


def test_slots_move_as_one() -> None:
    before = slots(ONE).with_candidate(_installed(TWO))
    assert before.kept() == {ONE.sha256, TWO.sha256}
    assert before.committed() == Slots(current=_installed(TWO), previous=_installed(ONE))
    assert before.rolled_back() == slots(ONE)
    back = before.committed().with_candidate(_installed(ONE)).committed()
    assert back == Slots(current=_installed(ONE), previous=_installed(TWO))
    assert before.name_of(TWO.sha256) == "candidate"
    assert before.name_of(Sha256("0" * 64)) == "none"


def _installed(release: Release) -> Installed:
    return Installed(version=release.manifest.version, sha256=release.sha256)


def test_what_a_hostile_file_says_is_shown_and_not_obeyed() -> None:
    """No database of a fleet can hold a NUL: the reports of such a device were never taken."""
    probing = replace(Deployment.of(wanted("d-1", ONE)), state=UpdateState.PROBING)
    failed = probing.after(Event.FAIL, detail="node 'a\0b\x1b[2J' is not known")
    assert failed.detail == r"node 'a\x00b\x1b[2J' is not known"
