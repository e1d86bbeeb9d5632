"""Where a server is: `http://HOST:PORT`, `unix:PATH`, or `frames:PATH` with one of the others beside it."""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgeward_agent.client.errors import InvalidAddress

DEFAULT: Final = "http://127.0.0.1:8500"
_DEFAULT_PORT: Final = 8500
_FRAMES: Final = "frames:"
_BESIDE: Final = "serving.sock"  # as the agent lays its sockets
_TIMEVAL: Final = struct.Struct("@ll")  # struct timeval: seconds, microseconds; 0 is no limit
_NEARLY: Final = 0.9
_LONGEST_S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """`path` of a unix socket, else `host` and `port`; `text` is what errors call it."""

    text: str
    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises InvalidAddress."""
        if not isinstance(text, str):
            raise InvalidAddress(f"expected http://HOST:PORT, unix:PATH or frames:PATH, got {text!r}")
        if text.startswith("unix:"):
            return cls(text=text, path=_path(text, "unix:"))
        why = ""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, _DEFAULT_PORT if parts.port is None else parts.port
            (host or "").encode("idna")  # as the system is asked for it
            if port == 0:
                raise ValueError("nobody listens on port 0")
        except ValueError as error:
            host, why = None, f": {error}"
        if not host or parts.scheme != "http" or text.removesuffix("/") != f"http://{parts.netloc}" or "@" in text:
            raise InvalidAddress(f"expected http://HOST:PORT, unix:PATH or frames:PATH, got {text!r}{why}")
        return cls(text=text, host=host, port=port)

    def connect(self, timeout_s: float) -> socket.socket:
        """A connected socket. Raises OSError."""
        if self.path:
            return connect_unix(self.path, socket.SOCK_STREAM, timeout_s)
        connection = socket.create_connection((self.host, self.port), timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Where a server answers HTTP, and the path of its socket with shared memory, empty for none."""

    http: Address
    frames: str = ""

    @classmethod
    def parse(cls, text: str, http: str | None) -> Ways:
        """Raises InvalidAddress."""
        if not (isinstance(text, str) and text.startswith(_FRAMES)):
            if http is not None:
                raise InvalidAddress(f"expected http= beside frames:PATH alone, got it beside {text!r}")
            return cls(http=Address.parse(text))
        if sys.platform != "linux":
            raise InvalidAddress(f"expected http://HOST:PORT or unix:PATH, got {text!r}: frames are of Linux alone")
        path = _path(text, _FRAMES)
        return cls(http=Address.parse(http) if http else _beside(path), frames=path)


def _beside(frames: str) -> Address:
    """Where the agent answers HTTP if its packets are there: the caller has never seen that path."""
    path = str(Path(frames).with_name(_BESIDE))
    return Address(text=f"unix:{path} (guessed from frames:PATH; http= names another)", path=path)


def _path(text: str, scheme: str) -> str:
    path = text.removeprefix(scheme).removeprefix("//")
    try:
        if os.fsencode(path):
            return path
    except UnicodeEncodeError:  # half a surrogate pair
        pass
    raise InvalidAddress(f"expected {scheme}PATH, got {text!r}")


def connect_unix(path: str, kind: socket.SocketKind, timeout_s: float) -> socket.socket:
    """Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, kind)
    try:
        connection.settimeout(timeout_s)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


class Waits:
    """Ends the waits of a connection, so that a whole question takes no longer than its time-out, or a tenth more.

    The system knows limits of a single wait alone, and a question may need many: a server that stops while it
    reads 8 MB had the time-out three times over. What is left is told to the system only where much of it is gone,
    which a question that is answered at once never pays.
    """

    __slots__ = ("_connection", "_ends_s", "_limit_s", "_timeout_s")

    def __init__(self, connection: socket.socket, timeout_s: float) -> None:
        self._connection = connection
        self._timeout_s = timeout_s
        self._ends_s = 0.0
        self._limit(timeout_s)

    def begin(self, ends_s: float) -> None:
        """A question begins that is to be answered by then, on `time.monotonic`."""
        self._ends_s = ends_s
        if self._limit_s != self._timeout_s:
            self._limit(self._timeout_s)

    def go_on(self) -> None:
        """Before a wait. Raises TimeoutError: the time is over."""
        left_s = self._ends_s - time.monotonic()
        if left_s < _NEARLY * self._limit_s:
            if left_s <= 0:
                raise TimeoutError("timed out")
            self._limit(left_s)

    def _limit(self, wait_s: float) -> None:
        """Python would ask the system twice for everything, once whether it may; so the system itself ends a wait.

        One that ends so is a BlockingIOError.
        """
        self._limit_s = wait_s
        if sys.platform == "win32":  # there the option is no timeval
            self._connection.settimeout(wait_s)
            return
        limit = _TIMEVAL.pack(int(wait_s), int(wait_s % 1 * 1e6) or int(wait_s < 1))
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._connection.settimeout(None)


def checked_timeout(timeout_s: float) -> float:
    """Raises InvalidAddress: no length of time, or one that no system call takes."""
    if isinstance(timeout_s, int | float) and 0 < timeout_s <= _LONGEST_S:
        return float(timeout_s)
    raise InvalidAddress(f"expected a time-out from 0 to {_LONGEST_S:,} s, got {timeout_s!r}")


def reason(error: Exception) -> str:
    """Why there is no answer; a wait that the system has ended says that it would block."""
    return "timed out" if isinstance(error, BlockingIOError) else str(error) or type(error).__name__
