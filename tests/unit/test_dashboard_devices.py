"""What the pages *Fleet*, *Devices* and *Device* say: how things are, where, why, and what to do about it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import pytest

import edgeward_agent
from edgeward_agent.not_kept import ALARM as RESULTS_NOT_KEPT
from edgeward_agent.ports import ProbeReason
from edgeward_contract.artifact import DeviceId, ReleaseRef, Sha256
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_contract.reported import DeviceHealth, LiveModel, ReportedModel, ReportedState, UpdateState, UpdateStatus
from edgeward_contract.schema import JsonValue
from edgeward_contract.traffic import Traffic
from edgeward_fleet.dashboard.queries.devices import Condition, Glance
from edgeward_fleet.dashboard.queries.rollouts import ListedRollout
from edgeward_fleet.dashboard.views.attention import NOT_TAKEN, Concern
from edgeward_fleet.dashboard.views.causes import ALARMS, UPDATES, of_alarm, of_alarms, of_update
from edgeward_fleet.dashboard.views.device import certificate_view, comparisons, device_view
from edgeward_fleet.dashboard.views.devices import PAGE, DeviceFilter, Found, Order, devices_view
from edgeward_fleet.dashboard.views.events import lines
from edgeward_fleet.dashboard.views.fleet import SITES_SHOWN, FleetView, Seen, fleet_view
from edgeward_fleet.devices.model import CertificateSummary, Device, DeviceDetails, DeviceEvent, Presence
from edgeward_fleet.rollouts.machine import RolloutState
from edgeward_fleet.states.reported import ailments
from support.pages import NOW, OTHER, RISK, SHA, plain, rollout_of

# Causes


def test_every_word_that_an_agent_gives_is_explained() -> None:
    """The agent's own words, read from its code: a new one without an explanation fails here."""
    update = Path(edgeward_agent.__file__).parent / "update"
    sources = "\n".join(file.read_text() for file in update.glob("*.py"))
    words = set(re.findall(r'\breason\s*=\s*"(\w+)"', sources)) | {each.value for each in ProbeReason} - {"ok"}
    assert {"crashes", "golden_mismatch", "disk"} <= words
    assert words - {"failed"} - set(UPDATES) == set()  # "failed" is a word already


def test_every_alarm_that_an_agent_raises_is_explained() -> None:
    package = Path(edgeward_agent.__file__).parent
    alarms = re.search(r"alarms = \{(.+?)\}", (package / "outbox" / "store.py").read_text(), re.DOTALL)
    assert alarms is not None
    raised = set(re.findall(r'"(\w+)":', alarms[1])) | {
        RESULTS_NOT_KEPT,
        "stranded",
        "not-live",
        "damaged",
        "not_serving",
        "quarantine",
    }
    assert "outbox_full" in raised
    assert raised - set(ALARMS) == set()


def test_what_is_not_known_is_shown_as_it_is() -> None:
    assert of_update("of_a_newer_agent").words == "of a newer agent"
    assert of_alarm("damaged:risk").words == "the files of its current release are damaged (risk)"
    assert of_alarm("stranded:risk").words == "neither the new release nor the one before can be loaded (risk)"
    assert len(of_alarms(("outbox_quarantine", "quarantine"))) == 1  # two words for one thing


# Desired and reported


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
            ("rejected: its answers differ from the golden set", "bad"),
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


# The page of a device


WELL = DeviceHealth(serving_ready=True)


def details(
    presence: Presence = Presence.ONLINE, state: ReportedState | None = None, certificate_days: int = 20
) -> DeviceDetails:
    desired = DesiredState(
        generation=1, models={RISK: DesiredModel(release=ReleaseRef(RISK, 2), sha256=SHA, deployment="d-1")}
    )
    return DeviceDetails(
        device=Device(
            device_id=DeviceId("bed-1"),
            site="north",
            presence=presence,
            enrolled_at=NOW,
            last_seen_at=NOW,
            last_address=None,
            revoked_at=NOW if presence is Presence.REVOKED else None,
            hardware={},
        ),
        certificate=certificate(certificate_days),
        desired=desired.canonical(),
        reported=dataclasses.replace(state, health=WELL).canonical() if state else None,
        reported_at=NOW if state else None,
        events=(),
    )


def certificate(days_left: float, revoked_at: datetime | None = None) -> CertificateSummary:
    end = NOW + timedelta(days=days_left)
    return CertificateSummary(
        serial="a" * 40,
        authority="sha256:x",
        not_before=end - timedelta(days=30),
        not_after=end,
        revoked_at=revoked_at,
        revoked_because="stolen" if revoked_at else None,
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (details(state=reported(live_of(SHA, 2), None)), ("online", "All is well.", "")),
        (
            details(Presence.OFFLINE, reported(live_of(SHA, 2), None)),
            (
                "offline",
                "Nothing is heard of it. Its last report said: all is well.",
                "Look whether it is switched on and has a network. "
                "It answers all the same, and keeps what it answered.",
            ),
        ),
        (
            details(Presence.LATE, reported(live_of(SHA, 2), None)),
            ("late", "Nothing was heard of it in the last minutes. Its last report said: all is well.", ""),
        ),
        (
            dataclasses.replace(details(state=reported(live_of(SHA, 2), None)), reported_at=NOW - timedelta(hours=3)),
            (
                "online",
                "It is heard of, and has not reported for more than 2 h. Its last report said: all is well.",
                NOT_TAKEN,
            ),
        ),
        (details(Presence.ONLINE), ("online", "It has enrolled and not reported yet.", "")),
        (
            details(state=reported(live_of(OTHER, 1), update_of(UpdateState.REJECTED, "incompatible"))),
            (
                "online",
                "Risk is rejected: the device cannot take it.",
                "Update the agent there, or raise `update.max_model_bytes`.",
            ),
        ),
        (
            details(Presence.NEVER),
            (
                "never heard of",
                "It has enrolled and not reported yet.",
                "Start the agent on it.",
            ),
        ),
        (
            details(Presence.REVOKED),
            (
                "revoked",
                "It is revoked: the fleet takes nothing from it and gives it nothing.",
                "To let it in again, make a token and enrol it anew with what it prints.",
            ),
        ),
    ],
)
def test_one_sentence_says_how_a_device_is_and_one_what_to_do(
    found: DeviceDetails, expected: tuple[str, str, str]
) -> None:
    view = device_view(found, (), NOW)
    assert (view.state, view.sentence, view.advice) == expected


def test_where_a_command_is_all_it_takes_the_command_is_there() -> None:
    assert device_view(details(Presence.NEVER), (), NOW).command == "edgeward-agent run"
    revoked = device_view(details(Presence.REVOKED), (), NOW)
    assert revoked.command == "edgeward device token --site north --device-id bed-1"
    assert device_view(details(state=reported(live_of(SHA, 2), None)), (), NOW).command == ""


def test_a_device_that_is_unwell_is_failing_however_its_models_are() -> None:
    found = details(state=reported(live_of(SHA, 2), None))
    poorly = dataclasses.replace(reported(live_of(SHA, 2), None), health=DeviceHealth(alarms="outbox_full"))
    view = device_view(dataclasses.replace(found, reported=poorly.canonical()), (), NOW)
    assert (view.state, view.tone) == ("failing", "bad")
    assert view.sentence == "Its outbox is full, its serving process is not ready."
    assert view.advice.startswith("It answers, but durable results are refused")


@pytest.mark.parametrize(
    ("days_left", "revoked", "expected"),
    [
        (20, False, ("20 days left", "ok")),
        (4, False, ("4 days left", "warn")),
        (-1, False, ("ended", "bad")),
        (20, True, ("revoked: stolen", "bad")),
    ],
)
def test_a_certificate_says_how_long_it_lasts(days_left: int, revoked: bool, expected: tuple[str, str]) -> None:
    found = certificate_view(certificate(days_left, NOW if revoked else None), NOW)
    assert (found.words, found.tone) == expected
    assert 0 <= found.used <= 1


# Its life


def event(number: int, kind: str, **detail: JsonValue) -> DeviceEvent:
    return DeviceEvent(event_id=number, at=NOW + timedelta(seconds=10 * number), kind=kind, detail=detail)


def step(
    number: int, state: UpdateState, deployment: str = "d-1", reason: str = "", model: str = "risk"
) -> DeviceEvent:
    detail: Mapping[str, JsonValue] = {
        "model": model,
        "deployment": deployment,
        "release": f"{model}@2",
        "state": state.value,
        "reason": reason,
        "detail": "",
    }
    return event(number, "update", **detail)


def test_an_update_is_one_line_with_its_steps() -> None:
    newest_first = [
        event(6, "live", model="risk", release="risk@2 (current)", before="risk@2 (candidate)"),
        step(5, UpdateState.COMMITTED),
        event(4, "live", model="risk", release="risk@2 (candidate)", before="risk@1 (current)"),
        step(3, UpdateState.PROBATION),
        step(2, UpdateState.DOWNLOADING),
        step(1, UpdateState.ACCEPTED),
    ]
    (line,) = lines(newest_first)
    assert (line.words, line.look.tone) == ("risk@2 committed", "ok")
    assert plain(line.detail) == "accepted → downloading → probation → committed in 40 s"


def test_an_update_that_failed_says_why() -> None:
    (line,) = lines([step(2, UpdateState.ROLLED_BACK, reason="crashes"), step(1, UpdateState.PROBATION)])
    assert line.words == "risk@2 rolled back: it ended the serving process again and again"
    assert line.look.tone == "bad"


def test_updates_of_different_deployments_and_models_stay_apart() -> None:
    told = lines(
        [
            step(4, UpdateState.COMMITTED, "d-2"),
            step(3, UpdateState.COMMITTED, "d-1"),
            step(2, UpdateState.PROBING, "d-9", model="ecg"),
            step(1, UpdateState.ACCEPTED, "d-1"),
        ]
    )
    assert [each.words for each in told] == ["risk@2 committed", "risk@2 committed", "ecg@2 probing", "risk@2 accepted"]


def test_alarms_are_told_as_they_come_and_go() -> None:
    gone, raised, enrolled = lines(
        [
            event(3, "alarms", alarms="", before="outbox_full"),
            event(2, "alarms", alarms="outbox_full", before=""),
            event(1, "enrolled", site="north", repeated=False),
        ]
    )
    assert (gone.words, gone.detail) == ("The alarms are over", "before: its outbox is full")
    assert (raised.words, raised.look.tone) == ("Alarm: its outbox is full", "warn")
    assert (enrolled.words, enrolled.detail) == ("Enrolled", "site north")


# The fleet and its devices


def glance(name: str, presence: Presence = Presence.ONLINE, **more: object) -> Glance:
    values: dict[str, object] = {
        "device": DeviceId(name),
        "site": name.partition("-")[0],
        "presence": presence,
        "last_seen_at": NOW,
        "told_at": NOW,
        "certificate_ends": NOW + timedelta(days=20),
    }
    return Glance(**{**values, **more})  # type: ignore[arg-type]


def test_a_silent_device_is_offline_whatever_it_said_last() -> None:
    assert glance("a-1", unwell=("disk_low",)).condition is Condition.FAILING
    assert glance("a-1", Presence.LATE, unwell=("disk_low",)).condition is Condition.FAILING
    assert glance("a-1", Presence.OFFLINE, unwell=("disk_low",)).condition is Condition.OFFLINE
    assert glance("a-1", Presence.REVOKED, unwell=("disk_low",)).condition is Condition.REVOKED


def overview(*glances: Glance, astray: tuple[str, ...] = (), wanting: tuple[ListedRollout, ...] = ()) -> FleetView:
    return fleet_view(Seen(glances=glances, astray=[DeviceId(each) for each in astray], wanting=wanting), NOW)


def test_the_overview_names_what_needs_attention_and_nothing_else() -> None:
    assert overview(glance("a-1"), glance("b-1")).summary == "2 devices at 2 sites. Nothing needs attention."
    troubled = overview(
        glance("b-1", certificate_ends=NOW + timedelta(days=4)),
        glance("b-2", outbox_oldest_s=7200),
        glance("b-3", Presence.REVOKED, certificate_ends=None),
        glance("b-4"),
        glance("a-0"),
        glance("a-1", unwell=("outbox_full",)),
        glance("a-2", Presence.OFFLINE),
        glance("a-3", Presence.OFFLINE, told_at=NOW - timedelta(days=2)),
        glance("b-5", told_at=NOW - timedelta(hours=3)),
        astray=("b-4", "b-3"),
    )
    assert [plain(each.title) for each in troubled.attention] == [
        "a-1 says that it is unwell",
        "2 devices are offline",
        "b-5 is heard of, and has not reported for more than 2 h",
        "b-2 has kept results for 2 h",
        "b-4 does not run what it should, and no rollout is under way",
        "b-1 has a certificate that ends soon or has ended",
    ]
    assert all(each.advice for each in troubled.attention)
    assert troubled.devices == 8
    assert [(site.name, site.wrong) for site in troubled.sites] == [("a", "1 failing, 2 offline"), ("b", "")]


def test_a_site_that_is_silent_as_a_whole_is_one_thing() -> None:
    silent = [glance(f"a-{number}", Presence.OFFLINE) for number in range(3)]
    (found,) = overview(*silent, glance("b-1")).attention
    assert (found.title, found.detail) == ("Site a is cut off", "none of its 3 devices is heard of")
    assert found.href == "/devices?site=a"
    (alone,) = overview(silent[0], glance("b-1")).attention
    assert alone.title == "a-0 is offline"  # a site of one device is a device


def test_a_thousand_silent_sites_leave_room_for_everything_else() -> None:
    silent = [glance(f"a{site:04}-{number}", Presence.OFFLINE) for site in range(1000) for number in (1, 2)]
    *named, more = overview(*silent).attention
    assert [each.title for each in named] == [f"Site a{number:04} is cut off" for number in range(3)]
    assert (plain(more.title), more.detail) == ("997 more sites are cut off", "a0003, a0004, a0005, …")


def test_the_worst_sites_come_first_and_not_more_than_fit() -> None:
    calm = [glance(f"site{number}-1") for number in range(SITES_SHOWN + 3)]
    bad = [glance("zoo-1", Presence.LATE), glance("yard-1", unwell=("outbox_full",)), glance("yard-2")]
    seen = Seen(glances=(*calm, *bad))
    view = fleet_view(seen, NOW)
    assert [site.name for site in view.sites][:2] == ["yard", "zoo"]
    assert (len(view.sites), view.all_sites) == (SITES_SHOWN, SITES_SHOWN + 5)
    assert len(fleet_view(seen, NOW, every_site=True).sites) == SITES_SHOWN + 5


def listed(state: RolloutState, since: datetime = NOW) -> ListedRollout:
    rollout = rollout_of(reason="1 of 1 failed").rollout
    return ListedRollout(
        id=rollout.id,
        spec=rollout.spec,
        state=state,
        phase=0,
        step=rollout.step,
        reason=rollout.reason,
        created_at=NOW,
        created_by="olive",
        since=since,
    )


@pytest.mark.parametrize(
    ("rollout", "title"),
    [
        (listed(RolloutState.PAUSED), "Rollout of risk@2 is paused"),
        (listed(RolloutState.AWAITING_APPROVAL), "Rollout of risk@2 waits for approval"),
        (listed(RolloutState.ROLLBACK_INCOMPLETE), "Rollout of risk@2 could not be rolled back everywhere"),
        (listed(RolloutState.ROLLED_BACK), "Rollout of risk@2 was taken back"),
        (listed(RolloutState.ROLLED_BACK, NOW - timedelta(days=2)), None),
        (listed(RolloutState.PROGRESSING), None),
        (listed(RolloutState.SUCCEEDED), None),
    ],
)
def test_a_rollout_that_wants_a_person_is_named(rollout: ListedRollout, title: str | None) -> None:
    found = overview(glance("a-1"), wanting=(rollout,)).attention
    assert [each.title for each in found] == ([title] if title else [])


def names(found: Found, chosen: DeviceFilter = DeviceFilter(), page: int = 1) -> list[str]:  # noqa: B008
    return [row.glance.device for row in devices_view(found, chosen, page, NOW).rows]


def test_revoked_devices_are_found_only_by_who_looks_for_them() -> None:
    everyone = Found(glances=[glance("a-1"), glance("a-2", Presence.REVOKED)])
    assert names(everyone) == ["a-1"]
    assert names(everyone, DeviceFilter(state=Condition.REVOKED)) == ["a-2"]
    assert names(everyone, DeviceFilter(search="A-2")) == ["a-2"]


def test_pages_of_devices_follow_each_other_without_gap() -> None:
    everyone = Found(glances=[glance(f"a-{number:04}") for number in range(PAGE * 2 + 7)])
    seen = [name for page in (1, 2, 3) for name in names(everyone, page=page)]
    assert seen == [each.device for each in everyone.glances]
    assert names(everyone, page=99) == seen[PAGE * 2 :]  # the last page, not an empty one
    view = devices_view(everyone, DeviceFilter(site="a"), 2, NOW)
    assert [href for _, href, _ in view.pages.links] == [
        "/devices?site=a",
        "/devices?site=a",
        "/devices?site=a&page=3",
        "/devices?site=a&page=3",
    ]


def test_devices_come_in_the_order_that_is_asked_for() -> None:
    everyone = Found(
        glances=[
            glance("a-1", last_seen_at=NOW - timedelta(seconds=5)),
            glance("a-2", Presence.OFFLINE, last_seen_at=NOW - timedelta(days=2)),
            glance("a-3", unwell=("outbox_full",), outbox_oldest_s=9),
            glance("a-4", Presence.NEVER, last_seen_at=None, outbox_oldest_s=5),
        ]
    )
    assert names(everyone, DeviceFilter(order=Order.TROUBLE)) == ["a-3", "a-2", "a-4", "a-1"]
    assert names(everyone, DeviceFilter(order=Order.SILENCE)) == ["a-4", "a-2", "a-1", "a-3"]
    assert names(everyone, DeviceFilter(order=Order.OUTBOX)) == ["a-3", "a-4", "a-1", "a-2"]


def test_conditions_are_counted_beside_the_other_filters() -> None:
    everyone = Found(
        glances=[glance("a-1"), glance("a-2", Presence.LATE), glance("b-1"), glance("a-3", Presence.REVOKED)],
        astray=[DeviceId("b-1")],
    )
    view = devices_view(everyone, DeviceFilter(site="a", state=Condition.LATE), 1, NOW)
    assert [(each.label, each.count, each.is_chosen) for each in view.choices] == [
        ("all", 2, False),
        ("online", 1, False),
        ("late", 1, True),
        ("revoked", 1, False),
    ]
    assert view.choices[0].href == "/devices?site=a"
    assert names(everyone, DeviceFilter(attention=Concern.RELEASE)) == ["b-1"]
    mute = Found(glances=[glance("a-1"), glance("a-2", told_at=NOW - timedelta(hours=3))])
    assert names(mute, DeviceFilter(attention=Concern.REPORT)) == ["a-2"]
