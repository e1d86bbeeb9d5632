"""A wait that something may end: it ends, and so does whoever is told to end while it ends."""

from __future__ import annotations

import asyncio

import pytest

from edgeward_agent.link.pausing import pause, sleep_or
from support.outbox import ImpatientClock


class _Patient(ImpatientClock):
    """Sleeps until it is cancelled."""

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.Event().wait()


def test_the_time_or_the_event_ends_it() -> None:
    async def main() -> None:
        event = asyncio.Event()
        await sleep_or(ImpatientClock(), 5, event)
        waiting = asyncio.create_task(sleep_or(_Patient(), 5, event))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        event.set()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


def test_only_what_happens_from_now_on_ends_a_pause() -> None:
    async def main() -> None:
        nudged = asyncio.Event()
        nudged.set()
        waiting = asyncio.create_task(pause(_Patient(), 5, nudged=nudged))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        nudged.set()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(main())


@pytest.mark.parametrize("turns", range(8))
def test_who_is_cancelled_in_any_turn_ends(turns: int) -> None:
    """It once took the cancellation for that of its own waiters, and the agent did not stop."""

    async def main() -> None:
        clock, event = ImpatientClock(), asyncio.Event()

        async def work() -> None:
            while True:
                await sleep_or(clock, 1, event)

        working = asyncio.create_task(work())
        for _ in range(20 + turns):
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.wait([working], timeout=5)
        assert working.cancelled()

    asyncio.run(main())
