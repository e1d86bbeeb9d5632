"""What the bedside client makes of servers that are not what they should be."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeward_agent.client import (
    Answer,
    AsyncClient,
    Client,
    ClientError,
    InvalidAddress,
    InvalidRequest,
    NotAllowed,
    NotRecorded,
    ServerFailed,
    Unavailable,
    Unreachable,
)
from edgeward_agent.client.dialogue import Dialogue
from edgeward_agent.client.learnt import Learnt
from edgeward_agent.client.wish import Wish
from edgeward_agent.wire.frames import opened_packet
from edgeward_agent.wire.tensors import Array
from support.clients import Waiting
from support.serving import until

_HEADERS = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


@contextmanager
def _server(*answers: bytes) -> Iterator[str]:
    """Gives each connection one answer, whatever it asks, and closes it; the last answer is given for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for number in range(100):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(answers[min(number, len(answers) - 1)])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _answer(status: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + more + _HEADERS % (len(body), body)


_GOOD = _answer(
    b"200 OK",
    b'{"model_name":"m","model_version":"1","outputs":'
    b'[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}' + np.float32(2).tobytes(),
    b"Inference-Header-Content-Length: 129\r\n",
)

CASES: list[tuple[bytes, type[ClientError], str]] = [
    (b"", Unreachable, "expected an answer, got"),
    (b"SSH-2.0-x\r\n", Unreachable, "expected an answer, got"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", Unreachable, "expected an answer, got"),
    (_answer(b"200 OK", b"nonsense"), ServerFailed, "expected an answer of the protocol"),
    (_answer(b"200 OK", b"{}"), ServerFailed, "model_name|outputs"),
    (_answer(b"200 OK", b"{}", b"Inference-Header-Content-Length: x\r\n"), Unreachable, "expected a number in"),
    (_GOOD.replace(b'"shape":[1]', b'"shape":[2]'), ServerFailed, "expected 8 bytes for FP32"),
    (_answer(b"502 Bad Gateway", b"<html>"), ServerFailed, "expected an answer, got status 502"),
    (_answer(b"400 Bad", b'{"error":"because"}'), InvalidRequest, "because"),
    (_answer(b"501 Never", b'{"error":"no outbox"}'), InvalidRequest, "no outbox"),
    (_answer(b"503 Busy", b'{"error":"busy"}'), Unavailable, "busy"),
    (_answer(b"503 Busy", b'{"error":"result not recorded: x"}'), NotRecorded, "result not recorded: x"),
]


@pytest.mark.parametrize("opened", [Client, Waiting])
@pytest.mark.parametrize(("answer", "kind", "words"), CASES, ids=[str(number) for number in range(len(CASES))])
def test_a_strange_answer_is_a_client_error(
    opened: type[Client] | type[Waiting], answer: bytes, kind: type[ClientError], words: str
) -> None:
    with _server(answer) as address, opened(address) as client, pytest.raises(kind, match=words) as caught:
        client.infer("m", {"x": np.zeros(1)})
    assert type(caught.value) is kind
    assert caught.value.hint


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        (b"Retry-After: 3\r\n", 3.0),
        (b"retry-after:12\r\n", 12.0),
        (b"", None),
        (b"Retry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n", None),
        (b"Retry-After: -1\r\n", None),
        (b"Retry-After: " + b"9" * 99 + b"\r\n", None),
    ],
)
@pytest.mark.parametrize("opened", [Client, Waiting])
def test_a_full_server_says_when_to_ask_again(
    opened: type[Client] | type[Waiting], line: bytes, seconds: float | None
) -> None:
    full = _answer(b"503 Service Unavailable", b'{"error":"full"}', line)
    with _server(full) as address, opened(address) as client, pytest.raises(Unavailable, match="full") as caught:
        client.infer("m", {"x": np.zeros(1)})
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize("opened", [Client, Waiting])
def test_a_connection_that_was_closed_is_opened_again(opened: type[Client] | type[Waiting]) -> None:
    with _server(_GOOD) as address, opened(address) as client:
        for _ in range(3):
            assert client.infer("m", {"x": np.zeros(1)})["y"].tolist() == [2.0]


def test_nobody_there_is_unreachable_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with Client(address, timeout_s=0.1) as client, pytest.raises(Unreachable, match="timed out"):
            client.infer("m", {"x": np.zeros(1)})
    with Client("unix:/nowhere/at.all") as client:
        with pytest.raises(Unreachable, match="No such file"):
            client.model("m")
        assert not client.ready()


def test_a_token_is_shown_with_every_question() -> None:
    dialogue = Dialogue("http://localhost", token="s3cret")
    shown = b"\r\nAuthorization: Bearer s3cret\r\n"
    assert shown in dialogue.get("/v2")
    request = dialogue.ask(Wish(model="m"), {"x": np.zeros(1)})[1]
    assert isinstance(request, bytes)
    assert shown in request
    assert b"Authorization" not in Dialogue("http://localhost").get("/v2")


def test_who_is_not_let_in_is_told_how() -> None:
    refused = _answer(b"401 Unauthorized", b'{"error":"who?"}')
    with _server(refused) as address, Client(address) as client, pytest.raises(NotAllowed, match="who") as caught:
        client.infer("m", {"x": np.zeros(1)})
    assert "token" in caught.value.hint


async def _ask_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with AsyncClient(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05) as client:
            with pytest.raises(Unreachable, match="timed out"):
                await client.infer("m", {"x": np.zeros(1)})
            assert not await client.ready()


def test_nobody_waits_for_ever_in_a_loop() -> None:
    asyncio.run(_ask_nobody())


@contextmanager
def _deaf(host: str) -> Iterator[tuple[str, int]]:
    """Takes no connection any more: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((host, 0))
        listener.listen(0)
        for _ in range(4):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_a_time_out_is_for_all_addresses_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with _deaf("127.0.0.2") as first, _deaf("127.0.0.3") as second, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        answering = listener.getsockname()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each) for each in (first, second)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        began_s = time.monotonic()
        with Client("http://two.example", timeout_s=0.5) as client, pytest.raises(Unreachable, match="timed out"):
            client.infer("m", {"x": np.zeros(1)})
        assert time.monotonic() - began_s < 0.9
        found[1] = (socket.AF_INET, socket.SOCK_STREAM, 6, "", answering)  # and the last has its share
        asking = threading.Thread(target=lambda: Client("http://two.example", timeout_s=1).ready())
        asking.start()
        listener.accept()[0].close()
        asking.join()


@contextmanager
def _slow_frames(folder: Path) -> Iterator[tuple[str, str]]:
    """Refuses each plan after 0.4 s, and answers one question over HTTP, the first."""
    paths = folder / "frames.sock", folder / "serving.sock"
    with ExitStack() as stack:
        frames, http = (
            stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM)
        )
        for listener, path in zip((frames, http), paths, strict=True):
            listener.bind(str(path))
            listener.listen(5)

        def refuse() -> None:
            connection, _ = frames.accept()
            with connection:
                connection.recv(1 << 16)
                time.sleep(0.4)  # what a busy server takes
                connection.send(opened_packet(503, {"error": "busy"}))

        def answer() -> None:
            connection, _ = http.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(_GOOD)
                while connection.recv(1 << 16):
                    pass

        threads = [threading.Thread(target=each, daemon=True) for each in (refuse, answer)]
        for each in threads:
            each.start()
        yield f"frames:{paths[0]}", f"unix:{paths[1]}"
        for each in threads:
            each.join()


@pytest.mark.parametrize("opened", [Client, Waiting])
def test_a_time_out_is_for_shared_memory_and_http_together(
    opened: type[Client] | type[Waiting], tmp_path: Path
) -> None:
    with _slow_frames(tmp_path) as (address, http), opened(address, timeout_s=0.5, http=http) as client:
        assert client.infer("m", {"x": np.zeros(1)})["y"].tolist() == [2.0]
        began_s = time.monotonic()
        with pytest.raises(Unreachable, match="timed out"):
            client.infer("m", {"x": np.zeros(1)})
        assert time.monotonic() - began_s < 0.8  # a time-out for each would make 0.9


def test_a_client_in_another_loop_is_refused_at_once() -> None:
    async def ask(client: AsyncClient) -> None:
        assert (await client.infer("m", {"x": np.zeros(1)}))["y"].tolist() == [2.0]

    async def ask_and_leave(client: AsyncClient) -> None:
        async with client:
            await ask(client)

    with _server(_GOOD) as address:
        client = AsyncClient(address, timeout_s=5)
        with asyncio.Runner() as first, asyncio.Runner() as second:
            first.run(ask(client))
            for again in (ask, ask_and_leave):
                began_s = time.monotonic()
                with pytest.raises(InvalidRequest, match="expected the event loop of this client's first") as caught:
                    second.run(again(client))
                assert "Make an AsyncClient in each event loop" in caught.value.hint
                assert time.monotonic() - began_s < 1
            first.run(ask_and_leave(client))


@contextmanager
def _full(path: Path, kind: socket.SocketKind) -> Iterator[socket.socket]:
    """Listens, and its queue has no room until somebody is taken up."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
        listener.bind(str(path))
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX, kind)).connect(str(path))
        yield listener


@pytest.mark.parametrize("opened", [Client, Waiting])
def test_a_full_queue_is_waited_for_and_then_named(opened: type[Client] | type[Waiting], tmp_path: Path) -> None:
    path = tmp_path / "serving.sock"
    with _full(path, socket.SOCK_STREAM) as listener:
        with opened(f"unix:{path}", timeout_s=0.3) as client:
            began_s = time.monotonic()
            with pytest.raises(Unreachable, match="timed out, the server's queue of new connections was full"):
                client.infer("m", {"x": np.zeros(1)})
            assert 0.2 < time.monotonic() - began_s < 1
        with opened(f"unix:{path}", timeout_s=20) as client:
            making_room = threading.Timer(0.1, lambda: listener.accept()[0].close())
            making_room.start()
            answering = threading.Thread(target=_answer_one, args=(listener, making_room))
            answering.start()
            assert client.infer("m", {"x": np.zeros(1)})["y"].tolist() == [2.0]
            answering.join()


def _answer_one(listener: socket.socket, after: threading.Thread) -> None:
    after.join()
    connection, _ = listener.accept()
    with connection:
        connection.recv(1 << 16)
        connection.sendall(_GOOD)


@pytest.mark.parametrize("opened", [Client, Waiting])
def test_a_full_queue_of_shared_memory_is_no_other(opened: type[Client] | type[Waiting], tmp_path: Path) -> None:
    path = tmp_path / "frames.sock"
    with (
        _server(_GOOD) as http,
        _full(path, socket.SOCK_SEQPACKET),
        opened(f"frames:{path}", timeout_s=0.3, http=http) as client,
    ):
        assert client.infer("m", {"x": np.zeros(1)})["y"].tolist() == [2.0]
        with pytest.raises(Unreachable, match="^frames:.* the server's queue of new connections was full"):
            client.infer("m", {"x": np.zeros(1)})


async def _wait_for_a_turn() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with AsyncClient(address, timeout_s=0.2, connections=2) as client:
            began_s = time.monotonic()
            asked = [client.infer("m", {"x": np.zeros(1)}) for _ in range(20)]
            told = await asyncio.gather(*asked, return_exceptions=True)
            assert time.monotonic() - began_s < 1  # one after the other would make 2
    assert {type(each) for each in told} == {Unreachable}
    words = "expected a turn within 0.2 s, other questions on this client have its connections (2)"
    assert sum(words in str(each) for each in told) >= 16


def test_a_turn_in_a_loop_is_not_waited_for_without_end() -> None:
    asyncio.run(_wait_for_a_turn())


class _Counting:
    """Answers each request after all others that come in the same moment, and counts those at once."""

    def __init__(self) -> None:
        self.now = self.most = self.connections = self.left = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while head := await _head(reader):
            await reader.readexactly(int(re.findall(rb"\r\nContent-Length: (\d+)", head)[0]))
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0)
            self.now -= 1
            writer.write(_GOOD)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        self.left += 1


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def _ask_much_at_once() -> None:
    counting = _Counting()
    async with await asyncio.start_server(counting, "127.0.0.1", 0) as server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with AsyncClient(address, connections=3) as client:
            async with asyncio.TaskGroup() as tasks:
                asked = [tasks.create_task(client.infer("m", {"x": np.zeros(1)})) for _ in range(50)]
            assert [each.result()["y"].tolist() for each in asked] == [[2.0]] * 50
            # A question that is given up takes its connection with it: the answer must not be another question's.
            given_up = asyncio.create_task(client.infer("m", {"x": np.zeros(1)}))
            await asyncio.sleep(0)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            assert (await client.infer("m", {"x": np.zeros(1)}))["y"].tolist() == [2.0]
        await until(lambda: counting.left == counting.connections)
    assert 1 < counting.most <= 3
    assert counting.connections <= 5


def test_many_questions_share_few_connections() -> None:
    asyncio.run(_ask_much_at_once())


async def _close_while_asking() -> None:
    counting, go_on = _Counting(), asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await counting(reader, writer)

    async with await asyncio.start_server(slowly, "127.0.0.1", 0) as server:
        client = AsyncClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections=1)
        asking, waiting = (asyncio.create_task(client.infer("m", {"x": np.zeros(1)})) for _ in range(2))
        await asyncio.sleep(0)
        await client.close()
        go_on.set()
        for each in (asking, waiting):
            assert (await each)["y"].tolist() == [2.0]
        await until(lambda: counting.left == counting.connections == 2)
        for _ in range(2):  # and it may be used again
            assert (await client.infer("m", {"x": np.zeros(1)}))["y"].tolist() == [2.0]
        assert counting.connections == 3
        await client.close()
        await until(lambda: counting.left == 3)


def test_who_closes_while_questions_are_under_way_leaves_no_connection() -> None:
    asyncio.run(_close_while_asking())


@pytest.mark.parametrize(
    "address",
    [
        "",
        "http://[::1",
        "http://localhost:x",
        "http://localhost:0",
        "localhost:8500",
        "https://localhost",
        "ftp://x",
        "http://",
        "http://localhost:1/behind/a/proxy",
        "http://user@localhost:1",
        "http://localhost?x=1",
        "http://\ud800",
        "http://a..b",
        "http://" + "a" * 64,
    ],
)
def test_an_address_that_is_none_is_said(address: str) -> None:
    with pytest.raises(InvalidRequest, match="expected http://HOST:PORT, unix:PATH or frames:PATH"):
        Client(address)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("http://localhost:0", "nobody listens on port 0"),
        ("http://localhost:70000", "Port out of range 0-65535"),
        ("http://[::1", "Invalid IPv6 URL"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(address: str, why: str) -> None:
    with pytest.raises(InvalidAddress, match=f"got {re.escape(repr(address))}: {why}"):
        Client(address)


@pytest.mark.parametrize("address", [None, 5, "unix:", "frames:", "unix://", "unix:\ud800", "frames:\ud800"])
def test_an_address_without_a_path_or_a_word_is_said(address: str) -> None:
    with pytest.raises(InvalidAddress, match=r"expected (http:.*frames:|unix:|frames:)PATH, got"):
        Client(address)


@pytest.mark.parametrize("opened", [Client, AsyncClient])
def test_what_no_client_can_be_made_with_is_said(opened: type[Client] | type[AsyncClient]) -> None:
    for timeout_s in (0, -1, float("nan"), float("inf"), None, "5"):
        with pytest.raises(InvalidAddress, match="expected a time-out from 0 to"):
            opened(timeout_s=timeout_s)  # type: ignore[arg-type]
    for token in ("two words", "ends\n", "é", 5, 0, b"secret", b""):
        with pytest.raises(InvalidAddress, match="expected a token of letters"):
            opened(token=token)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"capture": "always"}, "'always' is not a valid CaptureMode"),
        ({"deadline_us": 1.5e6}, "expected deadline_us as a whole number, got 1500000.0"),
        ({"priority": None}, "expected priority as a whole number, got None"),
        ({"version": "1"}, "expected version as a whole number, got '1'"),
        ({"outputs": "risk"}, "expected names of outputs, each once, got 'risk'"),
        ({"outputs": 3}, "expected names of outputs, each once, got 3"),
        ({"outputs": None}, "expected names of outputs, each once, got None"),
        ({"outputs": [["risk"]]}, "expected names of outputs, each once, got .*risk"),
        ({"model": 5}, "expected the name of a model and an id as str, got 5"),
        ({"request_id": 4}, "expected the name of a model and an id as str"),
        ({"inputs": None}, "expected arrays by input name, got NoneType"),
        ({"inputs": np.zeros(1)}, "expected arrays by input name, got ndarray"),
        ({"deadline_us": -1}, "expected a deadline from 0 to [0-9]+ µs, got -1"),
        ({"deadline_us": 1 << 63}, "expected a deadline from 0 to [0-9]+ µs, got [0-9]+"),
        ({"priority": -1}, "expected a priority from 0 to [0-9]+, got -1"),
        ({"priority": 1 << 64}, "expected a priority from 0 to [0-9]+, got [0-9]+"),
    ],
)
def test_a_wish_of_another_type_is_an_invalid_request(wish: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        Client("unix:/nowhere").infer(**{"model": "m", "inputs": {"x": np.zeros(1)}} | wish)


@pytest.mark.parametrize("connections", [0, -1, 1.5, "a"])
def test_a_client_without_connections_is_refused(connections: Any) -> None:
    with pytest.raises(InvalidAddress, match="expected at least 1 connection"):
        AsyncClient("unix:/nowhere", connections=connections)


def test_rows_of_different_lengths_are_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match="input 'x': expected an array, got: .*inhomogeneous"):
        Client("unix:/nowhere").infer("m", {"x": [[1.0], [1.0, 2.0]]})  # type: ignore[dict-item]


class _Forking:
    """An array whose making forks: in the new process the client has another turn than the one that it took."""

    child = -1

    def __array__(self, *_: object, **__: object) -> Array:
        self.child = os.fork()
        return np.zeros(1)


def test_a_fork_in_the_middle_of_a_question_ends_as_a_question_does() -> None:
    client, given = Client("unix:/nowhere"), _Forking()
    told = ""
    try:
        client.infer("m", {"x": given})  # type: ignore[dict-item]
    except Exception as error:
        told = type(error).__name__
    if given.child == 0:
        os._exit(told != "Unreachable")
    assert told == "Unreachable"
    assert os.waitstatus_to_exitcode(os.waitpid(given.child, 0)[1]) == 0


def test_http_has_another_place_beside_shared_memory_alone() -> None:
    with pytest.raises(InvalidRequest, match="expected http= beside frames:PATH alone"):
        Client("unix:/run/a.sock", http="unix:/run/b.sock")
    told = "unix:/nowhere/serving.sock (guessed from frames:PATH; http= names another): expected an answer, got"
    with Client("frames:/nowhere/frames.sock") as client:
        with pytest.raises(Unreachable, match=f"^{re.escape(told)}"):
            client.infer("m", {"x": np.zeros(1)})
        assert not client.ready()


def test_a_plan_that_is_refused_when_others_have_pushed_its_form_out_is_no_error() -> None:
    learnt, answer = Learnt(), Answer("m", "1", "", {"y": np.zeros(1)})
    for number in range(65):
        learnt.learn(number, {"x": np.zeros(1)}, answer)
    assert not learnt.refused(0, 503, 0.0)
    assert [learnt.refused(64, 503, 0.0), learnt.refused(64, 503, 9.0)] == [True, False]


def test_a_refusal_is_told_once_for_each_reason_whatever_the_form() -> None:
    learnt, answer = Learnt(), Answer("m", "1", "", {"y": np.zeros(1)})
    for number in range(3):
        learnt.learn(number, {"x": np.zeros(1)}, answer)
    assert [learnt.refused(number, 0, 0.0) for number in range(3)] == [True, False, False]
    assert [learnt.refused(number, 413, 9.0) for number in range(3)] == [True, False, False]


_ALONE = """
import sys

class Others:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy", "edgeward_agent", "edgeward_contract"}:
            raise ModuleNotFoundError(f"expected numpy alone, {name} was imported", name=name)

sys.meta_path.insert(0, Others())
from edgeward_agent.client import AsyncClient, Client, Unreachable
client = Client("frames:/nowhere/frames.sock")
AsyncClient("frames:/nowhere/frames.sock")
assert not client.ready()
print(*sorted({name.partition(".")[0] for name in sys.modules} - {*sys.stdlib_module_names, "__main__"}))
"""


def test_the_client_imports_numpy_alone() -> None:
    done = subprocess.run([sys.executable, "-c", _ALONE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {"numpy", "edgeward_agent", "edgeward_contract"} | _SITE


# What site-packages' own .pth files have imported before the first line.
_SITE = set(
    subprocess.run(
        [sys.executable, "-c", "import sys; print(*{name.partition('.')[0] for name in sys.modules})"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
)
