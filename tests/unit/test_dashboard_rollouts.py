"""What the page of a rollout says: where it stands, what to do, what a command would do, what happened."""

from __future__ import annotations

import dataclasses

import pytest

from edgeward_fleet.accounts.model import Role
from edgeward_fleet.dashboard.views.rollout import advice, rollout_view, sentence
from edgeward_fleet.dashboard.views.rollout_actions import actions, consequence, too_late
from edgeward_fleet.dashboard.views.rollout_devices import device_table
from edgeward_fleet.dashboard.views.rollout_timeline import VERBS, lines
from edgeward_fleet.rollouts.machine import PhaseStep, RolloutEvent, RolloutState
from edgeward_fleet.rollouts.model import Back, RolloutId, Standing
from edgeward_fleet.rollouts.repository import RolloutLine
from edgeward_fleet.rollouts.service import RolloutRecord
from support.pages import NOW, person, plain, rollout_of


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            rollout_of(Standing.SUCCEEDED, Standing.WORKING, Standing.UNKNOWN, Standing.FAILED),
            "Phase 'canary' (1 of 1): 1 of 4 devices succeeded, 1 at it, 1 not heard of, 1 failed.",
        ),
        (
            rollout_of(Standing.SUCCEEDED, step=PhaseStep.SOAKING),
            "Phase 'canary' (1 of 1): 1 of 1 device succeeded; soaking for 1 min 30 s, 1 still to be heard of.",
        ),
        (rollout_of(), "Phase 'canary' (1 of 1) has no device of its own."),
        (
            rollout_of(Standing.WAITING, state=RolloutState.AWAITING_APPROVAL),
            "Waits for approval by somebody other than olive, who asked for it.",
        ),
        (rollout_of(state=RolloutState.SCHEDULED), "Approved; it starts in a moment."),
        (rollout_of(state=RolloutState.PAUSED, reason="lunch"), "Paused: lunch."),
        (
            rollout_of(state=RolloutState.ROLLBACK_INCOMPLETE, reason="2 are silent"),
            "Rollback incomplete: 2 are silent.",
        ),
        (rollout_of(state=RolloutState.EXPIRED), "Expired."),
        (rollout_of(state=RolloutState.SUCCEEDED, reason="1 of 1 did"), "Every phase has passed: 1 of 1 did."),
    ],
)
def test_one_sentence_says_where_a_rollout_stands(record: RolloutRecord, expected: str) -> None:
    assert plain(rollout_view(record, person(Role.VIEWER)).sentence) == expected


def test_a_phase_says_on_which_day_it_ends() -> None:
    """A soak may take a week, and "until 12:01:30" would be read as today's."""
    soaking = rollout_of(Standing.SUCCEEDED, step=PhaseStep.SOAKING)
    offering = rollout_of(Standing.WORKING)
    notes = [rollout_view(each, person(Role.VIEWER)).lanes[0].note for each in (soaking, offering)]
    assert notes == ["soaks until 2026-11-23 12:01:30 UTC", "times out at 2026-11-23 13:00:00 UTC"]


def test_the_author_is_told_why_there_is_no_button_to_approve() -> None:
    waiting = rollout_of(Standing.WAITING, state=RolloutState.AWAITING_APPROVAL)
    own = next(each for each in actions(waiting, person(Role.APPROVER, "olive")) if each.event is RolloutEvent.APPROVE)
    assert own.refusal == "You asked for this rollout; somebody else has to approve it."
    other = next(each for each in actions(waiting, person(Role.APPROVER)) if each.event is RolloutEvent.APPROVE)
    assert other.refusal == ""


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            RolloutEvent.APPROVE,
            "risk@2 is offered to 4 devices of phase 'canary' at once; the plan holds 4 devices in all.",
        ),
        (RolloutEvent.PAUSE, "No further device is offered risk@2. Those that have the offer (3) go on."),
        (
            RolloutEvent.RESUME,
            "Phase 'canary' goes on, its time-out begins anew. The release is offered again to 1 device that failed.",
        ),
        (
            RolloutEvent.ABORT,
            "The offer is withdrawn from 2 devices without proof so far. risk@2 stays on 1 device.",
        ),
        (RolloutEvent.ROLL_BACK, "Every device that was offered risk@2 is given its former release: 3 devices."),
    ],
)
def test_a_command_says_what_it_will_do(event: RolloutEvent, expected: str) -> None:
    record = rollout_of(Standing.SUCCEEDED, Standing.FAILED, Standing.UNKNOWN, Standing.WAITING)
    assert consequence(record, event) == expected


def test_who_has_left_or_is_back_is_not_counted_as_given_anything() -> None:
    record = rollout_of(Standing.SUCCEEDED, Standing.SUCCEEDED, Standing.LEFT, Standing.WAITING)
    took, gone_back, *rest = record.rollout.devices
    devices = (took, dataclasses.replace(gone_back, back=Back.PROVEN), *rest)
    left = dataclasses.replace(record, rollout=dataclasses.replace(record.rollout, devices=devices))
    assert consequence(left, RolloutEvent.ROLL_BACK) == (
        "Every device that was offered risk@2 is given its former release: 1 device. "
        "2 others have left or gone back already."
    )
    assert "(1) go on" in consequence(left, RolloutEvent.PAUSE)


def test_an_approver_reads_when_it_starts_and_what_ends_with_it() -> None:
    record = rollout_of(Standing.WAITING, state=RolloutState.AWAITING_APPROVAL)
    spec = dataclasses.replace(record.rollout.spec, start_at=NOW, supersedes=RolloutId("r-0"))
    night = dataclasses.replace(record, rollout=dataclasses.replace(record.rollout, spec=spec))
    assert consequence(night, RolloutEvent.APPROVE) == (
        "risk@2 is offered to 1 device of phase 'canary' at 2026-11-23 12:00:00 UTC, or at once if that is over; "
        "the plan holds 1 device in all. Rollout r-0 ends with the approval."
    )
    assert advice(night.rollout).endswith("Once approved, it starts at 2026-11-23 12:00:00 UTC.")
    approved = dataclasses.replace(night, rollout=dataclasses.replace(night.rollout, state=RolloutState.SCHEDULED))
    assert sentence(approved) == "Approved; it starts at 2026-11-23 12:00:00 UTC."


def test_the_devices_of_a_rollout_come_in_pages_what_went_wrong_first() -> None:
    rollout = rollout_of(*[Standing.SUCCEEDED] * 40, Standing.FAILED, word="too_slow").rollout
    first = device_table(rollout, None, 1)
    assert first.rows[0].device.standing is Standing.FAILED
    assert first.rows[0].why == "it is slower than its budget"
    assert (len(first.rows), first.pages.total) == (25, 41)
    assert [href for _, href, _ in first.pages.links] == ["", "", "?page=2#devices", "?page=2#devices"]
    assert len(device_table(rollout, None, 2).rows) == 16
    assert len(device_table(rollout, None, 99).rows) == 16  # the last page, not an empty one
    assert device_table(rollout, Standing.FAILED, 1).pages.total == 1
    assert [each.count for each in first.filters] == [41, 1, 40]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (rollout_of(Standing.SUCCEEDED), ""),
        (
            rollout_of(Standing.UNKNOWN, Standing.UNKNOWN),
            "2 devices have not answered the offer; each takes it once it is heard of.",
        ),
        (
            rollout_of(Standing.FAILED, Standing.FAILED, state=RolloutState.PAUSED, word="golden_mismatch"),
            "`golden_mismatch` means: its answers differ from the golden set. "
            "Check the release with `edgeward model check` and pack a new version; the devices are not at fault. "
            "Resume offers it again to those that failed; roll back gives every device its former release.",
        ),
        (
            rollout_of(Standing.FAILED, state=RolloutState.ROLLED_BACK, word="of_a_newer_agent"),
            "`of_a_newer_agent` means: of a newer agent.",
        ),
        (
            rollout_of(Standing.SUCCEEDED, state=RolloutState.ABORTED),
            "It left risk@2 on 1 device. Roll back takes it from those that still have it.",
        ),
        (
            rollout_of(state=RolloutState.EXPIRED),
            "Ask for it again if it is still wanted: `edgeward rollout create --release risk@2`",
        ),
    ],
)
def test_a_rollout_says_what_to_do_about_it(record: RolloutRecord, expected: str) -> None:
    assert rollout_view(record, person(Role.VIEWER)).advice == expected


def test_to_go_on_after_a_failure_is_not_suggested() -> None:
    def tone(record: RolloutRecord) -> str:
        return next(each for each in actions(record, person(Role.ADMIN)) if each.event is RolloutEvent.RESUME).tone

    assert tone(rollout_of(Standing.SUCCEEDED, state=RolloutState.PAUSED)) == "primary"
    assert tone(rollout_of(Standing.FAILED, state=RolloutState.PAUSED)) == ""


def test_an_approver_reads_what_a_phase_must_show() -> None:
    (lane,) = rollout_view(rollout_of(Standing.WAITING, state=RolloutState.AWAITING_APPROVAL), person(Role.ADMIN)).lanes
    assert plain(lane.asks) == (
        "Passes when at least 100 % of its devices have succeeded and stay so for 1 min 30 s. "
        "Fails when more than 0 % fail, or when more than 2 % of the answers, and at least 5, are errors. "
        "Gives up after 1 h."
    )


def happened(*lines_: tuple[str, str, str]) -> list[RolloutLine]:
    """Newest first: actor, kind, detail."""
    return [
        RolloutLine(event_id=100 - number, at=NOW, actor=actor, kind=kind, detail=detail)
        for number, (actor, kind, detail) in enumerate(lines_)
    ]


def test_devices_that_did_the_same_are_told_together() -> None:
    told = lines(
        happened(
            ("bed-9", "device", "FAILED golden_mismatch golden case 3 differs by 0.4"),
            *((f"bed-{number}", "device", "SUCCEEDED") for number in range(6)),
            ("system", "step", "phase 'canary' offered"),
            ("bed-7", "device", "SUCCEEDED"),
            ("system", "offered", "bed-0, bed-1"),
            ("olive", "pause", "ward round"),
        )
    )
    assert [(each.actor, each.words, each.detail) for each in told] == [
        ("bed-9", "failed: its answers differ from the golden set", "golden case 3 differs by 0.4"),
        ("6 devices", "succeeded", "bed-0, bed-1, bed-2, bed-3 and 2 more"),
        ("the fleet", "has made the offers of phase 'canary'", ""),
        ("bed-7", "succeeded", ""),
        ("the fleet", "offered it to 2 devices", "bed-0, bed-1"),
        ("olive", "paused it", "ward round"),
    ]


def test_every_event_that_moves_a_rollout_has_its_verb() -> None:
    silent = {RolloutEvent.SUBMITTED, RolloutEvent.VALID, RolloutEvent.INVALID}  # before there is a timeline
    assert {each.value for each in set(RolloutEvent) - silent} <= set(VERBS)


def test_a_device_that_went_back_shows_that_and_where_it_stood_before() -> None:
    rollout = rollout_of(Standing.WORKING, Standing.WORKING, state=RolloutState.ROLLED_BACK).rollout
    back = dataclasses.replace(rollout.devices[0], back=Back.PROVEN)
    rollout = dataclasses.replace(rollout, devices=(back, rollout.devices[1]))
    first, second = device_table(rollout, None, 1).rows
    assert (first.look.word, first.note) == ("back, proven", "before: was at it")
    assert second.look.word == "was at it"  # nobody is at anything any more


def test_who_is_not_proven_back_comes_first() -> None:
    rollout = rollout_of(Standing.FAILED, Standing.SUCCEEDED, state=RolloutState.ROLLBACK_INCOMPLETE).rollout
    proven, asked = rollout.devices
    devices = (dataclasses.replace(proven, back=Back.PROVEN), dataclasses.replace(asked, back=Back.ASKED))
    rows = device_table(dataclasses.replace(rollout, devices=devices), None, 1).rows
    assert [row.look.word for row in rows] == ["no proof yet", "back, proven"]


def test_errors_in_answers_are_a_reason_too() -> None:
    rollout = rollout_of(Standing.WORKING, state=RolloutState.ROLLED_BACK).rollout
    erring = dataclasses.replace(rollout.devices[0], requests=10, errors=5)
    assert advice(dataclasses.replace(rollout, devices=(erring,))).startswith(
        "`errors` means: too many of its answers were errors."
    )


def test_two_commands_of_the_same_kind_stay_two() -> None:
    told = lines(happened(("ada", "pause", "again"), ("ada", "pause", "first"), ("bed-1", "device", "back on risk@1")))
    assert [each.words for each in told] == ["paused it", "paused it", "back on risk@1"]


def test_who_was_faster_is_named_with_the_time() -> None:
    (latest,) = happened(("ada", "pause", ""))
    assert too_late(RolloutState.PAUSED, latest) == "it is paused; ada paused it at 2026-11-23 12:00:00 UTC"
    assert too_late(RolloutState.EXPIRED, None) == "it is expired"
