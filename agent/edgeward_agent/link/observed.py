"""A link that remembers how it went, for `status` and for the log: one line when it is lost, one when it is back."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from edgeward_agent.clock import Clock
from edgeward_agent.errors import LinkError, LinkRefused
from edgeward_agent.log import fields
from edgeward_agent.ports import Link
from edgeward_contract.desired import DesiredState
from edgeward_contract.record import Acknowledgement, Batch
from edgeward_contract.reported import ReportedState

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkCondition:
    """How the last call went. `heard_s` is Unix time of the last answer, 0 before the first."""

    heard_s: float = 0.0
    error: str = ""


class ObservedLink:
    """See `ports.Link`. `explain` adds what the device itself knows of a failure, such as an expired certificate."""

    def __init__(self, link: Link, *, clock: Clock, explain: Callable[[], str]) -> None:
        self.condition = LinkCondition()
        self.on_return: list[Callable[[], None]] = []
        self._link = link
        self._clock = clock
        self._explain = explain

    @property
    def max_batch_bytes(self) -> int:
        return self._link.max_batch_bytes

    async def next_desired(self, after: int) -> DesiredState:
        return await self._observe(self._link.next_desired(after))

    async def report(self, reported: ReportedState) -> None:
        await self._observe(self._link.report(reported))

    async def deliver(self, batch: Batch) -> Acknowledgement:
        return await self._observe(self._link.deliver(batch))

    async def aclose(self) -> None:
        await self._link.aclose()

    async def _observe(self, call: Awaitable[T]) -> T:
        try:
            answer = await call
        except LinkError as error:
            if not (isinstance(error, LinkRefused) and error.is_about_content):  # which says nothing of the way there
                self._failed(error)
            raise
        self._succeeded()
        return answer

    def _failed(self, error: LinkError) -> None:
        message = self._explain() or str(error)
        if message != self.condition.error:
            log.warning(
                "the fleet is out of reach: %s", message, extra=fields(error=error) if message != str(error) else None
            )
        self.condition = LinkCondition(heard_s=self.condition.heard_s, error=message)

    def _succeeded(self) -> None:
        was = self.condition
        self.condition = LinkCondition(heard_s=self._clock.wall())
        if was.error or not was.heard_s:
            log.info("the fleet answers")
            for told in self.on_return:
                told()
