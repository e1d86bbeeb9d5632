"""Where a server is: `http://HOST:PORT`, `unix:PATH`, or `frames:PATH` with one of the others beside it."""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgeward_agent.client.connecting import connect_tcp, connect_unix
from edgeward_agent.client.errors import InvalidAddress

DEFAULT: Final = "http://127.0.0.1:8500"
_DEFAULT_PORT: Final = 8500
_FRAMES: Final = "frames:"
_BESIDE: Final = "serving.sock"  # as the agent lays its sockets
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

    def connect(self, ends_s: float) -> socket.socket:
        """A socket that is connected by then, on `time.monotonic`. Raises OSError."""
        if self.path:
            return connect_unix(self.path, socket.SOCK_STREAM, ends_s)
        return connect_tcp(self.host, self.port, ends_s)


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


def checked_timeout(timeout_s: float) -> float:
    """Raises InvalidAddress: no length of time, or one that no system call takes."""
    if isinstance(timeout_s, int | float) and 0 < timeout_s <= _LONGEST_S:
        return float(timeout_s)
    raise InvalidAddress(f"expected a time-out from 0 to {_LONGEST_S:,} s, got {timeout_s!r}")


def reason(error: Exception, ends_s: float) -> str:
    """Why there is no answer to a question that was to end then; what fails when its time is over was broken off."""
    if not isinstance(error, TimeoutError) and (isinstance(error, BlockingIOError) or time.monotonic() >= ends_s):
        return "timed out"
    return str(error) or type(error).__name__
