"""A wait between two tries that ends early when somebody has seen that the link works."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from edgeward_agent.clock import Clock


async def pause(clock: Clock, wait_s: float, *, nudged: asyncio.Event | None) -> None:
    """Wait so long, or until `nudged` is set anew; pass None to wait out what the fleet itself has asked for."""
    if nudged is None:
        await clock.sleep(wait_s)
        return
    nudged.clear()
    waiters = [asyncio.ensure_future(clock.sleep(wait_s)), asyncio.ensure_future(nudged.wait())]
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiters:
            each.cancel()
            with suppress(asyncio.CancelledError):
                await each
