"""The composition root of everything that serves: with a fleet (`main`) and without (`local`)."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Final

from edgeward_agent.serving.api import DataApi
from edgeward_agent.serving.asked import Terms
from edgeward_agent.serving.callers import Callers
from edgeward_agent.serving.capture import Capture
from edgeward_agent.serving.codec import Codec
from edgeward_agent.serving.exchange import Handler, Limits
from edgeward_agent.serving.http import HttpServer
from edgeward_agent.serving.inference import Runner
from edgeward_agent.serving.management import Management
from edgeward_agent.serving.registry import Registry
from edgeward_agent.serving.scheduler import Scheduler
from edgeward_agent.serving.shared_memory import NoRegions, Regions

_DRAIN_S: Final = 4.0  # less than the agent waits for the end of this process


class _Drain:
    """The drains of all front ends, which go on at the same time: none has less of it because another takes long."""

    def __init__(self) -> None:
        self._due: list[Callable[[float], Coroutine[None, None, None]]] = []

    def add(self, drain: Callable[[float], Coroutine[None, None, None]]) -> None:
        self._due.append(drain)

    async def all(self) -> None:
        """Those that were not done yet."""
        due, self._due = self._due, []
        await asyncio.gather(*(drain(_DRAIN_S) for drain in due))


@asynccontextmanager
async def serving(
    registry: Registry,
    capture: Capture,
    listeners: Sequence[socket.socket],
    *,
    grpc: str = "",
    limits: Limits | None = None,
) -> AsyncIterator[None]:
    """Answer requests on the data sockets for as long as the context lasts; then drain.

    Args:
        grpc: HOST:PORT to answer on over gRPC, which opens its own sockets; empty is not at all.
    """
    scheduler = Scheduler(asyncio.get_running_loop(), callers=Callers())
    scheduler.start()
    runner = Runner(scheduler, capture)
    http = [each for each in listeners if each.type == socket.SOCK_STREAM]
    packets = [each for each in listeners if each.type != socket.SOCK_STREAM]
    drain = _Drain()
    drain.add(scheduler.drain)
    try:
        async with (
            _answering_data(registry, runner, http, limits or Limits(), drain, grpc=grpc),
            _answering_frames(registry, runner, packets, drain),
        ):
            # What is in memory now stays: the collector need not walk through numpy and the runtime again and again.
            gc.freeze()
            gc.enable()
            try:
                yield
            finally:
                await drain.all()
    finally:
        await scheduler.close()
        await registry.close()


@asynccontextmanager
async def answering(handler: Handler, listeners: Sequence[socket.socket]) -> AsyncIterator[None]:
    """Answer HTTP with one handler for as long as the context lasts; then drain."""
    async with _answering(HttpServer(handler), listeners, _Drain()):
        yield


@asynccontextmanager
async def _answering_data(
    registry: Registry, runner: Runner, listeners: Sequence[socket.socket], limits: Limits, drain: _Drain, *, grpc: str
) -> AsyncIterator[None]:
    """Serve the Open Inference Protocol for as long as the context lasts; then drain."""
    regions = Regions() if limits.shared_memory else NoRegions()
    terms = Terms(find_region=regions.find, json_bytes=limits.json_bytes, shared_bytes=limits.body_bytes)
    management = Management(registry, regions, body_bytes=limits.body_bytes)
    codec = Codec(limit_bytes=limits.body_bytes)
    api = DataApi(registry, runner, management=management, codec=codec, terms=terms)
    try:
        async with (
            _answering_grpc(registry, runner, grpc, management, terms, limits, drain),
            # Last: who is answered here finds the rest ready.
            _answering(HttpServer(api, limits, runner.scheduler.callers), listeners, drain),
        ):
            yield
    finally:
        codec.close()


@asynccontextmanager
async def _answering_grpc(
    registry: Registry,
    runner: Runner,
    address: str,
    management: Management,
    terms: Terms,
    limits: Limits,
    drain: _Drain,
) -> AsyncIterator[None]:
    """Serve it over gRPC for as long as the context lasts; then drain. Nothing is imported where nobody asks for it."""
    if not address:
        yield
        return
    from edgeward_agent.serving.rpc.server import RpcServer  # the extra `grpc`

    server = RpcServer(registry, runner, management=management, terms=terms, limits=limits)
    async with beside(server.keep_time(), "keep time of gRPC"):
        drain.add(server.drain)
        try:
            await server.listen(address)
            yield
        finally:
            await drain.all()


@asynccontextmanager
async def _answering(server: HttpServer, listeners: Sequence[socket.socket], drain: _Drain) -> AsyncIterator[None]:
    async with beside(server.keep_time(), "keep time"):
        drain.add(server.drain)
        try:
            for listener in listeners:
                await server.listen(listener)
            yield
        finally:
            await drain.all()


@asynccontextmanager
async def _answering_frames(
    registry: Registry, runner: Runner, listeners: Sequence[socket.socket], drain: _Drain
) -> AsyncIterator[None]:
    """Serve frames for as long as the context lasts; then drain. Nothing is imported where nobody listens."""
    if not listeners:
        yield
        return
    from edgeward_agent.serving.frames.server import FrameServer  # Linux alone

    server = FrameServer(registry, runner)
    async with beside(server.keep_time(), "keep time of frames"):
        drain.add(server.drain)
        try:
            for listener in listeners:
                server.listen(listener)
            yield
        finally:
            await drain.all()


@asynccontextmanager
async def beside(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """Let something run for as long as the context lasts. If a bug ends it, that ends the context too, and is raised.

    Unlike a TaskGroup it leaves what the context itself raises as it is: `main` tells an AgentError in one line.
    """
    owner = asyncio.current_task()
    assert owner is not None
    task = asyncio.get_running_loop().create_task(work, name=name)
    task.add_done_callback(lambda _: owner.cancel() if _bug(task) else None)
    try:
        yield
    except asyncio.CancelledError:
        if (bug := _bug(task)) is not None:
            owner.uncancel()
            raise bug from None
        raise
    finally:
        task.cancel()


def _bug(task: asyncio.Task[None]) -> BaseException | None:
    return None if not task.done() or task.cancelled() else task.exception()
