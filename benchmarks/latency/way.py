"""One way to ask a server, and asking it once: to see that it answers at all, and rightly."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from benchmarks.latency import wire
from benchmarks.latency.native import Target
from benchmarks.latency.wire import Endpoint, WrongAnswer
from benchmarks.latency.workload import Workload

_PATIENCE_S = 60.0
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where to ask, the bytes to ask with, and how to read the answer."""

    target: Target
    request: bytes
    endpoint: Endpoint


def ask(way: Way) -> bytes:
    """One request on a connection of its own; the whole answer. Raises OSError."""
    with _connected(way.target) as connection:
        connection.settimeout(_PATIENCE_S)
        connection.sendall(way.request)
        answer = bytearray()
        while not _whole(answer) and (some := connection.recv(1 << 20)):
            answer += some
        return bytes(answer)


def check(way: Way, answer: bytes, workload: Workload) -> None:
    """Raises WrongAnswer unless the answer holds the model's own outputs."""
    far = wire.difference(workload.outputs, wire.outputs(way.endpoint, answer))
    if far > _TOLERANCE:
        raise WrongAnswer(f"expected the model's own outputs, got some that are {far:g} away")


def _connected(target: Target) -> socket.socket:
    if target.kind == "tcp":
        return socket.create_connection(("127.0.0.1", int(target.where)))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(target.where)
    return connection


def _whole(answer: bytearray) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return bool(end) and len(body) >= int(line.partition(b":")[2])
    return False
