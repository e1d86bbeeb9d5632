"""What the bedside client makes of servers that are not what they should be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from edgeward_agent.client import (
    Client,
    ClientError,
    InvalidRequest,
    NotRecorded,
    ServerFailed,
    Unavailable,
    Unreachable,
)

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
    (_answer(b"200 OK", b"{}", b"Inference-Header-Content-Length: x\r\n"), ServerFailed, "expected an answer of the"),
    (_GOOD.replace(b'"shape":[1]', b'"shape":[2]'), ServerFailed, "expected 8 bytes for FP32"),
    (_answer(b"502 Bad Gateway", b"<html>"), ServerFailed, "expected an answer, got status 502"),
    (_answer(b"400 Bad", b'{"error":"because"}'), InvalidRequest, "because"),
    (_answer(b"503 Busy", b'{"error":"busy"}'), Unavailable, "busy"),
    (_answer(b"503 Busy", b'{"error":"result not recorded: x"}'), NotRecorded, "result not recorded: x"),
]


@pytest.mark.parametrize(("answer", "kind", "words"), CASES, ids=[str(number) for number in range(len(CASES))])
def test_a_strange_answer_is_a_client_error(answer: bytes, kind: type[ClientError], words: str) -> None:
    with _server(answer) as address, Client(address) as client, pytest.raises(kind, match=words) as caught:
        client.infer("m", {"x": np.zeros(1)})
    assert type(caught.value) is kind
    assert caught.value.hint


def test_a_connection_that_was_closed_is_opened_again() -> None:
    with _server(_GOOD) as address, Client(address) as client:
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


@pytest.mark.parametrize("address", ["", "localhost:8500", "https://localhost", "ftp://x", "http://"])
def test_an_address_that_is_none_is_said(address: str) -> None:
    with pytest.raises(InvalidRequest, match="expected http://HOST:PORT or unix:PATH"):
        Client(address)
