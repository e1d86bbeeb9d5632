"""Who may ask for what: rollouts that meet, approvals, specs, what is noted of them, and reports that cannot be."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, select

from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.desired import MAX_GENERATION
from edgeward_contract.reported import ReportedModel
from edgeward_contract.schema import ContractError, JsonValue, canonical_json
from edgeward_fleet.db.schema import AuditRow
from edgeward_fleet.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from edgeward_fleet.rollouts.machine import RolloutEvent, RolloutState
from edgeward_fleet.rollouts.model import RolloutId, Standing
from edgeward_fleet.states.reported import reported_of
from support.rehearsal import (
    APPROVER,
    AUTHOR,
    CANARY,
    MODEL,
    Behaviour,
    Rehearsal,
    canary_of,
    on_version_1,
    play,
    versions_of,
)


def test_a_second_rollout_of_the_model_waits_its_turn_or_supersedes(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        await fleet.register(3)
        older = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await canary_of(fleet, older, devices)
        canary.behaviour = Behaviour.STALLS
        await canary.turn()
        with pytest.raises(
            Conflict, match=rf"rollout {older} of risk@2 is PROGRESSING on 5 of these devices"
        ) as refused:
            await fleet.start("risk@3")
        assert f"supersedes = {older}" in refused.value.hint
        newer = await fleet.start("risk@3", supersedes=older)
        assert (await fleet.show(older)).state is RolloutState.SUPERSEDED
        canary.behaviour = Behaviour.TAKES
        await fleet.settle(devices)
        assert (await fleet.show(newer)).state is RolloutState.SUCCEEDED
        assert versions_of(devices) == [3] * 5
        await fleet.rollouts.command(AUTHOR, newer, RolloutEvent.ROLL_BACK, "")
        await fleet.settle(devices)
        assert versions_of(devices) == [1] * 5, "what was never proven is not what a device is given back"

    play(tmp_path, scenario)


def test_only_an_unfinished_rollout_of_the_model_is_superseded(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        over = await fleet.start("risk@2")
        await fleet.settle(devices)
        await fleet.register(3)
        await fleet.register(1, name=ModelName("other"))
        with pytest.raises(NotFound, match="expected a rollout, there is no 'r-nothing'"):
            await fleet.start("risk@3", supersedes="r-nothing")
        with pytest.raises(Conflict, match=f"supersedes: expected a rollout that .*, {over} is SUCCEEDED"):
            await fleet.start("risk@3", supersedes=over)
        older = await fleet.start("risk@3")
        await fleet.tick()
        with pytest.raises(Conflict, match=f"expected a rollout of other, {older} is one of risk@3"):
            await fleet.start("other@1", supersedes=older)
        assert (await fleet.show(older)).state is RolloutState.PROGRESSING

    play(tmp_path, scenario)


def test_a_rollout_takes_the_place_of_another_only_with_all_whom_that_one_has_offered(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        await fleet.register(3)
        older = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await canary_of(fleet, older, devices)
        others: list[JsonValue] = [device.id for device in devices if device is not canary]
        with pytest.raises(Conflict, match=rf"has offered risk@2, it lacks 1 \({canary.id}\)"):
            await fleet.start("risk@3", supersedes=older, target={"devices": others})
        await fleet.start("risk@3", supersedes=older, target={"devices": [canary.id]})
        assert (await fleet.show(older)).state is RolloutState.SUPERSEDED

    play(tmp_path, scenario)


def test_what_the_older_rollout_offers_before_the_approval_must_be_reached_too(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        await fleet.register(3)
        older = await fleet.start("risk@2", phases=[{"name": "one", "devices": 1}, {"name": "all", "percent": 100}])
        await fleet.tick()
        canary = await canary_of(fleet, older, devices)
        spec: dict[str, JsonValue] = {"release": "risk@3", "supersedes": older, "target": {"devices": [canary.id]}}
        newer = (await fleet.rollouts.create(AUTHOR, canonical_json(spec))).rollout
        await canary.turn()
        await fleet.tick()
        await fleet.tick(after_s=31)
        assert (await fleet.show(older)).phase == 1
        with pytest.raises(Conflict, match="it lacks 4"):
            await fleet.rollouts.approve(APPROVER, newer.id, newer.spec.sha256())
        assert (await fleet.show(older)).state is RolloutState.PROGRESSING

    play(tmp_path, scenario)


def test_a_newcomer_whom_another_rollout_has_does_not_join(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet, "d1")
        everybody = await fleet.start("risk@2", start_at=(fleet.clock() + timedelta(hours=1)).isoformat())
        devices += fleet.enrol("newcomer", site="south")
        south = await fleet.start("risk@1", target={"sites": ["south"]})
        await fleet.tick()
        assert [each.device for each in (await fleet.show(everybody)).devices] == ["d1"]
        assert [each.device for each in (await fleet.show(south)).devices] == ["newcomer"]
        await fleet.settle(devices)
        await fleet.tick()
        assert [each.device for each in (await fleet.show(everybody)).devices] == ["d1", "newcomer"]

    play(tmp_path, scenario)


MANY = [ModelName("m" * 50 + f"-{number:02}") for number in range(12)]
"""One more than a desired state holds."""


async def _fill(fleet: Rehearsal, models: list[ModelName]) -> list[RolloutId]:
    """A rollout of each model to everybody, all approved before the first tick."""
    for name in models:
        await fleet.register(1, name=name)
    return [await fleet.start(f"{name}@1") for name in models]


def test_a_rollout_that_a_device_has_no_room_for_is_paused_and_the_others_move(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        fleet.enrol("full")
        filling = await _fill(fleet, MANY)
        (device,) = fleet.enrol("roomy")
        await fleet.register(1)
        last = await fleet.start("risk@1", target={"devices": ["roomy"]})
        await fleet.tick()
        states = [(await fleet.show(each)).state for each in filling]
        assert set(states) == {RolloutState.PROGRESSING, RolloutState.PAUSED}
        paused = await fleet.show(filling[-1])
        assert paused.state is RolloutState.PAUSED
        assert "device full: its desired state would not fit" in paused.reason
        assert paused.reason.endswith("Give it fewer models at once.")
        assert (await fleet.rollouts.events(filling[-1], after=0, limit=100))[-1].actor == "system"
        await device.turn()
        assert device.live is not None
        assert (await fleet.show(last)).state is RolloutState.PROGRESSING

    play(tmp_path, scenario)


def test_a_rollout_that_a_device_has_no_room_for_is_neither_taken_nor_approved(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        fleet.enrol("full", "roomy")
        await fleet.register(1, name=MANY[-1])
        waiting = (await fleet.rollouts.create(AUTHOR, canonical_json({"release": f"{MANY[-1]}@1"}))).rollout
        for name in MANY[:-1]:
            await fleet.register(1, name=name)
            await fleet.start(f"{name}@1", target={"devices": ["full"]})
            await fleet.tick()
        words = r"room for one more model, the desired state of 1 would not fit \(full\)"
        with pytest.raises(Conflict, match=words):
            await fleet.rollouts.approve(APPROVER, waiting.id, waiting.spec.sha256())
        assert (await fleet.show(waiting.id)).state is RolloutState.AWAITING_APPROVAL
        await fleet.register(1, name=ModelName("n" * 50))
        with pytest.raises(Conflict, match=words):
            await fleet.start(f"{'n' * 50}@1")
        await fleet.start(f"{'n' * 50}@1", target={"devices": ["roomy"]})

    play(tmp_path, scenario)


def test_nobody_approves_a_rollout_of_their_own_nor_another_spec(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        await on_version_1(fleet)
        made = (await fleet.rollouts.create(AUTHOR, canonical_json({"release": "risk@2"}))).rollout
        with pytest.raises(Forbidden, match="expected somebody other than its author to approve it, olive wrote it"):
            await fleet.rollouts.approve(AUTHOR, made.id, made.spec.sha256())
        with pytest.raises(Conflict, match="expected an approval of spec"):
            await fleet.rollouts.approve(APPROVER, made.id, Sha256("0" * 64))
        await fleet.tick()
        assert (await fleet.show(made.id)).state is RolloutState.AWAITING_APPROVAL
        approved = await fleet.rollouts.approve(APPROVER, made.id, made.spec.sha256())
        assert approved.authorship.approved_by == "ada"
        with pytest.raises(Conflict, match="expected a state in which 'approve' is possible, it is SCHEDULED"):
            await fleet.rollouts.approve(APPROVER, made.id, made.spec.sha256())

    play(tmp_path, scenario)


def test_an_approval_that_nobody_gives_expires(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        await on_version_1(fleet)
        made = (await fleet.rollouts.create(AUTHOR, canonical_json({"release": "risk@2"}))).rollout
        await fleet.tick(after_s=timedelta(days=30).total_seconds())
        done = await fleet.show(made.id)
        assert (done.state, done.reason) == (RolloutState.EXPIRED, "nobody approved it within 30 days")

    play(tmp_path, scenario)


def test_a_rollout_waits_for_its_hour(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        start = (fleet.clock() + timedelta(hours=5)).isoformat()
        rollout = await fleet.start("risk@2", start_at=start)
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.SCHEDULED
        await fleet.tick(after_s=5 * 3600)
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED

    play(tmp_path, scenario)


BAD_SPECS: list[tuple[dict[str, JsonValue], type[Exception], str]] = [
    ({"release": "risk@9"}, Invalid, "release: expected a registered one, there is no risk@9"),
    ({"release": "risk"}, ContractError, "expected name@version such as wdbc-risk@2"),
    ({"release": "risk@2", "target": {"sites": ["moon"]}}, Invalid, r"target: matches no device \(sites moon; 5 enr"),
    (
        {"release": "risk@2", "target": {"sites": ["north", "soth"]}},
        Invalid,
        "target.sites: expected sites with devices, there is none at soth",
    ),
    ({"release": "risk@2", "target": {"devices": ["d9"]}}, Invalid, "target.devices: expected enrolled devices"),
    ({"release": "risk@2", "phases": []}, ContractError, "phases: expected at least one phase"),
    (
        {"release": "risk@2", "phases": [{"name": "a"}]},
        ContractError,
        "expected either percent or devices, got neither",
    ),
    (
        {"release": "risk@2", "phases": [{"name": "a", "percent": 60}]},
        Invalid,
        "phases: expected the last one to reach all 5 matching devices, it leaves 2 out",
    ),
    (
        {"release": "risk@2", "phases": [{"name": "a", "percent": 60}, {"name": "b", "percent": 40}]},
        ContractError,
        "phases: expected sizes that grow",
    ),
    ({"release": "risk@2", "gate": {}}, ContractError, "gate: expected one of"),
    ({"release": "risk@2", "gates": {"max_failed_percent": 101}}, ContractError, "expected at most 100, got 101"),
    ({"release": "risk@2", "on_failure": "panic"}, ContractError, "on_failure: expected one of rollback, pause, abort"),
    ({"release": "risk@2", "start_at": "tonight"}, ContractError, "start_at: expected a time such as"),
    (
        {"release": "risk@2", "start_at": "2026-12-01T10:00:00"},
        ContractError,
        "start_at: expected a time with its zone",
    ),
    (
        {"release": "risk@2", "start_at": "0001-01-01T00:00:00+23:00"},
        ContractError,
        "start_at: expected a time in the years 1 to 9999",
    ),
    (
        {"release": "risk@2", "start_at": "9999-12-31T23:59:59-10:00"},
        ContractError,
        "start_at: expected a time in the years 1 to 9999",
    ),
]


def test_a_spec_that_cannot_be_is_refused_by_name_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        await on_version_1(fleet)
        for spec, error, words in BAD_SPECS:
            with pytest.raises(error, match=words):
                await fleet.rollouts.create(AUTHOR, canonical_json(spec))
        assert len(await fleet.rollouts.page(model=None, before=None, limit=10)) == 1
        with pytest.raises(NotFound, match="expected a rollout, there is no 'r-nothing'"):
            await fleet.show(RolloutId("r-nothing"))

    play(tmp_path, scenario)


def test_who_did_what_stands_in_the_audit_log_and_on_the_timeline(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.settle(devices)
        actions = fleet.database.run_sync(
            lambda session: [
                (row.actor, row.action)
                for row in session.scalars(
                    select(AuditRow).where(AuditRow.subject == rollout).order_by(AuditRow.sequence)
                )
            ]
        )
        assert actions == [
            ("olive", "rollout.create"),
            ("ada", "rollout.approve"),
            ("system", "rollout.start_due"),
            ("system", "rollout.phase_passed"),
            ("system", "rollout.all_phases_passed"),
        ]
        lines = await fleet.rollouts.events(rollout, after=0, limit=100)
        assert [line.kind for line in lines][:4] == ["created", "approve", "start_due", "offered"]
        assert sum(line.kind == "device" and line.detail.startswith("SUCCEEDED") for line in lines) == 5
        rest = await fleet.rollouts.events(rollout, after=lines[3].event_id, limit=100)
        assert rest == lines[4:]

    play(tmp_path, scenario)


def test_a_list_of_rollouts_reads_no_device(tmp_path: Path) -> None:
    """A page of fifty read 60,000 devices of 1,200, and for seconds nobody else had the database."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        for name in ("d1", "d2"):
            await fleet.start("risk@2", target={"devices": [name]}, phases=[{"name": "one", "devices": 1}])
        await fleet.tick()
        await devices[0].turn()
        asked: list[str] = []

        def listen(*given: object) -> None:
            asked.append(str(given[2]))

        event.listen(Engine, "before_cursor_execute", listen)
        try:
            listed = await fleet.rollouts.page(model=None, before=None, limit=10)
        finally:
            event.remove(Engine, "before_cursor_execute", listen)
        assert len([each for each in asked if each.startswith("SELECT")]) == 2
        standings = [dict(each.counts) for each in sorted(listed, key=lambda each: each.rollout.id)]
        assert standings == [{Standing.SUCCEEDED: 5}, {Standing.SUCCEEDED: 1}, {Standing.UNKNOWN: 1}]
        assert {each.authorship.approved_by for each in listed} == {"ada"}

    play(tmp_path, scenario)


def test_a_fleet_restored_from_a_backup_is_heard_again(tmp_path: Path) -> None:
    """The device has seen generations that the restored database does not know."""

    async def scenario(fleet: Rehearsal) -> None:
        device = (await on_version_1(fleet, "d1"))[0]
        device.generation = 40
        await device.turn()
        assert device.generation == 41
        assert device.fetched[-1].models[MODEL].release.version == 1

    play(tmp_path, scenario)


def test_a_backup_from_before_a_devices_first_model_takes_nothing_from_it(tmp_path: Path) -> None:
    """The restored fleet wants nothing yet. It told the device to take its models off, under a newer generation."""

    async def scenario(fleet: Rehearsal) -> None:
        (device,) = fleet.enrol("d1")
        device.generation = 40
        await device.turn()
        assert (device.generation, device.fetched) == (40, [])
        await fleet.register(1)
        rollout = await fleet.start("risk@1")
        await fleet.settle([device])
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED
        assert device.generation > 40

    play(tmp_path, scenario)


def test_a_device_that_claims_the_last_generation_there_is_holds_up_no_rollout(tmp_path: Path) -> None:
    """Generations count on from it, and what no database holds would end the fleet, at each start anew."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet, "d1", "d2")
        devices[0].generation = MAX_GENERATION
        await devices[0].turn()
        rollout = await fleet.start("risk@2")
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED

    play(tmp_path, scenario)


def test_a_report_that_could_not_be_read_again_is_refused_and_the_next_one_is_taken(tmp_path: Path) -> None:
    """What is short on the wire may be long in full; stored, it would lie in the way of every later report."""

    async def scenario(fleet: Rehearsal) -> None:
        (device,) = await on_version_1(fleet, "d1")
        before = await fleet.database.run(lambda session: reported_of(session, device.id))
        empty = {ModelName(f"m{number}"): ReportedModel() for number in range(2000)}
        with pytest.raises(TooLarge, match=r"reported state: expected at most 32768 bytes in full, got \d+"):
            await fleet.inbound.report(device.id, replace(device.state(), models=empty))
        assert await fleet.database.run(lambda session: reported_of(session, device.id)) == before
        await device.turn()
        newest = await fleet.database.run(lambda session: reported_of(session, device.id))
        assert newest is not None and newest.sequence == device.sequence

    play(tmp_path, scenario)


def test_a_late_report_of_an_old_boot_changes_nothing(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet, "d1")
        device, rollout = devices[0], await fleet.start("risk@2")
        await device.turn()
        stale = device.state()
        device.boot, device.sequence = "boot-2", 0
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED
        heard = fleet.news
        await device.link.report(stale)
        await device.link.report(device.as_of(device.sequence))
        assert fleet.news == heard

    play(tmp_path, scenario)
