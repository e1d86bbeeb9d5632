"""Tells the fleet what this device is: soon after each change, often while much happens, and now and then anyway."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from edgeward_agent.clock import Clock
from edgeward_agent.errors import LinkError, LinkLost, LinkRefused
from edgeward_agent.link.backoff import delay_s
from edgeward_agent.link.pausing import sleep_or
from edgeward_agent.ports import Link
from edgeward_contract.artifact import ModelName
from edgeward_contract.reported import DeviceHealth, ReportedModel, ReportedState
from edgeward_contract.version import __version__

log = logging.getLogger(__name__)

_SPREAD: Final = 0.1
_LIVELY_S: Final = 5.0  # after a change the fleet decides on fresh numbers: how the new release does


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What there is to say at one moment."""

    generation: int
    models: Mapping[ModelName, ReportedModel]
    health: DeviceHealth


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """`heartbeat_s` between reports when nothing happens, `min_interval_s` when much does."""

    heartbeat_s: float
    min_interval_s: float


class Reporter:
    """One loop, woken by `news`. Reports are numbered within one start of the agent: the fleet tells old from new."""

    def __init__(
        self,
        link: Link,
        look: Callable[[], Awaitable[Snapshot]],
        *,
        news: asyncio.Event,
        clock: Clock,
        rhythm: Rhythm,
        draw: Callable[[], float],
    ) -> None:
        self._link = link
        self._look = look
        self._clock = clock
        self._rhythm = rhythm
        self._draw = draw
        self._boot = secrets.token_hex(8)
        self._sequence = 0
        self._news = news
        self._news_s = clock.monotonic()
        self._failures = 0
        self._refused = ""  # why, so that it is logged once

    async def run(self) -> NoReturn:
        while True:
            if self._news.is_set():
                self._news_s = self._clock.monotonic()
                self._news.clear()  # before looking: what changes while we look is reported next
            try:
                await self._link.report(await self._next())
            except LinkError as error:
                self._failures += 1
                self._tell(error)
                wish_s = error.retry_after_s if isinstance(error, LinkLost) else None
                wait_s = delay_s(self._failures, self._draw(), retry_after_s=wish_s)
                await (self._rest(wait_s) if wish_s is None else self._clock.sleep(wait_s))  # the fleet's own wish
            else:
                self._failures, self._refused = 0, ""
                await self._rest(self._interval_s())

    def _tell(self, error: LinkError) -> None:
        """Of what is no trouble of the link, which speaks for itself: what is refused for its contents."""
        if isinstance(error, LinkRefused) and error.is_about_content and str(error) != self._refused:
            self._refused = str(error)
            log.error("the fleet does not take what this device reports, and shows what it was told last: %s", error)

    async def _next(self) -> ReportedState:
        seen = await self._look()
        self._sequence += 1
        return ReportedState(
            generation=seen.generation,
            boot=self._boot,
            sequence=self._sequence,
            agent_version=__version__,
            models=seen.models,
            health=seen.health,
        )

    def _interval_s(self) -> float:
        """As long as it has been since the change: 5, 10, 20, 40 s. A thousand devices each 5 s are a fleet's load."""
        age_s = self._clock.monotonic() - self._news_s
        interval_s = min(max(_LIVELY_S, age_s), self._rhythm.heartbeat_s)
        return interval_s * (1 - _SPREAD + 2 * _SPREAD * self._draw())  # who was updated together need not stay so

    async def _rest(self, longest_s: float) -> None:
        """Between the shortest and the longest interval, until there is news."""
        await self._clock.sleep(min(self._rhythm.min_interval_s, longest_s))
        await sleep_or(self._clock, max(0.0, longest_s - self._rhythm.min_interval_s), self._news)
