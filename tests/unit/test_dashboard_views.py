"""What pages say, as pure functions: strips, gates, sentences, charts, words."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_contract.artifact import DeviceId, ReleaseRef, Sha256, model_name
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.reported import (
    DeviceHealth,
    LiveModel,
    ReportedModel,
    ReportedState,
    Traffic,
    UpdateState,
    UpdateStatus,
)
from edgeward_fleet.accounts.model import Principal, Role
from edgeward_fleet.api.rollout_views import PhaseStatus
from edgeward_fleet.dashboard import words
from edgeward_fleet.dashboard.queries.devices import Condition, Glance
from edgeward_fleet.dashboard.queries.latency import Answer
from edgeward_fleet.dashboard.security import local_path
from edgeward_fleet.dashboard.views.chart import HEIGHT, WIDTH, latency_chart
from edgeward_fleet.dashboard.views.device import comparisons
from edgeward_fleet.dashboard.views.devices import PAGE, DeviceFilter, devices_view
from edgeward_fleet.dashboard.views.fleet import fleet_view
from edgeward_fleet.dashboard.views.gates import gates_of, honesty
from edgeward_fleet.dashboard.views.rollout import actions, consequence, rollout_view
from edgeward_fleet.dashboard.views.rollout_devices import device_table
from edgeward_fleet.dashboard.views.standings import BACKS, STANDINGS, STATES
from edgeward_fleet.dashboard.views.strips import WIDTH as STRIP_WIDTH
from edgeward_fleet.dashboard.views.strips import Segment, strip
from edgeward_fleet.devices.model import Presence
from edgeward_fleet.rollouts.analysis import Evidence, tally
from edgeward_fleet.rollouts.machine import PhaseStep, RolloutEvent, RolloutState
from edgeward_fleet.rollouts.model import (
    Back,
    Gates,
    PhaseSpec,
    Rollout,
    RolloutDevice,
    RolloutId,
    RolloutSpec,
    Standing,
)
from edgeward_fleet.rollouts.repository import Authorship
from edgeward_fleet.rollouts.service import RolloutRecord
from edgeward_fleet.states.reported import ailments

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SHA, OTHER = Sha256("a" * 64), Sha256("b" * 64)
RISK = model_name("risk", "name")


def person(role: Role, name: str = "ada") -> Principal:
    return Principal(username=name, role=role, token_id="t-1", address="192.0.2.1")


def rollout_of(
    *standings: Standing,
    state: RolloutState = RolloutState.PROGRESSING,
    reason: str = "",
    step: PhaseStep = PhaseStep.OFFERING,
) -> RolloutRecord:
    """A rollout of one phase with a device per standing."""
    devices = tuple(
        RolloutDevice(
            device=DeviceId(f"bed-{number}"),
            site="north",
            phase=0,
            standing=standing,
            deployment=None if standing is Standing.WAITING else f"d-{number}",
        )
        for number, standing in enumerate(standings)
    )
    spec = RolloutSpec(release=ReleaseRef(RISK, 2), phases=(PhaseSpec(name="canary", percent=100, soak_s=90),))
    rollout = Rollout(
        id=RolloutId("r-1"),
        spec=spec,
        release_sha256=SHA,
        state=state,
        reason=reason,
        step=step,
        created_at=NOW,
        since=NOW,
        phase_since=NOW,
        step_since=NOW,
        devices=devices,
    )
    return RolloutRecord(rollout=rollout, authorship=Authorship(created_by="olive", approved_by=None, approved_at=None))


# Strips


@given(st.lists(st.integers(0, 5000), max_size=8))
def test_a_strip_fills_its_width_and_shows_even_one_of_thousands(counts: list[int]) -> None:
    drawn = strip([Segment(label=str(number), count=count, tone="ok") for number, count in enumerate(counts)])
    assert len(drawn.bars) == sum(count > 0 for count in counts)
    assert all(bar.width >= 6 for bar in drawn.bars)
    if drawn.bars:
        assert drawn.bars[0].x == 0
        assert drawn.bars[-1].x + drawn.bars[-1].width == pytest.approx(STRIP_WIDTH, abs=1)
        for left, right in zip(drawn.bars, drawn.bars[1:], strict=False):
            assert right.x > left.x + left.width


def test_a_strip_says_itself_in_words() -> None:
    drawn = strip([Segment(label="online", count=1200, tone="ok"), Segment(label="late", count=0, tone="warn")])
    assert drawn.label == "devices: 1\u202f200 online"
    assert strip([]).label == "no devices"


def test_every_standing_and_state_has_a_look() -> None:
    assert set(STANDINGS) == set(Standing)
    assert set(BACKS) == set(Back) - {Back.NONE}
    assert set(STATES) == set(RolloutState)
    assert len({look.sign + look.tone for look in STANDINGS.values()}) == len(Standing)


# Gates


@pytest.mark.parametrize(
    ("succeeded", "failed", "words_"),
    [
        (0, 0, "No device has proven anything yet, so nothing is known of the failure rate."),
        (12, 0, "0 failures in 12 devices bounds the failure rate at 22 % (95 % confidence)."),
        (60, 0, "0 failures in 60 devices bounds the failure rate at 4.9 % (95 % confidence)."),
        (298, 0, "0 failures in 298 devices bounds the failure rate at 1 % (95 % confidence)."),
        (9, 1, "1 failure in 10 devices bounds the failure rate at 39 % (95 % confidence)."),
    ],
)
def test_a_small_sample_is_said_to_prove_little(succeeded: int, failed: int, words_: str) -> None:
    devices = rollout_of(*[Standing.SUCCEEDED] * succeeded, *[Standing.FAILED] * failed).rollout.devices
    assert honesty(tally(devices)).replace("\u00a0", " ") == words_


@pytest.mark.parametrize(
    ("evidence", "status", "judgements"),
    [
        (Evidence(total=4), PhaseStatus.OPEN, ["no evidence", "not yet", "no evidence"]),
        (Evidence(total=4, succeeded=4, requests=9), PhaseStatus.PASSED, ["holds", "holds", "holds"]),
        (Evidence(total=4, succeeded=3, failed=1), PhaseStatus.STOPPED, ["breached", "missed", "no evidence"]),
        (Evidence(total=4, succeeded=4, requests=100, errors=5), PhaseStatus.OPEN, ["holds", "holds", "breached"]),
        (Evidence(total=4, succeeded=4, requests=100, errors=4), PhaseStatus.OPEN, ["holds", "holds", "holds"]),
        (Evidence(), PhaseStatus.OPEN, ["no evidence", "no evidence", "no evidence"]),
    ],
)
def test_gates_are_judged_as_the_rollout_judges_them(
    evidence: Evidence, status: PhaseStatus, judgements: list[str]
) -> None:
    assert [gate.judgement.value for gate in gates_of(Gates(), evidence, status)] == judgements


# A rollout


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            rollout_of(Standing.SUCCEEDED, Standing.WORKING, Standing.UNKNOWN, Standing.FAILED),
            "Phase 'canary' (1 of 1): 1 of 4 devices succeeded, 1 at it, 1 not heard of, 1 failed.",
        ),
        (
            rollout_of(Standing.SUCCEEDED, step=PhaseStep.SOAKING),
            "Phase 'canary' (1 of 1): 1 of 1 device succeeded; soaking for 1 min 30 s.",
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
    assert rollout_view(record, person(Role.VIEWER)).sentence == expected


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


def test_the_devices_of_a_rollout_come_in_pages_what_went_wrong_first() -> None:
    rollout = rollout_of(*[Standing.SUCCEEDED] * 70, Standing.FAILED).rollout
    first = device_table(rollout, None, "")
    assert first.rows[0].device.standing is Standing.FAILED
    assert (len(first.rows), first.is_first) == (50, True)
    second = device_table(rollout, None, first.rows[-1].device.device)
    assert (len(second.rows), second.next) == (21, "")
    assert device_table(rollout, Standing.FAILED, "").total == 1
    assert [each.count for each in first.filters] == [71, 1, 70]


# A device


def reported(live: LiveModel | None, update: UpdateStatus | None) -> ReportedState:
    return ReportedState(
        generation=1, boot="b", sequence=1, agent_version="1", models={RISK: ReportedModel(live=live, update=update)}
    )


def live_of(sha256: Sha256, version: int, slot: str = "current") -> LiveModel:
    return LiveModel(release=ReleaseRef(RISK, version), sha256=sha256, slot=slot, traffic=Traffic())


def update_of(state: UpdateState, reason: str = "", progress_percent: int = 0) -> UpdateStatus:
    return UpdateStatus(
        deployment="d-1",
        release=ReleaseRef(RISK, 2),
        state=state,
        reason=reason,
        progress_percent=progress_percent,
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, ("not taken up yet", "idle")),
        (reported(live_of(SHA, 2), None), ("as it should be", "ok")),
        (reported(live_of(OTHER, 1), None), ("not taken up yet", "idle")),
        (
            reported(live_of(OTHER, 1), update_of(UpdateState.DOWNLOADING, "", 40)),
            ("on its way: downloading, 40 %", "busy"),
        ),
        (reported(live_of(SHA, 2, "candidate"), update_of(UpdateState.PROBATION)), ("on its way: probation", "busy")),
        (
            reported(live_of(OTHER, 1), update_of(UpdateState.REJECTED, "golden_mismatch")),
            ("rejected: golden mismatch", "bad"),
        ),
        (reported(live_of(OTHER, 1), update_of(UpdateState.SUPERSEDED)), ("superseded", "idle")),
    ],
)
def test_desired_and_reported_are_held_together(state: ReportedState | None, expected: tuple[str, str]) -> None:
    desired = DesiredState(
        generation=1, models={RISK: DesiredModel(release=ReleaseRef(RISK, 2), sha256=SHA, deployment="d-1")}
    )
    (found,) = comparisons(desired, state)
    assert (found.verdict, found.tone) == expected


def test_a_model_that_is_not_wanted_any_more_is_shown_until_it_is_gone() -> None:
    (found,) = comparisons(DesiredState(generation=2), reported(live_of(OTHER, 1), None))
    assert (found.wanted, found.verdict) == ("", "to be taken away")


def test_a_device_is_unwell_by_its_own_account() -> None:
    well = dataclasses.replace(reported(live_of(SHA, 1), None), health=DeviceHealth(serving_ready=True))
    assert ailments(well) == ()
    poor = DeviceHealth(alarms="disk_low outbox_full", quarantined=3)
    assert ailments(dataclasses.replace(well, health=poor)) == ("disk_low", "outbox_full", "not_serving", "quarantine")
    stranded = reported(live_of(SHA, 1), update_of(UpdateState.STRANDED))
    assert "stranded" in ailments(stranded)
    assert ailments(ReportedState(generation=0, boot="b", sequence=1, agent_version="1")) == ()


# The fleet and its devices


def glance(name: str, presence: Presence = Presence.ONLINE, **more: object) -> Glance:
    values: dict[str, object] = {
        "device": DeviceId(name),
        "site": name.partition("-")[0],
        "presence": presence,
        "last_seen_at": NOW,
        "certificate_ends": NOW + timedelta(days=20),
    }
    return Glance(**{**values, **more})  # type: ignore[arg-type]


def test_a_silent_device_is_offline_whatever_it_said_last() -> None:
    assert glance("a-1", unwell=("disk_low",)).condition is Condition.FAILING
    assert glance("a-1", Presence.LATE, unwell=("disk_low",)).condition is Condition.FAILING
    assert glance("a-1", Presence.OFFLINE, unwell=("disk_low",)).condition is Condition.OFFLINE
    assert glance("a-1", Presence.REVOKED, unwell=("disk_low",)).condition is Condition.REVOKED


def test_the_overview_names_what_needs_attention_and_nothing_else() -> None:
    calm = fleet_view([glance("a-1"), glance("b-1")], [], [], NOW)
    assert calm.summary == "2 devices at 2 sites. Nothing needs attention."
    troubled = fleet_view(
        [
            glance("a-1", unwell=("disk_low",)),
            glance("a-2", Presence.OFFLINE),
            glance("a-3", Presence.OFFLINE),
            glance("b-1", certificate_ends=NOW + timedelta(days=4)),
            glance("b-2", outbox_oldest_s=7200),
            glance("b-3", Presence.REVOKED, certificate_ends=None),
        ],
        [],
        [],
        NOW,
    )
    assert [each.title for each in troubled.attention] == [
        "a-1 says that it is unwell",
        "2 devices are offline",
        "b-1 has a certificate that ends soon or has ended",
        "b-2 has kept results for 2 h",
    ]
    assert troubled.devices == 5
    assert [(site.name, site.wrong) for site in troubled.sites] == [("a", "1 failing, 2 offline"), ("b", "")]


def test_revoked_devices_are_found_only_by_who_looks_for_them() -> None:
    everyone = [glance("a-1"), glance("a-2", Presence.REVOKED)]

    def shown(chosen: DeviceFilter) -> list[str]:
        return [row.glance.device for row in devices_view(everyone, chosen, None, "", NOW).rows]

    assert shown(DeviceFilter()) == ["a-1"]
    assert shown(DeviceFilter(state=Condition.REVOKED)) == ["a-2"]
    assert shown(DeviceFilter(search="A-2")) == ["a-2"]


def test_pages_of_devices_follow_each_other_without_gap() -> None:
    everyone = [glance(f"a-{number:04}") for number in range(PAGE * 2 + 7)]
    seen: list[str] = []
    after = ""
    for _ in range(3):
        view = devices_view(everyone, DeviceFilter(), None, after, NOW)
        seen += [row.glance.device for row in view.rows]
        after = seen[-1]
    assert seen == [each.device for each in everyone]
    assert view.next == ""


# Chart and words


@given(st.lists(st.tuples(st.integers(0, 10**15), st.integers(0, 10**8)), min_size=1, max_size=50))
def test_every_answer_lies_on_the_chart(points: list[tuple[int, int]]) -> None:
    answers = sorted((Answer(model="m", wall_us=at, latency_us=us) for at, us in points), key=lambda each: each.wall_us)
    chart = latency_chart(answers)
    assert all(0 <= dot.x <= WIDTH and 0 <= dot.y <= HEIGHT for dot in chart.dots)
    assert sum(dot.is_over for dot in chart.dots) == sum(us > 10_000 for _, us in points)
    assert any(tick.is_budget for tick in chart.ticks)


def test_the_chart_says_itself_in_words() -> None:
    answers = [Answer(model="m", wall_us=number, latency_us=300) for number in range(98)]
    answers += [Answer(model="m", wall_us=100, latency_us=2_000), Answer(model="m", wall_us=101, latency_us=12_400)]
    assert latency_chart(answers).summary == (
        "The last 100 recorded answers: half within 0.3 ms, 99 % within 2 ms, the slowest 12.4 ms; 1 over 10 ms."
    )
    assert latency_chart([]).dots == ()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (59.6, "1 min"), (90, "1 min 30 s"), (3600, "1 h"), (3661, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_read_in_two_units(seconds: float, expected: str) -> None:
    assert words.duration(seconds) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0 %"), (0.25, "0.25 %"), (4.87, "4.9 %"), (22.1, "22 %"), (99.7, "> 99 %"), (100, "100 %")],
)
def test_a_percentage_never_rounds_to_all(value: float, expected: str) -> None:
    assert words.percent(value).replace("\u00a0", " ").replace(">99", "> 99") == expected


def test_messages_are_shown_with_their_code_and_nothing_of_it_is_run() -> None:
    shown = str(words.sentence("expected <b>, run `edgeward x > y`, then wait"))
    assert shown == "Expected &lt;b&gt;, run <code>edgeward x &gt; y</code>, then wait"


def test_an_approver_reads_what_a_phase_must_show() -> None:
    (lane,) = rollout_view(rollout_of(Standing.WAITING, state=RolloutState.AWAITING_APPROVAL), person(Role.ADMIN)).lanes
    assert lane.asks.replace("\u00a0", " ") == (
        "Passes when at least 100 % of its devices have succeeded and stay so for 1 min 30 s. "
        "Fails when more than 0 % fail, or when more than 2 % of the answers are errors. Gives up after 1 h."
    )


def test_sizes_counts_and_digests() -> None:
    assert (words.size(906), words.size(3900), words.size(12 << 30)) == ("906 B", "3.8 KiB", "12.0 GiB")
    assert (words.plural(1, "device"), words.plural(1200, "device")) == ("1 device", "1\u202f200 devices")
    assert words.milliseconds(10_000) == "10 ms"
    assert str(words.audited("f" * 64)).endswith(">ffffffffffff…</code>")
    assert str(words.audited("<b>")) == "&lt;b&gt;"


@pytest.mark.parametrize("path", ["https://h/", "//h", "/\\h", "\\\\h", "", "devices", "/a\nb", "/a\\b"])
def test_only_paths_of_this_site_are_gone_back_to(path: str) -> None:
    assert local_path(path) == "/"


def test_a_path_of_this_site_is_kept_with_its_query() -> None:
    assert local_path("/devices?site=north&after=bed-9") == "/devices?site=north&after=bed-9"
