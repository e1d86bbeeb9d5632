"""Carries the outbox to the fleet, for as long as the agent runs.

A lost link is waited out. A batch that is refused for what is in it is halved until the poison record is found and
put aside, so that it never blocks the records behind it. A refusal for any other reason (a certificate, a path, a
proxy) says nothing about the records: they stay, and are tried again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Sequence
from typing import Final, NoReturn, Protocol

from edgeward_agent.clock import Clock
from edgeward_agent.errors import LinkError, LinkLost, LinkRefused, OutboxError
from edgeward_agent.link.backoff import delay_s
from edgeward_agent.link.pausing import pause
from edgeward_agent.log import fields
from edgeward_agent.outbox.model import Applied
from edgeward_agent.ports import Link
from edgeward_contract.record import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    MAX_RECORD_BYTES,
    Acknowledgement,
    Batch,
    Record,
    Verdict,
    VerdictStatus,
)

_TOO_LARGE: Final = 413
_SUSPICIOUS: Final = 3
"""So many records put aside in a row look like a misunderstanding of versions, not like poison: go on slowly."""
_WIDEN_AFTER: Final = 32
"""So many batches that were taken after a 413 double their size again: what was in the way may be gone."""

log = logging.getLogger(__name__)


class Outgoing(Protocol):
    """What the forwarder needs of the store. `pending` is set when there may be something to send."""

    pending: asyncio.Event

    async def head(
        self, *, limit_bytes: int = MAX_BATCH_BYTES, limit_records: int = MAX_BATCH_RECORDS
    ) -> Batch | None: ...

    async def apply(self, verdicts: Sequence[Verdict]) -> Applied: ...


class Forwarder:
    """One loop. `random` gives numbers uniform in [0, 1)."""

    def __init__(
        self,
        store: Outgoing,
        link: Link,
        *,
        clock: Clock,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._link = link
        self._clock = clock
        self._random = random
        self._nudged = asyncio.Event()
        self._failures = 0
        self._put_aside = 0
        self._limit_bytes = MAX_BATCH_BYTES
        self._since_narrowed = 0

    async def run(self) -> NoReturn:
        """Send what is there, wait for more, wait out failures."""
        while True:
            self._store.pending.clear()  # before looking: what comes while we look sets it again
            try:
                if not await self._send_next():
                    await self._store.pending.wait()
            except (LinkError, OutboxError) as error:
                await self._wait_out(error)

    def nudge(self) -> None:
        """Try now: somebody has seen that the link works. Ends a wait, and changes nothing else."""
        self._nudged.set()

    async def _send_next(self) -> bool:
        """False when there was nothing to send."""
        batch = await self._store.head(limit_bytes=min(self._limit_bytes, self._link.max_batch_bytes))
        if batch is not None:
            await self._send(batch)
        return batch is not None

    async def _send(self, batch: Batch) -> None:
        try:
            answer = await self._link.deliver(batch)
        except LinkRefused as refused:
            if not refused.is_about_content:
                raise
            await self._narrow(batch.records, refused)
        else:
            await self._settle(batch, answer)

    async def _narrow(self, records: Sequence[Record], refused: LinkRefused) -> None:
        """Halve what was refused for its content, down to the record that is to blame."""
        if len(records) == 1:
            await self._isolate(records[0], refused)
            return
        if refused.status == _TOO_LARGE:  # somebody on the way takes less than the contract says
            self._limit_bytes = max(MAX_RECORD_BYTES, self._limit_bytes // 2)
            self._since_narrowed = 0
        middle = len(records) // 2
        for half in (records[:middle], records[middle:]):
            await self._send(Batch(batch_id=f"b-{secrets.token_hex(8)}", records=tuple(half)))

    async def _isolate(self, record: Record, refused: LinkRefused) -> None:
        verdict = Verdict(
            epoch=record.epoch, sequence=record.sequence, status=VerdictStatus.REJECTED, reason=str(refused)[:900]
        )
        await self._store.apply([verdict])
        log.error("a record was refused and is in quarantine: %s", refused, extra=_name(record))
        self._put_aside += 1
        if self._put_aside > _SUSPICIOUS:
            raise LinkLost(f"{self._put_aside} records in a row were refused; the fleet may be of another version")

    async def _settle(self, batch: Batch, answer: Acknowledgement) -> None:
        """Apply what was said of records in the batch; anything else in an answer was never asked."""
        if answer.batch_id != batch.batch_id:
            raise LinkLost(f"expected the acknowledgement of {batch.batch_id}, got that of {answer.batch_id[:64]}")
        sent = {(record.epoch, record.sequence) for record in batch.records}
        applied = await self._store.apply([each for each in answer.verdicts if (each.epoch, each.sequence) in sent])
        if applied.moved:
            log.warning("the fleet has other records of this device: it was restored from an image; a new epoch began")
        if not applied.removed and not applied.quarantined:
            raise LinkLost("expected the acknowledgement to let go of at least one record, it let go of none")
        self._recovered(delivered=applied.removed > 0)
        self._widen()

    def _widen(self) -> None:
        """Go back to full batches by and by, each at the risk of one more refusal."""
        if self._limit_bytes == MAX_BATCH_BYTES:
            return
        self._since_narrowed += 1
        if self._since_narrowed >= _WIDEN_AFTER:
            self._limit_bytes = min(MAX_BATCH_BYTES, 2 * self._limit_bytes)
            self._since_narrowed = 0

    def _recovered(self, *, delivered: bool) -> None:
        if self._failures:
            log.info("records reach the fleet again", extra=fields(after_failures=self._failures))
        self._failures = 0
        if delivered:
            self._put_aside = 0

    async def _wait_out(self, error: LinkError | OutboxError) -> None:
        self._failures += 1
        wish = error.retry_after_s if isinstance(error, LinkLost) else None
        wait_s = delay_s(self._failures, self._random(), retry_after_s=wish)
        level = logging.WARNING if self._failures == 1 else logging.DEBUG
        log.log(level, "records wait: %s", error, extra=fields(retry_in_s=round(wait_s, 1)))
        await pause(self._clock, wait_s, nudged=self._nudged if wish is None else None)


def _name(record: Record) -> dict[str, object]:
    return fields(epoch=record.epoch, sequence=record.sequence, kind=record.kind)
