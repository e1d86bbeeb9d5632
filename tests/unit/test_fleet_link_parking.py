"""Parked polls: many cost little, news wakes the right one, and nothing is missed on the way to sleep."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId, ReleaseRef
from edgeward_contract.desired import DesiredModel, DesiredState
from edgeward_fleet.errors import Conflict, Forbidden
from edgeward_fleet.link.parking import parked
from edgeward_fleet.states import desired
from edgeward_fleet.wakeups import Wakeups
from support.rehearsal import MODEL, Rehearsal, play
from support.waiting import eventually


async def _want(fleet: Rehearsal, device: str, deployment: str = "d-1") -> DesiredState:
    release = await fleet.register(1)
    wanted = DesiredModel(release=ReleaseRef(MODEL, 1), sha256=release.sha256, deployment=deployment)
    change = await fleet.database.run(
        lambda session: desired.set_model(session, DeviceId(device), MODEL, wanted, now=fleet.clock())
    )
    fleet.wakeups.notify(DeviceId(device))
    return change.state


def _poll(fleet: Rehearsal, device: str, after: int = 0, wait_s: float = 30.0) -> asyncio.Task[bytes | None]:
    return asyncio.create_task(parked(fleet.inbound, fleet.wakeups, DeviceId(device), after, wait_s))


def test_1200_parked_polls_cost_no_transaction_and_one_wakes(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        names = [f"d{number}" for number in range(1200)]
        fleet.enrol(*names)
        polls = [_poll(fleet, name) for name in names]
        await eventually(lambda: len(fleet.wakeups._watches) == 1200, "all polls to be parked")
        await fleet.database.run(lambda _: None)
        state = await _want(fleet, "d7")
        assert await polls[7] == state.canonical()
        cpu = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - cpu < 0.2, "expected parked polls to cost nothing"
        assert sum(poll.done() for poll in polls) == 1
        fleet.wakeups.close()
        assert await asyncio.gather(*polls[:7], *polls[8:]) == [None] * 1199

    play(tmp_path, scenario)


def test_a_poll_that_waits_in_vain_ends_in_time(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        fleet.enrol("d1")
        assert await _poll(fleet, "d1", wait_s=0.05) is None

    play(tmp_path, scenario)


def test_a_device_that_knows_nothing_may_ask_for_the_empty_state(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        fleet.enrol("d1")
        document = await _poll(fleet, "d1", after=-1)
        assert document == DesiredState(generation=0).canonical()

    play(tmp_path, scenario)


def test_who_is_refused_while_parked_is_told_at_once(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        fleet.enrol("d1")
        allowed = True

        def check(_session: Session, _now: object) -> None:
            if not allowed:
                raise Forbidden("no more")

        poll = asyncio.create_task(parked(fleet.inbound, fleet.wakeups, DeviceId("d1"), 0, 30.0, check))
        await eventually(lambda: bool(fleet.wakeups._watches), "the poll to be parked")
        allowed = False
        fleet.wakeups.notify(DeviceId("d1"))
        with pytest.raises(Forbidden):
            await asyncio.wait_for(poll, 5)

    play(tmp_path, scenario)


def test_who_asks_again_what_was_asked_in_vain_costs_no_transaction_and_misses_nothing(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        fleet.enrol("d1")
        looks = 0

        def check(_session: Session, _now: object) -> None:
            nonlocal looks
            looks += 1

        def poll(after: int, wait_s: float) -> asyncio.Task[bytes | None]:
            return asyncio.create_task(parked(fleet.inbound, fleet.wakeups, DeviceId("d1"), after, wait_s, check))

        assert await poll(0, 0.05) is None
        assert looks == 1
        assert await poll(0, 0.05) is None
        assert looks == 1
        state = await _want(fleet, "d1")  # while nobody listens
        assert await poll(0, 30.0) == state.canonical()
        assert await poll(1, 0.05) is None
        assert await poll(0, 30.0) == state.canonical(), "expected the state again: it has forgotten it"

    play(tmp_path, scenario)


def test_news_in_the_moment_that_a_poll_ends_is_not_forgotten() -> None:
    async def scenario() -> None:
        wakeups = Wakeups(hears_all=True)
        device = DeviceId("d1")
        with wakeups.watch(device) as watch:
            assert not await watch.wait(0.0)
            wakeups.notify(device)
            wakeups.settle(device, 3, watch)
            assert not wakeups.is_settled(device, 3)
        with wakeups.watch(device) as watch:
            wakeups.settle(device, 3, watch)
            assert wakeups.is_settled(device, 3) and not wakeups.is_settled(device, 2)
            wakeups.notify(device)
            assert not wakeups.is_settled(device, 3)

    asyncio.run(scenario())


def test_generations_grow_and_a_model_can_be_taken_away(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        fleet.enrol("d1")
        first = await _want(fleet, "d1")
        second = await _want(fleet, "d1", "d-2")
        assert (first.generation, second.generation) == (1, 2)
        gone = await fleet.database.run(
            lambda session: desired.set_model(session, DeviceId("d1"), MODEL, None, now=fleet.clock())
        )
        assert (gone.state.generation, dict(gone.state.models)) == (3, {})

    play(tmp_path, scenario)


def test_a_state_that_its_narrowest_carrier_could_not_hold_is_refused(tmp_path: Path) -> None:
    async def scenario(fleet: Rehearsal) -> None:
        fleet.enrol("d1")
        with pytest.raises(
            Conflict, match=r"device d1: its desired state would not fit: models: expected at most 3000"
        ):
            await _want(fleet, "d1", "d" * 3000)

    play(tmp_path, scenario)
