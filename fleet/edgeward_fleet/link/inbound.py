"""What a device says and asks, whatever carried it: the fleet's side of the link port.

An adapter authenticates the device, reads the document and calls in here; nothing below knows HTTP or a broker.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_contract.record import Acknowledgement, Batch
from edgeward_contract.reported import ReportedState
from edgeward_fleet.clock import Clock
from edgeward_fleet.db.engine import Database
from edgeward_fleet.records.service import Records
from edgeward_fleet.rollouts.observing import take_report
from edgeward_fleet.states import desired, reported

Check = Callable[[Session, datetime], None]
"""Raises Forbidden when the device may not talk to us any more."""


def anybody(_session: Session, _now: datetime) -> None:
    """For links that authenticate each message themselves."""


class Inbound:
    """Desired state out; reports and records in. `on_news` hears of reports that tell a rollout anything."""

    def __init__(self, database: Database, clock: Clock, records: Records, on_news: Callable[[], None]) -> None:
        self._database: Final = database
        self._clock: Final = clock
        self._records: Final = records
        self._on_news: Final = on_news

    async def desired(self, device: DeviceId, after: int, check: Check = anybody) -> bytes | None:
        """The device's desired state, if its generation is above `after`; it counts as fetched. Raises Forbidden."""
        now = self._clock()

        def work(session: Session) -> bytes | None:
            check(session, now)
            return desired.fetch(session, device, after, now)

        return await self._database.run(work, urgent=False)

    async def report(self, device: DeviceId, state: ReportedState, check: Check = anybody) -> None:
        """Store a report, unless a newer one is here, and let the rollouts see it. Raises Forbidden or TooLarge."""
        now = self._clock()

        def work(session: Session) -> bool:
            check(session, now)
            return reported.take(session, device, state, now) and take_report(session, device, state, now)

        if await self._database.run(work, urgent=False):
            self._on_news()

    async def deliver(self, device: DeviceId, batch: Batch) -> Acknowledgement:
        """Store records; what comes back was made after the commit."""
        return await self._records.ingest(device, batch)
