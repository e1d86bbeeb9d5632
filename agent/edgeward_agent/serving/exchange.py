"""One request and its answer, without a socket: what handlers see, and how an answer looks on the wire."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

import msgspec

from edgeward_agent.serving.callers import MANY, Callers
from edgeward_agent.serving.refusal import Refusal, error_body, internal_error, invalid
from edgeward_agent.serving.routes import origin_form
from edgeward_agent.wire.tensors import Buffer

_log: Final = logging.getLogger(__name__)

HOST: Final = b"host"
ORIGIN: Final = b"origin"
AUTHORIZATION: Final = b"authorization"
CONTENT_LENGTH: Final = b"content-length"
TRANSFER_ENCODING: Final = b"transfer-encoding"
INFERENCE_LENGTH: Final = b"inference-header-content-length"
CONTENT_ENCODING: Final = b"content-encoding"
ACCEPT_ENCODING: Final = b"accept-encoding"
_STATUS_LINE: Final = {each: b"HTTP/1.1 %d %s\r\n" % (each, each.phrase.encode()) for each in HTTPStatus}
_now_ns: Final = time.perf_counter_ns
_OK: Final = HTTPStatus.OK  # on Python 3.11 a member of an enum costs a call to look up

MOST_CONNECTIONS: Final = 512

Headers = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one client, and all together, may take. Sizes in bytes, times in seconds."""

    token: bytes = field(default=b"", repr=False)  # what everybody has to show over TCP; empty is nothing
    connections: int = MOST_CONNECTIONS
    head_bytes: int = 16 << 10
    body_bytes: int = 64 << 20  # also when it is decompressed, and for inputs in shared memory
    json_bytes: int = 1 << 20  # of it: JSON in bulk holds up everybody, about 8 ms for each MiB
    held_bytes: int = 256 << 20  # bodies of all requests that wait for an answer
    request_s: float = 30.0  # from the first byte of a request to its last
    stranger_s: float = 15.0  # without a request, for who has not shown the token that is wanted
    idle_s: float = 600.0  # bedside applications ask, pause for minutes, and ask again
    write_s: float = 30.0
    linger_s: float = 2.0
    shared_memory: bool = False  # whether clients may name files under /dev/shm


class Replier(Protocol):
    """The connection that a request came from."""

    closed: bool

    def reply(
        self,
        request: Request,
        status: HTTPStatus,
        parts: Sequence[Buffer],
        header_length: int | None,
        encoding: bytes | None = None,
        fields: bytes = b"",
    ) -> None: ...

    def reply_known(self, request: Request, known: KnownAnswer) -> None: ...

    def hold(self, size: int) -> None:
        """Count bytes that are kept until the answer is sent. Raises Refusal 503: there is no room."""


class Timed(Protocol):
    """A connection as its server sees it."""

    @property
    def stranger_since_s(self) -> float | None:
        """When it came, if it has not shown the token that is wanted and nothing is due to it; else None."""

    @property
    def said_all(self) -> bool:
        """Its answers are sent, and it is only waited for the client to leave."""

    def check_time(self, now: float) -> None:
        """End what has taken too long."""

    def finish(self) -> None:
        """Leave now when idle, else after the answers that are due."""

    def abort(self) -> None:
        """Leave at once."""


class KnownAnswer:
    """An answer that is the same each time but for the bytes of its tensors, which lie where `tensors` look."""

    __slots__ = ("header_length", "parts", "whole")

    def __init__(self, text: bytes, tensors: Sequence[Buffer], header_length: int) -> None:
        self.header_length = header_length
        self.parts: tuple[Buffer, ...] = (text, *tensors)
        head = answer_head(_OK, sum(map(len, self.parts)), header_length, keep_alive=True)
        self.whole: tuple[Buffer, ...] = (head + text, *tensors)


class Head:
    """Everything of a request but its body, as the parser has read it. Requests of equal bytes share one."""

    __slots__ = ("accepts", "denied", "encoding", "header_length", "headers", "keep_alive", "method", "target")

    def __init__(
        self, *, method: bytes, target: bytes, headers: Headers, keep_alive: bool, denied: Refusal | None = None
    ) -> None:
        """Raises Refusal for a header that says nothing sensible, or contradicts the target.

        Args:
            denied: what to answer when the caller may not ask.
        """
        self.denied = denied
        self.method = method
        self.target = target if target[:1] == b"/" else origin_form(target, headers.get(HOST))
        self.headers = headers  # those that anybody asks for
        self.keep_alive = keep_alive
        self.header_length = whole_number(headers.get(INFERENCE_LENGTH))
        self.encoding = headers.get(CONTENT_ENCODING)  # of the body; None is as it is
        self.accepts = headers.get(ACCEPT_ENCODING)


class Request:
    """One request, complete. Answer it exactly once, on the loop's thread, now or later."""

    __slots__ = ("_connection", "head", "held_bytes", "keep_alive", "lies", "received_ns")

    def __init__(self, connection: Replier, head: Head, body: Buffer, held_bytes: int) -> None:
        """Args:
        body: as a view it is lent, and valid until the handler returns.
        """
        self._connection = connection
        self.head = head
        self.lies = body
        self.held_bytes = held_bytes  # what it counts for among the bodies that wait
        self.keep_alive = head.keep_alive
        self.received_ns = _now_ns()

    @property
    def method(self) -> bytes:
        return self.head.method

    @property
    def target(self) -> bytes:
        return self.head.target

    @property
    def header_length(self) -> int | None:
        return self.head.header_length

    @property
    def body(self) -> bytes | bytearray:
        """The body, to keep. `lies` is where it lies now: to copy from at once, and no longer."""
        lies = self.lies
        if isinstance(lies, memoryview):
            lies = self.lies = bytes(lies)
        return lies

    @property
    def gone(self) -> bool:
        """Nobody waits for the answer any more."""
        return self._connection.closed

    def replace_body(self, body: bytes) -> None:
        """Put what the body is when decompressed in its place.

        Raises:
            Refusal: 503, there is no room for it.
        """
        self._connection.hold(len(body) - self.held_bytes)
        self.lies = body
        self.held_bytes = len(body)

    def keep(self) -> None:
        """Copy the body if it is lent and may still be asked for."""
        if isinstance(self.lies, memoryview):
            self.lies = bytes(self.lies)

    def serve(self, handler: Handler) -> None:
        """Let `handler` answer; what it raises is answered too."""
        try:
            handler(self)
        except Refusal as refusal:
            self.turn_away(refusal)
        except Exception:
            _log.exception("a request failed: %r", self.target[:200])
            self.keep_alive = False
            self.turn_away(internal_error())

    def answer(
        self,
        parts: Sequence[Buffer],
        *,
        header_length: int | None = None,
        encoding: bytes | None = None,
        content_type: bytes = b"",
    ) -> None:
        """Send 200.

        Args:
            header_length: size of the JSON in front of binary tensors, None if there are none.
            encoding: how the parts are compressed; the length is that of the JSON before.
            content_type: what they are, when they are not what the protocol has for answers.
        """
        fields = b"Content-Type: %b\r\n" % content_type if content_type else b""
        self._connection.reply(self, _OK, parts, header_length, encoding, fields)

    def answer_known(self, known: KnownAnswer) -> None:
        """Send 200 with the tensors of a known answer as they are now."""
        self._connection.reply_known(self, known)

    def refuse(self, status: HTTPStatus, message: str) -> None:
        """Send an error in the form that the protocol asks for."""
        self._connection.reply(self, status, (error_body(message),), None)

    def turn_away(self, refusal: Refusal) -> None:
        """The same, with all that the refusal says."""
        body = (msgspec.json.encode(refusal.document()),)
        self._connection.reply(self, refusal.status, body, None, fields=refusal.fields)


Handler = Callable[[Request], None]
"""Answers a request now or later; may raise Refusal instead."""
Guard = Callable[[bytes, Headers], Refusal | None]
"""Takes target and headers. Raises Refusal when a request must not be read any further; returns one when it must not be
answered otherwise, and the next may be better. The same for the same bytes, always: it is remembered with the head.
"""


class ServerState:
    """What all connections of a server share. Touched on the loop's thread alone."""

    def __init__(self, handler: Handler, limits: Limits, callers: Callers | None = None) -> None:
        self.handler = handler
        self.limits = limits
        self.callers = callers or Callers(others=MANY)
        self.connections: set[Timed] = set()
        self.turned_away: set[Timed] = set()  # for want of room; they still read why
        self.held_bytes = 0
        self.readers_bytes = 0  # of memory that large requests are read to
        self.closing = False
        self.emptied = asyncio.Event()

    def make_room(self) -> bool:
        """Let the one leave who has not shown the token that is wanted for the longest time. False: all have."""
        since = [(each.stranger_since_s, each) for each in self.connections]
        strangers = [(since_s, each) for since_s, each in since if since_s is not None]
        if not strangers:
            return False
        _, longest = min(strangers, key=lambda stranger: stranger[0])
        self.connections.remove(longest)
        self.callers.left()
        longest.abort()
        return True


def answer_head(
    status: HTTPStatus,
    size: int,
    header_length: int | None,
    encoding: bytes | None = None,
    *,
    keep_alive: bool,
    fields: bytes = b"",
) -> bytes:
    """Everything before the body.

    Args:
        header_length: the size of its JSON when binary tensors follow.
        fields: more lines, each with its end.
    """
    end = fields + (b"\r\n" if keep_alive else b"Connection: close\r\n\r\n")
    if encoding is not None:
        end = b"Content-Encoding: %b\r\n%b" % (encoding, end)
    if header_length is not None:
        kind = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n" % header_length
    else:
        kind = b"Content-Type: application/json\r\n" if size and b"Content-Type:" not in fields else b""
    return b"%bContent-Length: %d\r\n%b" % (_STATUS_LINE[status] + kind, size, end)


def has_body(headers: Headers) -> bool:
    """Whether a request says that more of it follows its head."""
    return TRANSFER_ENCODING in headers or headers.get(CONTENT_LENGTH, b"0") != b"0"


def whole_number(value: bytes | None) -> int | None:
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise invalid(f"expected a whole number of bytes, got {value[:40].decode('latin-1')!r}")
    return int(value)
