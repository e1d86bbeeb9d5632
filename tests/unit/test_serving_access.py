"""Who may ask over TCP: the token, and that a connection neither forgets nor mistakes it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeward_agent.serving.access import is_authorized, refused
from edgeward_agent.serving.connection import Connection
from edgeward_agent.serving.exchange import Headers, Limits, Request
from edgeward_agent.serving.http import HostGuard, HttpServer, TcpGuard
from edgeward_agent.serving.refusal import Refusal
from support.serving import until

TOKEN = b"s3cret-s3cret-s3cret-s3cret-s3cret"
GOOD = b"Authorization: Bearer " + TOKEN + b"\r\n"
HEAD = b"POST %b HTTP/1.1\r\nHost: localhost\r\n%bContent-Length: %d\r\n\r\n"
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


@pytest.mark.parametrize("shown", [b"Bearer " + TOKEN, b"bearer " + TOKEN, b"BEARER  " + TOKEN + b" "])
def test_who_shows_the_token_may_ask(shown: bytes) -> None:
    assert is_authorized(shown, TOKEN)
    assert refused(shown, TOKEN) is None


@pytest.mark.parametrize(
    "shown",
    [None, b"", b"Bearer", b"Bearer ", TOKEN, b"Basic " + TOKEN, b"Bearer " + TOKEN[:-1], b"Bearer " + TOKEN + b"x"],
)
def test_who_does_not_is_told_what_is_wanted(shown: bytes | None) -> None:
    refusal = refused(shown, TOKEN)
    assert refusal is not None
    assert str(refusal) == "expected the header `Authorization: Bearer TOKEN`, got none or another"
    assert (refusal.status, refusal.fields) == (401, b"WWW-Authenticate: Bearer\r\n")
    assert "serving.token_file" in refusal.hint


def test_without_a_token_everybody_may_ask() -> None:
    assert is_authorized(None, b"") and is_authorized(b"anything", b"")


@given(st.binary())
def test_no_other_bytes_are_the_token(shown: bytes) -> None:
    assert not is_authorized(shown, TOKEN)


def _echo(request: Request) -> None:
    request.answer((b"<", bytes(request.body), b">"))


LIMITS = Limits(token=TOKEN, linger_s=0.2)


def _run(client: Callable[[HttpServer, Reader, Writer], Awaitable[None]], limits: Limits = LIMITS) -> None:
    async def main() -> None:
        server = HttpServer(_echo, limits)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await server.listen(listener)
            timekeeper = asyncio.create_task(server.keep_time())
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            async with asyncio.timeout(20):
                await client(server, reader, writer)
            writer.close()
            await until(lambda: not server.state.connections)
            assert server.state.held_bytes == 0
            timekeeper.cancel()
            await server.drain(1)

    asyncio.run(main())


async def _answer(reader: Reader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + await reader.readexactly(size)


def test_a_refused_request_leaves_the_connection_to_better_ones() -> None:
    async def client(server: HttpServer, reader: Reader, writer: Writer) -> None:
        for shown, status in ((b"", b"401"), (GOOD, b"200"), (GOOD.replace(b"s3", b"S3"), b"401"), (GOOD, b"200")) * 3:
            for body in (b"ab", b"cd"):
                writer.write(HEAD % (b"/", shown, 2) + body)
                answer = await _answer(reader)
                assert answer.startswith(b"HTTP/1.1 " + status)
                assert answer.endswith(b"<" + body + b">" if status == b"200" else b'got none or another"}')
                assert (b"\r\nWWW-Authenticate: Bearer\r\n" in answer) == (status == b"401")

    _run(client)


def test_pipelined_requests_are_judged_each_by_its_own() -> None:
    async def client(server: HttpServer, reader: Reader, writer: Writer) -> None:
        writer.write(HEAD % (b"/", GOOD, 1) + b"a" + HEAD % (b"/", b"", 1) + b"b" + HEAD % (b"/", GOOD, 1) + b"c")
        assert [(await _answer(reader))[9:12] for _ in range(3)] == [b"200", b"401", b"200"]

    _run(client)


@pytest.mark.parametrize("target", [b"/v2/health/live", b"/v2/health/ready"])
def test_a_probe_needs_no_token(target: bytes) -> None:
    async def client(server: HttpServer, reader: Reader, writer: Writer) -> None:
        writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await _answer(reader)).startswith(b"HTTP/1.1 200")

    _run(client)


@pytest.mark.parametrize(
    "target", [b"/v2", b"/v2/models/m", b"/v2/models/m/ready", b"/metrics", b"/v2/health/live/../../models/m"]
)
def test_everything_else_does(target: bytes) -> None:
    async def client(server: HttpServer, reader: Reader, writer: Writer) -> None:
        writer.write(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await _answer(reader)).startswith(b"HTTP/1.1 401")

    _run(client)


@pytest.mark.parametrize(
    "more",
    [b"Content-Length: 65536\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\nExpect: 100-continue\r\n"],
)
def test_large_bodies_of_strangers_are_not_kept(more: bytes) -> None:
    async def client(server: HttpServer, reader: Reader, writer: Writer) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 401")
        assert b"WWW-Authenticate: Bearer\r\nConnection: close\r\n" in answer
        assert server.state.held_bytes == 0

    _run(client)


def test_two_tokens_are_none() -> None:
    async def client(server: HttpServer, reader: Reader, writer: Writer) -> None:
        writer.write(HEAD % (b"/", GOOD + b"Authorization: Bearer x\r\n", 0))
        assert (await reader.read()).startswith(b"HTTP/1.1 400")

    _run(client)


class _Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data


def test_the_verdict_is_remembered_with_the_head_and_only_a_good_one() -> None:
    async def main() -> None:
        asked: list[bytes] = []

        class Counting(TcpGuard):
            def __call__(self, target: bytes, headers: Headers) -> Refusal | None:
                asked.append(target)
                return super().__call__(target, headers)

        server = HttpServer(_echo, replace(Limits(), token=TOKEN))
        connection, wire = Connection(server.state, Counting(HostGuard(local_only=True), TOKEN)), _Wire()
        connection.connection_made(wire)
        for body in (b"ab", b"cd", b"ef"):
            connection.data_received(HEAD % (b"/", GOOD, 2) + body)
        assert (len(asked), wire.written.count(b"200 OK")) == (1, 3)
        for _ in range(2):
            connection.data_received(HEAD % (b"/", GOOD[:-3] + b"\r\n", 2) + b"gh")
        assert (len(asked), wire.written.count(b"401 Unauthorized")) == (3, 2)
        connection.connection_lost(None)

    asyncio.run(main())


@pytest.mark.parametrize("target", [b"/v2/health/live?x=1", b"/v2/health/ready?"])
def test_a_query_changes_nothing_of_a_probe(target: bytes) -> None:
    test_a_probe_needs_no_token(target)


@pytest.mark.parametrize(
    "body", [b"Content-Length: 70000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n", b"Content-Length: 2\r\n\r\nab"]
)
def test_a_probe_that_brings_something_needs_one(body: bytes) -> None:
    """Strangers would take the room of all with what nobody wants."""

    async def client(server: HttpServer, reader: Reader, writer: Writer) -> None:
        writer.write(b"POST /v2/health/live HTTP/1.1\r\nHost: localhost\r\n" + body)
        assert (await _answer(reader)).startswith(b"HTTP/1.1 401")

    _run(client)


def test_who_does_not_show_the_token_leaves_first() -> None:
    """Connections that say nothing, or only ask how the server does, cost nobody his place."""
    limits = replace(LIMITS, connections=3)

    async def client(server: HttpServer, reader: Reader, writer: Writer) -> None:
        writer.write(HEAD % (b"/", GOOD, 1) + b"a")
        assert (await _answer(reader)).startswith(b"HTTP/1.1 200")
        where = writer.get_extra_info("peername")
        crowd = [await asyncio.open_connection(*where) for _ in range(8)]
        for other, each in crowd[-2:]:
            each.write(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await _answer(other)).startswith(b"HTTP/1.1 200")
        newcomer, says = await asyncio.open_connection(*where)
        says.write(HEAD % (b"/", GOOD, 1) + b"b")
        assert (await _answer(newcomer)).startswith(b"HTTP/1.1 200")
        writer.write(HEAD % (b"/", GOOD, 1) + b"c")
        assert (await _answer(reader)).endswith(b"<c>")
        assert len(server.state.connections) == 3
        for _, each in (*crowd, (newcomer, says)):
            each.close()

    _run(client, limits)


def test_who_has_shown_it_has_more_time() -> None:
    limits = replace(LIMITS, stranger_s=0.3, request_s=0.4)

    async def client(server: HttpServer, reader: Reader, writer: Writer) -> None:
        writer.write(HEAD % (b"/", GOOD, 1) + b"a")
        assert (await _answer(reader)).startswith(b"HTTP/1.1 200")
        other, silent = await asyncio.open_connection(*writer.get_extra_info("peername"))
        assert await other.read() == b""
        silent.close()
        writer.write(HEAD % (b"/", GOOD, 1) + b"b")
        assert (await _answer(reader)).endswith(b"<b>")

    _run(client, limits)
