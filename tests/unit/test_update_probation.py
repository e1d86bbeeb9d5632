"""The judge of a trial, the loop guard and what a failure means: all pure."""

from __future__ import annotations

import errno
from dataclasses import replace

import msgspec
import pytest

from edgeward_agent.errors import LinkRefused
from edgeward_agent.update.deployment import Deployment, Outcome, Trial, rebooted, settled
from edgeward_agent.update.failures import outcome_of
from edgeward_agent.update.machine import WORKING, Event
from edgeward_agent.update.probation import UNDECIDED, Judgement, ProbationJudge
from edgeward_agent.update.releases import DigestMismatch, WrongRelease
from edgeward_agent.update.settings import UpdateSettings
from edgeward_contract.artifact import Sha256
from edgeward_contract.reported import UpdateState
from edgeward_contract.schema import ContractError
from edgeward_contract.traffic import Traffic
from support.update import disk_full, lost, make_release

SETTINGS = UpdateSettings(probation_s=60.0)
BUDGET_US = 10_000


def deployment(state: UpdateState = UpdateState.PROBATION, *, trial: Trial | None = None) -> Deployment:
    release = make_release(2)
    return Deployment(
        model=release.manifest.name,
        deployment="d2",
        release=release.manifest.release,
        sha256=release.sha256,
        state=state,
        trial=trial or Trial(elapsed_s=10.0),
    )


def judge(traffic: Traffic, *, settings: UpdateSettings = SETTINGS, trial: Trial | None = None) -> Judgement:
    return ProbationJudge(settings).judge(deployment(trial=trial), traffic, budget_us=BUDGET_US)


def test_while_all_is_well_nothing_is_said_before_the_time() -> None:
    assert judge(Traffic(requests=1000, p99_us=BUDGET_US)) == UNDECIDED


def test_a_well_candidate_is_healthy_at_the_end() -> None:
    assert judge(Traffic(), trial=Trial(elapsed_s=60.0)).event is Event.HEALTHY


def test_an_idle_device_waits_for_its_requests() -> None:
    settings = msgspec.structs.replace(SETTINGS, probation_min_requests=10)
    ended = Trial(elapsed_s=60.0, earlier_requests=4)
    assert judge(Traffic(requests=5), settings=settings, trial=ended) == UNDECIDED
    assert judge(Traffic(requests=6), settings=settings, trial=ended).event is Event.HEALTHY


@pytest.mark.parametrize(
    ("requests", "errors", "unhealthy"),
    [(4, 4, False), (5, 5, True), (250, 5, False), (249, 5, True), (1000, 20, False), (1000, 21, True)],
)
def test_errors_need_a_number_and_a_share(requests: int, errors: int, unhealthy: bool) -> None:
    judgement = judge(Traffic(requests=requests, errors=errors))
    assert (judgement.event is Event.UNHEALTHY) == unhealthy
    if unhealthy:
        assert judgement.reason == "errors"
        assert judgement.detail == f"expected at most 2 % errors, got {errors} of {requests} requests"


def test_errors_before_a_crash_still_count() -> None:
    earlier = Trial(earlier_requests=3, earlier_errors=3)
    assert judge(Traffic(requests=2, errors=2), trial=earlier).reason == "errors"


@pytest.mark.parametrize(
    ("requests", "p99_us", "unhealthy"), [(99, 99_000, False), (100, 10_001, True), (100, 10_000, False)]
)
def test_latency_needs_enough_requests(requests: int, p99_us: int, unhealthy: bool) -> None:
    assert (judge(Traffic(requests=requests, p99_us=p99_us)).reason == "latency") == unhealthy


def test_a_busy_device_does_not_blame_the_candidate() -> None:
    slow_before = Trial(baseline_p99_us=9_000)
    assert judge(Traffic(requests=100, p99_us=18_000), trial=slow_before) == UNDECIDED
    assert judge(Traffic(requests=100, p99_us=18_001), trial=slow_before).reason == "latency"


def test_bad_news_beats_the_clock() -> None:
    assert judge(Traffic(requests=5, errors=5), trial=Trial(elapsed_s=60.0)).event is Event.UNHEALTHY
    assert judge(Traffic(), trial=Trial(elapsed_s=60.0, crashes=2)).event is Event.CRASH_LIMIT


def test_attempts_run_out() -> None:
    tired = replace(deployment(), attempts=10)
    judgement = ProbationJudge(SETTINGS).judge(tired, Traffic(), budget_us=BUDGET_US)
    assert (judgement.event, judgement.reason) == (Event.ATTEMPTS_USED, "attempts")


def test_the_loop_guard_ends_what_goes_in_circles() -> None:
    tired = replace(deployment(UpdateState.VERIFYING), stores=7)
    onward = Outcome(event=Event.VERIFIED)
    assert settled(tired, onward, max_stores=8).state is UpdateState.PROBING
    ended = settled(tired, onward, max_stores=7)
    assert (ended.state, ended.reason) == (UpdateState.FAILED, "loop_guard")


def test_the_loop_guard_takes_a_candidate_back() -> None:
    tired = replace(deployment(UpdateState.ACTIVATING), stores=7)
    ended = settled(tired, Outcome(event=Event.ACTIVATED), max_stores=7)
    assert (ended.state, ended.reason, ended.stores) == (UpdateState.ROLLING_BACK, "loop_guard", 0)


def test_waiting_for_the_world_is_no_loop() -> None:
    waiting = replace(deployment(UpdateState.DOWNLOADING), stores=100)
    assert settled(waiting, Outcome(event=Event.RETRY), max_stores=8).stores == 0
    assert settled(waiting, Outcome(event=Event.DEFER), max_stores=8).stores == 0


@pytest.mark.parametrize("state", WORKING)
def test_a_reboot_counts_where_a_candidate_may_be_to_blame(state: UpdateState) -> None:
    before = deployment(state, trial=Trial(serving_started_us=7, crashes=1, elapsed_s=30.0))
    after = rebooted(before)
    blamed = state in (UpdateState.PROBING, UpdateState.ACTIVATING, UpdateState.PROBATION)
    assert after.attempts == int(blamed)
    assert after.trial.serving_started_us == (0 if blamed else 7)
    assert (after.trial.crashes, after.trial.elapsed_s) == (1, 30.0)


def failed(error: LinkRefused | OSError | ContractError | DigestMismatch, *, retries: int = 0) -> Outcome:
    return outcome_of(error, replace(deployment(UpdateState.DOWNLOADING), retries=retries), max_retries=3)


def test_a_lost_link_is_waited_out_for_ever() -> None:
    tired = replace(deployment(UpdateState.DOWNLOADING), retries=1000)
    outcome = outcome_of(lost(retry_after_s=9.0), tired, max_retries=3)
    assert (outcome.event, outcome.counted, outcome.retry_after_s) == (Event.RETRY, False, 9.0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LinkRefused("not yours", status=403), "refused"),
        (DigestMismatch("chunk at 0", expected=Sha256("a" * 64), found=Sha256("b" * 64)), "digest_mismatch"),
        (OSError(errno.EIO, "Input/output error"), "storage"),
    ],
)
def test_what_a_repetition_may_cure_is_repeated_a_few_times(error: LinkRefused | OSError, reason: str) -> None:
    again = failed(error, retries=2)
    assert (again.event, again.reason, again.counted) == (Event.RETRY, reason, True)
    ended = failed(error, retries=3)
    assert (ended.event, ended.reason) == (Event.FAIL, reason)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_waited_for(number: int) -> None:
    assert failed(OSError(number, "full")).event is Event.DEFER
    probing = deployment(UpdateState.PROBING)
    assert outcome_of(disk_full(), probing, max_retries=3).event is Event.RETRY


def test_what_this_agent_cannot_read_is_rejected() -> None:
    outcome = failed(ContractError("schema", "expected at most 1, got 2: update this side first"))
    assert (outcome.event, outcome.reason) == (Event.REJECT, "incompatible")


def test_another_release_than_was_asked_for_fails_at_once() -> None:
    error = WrongRelease("manifest: expected risk@2, got risk@3")
    outcome = outcome_of(error, deployment(UpdateState.DOWNLOADING), max_retries=3)
    assert (outcome.event, outcome.reason) == (Event.FAIL, "manifest_mismatch")
