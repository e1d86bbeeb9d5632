"""Places that calls wait for, shared so that one connection with many of them keeps nobody else waiting."""

from __future__ import annotations

import asyncio
from collections import Counter, deque


class Share:
    """So much of something, of which a connection may have as much as is left for all others.

    One alone has half of it, two that want more have a third each, and whoever comes next still finds as much.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._own = Counter[str]()

    def has_room(self, peer: str) -> bool:
        return self._own[peer] < self._free

    def take(self, peer: str) -> None:
        self._free -= 1
        self._own[peer] += 1

    def give(self, peer: str) -> None:
        self._free += 1
        self._own[peer] -= 1
        if not self._own[peer]:
            del self._own[peer]

    def own(self, peer: str) -> int:
        return self._own[peer]


class Places:
    """Shared places; freed ones go to one connection after the other. Touched on the loop's thread alone."""

    def __init__(self, most: int) -> None:
        self._share = Share(most)
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # the next connection first; each has somebody

    async def take(self, peer: str) -> None:
        """Wait for a place for the connection `peer`."""
        if peer not in self._waiting and self._share.has_room(peer):
            self._share.take(peer)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(peer, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(peer, turn)
            else:  # it was given a place meanwhile
                self.give(peer)
            raise

    def give(self, peer: str) -> None:
        """Free a place of `peer`; who may have it now has it."""
        self._share.give(peer)
        while (following := next(filter(self._share.has_room, self._waiting), None)) is not None:
            line = self._waiting.pop(following)
            turn = line.popleft()
            if line:
                self._waiting[following] = line  # behind all others
            if not turn.done():  # else it was cancelled, and is about to leave
                self._share.take(following)
                turn.set_result(None)

    def _leave(self, peer: str, turn: asyncio.Future[None]) -> None:
        line = self._waiting.get(peer)
        if line is None or turn not in line:
            return
        line.remove(turn)
        if not line:
            del self._waiting[peer]
