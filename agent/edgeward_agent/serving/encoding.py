"""Bodies that travel compressed: gzip and deflate, in and out. Pure.

A few bytes can hold gigabytes. So nothing is inflated further than it may become: the limit is on what comes out.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from edgeward_agent.serving.refusal import Refusal, invalid, too_large
from edgeward_agent.wire.tensors import Buffer

_WBITS: Final[Mapping[bytes, int]] = {b"gzip": 31, b"deflate": 15}  # "deflate" is the zlib format, RFC 9110 8.4.1.2
_FASTEST: Final = 1  # client and server share a machine: there is little to save on the way
_REMEMBERED: Final = 64
_CHOICES: Final[dict[bytes, bytes | None]] = {}


class Inflater:
    """One compressed body. `start` says whether a little was all; if not, `rest` goes on, on any thread."""

    def __init__(self, encoding: bytes, body: Buffer, *, limit_bytes: int) -> None:
        """`encoding` is one that `check_encoding` lets pass; `limit_bytes` is for the body when it is inflated."""
        self._inflate = zlib.decompressobj(_WBITS[encoding])
        self._encoding = encoding.decode()
        self._body = body
        self._limit_bytes = limit_bytes
        self._done = b""

    def start(self, size: int) -> bytes | None:
        """The body if it has at most about `size` bytes, else None. Takes a millisecond for each 256 KiB.

        Raises:
            Refusal: 400, these are not (or not only) compressed data; 413, too many come out.
        """
        most = min(size, self._limit_bytes + 1)
        self._done = self._next(self._body, most)
        if not self._inflate.eof and len(self._done) == most:
            return None
        return self._whole(self._done)

    def rest(self) -> bytes:
        """The body, all of it. Raises Refusal as `start` does."""
        most = self._limit_bytes + 1 - len(self._done)
        if most <= 0:
            raise self._too_large()
        return self._whole(self._done + self._next(self._inflate.unconsumed_tail, most))

    def _next(self, data: Buffer, most: int) -> bytes:
        try:
            return self._inflate.decompress(data, most)
        except zlib.error as error:
            raise invalid(f"expected a body in {self._encoding}, got another thing: {error}") from None

    def _whole(self, data: bytes) -> bytes:
        if len(data) > self._limit_bytes:
            raise self._too_large()
        if not self._inflate.eof:
            raise invalid(f"expected a whole body in {self._encoding}, got one that is cut off")
        if self._inflate.unused_data:
            raise invalid(f"expected one body in {self._encoding}, got more behind its end")
        return data

    def _too_large(self) -> Refusal:
        return too_large(f"expected a body of at most {self._limit_bytes} bytes when decompressed, got more")


def check_encoding(value: bytes) -> bytes | None:
    """The encoding that a `Content-Encoding` names; None when there is nothing to do.

    Raises:
        Refusal: 415, one that is not read here.
    """
    encoding = value.strip().lower()
    if encoding in _WBITS:
        return encoding
    if encoding in (b"", b"identity"):
        return None
    found = value[:40].decode("latin-1")
    raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"expected Content-Encoding gzip or deflate, got {found!r}")


def chosen(accepted: bytes) -> bytes | None:
    """The encoding in which an `Accept-Encoding` wants its answer; None is as it is.

    Who names one encoding wants it. Who lists all that it can read, as most libraries do unasked, gets the answer as
    it is: on one machine that is the quickest.
    """
    try:
        return _CHOICES[accepted]
    except KeyError:
        choice = _choice(accepted)
    if len(_CHOICES) < _REMEMBERED:
        _CHOICES[accepted] = choice
    return choice


def pack(encoding: bytes, parts: Sequence[Buffer]) -> list[Buffer]:
    """The parts of a body compressed into one."""
    squeeze = zlib.compressobj(_FASTEST, zlib.DEFLATED, _WBITS[encoding])
    return [b"".join([*(squeeze.compress(part) for part in parts), squeeze.flush()])]


def _choice(accepted: bytes) -> bytes | None:
    weights = dict(_weighted(each) for each in accepted.lower().split(b","))
    plain = weights.get(b"identity", weights.get(b"*", 1.0))
    wanted = [(weight, name) for name, weight in weights.items() if name in _WBITS and weight > 0]
    if not wanted or (plain > 0 and len(weights) > 1):
        return None
    return max(wanted, key=lambda each: each[0])[1]


def _weighted(token: bytes) -> tuple[bytes, float]:
    name, _, rest = token.partition(b";")
    key, _, value = rest.strip().partition(b"=")
    try:
        return name.strip(), float(value) if key == b"q" else 1.0
    except ValueError:
        return name.strip(), 0.0
