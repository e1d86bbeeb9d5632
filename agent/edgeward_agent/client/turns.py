"""How many questions of one `AsyncClient` are under way at once, and how long the others wait."""

from __future__ import annotations

import asyncio

from edgeward_agent.client.errors import InvalidRequest, Unreachable


class Turns:
    """`async with turns as ends_s`: a question has its turn, and is to be answered by then, on the loop's clock.

    Raises:
        InvalidRequest: this is another event loop than that of the first question.
        Unreachable: its turn has not come within `timeout_s`.
    """

    def __init__(self, connections: int, timeout_s: float) -> None:
        self._connections = connections
        self._timeout_s = timeout_s
        self._free = asyncio.Semaphore(connections)
        self._loop: asyncio.AbstractEventLoop | None = None

    def check_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that runs. Raises InvalidRequest: connections are kept that belong to another."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop and self._loop is not None:
            refused = InvalidRequest("expected the event loop of this client's first question, got another")
            refused.hint = (
                "Make an AsyncClient in each event loop (each `asyncio.run` has its own), and close it there."
            )
            raise refused
        return loop

    async def __aenter__(self) -> float:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop = self.check_loop()
        if self._free.locked():
            await self._wait()
        else:
            await self._free.acquire()
        return loop.time() + self._timeout_s

    async def __aexit__(self, *_: object) -> None:
        self._free.release()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._free.acquire()
        except TimeoutError:
            raise Unreachable(
                f"expected a turn within {self._timeout_s:g} s, other questions on this client have "
                f"its connections ({self._connections})"
            ) from None
