"""The agent's way to the device port over sockets of the event loop.

The agent gives each call a thread, which is right for one device; a thousand of them need calls that wait for nothing.
What the agent says over it, and when, stays the agent's own code.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httptools

from edgeward_agent.errors import LinkLost, LinkRefused
from edgeward_agent.link.wire import Answer, Call, Wire

_RETRY_AFTER_S: Final = 1.0


@dataclass(slots=True)
class Tally:
    """What all devices together asked; `lost` holds the words of each request that got no good answer."""

    requests: int = 0
    received_bytes: int = 0
    lost: list[str] = field(default_factory=list)


class LoopWire(Wire):
    """As `Wire`, with kept-alive connections, as many as there are calls at once."""

    def __init__(self, base_url: str, context: ssl.SSLContext, *, timeout_s: float, tally: Tally) -> None:
        super().__init__(base_url, context, timeout_s=timeout_s)
        self._context = context
        self._tally = tally
        self._idle: list[_Connection] = []

    async def request(self, call: Call) -> Answer:
        """Raises LinkLost and LinkRefused as `Wire` does."""
        self._tally.requests += 1
        try:
            async with asyncio.timeout(self._timeout_s + call.wait_s):
                answer = await self._asked(call)
        except (OSError, TimeoutError) as error:
            raise self._note(LinkLost(f"{call.method} {call.path}: {type(error).__name__} {error}")) from None
        self._tally.received_bytes += len(answer.body)
        if 200 <= answer.status < 300:
            return answer
        text = f"{call.method} {call.path}: {answer.status} {answer.body[:200]!r}"
        if answer.status in (408, 425, 429) or answer.status >= 500:
            raise self._note(LinkLost(text, retry_after_s=_RETRY_AFTER_S))
        raise self._note(LinkRefused(text, status=answer.status))

    def close(self) -> None:
        super().close()
        while self._idle:
            self._idle.pop().cut()

    async def _asked(self, call: Call) -> Answer:
        connection = self._idle.pop() if self._idle else await self._connected()
        try:
            answer = await connection.ask(_head(call, self._host) + (call.body or b""))
        except BaseException:
            connection.cut()  # what is still to come belongs to no other call
            raise
        if connection.is_open:
            self._idle.append(connection)
        return answer

    async def _connected(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self._forget), self._host, self._port, ssl=self._context
        )
        return connection

    def _forget(self, connection: _Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def _note(self, error: LinkLost | LinkRefused) -> LinkLost | LinkRefused:
        self._tally.lost.append(str(error))
        return error


class _Connection(asyncio.Protocol):
    """One request at a time; httptools reads the answers and calls the `on_…` methods."""

    def __init__(self, closed: Callable[[_Connection], None]) -> None:
        self._closed = closed
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._pieces: list[bytes] = []
        self.is_open = False

    async def ask(self, request: bytes) -> Answer:
        """Raises OSError when the connection ends before the answer does."""
        if self._transport is None or not self.is_open:
            raise ConnectionResetError("the connection was closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def cut(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport, self.is_open = transport, True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(ConnectionAbortedError(f"expected HTTP, got: {error}"))
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._closed(self)
        self._end(ConnectionResetError(str(exc or "the connection was closed")))

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        answer = Answer(status=self._parser.get_status_code(), body=b"".join(self._pieces))
        self._pieces.clear()
        self.is_open = self.is_open and self._parser.should_keep_alive()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def _end(self, error: OSError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


def _head(call: Call, host: str) -> bytes:
    lines = [f"{call.method} {call.path} HTTP/1.1", f"Host: {host}"]
    if call.body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(call.body)}"]
    return "\r\n".join((*lines, "", "")).encode()
