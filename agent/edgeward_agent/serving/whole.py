"""Large requests of a client that asks the same way again: read to where they lie, not piece by piece.

A parser hands on a body in pieces that are copied and joined: for an ECG that took longer than to read it from the
socket. A head that came before, byte for byte, says where the body begins and how long it is; so this reads straight
into memory of that size. Anything else that comes goes to the parser, as if this had not been here.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import numpy as np

from edgeward_agent.serving.exchange import Head

SMALLEST_BYTES: Final = 1 << 16
LARGEST_BYTES: Final = 2 << 20
"""Of a body. A smaller one comes at once, and a larger one takes so long that copies do not count."""
_ALIGNMENT: Final = 64  # of the first tensor, so that a model can run on it where it lies


class Known:
    """A head that came before on this connection, byte for byte, and how long a request with it is."""

    __slots__ = ("begin", "body_at", "head", "size")

    def __init__(self, head: Head, begin: bytes, size: int) -> None:
        self.head = head
        self.begin = begin
        self.body_at = len(begin)
        self.size = size


class Reading(Protocol):
    """The connection that is read for."""

    @property
    def free(self) -> bool:
        """Nothing is due, and a request would be served now."""

    def came_whole(self, body: memoryview) -> None:
        """Serve a request with the known head. The body is lent until this returns."""

    def came_in_part(self) -> None:
        """A request has begun to come."""

    def came_otherwise(self, data: bytes) -> None:
        """Read this with the parser, and what follows: it is not what was expected."""

    def connection_lost(self, exc: Exception | None) -> None: ...

    def eof_received(self) -> bool: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class WholeReader(asyncio.BufferedProtocol):
    """Stands in for a connection at its transport while large requests with a known head are expected.

    The memory is this connection's own and is written to only between two calls of `came_…`.
    """

    def __init__(self, connection: Reading, known: Known) -> None:
        self._connection = connection
        self._known = known
        # One byte more than is expected: when all of it is filled, the loop would ask the socket again in vain.
        memory = np.empty(known.size + 1 + _ALIGNMENT, np.uint8)
        tensors_at = known.body_at + (known.head.header_length or 0)
        begin = -(memory.ctypes.data + tensors_at) % _ALIGNMENT
        self._view = memory[begin : begin + known.size + 1].data
        self._body = self._view[known.body_at : known.size]
        self._filled = 0

    @property
    def size_bytes(self) -> int:
        return len(self._view)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        filled = self._filled = self._filled + nbytes
        known, connection = self._known, self._connection
        if not (connection.free and filled <= known.size and self._begins_as_known(filled)):
            self._filled = 0
            connection.came_otherwise(bytes(self._view[:filled]))
        elif filled == known.size:
            self._filled = 0
            connection.came_whole(self._body)
        elif filled == nbytes:
            connection.came_in_part()

    def _begins_as_known(self, filled: int) -> bool:
        begin = self._known.begin
        come = bytes(self._view[: min(filled, len(begin))])
        return begin.startswith(come)

    # -- what the connection hears all the same

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def eof_received(self) -> bool:
        return self._connection.eof_received()

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
