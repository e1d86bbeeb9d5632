"""Take batches in and find records again."""

from __future__ import annotations

from typing import Final

from sqlalchemy.orm import Session

from edgeward_contract.artifact import DeviceId
from edgeward_contract.record import Acknowledgement, Batch
from edgeward_fleet.clock import Clock
from edgeward_fleet.db.engine import Database
from edgeward_fleet.records import repository
from edgeward_fleet.records.model import RecordFilter, StoredRecord, arrivals, storable, verdicts


class Records:
    """Everything about records."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database: Final = database
        self._clock: Final = clock

    async def ingest(self, device: DeviceId, batch: Batch) -> Acknowledgement:
        """Store the batch in one transaction. The device may delete by what comes back: it is sent after the commit."""
        arrived = arrivals(batch.records)
        now = self._clock()

        def work(session: Session) -> Acknowledgement:
            keys = [each.key for each in arrived]
            before = repository.stored_digests(session, device, keys)
            new = [each for each in storable(arrived) if each.key not in before]
            repository.insert_new(session, device, new, now)
            # Asked again rather than concluded: another replica may have inserted the same keys in between.
            stored = repository.stored_digests(session, device, keys) if new else before
            inserted = frozenset(each.key for each in new)
            return Acknowledgement(batch_id=batch.batch_id, verdicts=verdicts(arrived, inserted, stored))

        return await self._database.run(work, urgent=False)

    async def page(self, which: RecordFilter, *, after: int, limit: int) -> list[StoredRecord]:
        return await self._database.run(lambda session: repository.page(session, which, after=after, limit=limit))

    async def count(self, which: RecordFilter) -> int:
        return await self._database.run(lambda session: repository.count(session, which))
