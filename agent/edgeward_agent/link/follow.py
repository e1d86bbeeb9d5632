"""Keeps asking the fleet what it wants, however long it does not answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, Protocol

from edgeward_agent.clock import Clock
from edgeward_agent.errors import LinkError, LinkLost
from edgeward_agent.link.backoff import delay_s
from edgeward_agent.ports import Link
from edgeward_contract.desired import DesiredState


class Follower(Protocol):
    """Who takes what the fleet wants."""

    @property
    def generation(self) -> int: ...

    def offer(self, desired: DesiredState) -> None: ...


async def follow_desired(link: Link, follower: Follower, *, clock: Clock, draw: Callable[[], float]) -> NoReturn:
    """Offer every newer desired state. A refusal is waited out too: a fleet may take a device back."""
    failures = 0
    while True:
        try:
            desired = await link.next_desired(follower.generation)
        except LinkError as error:
            failures += 1
            wish_s = error.retry_after_s if isinstance(error, LinkLost) else None
            await clock.sleep(delay_s(failures, draw(), retry_after_s=wish_s))
            continue
        failures = 0
        follower.offer(desired)
