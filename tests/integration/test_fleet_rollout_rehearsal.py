"""Whole rollouts on the fleet's own services, with devices that take, refuse, fall back, stall or say nothing."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, select
from sqlalchemy.orm import Session

from edgeward_contract.artifact import ModelName, Sha256
from edgeward_contract.desired import MAX_GENERATION
from edgeward_contract.reported import ReportedModel
from edgeward_contract.schema import ContractError, JsonValue, canonical_json
from edgeward_contract.traffic import Traffic
from edgeward_fleet.clock import rfc3339
from edgeward_fleet.db.schema import AuditRow, SettingRow
from edgeward_fleet.errors import Conflict, Forbidden, Invalid, NotFound, TooLarge
from edgeward_fleet.rollouts.machine import PhaseStep, RolloutEvent, RolloutState
from edgeward_fleet.rollouts.model import Back, RolloutId, Standing
from edgeward_fleet.rollouts.stepping import step
from edgeward_fleet.rollouts.ticker import Ticker
from edgeward_fleet.states.reported import reported_of
from support.rehearsal import APPROVER, AUTHOR, MODEL, Behaviour, Rehearsal, SimulatedDevice, play
from support.waiting import eventually

NAMES = ("d1", "d2", "d3", "d4", "d5")
CANARY: JsonValue = [{"name": "canary", "devices": 1}, {"name": "everyone", "percent": 100}]


async def _on_version_1(fleet: Rehearsal, *names: str) -> list[SimulatedDevice]:
    """Devices that all run risk@1, and risk@2 registered."""
    devices = fleet.enrol(*(names or NAMES))
    await fleet.register(1)
    await fleet.register(2)
    rollout = await fleet.start("risk@1")
    await fleet.settle(devices)
    assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED
    return devices


def _versions(devices: list[SimulatedDevice]) -> list[int]:
    return [device.live[0].version if device.live else 0 for device in devices]


async def _canary_of(fleet: Rehearsal, rollout: RolloutId, devices: list[SimulatedDevice]) -> SimulatedDevice:
    name = next(each.device for each in (await fleet.show(rollout)).devices if each.phase == 0)
    return next(device for device in devices if device.id == name)


async def _sha256(fleet: Rehearsal, rollout: RolloutId) -> Sha256:
    return (await fleet.show(rollout)).release_sha256


def test_a_good_release_reaches_everybody_phase_by_phase(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await _canary_of(fleet, rollout, devices)
        for device in devices:
            await device.turn()
        assert sorted(_versions(devices)) == [1, 1, 1, 1, 2]
        await fleet.tick()
        assert (await fleet.show(rollout)).step is PhaseStep.SOAKING
        await fleet.tick(after_s=29)
        assert (await fleet.show(rollout)).phase == 0
        await fleet.tick(after_s=2)
        assert (await fleet.show(rollout)).phase == 1
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.SUCCEEDED
        assert _versions(devices) == [2] * 5
        assert "4 of 4 devices of phase 'everyone' succeeded" in done.reason
        assert canary.update is not None

    play(tmp_path, scenario)


def test_a_release_that_the_canary_refuses_reaches_nobody_else(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        for device in devices:
            device.bad[await _sha256(fleet, rollout)] = Behaviour.REJECTS
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.ROLLED_BACK
        assert done.reason == (
            "1 of 1 device of phase 'canary' failed (golden_mismatch); at most 0 % may; rolled back on 1 device"
        )
        assert sum(device.offered for device in done.devices) == 1
        assert _versions(devices) == [1] * 5

    play(tmp_path, scenario)


def test_a_release_that_fails_late_is_taken_back_from_everybody(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await _canary_of(fleet, rollout, devices)
        await canary.turn()
        await fleet.tick()
        await fleet.tick(after_s=31)
        last = next(device for device in devices if device is not canary)
        last.bad[await _sha256(fleet, rollout)] = Behaviour.ROLLS_BACK
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.ROLLED_BACK
        assert {device.back for device in done.devices} == {Back.PROVEN}
        assert _versions(devices) == [1] * 5

    play(tmp_path, scenario)


def test_errors_under_load_take_a_release_back_while_it_soaks(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await _canary_of(fleet, rollout, devices)
        await canary.turn()
        await fleet.tick()
        canary.traffic = Traffic(requests=100, errors=10)
        await canary.turn()
        await fleet.tick()
        assert (await fleet.show(rollout)).state is RolloutState.ROLLING_BACK
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.ROLLED_BACK
        assert "10 of 100 requests (10 %)" in done.reason
        assert _versions(devices) == [1] * 5

    play(tmp_path, scenario)


def test_what_was_seen_is_what_is_judged_also_by_a_fleet_that_is_killed_in_between(tmp_path: Path) -> None:
    """The breach was one decision and its consequence the next: a report between them let the phase pass, unsoaked."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await _canary_of(fleet, rollout, devices)
        await canary.turn()
        await fleet.tick()
        canary.traffic = Traffic(requests=100, errors=10)
        await canary.turn()
        await fleet.database.run(lambda session: step(session, rollout, fleet.clock()))
        canary.traffic = Traffic(requests=10_000, errors=10)
        await canary.turn()
        await fleet.tick()
        assert (await fleet.show(rollout)).state is RolloutState.ROLLING_BACK
        words = [
            line.detail for line in await fleet.rollouts.events(rollout, after=0, limit=100) if line.kind == "step"
        ]
        assert words == [f"phase 'canary' {each}" for each in ("offered", "soaks", "is analysed")]

    play(tmp_path, scenario)


@pytest.mark.parametrize(("away_s", "passes"), [(60, True), (7200, False)])
def test_a_phase_does_not_soak_while_nobody_watches(tmp_path: Path, away_s: int, passes: bool) -> None:
    """A fleet that was down heard of no error; at its start it opened the next phase, to everybody."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await _canary_of(fleet, rollout, devices)
        await canary.turn()
        await fleet.tick()
        await canary.turn()
        await fleet.rollouts.watch()
        fleet.clock.pass_s(away_s)
        await _tick_once(fleet)
        assert ((await fleet.show(rollout)).phase > 0) == passes
        await fleet.tick(after_s=31)
        await canary.turn()
        await fleet.tick()
        assert (await fleet.show(rollout)).phase == 1

    play(tmp_path, scenario)


@pytest.mark.parametrize("soak_s", [30, 7200])
def test_a_device_that_falls_silent_in_the_soak_has_not_shown_that_success_lasts(tmp_path: Path, soak_s: int) -> None:
    """A release that took the whole device down after its first report would have gone on to everybody."""
    phases: JsonValue = [
        {"name": "canary", "devices": 1, "soak_s": soak_s, "timeout_s": 3600},
        {"name": "everyone", "percent": 100},
    ]

    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=phases)
        await fleet.tick()
        canary = await _canary_of(fleet, rollout, devices)
        await canary.turn()
        await fleet.tick(after_s=1)
        await fleet.tick(after_s=max(soak_s, 3500))
        waiting = await fleet.show(rollout)
        if soak_s < 3600:  # it may still be on its way
            assert (waiting.state, waiting.phase, waiting.step) == (RolloutState.PROGRESSING, 0, PhaseStep.SOAKING)
            await fleet.tick(after_s=101)
        paused = await fleet.show(rollout)
        assert paused.state is RolloutState.PAUSED
        assert paused.reason.endswith(
            f"0 of 1 device succeeded, 100 % must; 1 not heard of since success ({canary.id})"
        )
        await fleet.rollouts.command(APPROVER, rollout, RolloutEvent.RESUME, "")
        await fleet.settle(devices, soak_s=soak_s + 1.0)
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED

    play(tmp_path, scenario)


def test_a_soak_that_begins_when_its_phase_times_out_leaves_time_for_a_word(tmp_path: Path) -> None:
    """Devices report once a minute: of nobody could anything be heard in a soak of ten seconds."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=[{"name": "all", "percent": 100, "soak_s": 10, "timeout_s": 60}])
        await fleet.tick()
        fleet.clock.pass_s(59)
        for device in devices:
            await device.turn()
        await fleet.tick(after_s=1)
        await fleet.tick(after_s=60)
        assert (await fleet.show(rollout)).step is PhaseStep.SOAKING
        for device in devices:
            await device.turn()
        await fleet.tick()
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED

    play(tmp_path, scenario)


async def _tick_once(fleet: Rehearsal) -> None:
    """As a fleet that starts does it."""
    ticker = asyncio.create_task(Ticker(fleet.new_rollouts(), interval_s=60).run())
    now = rfc3339(fleet.clock())

    def noted(session: Session) -> bool:
        return session.get_one(SettingRow, "rollouts_watched_at").value == now

    await eventually(lambda: fleet.database.run_sync(noted), "the ticker to look")
    await fleet.tick()
    ticker.cancel()


def test_a_silent_device_pauses_the_rollout_and_a_resume_gives_it_time(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await _canary_of(fleet, rollout, devices)
        canary.behaviour = Behaviour.SILENT
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.PROGRESSING
        await fleet.tick(after_s=3600)
        paused = await fleet.show(rollout)
        assert paused.state is RolloutState.PAUSED
        assert f"1 not heard of ({canary.id})" in paused.reason
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "it is back on the network")
        canary.behaviour = Behaviour.TAKES
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED
        assert _versions(devices) == [2] * 5

    play(tmp_path, scenario)


def test_a_stalled_device_is_at_work_until_the_phase_times_out(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        devices[0].behaviour = Behaviour.STALLS
        rollout = await fleet.start("risk@2", phases=[{"name": "all", "percent": 100, "timeout_s": 600}])
        await fleet.settle(devices)
        await fleet.tick(after_s=600)
        paused = await fleet.show(rollout)
        assert paused.state is RolloutState.PAUSED
        assert "4 of 5 devices succeeded, 100 % must; 1 still at it" in paused.reason

    play(tmp_path, scenario)


def test_enough_successes_pass_when_the_gate_allows_silence(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        devices[0].behaviour = Behaviour.SILENT
        rollout = await fleet.start(
            "risk@2", phases=[{"name": "all", "percent": 100}], gates={"min_success_percent": 80}
        )
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED

    play(tmp_path, scenario)


def test_a_resume_offers_the_release_again_to_a_device_that_was_mended(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY, on_failure="pause")
        sha256 = await _sha256(fleet, rollout)
        await fleet.tick()
        canary = await _canary_of(fleet, rollout, devices)
        canary.bad[sha256] = Behaviour.REJECTS
        await fleet.settle(devices)
        paused = await fleet.show(rollout)
        assert paused.state is RolloutState.PAUSED
        assert "1 of 1 device of phase 'canary' failed" in paused.reason
        first = next(device.deployment for device in paused.devices if device.device == canary.id)
        canary.bad.clear()
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "")
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.SUCCEEDED
        again = next(device for device in done.devices if device.device == canary.id)
        assert again.deployment != first
        assert again.former is not None
        assert again.former.release.version == 1

    play(tmp_path, scenario)


def test_a_rollout_that_succeeded_can_still_be_rolled_back(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.settle(devices)
        assert _versions(devices) == [2] * 5
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "clinicians disagree with it")
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert (done.state, done.reason) == (
            RolloutState.ROLLED_BACK,
            "clinicians disagree with it; rolled back on 5 devices",
        )
        assert _versions(devices) == [1] * 5

    play(tmp_path, scenario)


def test_a_roll_back_without_proof_is_incomplete_until_the_last_device_comes_home(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.settle(devices)
        devices[2].behaviour = Behaviour.SILENT
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "bad")
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.ROLLING_BACK
        await fleet.tick(after_s=3600)
        incomplete = await fleet.show(rollout)
        assert incomplete.state is RolloutState.ROLLBACK_INCOMPLETE
        assert incomplete.reason == "bad; rolled back on 4 of 5 devices; no proof yet from d3"
        devices[2].behaviour = Behaviour.TAKES
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.ROLLED_BACK
        assert _versions(devices) == [1] * 5

    play(tmp_path, scenario)


def test_a_device_that_never_fetched_the_offer_needs_no_proof_of_its_return(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        devices[1].behaviour = Behaviour.SILENT
        rollout = await fleet.start("risk@2", phases=[{"name": "all", "percent": 100}])
        await fleet.settle(devices)
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "bad")
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.ROLLED_BACK
        assert [device.back for device in done.devices if device.device == "d2"] == [Back.NEVER_TOOK]
        devices[1].behaviour = Behaviour.TAKES
        await fleet.settle(devices)
        assert _versions(devices) == [1] * 5
        assert all(state.models[MODEL].release.version == 1 for state in devices[1].fetched)

    play(tmp_path, scenario)


def test_a_first_release_is_rolled_back_to_nothing(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = fleet.enrol("d1", "d2")
        await fleet.register(1)
        rollout = await fleet.start("risk@1")
        await fleet.settle(devices)
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "")
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.ROLLED_BACK
        assert _versions(devices) == [0, 0]

    play(tmp_path, scenario)


def test_an_abort_withdraws_what_is_not_proven_and_leaves_the_rest(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        devices[0].behaviour = Behaviour.STALLS
        rollout = await fleet.start("risk@2", phases=[{"name": "all", "percent": 100}])
        await fleet.settle(devices)
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ABORT, "not now")
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert (done.state, done.reason) == (RolloutState.ABORTED, "not now; withdrawn on 1 device")
        assert _versions(devices) == [1, 2, 2, 2, 2]
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "all of it")
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.ROLLED_BACK
        assert _versions(devices) == [1] * 5

    play(tmp_path, scenario)


def test_who_comes_home_after_an_abort_is_listed_no_longer(tmp_path: Path) -> None:
    """Nobody listened any more: weeks later it was still said to run what had been withdrawn."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet, "d1", "d2")
        rollout = await fleet.start("risk@2", phases=[{"name": "all", "percent": 100}])
        await fleet.tick()
        await devices[0].link.desired_now(devices[0].generation)  # fetched, and then nothing is heard of it
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ABORT, "not now")
        await fleet.tick()
        await fleet.tick(after_s=3601)
        done = await fleet.show(rollout)
        assert (done.state, done.reason) == (
            RolloutState.ABORTED,
            "not now; withdrawn on 1 of 2 devices; no proof yet from d1",
        )
        await devices[0].turn()
        assert [each.back for each in (await fleet.show(rollout)).devices] == [Back.PROVEN, Back.NEVER_TOOK]

    play(tmp_path, scenario)


def test_before_it_starts_an_abort_touches_nobody(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        made = await fleet.rollouts.create(AUTHOR, canonical_json({"release": "risk@2"}))
        await fleet.rollouts.command(AUTHOR, made.rollout.id, RolloutEvent.ABORT, "")
        await fleet.settle(devices)
        done = await fleet.show(made.rollout.id)
        assert (done.state, done.reason) == (RolloutState.ABORTED, "asked for by olive; withdrawn on 0 devices")

    play(tmp_path, scenario)


def test_a_pause_offers_to_nobody_else_and_a_resume_goes_on(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.PAUSE, "lunch")
        await fleet.settle(devices)
        assert sorted(_versions(devices)) == [1, 1, 1, 1, 2]
        assert (await fleet.show(rollout)).state is RolloutState.PAUSED
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "")
        await fleet.settle(devices)
        assert _versions(devices) == [2] * 5

    play(tmp_path, scenario)


def test_a_joiner_enters_the_last_phase_and_never_the_canary(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        devices += fleet.enrol("joiner")
        await fleet.tick()
        joined = next(each for each in (await fleet.show(rollout)).devices if each.device == "joiner")
        assert (joined.phase, joined.counted, joined.standing) == (1, True, Standing.WAITING)
        await fleet.settle(devices)
        assert _versions(devices) == [2] * 6

    play(tmp_path, scenario)


def test_who_joins_when_the_last_phase_is_open_is_served_outside_its_count(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=[{"name": "all", "percent": 100}])
        await fleet.tick()
        devices += fleet.enrol("joiner")
        devices[-1].behaviour = Behaviour.ROLLS_BACK
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.SUCCEEDED
        assert "5 of 5 devices" in done.reason
        assert next(each for each in done.devices if each.device == "joiner").counted is False

    play(tmp_path, scenario)


def test_a_device_revoked_after_the_offer_counts_until_a_person_goes_on_without_it(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        devices[3].behaviour = Behaviour.SILENT
        rollout = await fleet.start("risk@2", phases=[{"name": "all", "percent": 100}])
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.PROGRESSING
        fleet.revoke("d4")
        await fleet.settle(devices)
        await fleet.tick(after_s=3600)
        paused = await fleet.show(rollout)
        assert paused.state is RolloutState.PAUSED
        assert "4 of 5 devices succeeded, 100 % must; 1 has left since the offer" in paused.reason
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "d4 is scrap")
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.SUCCEEDED
        assert "4 of 4 devices" in done.reason
        assert next(each for each in done.devices if each.device == "d4").standing is Standing.LEFT

    play(tmp_path, scenario)


def test_a_silent_device_that_was_revoked_in_a_pause_is_gone_after_one_resume(tmp_path: Path) -> None:
    """It was waited for until the phase timed out once more."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet, "d1", "d2")
        devices[1].behaviour = Behaviour.SILENT
        rollout = await fleet.start("risk@2", phases=[{"name": "all", "percent": 100}])
        await fleet.settle(devices)
        await fleet.tick(after_s=3600)
        assert "1 not heard of (d2)" in (await fleet.show(rollout)).reason
        fleet.revoke("d2")
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "d2 is scrap")
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED

    play(tmp_path, scenario)


def test_a_failed_device_that_was_revoked_is_gone_after_one_resume(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=[{"name": "all", "percent": 100}], on_failure="pause")
        devices[3].bad[await _sha256(fleet, rollout)] = Behaviour.REJECTS
        await fleet.settle(devices)
        fleet.revoke("d4")
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "d4 is scrap")
        await fleet.settle(devices[:3] + devices[4:])
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED

    play(tmp_path, scenario)


def test_a_device_revoked_before_its_turn_leaves_the_count(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await _canary_of(fleet, rollout, devices)
        gone = next(device for device in devices if device is not canary)
        fleet.revoke(gone.id)
        await fleet.settle([device for device in devices if device is not gone])
        done = await fleet.show(rollout)
        assert done.state is RolloutState.SUCCEEDED
        assert "3 of 3 devices of phase 'everyone'" in done.reason

    play(tmp_path, scenario)


@pytest.mark.parametrize("min_success_percent", [0, 100])
def test_a_canary_that_is_revoked_lets_nobody_have_the_release(tmp_path: Path, min_success_percent: int) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        gates: JsonValue = {"min_success_percent": min_success_percent}
        rollout = await fleet.start("risk@2", phases=CANARY, gates=gates)
        canary = await _canary_of(fleet, rollout, devices)
        canary.behaviour = Behaviour.STALLS
        await fleet.tick()
        await canary.turn()
        fleet.revoke(canary.id)
        for _ in range(2):
            await fleet.settle([device for device in devices if device is not canary])
            paused = await fleet.show(rollout)
            assert (paused.state, paused.phase) == (RolloutState.PAUSED, 0)
            assert "phase 'canary': its only device has left" in paused.reason
            await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "")
        assert sorted(_versions(devices)) == [1] * 5

    play(tmp_path, scenario)


def test_a_resume_after_errors_judges_only_what_comes_after_it(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        phases: JsonValue = [{"name": "all", "percent": 100, "soak_s": 600}]
        rollout = await fleet.start("risk@2", phases=phases, on_failure="pause")
        await fleet.tick()
        devices[0].traffic = Traffic(requests=100, errors=50)
        await fleet.settle(devices)
        assert "50 of 100 requests" in (await fleet.show(rollout)).reason
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "the sensor was loose")
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.PROGRESSING
        devices[0].traffic = Traffic(requests=200, errors=60)
        await fleet.settle(devices)
        paused = await fleet.show(rollout)
        assert paused.state is RolloutState.PAUSED
        assert "10 of 100 requests (10 %)" in paused.reason
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "another sensor, and a restart")
        devices[0].traffic = Traffic(requests=50, errors=20)
        await fleet.settle(devices)
        assert "20 of 50 requests (40 %)" in (await fleet.show(rollout)).reason
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "")
        await fleet.settle(devices, soak_s=601)
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED

    play(tmp_path, scenario)


def test_devices_that_run_the_release_are_left_alone(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        seen = [len(device.fetched) for device in devices]
        rollout = await fleet.start("risk@1")
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.SUCCEEDED
        assert {device.standing for device in done.devices} == {Standing.ALREADY}
        assert [len(device.fetched) for device in devices] == seen
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "")
        await fleet.settle(devices)
        assert _versions(devices) == [1] * 5

    play(tmp_path, scenario)


def test_a_second_rollout_of_the_model_waits_its_turn_or_supersedes(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        await fleet.register(3)
        older = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await _canary_of(fleet, older, devices)
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
        assert _versions(devices) == [3] * 5
        await fleet.rollouts.command(AUTHOR, newer, RolloutEvent.ROLL_BACK, "")
        await fleet.settle(devices)
        assert _versions(devices) == [1] * 5, "what was never proven is not what a device is given back"

    play(tmp_path, scenario)


@pytest.mark.parametrize("takes_it_late", [False, True])
def test_what_failed_on_a_device_is_not_what_it_is_given_back(tmp_path: Path, takes_it_late: bool) -> None:
    """A rollout may succeed without some devices. Asked back to what it had refused, one stayed on what was bad."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet, "d1", "d2")
        everybody: JsonValue = [{"name": "all", "percent": 100}]
        older = await fleet.start(
            "risk@2", phases=everybody, gates={"max_failed_percent": 50, "min_success_percent": 50}
        )
        devices[0].bad[await _sha256(fleet, older)] = Behaviour.REJECTS
        await fleet.settle(devices)
        assert (await fleet.show(older)).state is RolloutState.SUCCEEDED
        assert _versions(devices) == [1, 2]
        if takes_it_late:
            devices[0].bad.clear()
            devices[0].try_again()
            await devices[0].turn()
        await fleet.register(3)
        newer = await fleet.start("risk@3", phases=everybody)
        await fleet.settle(devices)
        assert _versions(devices) == [3, 3]
        await fleet.rollouts.command(AUTHOR, newer, RolloutEvent.ROLL_BACK, "bad")
        await fleet.settle(devices)
        assert (await fleet.show(newer)).state is RolloutState.ROLLED_BACK
        assert _versions(devices) == [2 if takes_it_late else 1, 2]

    play(tmp_path, scenario)


def test_a_later_rollout_takes_its_devices_out_of_an_older_roll_back(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        await fleet.register(3)
        older = await fleet.start("risk@2", phases=CANARY)
        await fleet.settle(devices)
        devices[0].behaviour = Behaviour.SILENT
        await fleet.rollouts.command(AUTHOR, older, RolloutEvent.ROLL_BACK, "")
        await fleet.settle(devices)
        await fleet.tick(after_s=3600)
        assert (await fleet.show(older)).state is RolloutState.ROLLBACK_INCOMPLETE
        await fleet.start("risk@3", phases=[{"name": "all", "percent": 100}])
        devices[0].behaviour = Behaviour.TAKES
        await fleet.settle(devices)
        assert _versions(devices) == [3] * 5
        done = await fleet.show(older)
        assert done.state is RolloutState.ROLLED_BACK
        assert next(each for each in done.devices if each.device == "d1").back is Back.LEFT
        assert "rolled back on 4 devices; 1 has left" in done.reason

    play(tmp_path, scenario)


def test_a_roll_back_that_nobody_is_left_for_is_refused(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet, "d1", "d2")
        older = await fleet.start("risk@2")
        await fleet.settle(devices)
        await fleet.register(3)
        await fleet.start("risk@3")
        await fleet.settle(devices)
        with pytest.raises(Conflict, match="to give its former release back to, all 2 have left"):
            await fleet.rollouts.command(AUTHOR, older, RolloutEvent.ROLL_BACK, "")
        assert (await fleet.show(older)).state is RolloutState.SUCCEEDED
        assert _versions(devices) == [3, 3]

    play(tmp_path, scenario)


def test_a_device_that_a_later_roll_back_gave_the_release_again_is_brought_back_too(tmp_path: Path) -> None:
    """It "had left": the rollout was rolled back, and the canary of the later one went on with its release."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet, "d1", "d2")
        older = await fleet.start("risk@2")
        await fleet.settle(devices)
        await fleet.register(3)
        newer = await fleet.start("risk@3", phases=CANARY)
        for device in devices:
            device.bad[await _sha256(fleet, newer)] = Behaviour.ROLLS_BACK
        await fleet.settle(devices)
        assert (await fleet.show(newer)).state is RolloutState.ROLLED_BACK
        await fleet.rollouts.command(AUTHOR, older, RolloutEvent.ROLL_BACK, "bad, too")
        await fleet.settle(devices)
        done = await fleet.show(older)
        assert (done.state, done.reason) == (RolloutState.ROLLED_BACK, "bad, too; rolled back on 2 devices")
        assert _versions(devices) == [1, 1]

    play(tmp_path, scenario)


def test_a_roll_back_that_another_rollout_stands_in_the_way_of_says_how_to_go_on(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet, "d1")
        older = await fleet.start("risk@2")
        await fleet.settle(devices)
        await fleet.register(3)
        waiting = (await fleet.rollouts.create(AUTHOR, canonical_json({"release": "risk@3"}))).rollout.id
        with pytest.raises(Conflict, match=f"rollout {waiting} of risk@3 is AWAITING_APPROVAL on 1") as refused:
            await fleet.rollouts.command(AUTHOR, older, RolloutEvent.ROLL_BACK, "")
        assert refused.value.hint == f"Abort it (`edgeward rollout abort {waiting}`) or wait for it, then roll back."

    play(tmp_path, scenario)


def test_a_roll_back_counts_only_whom_it_brought_back(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet, "d1", "d2")
        older = await fleet.start("risk@2")
        await fleet.settle(devices)
        await fleet.register(3)
        await fleet.start("risk@3", target={"devices": ["d1"]})
        await fleet.settle(devices)
        await fleet.rollouts.command(AUTHOR, older, RolloutEvent.ROLL_BACK, "bad")
        await fleet.settle(devices)
        done = await fleet.show(older)
        assert (done.state, done.reason) == (RolloutState.ROLLED_BACK, "bad; rolled back on 1 device; 1 has left")
        assert _versions(devices) == [3, 1]

    play(tmp_path, scenario)


def test_only_an_unfinished_rollout_of_the_model_is_superseded(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
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
        devices = await _on_version_1(fleet)
        await fleet.register(3)
        older = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await _canary_of(fleet, older, devices)
        others: list[JsonValue] = [device.id for device in devices if device is not canary]
        with pytest.raises(Conflict, match=rf"has offered risk@2, it lacks 1 \({canary.id}\)"):
            await fleet.start("risk@3", supersedes=older, target={"devices": others})
        await fleet.start("risk@3", supersedes=older, target={"devices": [canary.id]})
        assert (await fleet.show(older)).state is RolloutState.SUPERSEDED

    play(tmp_path, scenario)


def test_what_the_older_rollout_offers_before_the_approval_must_be_reached_too(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
        await fleet.register(3)
        older = await fleet.start("risk@2", phases=[{"name": "one", "devices": 1}, {"name": "all", "percent": 100}])
        await fleet.tick()
        canary = await _canary_of(fleet, older, devices)
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
        devices = await _on_version_1(fleet, "d1")
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
        await _on_version_1(fleet)
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
        await _on_version_1(fleet)
        made = (await fleet.rollouts.create(AUTHOR, canonical_json({"release": "risk@2"}))).rollout
        await fleet.tick(after_s=timedelta(days=30).total_seconds())
        done = await fleet.show(made.id)
        assert (done.state, done.reason) == (RolloutState.EXPIRED, "nobody approved it within 30 days")

    play(tmp_path, scenario)


def test_a_rollout_waits_for_its_hour(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
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
        await _on_version_1(fleet)
        for spec, error, words in BAD_SPECS:
            with pytest.raises(error, match=words):
                await fleet.rollouts.create(AUTHOR, canonical_json(spec))
        assert len(await fleet.rollouts.page(model=None, before=None, limit=10)) == 1
        with pytest.raises(NotFound, match="expected a rollout, there is no 'r-nothing'"):
            await fleet.show(RolloutId("r-nothing"))

    play(tmp_path, scenario)


def test_who_did_what_stands_in_the_audit_log_and_on_the_timeline(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await _on_version_1(fleet)
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
        devices = await _on_version_1(fleet)
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
        device = (await _on_version_1(fleet, "d1"))[0]
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
        devices = await _on_version_1(fleet, "d1", "d2")
        devices[0].generation = MAX_GENERATION
        await devices[0].turn()
        rollout = await fleet.start("risk@2")
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED

    play(tmp_path, scenario)


def test_a_report_that_could_not_be_read_again_is_refused_and_the_next_one_is_taken(tmp_path: Path) -> None:
    """What is short on the wire may be long in full; stored, it would lie in the way of every later report."""

    async def scenario(fleet: Rehearsal) -> None:
        (device,) = await _on_version_1(fleet, "d1")
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
        devices = await _on_version_1(fleet, "d1")
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
