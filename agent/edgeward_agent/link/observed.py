"""A link that remembers how it went, for `status` and for the log: one line when it is lost, one when it is back."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from edgeward_agent.clock import Clock
from edgeward_agent.errors import LinkError, LinkRefused
from edgeward_agent.log import fields
from edgeward_agent.ports import Link
from edgeward_contract.desired import DesiredState
from edgeward_contract.record import Acknowledgement, Batch
from edgeward_contract.reported import ReportedState

log = logging.getLogger(__name__)

T = TypeVar("T")

_CALM_S: Final = 600.0
"""What has not failed for so long was well in between: twice the longest pause between two tries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCondition:
    """How the last call went. `heard_s` is Unix time of the last answer, 0 before the first."""

    heard_s: float = 0.0
    error: str = ""


class ObservedLink:
    """See `ports.Link`. `explain` adds what the device itself knows of a failure, such as an expired certificate.

    `on_return` is told when something is answered after something else was not: once for each kind of call that began
    to fail. A fleet that takes reports and fails at records is not back with each report, and whoever sends records
    waits out its own pauses.
    """

    def __init__(self, link: Link, *, clock: Clock, explain: Callable[[], str]) -> None:
        self.condition = LinkCondition()
        self.on_return: list[Callable[[], None]] = []
        self._link = link
        self._clock = clock
        self._explain = explain
        self._failed_s: dict[str, float] = {}  # when each kind of call failed last
        self._said: dict[str, str] = {}  # of each since the fleet answered
        self._away = True

    @property
    def max_batch_bytes(self) -> int:
        return self._link.max_batch_bytes

    async def next_desired(self, after: int) -> DesiredState:
        return await self._observe("desired", self._link.next_desired(after))

    async def report(self, reported: ReportedState) -> None:
        await self._observe("report", self._link.report(reported))

    async def deliver(self, batch: Batch) -> Acknowledgement:
        return await self._observe("records", self._link.deliver(batch))

    async def aclose(self) -> None:
        await self._link.aclose()

    async def _observe(self, what: str, call: Awaitable[T]) -> T:
        try:
            answer = await call
        except LinkError as error:
            if not (isinstance(error, LinkRefused) and error.is_about_content):  # which says nothing of the way there
                self._failed(what, error)
            raise
        self._succeeded(what)
        return answer

    def _failed(self, what: str, error: LinkError) -> None:
        message, now_s = self._explain() or str(error), self._clock.monotonic()
        if message not in self._said.values():
            log.warning(
                "the fleet is out of reach: %s", message, extra=fields(error=error) if message != str(error) else None
            )
        self._said[what] = message
        self._away = self._away or now_s - self._failed_s.get(what, -math.inf) > _CALM_S
        self._failed_s[what] = now_s
        self.condition = LinkCondition(heard_s=self.condition.heard_s, error=message)

    def _succeeded(self, what: str) -> None:
        self._failed_s.pop(what, None)
        self.condition = LinkCondition(heard_s=self._clock.wall())
        if self._away:
            self._away = False
            self._said.clear()
            log.info("the fleet answers")
            for told in self.on_return:
                told()
