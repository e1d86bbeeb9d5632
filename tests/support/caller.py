"""The connection that a request came from, without a socket."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from edgeward_agent.serving.exchange import KnownAnswer, Request
from edgeward_agent.wire.tensors import Buffer


class Caller:
    """Keeps what it is told: status, body and the further lines of the head. `closed` says that nobody waits."""

    def __init__(self) -> None:
        self.closed = False
        self.told: list[tuple[int, bytes, bytes]] = []

    def reply(
        self,
        request: Request,
        status: HTTPStatus,
        parts: Sequence[Buffer],
        header_length: int | None,
        encoding: bytes | None = None,
        fields: bytes = b"",
    ) -> None:
        self.told.append((int(status), b"".join(parts), fields))

    def reply_known(self, request: Request, known: KnownAnswer) -> None:
        raise AssertionError("nothing is asked twice")

    def hold(self, size: int) -> None:
        """There is room for all."""
