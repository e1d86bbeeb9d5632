"""Connections that are there by a given time, whatever a host's addresses or a full queue make of it."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Final

from edgeward_agent.client.waits import left_s

_AGAIN_S: Final = 0.01  # nothing tells when a queue has room


class QueueFull(TimeoutError):
    """Somebody listens, but has taken up nobody in all the time."""

    def __init__(self) -> None:
        super().__init__("timed out, the server's queue of new connections was full")


def connect_tcp(host: str, port: int, ends_s: float) -> socket.socket:
    """A socket that is connected by then, on `time.monotonic`. Each address of the host has its share of the time.

    Raises:
        OSError: none of them answers.
    """
    failed = OSError("the host has no address")
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for behind, (family, kind, _, _, where) in zip(range(len(found), 0, -1), found, strict=True):
        try:
            connection = _connected(family, kind, where, left_s(ends_s) / behind)
        except OSError as error:
            failed = error
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
    raise failed


def connect_unix(path: str, kind: socket.SocketKind, ends_s: float) -> socket.socket:
    """As `connect_tcp`. Raises OSError, QueueFull among them."""
    while True:
        try:
            return _connected(socket.AF_UNIX, kind, path, left_s(ends_s))
        except BlockingIOError:
            if time.monotonic() + _AGAIN_S >= ends_s:
                raise QueueFull from None
        time.sleep(_AGAIN_S)


async def connect_unix_in_loop(path: str, kind: socket.SocketKind, ends_s: float) -> socket.socket:
    """As `connect_unix`, on the loop's clock. The loop's own way takes a full queue for a connection."""
    while True:
        try:
            return _connected(socket.AF_UNIX, kind, path, 0)
        except BlockingIOError:
            if asyncio.get_running_loop().time() + _AGAIN_S >= ends_s:
                raise QueueFull from None
        await asyncio.sleep(_AGAIN_S)


def _connected(
    family: socket.AddressFamily, kind: socket.SocketKind, where: str | tuple[object, ...], timeout_s: float
) -> socket.socket:
    connection = socket.socket(family, kind)
    try:
        connection.settimeout(timeout_s)
        connection.connect(where)
    except OSError:
        connection.close()
        raise
    return connection
