"""A plan of the frames socket (docs/spec/frames.md): where the tensors of a workload lie in memory that is shared."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.latency.wire import Tensors, WrongAnswer
from edgeward_agent.wire import frames as wire
from edgeward_agent.wire.tensors import DATATYPE
from edgeward_contract.schema import JsonValue

RUN: Final = wire.Run(sequence=1).packet()
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The packet that opens a connection, the bytes that its inputs are, and where its outputs will lie."""

    packet: bytes
    inputs: bytes
    memory_bytes: int
    places: tuple[tuple[str, int], ...]
    like: Tensors

    def ask(self, path: str) -> tuple[bytes, Tensors]:
        """One request on a connection of its own: the packet that answers it, and the outputs.

        Raises:
            WrongAnswer: the server refuses the plan or the request.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(60)
            connection.connect(path)
            with self._shared(connection) as memory:
                connection.send(RUN)
                packet = connection.recv(wire.MAX_ANSWER_BYTES)
                if (answer := wire.read_answer(packet)).status != 200:
                    raise WrongAnswer(f"expected status 200, got {answer}")
                return packet, {name: self._output(memory, name, at) for name, at in self.places}

    def _shared(self, connection: socket.socket) -> mmap.mmap:
        descriptor = os.memfd_create("bench", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(descriptor, self.memory_bytes)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            memory = mmap.mmap(descriptor, self.memory_bytes)
            memory[: len(self.inputs)] = self.inputs
            socket.send_fds(connection, [self.packet], [descriptor])
        finally:
            os.close(descriptor)
        status, document = wire.read_opened(connection.recv(wire.MAX_OPEN_BYTES))
        if status != 200:
            raise WrongAnswer(f"expected a plan that is taken, got {document}")
        return memory

    def _output(self, memory: mmap.mmap, name: str, at: int) -> np.typing.NDArray[np.generic]:
        array = self.like[name]
        return np.frombuffer(memory[at : at + array.nbytes], array.dtype)


def plan(model: str, inputs: Tensors, outputs: Tensors) -> Plan:
    """Inputs first, then room for the outputs."""
    given: list[JsonValue] = []
    data = bytearray()
    for name, array in inputs.items():
        described = {"name": name, "datatype": DATATYPE[array.dtype].value, "shape": list(array.shape)}
        given.append({**described, "offset": len(data)})
        data += _padded(array.tobytes())
    wanted: list[JsonValue] = []
    places, end = [], len(data)
    for name, array in outputs.items():
        wanted.append({"name": name, "offset": end, "size_bytes": array.nbytes})
        places.append((name, end))
        end += len(_padded(array.tobytes()))
    packet = wire.open_packet({"model": model, "inputs": given, "outputs": wanted})
    return Plan(packet=packet, inputs=bytes(data), memory_bytes=end, places=tuple(places), like=outputs)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % wire.ALIGNMENT)
