"""HTTP/1.1 as a client of a device needs it: bytes to a response, without a socket.

`http.client` reads headers with the parser for e-mail, which takes longer than the model of a small release. What is
read here is what servers of the protocol send: a status line, few headers, a body of a known length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_MAX_HEAD_BYTES: Final = 64 << 10
_CONTINUE: Final = 100
_NO_BODY: Final = frozenset({204, 304})


class NotHttp(ValueError):
    """What came is no response that can be read."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response, complete. `json_bytes` is how much of the body is JSON; None is all of it."""

    status: int
    body: bytes
    json_bytes: int | None
    keep_alive: bool


class ResponseReader:
    """One response, piece by piece; for the next one make another."""

    __slots__ = ("_buffer", "_head", "_needed")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._needed = 0

    @property
    def begun(self) -> bool:
        """Whether anything came at all."""
        return bool(self._buffer) or self._head is not None

    @property
    def missing(self) -> int:
        """Bytes of the body that must still come; 0 while the head is not complete."""
        return self._needed - len(self._buffer) if self._head is not None else 0

    def feed(self, data: bytes) -> Response | None:
        """The response when it is complete.

        Raises:
            NotHttp: this is none, or one of a form that is not read here.
        """
        if self._head is None and not self._buffer:
            return self._whole(data) or self._more(data)
        return self._more(data)

    def _whole(self, data: bytes) -> Response | None:
        """Nearly always all comes at once; then nothing needs to be gathered."""
        end = data.find(_HEAD_END)
        if end < 0:
            return None
        head = _read_head(data[:end])
        begin = end + len(_HEAD_END)
        if head.status == _CONTINUE or len(data) != begin + head.length:
            return None
        return head.response(data[begin:])

    def _more(self, data: bytes) -> Response | None:
        self._buffer += data
        while self._head is None:
            end = self._buffer.find(_HEAD_END)
            if end < 0:
                if len(self._buffer) > _MAX_HEAD_BYTES:
                    raise NotHttp(f"expected at most {_MAX_HEAD_BYTES} bytes of headers")
                _check_start(self._buffer)
                return None
            head = _read_head(bytes(self._buffer[:end]))
            del self._buffer[: end + len(_HEAD_END)]
            if head.status != _CONTINUE:
                self._head, self._needed = head, head.length
        if len(self._buffer) < self._needed:
            return None
        if len(self._buffer) > self._needed:
            raise NotHttp(f"expected a body of {self._needed} bytes, got more")
        return self._head.response(bytes(self._buffer))


@dataclass(frozen=True, slots=True)
class _Head:
    status: int
    length: int
    json_bytes: int | None
    keep_alive: bool

    def response(self, body: bytes) -> Response:
        return Response(self.status, body, self.json_bytes, self.keep_alive)


def _check_start(data: bytearray) -> None:
    start = b"HTTP/1."
    if not data.startswith(start[: len(data)]):
        raise NotHttp(f"expected a status line of HTTP/1.1, got {bytes(data[:20])!r}")


def _read_head(head: bytes) -> _Head:
    first, *lines = head.split(b"\r\n")
    status = _status(first)
    length: int | None = None
    json_bytes: int | None = None
    keep_alive = first.startswith(b"HTTP/1.1")
    for line in lines:
        name, _, value = line.partition(b":")
        key = name.lower()
        if key == b"content-length":
            length = _number(name, value)
        elif key == b"inference-header-content-length":
            json_bytes = _number(name, value)
        elif key == b"connection":
            keep_alive = value.strip().lower() != b"close"
        elif key == b"transfer-encoding":
            raise NotHttp(f"expected a body of a known length, got Transfer-Encoding {value.strip().decode('latin-1')}")
    if length is None:
        if status != _CONTINUE and status not in _NO_BODY:
            raise NotHttp("expected a Content-Length, got none")
        length = 0
    return _Head(status, length, json_bytes, keep_alive)


def _status(line: bytes) -> int:
    parts = line.split(b" ", 2)
    if len(parts) < 2 or parts[0] not in (b"HTTP/1.1", b"HTTP/1.0") or not parts[1].isdigit() or len(parts[1]) != 3:
        raise NotHttp(f"expected a status line of HTTP/1.1, got {line[:20]!r}")
    return int(parts[1])


def _number(name: bytes, value: bytes) -> int:
    text = value.strip()
    if not text.isdigit() or len(text) > 18:
        raise NotHttp(f"expected a number in {name.decode('latin-1')}, got {text[:20]!r}")
    return int(text)
