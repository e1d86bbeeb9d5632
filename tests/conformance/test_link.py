"""What every way to the fleet must do, whatever carries it.

A new link adds its harness to the fixture `harness` and changes no test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from edgeward_agent.errors import LinkLost, LinkRefused
from edgeward_contract.record import MAX_BATCH_RECORDS, Batch, VerdictStatus
from support.link import (
    LinkHarness,
    MemoryHarness,
    Scenario,
    batch,
    desired_state,
    largest_batch,
    record,
    reported_state,
)
from support.link_fleet import FleetHarness, OpenFleet, open_fleet
from support.link_https import StubHarness
from support.link_mqtt import MqttFleet, MqttHarness, open_mqtt_fleet

Play = Callable[[Scenario], None]

ADAPTERS = ("memory", "https", "https to the real fleet", "mqtt", "mqtt over websockets")
SOON_S = 5.0  # for what must happen at once


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenFleet]:
    with open_fleet(tmp_path_factory.mktemp("fleet")) as opened:
        yield opened


@pytest.fixture(scope="module")
def mqtt_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttFleet]:
    with open_mqtt_fleet(tmp_path_factory.mktemp("fleet")) as opened:
        yield opened


@pytest.fixture(params=ADAPTERS)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractAsyncContextManager[LinkHarness]:
    if request.param == "memory":
        return MemoryHarness()
    if request.param == "https":
        return StubHarness(tmp_path)
    if request.param.startswith("mqtt"):
        return MqttHarness(request.getfixturevalue("mqtt_fleet"), websockets="websockets" in request.param)
    return FleetHarness(request.getfixturevalue("fleet"))


@pytest.fixture
def play(harness: AbstractAsyncContextManager[LinkHarness]) -> Play:
    """Run a scenario against a fresh device and link."""

    async def act(scenario: Scenario) -> None:
        async with asyncio.timeout(60), harness as opened:
            await scenario(opened)

    return lambda scenario: asyncio.run(act(scenario))


def test_what_is_wanted_already_comes_at_once_and_unchanged(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        await fleet.set_desired(desired_state(3))
        assert await asyncio.wait_for(fleet.link.next_desired(0), SOON_S) == desired_state(3)

    play(scenario)


def test_a_waiting_device_hears_of_a_change_at_once(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        await fleet.set_desired(desired_state(1))
        waiting = asyncio.create_task(fleet.link.next_desired(1))
        await never_done(waiting)
        await fleet.set_desired(desired_state(2))
        assert (await asyncio.wait_for(waiting, SOON_S)).generation == 2

    play(scenario)


def test_the_newest_generation_wins_and_an_older_one_is_not_heard(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        for generation in (2, 4, 3):
            await fleet.set_desired(desired_state(generation))
        heard = 0
        while heard < 4:  # a broker may still hold the one before when the device comes
            heard = (await asyncio.wait_for(fleet.link.next_desired(heard), SOON_S)).generation
            assert heard in (2, 4)
        waiting = asyncio.create_task(fleet.link.next_desired(4))
        await fleet.set_desired(desired_state(1))
        await never_done(waiting)
        await fleet.set_desired(desired_state(5))
        assert (await asyncio.wait_for(waiting, SOON_S)).generation == 5

    play(scenario)


def test_a_report_arrives_whole_and_may_be_sent_again(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        for sequence in (1, 2, 2):
            await fleet.link.report(reported_state(sequence))
        assert (await fleet.reports())[-1] == reported_state(2)

    play(scenario)


def test_every_record_gets_a_verdict_and_is_committed_by_then(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        acknowledgement = await fleet.link.deliver(batch(1, 2, 3, batch_id="b-7"))
        assert acknowledgement.batch_id == "b-7"
        verdicts = {(each.epoch, each.sequence): each.status for each in acknowledgement.verdicts}
        assert verdicts == {("e1", n): VerdictStatus.ACCEPTED for n in (1, 2, 3)}
        assert sorted(await fleet.records()) == [("e1", 1), ("e1", 2), ("e1", 3)]

    play(scenario)


def test_records_that_come_twice_are_kept_once(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        await fleet.link.deliver(batch(1, 2, batch_id="b-1"))
        again = await fleet.link.deliver(batch(1, 2, 3, batch_id="b-2"))
        statuses = [each.status for each in again.verdicts]
        assert statuses == [VerdictStatus.DUPLICATE, VerdictStatus.DUPLICATE, VerdictStatus.ACCEPTED]
        assert sorted(await fleet.records()) == [("e1", 1), ("e1", 2), ("e1", 3)]

    play(scenario)


def test_a_lost_answer_is_a_lost_link_and_sending_again_loses_and_doubles_nothing(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        await fleet.link.report(reported_state(1))
        await fleet.lose_next_answer()
        with pytest.raises(LinkLost):
            await fleet.link.deliver(batch(1, 2))
        again = await fleet.link.deliver(batch(1, 2))
        assert {each.status for each in again.verdicts} == {VerdictStatus.DUPLICATE}
        assert sorted(await fleet.records()) == [("e1", 1), ("e1", 2)]

    play(scenario)


def test_the_same_number_with_other_content_is_a_conflict(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        await fleet.link.deliver(batch(1))
        again = await fleet.link.deliver(batch(1, padding_bytes=1))
        assert [each.status for each in again.verdicts] == [VerdictStatus.CONFLICT]
        assert list(await fleet.records()) == [("e1", 1)]

    play(scenario)


def test_without_a_fleet_every_call_is_lost_and_a_waiting_one_is_cut(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        waiting = asyncio.create_task(fleet.link.next_desired(0))
        await never_done(waiting)
        await fleet.go_offline()
        with pytest.raises(LinkLost):
            await asyncio.wait_for(waiting, SOON_S)
        for call in (fleet.link.next_desired(0), fleet.link.report(reported_state(1)), fleet.link.deliver(batch(1))):
            with pytest.raises(LinkLost):
                await asyncio.wait_for(call, SOON_S)
        assert not await fleet.records()

    play(scenario)


def test_after_an_outage_the_same_link_goes_on(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        await fleet.link.deliver(batch(1))
        await fleet.go_offline()
        with pytest.raises(LinkLost):
            await fleet.link.deliver(batch(2))
        await fleet.set_desired(desired_state(1))
        await fleet.come_back()
        assert (await fleet.link.next_desired(0)).generation == 1
        assert (await fleet.link.deliver(batch(2))).verdicts[0].status is VerdictStatus.ACCEPTED
        await fleet.link.report(reported_state(1))

    play(scenario)


def test_the_largest_batch_goes_through(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        assert fleet.link.max_batch_bytes == fleet.limit_bytes
        largest = largest_batch(fleet.link.max_batch_bytes)
        assert len((await fleet.link.deliver(largest)).verdicts) == len(largest.records)

    play(scenario)


def test_a_batch_above_the_limit_is_refused_and_blocks_nothing(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        too_many = Batch(batch_id="b", records=tuple(record(n) for n in range(1, MAX_BATCH_RECORDS + 2)))
        with pytest.raises(LinkRefused):
            await fleet.link.deliver(too_many)
        assert not await fleet.records()
        assert (await fleet.link.deliver(batch(1))).verdicts[0].status is VerdictStatus.ACCEPTED

    play(scenario)


def test_later_carries_the_fleets_own_wish(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        await fleet.answer_later(17)
        with pytest.raises(LinkLost) as lost:
            await fleet.link.deliver(batch(1))
        assert lost.value.retry_after_s == 17
        await fleet.come_back()
        await fleet.link.deliver(batch(1))

    play(scenario)


def test_a_device_that_is_not_wanted_is_refused_and_its_waiting_call_is_cut(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        waiting = asyncio.create_task(fleet.link.next_desired(0))
        await never_done(waiting)
        await fleet.refuse()
        with pytest.raises(LinkRefused):
            await asyncio.wait_for(waiting, SOON_S)
        for call in (fleet.link.next_desired(0), fleet.link.report(reported_state(1)), fleet.link.deliver(batch(1))):
            with pytest.raises(LinkRefused):
                await asyncio.wait_for(call, SOON_S)
        assert not await fleet.records()

    play(scenario)


def test_closing_ends_what_waits_and_nothing_begins_after_it(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        waiting = asyncio.create_task(fleet.link.next_desired(0))
        await never_done(waiting)
        await fleet.link.aclose()
        with pytest.raises(LinkLost):
            await asyncio.wait_for(waiting, SOON_S)
        for call in (fleet.link.next_desired(0), fleet.link.report(reported_state(1)), fleet.link.deliver(batch(1))):
            with pytest.raises(LinkLost):
                await asyncio.wait_for(call, SOON_S)
        await fleet.link.aclose()

    play(scenario)


def test_a_call_that_is_cancelled_leaves_the_link_as_it_was(play: Play) -> None:
    async def scenario(fleet: LinkHarness) -> None:
        waiting = asyncio.create_task(fleet.link.next_desired(0))
        await never_done(waiting)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await fleet.set_desired(desired_state(1))
        assert (await asyncio.wait_for(fleet.link.next_desired(0), SOON_S)).generation == 1
        await fleet.link.report(reported_state(1))

    play(scenario)


async def never_done(waiting: asyncio.Task[object]) -> None:
    """Give a call that must wait the time in which it would have come back."""
    done, _ = await asyncio.wait((waiting,), timeout=0.3)
    assert not done, waiting.exception()
