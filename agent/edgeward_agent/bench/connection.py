"""One kept connection to a server, which never blocks the clock: what is not there yet is fetched later.

Our own and not a client library: a client that takes 200 µs to build a request would be most of what is measured.
The grammar of HTTP is httptools' business.
"""

from __future__ import annotations

import socket
import ssl
from http import HTTPStatus
from typing import Final

import httptools

from edgeward_agent.bench.errors import NobodyThere
from edgeward_agent.bench.wire import Place
from edgeward_contract.schema import ContractError, parse_json
from edgeward_contract.visible import visible

_ROOM_BYTES: Final = 1 << 18
_LATER: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """Opened when it is needed, and again when the server closed it. Every method raises OSError when it is lost.

    The methods `on_…` are for httptools, which calls them while it reads. One parser for each connection that is
    opened: one for each answer would leave a cycle of references behind every time, with the collector switched off.
    """

    def __init__(self, place: Place, timeout_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._room = bytearray(_ROOM_BYTES)
        self._request = memoryview(b"")
        self._unsent = memoryview(b"")
        self._used = False  # whether the open connection has given an answer before
        self._parser = httptools.HttpResponseParser(self)
        self._begun = self._complete = self._keep = False
        self._body: list[bytes] = []

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno() if self._socket else -1

    @property
    def sending(self) -> bool:
        """Whether part of the request waits for room in the socket."""
        return bool(self._unsent)

    def open(self) -> None:
        """Raises NobodyThere."""
        if self._socket is None:
            try:
                self._socket = connect(self._place, self._timeout_s)
            except OSError as error:
                raise NobodyThere(error.errno, error.strerror or str(error)) from None
            self._used = False
            self._parser = httptools.HttpResponseParser(self)

    def begin(self, request: bytes) -> None:
        """Send a request, or as much of it as the socket takes now."""
        self.open()
        self._request = self._unsent = memoryview(request)
        self._begun = self._complete = self._keep = False
        self._body.clear()
        self.send()

    def send(self) -> None:
        """Send more of it."""
        assert self._socket is not None
        try:
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except _LATER:
            return
        except (BrokenPipeError, ConnectionResetError):
            self._again()

    def receive(self) -> bool:
        """Read what is there. True when the answer is complete."""
        assert self._socket is not None
        try:
            while not self._complete:
                size = self._socket.recv_into(self._room)
                if not size:
                    raise ConnectionResetError("the server closed the connection")
                self._feed(size)
        except _LATER:
            return False
        except ConnectionResetError:
            self._again()
            return False
        self._finished()
        return True

    @property
    def status(self) -> int:
        """Of the answer that is complete."""
        return int(self._parser.get_status_code())

    @property
    def body(self) -> bytes:
        """Of the answer that is complete."""
        return b"".join(self._body)

    def refusal(self) -> str:
        """What the server said instead of an answer; empty when it answered."""
        status = self.status
        if status == HTTPStatus.OK:
            return ""
        try:
            words = parse_json(self.body).text("error", max_length=10_000)
        except (ContractError, UnicodeDecodeError):
            words = self.body[:120].decode(errors="replace")
        return f"status {status}: {visible(' '.join(words.split())[:200])}".rstrip(": ")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def on_message_begin(self) -> None:
        self._begun = True

    def on_body(self, data: bytes) -> None:
        self._body.append(data)

    def on_message_complete(self) -> None:
        self._complete = True
        self._keep = self._parser.should_keep_alive()  # afterwards it always says no

    def _feed(self, size: int) -> None:
        try:
            self._parser.feed_data(memoryview(self._room)[:size])
        except httptools.HttpParserCallbackError as error:
            raise (error.__context__ or error) from None  # Ctrl-C, as likely in there as anywhere
        except httptools.HttpParserError as error:
            raise ConnectionAbortedError(f"expected an answer in HTTP, got: {visible(str(error))}") from None

    def _finished(self) -> None:
        self._used = True
        if not self._keep:
            self.close()

    def _again(self) -> None:
        """Once more on a new connection, if the kept one was closed while it was idle; the time counts."""
        kept, begun = self._used, self._begun
        self.close()
        if not kept or begun:
            raise ConnectionResetError("the server closed the connection")
        self.begin(bytes(self._request))


def connect(place: Place, timeout_s: float) -> socket.socket:
    """A connection that does not block. Raises OSError."""
    if place.unix:
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plain.settimeout(timeout_s)
        try:
            plain.connect(place.unix)
        except OSError:
            plain.close()
            raise
    else:
        plain = socket.create_connection((place.host, place.port), timeout_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made = ssl.create_default_context().wrap_socket(plain, server_hostname=place.host) if place.tls else plain
    made.setblocking(False)
    return made
