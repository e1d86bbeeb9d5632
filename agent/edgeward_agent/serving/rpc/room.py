"""How much memory the messages of all calls may take: as they arrive, while they wait, and until they are read."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final, NoReturn

import msgspec

from edgeward_agent.serving.exchange import Limits
from edgeward_agent.serving.refusal import Full, Refusal, invalid
from edgeward_agent.serving.rpc.places import Places
from edgeward_agent.serving.rpc.writing import Context

_COUNTED_FROM_BYTES: Final = 1 << 16
_AT_ONCE: Final = 12
"""Messages that arrive at the same time, half of them over one connection. gRPC takes in a whole message, whatever its
size, before anybody sees it; those of further calls stay in their clients, since nobody reads them."""
_SLOW: Final = 8
"""As many again may arrive slowly, beside those. Of more, that of the connection with most of them is refused, when one
with fewer waits."""
_PROMPT_S: Final = 0.5
"""Who takes longer gives his place to the next: a few callers who send nothing would lock out those who do."""


class _Arrival(msgspec.Struct):
    """A message that is read, or waits for a place to be."""

    peer: str  # the connection that it comes over
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
        self._writing: dict[asyncio.Task[Any], float] = {}  # since when, on the loop's clock
        self._late: set[asyncio.Task[Any]] = set()

    async def keep_time(self) -> None:
        """End what takes too long. A sweep now and then costs less than a timer for each, which took 80 µs."""
        loop, read_s, write_s = asyncio.get_running_loop(), self._limits.request_s, self._limits.write_s
        while True:
            await asyncio.sleep(min(_PROMPT_S / 2, read_s / 4, write_s / 4))
            now_s = loop.time()
            self._end(task for task, each in self._arriving.items() if now_s - each.asked_s > read_s)
            self._end(task for task, since_s in self._writing.items() if now_s - since_s > write_s)
            self._make_way(now_s)

    def _make_way(self, now_s: float) -> None:
        """Give places of those who are not prompt to as many who wait."""
        here = [(task, each) for task, each in self._arriving.items() if task not in self._late]
        waiting = [each.peer for _, each in here if each.begun_s is None]
        if not waiting:
            return
        slow = [(task, each) for task, each in here if each.begun_s is not None and not each.placed]
        tardy = [(each.begun_s, task, each) for task, each in here if each.begun_s is not None and each.placed]
        tardy = [each for each in tardy if now_s - each[0] > _PROMPT_S]
        tardy.sort(key=lambda each: each[0])
        for _, task, each in tardy[: len(waiting)]:
            if len(slow) >= _SLOW and not self._refuse_one(slow, waiting):
                return
            each.placed = False
            slow.append((task, each))
            self._places.give(each.peer)

    def _refuse_one(self, slow: list[tuple[asyncio.Task[Any], _Arrival]], waiting: list[str]) -> bool:
        """End a slow message of the connection that has most of them, if one with fewer waits: who sends much over a
        slow line is not to be ended by what he sends next.
        """
        crowd = Counter(each.peer for _, each in slow)
        peer, most = crowd.most_common(1)[0]
        if most <= min(crowd[each] for each in waiting):
            return False
        ended = next(each for each in slow if each[1].peer == peer)  # the first is the oldest
        slow.remove(ended)
        self._end([ended[0]])
        return True

    def _end(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        for task in tuple(tasks):
            if task not in self._late:
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
        self._arriving[task] = arrival = _Arrival(context.peer(), loop.time())
        try:
            await self._places.take(arrival.peer)
            arrival.begun_s, arrival.placed = loop.time(), True
            body = await context.read()
        except asyncio.CancelledError:
            if task not in self._late:
                raise  # the caller has left
            task.uncancel()
            missing = "a free place for the message" if arrival.begun_s is None else "a whole message"
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, f"expected {missing}, its time is up") from None
        finally:
            if arrival.placed:
                self._places.give(arrival.peer)
            del self._arriving[task]
            self._late.discard(task)
        if not isinstance(body, bytes):  # the mark of the end
            raise invalid("expected a message, got none")
        return body

    async def write(self, context: Context, message: bytes, *, held_bytes: int) -> bool:
        """Send an answer, and let the room go that was taken in for it. False when nobody has read it in time.

        A call with a write under way cannot be ended from this side, and keeps its message: then its room is not let
        go, see `left`.
        """
        task = asyncio.current_task()
        assert task is not None
        self._writing[task] = asyncio.get_running_loop().time()
        try:
            await context.write(message)
        except asyncio.CancelledError:
            if task not in self._late:
                self.let_go(held_bytes)
                raise  # the caller has left
            task.uncancel()
            return False
        except BaseException:
            self.let_go(held_bytes)
            raise
        finally:
            del self._writing[task]
            self._late.discard(task)
        self.let_go(held_bytes)
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
