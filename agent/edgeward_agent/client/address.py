"""Where a server is: `http://HOST:PORT`, `unix:PATH`, or `frames:PATH` with one of the others beside it."""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgeward_agent.client.errors import InvalidRequest

DEFAULT: Final = "http://127.0.0.1:8500"
_DEFAULT_PORT: Final = 8500
_FRAMES: Final = "frames:"
_BESIDE: Final = "serving.sock"  # as the agent lays its sockets
_TIMEVAL: Final = struct.Struct("@ll")  # struct timeval: seconds, microseconds; 0 is no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """`path` of a unix socket, else `host` and `port`."""

    text: str
    path: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises InvalidRequest."""
        if text.startswith("unix:"):
            return cls(text=text, path=_path(text, "unix:"))
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port or _DEFAULT_PORT
        except ValueError:
            host = None
        if not host or parts.scheme != "http":
            raise InvalidRequest(f"expected http://HOST:PORT, unix:PATH or frames:PATH, got {text!r}")
        return cls(text=text, host=host, port=port)

    def connect(self, timeout_s: float) -> socket.socket:
        """A connected socket whose every wait ends after `timeout_s`. Raises OSError."""
        if not self.path:
            connection = socket.create_connection((self.host, self.port), timeout_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        else:
            connection = connect_unix(self.path, socket.SOCK_STREAM, timeout_s)
        limit_waits(connection, timeout_s)
        return connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Where a server answers HTTP, and the path of its socket with shared memory, empty for none."""

    http: Address
    frames: str = ""

    @classmethod
    def parse(cls, text: str, http: str | None) -> Ways:
        """Raises InvalidRequest."""
        if not text.startswith(_FRAMES):
            if http is not None:
                raise InvalidRequest(f"expected http= beside frames:PATH alone, got it beside {text!r}")
            return cls(http=Address.parse(text))
        if sys.platform != "linux":
            raise InvalidRequest(f"expected http://HOST:PORT or unix:PATH, got {text!r}: frames are of Linux alone")
        path = _path(text, _FRAMES)
        return cls(http=Address.parse(http or f"unix:{Path(path).with_name(_BESIDE)}"), frames=path)


def _path(text: str, scheme: str) -> str:
    return text.removeprefix(scheme).removeprefix("//")


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


def limit_waits(connection: socket.socket, timeout_s: float) -> None:
    """Let the system end each wait of a socket: Python would ask it twice for everything, once whether it may.

    A wait that ends so is a BlockingIOError.
    """
    if sys.platform == "win32":  # there the option is no timeval
        return
    limit = _TIMEVAL.pack(int(timeout_s), int(timeout_s % 1 * 1e6) or int(timeout_s < 1))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    connection.settimeout(None)


def reason(error: Exception) -> str:
    """Why there is no answer; a wait that the system has ended says that it would block."""
    return "timed out" if isinstance(error, BlockingIOError) else str(error) or type(error).__name__
