"""What reports prove, and what they do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgeward_contract.artifact import DeviceId, ModelName, ReleaseRef, Sha256
from edgeward_contract.reported import RESTING, LiveModel, ReportedModel, ReportedState, UpdateState, UpdateStatus
from edgeward_contract.traffic import Traffic
from edgeward_fleet.rollouts.analysis import (
    FAILURES,
    Outcome,
    breach,
    has_enough,
    not_yet_back,
    observe,
    tally,
    upper_bound,
    verdict,
)
from edgeward_fleet.rollouts.model import Back, Former, Gates, PhaseSpec, RolloutDevice, Standing

MODEL = ModelName("risk")
OLD, NEW = Sha256("1" * 64), Sha256("2" * 64)
CANARY = PhaseSpec(name="canary", percent=20, timeout_s=600)
OFFERED = RolloutDevice(
    device=DeviceId("d1"),
    site="north",
    phase=0,
    standing=Standing.UNKNOWN,
    deployment="d-new",
    generation=7,
    former=Former(release=ReleaseRef(MODEL, 1), sha256=OLD),
)
ASKED_BACK = replace(OFFERED, back=Back.ASKED, back_deployment="d-back", back_generation=9)


def _report(
    state: UpdateState | None = None,
    live: Sha256 | None = OLD,
    *,
    generation: int = 7,
    deployment: str = "d-new",
    slot: str = "current",
    traffic: Traffic | None = None,
) -> ReportedState:
    version = 2 if live == NEW else 1
    return ReportedState(
        generation=generation,
        boot="b1",
        sequence=1,
        agent_version="1",
        models={
            MODEL: ReportedModel(
                live=LiveModel(release=ReleaseRef(MODEL, version), sha256=live, slot=slot, traffic=traffic or Traffic())
                if live
                else None,
                update=UpdateStatus(
                    deployment=deployment, release=ReleaseRef(MODEL, 2), state=state, reason="why", detail="Because."
                )
                if state
                else None,
            )
        },
    )


def _seen(report: ReportedState, device: RolloutDevice = OFFERED) -> RolloutDevice:
    return observe(device, MODEL, NEW, report)


def test_committed_and_live_is_success() -> None:
    assert _seen(_report(UpdateState.COMMITTED, NEW)).standing is Standing.SUCCEEDED


def test_committed_without_being_live_is_not() -> None:
    assert _seen(_report(UpdateState.COMMITTED, OLD)).standing is Standing.WORKING


def test_live_on_probation_is_not_success() -> None:
    assert _seen(_report(UpdateState.PROBATION, NEW, slot="candidate")).standing is Standing.WORKING


@pytest.mark.parametrize("state", sorted(FAILURES))
def test_every_bad_end_is_a_failure_with_its_reason(state: UpdateState) -> None:
    seen = _seen(_report(state, OLD))
    assert (seen.standing, seen.reason, seen.detail) == (Standing.FAILED, "why", "Because.")


@pytest.mark.parametrize("state", sorted(set(UpdateState) - RESTING))
def test_every_state_on_the_way_is_work(state: UpdateState) -> None:
    assert _seen(_report(state, OLD)).standing is Standing.WORKING


def test_a_report_of_an_older_generation_is_no_answer() -> None:
    assert _seen(_report(None, OLD, generation=6)).standing is Standing.UNKNOWN
    assert _seen(_report(None, NEW, generation=6)).standing is Standing.UNKNOWN


def test_another_deployment_of_the_model_is_no_answer() -> None:
    assert _seen(_report(UpdateState.FAILED, OLD, deployment="d-other")).standing is Standing.UNKNOWN


def test_a_report_that_does_not_know_the_model_is_no_answer() -> None:
    empty = ReportedState(generation=7, boot="b", sequence=1, agent_version="1")
    assert _seen(empty).standing is Standing.UNKNOWN


def test_a_failure_sticks_whatever_is_reported_later() -> None:
    failed = _seen(_report(UpdateState.ROLLED_BACK, OLD))
    assert _seen(_report(UpdateState.COMMITTED, NEW), failed).standing is Standing.FAILED


def test_a_success_that_is_taken_back_is_none() -> None:
    succeeded = _seen(_report(UpdateState.COMMITTED, NEW))
    assert _seen(_report(UpdateState.ROLLING_BACK, NEW), succeeded).standing is Standing.WORKING
    assert _seen(_report(UpdateState.ROLLED_BACK, OLD), succeeded).standing is Standing.FAILED


def test_a_device_that_was_not_offered_cannot_move() -> None:
    waiting = RolloutDevice(device=DeviceId("d1"), site="north", phase=1)
    assert _seen(_report(UpdateState.COMMITTED, NEW), waiting) == waiting


def test_an_old_failure_says_nothing_of_the_offer_that_is_to_come() -> None:
    again = replace(OFFERED, standing=Standing.WAITING)
    assert _seen(_report(UpdateState.FAILED, OLD), again).standing is Standing.WAITING


def test_traffic_counts_only_of_the_new_release() -> None:
    traffic = Traffic(requests=100, errors=7)
    assert _seen(_report(UpdateState.COMMITTED, NEW, traffic=traffic)).errors == 7
    assert _seen(_report(UpdateState.ROLLED_BACK, OLD, traffic=traffic)).errors == 0


def test_what_was_answered_before_a_restart_counts_on() -> None:
    """A release that ends the serving process after each four errors had never more than four."""
    device = OFFERED
    for requests, errors in ((50, 4), (80, 4), (40, 4), (60, 6), (10, 1)):
        device = _seen(_report(UpdateState.COMMITTED, NEW, traffic=Traffic(requests=requests, errors=errors)), device)
    assert (device.requests, device.errors) == (80 + 60 + 10, 4 + 6 + 1)


def test_a_device_that_has_answered_more_than_a_database_holds_is_taken_at_that() -> None:
    most, device = (1 << 63) - 1, OFFERED
    for requests in (most, 0, most):
        device = _seen(_report(UpdateState.COMMITTED, NEW, traffic=Traffic(requests=requests, errors=0)), device)
    assert device.requests == most


def test_back_is_the_former_release_live_and_committed_in_an_answer_to_the_roll_back() -> None:
    good = _report(UpdateState.COMMITTED, OLD, generation=9, deployment="d-back")
    assert _seen(good, ASKED_BACK).back is Back.PROVEN


@pytest.mark.parametrize(
    "report",
    [
        _report(UpdateState.COMMITTED, OLD, generation=8),
        _report(UpdateState.COMMITTED, NEW, generation=9),
        _report(UpdateState.COMMITTED, OLD, generation=9, slot="candidate"),
        _report(UpdateState.PROBING, OLD, generation=9),
        _report(None, None, generation=9),
    ],
    ids=["older generation", "still the new one", "on probation", "still at it", "nothing live"],
)
def test_anything_else_is_not_back(report: ReportedState) -> None:
    assert _seen(report, ASKED_BACK).back is Back.ASKED


def test_a_device_that_had_nothing_is_back_when_nothing_is_live() -> None:
    had_nothing = replace(ASKED_BACK, former=None, back_deployment=None)
    assert _seen(_report(None, OLD, generation=9), had_nothing).back is Back.ASKED
    assert _seen(_report(None, None, generation=9), had_nothing).back is Back.PROVEN


def _phase(**counts: int) -> list[RolloutDevice]:
    devices = []
    for standing, count in counts.items():
        for number in range(count):
            device = DeviceId(f"{standing.lower()}-{number}")
            reason = "golden_mismatch" if standing == "FAILED" else ""
            devices.append(replace(OFFERED, device=device, standing=Standing(standing), reason=reason))
    return devices


def test_a_failure_is_said_in_plain_words() -> None:
    evidence = tally(_phase(FAILED=2, SUCCEEDED=3))
    assert breach(CANARY, Gates(), evidence) == (
        "2 of 5 devices of phase 'canary' failed (golden_mismatch); at most 0 % may"
    )


def test_of_many_causes_the_most_frequent_are_said() -> None:
    """Each device may have one of its own, of 64 characters: whoever reads the sentence wants to see its end."""
    failed = [replace(each, reason=f"cause-{number // 2}") for number, each in enumerate(_phase(FAILED=1200))]
    assert breach(CANARY, Gates(), tally(failed)) == (
        "1200 of 1200 devices of phase 'canary' failed "
        "(2 cause-0, 2 cause-1, 2 cause-10, 2 cause-100, 2 cause-101, …); at most 0 % may"
    )


def test_a_tolerated_failure_is_none() -> None:
    assert breach(CANARY, Gates(max_failed_percent=40), tally(_phase(FAILED=2, SUCCEEDED=3))) is None


def test_silence_is_never_success() -> None:
    evidence = tally(_phase(SUCCEEDED=4, UNKNOWN=1))
    assert not has_enough(Gates(), evidence)
    found = verdict(CANARY, Gates(), evidence)
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.reason == (
        "phase 'canary' timed out after 600 s: 4 of 5 devices succeeded, 100 % must; 1 not heard of (unknown-0)"
    )


def test_silence_of_all_is_no_success_whatever_the_gate_allows() -> None:
    """It passed at once, and on to everybody: "0 of 3 devices succeeded; all had the release before"."""
    gates = Gates(min_success_percent=0)
    found = verdict(CANARY, gates, tally(_phase(UNKNOWN=3)))
    assert found.outcome is Outcome.INCONCLUSIVE
    assert "0 of 3 devices succeeded, one must; 3 not heard of" in found.reason
    assert verdict(CANARY, gates, tally(_phase(UNKNOWN=2, SUCCEEDED=1))).outcome is Outcome.PASSED


def test_a_pass_says_how_little_it_proves() -> None:
    found = verdict(CANARY, Gates(), tally(_phase(SUCCEEDED=12)))
    assert found.outcome is Outcome.PASSED
    assert found.reason == (
        "12 of 12 devices of phase 'canary' succeeded; "
        "by this evidence up to 22 % of such devices could still fail (95 %)"
    )


def test_a_phase_without_devices_passes_and_says_so() -> None:
    found = verdict(CANARY, Gates(), tally([]))
    assert (found.outcome, found.reason) == (Outcome.PASSED, "phase 'canary' has no device of its own")


def test_devices_that_had_the_release_pass_but_prove_nothing() -> None:
    found = verdict(CANARY, Gates(), tally(_phase(ALREADY=3)))
    assert found.reason == "3 of 3 devices of phase 'canary' succeeded; all had the release before"


def _with_traffic(requests: int, errors: int) -> list[RolloutDevice]:
    return [replace(each, requests=requests, errors=errors) for each in _phase(SUCCEEDED=2)]


def test_too_many_errors_stop_a_phase() -> None:
    assert breach(CANARY, Gates(), tally(_with_traffic(100, 6))) == (
        "12 of 200 requests (6 %) to the new release in phase 'canary' ended in an error of the model; at most 2 % may"
    )


def test_a_few_errors_in_few_requests_prove_nothing_unless_none_may_be() -> None:
    evidence = tally(_with_traffic(3, 1))
    assert breach(CANARY, Gates(), evidence) is None
    assert breach(CANARY, Gates(max_error_percent=0), evidence) is not None


def test_late_joiners_are_outside_the_denominator_and_so_is_who_left_before_the_offer() -> None:
    late = replace(OFFERED, device=DeviceId("late"), counted=False)
    never_asked = RolloutDevice(device=DeviceId("gone"), site="north", phase=0, counted=False, standing=Standing.LEFT)
    evidence = tally([*_phase(SUCCEEDED=2), late, never_asked])
    assert (evidence.total, evidence.left, evidence.lost, evidence.joined_late) == (2, 1, 0, 1)
    assert has_enough(Gates(), evidence)


def test_who_left_after_the_offer_is_no_success_and_hides_no_failure() -> None:
    evidence = tally(_phase(SUCCEEDED=2, FAILED=1, LEFT=2))
    assert (evidence.total, evidence.present, evidence.success_percent) == (5, 3, 40.0)
    assert breach(CANARY, Gates(max_failed_percent=25), evidence) == (
        "1 of 3 devices of phase 'canary' failed (golden_mismatch); at most 25 % may"
    )
    assert not has_enough(Gates(), tally(_phase(SUCCEEDED=4, LEFT=1)))


@pytest.mark.parametrize("counted", [True, False])
def test_a_phase_that_all_have_left_proves_nothing(counted: bool) -> None:
    evidence = tally([replace(each, counted=counted) for each in _phase(LEFT=2)])
    found = verdict(CANARY, Gates(min_success_percent=0), evidence)
    assert (found.outcome, evidence.success_percent) == (Outcome.INCONCLUSIVE, 0.0)
    assert "in phase 'canary': all its 2 devices have left" in found.reason


@pytest.mark.parametrize(("devices", "percent"), [(12, 22.1), (60, 4.9), (120, 2.5), (298, 1.0)])
def test_what_no_failure_in_so_many_devices_still_allows(devices: int, percent: float) -> None:
    assert round(100 * upper_bound(0, devices), 1) == percent


def test_the_bound_with_failures_is_the_textbook_one() -> None:
    """5 in 20: 45.6 %, as in the tables of Clopper and Pearson (one-sided 95 %)."""
    assert round(100 * upper_bound(5, 15), 1) == 45.6
    assert upper_bound(0, 0) == upper_bound(3, 0) == 1.0


def test_the_bound_stands_large_fleets() -> None:
    assert 0.01 < upper_bound(50, 4950) < 0.0128


def test_who_is_not_yet_back() -> None:
    devices = [replace(OFFERED, back=back) for back in Back]
    assert [each.back for each in not_yet_back(devices)] == [Back.ASKED]
