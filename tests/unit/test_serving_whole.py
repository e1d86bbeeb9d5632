"""Large requests that come again: read to where they lie, and never one in place of another. Real sockets."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Protocol

import pytest

from edgeward_agent.serving import loop
from edgeward_agent.serving.connection import Connection
from edgeward_agent.serving.exchange import Limits, Request
from edgeward_agent.serving.http import HttpServer
from edgeward_agent.serving.whole import LARGEST_BYTES, SMALLEST_BYTES
from support.serving import until

LIMITS = Limits(request_s=0.5, idle_s=5.0, linger_s=0.5)


class _Loop(Protocol):
    def __call__(self, main: Coroutine[None, None, None]) -> None: ...


LOOPS = pytest.mark.parametrize("run", [asyncio.run, loop.run], ids=["asyncio", "uvloop"])


def _echo(request: Request) -> None:
    """Answers with what it got; what waits is looked at when it is answered."""
    if request.target == b"/later":
        asyncio.get_running_loop().call_later(0.01, lambda: request.answer((bytes(request.body),)))
    elif request.target == b"/lies":
        request.answer((bytes(request.lies),))
    else:
        request.answer((request.body,))


def _served(run: _Loop, client: Callable[[HttpServer, int], Awaitable[None]], limits: Limits = LIMITS) -> None:
    async def main() -> None:
        server = HttpServer(_echo, limits)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await server.listen(listener)
            timekeeper = asyncio.create_task(server.keep_time())
            async with asyncio.timeout(30):
                await client(server, listener.getsockname()[1])
                await until(lambda: not server.state.connections)
            assert server.state.held_bytes == server.state.readers_bytes == 0
            timekeeper.cancel()
            await server.drain(1)

    run(main())


def _request(target: str, body: bytes) -> bytes:
    return b"POST /%b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (target.encode(), len(body)) + body


class _Client:
    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> _Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        await self.writer.wait_closed()

    async def answer(self) -> bytes:
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        size = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
        return await self.reader.readexactly(int(size.split()[1]))

    async def ask(self, target: str, body: bytes, cuts: Sequence[int] = ()) -> bytes:
        request = _request(target, body)
        ends = [*sorted(cuts), len(request)]
        for begin, end in zip([0, *ends], ends, strict=False):
            self.writer.write(request[begin:end])
            await asyncio.sleep(0)
        return await self.answer()


def _readers(server: HttpServer) -> int:
    return sum(each._reader is not None for each in server.state.connections if isinstance(each, Connection))


@LOOPS
def test_each_client_gets_its_own_whatever_the_pieces(run: _Loop) -> None:
    async def client(port: int, seed: int) -> None:
        chance = random.Random(seed)
        async with _Client(port) as client:
            for _ in range(60):
                body = chance.randbytes(SMALLEST_BYTES + chance.choice([0, 0, 0, 0, 1, 180_000]))
                cuts = [chance.randrange(len(body)) for _ in range(chance.randrange(4))] + [chance.randrange(70)]
                target = chance.choice(["same", "same", "same", "later", "lies"])
                assert await client.ask(target, body, cuts) == body

    async def clients(server: HttpServer, port: int) -> None:
        await asyncio.gather(*(client(port, seed) for seed in range(6)))

    _served(run, clients)


@LOOPS
@pytest.mark.parametrize("target", ["now", "later", "lies"])
def test_a_request_that_comes_again_is_read_to_where_it_lies(run: _Loop, target: str) -> None:
    async def client(server: HttpServer, port: int) -> None:
        async with _Client(port) as client:
            for number in range(5):
                body = bytes([number]) * 300_000
                assert await client.ask(target, body) == body
                assert _readers(server) == 1 and server.state.readers_bytes > 300_000

    _served(run, client)


def _has_come(connection: Connection, due: int) -> bool:
    return connection._current is not None or connection._turns >= due


@LOOPS
def test_what_comes_while_an_answer_is_due_does_not_change_it(run: _Loop) -> None:
    """The body of one that waits is a copy: the next is read to the memory that it came in."""

    async def client(server: HttpServer, port: int) -> None:
        async with _Client(port) as client:
            bodies = [bytes([number]) * 200_000 for number in range(1, 9)]
            assert await client.ask("later", bodies[0]) == bodies[0]
            (connection,) = server.state.connections
            assert isinstance(connection, Connection)
            for first, second in itertools.pairwise(bodies):
                due = 1 + connection._turns
                client.writer.write(_request("later", first))
                # On a busy machine the moment may be over before anybody looks.
                await until(partial(_has_come, connection, due))
                client.writer.write(_request("later", second))
                assert [await client.answer(), await client.answer()] == [first, second]

    _served(run, client)


@LOOPS
def test_another_request_in_between_is_answered(run: _Loop) -> None:
    async def client(server: HttpServer, port: int) -> None:
        async with _Client(port) as client:
            large, small = b"a" * 100_000, b"b"
            for body in [large, large, small, large, large, b"c" * 100_000, small, small, large, large, b"d" * 99_999]:
                assert await client.ask("x", body) == body
            client.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert await client.answer() == b""
            assert await client.ask("x", large) == large
            client.writer.write(b"\r\n" + _request("x", large))  # empty lines before a request are allowed
            assert await client.answer() == large

    _served(run, client)


@LOOPS
def test_one_that_stops_in_the_middle_is_told_so(run: _Loop) -> None:
    async def client(server: HttpServer, port: int) -> None:
        async with _Client(port) as client:
            body = b"a" * 100_000
            assert await client.ask("x", body) == body
            client.writer.write(_request("x", body)[:-1])
            assert b" 408 " in await client.reader.readuntil(b"\r\n")

    _served(run, client)


@LOOPS
@pytest.mark.parametrize("size", [SMALLEST_BYTES // 2, LARGEST_BYTES + 1])
def test_others_come_as_ever(run: _Loop, size: int) -> None:
    async def client(server: HttpServer, port: int) -> None:
        async with _Client(port) as client:
            for number in range(3):
                assert await client.ask("x", bytes([number]) * size) == bytes([number]) * size
            assert _readers(server) == 0

    _served(run, client)


@LOOPS
def test_memory_to_read_to_is_limited(run: _Loop) -> None:
    async def client(server: HttpServer, port: int) -> None:
        clients = [await _Client(port).__aenter__() for _ in range(24)]
        for each in clients:
            body = random.Random(id(each)).randbytes(LARGEST_BYTES - 1000)
            assert [await each.ask("x", body) for _ in range(2)] == [body, body]
        assert 10 < _readers(server) < 24 and server.state.readers_bytes <= 32 << 20
        for each in clients:
            await each.__aexit__()

    _served(run, client)
