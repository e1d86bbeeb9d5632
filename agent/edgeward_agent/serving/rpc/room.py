"""How much memory the messages of all calls may take: as they arrive, while they wait, and until they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, NoReturn

from edgeward_agent.serving.exchange import Limits
from edgeward_agent.serving.refusal import Full, Refusal, invalid
from edgeward_agent.serving.rpc.places import Places
from edgeward_agent.serving.rpc.writing import Context

_COUNTED_FROM_BYTES: Final = 1 << 16
_AT_ONCE: Final = 8
"""Messages that arrive at the same time. gRPC takes in a whole message, whatever its size, before anybody sees it;
those of further calls stay in their clients, since nobody reads them."""
_SLOW: Final = 8
"""As many again may arrive slowly, beside those. Who is slowest of more is refused when others wait."""
_PROMPT_S: Final = 0.5
"""Who takes longer gives his place to the next: eight callers who send nothing would lock everybody out."""


@dataclass(slots=True)
class _Arrival:
    """A message that is read, or waits for a place to be."""

    asked_s: float  # on the loop's clock
    begun_s: float | None = None  # None: it waits
    placed: bool = False  # and not yet among the slow


class Room:
    """Touched on the loop's thread alone."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held_bytes = 0
        self._places = Places(_AT_ONCE)
        self._arriving: dict[asyncio.Task[Any], _Arrival] = {}  # in the order in which they came
        self._late: set[asyncio.Task[Any]] = set()

    async def keep_time(self) -> None:
        """End reads whose time is up. A sweep now and then costs less than a timer for each, which took 80 µs."""
        loop, allowed_s = asyncio.get_running_loop(), self._limits.request_s
        while True:
            await asyncio.sleep(min(_PROMPT_S / 2, allowed_s / 4))
            now_s = loop.time()
            self._end(task for task, each in self._arriving.items() if now_s - each.asked_s > allowed_s)
            self._make_way(now_s)

    def _make_way(self, now_s: float) -> None:
        """Give places of those who are not prompt to as many who wait."""
        waiting = sum(each.begun_s is None for each in self._arriving.values())
        if not waiting:
            return
        begun = [(each.begun_s, task, each) for task, each in self._arriving.items() if each.begun_s is not None]
        begun.sort(key=lambda each: each[0])
        for since_s, _, each in begun:
            if waiting and each.placed and now_s - since_s > _PROMPT_S:
                each.placed = False
                self._places.give()
                waiting -= 1
        slow = [task for _, task, each in begun if not each.placed]
        self._end(slow[: max(0, len(slow) - _SLOW)])

    def _end(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        for task in tuple(tasks):
            self._late.add(task)
            task.cancel()

    async def read(self, context: Context) -> bytes:
        """The one message of a call.

        Raises:
            Refusal: it did not come in time, or not at all.
        """
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._arriving[task] = arrival = _Arrival(loop.time())
        try:
            await self._places.take(context.peer)
            arrival.begun_s, arrival.placed = loop.time(), True
            body = await context.read()
        except asyncio.CancelledError:
            if task not in self._late:
                raise  # the caller has left
            task.uncancel()
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "expected a whole message, its time is up") from None
        finally:
            if arrival.placed:
                self._places.give()
            del self._arriving[task]
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
