"""Whole rollouts on the fleet's own services, with devices that take, refuse, fall back, stall or say nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from edgeward_contract.schema import JsonValue
from edgeward_contract.traffic import Traffic
from edgeward_fleet.clock import rfc3339
from edgeward_fleet.db.schema import SettingRow
from edgeward_fleet.rollouts.machine import PhaseStep, RolloutEvent, RolloutState
from edgeward_fleet.rollouts.model import Back, Standing
from edgeward_fleet.rollouts.stepping import step
from edgeward_fleet.rollouts.ticker import Ticker
from support.rehearsal import (
    APPROVER,
    AUTHOR,
    CANARY,
    Behaviour,
    Rehearsal,
    canary_of,
    on_version_1,
    play,
    sha256_in,
    versions_of,
)
from support.waiting import eventually


def test_a_good_release_reaches_everybody_phase_by_phase(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await canary_of(fleet, rollout, devices)
        for device in devices:
            await device.turn()
        assert sorted(versions_of(devices)) == [1, 1, 1, 1, 2]
        await fleet.tick()
        assert (await fleet.show(rollout)).step is PhaseStep.SOAKING
        await fleet.tick(after_s=29)
        assert (await fleet.show(rollout)).phase == 0
        await fleet.tick(after_s=2)
        assert (await fleet.show(rollout)).phase == 1
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.SUCCEEDED
        assert versions_of(devices) == [2] * 5
        assert "4 of 4 devices of phase 'everyone' succeeded" in done.reason
        assert canary.update is not None

    play(tmp_path, scenario)


def test_a_release_that_the_canary_refuses_reaches_nobody_else(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        for device in devices:
            device.bad[await sha256_in(fleet, rollout)] = Behaviour.REJECTS
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.ROLLED_BACK
        assert done.reason == (
            "1 of 1 device of phase 'canary' failed (golden_mismatch); at most 0 % may; rolled back on 1 device"
        )
        assert sum(device.offered for device in done.devices) == 1
        assert versions_of(devices) == [1] * 5

    play(tmp_path, scenario)


def test_a_release_that_fails_late_is_taken_back_from_everybody(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await canary_of(fleet, rollout, devices)
        await canary.turn()
        await fleet.tick()
        await fleet.tick(after_s=31)
        last = next(device for device in devices if device is not canary)
        last.bad[await sha256_in(fleet, rollout)] = Behaviour.ROLLS_BACK
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.ROLLED_BACK
        assert {device.back for device in done.devices} == {Back.PROVEN}
        assert versions_of(devices) == [1] * 5

    play(tmp_path, scenario)


def test_errors_under_load_take_a_release_back_while_it_soaks(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await canary_of(fleet, rollout, devices)
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
        assert versions_of(devices) == [1] * 5

    play(tmp_path, scenario)


def test_what_was_seen_is_what_is_judged_also_by_a_fleet_that_is_killed_in_between(tmp_path: Path) -> None:
    """The breach was one decision and its consequence the next: a report between them let the phase pass, unsoaked."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await canary_of(fleet, rollout, devices)
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
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await canary_of(fleet, rollout, devices)
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
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=phases)
        await fleet.tick()
        canary = await canary_of(fleet, rollout, devices)
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
        devices = await on_version_1(fleet)
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
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await canary_of(fleet, rollout, devices)
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
        assert versions_of(devices) == [2] * 5

    play(tmp_path, scenario)


def test_a_stalled_device_is_at_work_until_the_phase_times_out(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
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
        devices = await on_version_1(fleet)
        devices[0].behaviour = Behaviour.SILENT
        rollout = await fleet.start(
            "risk@2", phases=[{"name": "all", "percent": 100}], gates={"min_success_percent": 80}
        )
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED

    play(tmp_path, scenario)


def test_a_resume_offers_the_release_again_to_a_device_that_was_mended(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY, on_failure="pause")
        sha256 = await sha256_in(fleet, rollout)
        await fleet.tick()
        canary = await canary_of(fleet, rollout, devices)
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


def test_a_pause_offers_to_nobody_else_and_a_resume_goes_on(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.PAUSE, "lunch")
        await fleet.settle(devices)
        assert sorted(versions_of(devices)) == [1, 1, 1, 1, 2]
        assert (await fleet.show(rollout)).state is RolloutState.PAUSED
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "")
        await fleet.settle(devices)
        assert versions_of(devices) == [2] * 5

    play(tmp_path, scenario)


def test_a_joiner_enters_the_last_phase_and_never_the_canary(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        devices += fleet.enrol("joiner")
        await fleet.tick()
        joined = next(each for each in (await fleet.show(rollout)).devices if each.device == "joiner")
        assert (joined.phase, joined.counted, joined.standing) == (1, True, Standing.WAITING)
        await fleet.settle(devices)
        assert versions_of(devices) == [2] * 6

    play(tmp_path, scenario)


def test_who_joins_when_the_last_phase_is_open_is_served_outside_its_count(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
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
        devices = await on_version_1(fleet)
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
        devices = await on_version_1(fleet, "d1", "d2")
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
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=[{"name": "all", "percent": 100}], on_failure="pause")
        devices[3].bad[await sha256_in(fleet, rollout)] = Behaviour.REJECTS
        await fleet.settle(devices)
        fleet.revoke("d4")
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.RESUME, "d4 is scrap")
        await fleet.settle(devices[:3] + devices[4:])
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED

    play(tmp_path, scenario)


def test_a_device_revoked_before_its_turn_leaves_the_count(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.tick()
        canary = await canary_of(fleet, rollout, devices)
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
        devices = await on_version_1(fleet)
        gates: JsonValue = {"min_success_percent": min_success_percent}
        rollout = await fleet.start("risk@2", phases=CANARY, gates=gates)
        canary = await canary_of(fleet, rollout, devices)
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
        assert sorted(versions_of(devices)) == [1] * 5

    play(tmp_path, scenario)


def test_a_resume_after_errors_judges_only_what_comes_after_it(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
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
        devices = await on_version_1(fleet)
        seen = [len(device.fetched) for device in devices]
        rollout = await fleet.start("risk@1")
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert done.state is RolloutState.SUCCEEDED
        assert {device.standing for device in done.devices} == {Standing.ALREADY}
        assert [len(device.fetched) for device in devices] == seen
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "")
        await fleet.settle(devices)
        assert versions_of(devices) == [1] * 5

    play(tmp_path, scenario)
