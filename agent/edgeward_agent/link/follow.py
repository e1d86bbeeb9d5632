"""Keeps asking the fleet what it wants, however long it does not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from edgeward_agent.clock import Clock
from edgeward_agent.errors import LinkError, LinkLost
from edgeward_agent.link.backoff import delay_s
from edgeward_agent.link.pausing import pause
from edgeward_agent.ports import Link
from edgeward_contract.desired import DesiredState

_LOOK_S: Final = 5.0
_PARKED_S: Final = 300.0
"""A question that failed after so long was parked at a fleet that answered: no failure takes as long."""


class Follower(Protocol):
    """Who takes what the fleet wants."""

    @property
    def generation(self) -> int: ...

    def offer(self, desired: DesiredState) -> None: ...


async def follow_desired(
    link: Link, follower: Follower, *, clock: Clock, draw: Callable[[], float], nudged: asyncio.Event | None = None
) -> NoReturn:
    """Offer every newer desired state. A refusal is waited out too: a fleet may take a device back.

    `nudged` ends a wait early: somebody else has reached the fleet, which may have waited long for this device.
    """
    failures = 0
    while True:
        asked_s = clock.monotonic()
        try:
            desired = await _next(link, follower)
        except LinkError as error:
            failures = 1 if clock.monotonic() - asked_s > _PARKED_S else failures + 1
            wish_s = error.retry_after_s if isinstance(error, LinkLost) else None
            wait_s = delay_s(failures, draw(), retry_after_s=wish_s)
            await pause(clock, wait_s, nudged=nudged if wish_s is None else None)
            continue
        failures = 0
        follower.offer(desired)


async def _next(link: Link, follower: Follower) -> DesiredState:
    """What follows the follower's generation, also when that falls back while the fleet is asked.

    A question is parked for as long as it takes. Asked after a generation that the follower does not have any more, it
    would keep that generation from it until the fleet wants something else.
    """
    while True:
        after = follower.generation
        question = asyncio.ensure_future(link.next_desired(after))
        try:
            while not question.done() and follower.generation == after:
                await asyncio.wait({question}, timeout=_LOOK_S)
            if question.done():
                return question.result()
        finally:
            question.cancel()
