"""One HTTP/1.1 connection of the serving process: bytes from the loop to requests, answers back in order.

`parsing` reads them. Here are timeouts, order under pipelining, and that nothing a client sends harms any connection
but its own.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final, cast

from edgeward_agent.serving.access import is_probe
from edgeward_agent.serving.exchange import Guard, Head, KnownAnswer, Request, ServerState, answer_head
from edgeward_agent.serving.parsing import Parser, may_come_again
from edgeward_agent.serving.patience import Patience
from edgeward_agent.serving.refusal import Full, Refusal, error_body
from edgeward_agent.serving.whole import LARGEST_BYTES, SMALLEST_BYTES, Known, WholeReader
from edgeward_agent.wire.tensors import COPIED_BELOW_BYTES, Buffer

_OK: Final = HTTPStatus.OK
_MAX_READERS_BYTES: Final = 32 << 20  # of all connections
_MAX_MISSED: Final = 2
_TURN_NS: Final = 1_000_000  # for answers to one client in a row
_MOST_TURNED_AWAY: Final = 32  # that are waited for; closed at once, most who send a body never read why
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(asyncio.Protocol):
    """One client. Requests are answered one after the other, in the order in which they came."""

    def __init__(self, server: ServerState, guard: Guard, *, stranger: bool = False) -> None:
        """Args:
        stranger: a token is wanted, and has not been shown yet.
        """
        self._server = server
        self._stranger = stranger
        self._came_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._parser = Parser(self, guard, server.limits)
        self._waiting: deque[Request | Refusal] = deque()
        self._current: Request | None = None
        self._pumping = False
        self._last = False  # no further request will be read: leave after the answers that are due
        self._leaving = False  # all is said: what still comes in is thrown away
        self._eof = self._stalled = self._paused = self.closed = False
        self._known: Known | None = None
        self._begin: bytes | None = None  # of a request that comes in pieces: what lies before its body
        self._reader: WholeReader | None = None
        self._missed = 0  # how often another request came than the reader expected
        self._turns = self._turns_seen = 0
        self._held_bytes = 0
        self._unsent_bytes = 0
        self._deadline = math.inf
        self._patience: Patience | None = None

    # -- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if len(self._server.connections) >= self._server.limits.connections and not self._server.make_room():
            self._turn_away()
            return
        self._came_s = self._loop.time()
        self._server.connections.add(self)
        self._server.callers.came()
        self._restart_timer()
        if self._server.closing:
            self.finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._server.turned_away.discard(self)
        if self in self._server.connections:
            self._server.connections.remove(self)
            self._server.callers.left()
        if not self._server.connections:
            self._server.emptied.set()
        self._server.held_bytes -= self._held_bytes
        self._count_unsent(0)
        self._drop_reader()
        self._waiting.clear()
        self._current = None

    def data_received(self, data: bytes) -> None:
        """What equal bytes mean is known: a client that asks the same way again and again is parsed once.

        Everything of a head is checked when it is parsed, and the parser starts each message anew.
        """
        known = self._known
        if (
            known is not None
            and len(data) == known.size
            and self._current is None
            and not (self._parser.receiving or self._waiting or self._last or self._stalled)
            and data.startswith(known.begin)
        ):
            self._serve(Request(self, known.head, data[known.body_at :], 0))
        else:
            self._parse(data)
        self._await_next()

    def _parse(self, data: bytes) -> None:
        if self._last or self.closed:
            return
        busy = self._current is not None
        try:
            if self._parser.feed(data):
                self._remember(data)
                self._expect_whole()
            else:
                self._last = True  # we stay with HTTP/1.1: answer, then leave
        except Refusal as refusal:
            self._waiting.append(refusal)
            self._last = True
            self._parser.receiving = False
        self._pump()
        # Who sends more while an answer is due has to wait; others are listened to, to learn when they leave.
        if (self._waiting or (busy and self._current)) and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """A half-closed client still gets the answers that it asked for."""
        self._last = self._eof = True
        return self._current is not None or bool(self._waiting)

    def pause_writing(self) -> None:
        self._stalled = True
        self._restart_timer()

    def resume_writing(self) -> None:
        self._stalled = False
        self._count_unsent(0)
        self._restart_timer()
        self._pump()

    # -- called by the reader of large requests

    @property
    def free(self) -> bool:
        """A request that is here whole would be served now."""
        return self._current is None and not (self._waiting or self._last or self._stalled or self.closed)

    def came_whole(self, body: memoryview) -> None:
        """A request with the known head. Its body is lent: the next one will be read to the same memory."""
        self._parser.receiving = False
        if self._known is not None:
            request = Request(self, self._known.head, body, 0)
            self._serve(request)
            request.keep()  # whoever looks at it later finds a copy
            self._await_next()

    def came_in_part(self) -> None:
        self._parser.receiving = True  # the time for a whole request runs
        self._restart_timer()

    def came_otherwise(self, data: bytes) -> None:
        self._missed += 1
        self._parser.receiving = False
        self._known = None
        self._drop_reader()
        self._read_with(self)
        self._parse(data)

    # -- called by the parser

    def began(self) -> None:
        self._restart_timer()

    def came(self, head: Head, body: Buffer, held_bytes: int) -> None:
        if self._stranger and head.denied is None and not is_probe(head.target):
            self._stranger = False
        self._waiting.append(Request(self, head, body, held_bytes))

    def check_room(self, more: int) -> None:
        if self._server.held_bytes + more > self._server.limits.held_bytes:
            raise Full("expected room for the request, too many large ones wait")

    def invite(self) -> None:
        # While an earlier answer is due this would stand in its place; the client then sends unasked, as it may.
        if self._current is None and not self._waiting:
            self._transport.write(_CONTINUE)

    # -- called by the server and by requests

    def reply(
        self,
        request: Request,
        status: HTTPStatus,
        parts: Sequence[Buffer],
        header_length: int | None,
        encoding: bytes | None = None,
        fields: bytes = b"",
    ) -> None:
        if request is not self._current:
            return  # the client left, or has its answer already
        self._current = None
        self._turns += 1
        if request.held_bytes:
            self._held_bytes -= request.held_bytes
            self._server.held_bytes -= request.held_bytes
        last = self._last and not self._waiting
        keep_alive = request.keep_alive and not last
        size = sum(map(len, parts))
        held_bytes = self._server.held_bytes  # one that is larger than all may be goes when it is alone
        if size >= COPIED_BELOW_BYTES and held_bytes and held_bytes + size > self._server.limits.held_bytes:
            full = Full("expected room for the answer, too many large ones are not read yet")
            status, parts, fields = full.status, (error_body(str(full)),), full.fields
            header_length = encoding = None
        bodiless = request.method == b"HEAD"
        self._send(status, parts, header_length, encoding, keep_alive=keep_alive, fields=fields, bodiless=bodiless)
        if not keep_alive:
            self._leave()
        if self._waiting or self._paused:
            self._pump()

    def reply_known(self, request: Request, known: KnownAnswer) -> None:
        """As `reply`, in the one case that there is nothing else to do."""
        if (
            request is not self._current
            or self._last
            or self._waiting
            or self._paused
            or request.held_bytes
            or not request.keep_alive
        ):
            self.reply(request, _OK, known.parts, known.header_length)
            return
        self._current = None
        self._turns += 1
        self._transport.write(b"".join(known.whole))

    def hold(self, size: int) -> None:
        if self.closed:
            return  # nothing of it is counted any more
        if size > 0:
            self.check_room(size)
        self._held_bytes += size
        self._server.held_bytes += size

    def check_time(self, now: float) -> None:
        if self._turns != self._turns_seen:  # answered since the last look: no timer is set for each answer
            self._turns_seen = self._turns
            if not (self._parser.receiving or self._stalled or self._leaving):
                self._restart_timer()
        if now < self._deadline or (self._current and not self._stalled):
            return
        if self._parser.receiving and not self._stalled:
            self._parser.receiving = False
            self._last = True
            self._waiting.append(Refusal(HTTPStatus.REQUEST_TIMEOUT, "expected a whole request, its time is up"))
            self._pump()
        else:
            self.abort()

    @property
    def stranger_since_s(self) -> float | None:
        busy = self._current is not None or self._waiting
        return self._came_s if self._stranger and not busy else None

    @property
    def said_all(self) -> bool:
        """Its answers are sent, and it is only waited for the client to leave."""
        return self._leaving and not self._stalled

    def finish(self) -> None:
        self._last = True
        if self._current is None and not self._waiting:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    # -- inside

    def _turn_away(self) -> None:
        message = f"expected at most {self._server.limits.connections} connections, all are taken"
        full = Full(message)
        self._send(full.status, (error_body(message),), None, keep_alive=False, fields=full.fields)
        self.closed = self._last = True
        if len(self._server.turned_away) < _MOST_TURNED_AWAY:
            self._server.turned_away.add(self)
            self._leave()
        else:
            self._transport.close()

    def _remember(self, data: bytes) -> None:
        """Keep the head of a request that came alone, if it is sure where its body begins.

        After the body the parser skips empty lines without a word; so a body that ends like one tells nothing.
        """
        parser = self._parser
        begin, self._begin = self._begin, None
        if parser.begun + parser.continued != 1 or parser.in_head or self._last:
            return  # it is not one message alone, or not known to be one
        if parser.receiving:
            self._begin = begin if parser.continued else data[: len(data) - len(parser.body)]
            return
        if not self._waiting:
            return
        request = self._waiting[-1]
        if isinstance(request, Refusal) or not may_come_again(request.head, len(request.lies)):
            return
        size = len(request.lies)
        if parser.continued:
            if begin is not None:
                self._known = Known(request.head, begin, len(begin) + size)
        elif data[-1] not in b"\r\n":
            self._known = Known(request.head, data[: len(data) - size], len(data))

    def _expect_whole(self) -> None:
        """Read the next request to where it lies, if it is large and will be as this one."""
        known = self._known
        if known is None or self._parser.receiving or self._reader is not None:
            return
        size = known.size - known.body_at
        if size < SMALLEST_BYTES:
            return
        if (
            size <= LARGEST_BYTES
            and self._missed <= _MAX_MISSED
            and known.size < _MAX_READERS_BYTES - self._server.readers_bytes
        ):
            self._reader = WholeReader(self, known)
            self._server.readers_bytes += self._reader.size_bytes
            self._read_with(self._reader)
        else:
            self._known = None  # it comes in pieces, which are counted one by one

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._server.readers_bytes -= self._reader.size_bytes
            self._reader = None

    def _read_with(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)
        if not self._paused:  # uvloop asks where to read to when reading starts
            self._transport.pause_reading()
            self._transport.resume_reading()

    def _pump(self) -> None:
        if self._pumping:
            return
        self._pumping = True
        until_ns = time.perf_counter_ns() + _TURN_NS
        try:
            while self._waiting and self._current is None and not (self._stalled or self._leaving or self.closed):
                self._take(self._waiting.popleft())
                if self._waiting and time.perf_counter_ns() > until_ns:
                    self._loop.call_soon(self._pump)  # others have their turn
                    return
        finally:
            self._pumping = False
        if self._paused and self._current is None and not (self._stalled or self.closed):
            self._paused = False
            self._transport.resume_reading()

    def _take(self, request: Request | Refusal) -> None:
        if isinstance(request, Refusal):
            body = (error_body(str(request)),)
            self._send(request.status, body, None, keep_alive=False, fields=request.fields)
            self._leave()
        elif request.head.denied is not None:
            self._current = request
            request.turn_away(request.head.denied)
        else:
            self._serve(request)

    def _serve(self, request: Request) -> None:
        self._current = request
        request.serve(self._server.handler)

    def _await_next(self) -> None:
        """Of who is alone and has his answer."""
        if not self._server.callers.alone:
            return
        if self._patience is None:
            connected = self._transport.get_extra_info("socket")
            if connected is None:
                return  # not every transport has one
            self._patience = Patience(connected)
        # What is quick to ask first: nearly always it does not pay.
        if self._current is not None or self._parser.receiving or not self._patience.pays():
            return
        # The rest of an answer that the socket did not take at once is sent by the loop.
        if self.free and not self._transport.get_write_buffer_size():
            self._patience.wait()  # and the loop finds it

    def _send(
        self,
        status: HTTPStatus,
        parts: Sequence[Buffer],
        header_length: int | None = None,
        encoding: bytes | None = None,
        *,
        keep_alive: bool,
        fields: bytes = b"",
        bodiless: bool = False,
    ) -> None:
        """`bodiless` is what HEAD asks for: the head of the answer alone."""
        size = sum(map(len, parts))
        head = answer_head(status, size, header_length, encoding, keep_alive=keep_alive, fields=fields)
        if bodiless:
            self._transport.write(head)
            return
        if size < COPIED_BELOW_BYTES:
            self._transport.write(b"".join((head, *parts)))
            return
        self._transport.writelines((head, *parts))
        if self._stalled:  # what the client has not read yet is held too
            self._count_unsent(self._transport.get_write_buffer_size())

    def _count_unsent(self, size: int) -> None:
        self._server.held_bytes += size - self._unsent_bytes
        self._unsent_bytes = size

    def _leave(self) -> None:
        """Say that nothing follows, then read on for a moment: closing at once would reset the connection
        and take the answer away from a client that is still sending.
        """
        self._last = self._leaving = True
        self._waiting.clear()
        if self._eof:
            self._transport.close()
            return
        self._transport.write_eof()
        self._restart_timer()

    def _restart_timer(self) -> None:
        limits = self._server.limits
        if self._stalled:
            allowed_s = limits.write_s
        elif self._leaving:
            allowed_s = limits.linger_s
        elif self._parser.receiving:
            allowed_s = limits.request_s
        else:
            allowed_s = limits.stranger_s if self._stranger else limits.idle_s
        self._deadline = self._loop.time() + allowed_s
