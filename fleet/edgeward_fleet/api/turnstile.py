"""Few requests of devices are worked on at once; the others wait where waiting costs nothing.

When a thousand devices ask in the same moment, each step of each answer otherwise stands in one long line of the event
loop, and a person's page stands in it again and again. A turn is held for the work alone: it begins when the request
is here whole and ends when the answer begins, so that nobody on a slow line keeps others out. What is not here whole
lies in memory, before anybody has looked whether the device may speak at all: each certificate has few such requests.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Hashable, Iterator
from contextlib import contextmanager
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeward_fleet.api import problems
from edgeward_fleet.errors import TooMany

OF_ONE: Final = 8  # an agent has a poll, a report, a batch and a chunk on their way at most


class Turnstile:
    """Wraps an application that refuses bodies of more than `limit_bytes`: no more than that is waited for.

    `free` are paths whose requests are parked and need no turn.
    """

    def __init__(self, app: ASGIApp, *, at_once: int, limit_bytes: int, free: Collection[str]) -> None:
        self._app = app
        self._limit_bytes = limit_bytes
        self._free = frozenset(free)
        self._turns = asyncio.Semaphore(at_once)
        self._arriving: Counter[Hashable] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._free:
            return await self._app(scope, receive, send)
        device = scope.get("extensions", {}).get("tls", {}).get("client_certificate_der")
        if self._arriving[device] >= OF_ONE:
            answer = problems.response(
                TooMany(f"expected at most {OF_ONE} requests of one device at a time, got more", retry_after_s=1)
            )
            answer.headers["Connection"] = "close"  # the body is still on its way; nobody will read it
            return await answer(scope, receive, send)
        turn = _Turn(self._turns)
        with self._counted(device):
            gathered = await _gathered(receive, self._limit_bytes)
            await turn.begin()
        try:
            return await self._app(scope, _replayed(gathered, receive), turn.ending(send))
        finally:
            turn.end()

    @contextmanager
    def _counted(self, device: Hashable) -> Iterator[None]:
        self._arriving[device] += 1
        try:
            yield
        finally:
            self._arriving[device] -= 1
            if not self._arriving[device]:
                del self._arriving[device]


class _Turn:
    """Ends once, whoever ends it first."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns = turns
        self._begun = False

    async def begin(self) -> None:
        await self._turns.acquire()
        self._begun = True

    def end(self) -> None:
        if self._begun:
            self._begun = False
            self._turns.release()

    def ending(self, send: Send) -> Send:
        async def sent(message: Message) -> None:
            self.end()
            await send(message)

        return sent


async def _gathered(receive: Receive, limit_bytes: int) -> list[Message]:
    """The request's body as it came, to its end or until the application will refuse what is here already."""
    messages: list[Message] = []
    size = 0
    while size <= limit_bytes:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return messages


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    left = iter(messages)

    async def replay() -> Message:
        message = next(left, None)
        return message if message is not None else await receive()

    return replay
