"""Places that calls wait for, so that one connection with many of them keeps nobody else waiting."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Places:
    """So many at a time; freed ones go to one connection after the other. Touched on the loop's thread alone."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the next connection first; each has somebody

    async def take(self, peer: Callable[[], str]) -> None:
        """Wait for a place. `peer` says which connection it is for, and is asked only when there is none free."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        name = peer()
        self._waiting.setdefault(name, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(name, turn)
            else:  # it was given a place meanwhile
                self.give()
            raise

    def give(self) -> None:
        """Free a place: the next has it."""
        while self._waiting:
            name = next(iter(self._waiting))
            line = self._waiting.pop(name)
            turn = line.popleft()
            if line:
                self._waiting[name] = line  # behind all others
            if not turn.done():  # else it was cancelled, and is about to leave
                turn.set_result(None)
                return
        self._free += 1

    def _leave(self, name: str, turn: asyncio.Future[None]) -> None:
        line = self._waiting.get(name)
        if line is None or turn not in line:
            return
        line.remove(turn)
        if not line:
            del self._waiting[name]
