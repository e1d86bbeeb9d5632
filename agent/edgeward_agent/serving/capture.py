"""Records on their way to the control process: a bounded queue and one unix-socket stream.

An asynchronous record is built and sent a moment after its answer, with others; when there is no room it is dropped
and counted. A durable one goes at once, with all that wait before it, and is answered by the control process after its
commit; when that cannot be, the request is refused, and inference for everybody else goes on.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

import msgspec

from edgeward_agent.serving.records import InferenceRecord
from edgeward_contract.manifest import CaptureMode

_log: Final = logging.getLogger(__name__)

_LENGTH: Final = struct.Struct("<I")
_RANK: Final = {mode: rank for rank, mode in enumerate(CaptureMode)}  # from least to most
_MODES: Final = tuple(CaptureMode)
_OFF: Final = CaptureMode.OFF
_GATHER_S: Final = 0.005
"""How long an asynchronous record may wait for others. Each write wakes a process on another core, which costs the loop
more than the whole answer to a small request; a batch costs it once."""
_BATCH_RECORDS: Final = 8
"""As many go at once and no more in a turn of the loop: who asks meanwhile waits for a batch to be built."""
_BATCH_BYTES: Final = 256 << 10
_MAX_REPLY_BYTES: Final = 64 << 10
_RECONNECT_S: Final = (0.05, 1.0)

Done = Callable[[str | None], None]
"""Called once: None after the commit, else why there is none."""


class Capture(Protocol):
    """Where records go."""

    def mode(self, policy: CaptureMode, asked: CaptureMode) -> CaptureMode:
        """What to do with a result: a request may ask for more than the release does, never for less."""

    def offer(self, record: InferenceRecord) -> None:
        """Keep a record if there is room; the answer has gone already."""

    def commit(self, record: InferenceRecord, done: Done) -> None:
        """Keep a record and tell when it is committed."""


class NoCapture:
    """A laptop without a fleet: nothing is recorded, and nobody is told that something was."""

    def mode(self, policy: CaptureMode, asked: CaptureMode) -> CaptureMode:
        return CaptureMode.DURABLE if asked is CaptureMode.DURABLE else CaptureMode.OFF

    def offer(self, record: InferenceRecord) -> None:
        raise AssertionError("mode() never asks for this")

    def commit(self, record: InferenceRecord, done: Done) -> None:
        done("this server has no outbox; expected capture off, got durable")


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureLimits:
    """How much may wait, and for how long a durable one."""

    records: int = 4096
    size_bytes: int = 16 << 20
    send_s: float = 1.0
    commit_s: float = 5.0


@dataclass(slots=True, eq=False)
class _Entry:
    record: InferenceRecord
    size_bytes: int
    done: Done | None = None
    timer: asyncio.TimerHandle | None = None

    @property
    def durable(self) -> bool:
        return self.done is not None or self.timer is not None


class CaptureStream:
    """The way to the control process. Touched on the loop's thread alone."""

    def __init__(self, path: Path, limits: CaptureLimits | None = None) -> None:
        self._path = path
        self._limits = limits or CaptureLimits()
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Entry] = deque()
        self._unanswered: dict[int, _Entry] = {}
        self._link: _Link | None = None
        self._queued_bytes = 0
        self._last_id = 0
        self._flush_soon: asyncio.Handle | None = None
        self._gathering = False  # and then it is a timer, that something urgent need not wait for
        self._urgent = False
        self.dropped = 0

    @property
    def connected(self) -> bool:
        return self._link is not None

    @property
    def queued(self) -> int:
        return len(self._queue)

    def mode(self, policy: CaptureMode, asked: CaptureMode) -> CaptureMode:
        if asked is _OFF:  # nearly always; and a member of an enum is slow to hash
            return policy
        return _MODES[max(_RANK[policy], _RANK[asked])]

    def offer(self, record: InferenceRecord) -> None:
        entry = _Entry(record, record.size_bytes)
        if self._has_room(entry):
            self._push(entry)
        else:
            self.dropped += 1

    def commit(self, record: InferenceRecord, done: Done) -> None:
        entry = _Entry(record, record.size_bytes, done)
        if not self._has_room(entry):
            done(f"expected room among {self._limits.records} waiting records, the queue is full")
            return
        self._set_timer(entry, self._limits.send_s, "expected the agent to take the record, it does not answer")
        self._urgent = True
        self._push(entry)

    async def run(self) -> None:
        """Keep a connection. The control process may come late, go and come back."""
        wait_s = _RECONNECT_S[0]
        while True:
            try:
                _, link = await self._loop.create_unix_connection(lambda: _Link(self), str(self._path))
            except OSError:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _RECONNECT_S[1])
                continue
            wait_s = _RECONNECT_S[0]
            await link.lost.wait()

    def close(self) -> None:
        """Hand what waits to the system, if somebody is there to take it."""
        while self._queue and self._link is not None:
            self._send_batch(self._link)
        if self._link is not None:
            self._link.transport.close()

    # -- called by the connection

    def opened(self, link: _Link) -> None:
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

    def _has_room(self, entry: _Entry) -> bool:
        limits = self._limits
        return len(self._queue) < limits.records and self._queued_bytes + entry.size_bytes <= limits.size_bytes

    def _push(self, entry: _Entry) -> None:
        self._queue.append(entry)
        self._queued_bytes += entry.size_bytes
        self._schedule()

    def _schedule(self) -> None:
        if not self._queue or self._link is None or self._link.stalled:
            return
        if self._flush_soon is None:
            self._flush_soon = self._flush_later()
        elif self._gathering and self._hurried():
            self._flush_soon.cancel()
            self._flush_soon = self._flush_later()

    def _flush_later(self) -> asyncio.Handle:
        self._gathering = not self._hurried()
        return self._loop.call_later(_GATHER_S, self._flush) if self._gathering else self._loop.call_soon(self._flush)

    def _hurried(self) -> bool:
        return self._urgent or len(self._queue) >= _BATCH_RECORDS

    def _flush(self) -> None:
        self._flush_soon = None
        if self._link is None or self._link.stalled:
            return
        self._send_batch(self._link)
        self._urgent = bool(self._queue)  # what did not fit into this batch has waited already
        self._schedule()

    def _send_batch(self, link: _Link) -> None:
        batch: list[bytes] = []
        size_bytes = 0
        while self._queue and len(batch) < _BATCH_RECORDS and size_bytes < _BATCH_BYTES:
            frame = self._next_built()
            if frame is not None:
                batch += (_LENGTH.pack(len(frame)), frame)
                size_bytes += len(frame)
        if batch:
            link.transport.write(b"".join(batch))

    def _next_built(self) -> bytes | None:
        """The next frame; none when its caller has gone, or when it cannot be built."""
        entry = self._queue.popleft()
        self._queued_bytes -= entry.size_bytes
        if entry.durable and entry.done is None:
            return None  # its time was up while it waited: its caller was told that it is not recorded
        self._last_id += 1
        try:
            frame = entry.record.frame(self._last_id, durable=entry.durable)
        except Exception:
            _log.exception("a record of %s could not be built", entry.record.model)
            self._discard(entry)
            return None
        if entry.durable:
            self._unanswered[self._last_id] = entry
            self._set_timer(entry, self._limits.commit_s, "expected the agent to commit the record, it took too long")
        return frame

    def _discard(self, entry: _Entry) -> None:
        if entry.durable:
            _settle(entry, "the record could not be built: see the log of the serving process")
        else:
            self.dropped += 1

    def _set_timer(self, entry: _Entry, delay_s: float, problem: str) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer = self._loop.call_later(delay_s, _settle, entry, problem)


def _settle(entry: _Entry, problem: str | None) -> None:
    done, entry.done = entry.done, None
    if entry.timer is not None:
        entry.timer.cancel()
    if done is not None:
        done(problem)


class _Reply(msgspec.Struct):
    id: int
    ok: bool
    error: str = ""


class _Link(asyncio.Protocol):
    """One connection to the control process; replies have the same framing as records."""

    def __init__(self, stream: CaptureStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._decoder = msgspec.json.Decoder(_Reply)
        self.stalled = False
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=1 << 20)
        self._stream.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stream.closed()
        self.lost.set()

    def pause_writing(self) -> None:
        self.stalled = True

    def resume_writing(self) -> None:
        self.stalled = False
        self._stream.writable()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while (frame := self._next_frame()) is not None:
                reply = self._decoder.decode(frame)
                self._stream.answered(reply.id, None if reply.ok else reply.error or "the agent refused it")
        except (msgspec.MsgspecError, ValueError) as error:
            _log.error("the agent sent an answer that is none, starting again: %s", error)
            self.transport.abort()

    def _next_frame(self) -> bytes | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
        if end > _MAX_REPLY_BYTES:
            raise ValueError(f"expected at most {_MAX_REPLY_BYTES} bytes, got {end}")
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        return frame
