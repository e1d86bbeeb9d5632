"""A client of the frames socket, as small as the specification allows; and a server in a thread of its own."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from edgeward_agent.serving import loop
from edgeward_agent.serving.callers import Callers
from edgeward_agent.serving.capture import Capture, NoCapture
from edgeward_agent.serving.frames.server import FrameLimits, FrameServer
from edgeward_agent.serving.inference import Runner
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.scheduler import Scheduler
from edgeward_agent.wire import frames as wire
from edgeward_agent.wire.frames import Answer, Run
from edgeward_agent.wire.tensors import DATATYPE, Array
from edgeward_contract.schema import JsonValue
from support.serving import Json

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


def memory_file(size: int, *, seals: int = SEALS) -> int:
    descriptor = os.memfd_create("frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(20)
    connection.connect(str(path))
    return connection


def open_plan(connection: socket.socket, document: JsonValue, descriptors: Sequence[int]) -> tuple[int, Json]:
    """Send a plan; status and document of the answer."""
    socket.send_fds(connection, [wire.open_packet(document)], list(descriptors))
    return wire.read_opened(connection.recv(wire.MAX_OPEN_BYTES))


class FrameClient:
    """One plan: the arrays in `inputs` are the shared memory itself, as are those that `run` returns."""

    def __init__(
        self, path: Path, model: str, inputs: Mapping[str, Array], room: Mapping[str, int], **more: JsonValue
    ) -> None:
        self.document, size = _document(model, inputs, room, more)
        descriptor = memory_file(size)
        self._memory = mmap.mmap(descriptor, size)
        self.connection = connect(path)
        self.status, self.opened = open_plan(self.connection, self.document, [descriptor])
        os.close(descriptor)
        self.inputs = {each["name"]: self._view(each["offset"], array) for each, array in self._places(inputs)}
        for name, array in inputs.items():
            self.inputs[name][...] = array
        self._sequence = 0

    def __enter__(self) -> FrameClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(self, *, timeout_us: int = 0, priority: int = 0, request_id: str = "") -> Answer:
        """Send a request and wait for its answer."""
        self.send(timeout_us=timeout_us, priority=priority, request_id=request_id)
        return self.receive()

    def send(self, *, timeout_us: int = 0, priority: int = 0, request_id: str = "") -> None:
        self._sequence += 1
        run = Run(sequence=self._sequence, timeout_us=timeout_us, priority=priority, request_id=request_id)
        self.connection.send(run.packet())

    def receive(self) -> Answer:
        return wire.read_answer(self.connection.recv(wire.MAX_ANSWER_BYTES))

    def output(self, name: str, dtype: str, shape: Sequence[int]) -> Array:
        place = next(each for each in self.document["outputs"] if each["name"] == name)
        return np.ndarray(shape, dtype, self._memory, place["offset"]).copy()

    def _places(self, inputs: Mapping[str, Array]) -> Iterator[tuple[Json, Array]]:
        return zip(self.document["inputs"], inputs.values(), strict=True)

    def _view(self, offset: int, like: Array) -> Array:
        return np.ndarray(like.shape, like.dtype, self._memory, offset)


def _document(
    model: str, inputs: Mapping[str, Array], room: Mapping[str, int], more: Mapping[str, JsonValue]
) -> tuple[Json, int]:
    places: dict[str, list[Json]] = {"inputs": [], "outputs": []}
    at = 0
    for name, array in inputs.items():
        datatype = DATATYPE[array.dtype].value
        places["inputs"].append({"name": name, "datatype": datatype, "shape": list(array.shape), "offset": at})
        at += -(-array.nbytes // wire.ALIGNMENT) * wire.ALIGNMENT
    for name, size in room.items():
        places["outputs"].append({"name": name, "offset": at, "size_bytes": size})
        at += -(-size // wire.ALIGNMENT) * wire.ALIGNMENT
    return {"model": model, **places, **more}, max(at, 1)


class FramesHost:
    """A frames server on a loop in a thread."""

    def __init__(self, path: Path, registry: Registry, capture: Capture, limits: FrameLimits) -> None:
        self.path = path
        self.registry = registry
        self._capture = capture
        self._limits = limits
        self._stop = asyncio.Event()
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: loop.run(self._main()), daemon=True)
        self._thread.start()
        assert self._up.wait(20)

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        scheduler = Scheduler(self._loop, callers=Callers())
        scheduler.start()
        self.server = FrameServer(self.registry, Runner(scheduler, self._capture), self._limits)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(self.path))
            listener.listen(64)
            self.server.listen(listener)
            keeping = asyncio.create_task(self.server.keep_time())
            self._up.set()
            await self._stop.wait()
            keeping.cancel()
            await self.server.drain(5)
        with suppress(asyncio.CancelledError):
            await keeping
        await scheduler.close()
        await self.registry.close()


@contextmanager
def frames_host(
    folder: Path, registry: Registry, *, capture: Capture | None = None, limits: FrameLimits | None = None
) -> Iterator[FramesHost]:
    host = FramesHost(folder / "f.sock", registry, capture or NoCapture(), limits or FrameLimits())
    try:
        yield host
    finally:
        host.stop()
