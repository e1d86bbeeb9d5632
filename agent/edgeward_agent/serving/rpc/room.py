"""How much memory the messages of all calls may take: as they arrive, while they wait, and until they are read."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final, NoReturn

from edgeward_agent.serving.exchange import Limits
from edgeward_agent.serving.refusal import Full, Refusal, invalid
from edgeward_agent.serving.rpc.writing import Context

_COUNTED_FROM_BYTES: Final = 1 << 16
_AT_ONCE: Final = 8
"""Messages that arrive at the same time. gRPC takes in a whole message, whatever its size, before anybody sees it;
those of further calls stay in their clients, since nobody reads them."""
_PRESSED_S: Final = 2.0
"""For one of them while others wait: else eight who send nothing would stop everybody for as long as one may take."""


class Room:
    """Touched on the loop's thread alone."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held_bytes = 0
        self._arriving = asyncio.Semaphore(_AT_ONCE)
        self._reading: dict[asyncio.Task[Any], float] = {}  # since when, on the loop's clock
        self._late: set[asyncio.Task[Any]] = set()

    async def keep_time(self) -> None:
        """End reads whose time is up. One sweep a second costs less than a timer for each, which took 80 µs."""
        loop, usual_s = asyncio.get_running_loop(), self._limits.request_s
        while True:
            await asyncio.sleep(min(1.0, usual_s / 4))
            allowed_s = min(usual_s, _PRESSED_S) if self._arriving.locked() else usual_s
            late = [task for task, since_s in self._reading.items() if loop.time() - since_s > allowed_s]
            self._late.update(late)
            for task in late:
                task.cancel()

    async def read(self, context: Context) -> bytes:
        """The one message of a call.

        Raises:
            Refusal: it did not come in time, or not at all.
        """
        async with self._arriving:
            return await self._read(context)

    async def _read(self, context: Context) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        self._reading[task] = asyncio.get_running_loop().time()
        try:
            body = await context.read()
        except asyncio.CancelledError:
            if task not in self._late:
                raise  # the caller has left
            task.uncancel()
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "expected a whole message, its time is up") from None
        finally:
            del self._reading[task]
            self._late.discard(task)
        if not isinstance(body, bytes):  # the mark of the end
            raise invalid("expected a message, got none")
        return body

    async def write(self, context: Context, message: bytes) -> bool:
        """Send an answer that was taken in, and let its room go. False when nobody has read it in time.

        A call with a write under way cannot be ended from this side, and keeps its message: then its room is not let
        go, see `left`.
        """
        if len(message) < _COUNTED_FROM_BYTES:
            await context.write(message)
            return True
        try:
            async with asyncio.timeout(self._limits.write_s):
                await context.write(message)
        except TimeoutError:
            return False
        except BaseException:
            self.let_go(len(message))
            raise
        self.let_go(len(message))
        return True

    def let_go_with_the_call(self, size: int) -> None:
        """When this task ends: that of a call sends what is returned, and ends when it was read or the caller left."""
        task = asyncio.current_task()
        if size >= _COUNTED_FROM_BYTES and task is not None:
            task.add_done_callback(lambda _: self.let_go(size))

    def take_in(self, size: int, *, own_bytes: int = 0) -> None:
        """Count a message; one that is larger than all may be comes in when it is alone.

        Args:
            own_bytes: of what is held, what its own request is.

        Raises:
            Refusal: 503, there is no room for it.
        """
        if size < _COUNTED_FROM_BYTES:
            return
        others_bytes = self._held_bytes - (own_bytes if own_bytes >= _COUNTED_FROM_BYTES else 0)
        if others_bytes and self._held_bytes + size > self._limits.held_bytes:
            raise Full("expected room for a message, too many large ones wait")
        self._held_bytes += size

    def let_go(self, size: int) -> None:
        if size >= _COUNTED_FROM_BYTES:
            self._held_bytes -= size

    @property
    def held_bytes(self) -> int:
        return self._held_bytes


async def left(room: Room, size: int) -> NoReturn:
    """Wait until the caller of a call leaves who does not read its answer, and let the room of it go."""
    try:
        await asyncio.Event().wait()
    finally:
        room.let_go(size)
    raise AssertionError  # the task is cancelled
