"""Rollouts on a real PostgreSQL, whose transactions run side by side: what comes in between changes no outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from edgeward_contract.schema import JsonValue, canonical_json
from edgeward_fleet.errors import Conflict
from edgeward_fleet.rollouts import acting, observing, stepping
from edgeward_fleet.rollouts.machine import RolloutEvent, RolloutState
from edgeward_fleet.rollouts.model import Back, RolloutId
from edgeward_fleet.rollouts.service import RolloutRecord
from edgeward_fleet.states.reported import reported_of
from support.postgresql import postgresql, rehearsal_on
from support.rehearsal import AUTHOR, MODEL, Rehearsal, SimulatedDevice

T = TypeVar("T")
_ALL: JsonValue = [{"name": "all", "percent": 100}]
_WAITS = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql() as url:
        yield url


@pytest.fixture
def fleet(server: str, tmp_path: Path) -> Iterator[Rehearsal]:
    with rehearsal_on(server, tmp_path) as made:
        yield made


async def _on_version_1(fleet: Rehearsal, *names: str) -> list[SimulatedDevice]:
    devices = fleet.enrol(*names)
    await fleet.register(1)
    await fleet.register(2)
    await fleet.start("risk@1", phases=_ALL)
    await fleet.settle(devices)
    return devices


async def _offered(fleet: Rehearsal) -> RolloutId:
    rollout = await fleet.start("risk@2", phases=_ALL)
    await fleet.tick()
    return rollout


async def _newest(fleet: Rehearsal) -> RolloutId:
    return (await fleet.rollouts.page(model=None, before=None, limit=1))[0].rollout.id


def _between(
    monkeypatch: pytest.MonkeyPatch,
    fleet: Rehearsal,
    where: object,
    name: str,
    what: Callable[[], Coroutine[None, None, T]],
) -> Callable[[], Awaitable[T]]:
    """Let `what` begin once, when `name` has been asked, and go on when it is done or has to wait."""
    real, loop = getattr(where, name), asyncio.get_running_loop()
    begun: list[asyncio.Future[T]] = []

    def patched(*given: object) -> object:
        answer = real(*given)
        monkeypatch.setattr(where, name, real)
        future = asyncio.run_coroutine_threadsafe(what(), loop)
        begun.append(asyncio.wrap_future(future, loop=loop))
        while not future.done() and not fleet.database.run_sync(_waits):
            pass
        return answer

    monkeypatch.setattr(where, name, patched)
    return lambda: begun[0]


def _waits(session: Session) -> bool:
    return bool(session.scalar(_WAITS))


def test_a_report_and_a_roll_back_at_once_lose_neither(fleet: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report would write what it had read before the device was asked back, and that had never happened."""

    async def scenario() -> None:
        (device,) = await _on_version_1(fleet, "d1")
        rollout = await _offered(fleet)
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "bad")
        tick = _between(monkeypatch, fleet, observing, "observe", fleet.tick)
        await device.turn()
        await tick()
        await fleet.tick()
        assert [each.back for each in (await fleet.show(rollout)).devices] == [Back.ASKED]
        await fleet.settle([device])
        done = await fleet.show(rollout)
        assert (done.state, done.reason) == (RolloutState.ROLLED_BACK, "bad; rolled back on 1 device")

    asyncio.run(scenario())


def test_of_several_who_ask_at_once_one_is_given_the_devices(fleet: Rehearsal) -> None:
    async def scenario() -> None:
        await _on_version_1(fleet, "d1")
        spec = canonical_json({"release": "risk@2"})
        asked = await asyncio.gather(*(fleet.rollouts.create(AUTHOR, spec) for _ in range(4)), return_exceptions=True)
        made = [each for each in asked if isinstance(each, RolloutRecord)]
        refused = [each for each in asked if isinstance(each, Conflict)]
        assert (len(made), len(refused)) == (1, 3)

    asyncio.run(scenario())


def test_what_is_fetched_while_a_roll_back_begins_is_asked_back(
    fleet: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted as never fetched: the rollout was rolled back while the device installed the release."""

    async def scenario() -> None:
        (device,) = await _on_version_1(fleet, "d1")
        rollout = await _offered(fleet)
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "bad")
        fetch = _between(monkeypatch, fleet, stepping, "apply", lambda: device.link.desired_now(device.generation))
        await fleet.tick()
        offer = await fetch()
        assert offer is not None and offer.models[MODEL].release.version == 2
        assert [each.back for each in (await fleet.show(rollout)).devices] == [Back.ASKED]

    asyncio.run(scenario())


def test_what_is_given_out_is_what_is_noted(fleet: Rehearsal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next generation came between the two: the device had it, and the fleet did not know."""

    async def scenario() -> None:
        (device,) = await _on_version_1(fleet, "d1")
        await _offered(fleet)
        rollout = await fleet.start("risk@1", supersedes=(await _newest(fleet)))
        fetch = _between(monkeypatch, fleet, acting, "_former", lambda: device.link.desired_now(device.generation))
        await fleet.tick()
        given = await fetch()
        await fleet.rollouts.command(AUTHOR, rollout, RolloutEvent.ROLL_BACK, "bad")
        await fleet.tick()
        (seen,) = (await fleet.show(rollout)).devices
        assert given is not None
        assert seen.back is (Back.ASKED if given.generation >= seen.generation else Back.NEVER_TOOK)

    asyncio.run(scenario())


def test_of_reports_at_once_the_newest_stays(fleet: Rehearsal) -> None:
    """A device that lost an answer sends again: the first two of all were a fault, later ones went back in time."""

    async def scenario() -> None:
        devices = fleet.enrol("d1", "d2", "d3")
        for device in [*devices, *devices]:
            states = [device.state() for _ in range(6)]
            await asyncio.gather(*(device.link.report(each) for each in states))
        for device in devices:
            newest = await fleet.database.run(lambda session, name=device.id: reported_of(session, name))  # type: ignore[misc]
            assert newest is not None and newest.sequence == device.sequence

    asyncio.run(scenario())
