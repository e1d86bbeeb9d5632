"""What *Fleet* reads of the database: nothing that wants a person is lost behind what is newer."""

from __future__ import annotations

from pathlib import Path

from edgeward_contract.schema import JsonValue
from edgeward_fleet.dashboard.pages.fleet import overview
from edgeward_fleet.dashboard.queries.devices import astray
from edgeward_fleet.dashboard.views.fleet import FleetView, fleet_view
from edgeward_fleet.rollouts.machine import RolloutEvent, RolloutState
from edgeward_fleet.rollouts.model import RolloutId
from edgeward_fleet.settings import Settings
from support.rehearsal import APPROVER, Rehearsal, play

MANY = 10


def test_a_rollout_that_wants_a_person_is_named_however_many_are_newer(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        names = [f"bed-{number}" for number in range(MANY + 2)]
        fleet.enrol(*names)
        await fleet.register(1)
        paused, taken_back, *newer = [await one_device(fleet, each) for each in names]
        await fleet.tick()
        await fleet.rollouts.command(APPROVER, paused, RolloutEvent.PAUSE, "lunch")
        await fleet.rollouts.command(APPROVER, taken_back, RolloutEvent.ROLL_BACK, "")
        await fleet.tick(after_s=1)
        assert {each.title for each in shown(fleet, tmp_path).attention} >= {
            "Rollout of risk@1 is paused",
            "Rollout of risk@1 was taken back",
        }
        for each in newer:
            await fleet.rollouts.command(APPROVER, each, RolloutEvent.ABORT, "")
        await fleet.tick(after_s=1)
        assert "Rollout of risk@1 was taken back" in {each.title for each in shown(fleet, tmp_path).attention}

    play(tmp_path, scenario)


def test_the_last_that_ended_is_shown_although_it_was_asked_for_first(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        names = [f"bed-{number}" for number in range(5)]
        fleet.enrol(*names)
        await fleet.register(1)
        oldest, *others = [await one_device(fleet, each) for each in names]
        for each in (*others, oldest):
            await fleet.rollouts.command(APPROVER, each, RolloutEvent.ABORT, "")
            await fleet.tick(after_s=1)
        assert shown(fleet, tmp_path).rollouts[0].id == oldest

    play(tmp_path, scenario)


def test_a_device_that_does_not_mention_its_model_does_not_run_it(tmp_path: Path) -> None:
    """It had none before, and the rollout went on without it."""

    async def scenario(fleet: Rehearsal) -> None:
        takes, passed_over = fleet.enrol("bed-1", "bed-2")
        await fleet.register(1)
        await passed_over.link.report(passed_over.state())
        everyone: list[JsonValue] = [{"name": "everyone", "percent": 100}]
        rollout = await fleet.start(phases=everyone, gates={"min_success_percent": 50})
        await fleet.tick()
        assert fleet.database.run_sync(astray) == frozenset()  # its rollout is under way
        await fleet.settle([takes])
        assert (await fleet.show(rollout)).state is RolloutState.SUCCEEDED
        assert fleet.database.run_sync(astray) == {"bed-2"}

    play(tmp_path, scenario)


async def one_device(fleet: Rehearsal, name: str) -> RolloutId:
    fleet.clock.pass_s(1)
    return await fleet.start(target={"devices": [name]})


def shown(fleet: Rehearsal, folder: Path) -> FleetView:
    now = fleet.clock()
    seen = fleet.database.run_sync(lambda session: overview(session, Settings(data_dir=folder), now))
    return fleet_view(seen, now)
