"""Records on their way to the control process: a bounded queue and one unix-socket stream.

A record is built when it is offered, which is right after its answer: each request pays for its own, and nobody waits
for a batch to be built; of those that are alike only the numbers are kept (`edgeward_agent.series`). An asynchronous
one is sent a moment later, with others; when there is no room it is dropped and counted. A durable one goes at once,
with all that wait before it, and is answered by the control process after its commit; when that cannot be, the request
is refused, and inference for everybody else goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from edgeward_agent.series import Series
from edgeward_agent.serving.capture_link import LENGTH, CaptureLink
from edgeward_agent.serving.losses import Losses
from edgeward_agent.serving.records import InferenceRecord
from edgeward_agent.serving.refusal import unsupported
from edgeward_contract.manifest import CaptureMode

_log: Final = logging.getLogger(__name__)

_RANK: Final = {mode: rank for rank, mode in enumerate(CaptureMode)}  # from least to most
_MODES: Final = tuple(CaptureMode)
_OFF: Final = CaptureMode.OFF
_FINISHED_S: Final = 0.01
_GATHER_S: Final = 0.05
"""How long an asynchronous record may wait for others. Each write wakes a process on another core, which costs the loop
more than the whole answer to a small request; a batch costs it once."""
_GATHER_ROWS: Final = 2048
"""As many go at once: half of what may wait."""
_GATHER_BYTES: Final = 160 << 10
"""As much goes at once: more would not fit into the socket."""
_BATCH_BYTES: Final = 256 << 10
_ALONE_AT_ONCE: Final = 16  # to write each out takes its time
_RECONNECT_S: Final = (0.05, 1.0)

Done = Callable[[str | None], None]
"""Called once: None after the commit, else why there is none."""


class Capture(Protocol):
    """Where records go."""

    @property
    def dropped(self) -> int:
        """How many were offered and not kept, since the start."""

    def mode(self, policy: CaptureMode, asked: CaptureMode) -> CaptureMode:
        """What to do with a result: a request may ask for more than the release does, never for less.

        Raises:
            Refusal: 501, there is nowhere where it could ever be recorded. It is asked before the model runs.
        """

    def offer(self, record: InferenceRecord) -> None:
        """Keep a record if there is room; the answer has gone already. Its tensors are not looked at again."""

    def offer_row(self, series: Series, row: bytes) -> None:
        """The same for one of a series."""

    def commit(self, record: InferenceRecord, done: Done) -> None:
        """Keep a record and tell when it is committed. Its tensors are not looked at again."""


class NoCapture:
    """A laptop without a fleet: nothing is recorded, and nobody is told that something was."""

    @property
    def dropped(self) -> int:
        return 0

    def mode(self, policy: CaptureMode, asked: CaptureMode) -> CaptureMode:
        if asked is CaptureMode.DURABLE:
            raise unsupported(
                "expected capture off or async, got durable: this server has no outbox, and records nothing"
            )
        return CaptureMode.OFF

    def offer(self, record: InferenceRecord) -> None:
        raise AssertionError("mode() never asks for this")

    def offer_row(self, series: Series, row: bytes) -> None:
        raise AssertionError("mode() never asks for this")

    def commit(self, record: InferenceRecord, done: Done) -> None:
        raise AssertionError("mode() never asks for this")


class CaptureLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much may wait, for how long a durable one, and what waits when the process ends."""

    records: int = 4096
    size_bytes: int = 16 << 20
    send_s: float = 1.0
    commit_s: float = 5.0
    finish_s: float = 4.0  # within `serving.stop_timeout_s`, after which the process is killed


class _Durable(msgspec.Struct, eq=False):
    """A record that somebody waits for; `done` is None when nobody does any more. `frame` is empty once it was sent, or
    will not be.
    """

    frame_id: int
    frame: bytes
    done: Done | None
    timer: asyncio.TimerHandle | None = None


class CaptureStream:
    """The way to the control process. Touched on the loop's thread alone."""

    def __init__(self, path: Path, limits: CaptureLimits | None = None) -> None:
        self._path = path
        self._limits = limits or CaptureLimits()
        self._loop = asyncio.get_running_loop()
        self._queue: deque[bytes | _Durable] = deque()
        self._rows: dict[Series, list[bytes]] = {}
        self._queued_rows = 0
        self._expired = 0  # of the queue: nobody waits for them, and nothing of them is kept
        self._unanswered: dict[int, _Durable] = {}
        self._link: CaptureLink | None = None
        self._queued_bytes = 0
        self._last_id = 0
        self._flush_soon: asyncio.Handle | None = None
        self._gathering = False  # and then it is a timer, that something urgent need not wait for
        self._urgent = self._finished = False
        self._losses = Losses(self._loop)

    @property
    def dropped(self) -> int:
        return self._losses.total

    @property
    def connected(self) -> bool:
        return self._link is not None

    @property
    def queued(self) -> int:
        return len(self._queue) - self._expired + self._queued_rows

    def mode(self, policy: CaptureMode, asked: CaptureMode) -> CaptureMode:
        if asked is _OFF:  # nearly always; and a member of an enum is slow to hash
            return policy
        return _MODES[max(_RANK[policy], _RANK[asked])]

    def offer(self, record: InferenceRecord) -> None:
        frame = None if self._full else self._built(record, durable=False)
        if frame is not None:
            self._push(frame, len(frame))
        else:
            self._losses.count()

    def offer_row(self, series: Series, row: bytes) -> None:
        # All in place: it is asked for each small request, and to call for an answer costs more than the answer.
        limits, size_bytes = self._limits, self._queued_bytes
        if size_bytes >= limits.size_bytes or len(self._queue) - self._expired + self._queued_rows >= limits.records:
            self._losses.count()
            return
        rows = self._rows.get(series)
        if rows is None:
            rows = self._rows[series] = []
        rows.append(row)
        self._queued_rows += 1
        self._queued_bytes = size_bytes = size_bytes + len(row)
        if self._flush_soon is None or size_bytes >= _GATHER_BYTES or self._queued_rows >= _GATHER_ROWS or self._urgent:
            self._schedule()

    def commit(self, record: InferenceRecord, done: Done) -> None:
        if self._full:
            done(f"expected room among {self._limits.records} waiting records, the queue is full")
            return
        frame = self._built(record, durable=True)
        if frame is None:
            done("the record could not be built: see the log of the serving process")
            return
        entry = _Durable(self._last_id, frame, done)
        entry.timer = self._loop.call_later(self._limits.send_s, self._expire, entry)
        self._urgent = True
        self._push(entry, len(frame))

    async def run(self) -> None:
        """Keep a connection until the end. The control process may come late, go and come back."""
        wait_s = _RECONNECT_S[0]
        while not self._finished:
            try:
                _, link = await self._loop.create_unix_connection(lambda: CaptureLink(self), str(self._path))
            except OSError:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _RECONNECT_S[1])
                continue
            wait_s = _RECONNECT_S[0]
            await link.lost.wait()

    async def finish(self) -> None:
        """Hand over what waits for as long as somebody takes it. What is left is said: nobody else will count it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limits.finish_s):
                while self.queued and self._link is not None:  # noqa: ASYNC110  # what is sent, and when, is as ever
                    await asyncio.sleep(_FINISHED_S)
                self._finished = True
                if self._link is not None:
                    self._link.transport.close()
                    await self._link.lost.wait()
        self._losses.close()
        if self.queued:
            _log.warning("%d results are not kept: the agent did not take them before the end", self.queued)

    # -- called by the connection

    def opened(self, link: CaptureLink) -> None:
        self._link = link
        self._schedule()

    def closed(self) -> None:
        self._link = None
        unanswered, self._unanswered = self._unanswered, {}
        for entry in unanswered.values():
            _settle(entry, "the connection to the agent was lost before it answered")

    def answered(self, frame_id: int, problem: str | None) -> None:
        entry = self._unanswered.pop(frame_id, None)
        if entry is not None:
            _settle(entry, problem)

    def writable(self) -> None:
        self._schedule()

    # -- inside

    def _built(self, record: InferenceRecord, *, durable: bool) -> bytes | None:
        """The frame with its length; None when it cannot be built."""
        self._last_id += 1
        try:
            frame = record.frame(self._last_id, durable=durable)
        except Exception:
            _log.exception("a record of %s could not be built", record.model)
            return None
        return LENGTH.pack(len(frame)) + frame

    @property
    def _full(self) -> bool:
        limits = self._limits
        return self.queued >= limits.records or self._queued_bytes >= limits.size_bytes

    def _push(self, entry: bytes | _Durable, size_bytes: int) -> None:
        self._queue.append(entry)
        self._queued_bytes += size_bytes
        self._schedule()

    def _schedule(self) -> None:
        if not self.queued or self._link is None or self._link.stalled:
            return
        hurried = self._urgent or self._queued_bytes >= _GATHER_BYTES or self._queued_rows >= _GATHER_ROWS
        if self._flush_soon is not None:
            if not (hurried and self._gathering):
                return
            self._flush_soon.cancel()
        self._gathering = not hurried
        loop = self._loop
        self._flush_soon = loop.call_soon(self._flush) if hurried else loop.call_later(_GATHER_S, self._flush)

    def _flush(self) -> None:
        self._flush_soon = None
        if self._link is None or self._link.stalled:
            return
        self._send_batch(self._link)
        self._urgent = bool(self.queued)  # what did not fit into this batch has waited already
        self._schedule()

    def _send_batch(self, link: CaptureLink) -> None:
        batch = self._take_rows(link)
        size_bytes = sum(map(len, batch))
        while self._queue and size_bytes < _BATCH_BYTES:
            frame = self._next()
            batch.append(frame)
            size_bytes += len(frame)
            self._queued_bytes -= len(frame)
        if size_bytes:
            link.transport.write(b"".join(batch))

    def _take_rows(self, link: CaptureLink) -> list[bytes]:
        """Frames of all rows that one batch has room for."""
        batch: list[bytes] = []
        room_bytes = _BATCH_BYTES
        for series, rows in tuple(self._rows.items()):
            fitting = max(1, room_bytes * 3 // 4 // series.row_bytes)
            some = rows[: fitting if link.reads_series else min(fitting, _ALONE_AT_ONCE)]
            frames = [series.frame(some)] if link.reads_series else [series.alone(row) for row in some]
            for frame in frames:
                batch += (LENGTH.pack(len(frame)), frame)
                room_bytes -= len(frame)
            del rows[: len(some)]
            if not rows:
                del self._rows[series]
            self._queued_rows -= len(some)
            self._queued_bytes -= len(some) * series.row_bytes
            if room_bytes <= 0:
                break
        return batch

    def _next(self) -> bytes:
        """The next frame; nothing of one whose time was up while it waited: its caller was told so."""
        entry = self._queue.popleft()
        if isinstance(entry, bytes):
            return entry
        if entry.done is None:
            self._expired -= 1
            return b""
        self._unanswered[entry.frame_id] = entry
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer = self._loop.call_later(self._limits.commit_s, self._forget, entry)
        frame, entry.frame = entry.frame, b""
        return frame

    def _expire(self, entry: _Durable) -> None:
        """It was not sent in time, and leaves its room to others."""
        self._expired += 1
        self._queued_bytes -= len(entry.frame)
        entry.frame = b""
        _settle(entry, "expected the agent to take the record, it does not answer")
        if self._expired > self._limits.records:  # nobody takes them: what is left of each would pile up
            self._queue = deque(each for each in self._queue if isinstance(each, bytes) or each.done is not None)
            self._expired = 0

    def _forget(self, entry: _Durable) -> None:
        """It was sent, and what comes of it is not waited for."""
        self._unanswered.pop(entry.frame_id, None)
        _settle(entry, "expected the agent to commit the record, it took too long")


def _settle(entry: _Durable, problem: str | None) -> None:
    done, entry.done = entry.done, None
    if entry.timer is not None:
        entry.timer.cancel()
    if done is None:
        return
    try:
        done(problem)
    except Exception:  # of one caller; the records of the others go on
        _log.exception("the end of a durable record could not be told")
