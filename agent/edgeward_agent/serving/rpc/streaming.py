"""ModelStreamInfer: many requests on one call, answered in their order while later ones run already."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Final

from edgeward_agent.serving.exchange import Limits
from edgeward_agent.serving.refusal import Full, Refusal
from edgeward_agent.serving.rpc.asking import Asking, Pending
from edgeward_agent.serving.rpc.room import left
from edgeward_agent.serving.rpc.writing import Context, refuse, streamed, streamed_error

_WINDOW: Final = 32
"""Requests of one stream that are under way, at most. Further ones wait in the client: its writes stall."""
_LEAST: Final = 2
_WINDOW_BYTES: Final = 8 << 20
"""Requests or answers of one stream that may lie here, or two, since one is written while the next is made. A client
that asks far ahead would fill the room of all."""
MOST: Final = 32
"""Streams at a time. Each may have one message arrive, and nobody sees how large it will be."""


class Streams:
    """All streams of a server. Touched on the loop's thread alone."""

    def __init__(self, asking: Asking, limits: Limits) -> None:
        self._asking = asking
        self._limits = limits
        self._open: set[_Stream] = set()
        self._closing = False

    async def serve(self, context: Context) -> None:
        """One call, to its end. What was asked is answered also when nothing more will be read."""
        if self._closing:  # it was on its way here when the others were told
            await refuse(context, _ending())
        if len(self._open) >= MOST:
            await refuse(context, Full(f"expected at most {MOST} streams at a time, got another"))
        stream = _Stream(self._asking, context, self._limits)
        self._open.add(stream)
        try:
            await stream.run()
        except BaseException:
            self._asking.room.let_go(stream.unread_bytes or 0)
            raise
        finally:
            self._open.discard(stream)
        if stream.unread_bytes is not None:
            await left(self._asking.room, stream.unread_bytes)
        if stream.ended is not None:
            await refuse(context, stream.ended)

    def finish(self) -> None:
        """Read no more, take no more calls; every stream ends after the answers that are due."""
        self._closing = True
        for stream in tuple(self._open):
            stream.finish(_ending())


def _ending() -> Refusal:
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "expected a server that stays, this one is ending")


class _Window:
    """How many requests of a stream are under way: fewer, the larger they and their answers are; two at first."""

    def __init__(self) -> None:
        self._under_way = 0
        self._most = _LEAST
        self._large_bytes = 0
        self._changed = asyncio.Event()

    async def enter(self) -> None:
        while self._under_way >= self._most:
            self._changed.clear()
            await self._changed.wait()
        self._under_way += 1

    def leave(self) -> None:
        self._under_way -= 1
        self._changed.set()

    def learn(self, size_bytes: int) -> None:
        """Of a request or an answer. A large one is forgotten slowly: those of a stream need not be alike."""
        self._large_bytes = max(size_bytes, self._large_bytes * 15 // 16)
        self._most = max(_LEAST, min(_WINDOW, _WINDOW_BYTES // max(1, self._large_bytes)))
        self._changed.set()


class _Stream:
    """One call. A task of its own reads; the call's task writes, in the order in which requests came."""

    def __init__(self, asking: Asking, context: Context, limits: Limits) -> None:
        self._asking = asking
        self._context = context
        self._limits = limits
        self._due: asyncio.Queue[Pending | None] = asyncio.Queue()  # None: nothing follows
        self._window = _Window()
        self._reading: asyncio.Task[None] | None = None
        self.ended: Refusal | None = None  # why, where it was not the client that ended it
        self.unread_bytes: int | None = None
        """What is held of an answer that nobody has read in time. Nothing more is done for this call then."""

    async def run(self) -> None:
        try:
            await self._read_and_write()
        except BaseExceptionGroup as several:  # gRPC knows its own error, that the client has left, by itself alone
            raise several.exceptions[0] from None

    async def _read_and_write(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self._reading = tasks.create_task(self._read(), name="read a stream")
            self._reading.add_done_callback(self._nothing_follows)
            try:
                while (pending := await self._due.get()) is not None and await self._write(pending):
                    self._window.leave()
            finally:
                self._reading.cancel()
                self._abandon()

    def finish(self, why: Refusal) -> None:
        if self._reading is not None and not self._reading.done():
            self.ended = why
            self._reading.cancel()

    async def _read(self) -> None:
        try:
            while True:
                await self._window.enter()
                async with asyncio.timeout(self._limits.idle_s):
                    body = await self._context.read()
                if not isinstance(body, bytes):  # the mark of the end
                    return
                self._window.learn(len(body))
                self._due.put_nowait(self._asking.ask(body, self._context.time_remaining(), streamed))
        except TimeoutError:
            self.ended = Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "expected another request, its time is up")

    def _nothing_follows(self, _: asyncio.Task[None]) -> None:
        """Called by the task, not written at its end: one that is cancelled before it has begun comes to no end."""
        self._due.put_nowait(None)

    async def _write(self, pending: Pending) -> bool:
        """Returns whether somebody has read it."""
        # Nobody waits behind this future but the call: when the caller leaves, it is given up with it.
        try:
            reply = await pending.reply
        except asyncio.CancelledError:
            self._asking.give_up(pending.reply)
            raise
        held_bytes = 0
        if isinstance(reply, Refusal):
            reply = streamed_error(pending.id, str(reply))
        else:
            held_bytes = len(reply)
        self._window.learn(len(reply))
        if await self._asking.room.write(self._context, reply, held_bytes=held_bytes):
            return True
        self.unread_bytes = held_bytes
        return False

    def _abandon(self) -> None:
        """Nobody waits any more: what has not run need not."""
        while not self._due.empty():
            pending = self._due.get_nowait()
            if pending is not None:
                self._asking.give_up(pending.reply)
