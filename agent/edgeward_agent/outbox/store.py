"""The outbox for the control process: append, send, let go. All disk work happens on the owner's thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from edgeward_agent.clock import Clock, SystemClock, boot_id
from edgeward_agent.errors import AgentError, OutboxFull
from edgeward_agent.outbox import outgoing, salvage
from edgeward_agent.outbox.intake import Request
from edgeward_agent.outbox.ledger import Ledger
from edgeward_agent.outbox.model import (
    RECOVERED,
    Applied,
    Draft,
    HeldRecord,
    Receipt,
    RecordRefused,
    Stats,
    StoreOptions,
)
from edgeward_agent.outbox.owner import Owner
from edgeward_agent.outbox.recovery import quarantined_stores
from edgeward_agent.outbox.retention import age_s
from edgeward_agent.outbox.rows import Moment, prepare
from edgeward_agent.outbox.sealing import Cipher
from edgeward_contract.artifact import DeviceId
from edgeward_contract.record import MAX_BATCH_BYTES, MAX_BATCH_RECORDS, Batch, RecordClass, Verdict

T = TypeVar("T")
_SALVAGE_CHUNK: Final = 64
_SALVAGE_RETRY_S: Final = 60.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_store(
    directory: Path,
    *,
    device: DeviceId,
    options: StoreOptions | None = None,
    clock: Clock | None = None,
    clock_trusted: Callable[[], bool] = lambda: True,
) -> AsyncIterator[Store]:
    """The outbox in `directory`, which must exist. On leaving, what was asked for is finished.

    Raises:
        AgentRunning: another process has it.
        OutboxFull, OutboxError: the disk has no room, or does not work.
    """
    store = Store(directory, device, options or StoreOptions(), clock or SystemClock(), clock_trusted)
    master = await store.start()
    salvager = asyncio.create_task(store.salvage(master), name="outbox-salvage")
    try:
        yield store
    finally:
        salvager.cancel()
        with suppress(asyncio.CancelledError):
            await salvager
        await asyncio.to_thread(store.stop)


class Store:
    """Made by `open_store`. `pending` is set whenever there may be something new to send."""

    def __init__(
        self,
        directory: Path,
        device: DeviceId,
        options: StoreOptions,
        clock: Clock,
        clock_trusted: Callable[[], bool],
    ) -> None:
        self.pending = asyncio.Event()
        self._directory = directory
        self._device = device
        self._clock = clock
        self._clock_trusted = clock_trusted
        self._room = asyncio.Semaphore(options.max_waiting)
        self._damage = asyncio.Event()
        self._unfit = 0
        self._loop = asyncio.get_running_loop()
        self._owner = Owner(directory, device=device, options=options, wall=clock.wall, damaged=self._on_damage)

    async def start(self) -> Cipher:
        """Open the files and return the key-encryption key; see `open_store`."""
        master = await asyncio.wrap_future(self._owner.start())
        self._damage.set()  # a start may have found damage, or an earlier salvage was cut short
        self.pending.set()
        return master

    def stop(self) -> None:
        """Blocks until the owner's thread has ended."""
        self._owner.stop()

    async def append(self, drafts: Sequence[Draft], *, durable: bool = True) -> tuple[Receipt, ...]:
        """Take all of `drafts` or none, in order.

        With `durable` it returns after the commit; else at once with (), and a failure is only counted.

        Raises:
            OutboxFull: no room for what may never be dropped.
            RecordRefused: too large, or not JSON.
            OutboxError: the disk failed.
        """
        future = await self.enqueue(drafts)
        if durable:
            return await future
        future.add_done_callback(_log_failure)
        return ()

    async def enqueue(self, drafts: Sequence[Draft]) -> asyncio.Future[tuple[Receipt, ...]]:
        """Hand `drafts` to the next commit and return its future: for callers that must keep an order without waiting.

        Waits while too many wait already. Raises RecordRefused.
        """
        moment = self._moment()
        try:
            request = Request(records=tuple(prepare(draft, moment) for draft in drafts), moment=moment)
        except RecordRefused:
            self._unfit += len(drafts)
            raise
        await self._room.acquire()
        try:
            future = asyncio.wrap_future(self._owner.append(request))
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(self._taken)
        return future

    async def head(self, *, limit_bytes: int = MAX_BATCH_BYTES, limit_records: int = MAX_BATCH_RECORDS) -> Batch | None:
        """The next batch: highest class first, oldest first in each; None when nothing waits. Takes nothing out."""
        return await self._ask(partial(outgoing.head, limit_bytes=limit_bytes, limit_records=limit_records))

    async def apply(self, verdicts: Sequence[Verdict]) -> Applied:
        """Do what an acknowledgement says: delete, put aside, move (see `outgoing.apply`). Safe to repeat.

        Raises:
            OutboxFull: not even the ballast made room; nothing has changed.
        """
        return await asyncio.wrap_future(self._owner.make_room_call(lambda ledger: outgoing.apply(ledger, verdicts)))

    async def stats(self) -> Stats:
        """The outbox at a glance."""
        now = self._clock.wall()
        return await self._ask(lambda ledger: self._stats(ledger, now))

    async def rows(self, *, after: int | None = None, limit: int = 100) -> tuple[HeldRecord, ...]:
        """Records that wait, oldest first, for people. Pass the last `row` as `after` to go on."""
        return await self._held(quarantined=False, after=after, limit=limit)

    async def quarantined(self, *, after: int | None = None, limit: int = 100) -> tuple[HeldRecord, ...]:
        """Records that the fleet refused or that no longer open, with the reason."""
        return await self._held(quarantined=True, after=after, limit=limit)

    async def requeue(self, rows: Iterable[int]) -> int:
        """Send records from quarantine again; how many there were."""
        wanted = tuple(rows)
        count = await self._ask(partial(outgoing.requeue, rows=wanted))
        self.pending.set()
        return count

    async def maintain(self) -> None:
        """What otherwise happens every `maintain_s`: old keys destroyed, the log emptied, the ballast laid."""
        await self._ask(self._owner.maintain)

    async def salvage(self, master: Cipher) -> None:
        """Bring back what is readable of damaged stores, whenever there is one. Never ends; run by `open_store`."""
        while True:
            await self._damage.wait()
            self._damage.clear()
            for folder in salvage.unfinished(self._directory):
                try:
                    await self._salvage(folder, master)
                except (AgentError, OSError) as error:
                    log.warning("salvage of %s failed and is tried again: %s", folder.name, error)
                    await asyncio.sleep(_SALVAGE_RETRY_S)
                    self._damage.set()

    async def _salvage(self, folder: Path, master: Cipher) -> None:
        tally = salvage.Tally()
        below = await self._ask(outgoing.oldest_row)
        rows = salvage.read_rows(folder, master=master, device=self._device, below=below, tally=tally)
        try:
            while chunk := await _whole(lambda: tuple(islice(rows, _SALVAGE_CHUNK))):
                await self._ask(partial(outgoing.adopt, salvaged=chunk))
                self.pending.set()
        finally:
            await _whole(rows.close)
        await self.append([_recovery(folder, tally)])
        salvage.finish(folder, tally)
        words = "%s: %d records are back, %d are unreadable, of %d more numbers nothing was found"
        log.warning(words, folder.name, tally.salvaged, tally.unreadable, tally.missing)

    async def _held(self, *, quarantined: bool, after: int | None, limit: int) -> tuple[HeldRecord, ...]:
        return await self._ask(partial(outgoing.held, quarantined=quarantined, after=after, limit=limit))

    async def _ask(self, work: Callable[[Ledger], T]) -> T:
        return await asyncio.wrap_future(self._owner.call(work))

    def _stats(self, ledger: Ledger, now_s: float) -> Stats:
        counts, state = outgoing.counts(ledger), ledger.state
        alarms = {
            "outbox_corrupt": bool(quarantined_stores(self._directory)),
            "outbox_full": self._owner.full,
            "outbox_maintenance": self._owner.neglected,
            "outbox_quarantine": counts.quarantined > 0,
            "outbox_unwritable": self._owner.unwritable,
        }
        return Stats(
            records=counts.records,
            oldest_s=age_s(oldest_wall_us=counts.oldest_wall_us, now_wall_s=now_s),
            bytes=ledger.used_bytes(),
            quarantined=counts.quarantined,
            epoch=state.epoch,
            last_sequence=state.next_row - 1,
            dropped=state.dropped,
            refused=self._owner.refused + self._unfit,
            alarms=tuple(name for name, raised in alarms.items() if raised),
        )

    def _moment(self) -> Moment:
        return Moment(
            boot=boot_id(),
            boot_us=int(self._clock.monotonic() * 1e6),
            wall_us=max(0, int(self._clock.wall() * 1e6)),
            clock_trusted=self._clock_trusted(),
        )

    def _taken(self, future: asyncio.Future[tuple[Receipt, ...]]) -> None:
        self._room.release()
        if not future.cancelled() and future.exception() is None:
            self.pending.set()

    def _on_damage(self) -> None:
        self._loop.call_soon_threadsafe(self._damage.set)


async def _whole(work: Callable[[], T]) -> T:
    """Run `work` on a thread. When cancelled, wait for its end: a generator is not closed while it runs."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def _recovery(folder: Path, tally: salvage.Tally) -> Draft:
    return Draft(
        record_class=RecordClass.AUDIT,
        kind=RECOVERED,
        body={
            "folder": folder.name,
            "reason": (folder / "reason.txt").read_text().strip(),
            "salvaged": tally.salvaged,
            "unreadable": tally.unreadable,
            "missing": tally.missing,
        },
    )


def _log_failure(future: asyncio.Future[tuple[Receipt, ...]]) -> None:
    if not future.cancelled() and not isinstance(future.exception(), OutboxFull | None):  # a full one logs itself
        log.warning("a record was not taken: %s", future.exception())
