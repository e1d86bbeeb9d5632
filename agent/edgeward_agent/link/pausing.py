"""A wait that ends early when something has happened."""

from __future__ import annotations

import asyncio

from edgeward_agent.clock import Clock


async def pause(clock: Clock, wait_s: float, *, nudged: asyncio.Event | None) -> None:
    """Wait so long, or until `nudged` is set anew; pass None to wait out what the fleet itself has asked for."""
    if nudged is None:
        await clock.sleep(wait_s)
        return
    nudged.clear()
    await sleep_or(clock, wait_s, nudged)


async def sleep_or(clock: Clock, wait_s: float, event: asyncio.Event) -> None:
    """Wait so long, or until `event` is set."""
    waiters = (asyncio.ensure_future(clock.sleep(wait_s)), asyncio.ensure_future(event.wait()))
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiters:
            each.cancel()
        # Not `await each` with its cancellation suppressed: that would take ours, and who was to end would go on.
        await asyncio.wait(waiters)
