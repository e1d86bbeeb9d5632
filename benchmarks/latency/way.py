"""One way to ask a server, and asking it once: to see that it answers at all, and rightly."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Final

from benchmarks.latency import wire
from benchmarks.latency.frames import Plan
from benchmarks.latency.native import Target
from benchmarks.latency.wire import Endpoint, WrongAnswer
from benchmarks.latency.workload import Workload

_PATIENCE_S: Final = 60.0
_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where to ask, the bytes to ask with, and how to read the answer: an HTTP endpoint, or a plan for frames."""

    target: Target
    request: bytes
    endpoint: Endpoint | None = None
    plan: Plan | None = None


def ask(way: Way) -> bytes:
    """One request on a connection of its own; the whole answer. Raises OSError, WrongAnswer."""
    if way.plan is not None:
        return way.plan.ask(way.target.where)[0]
    with _connected(way.target) as connection:
        connection.settimeout(_PATIENCE_S)
        connection.sendall(way.request)
        answer = bytearray()
        while not _whole(answer) and (some := connection.recv(1 << 20)):
            answer += some
        return bytes(answer)


def check(way: Way, workload: Workload) -> None:
    """Raises WrongAnswer unless the server gives the model's own outputs, OSError when it does not answer."""
    if way.plan is not None:
        found = way.plan.ask(way.target.where)[1]
    else:
        assert way.endpoint is not None
        found = wire.outputs(way.endpoint, ask(way))
    far = wire.difference(workload.outputs, found)
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
