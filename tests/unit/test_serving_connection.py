"""What a connection does with every kind of client. Real sockets in one loop, and limits small enough to reach."""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgeward_agent.serving.callers import Callers
from edgeward_agent.serving.connection import Connection
from edgeward_agent.serving.exchange import Head, Limits, Request
from edgeward_agent.serving.http import HostGuard, HttpServer, TcpGuard
from edgeward_agent.serving.patience import Patience
from edgeward_agent.serving.refusal import Refusal
from support.serving import until

SMALL = Limits(
    connections=4, head_bytes=1000, body_bytes=1000, held_bytes=5000, request_s=0.4, idle_s=0.8, linger_s=0.4
)
GET = b"GET /%b HTTP/1.1\r\nHost: localhost\r\n\r\n"
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


def _guard(token: bytes = b"") -> TcpGuard:
    return TcpGuard(HostGuard(local_only=True), token)


def _echo(request: Request) -> None:
    """Answers with what it got; `/later` on the next turn of the loop, `/fail` and `/refuse` as they say."""
    if request.target == b"/fail":
        raise ZeroDivisionError("a bug")
    if request.target == b"/refuse":
        raise Refusal(HTTPStatus.CONFLICT, "refused")
    parts = (b"<", request.target, bytes(request.body), b">")
    if request.target == b"/later":
        asyncio.get_running_loop().call_later(0.05, request.answer, parts)
    elif request.target != b"/never":
        request.answer(parts)


def _run(client: Callable[[HttpServer, int], Awaitable[None]], *, limits: Limits = SMALL) -> None:
    """Run `client` against a server on a loopback port; the server must be able to answer afterwards."""

    async def main() -> None:
        server = HttpServer(_echo, limits)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await server.listen(listener)
            timekeeper = asyncio.create_task(server.keep_time())
            port = listener.getsockname()[1]
            async with asyncio.timeout(20):
                await client(server, port)
                await _gone(server)
                assert (await _whole(port, GET % b"after")).endswith(b"</after>")
                await _gone(server)
            assert server.state.held_bytes == 0
            timekeeper.cancel()
            await server.drain(1)

    asyncio.run(main())


async def _gone(server: HttpServer) -> None:
    await until(lambda: not server.state.connections)


async def _whole(port: int, data: bytes) -> bytes:
    """Send, say that nothing follows, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def _until_closed(port: int, *pieces: bytes) -> bytes:
    """Send pieces, and read to the end without having said that nothing follows."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await asyncio.sleep(0.01)
    answer = await reader.read()
    writer.close()
    return answer


def _expect(data: bytes, status: int, words: str) -> None:
    async def client(server: HttpServer, port: int) -> None:
        answer = await _until_closed(port, data)
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer
        assert words.encode() in answer
        assert b"Connection: close" in answer

    _run(client)


POST = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
REFUSED = {
    "a transfer coding that is not read": (
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
        "expected Transfer-Encoding chunked or none",
    ),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "expected an HTTP/1.1 request"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", 400, "expected an HTTP/1.1 request"),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, "expected"),
    "length and chunks": (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "expected"),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", 400, "expected an HTTP/1.1 request"),
    "a length beyond reason": (POST + b"Content-Length: %d\r\n\r\n" % 10**30, 400, "expected"),
    "a bad chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "expected an HTTP/1.1 request"),
    "a header with a NUL": (POST + b"X: a\0b\r\n\r\n", 400, "expected an HTTP/1.1 request"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "expected an HTTP/1.1 request"),
    "a long header": (POST + b"X: " + b"a" * 1100 + b"\r\n\r\n", 431, "expected at most 1000 bytes of headers"),
    "many headers": (POST + b"X: y\r\n" * 200 + b"\r\n", 431, "expected at most 1000 bytes of headers"),
    "a long path": (b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\n\r\n", 431, "expected at most 1000 bytes of headers"),
    "a header without end": (POST + b"X: " + b"a" * 600_000, 431, "expected at most 1000 bytes of headers"),
    "a large body": (POST + b"Content-Length: 1001\r\n\r\n", 413, "expected a body of at most 1000 bytes"),
    "large chunks": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"200\r\n" + b"a" * 512 + b"\r\n200\r\n" + b"a" * 512,
        413,
        "expected a body of at most 1000 bytes",
    ),
    "chunks that are all frame": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 600_000,
        413,
        "expected a body of at most 1000 bytes",
    ),
    "an encoding that is not read here": (
        POST + b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\n",
        415,
        "expected Content-Encoding gzip or deflate, got 'br'",
    ),
    "another expectation": (POST + b"Expect: a miracle\r\n\r\n", 417, "expected `Expect: 100-continue` or none"),
    "a foreign Host": (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, "expected Host localhost"),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400, "expected a Host header, got none"),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", 400, "expected the header host once"),
    "another server in the target": (
        b"GET http://evil.example/v2 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        400,
        "expected a path, or an address with the server that the Host header names",
    ),
    "a foreign server in the target, and as Host": (
        b"GET http://evil.example/v2 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        403,
        "expected Host localhost",
    ),
    "a web page": (POST + b"Origin: https://evil.example\r\n\r\n", 403, "web pages may not ask here"),
    "a sandboxed web page": (POST + b"Origin: null\r\n\r\n", 403, "web pages may not ask here"),
    "a header length that is no number": (
        POST + b"Inference-Header-Content-Length: 1x\r\n\r\n",
        400,
        "expected a whole number of bytes",
    ),
    "a request that does not end": (POST + b"Content-Length: 10\r\n\r\nabc", 408, "expected a whole request"),
    "a head that does not end": (b"GET / HT", 408, "expected a whole request"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_refused_in_words(case: str) -> None:
    _expect(*REFUSED[case])


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"http://localhost:8500/v2/models/m", b"/v2/models/m"),
        (b"HTTP://LocalHost:8500/v2?a=http://b", b"/v2?a=http://b"),
        (b"http://localhost:8500", b"/"),
        (b"http://localhost:8500?a", b"/?a"),
        (b"/http://evil.example/v2", b"/http://evil.example/v2"),
    ],
)
def test_a_target_may_begin_with_the_server(target: bytes, path: bytes) -> None:
    async def client(server: HttpServer, port: int) -> None:
        answer = await _whole(port, b"GET " + target + b" HTTP/1.1\r\nHost: localhost:8500\r\n\r\n")
        assert (answer[9:12], answer.partition(b"\r\n\r\n")[2]) == (b"200", b"<" + path + b">")

    _run(client)


@pytest.mark.parametrize(
    "target",
    [
        b"http://localhost/v2",
        b"http://localhost:85001/v2",
        b"http://a@localhost:8500/v2",
        b"http://localhost:8500.evil.example/v2",
        b"https://localhost:8500/v2",
        b"http:///v2",
        b"ftp://localhost:8500/v2",
    ],
)
@pytest.mark.parametrize("host", [b"localhost:8500", None])
def test_a_target_may_name_no_other_server_than_was_checked(target: bytes, host: bytes | None) -> None:
    with pytest.raises(Refusal, match="expected a path, or an address with the server") as caught:
        Head(method=b"GET", target=target, headers={} if host is None else {b"host": host}, keep_alive=True)
    assert caught.value.status == 400


def test_a_bug_costs_one_connection() -> None:
    _expect(GET % b"fail", 500, "internal error")


def test_a_refusal_keeps_the_connection() -> None:
    async def client(server: HttpServer, port: int) -> None:
        answer = await _whole(port, GET % b"refuse" + GET % b"next")
        assert b"409 Conflict" in answer
        assert answer.endswith(b"</next>")

    _run(client)


def test_pipelined_requests_are_answered_in_order() -> None:
    async def client(server: HttpServer, port: int) -> None:
        names = [b"a", b"later", b"b", b"later", b"c"]
        answer = await _whole(port, b"".join(GET % name for name in names))
        assert [part.partition(b">")[0] for part in answer.split(b"</")[1:]] == names

    _run(client)


def test_a_thousand_pipelined_requests_wait_for_a_slow_one() -> None:
    async def client(server: HttpServer, port: int) -> None:
        answer = await _whole(port, GET % b"later" + GET % b"x" * 1000)
        assert answer.count(b"</x>") == 1000

    _run(client)


def test_a_request_may_come_byte_by_byte() -> None:
    async def client(server: HttpServer, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for byte in POST + b"Content-Length: 3\r\n\r\nabc":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert (await reader.readuntil(b">")).endswith(b"</abc>")
        writer.close()

    _run(client)


def test_chunks_are_put_together() -> None:
    async def client(server: HttpServer, port: int) -> None:
        chunks = b"1\r\na\r\n2;ext\r\nbc\r\n3\r\ndef\r\n0\r\nHost: evil\r\n\r\n"
        answer = await _whole(port, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        assert answer.endswith(b"</abcdef>")

    _run(client)


def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    async def client(server: HttpServer, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Expect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.readuntil(b">")).endswith(b"</abc>")
        writer.close()

    _run(client)


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"
"""As curl and Java's client say it with each request, if nobody tells them otherwise."""


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_upgrade_is_not_taken_and_its_body_is_read(size: int) -> None:
    bodies = [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"]
    sent = b"".join(POST + OFFER + body for body in bodies) + GET[:-2] % b"x" + OFFER + b"\r\n" + GET % b"y"

    async def client(server: HttpServer, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for at in range(0, len(sent), size):
            writer.write(sent[at : at + size])
            await writer.drain()
            await asyncio.sleep(0)
        for body in (b"</abc>", b"</abc>", b"</x>", b"</y>"):
            answer = await reader.readuntil(b">")
            assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(body)
        writer.close()

    _run(client)


def test_an_offer_changes_nothing_of_what_is_checked() -> None:
    async def client(server: HttpServer, port: int) -> None:
        wrong = POST.replace(b"localhost", b"evil.example") + OFFER + b"Content-Length: 3\r\n\r\nabc"
        assert (await _until_closed(port, wrong)).startswith(b"HTTP/1.1 403")
        large = POST + OFFER + b"Content-Length: 1001\r\n\r\n"
        assert (await _until_closed(port, large)).startswith(b"HTTP/1.1 413")
        ends = POST + OFFER + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc" + GET % b"never"
        answer = await _until_closed(port, ends)
        assert answer.count(b"HTTP/1.1") == 1 and answer.endswith(b"</abc>")

    _run(client)


def test_a_tunnel_is_not_opened() -> None:
    async def client(server: HttpServer, port: int) -> None:
        asked = b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = await _until_closed(port, asked + GET % b"behind")
        assert answer.count(b"HTTP/1.1") == 1

    _run(client)


@pytest.mark.parametrize(
    "head", [b"GET /x HTTP/1.0\r\nHost: localhost\r\n\r\n", GET[:-2] % b"x" + b"Connection: close\r\n\r\n"]
)
def test_a_connection_ends_when_the_client_wants_it(head: bytes) -> None:
    async def client(server: HttpServer, port: int) -> None:
        answer = await _until_closed(port, head)
        assert b"Connection: close" in answer
        assert answer.endswith(b"</x>")

    _run(client)


def test_who_finds_no_place_reads_so_though_a_body_was_sent() -> None:
    async def client(server: HttpServer, port: int) -> None:
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SMALL.connections)]
        await until(lambda: len(server.state.connections) == SMALL.connections)
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(POST + b"Content-Length: 1000\r\n\r\n" + bytes(1000))
            assert (await reader.read()).startswith(b"HTTP/1.1 503")
            writer.close()
        await until(lambda: not server.state.turned_away)
        for _, writer in crowd:
            writer.close()

    _run(client)


def test_an_answer_reaches_a_client_that_is_still_sending() -> None:
    async def client(server: HttpServer, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Content-Length: 100000000\r\n\r\n")
        with suppress(ConnectionError):
            for _ in range(20):
                writer.write(b"x" * 100_000)
                await writer.drain()
        assert b"413" in await reader.readline()
        writer.close()

    _run(client)


def test_idle_connections_end() -> None:
    async def client(server: HttpServer, port: int) -> None:
        assert await _until_closed(port) == b""

    _run(client)


def test_connections_beyond_the_limit_are_refused_and_the_rest_go_on() -> None:
    async def client(server: HttpServer, port: int) -> None:
        kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(SMALL.connections)]
        await until(lambda: len(server.state.connections) == SMALL.connections)
        refused = [await _until_closed(port) for _ in range(20)]
        assert all(b"503" in answer and b"expected at most 4 connections" in answer for answer in refused)
        for reader, writer in kept:
            writer.write(GET % b"x")
            assert (await reader.readuntil(b">")).endswith(b"</x>")
            writer.close()

    _run(client)


def test_large_bodies_of_all_together_are_limited() -> None:
    async def client(server: HttpServer, port: int) -> None:
        waiting = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for _, writer in waiting:
            writer.write(b"POST /never HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n" + b"x" * 900)
        await until(lambda: server.state.held_bytes == 1800)
        answer = await _until_closed(port, POST + b"Content-Length: 900\r\n\r\n" + b"x" * 900)
        assert b"503" in answer
        assert b"too many large ones wait" in answer
        for connection in server.state.connections:
            connection.abort()
        for _, writer in waiting:
            writer.close()

    _run(client, limits=Limits(body_bytes=1000, held_bytes=2000, linger_s=0.2))


def test_a_client_that_does_not_read_is_cut() -> None:
    async def client(server: HttpServer, port: int) -> None:
        body = b"x" * 60_000
        with socket.create_connection(("127.0.0.1", port)) as deaf:
            deaf.setblocking(False)
            request = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
            loop = asyncio.get_running_loop()
            with suppress(ConnectionError):
                while True:  # until the server has stopped reading, and then cut the connection
                    await loop.sock_sendall(deaf, request)
                    assert server.state.held_bytes <= 20 * len(body)

    _run(client, limits=Limits(body_bytes=100_000, write_s=0.4, linger_s=0.2))


def test_a_client_that_asks_and_does_not_read_is_not_listened_to() -> None:
    async def client(server: HttpServer, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
        request = GET % (b"x" * 900)
        with suppress(ConnectionError):
            while True:
                writer.write(request * 100)
                await asyncio.wait_for(writer.drain(), 5)
                for each in server.state.connections:
                    assert isinstance(each, Connection)
                    assert len(each._waiting) < 1000
        writer.close()
        assert reader

    _run(client, limits=Limits(write_s=0.4, linger_s=0.2))


def test_a_client_that_leaves_is_forgotten() -> None:
    async def client(server: HttpServer, port: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Content-Length: 900\r\n\r\nabc")
        _, waiting = await asyncio.open_connection("127.0.0.1", port)
        waiting.write(GET % b"later")
        await until(lambda: len(server.state.connections) == 2)
        writer.transport.abort()
        waiting.transport.abort()

    _run(client)


def test_what_was_asked_is_answered_before_the_end() -> None:
    async def main() -> bytes:
        server = HttpServer(_echo, SMALL)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await server.listen(listener)
            port = listener.getsockname()[1]
            idle = await asyncio.open_connection("127.0.0.1", port)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(GET % b"later")
            await until(
                lambda: any(isinstance(each, Connection) and each._current for each in server.state.connections)
            )
            await server.drain(5)
            assert await idle[0].read() == b""
            idle[1].close()
            answer = await reader.read()
            writer.close()
            return answer

    assert asyncio.run(main()).endswith(b"</later>")


def test_answers_that_nobody_reads_have_a_limit() -> None:
    size = 8 << 20

    def large(request: Request) -> None:
        request.answer((bytes(size),))

    async def main() -> None:
        server = HttpServer(large, replace(SMALL, held_bytes=2 * size, write_s=20))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await server.listen(listener)
            port = listener.getsockname()[1]
            asked = [await asyncio.open_connection("127.0.0.1", port, limit=1024) for _ in range(4)]
            for _, writer in asked:
                writer.write(GET % b"large")
                await writer.drain()
            await until(lambda: server.state.held_bytes > size)
            heads = [await reader.readuntil(b"\r\n\r\n") for reader, _ in asked]
            assert sorted(head.split(b" ", 2)[1] for head in heads) == [b"200", b"200", b"503", b"503"]
            assert server.state.held_bytes <= 2 * size
            for head, (reader, _) in zip(heads, asked, strict=True):
                body = await reader.readexactly(int(re.findall(rb"Content-Length: (\d+)", head)[0]))
                assert len(body) == size or b"expected room for the answer" in body
            await until(lambda: not server.state.held_bytes)
            for _, writer in asked:
                writer.close()
            await server.drain(5)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_an_answer_that_is_larger_than_all_may_be_goes_when_it_is_alone() -> None:
    async def main() -> bytes:
        server = HttpServer(lambda request: request.answer((bytes(4 << 20),)), replace(SMALL, held_bytes=1 << 20))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await server.listen(listener)
            answer = await _whole(listener.getsockname()[1], GET % b"large")
            await server.drain(5)
            return answer

    answer = asyncio.run(main())
    assert answer.startswith(b"HTTP/1.1 200") and len(answer) > 4 << 20


def test_head_gets_the_head_alone() -> None:
    async def client(server: HttpServer, port: int) -> None:
        answers = await _whole(port, b"HEAD /x HTTP/1.1\r\nHost: localhost\r\n\r\n" + GET % b"after")
        assert answers.count(b"HTTP/1.1 200") == 2
        first, _, rest = answers.partition(b"\r\n\r\n")
        assert b"Content-Length: 4" in first
        assert rest.startswith(b"HTTP/1.1 200") and rest.endswith(b"</after>")

    _run(client)


def test_all_that_was_asked_at_once_is_answered_before_the_end() -> None:
    async def main() -> bytes:
        server = HttpServer(_echo, SMALL)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await server.listen(listener)
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
            writer.write(GET % b"later" * 2 + GET % b"last")
            await until(lambda: any(cast(Connection, each)._waiting for each in server.state.connections))
            draining = asyncio.create_task(server.drain(5))
            answers = await reader.read()
            writer.close()
            await draining
            return answers

    answers = asyncio.run(main())
    assert re.findall(rb"</\w+>", answers) == [b"</later>", b"</later>", b"</last>"]
    assert answers.count(b"Connection: close") == 1


def test_a_unix_socket_asks_for_no_host(tmp_path: Path) -> None:
    async def main() -> bytes:
        server = HttpServer(_echo, SMALL)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "s"))
            listener.listen()
            await server.listen(listener)
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(b"GET /x HTTP/1.1\r\n\r\n")
            answer = await reader.readuntil(b">")
            writer.close()
            await server.drain(1)
            return answer

    assert asyncio.run(main()).startswith(b"HTTP/1.1 200")


HOSTS = [b"localhost", b"LOCALHOST:80", b"127.0.0.1:8500", b"127.9.9.9", b"[::1]:8500"]
FOREIGN = [b"evil.example", b"127.0.0.1.evil.example", b"localhost.evil.example", b"a@localhost", b"", b"\xff", b"[::1"]


@pytest.mark.parametrize("host", HOSTS)
def test_a_loopback_host_may_ask(host: bytes) -> None:
    guard = HostGuard(local_only=True)
    guard({b"host": host})
    guard({b"host": host, b"origin": b"http://" + host})


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("local_only", [True, False])
def test_a_foreign_name_may_not(host: bytes, local_only: bool) -> None:
    with pytest.raises(Refusal):
        HostGuard(local_only=local_only)({b"host": host})


def test_an_opened_port_takes_addresses() -> None:
    HostGuard(local_only=False)({b"host": b"192.0.2.7:8500"})
    with pytest.raises(Refusal):
        HostGuard(local_only=True)({b"host": b"192.0.2.7:8500"})


class _Transport(asyncio.Transport):
    """Takes what a connection writes; for feeding bytes without a network."""

    def __init__(self, **shown: object) -> None:
        super().__init__(shown)
        self.ended = False
        self.unsent = 0
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        self.written += bytes(data)

    def writelines(self, parts: Iterable[bytes | bytearray | memoryview]) -> None:
        for part in parts:
            self.write(part)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


_PIECES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /later HTTP/1.1\r\n",
        b"Host: localhost\r\n",
        b"Content-Length: 3\r\n",
        b"\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"abc",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"Connection: close\r\n",
        b"Expect: x\r\n",
        b"Upgrade: x\r\nConnection: Upgrade\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
    ]
)


@given(st.lists(st.lists(_PIECES | st.binary(max_size=9), max_size=8).map(b"".join), max_size=5))
def test_no_bytes_break_a_connection(pieces: list[bytes]) -> None:
    async def main() -> None:
        server = HttpServer(_echo, SMALL, Callers())
        connection = Connection(server.state, _guard())
        connection.connection_made(_Transport())
        for piece in pieces:
            connection.data_received(piece)
        assert server.state.callers.alone
        connection.eof_received()
        connection.connection_lost(None)
        assert not server.state.connections
        assert server.state.callers.count == 0
        assert server.state.held_bytes == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("others", "unsent", "data", "waits"),
    [
        (0, 0, POST + b"Content-Length: 3\r\n\r\nabc", True),
        (1, 0, POST + b"Content-Length: 3\r\n\r\nabc", False),
        (0, 0, POST + b"Content-Length: 3\r\n\r\nab", False),  # it is not whole yet
        (0, 0, POST + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc", False),
        (0, 1, POST + b"Content-Length: 3\r\n\r\nabc", False),  # the loop has the rest of the answer
    ],
)
def test_the_next_request_of_who_is_alone_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, others: int, unsent: int, data: bytes, waits: bool
) -> None:
    waited: list[Patience] = []
    monkeypatch.setattr(Patience, "wait", lambda patience: waited.append(patience))

    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            server = HttpServer(_echo, SMALL, Callers(others))
            transport = _Transport(socket=ours)
            transport.unsent = unsent
            connection = Connection(server.state, _guard())
            connection.connection_made(transport)
            connection.data_received(data)
            assert bool(waited) is waits

    asyncio.run(main())


_HEAD = POST + b"Content-Length: %d\r\n\r\n"
_BODIES = [b"abc", b"abd", b"a\r\n", b"\r\nb", b"\n", b"x" * 40, b""]
_MESSAGES = [
    *(_HEAD % len(body) + body for body in _BODIES),
    b"POST /refuse HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    b"POST /x HTTP/1.1\r\nHost: localhost\r\ncontent-length:  3\r\n\r\nabc",
    POST + b"Content-Length: 3\r\nInference-Header-Content-Length: 2\r\n\r\nabc",
    POST + b"Content-Length: 3\r\nConnection: close\r\n\r\nabc",
    POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    GET % b"x",
    b"\r\n",
    b"\r\n" + _HEAD % 3 + b"abc",
    _HEAD % 3 + b"abc\r\n",
    _HEAD % 4 + b"\r\n\r\n\r\n",
    _HEAD % 3 + b"ab",
    b"c",
]


_OTHER = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"


@example([_HEAD % 3 + b"a", b"bc" + _OTHER + b"abd", _HEAD % 3 + b"abe" + _OTHER + b"abf", _HEAD % 3 + b"now"])
@example([_HEAD % 3 + b"a", b"bc" + _OTHER + b"a", b"bd", _HEAD % 3 + b"now"])
@given(st.lists(st.lists(st.sampled_from(_MESSAGES), min_size=1, max_size=2).map(b"".join), max_size=12))
def test_a_head_that_came_before_means_what_it_meant(pieces: list[bytes]) -> None:
    """Answers are the same, byte for byte, whether heads are remembered or each is parsed."""

    async def transcript(*, remember: bool) -> bytes:
        server = HttpServer(_echo, SMALL)
        connection = Connection(server.state, _guard())
        transport = _Transport()
        connection.connection_made(transport)
        for piece in pieces:
            connection.data_received(piece)
            for _ in range(8):  # where this process was stopped meanwhile, others have their turn between requests
                await asyncio.sleep(0)
            connection._known = connection._known if remember else None
        connection.connection_lost(None)
        assert server.state.held_bytes == 0
        return transport.written

    assert asyncio.run(transcript(remember=True)) == asyncio.run(transcript(remember=False))


def test_a_head_is_remembered_and_forgotten() -> None:
    async def main() -> None:
        connection = Connection(HttpServer(_echo, SMALL).state, _guard())
        transport = _Transport()
        connection.connection_made(transport)
        for body in (b"abc", b"abd", b"abe"):
            connection.data_received(_HEAD % 3 + body)
        assert connection._known is not None
        assert connection._known.begin == _HEAD % 3
        assert transport.written.count(b"200 OK") == 3
        assert transport.written.endswith(b"</abe>")
        connection.data_received(_HEAD % 4 + b"abcd")
        assert connection._known.begin == _HEAD % 4
        connection.connection_lost(None)

    asyncio.run(main())


def test_many_requests_in_one_piece_do_not_hold_up_the_loop() -> None:
    def slow(request: Request) -> None:
        time.sleep(0.002)
        request.answer((b"{}",))

    async def main() -> None:
        server = HttpServer(slow, SMALL)
        connection = Connection(server.state, _guard())
        transport = _Transport()
        connection.connection_made(transport)
        seen: list[int] = []

        def look() -> None:
            seen.append(transport.written.count(b"200 OK"))
            if seen[-1] < 20:
                asyncio.get_running_loop().call_soon(look)

        asyncio.get_running_loop().call_soon(look)
        connection.data_received((_HEAD % 3 + b"abc") * 20)
        await until(lambda: seen and seen[-1] == 20)
        assert max(later - earlier for earlier, later in itertools.pairwise([0, *seen])) <= 2
        connection.connection_lost(None)

    asyncio.run(main())
