"""Ways back: roll-backs and aborts, proven, incomplete, refused, and across rollouts that follow one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeward_contract.schema import JsonValue, canonical_json
from edgeward_fleet.errors import Conflict
from edgeward_fleet.rollouts.machine import RolloutEvent, RolloutState
from edgeward_fleet.rollouts.model import Back
from support.rehearsal import (
    AUTHOR,
    CANARY,
    MODEL,
    Behaviour,
    Rehearsal,
    on_version_1,
    play,
    sha256_in,
    versions_of,
)


def test_a_rollout_that_succeeded_can_still_be_rolled_back(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        rollout = await fleet.start("risk@2", phases=CANARY)
        await fleet.settle(devices)
        assert versions_of(devices) == [2] * 5
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "clinicians disagree with it")
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert (done.state, done.reason) == (
            RolloutState.ROLLED_BACK,
            "clinicians disagree with it; rolled back on 5 devices",
        )
        assert versions_of(devices) == [1] * 5

    play(tmp_path, scenario)


def test_a_roll_back_without_proof_is_incomplete_until_the_last_device_comes_home(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
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
        assert versions_of(devices) == [1] * 5

    play(tmp_path, scenario)


def test_a_device_that_never_fetched_the_offer_needs_no_proof_of_its_return(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
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
        assert versions_of(devices) == [1] * 5
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
        assert versions_of(devices) == [0, 0]

    play(tmp_path, scenario)


def test_an_abort_withdraws_what_is_not_proven_and_leaves_the_rest(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
        devices[0].behaviour = Behaviour.STALLS
        rollout = await fleet.start("risk@2", phases=[{"name": "all", "percent": 100}])
        await fleet.settle(devices)
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ABORT, "not now")
        await fleet.settle(devices)
        done = await fleet.show(rollout)
        assert (done.state, done.reason) == (RolloutState.ABORTED, "not now; withdrawn on 1 device")
        assert versions_of(devices) == [1, 2, 2, 2, 2]
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "all of it")
        await fleet.settle(devices)
        assert (await fleet.show(rollout)).state is RolloutState.ROLLED_BACK
        assert versions_of(devices) == [1] * 5

    play(tmp_path, scenario)


def test_who_comes_home_after_an_abort_is_listed_no_longer(tmp_path: Path) -> None:
    """Nobody listened any more: weeks later it was still said to run what had been withdrawn."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet, "d1", "d2")
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
        devices = await on_version_1(fleet)
        made = await fleet.rollouts.create(AUTHOR, canonical_json({"release": "risk@2"}))
        await fleet.rollouts.command(AUTHOR, made.rollout.id, RolloutEvent.ABORT, "")
        await fleet.settle(devices)
        done = await fleet.show(made.rollout.id)
        assert (done.state, done.reason) == (RolloutState.ABORTED, "asked for by olive; withdrawn on 0 devices")

    play(tmp_path, scenario)


@pytest.mark.parametrize("takes_it_late", [False, True])
def test_what_failed_on_a_device_is_not_what_it_is_given_back(tmp_path: Path, takes_it_late: bool) -> None:
    """A rollout may succeed without some devices. Asked back to what it had refused, one stayed on what was bad."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet, "d1", "d2")
        everybody: JsonValue = [{"name": "all", "percent": 100}]
        older = await fleet.start(
            "risk@2", phases=everybody, gates={"max_failed_percent": 50, "min_success_percent": 50}
        )
        devices[0].bad[await sha256_in(fleet, older)] = Behaviour.REJECTS
        await fleet.settle(devices)
        assert (await fleet.show(older)).state is RolloutState.SUCCEEDED
        assert versions_of(devices) == [1, 2]
        if takes_it_late:
            devices[0].bad.clear()
            devices[0].try_again()
            await devices[0].turn()
        await fleet.register(3)
        newer = await fleet.start("risk@3", phases=everybody)
        await fleet.settle(devices)
        assert versions_of(devices) == [3, 3]
        await fleet.rollouts.command(AUTHOR, newer, RolloutEvent.ROLL_BACK, "bad")
        await fleet.settle(devices)
        assert (await fleet.show(newer)).state is RolloutState.ROLLED_BACK
        assert versions_of(devices) == [2 if takes_it_late else 1, 2]

    play(tmp_path, scenario)


def test_a_later_rollout_takes_its_devices_out_of_an_older_roll_back(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet)
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
        assert versions_of(devices) == [3] * 5
        done = await fleet.show(older)
        assert done.state is RolloutState.ROLLED_BACK
        assert next(each for each in done.devices if each.device == "d1").back is Back.LEFT
        assert "rolled back on 4 devices; 1 has left" in done.reason

    play(tmp_path, scenario)


def test_a_roll_back_that_nobody_is_left_for_is_refused(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet, "d1", "d2")
        older = await fleet.start("risk@2")
        await fleet.settle(devices)
        await fleet.register(3)
        await fleet.start("risk@3")
        await fleet.settle(devices)
        with pytest.raises(Conflict, match="to give its former release back to, all 2 have left"):
            await fleet.rollouts.command(AUTHOR, older, RolloutEvent.ROLL_BACK, "")
        assert (await fleet.show(older)).state is RolloutState.SUCCEEDED
        assert versions_of(devices) == [3, 3]

    play(tmp_path, scenario)


def test_a_device_that_a_later_roll_back_gave_the_release_again_is_brought_back_too(tmp_path: Path) -> None:
    """It "had left": the rollout was rolled back, and the canary of the later one went on with its release."""

    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet, "d1", "d2")
        older = await fleet.start("risk@2")
        await fleet.settle(devices)
        await fleet.register(3)
        newer = await fleet.start("risk@3", phases=CANARY)
        for device in devices:
            device.bad[await sha256_in(fleet, newer)] = Behaviour.ROLLS_BACK
        await fleet.settle(devices)
        assert (await fleet.show(newer)).state is RolloutState.ROLLED_BACK
        await fleet.rollouts.command(AUTHOR, older, RolloutEvent.ROLL_BACK, "bad, too")
        await fleet.settle(devices)
        done = await fleet.show(older)
        assert (done.state, done.reason) == (RolloutState.ROLLED_BACK, "bad, too; rolled back on 2 devices")
        assert versions_of(devices) == [1, 1]

    play(tmp_path, scenario)


def test_a_roll_back_that_another_rollout_stands_in_the_way_of_says_how_to_go_on(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        devices = await on_version_1(fleet, "d1")
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
        devices = await on_version_1(fleet, "d1", "d2")
        older = await fleet.start("risk@2")
        await fleet.settle(devices)
        await fleet.register(3)
        await fleet.start("risk@3", target={"devices": ["d1"]})
        await fleet.settle(devices)
        await fleet.rollouts.command(AUTHOR, older, RolloutEvent.ROLL_BACK, "bad")
        await fleet.settle(devices)
        done = await fleet.show(older)
        assert (done.state, done.reason) == (RolloutState.ROLLED_BACK, "bad; rolled back on 1 device; 1 has left")
        assert versions_of(devices) == [3, 1]

    play(tmp_path, scenario)
