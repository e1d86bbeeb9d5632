"""Who gets how much of the fleet's room and time at a broker; without one."""

from __future__ import annotations

import asyncio
import itertools

from edgeward_contract.artifact import DeviceId
from edgeward_contract.mqtt.documents import Up
from edgeward_fleet.link.mqtt_lanes import LONGEST_OUT_S, MAX_BYTES, MAX_OF_ONE, MAX_STRIKES, Lanes, Message, Strikes

LOUD, QUIET = DeviceId("loud"), DeviceId("quiet")


def message(device: DeviceId, size_bytes: int = 1) -> Message:
    return Message(device, Up.RECORDS, b"x" * size_bytes)


def test_one_device_fills_its_share_and_leaves_the_others_theirs() -> None:
    lanes = Lanes(1)
    taken = [lanes.put(message(LOUD)) for _ in range(1000)]
    assert (taken.count(True), lanes.is_full_of(LOUD)) == (MAX_OF_ONE, True)
    assert lanes.put(message(QUIET))
    lanes.done(message(LOUD))
    assert lanes.put(message(LOUD)) and not lanes.put(message(LOUD))


def test_all_together_have_a_bound_in_bytes() -> None:
    lanes = Lanes(4)
    each = MAX_BYTES // 10
    devices = [DeviceId(f"d-{number}") for number in range(11)]
    assert [lanes.put(message(device, each)) for device in devices] == [True] * 10 + [False]
    lanes.done(message(devices[0], each))
    assert lanes.put(message(devices[10], each))


def test_what_the_fleet_wants_goes_first_and_once_and_messages_in_order() -> None:
    async def scenario() -> None:
        lanes = Lanes(1)
        first, second = message(LOUD, 1), message(LOUD, 2)
        for each in (first, second):
            assert lanes.put(each)
        for device in (QUIET, LOUD, QUIET):
            lanes.look(device)
        (lane,) = lanes.all
        assert [await lane.take() for _ in range(4)] == [QUIET, LOUD, first, second]
        waiting = asyncio.ensure_future(lane.take())
        await asyncio.sleep(0)
        assert not waiting.done()
        lanes.look(QUIET)
        assert await waiting == QUIET

    asyncio.run(scenario())


def test_who_goes_on_is_kept_out_twice_as_long_each_time() -> None:
    strikes = Strikes()
    found: list[float] = []
    for _ in range(9):
        came = [strikes.add(LOUD) for _ in range(MAX_STRIKES)]
        assert came[:-1] == [None] * (MAX_STRIKES - 1)
        assert strikes.is_out(LOUD) and not strikes.is_out(QUIET)
        assert strikes.add(LOUD) is None  # what it had sent before
        found += [each for each in came if each is not None]
        strikes.forgive(LOUD)
        assert not strikes.is_out(LOUD)
    assert found[:3] == [60.0, 120.0, 240.0]
    assert found[-1] == LONGEST_OUT_S


def test_what_comes_to_nothing_now_and_then_keeps_nobody_out() -> None:
    """A fleet stays at its broker for months: in the end every device had come to so many, and was kept out longer."""
    minutes = itertools.count()
    strikes = Strikes(lambda: next(minutes) * 60.0)
    assert [strikes.add(QUIET) for _ in range(5 * MAX_STRIKES)] == [None] * (5 * MAX_STRIKES)


def test_an_old_flood_does_not_make_the_next_one_longer() -> None:
    now = [0.0]
    strikes = Strikes(lambda: now[0])
    found = []
    for _ in range(3):
        found += [each for each in (strikes.add(LOUD) for _ in range(MAX_STRIKES)) if each]
        strikes.forgive(LOUD)
        now[0] += 90_000
    assert found == [60.0, 60.0, 60.0]
