"""Requests out of the bytes of one connection. The grammar is llhttp's (httptools), never ours; the limits are."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Final, Protocol

import httptools

from edgeward_agent.serving.encoding import check_encoding
from edgeward_agent.serving.exchange import (
    ACCEPT_ENCODING,
    AUTHORIZATION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    HOST,
    INFERENCE_LENGTH,
    ORIGIN,
    TRANSFER_ENCODING,
    Guard,
    Head,
    Limits,
    whole_number,
)
from edgeward_agent.serving.refusal import Refusal, internal_error, invalid, unsupported
from edgeward_agent.wire.tensors import Buffer

_log: Final = logging.getLogger(__name__)

_EXPECT: Final = b"expect"
_CHUNKED: Final = b"chunked"
_CONNECT: Final = b"CONNECT"
_KEPT: Final = frozenset(
    {
        HOST,
        ORIGIN,
        AUTHORIZATION,
        INFERENCE_LENGTH,
        CONTENT_LENGTH,
        CONTENT_ENCODING,
        ACCEPT_ENCODING,
        TRANSFER_ENCODING,
        _EXPECT,
    }
)
_ONCE_ONLY: Final = frozenset({TRANSFER_ENCODING, CONTENT_ENCODING, _EXPECT})
"""A request with one of these is more than a head and as many bytes as it says."""
_DENIED_BELOW_BYTES: Final = 1 << 16
_READ_BYTES: Final = 1 << 18  # what the loop hands over at once, at most


class Receiver(Protocol):
    """The connection that the bytes came from."""

    def began(self) -> None:
        """A message has begun to come."""

    def came(self, head: Head, body: Buffer, held_bytes: int) -> None:
        """A request is whole; its body counts for `held_bytes` among those that wait."""

    def hold(self, size: int) -> None:
        """Count bytes that are kept until the answer is sent. Raises Refusal 503: there is no room."""

    def check_room(self, more: int) -> None:
        """Raises Refusal 503: there is no room for as much."""

    def invite(self) -> None:
        """Tell a client that waits for it that its body may come, if nothing else is due to it."""


class Parser:
    """What of a request has come so far.

    `begun` counts the messages that began in what was fed last; `continued`: it went on with an earlier one.
    """

    def __init__(self, receiver: Receiver, guard: Guard, limits: Limits) -> None:
        self._receiver = receiver
        self._guard = guard
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._offered = False  # another protocol, in the request whose head was read last
        self.receiving = self.in_head = False
        self.begun = 0
        self.continued = False
        self.body: bytes | bytearray = b""
        self._denied: Refusal | None = None
        self._headers: dict[bytes, bytes] = {}
        self._target = b""
        self._head_bytes = self._wire_bytes = 0

    def feed(self, data: bytes) -> bool:
        """Read on. False when what follows is not for us: a tunnel was asked for.

        Raises:
            Refusal: it is no request, or one that may not be; nothing more can be read.
        """
        self.begun = 0
        self.continued = self.receiving
        self._wire_bytes += len(data)
        if not self._read(data):
            return False
        # The parser gathers long headers, and chunks of one byte, without telling: count what comes off the wire.
        allowed = _READ_BYTES + (self._limits.head_bytes if self.in_head else 2 * self._limits.body_bytes)
        if self.receiving and self._wire_bytes > allowed:
            raise self._head_too_large() if self.in_head else self._body_too_large()
        return True

    # -- called by httptools

    def on_message_begin(self) -> None:
        self.receiving = self.in_head = True
        self.begun += 1
        self._headers = {}
        self._target = self.body = b""
        self._head_bytes = self._wire_bytes = 0
        self._receiver.began()

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        key = name.lower()
        if key in _KEPT and self.in_head:  # a trailer must not change what was checked
            if key in self._headers:
                if key != ACCEPT_ENCODING:
                    raise invalid(f"expected the header {key.decode()} once, got it twice")
                value = self._headers[key] + b"," + value  # RFC 9110 5.3: a list may come in pieces
            self._headers[key] = value

    def on_headers_complete(self) -> None:
        self.in_head = False
        self._offered = self._parser.should_upgrade() and self._parser.get_method() != _CONNECT
        if self._offered:
            return
        if self._headers.get(TRANSFER_ENCODING, _CHUNKED).lower() != _CHUNKED:
            raise unsupported("expected Transfer-Encoding chunked or none, got another")  # RFC 9112 6.1
        self._denied = self._guard(self._target, self._headers)
        if CONTENT_ENCODING in self._headers:
            self._read_encoding(self._headers.pop(CONTENT_ENCODING))
        size = whole_number(self._headers.get(CONTENT_LENGTH)) or 0
        if self._denied is not None and (size >= _DENIED_BELOW_BYTES or _ONCE_ONLY & self._headers.keys()):
            raise self._denied  # to keep more of it would take room from those who may ask
        self._check_size(size)
        self._receiver.check_room(0)
        if _EXPECT in self._headers:
            if self._headers[_EXPECT].lower() != b"100-continue":
                raise Refusal(HTTPStatus.EXPECTATION_FAILED, "expected `Expect: 100-continue` or none, got another")
            self._receiver.invite()

    def on_body(self, data: bytes) -> None:
        self._check_size(len(self.body) + len(data))
        self._receiver.hold(len(data))
        if not self.body:
            self.body = data
        else:  # one buffer, not a list of pieces: two-byte chunks would take 24 times their size
            if not isinstance(self.body, bytearray):
                self.body = bytearray(self.body)
            self.body += data

    def on_message_complete(self) -> None:
        if self._offered:
            return
        self.receiving = False
        head = Head(
            method=self._parser.get_method(),
            target=self._target,
            headers=self._headers,
            keep_alive=self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1",
            denied=self._denied,
        )
        body, self.body = self.body, b""
        self._receiver.came(head, body, len(body))

    # -- inside

    def _read(self, data: Buffer) -> bool:
        while True:
            try:
                self._parser.feed_data(data)
                return True
            except httptools.HttpParserUpgrade as upgrade:
                end = upgrade.args[0]
            except httptools.HttpParserError as error:
                raise _refusal(error) from None
            if not self._offered:
                return False
            head, data = self._head_without_offer(), memoryview(data)[end:]
            self._parser = httptools.HttpRequestParser(self)
            self._read(head)

    def _head_without_offer(self) -> bytes:
        """The head that was read last, for another parser: this one takes what follows an offer of another protocol for
        that protocol. Java's client and curl offer HTTP/2 with each POST, and who stays with HTTP/1.1 reads its body.
        """
        parser = self._parser
        lines = [b"%b %b HTTP/%b" % (parser.get_method(), self._target, parser.get_http_version().encode())]
        lines += [b"%b: %b" % each for each in self._headers.items()]
        lines += [] if parser.should_keep_alive() else [b"Connection: close"]
        return b"\r\n".join((*lines, b"", b""))

    def _read_encoding(self, value: bytes) -> None:
        encoding = check_encoding(value)
        if encoding is not None:
            self._headers[CONTENT_ENCODING] = encoding

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes:
            raise self._head_too_large()

    def _check_size(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise self._body_too_large()

    def _head_too_large(self) -> Refusal:
        allowed = self._limits.head_bytes
        return Refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"expected at most {allowed} bytes of headers")

    def _body_too_large(self) -> Refusal:
        allowed = self._limits.body_bytes
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"expected a body of at most {allowed} bytes")


def may_come_again(head: Head, body_bytes: int) -> bool:
    """Whether another request with the same head would be as long, and be read in the same way."""
    sized = CONTENT_LENGTH in head.headers and not _ONCE_ONLY & head.headers.keys()
    return sized and head.denied is None and head.keep_alive and body_bytes > 0


def _refusal(error: httptools.HttpParserError) -> Refusal:
    """What to answer when the parser gives up. It hides an exception of our callbacks in the context of its own."""
    cause = error.__context__
    if isinstance(cause, Refusal):
        return cause
    if cause is None:
        return invalid(f"expected an HTTP/1.1 request, got another thing: {error}")
    _log.error("a connection failed", exc_info=cause)
    return internal_error()
