"""The connection of the serving process to the control process: records go out, verdicts on durable ones come back."""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import Final, Protocol, cast

import msgspec

from edgeward_agent.series import READS_SERIES

_log: Final = logging.getLogger(__name__)

LENGTH: Final = struct.Struct("<I")
"""Of a frame, before it; in both directions."""
_MAX_REPLY_BYTES: Final = 64 << 10


class Stream(Protocol):
    """Who sends over a link."""

    def opened(self, link: CaptureLink) -> None:
        """It can be sent on."""

    def closed(self) -> None:
        """It is lost."""

    def answered(self, frame_id: int, problem: str | None) -> None:
        """A durable record was committed; else why not."""

    def writable(self) -> None:
        """It is no longer stalled."""


class _Reply(msgspec.Struct):
    id: int
    ok: bool
    error: str = ""
    reads: str = ""  # said once, before any answer


class CaptureLink(asyncio.Protocol):
    """One connection to the control process; replies have the same framing as records."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._decoder = msgspec.json.Decoder(_Reply)
        self.stalled = self.reads_series = False
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
        while (reply := self._next_reply()) is not None:
            self.reads_series = self.reads_series or reply.reads == READS_SERIES
            self._stream.answered(reply.id, None if reply.ok else reply.error or "the agent refused it")

    def _next_reply(self) -> _Reply | None:
        try:
            frame = self._next_frame()
            return self._decoder.decode(frame) if frame is not None else None
        except (msgspec.MsgspecError, ValueError) as error:
            _log.error("the agent sent an answer that is none, starting again: %s", error)
            self._buffer.clear()
            self.transport.abort()
            return None

    def _next_frame(self) -> bytes | None:
        if len(self._buffer) < LENGTH.size:
            return None
        end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
        if end > _MAX_REPLY_BYTES:
            raise ValueError(f"expected at most {_MAX_REPLY_BYTES} bytes, got {end}")
        if len(self._buffer) < end:
            return None
        frame = bytes(self._buffer[LENGTH.size : end])
        del self._buffer[:end]
        return frame
