"""The worker that moves rollouts on: when a report arrives, when a person commands, and each second for the clocks.

It keeps nothing in memory, so a fleet that is killed goes on where the database says it was.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from edgeward_fleet.errors import DatabaseError
from edgeward_fleet.rollouts.service import Rollouts
from edgeward_fleet.rollouts.watching import NOTED_EACH_S

_REST: Final = 4.0
_log: Final = logging.getLogger(__name__)


class Ticker:
    """One task. `wake` may be called as often as one likes; what comes while a tick runs makes one more."""

    def __init__(self, rollouts: Rollouts, *, interval_s: float) -> None:
        self._rollouts: Final = rollouts
        self._interval_s: Final = interval_s
        self._due: Final = asyncio.Event()

    def wake(self) -> None:
        """From the event loop's thread."""
        self._due.set()

    async def run(self) -> None:
        """Until cancelled. A database that does not answer is tried again; a bug ends the process.

        Whatever else is wrong with one rollout pauses that one: see `Rollouts.tick`.
        """
        clock = asyncio.get_running_loop().time
        noted_s = -NOTED_EACH_S
        while True:
            self._due.clear()
            began_s = clock()
            try:
                if began_s - noted_s >= NOTED_EACH_S:
                    await self._rollouts.watch()
                    noted_s = began_s
                await self._rollouts.tick()
            except DatabaseError as error:
                noted_s = -NOTED_EACH_S  # once it answers again, the first question is for how long it did not
                _log.error("rollouts stand still: %s", error)
            await self._pause(clock() - began_s)

    async def _pause(self, took_s: float) -> None:
        """Several times as long as the tick took: a thousand reports in a row must find the database free, too."""
        await asyncio.sleep(min(_REST * took_s, self._interval_s))
        try:
            await asyncio.wait_for(self._due.wait(), self._interval_s)
        except TimeoutError:
            return
