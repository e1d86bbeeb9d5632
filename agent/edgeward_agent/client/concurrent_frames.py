"""Shared memory for asyncio: as many connections of one form as questions of it are under way."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from typing import Final

from edgeward_agent.client.answers import Answer
from edgeward_agent.client.blocking_frames import MAX_PLANS, NOT_THERE
from edgeward_agent.client.connecting import connect_unix_in_loop
from edgeward_agent.client.errors import ClientError, ServerFailed, Unreachable
from edgeward_agent.client.learnt import Learnt, carried, form_of
from edgeward_agent.client.memory import offer
from edgeward_agent.client.plan import Layout, Plan, PlanOver
from edgeward_agent.client.wish import WishFields
from edgeward_agent.wire.frames import MAX_ANSWER_BYTES, MAX_OPEN_BYTES, FrameError
from edgeward_agent.wire.tensors import Array

_log: Final = logging.getLogger(__name__)
OverHttp = Callable[[WishFields, Mapping[str, Array]], Awaitable[Answer]]


class AsyncFrames:
    """The plans of one client that nobody uses now, and how to get one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._learnt = Learnt()
        self._idle: list[tuple[Hashable, _Line]] = []  # the one that was used last is the last
        self._generation = 0  # how often it was closed

    @property
    def plans(self) -> int:
        return len(self._idle)

    def close(self) -> None:
        """As `AsyncClient.close`."""
        self._generation += 1
        while self._idle:
            self._idle.pop()[1].close()

    async def infer(
        self, wish: WishFields, inputs: Mapping[str, Array], generation: int, ends_s: float, over_http: OverHttp
    ) -> Answer:
        """As `Frames.infer`. `generation` is how often it was closed when the question was put."""
        form, arrays = form_of(wish, inputs)
        if not carried(wish):
            return await over_http(wish, inputs)
        answer = await self._infer(form, wish, arrays, generation, ends_s)
        if answer is None:
            answer = await over_http(wish, inputs)
            self._learnt.learn(form, arrays, answer)
        return answer

    async def _infer(
        self, form: Hashable, wish: WishFields, arrays: Mapping[str, Array], generation: int, ends_s: float
    ) -> Answer | None:
        try:
            return await self._ask(form, wish, arrays, generation, ends_s)
        except PlanOver:
            return None
        except TimeoutError as error:
            raise self._unreachable(str(error) or "timed out") from None
        except FrameError as error:
            raise ServerFailed(f"frames:{self._path}: expected an answer of the protocol, got: {error}") from None
        except OSError as error:
            raise self._unreachable(str(error) or type(error).__name__) from None

    async def _ask(
        self, form: Hashable, wish: WishFields, arrays: Mapping[str, Array], generation: int, ends_s: float
    ) -> Answer | None:
        """Ask, and on a new connection when a kept one turns out to be closed."""
        while (line := self._take(form)) is not None:
            try:
                return await self._talk(form, line, wish, arrays, ends_s)
            except (BrokenPipeError, ConnectionResetError):
                continue
        line = await self._open(form, wish, arrays, generation, ends_s)
        return await self._talk(form, line, wish, arrays, ends_s) if line is not None else None

    async def _talk(
        self, form: Hashable, line: _Line, wish: WishFields, arrays: Mapping[str, Array], ends_s: float
    ) -> Answer:
        """A connection is kept unless its question was given up: what still comes answers nobody."""
        try:
            async with asyncio.timeout_at(ends_s):
                answer = await line.ask(wish, arrays.values())
        except ClientError:  # the server's answer
            self._keep(form, line)
            raise
        except BaseException:
            line.close()
            raise
        self._keep(form, line)
        return answer

    async def _open(
        self, form: Hashable, wish: WishFields, arrays: Mapping[str, Array], generation: int, ends_s: float
    ) -> _Line | None:
        now_s = time.monotonic()
        layout = self._learnt.layout(form, wish, arrays, now_s)
        if layout is None:
            return None
        try:
            return await _open_line(self._path, layout, generation, ends_s)
        except (PlanOver, *NOT_THERE) as error:
            if self._learnt.refused(form, getattr(error, "status", 0), now_s):
                _log.warning("frames:%s: expected a plan that is taken, got: %s. HTTP it is", self._path, error)
            return None

    def _take(self, form: Hashable) -> _Line | None:
        for at in range(len(self._idle) - 1, -1, -1):
            if self._idle[at][0] == form:
                return self._idle.pop(at)[1]
        return None

    def _keep(self, form: Hashable, line: _Line) -> None:
        """For the next question; one that was opened before the client was closed ends, nobody would close it."""
        if line.generation != self._generation:
            line.close()
            return
        self._idle.append((form, line))
        if len(self._idle) > MAX_PLANS:
            self._idle.pop(0)[1].close()

    def _unreachable(self, why: str) -> Unreachable:
        return Unreachable(f"frames:{self._path}: expected an answer, got: {why}")


class _Line:
    """One plan on one connection, one question at a time. `generation` is as over HTTP."""

    def __init__(self, connection: socket.socket, plan: Plan, generation: int) -> None:
        self.generation = generation
        self._socket = connection
        self._plan = plan

    async def ask(self, wish: WishFields, arrays: Iterable[Array]) -> Answer:
        """Raises OSError, ClientError, PlanOver or FrameError."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._socket, self._plan.question(wish, arrays))
        return self._plan.answer(wish, await _packet(self._socket, MAX_ANSWER_BYTES))

    def close(self) -> None:
        self._socket.close()


async def _open_line(path: str, layout: Layout, generation: int, ends_s: float) -> _Line:
    """Raises OSError, PlanOver or FrameError."""
    connection = await connect_unix_in_loop(path, socket.SOCK_SEQPACKET, ends_s)
    try:
        memory = offer(connection, layout)
        async with asyncio.timeout_at(ends_s):
            plan = Plan(layout, memory, await _packet(connection, MAX_OPEN_BYTES))
        return _Line(connection, plan, generation)
    except BaseException:
        connection.close()
        raise


async def _packet(connection: socket.socket, limit_bytes: int) -> bytes:
    packet = await asyncio.get_running_loop().sock_recv(connection, limit_bytes)
    if not packet:
        raise ConnectionResetError("the connection was closed")
    return packet
