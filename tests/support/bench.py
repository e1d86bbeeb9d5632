"""A server of the Open Inference Protocol that does as it is told, and reports made of numbers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from edgeward_agent.bench.block import Block
from edgeward_agent.bench.noise import Noise, Surroundings
from edgeward_agent.bench.quantiles import Floats
from edgeward_agent.bench.wire import Place

OK_BODY = (
    b'{"model_name":"toy","model_version":"1","outputs":[{"name":"risk","datatype":"FP32","shape":[1],"data":[0.5]}]}'
)
Behave = Callable[[int, socket.socket], bytes | None]
"""Given the number of the request and the connection: the answer, or None to close the connection without one."""


def answer(body: bytes = OK_BODY, status: str = "200 OK", *extra: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *extra))
    return head.encode() + b"\r\n" + body


@dataclass(slots=True)
class Pretender:
    """Answers every request as `behave` says. `asked` are the requests' heads."""

    place: Place
    behave: Behave
    listener: socket.socket
    asked: list[bytes] = field(default_factory=list)
    connections: int = 0

    def leave(self) -> None:
        """Take no more connections, as a process that is gone."""
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)

    def serve(self, connection: socket.socket) -> None:
        self.connections += 1
        with connection, suppress(OSError), connection.makefile("rb") as stream:
            while (head := _head(stream)) is not None:
                number = len(self.asked)
                self.asked.append(head)
                reply = self.behave(number, connection)
                if reply is None:
                    return
                connection.sendall(reply)


@contextmanager
def pretending(behave: Behave = lambda _, __: answer()) -> Iterator[Pretender]:
    """A server on a free port, for as long as the context lasts."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        made = Pretender(Place(host="127.0.0.1", port=listener.getsockname()[1]), behave, listener)
        threading.Thread(target=_accept, args=(listener, made), daemon=True).start()
        yield made
        made.leave()


def _accept(listener: socket.socket, made: Pretender) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=made.serve, args=(connection,), daemon=True).start()


def _head(stream: BinaryIO) -> bytes | None:
    lines: list[bytes] = []
    length = 0
    while line := stream.readline():
        if line == b"\r\n":
            stream.read(length)
            return b"".join(lines)
        lines.append(line)
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return None


def stall_once(number: int, seconds: float) -> Behave:
    """Everything waits while the request of that number is answered, as in a server that collects its garbage."""
    door = threading.Lock()

    def behave(at: int, _: socket.socket) -> bytes:
        with door:
            if at == number:
                time.sleep(seconds)
        return answer()

    return behave


def metadata(name: str = "toy", shape: tuple[int, ...] = (-1, 3)) -> bytes:
    tensors = [{"name": "features", "datatype": "FP32", "shape": list(shape)}]
    return answer(json.dumps({"name": name, "versions": ["1"], "inputs": tensors, "outputs": tensors}).encode())


def block(latencies_us: Floats | list[float], **more: object) -> Block:
    values = np.array(latencies_us, dtype=np.float64)
    fields: dict[str, object] = {"latencies_us": values, "sent_us": values, "seconds": float(np.sum(values)) / 1e6}
    return Block(**(fields | more))  # type: ignore[arg-type]


MACHINE = Surroundings(processor="Test CPU", cores=2, system="Linux 6")
QUIET = Noise(probe_p50_us=200.0, ratio=1.1, drift=1.02, slowdown=1.1, reasons=())
NOISY = Noise(probe_p50_us=200.0, ratio=4.0, drift=1.02, slowdown=4.0, reasons=("other programs used 60 % of it",))
