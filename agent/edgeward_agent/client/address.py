"""Where a server is: `http://HOST:PORT` or `unix:PATH`."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from edgeward_agent.client.errors import InvalidRequest

DEFAULT: Final = "http://127.0.0.1:8500"
_DEFAULT_PORT: Final = 8500


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
            return cls(text=text, path=text.removeprefix("unix:").removeprefix("//"))
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port or _DEFAULT_PORT
        except ValueError:
            host = None
        if not host or parts.scheme != "http":
            raise InvalidRequest(f"expected http://HOST:PORT or unix:PATH, got {text!r}")
        return cls(text=text, host=host, port=port)

    def connect(self, timeout_s: float) -> socket.socket:
        """A connected socket whose every wait ends after `timeout_s`. Raises OSError."""
        if not self.path:
            connection = socket.create_connection((self.host, self.port), timeout_s)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_s)
            connection.connect(self.path)
        except OSError:
            connection.close()
            raise
        return connection
