"""HTTP/1.1 as a client of a device needs it: bytes to a response, without a socket.

`http.client` reads headers with the parser for e-mail, which takes longer than the model of a small release. What is
read here is what servers of the protocol send: a status line, few headers, a body of a known length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_HEAD_END: Final = b"\r\n\r\n"
_MAX_HEAD_BYTES: Final = 64 << 10
_MAX_BODY_BYTES: Final = 1 << 31
_MAX_DIGITS: Final = 7
_CONTINUE: Final = 100
_NO_BODY: Final = frozenset({204, 304})


class NotHttp(ValueError):
    """What came is no response that can be read."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response, complete.

    `head` is what stood in front of the body, byte for byte. `json_bytes` is how much of the body is JSON; None is all
    of it.
    """

    status: int
    head: bytes
    body: bytes | bytearray
    json_bytes: int | None
    keep_alive: bool


class ResponseReader:
    """One response, piece by piece; for the next one make another."""

    __slots__ = ("_at", "_body", "_buffer", "_head")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._body = bytearray()
        self._at = 0

    @property
    def begun(self) -> bool:
        """Whether anything came at all."""
        return bool(self._buffer) or self._head is not None

    @property
    def room(self) -> memoryview | None:
        """Where the rest of the body belongs, for a socket to write it there; None while the head is not complete."""
        return memoryview(self._body)[self._at :] if self._head is not None else None

    def feed(self, data: bytes) -> Response | None:
        """The response when it is complete.

        Raises:
            NotHttp: this is none, or one of a form that is not read here.
        """
        if self._head is None and not self._buffer:
            return self._whole(data) or self._more(data)
        return self._more(data)

    def filled(self, count: int) -> Response | None:
        """So many bytes were written into `room`. The response when it is complete."""
        self._at += count
        if self._head is None or self._at < len(self._body):
            return None
        return self._head.response(self._body)

    def _whole(self, data: bytes) -> Response | None:
        """Nearly always all comes at once; then nothing needs to be gathered."""
        end = data.find(_HEAD_END)
        if end < 0:
            return None
        begin = end + len(_HEAD_END)
        head = _read_head(data[:begin])
        if head.status == _CONTINUE or len(data) != begin + head.length:
            return None
        return head.response(data[begin:])

    def _more(self, data: bytes) -> Response | None:
        if self._head is None:
            self._buffer += data
            if not self._find_head():
                return None
            data = bytes(self._buffer)
        if len(data) > len(self._body) - self._at:
            raise NotHttp(f"expected a body of {len(self._body)} bytes, got more")
        self._body[self._at : self._at + len(data)] = data
        return self.filled(len(data))

    def _find_head(self) -> bool:
        """Take heads off the buffer until one of them is not just "continue"."""
        while self._head is None:
            end = self._buffer.find(_HEAD_END)
            if end < 0:
                if len(self._buffer) > _MAX_HEAD_BYTES:
                    raise NotHttp(f"expected at most {_MAX_HEAD_BYTES} bytes of headers")
                _check_start(self._buffer)
                return False
            begin = end + len(_HEAD_END)
            head = _read_head(bytes(self._buffer[:begin]))
            del self._buffer[:begin]
            if head.status != _CONTINUE:
                self._head, self._body = head, bytearray(head.length)
        return True


@dataclass(frozen=True, slots=True)
class _Head:
    status: int
    length: int
    json_bytes: int | None
    keep_alive: bool
    text: bytes

    def response(self, body: bytes | bytearray) -> Response:
        return Response(self.status, self.text, body, self.json_bytes, self.keep_alive)


def retry_after_s(head: bytes) -> float | None:
    """When the server wants to be asked again, as `Retry-After` says it in seconds; None for nothing or a date.

    Looked for in refusals alone: what nearly every answer lacks should cost them nothing.
    """
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"retry-after":
            text = value.strip()
            return float(text) if text.isdigit() and len(text) < _MAX_DIGITS else None
    return None


def _check_start(data: bytearray) -> None:
    start = b"HTTP/1."
    if not data.startswith(start[: len(data)]):
        raise NotHttp(f"expected a status line of HTTP/1.1, got {bytes(data[:20])!r}")


@lru_cache(maxsize=16)  # a server says the same again and again
def _read_head(text: bytes) -> _Head:
    first, *lines = text[: -len(_HEAD_END)].split(b"\r\n")
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
    return _Head(status, _length(status, length), json_bytes, keep_alive, text)


def _length(status: int, length: int | None) -> int:
    if length is None:
        if status != _CONTINUE and status not in _NO_BODY:
            raise NotHttp("expected a Content-Length, got none")
        return 0
    if length > _MAX_BODY_BYTES:
        raise NotHttp(f"expected a body of at most {_MAX_BODY_BYTES} bytes, got {length}")
    return length


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
